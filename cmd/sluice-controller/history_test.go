package main

import (
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/internal/cli"
	"github.com/sluice-autoscaler/sluice/scaler/actuate"
)

func workload(kind, name string) actuate.Target {
	t := actuate.Target{Namespace: "shop"}
	t.Ref.Kind, t.Ref.Name = kind, name
	return t
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

func TestExpand(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		template, kind, name, want string
	}{
		"deployment": {
			defaultHistoryQuery("x_total"), "Deployment", "web",
			`sum(rate(x_total{namespace="shop",pod=~"web-[bcdfghjklmnpqrstvwxz2456789]{6,10}-[bcdfghjklmnpqrstvwxz2456789]{5}"}[60s]))`,
		},
		"another kind":  {`x{pod=~"{pods}"}`, "Rollout", "web", `x{pod=~"web-[bcdfghjklmnpqrstvwxz2456789]{6,10}-[bcdfghjklmnpqrstvwxz2456789]{5}"}`},
		"stateful set":  {`x{pod=~"{pods}"}`, "StatefulSet", "db.v1", `x{pod=~"db\\.v1-[0-9]+"}`},
		"replica set":   {`x{pod=~'{pods}'}`, "ReplicaSet", "web", `x{pod=~'web-[bcdfghjklmnpqrstvwxz2456789]{5}'}`},
		"not a pattern": {`x{pod="{name}", other =~ "{name}", no!~"{name}"}`, "", "a.b", `x{pod="a.b", other =~ "a\\.b", no!~"a\\.b"}`},
		"backquotes":    {"x{pod=~`{name}`}", "", "a.b", "x{pod=~`a\\.b`}"},
		"escapes":       {`x{a="\"{name}\\",b='"{name}'}`, "", "w", `x{a="\"w\\",b='"w'}`},
		"a comment":     {"x # don't {name}\n + y{a='{name}'}", "", "w", "x # don't {name}\n + y{a='w'}"},
		"closed early":  {`x{a="{name}"}`, "", `web"} or vector(1) #`, `x{a="web\"} or vector(1) #"}`},
		"single quotes": {`x{a='{name}'}`, "", `it's\`, `x{a='it\'s\\'}`},
		"new line":      {`x{a="{name}"}`, "", "a\nb", `x{a="a\nb"}`},
		"placeholder":   {`x{a="{name}"}`, "", "{step}{name}", `x{a="{step}{name}"}`},
		"everything":    {`x{pod=~"{name}"}`, "", ".*", `x{pod=~"\\.\\*"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := expand(c.template, workload(c.kind, c.name), time.Minute)
			if err != nil || got != c.want {
				t.Errorf("expand(%s) = %s, %v; want %s", c.template, got, err, c.want)
			}
		})
	}
	if got, err := expand("x{a=`{name}`}", workload("", "a`b"), time.Minute); err == nil || !strings.Contains(err.Error(), "double quotes") {
		t.Errorf("a backquote in backquotes: %q, %v; want a fault", got, err)
	}
}

// FuzzExpand sees that a name stays within its string and means itself there, and that no template is too much.
func FuzzExpand(f *testing.F) {
	for _, s := range []string{"web", `a"b`, `a\`, "a\nb", ".*", "{name}", "ä", `\x`, "a'b"} {
		f.Add(s, `x{a=~"{name}"}`)
	}
	f.Add("", "`{pods}")
	f.Fuzz(func(t *testing.T, name, template string) {
		_, _ = expand(template, workload("Deployment", name), time.Second) // does not panic
		if !utf8.ValidString(name) {
			return // no name is
		}
		got, err := expand(`"{name}"`, workload("Deployment", name), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := strconv.Unquote(got); err != nil || s != name {
			t.Errorf("%q in a string is %s: %q, %v", name, got, s, err)
		}
		got, err = expand(`=~"{name}"`, workload("Deployment", name), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		s, err := strconv.Unquote(got[2:])
		if err != nil {
			t.Fatalf("%q in a pattern is %s: %v", name, got, err)
		}
		re, err := regexp.Compile("^(?s:" + s + ")$")
		if err != nil || !re.MatchString(name) || re.MatchString(name+"x") {
			t.Errorf("%q as a pattern is %q: want it to match itself alone (%v)", name, s, err)
		}
	})
}

// TestFetch asks a Prometheus that has gaps, refuses, and wants a token.
func TestFetch(t *testing.T) {
	t.Parallel()
	until := time.Date(2026, 3, 2, 1, 0, 20, 0, time.UTC)
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.FormValue("query")+" "+r.FormValue("start")+" "+r.FormValue("end")+" "+r.FormValue("step"))
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get("Authorization") != "Bearer secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		at := until.Truncate(time.Minute).Unix()
		values := []string{}
		for i := int64(20); i >= 0; i-- { // the last 21 minutes, two of them unknown
			if i != 10 {
				v := strconv.FormatInt(i, 10)
				if i == 5 {
					v = "NaN"
				}
				values = append(values, "["+strconv.FormatInt(at-60*i, 10)+`,"`+v+`"]`)
			}
		}
		_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[` + strings.Join(values, ",") + `]}]}}`))
	}))
	defer s.Close()
	open := func(token string) *prometheusHistory {
		var f historyFlags
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		f.add(fs)
		if err := fs.Parse([]string{"--history-prometheus=" + s.URL, "--history-range=1h", "--history-bearer-token-file=" + token}); err != nil {
			t.Fatal(err)
		}
		h, err := f.open(slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	h := open(filepath.Join("testdata", "token"))
	got, err := h.Fetch(t.Context(), workload("StatefulSet", "db"), []string{algorithms.Rate, algorithms.Concurrency, "waiting"}, until)
	if err != nil {
		t.Fatal(err)
	}
	if err := algorithms.CheckHistory(got, until.Add(-time.Hour)); err != nil {
		t.Error(err)
	}
	// Of 21 minutes two are unknown, and so are the two beside each and the first, whose window is only partly covered.
	if len(got) != 2*14 || got[0].Signal != algorithms.Concurrency || got[1].Signal != algorithms.Rate || !got[0].At.Equal(got[1].At) {
		t.Errorf("%d samples, the first %+v; want 14 of both signals, in order of time", len(got), got[:min(2, len(got))])
	}
	for _, s := range got {
		if m := until.Sub(s.At).Truncate(time.Minute).Minutes(); math.IsNaN(s.Value) || s.Value != m {
			t.Errorf("%+v, want %v", s, m)
		}
	}
	const from = " 1772409660 1772413200 60"
	if len(asked) != 2 || asked[0] != `sum(rate(sluice_request_concurrency_seconds_total{namespace="shop",pod=~"db-[0-9]+"}[60s]))`+from ||
		asked[1] != `sum(rate(sluice_requests_total{namespace="shop",pod=~"db-[0-9]+"}[60s]))`+from {
		t.Errorf("asked %q", asked)
	}
	h = open("")
	if _, err := h.Fetch(t.Context(), workload("StatefulSet", "db"), []string{algorithms.Rate}, until); err == nil || !strings.Contains(err.Error(), "rate of StatefulSet shop/db: ") ||
		!strings.Contains(err.Error(), "see --history-prometheus and --history-rate-query") {
		t.Errorf("without a token: %v, want a fault that names workload and flags", err)
	}
}
