package main

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"sigs.k8s.io/yaml"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/internal/cli"
	"github.com/sluice-autoscaler/sluice/scaler/kube"
)

func workload(kind, name string) loop.Ref {
	return kube.TargetRef("shop", autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: kind, Name: name})
}

func TestHistoryFlags(t *testing.T) {
	t.Parallel()
	const url = "--history-prometheus=http://prometheus:9090"
	for name, c := range map[string]struct {
		args []string
		want []string // nil: no fault
	}{
		"none":          {},
		"url":           {args: []string{url}},
		"shortest":      {args: []string{url, "--history-range=1h", "--history-step=15s"}},
		"longest":       {args: []string{url, "--history-range=2160h"}},
		"own query":     {args: []string{url, `--history-query=max(x{n='{namespace}',w=~"{name}-.*"}[{step}]) # "{name}`}},
		"no url":        {[]string{"--history-prometheus=prometheus:9090"}, []string{`--history-prometheus = "prometheus:9090": want the URL of a Prometheus, such as http://prometheus:9090`}},
		"ranges":        {[]string{"--history-range=59m", "--history-step=2h"}, []string{"--history-range = 59m0s: want 1h–2160h", "--history-step = 2h0m0s: want 15s–1h"}},
		"part second":   {[]string{"--history-step=15500ms"}, []string{"in whole seconds"}},
		"points":        {[]string{"--history-range=2160h", "--history-step=30s"}, []string{"are 259200 points: want at most 130000, so a shorter range or longer steps"}},
		"token file":    {[]string{url, "--history-bearer-token-file=nowhere"}, []string{`--history-bearer-token-file = "nowhere": want a file that can be read`}},
		"without url":   {[]string{"--history-bearer-token-file=x", "--history-query=up"}, []string{`--history-query = "up" without --history-prometheus: want both`, "--history-bearer-token-file"}},
		"empty query":   {[]string{url, "--history-query= "}, []string{"--history-query = \" \": want a query, such as sum(rate("}},
		"open string":   {[]string{url, `--history-query=x{a="b}`}, []string{`a string is not closed: want another "`}},
		"bare name":     {[]string{url, `--history-rate-query={name}`}, []string{`--history-rate-query = "{name}": {name} stands outside of a string: want it in quotes`}},
		"pods no regex": {[]string{url, `--history-query=x{pod="{pods}"}`}, []string{`{pods} is a regular expression: want it after =~`}},
		"all at once":   {[]string{"--history-prometheus=x", "--history-range=0s", "--history-step=0s", "--history-query="}, []string{"--history-prometheus", "--history-range", "--history-step", "--history-query"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options{logging: cli.DefaultLogging()}
			if err := flags(&o).Parse(c.args); err != nil {
				t.Fatal(err)
			}
			err := o.validate()
			if (err != nil) != (c.want != nil) {
				t.Fatalf("validate = %v, want a fault: %v", err, c.want != nil)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("validate = %v, want it to say %q", err, want)
				}
			}
		})
	}
}

// The chart sets what the flags have by default, and is off.
func TestHistoryValuesOfTheChart(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join("..", "..", "deploy", "chart", "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var values struct {
		Controller struct {
			History map[string]string `json:"history"`
		} `json:"controller"`
	}
	if err := yaml.Unmarshal(raw, &values); err != nil {
		t.Fatal(err)
	}
	var o options
	if err := flags(&o).Parse([]string{"--history-range=" + values.Controller.History["range"], "--history-step=" + values.Controller.History["step"]}); err != nil {
		t.Fatal(err)
	}
	var unset options
	flags(&unset)
	if o.history != unset.history {
		t.Errorf("the chart's values are %+v, the defaults %+v", o.history, unset.history)
	}
	for _, name := range []string{"prometheus", "query", "rateQuery", "bearerTokenSecret"} {
		if v, ok := values.Controller.History[name]; !ok || v != "" {
			t.Errorf("controller.history.%s = %q, known: %v; want it empty", name, v, ok)
		}
	}
}

// TestHistoryFetch sees that the flags reach the reader, and that its errors name them.
func TestHistoryFetch(t *testing.T) {
	t.Parallel()
	until := time.Date(2026, 3, 2, 1, 0, 20, 0, time.UTC)
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Authorization")+" "+r.FormValue("query")+" "+r.FormValue("start")+" "+r.FormValue("end")+" "+r.FormValue("step"))
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get("Authorization") != "Bearer secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[` + r.FormValue("end") + `,"3"]]}]}}`))
	}))
	defer s.Close()
	open := func(args ...string) targetHistory {
		var f historyFlags
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		f.add(fs)
		if err := fs.Parse(append([]string{"--history-prometheus=" + s.URL, "--history-range=1h"}, args...)); err != nil {
			t.Fatal(err)
		}
		r, err := f.reader(slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return targetHistory{r, kube.NewTargets(nil, nil, nil, nil)}
	}
	h := open("--history-bearer-token-file="+filepath.Join("testdata", "token"), `--history-query=up{w="{name}"}`, `--history-rate-query=up{n="{namespace}"}`)
	got, err := h.Fetch(t.Context(), workload("StatefulSet", "db"), []string{algorithms.Rate, algorithms.Concurrency, "waiting"}, until)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 0 { // a point alone is beside gaps
		t.Errorf("%v, want nothing", got)
	}
	const from = " 1772409660 1772413200 60"
	want := []string{`Bearer secret up{w="db"}` + from, `Bearer secret up{n="shop"}` + from}
	if !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	for signal, flag := range map[string]string{algorithms.Concurrency: "--history-query", algorithms.Rate: "--history-rate-query"} {
		_, err := open().Fetch(t.Context(), workload("StatefulSet", "db"), []string{signal}, until)
		if err == nil || !strings.Contains(err.Error(), signal+" of StatefulSet shop/db: ") ||
			!strings.Contains(err.Error(), "see --history-prometheus and "+flag) {
			t.Errorf("without a token: %v, want a fault that names workload and flags", err)
		}
	}
}
