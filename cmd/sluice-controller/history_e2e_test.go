//go:build e2e

package main

import (
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/internal/promtest"
	"github.com/sluice-autoscaler/sluice/scaler/kube"
)

// begin is when the pods of the workloads below were first scraped; they were for four days.
var begin = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// wave is the integral since begin of 12 + 9·sin(2πt/day) requests in flight, in request-seconds.
func wave(at time.Time) float64 {
	t, d := at.Sub(begin).Seconds(), day.Seconds()
	return 12*t + 9*d/(2*math.Pi)*(1-math.Cos(2*math.Pi*t/d))
}

// What happened: a rollout replaced one of the two pods, nothing was scraped for two hours, and the
// workload slept for three.
var (
	rollout            = begin.Add(30 * time.Hour)
	lostFrom, lostTo   = begin.Add(54 * time.Hour), begin.Add(56 * time.Hour)
	sleepFrom, sleepTo = begin.Add(80 * time.Hour), begin.Add(83 * time.Hour)
)

func between(at, from, to time.Time) bool { return at.After(from) && at.Before(to) }

// load is a counter that grows with a share of the wave while the pod is there.
func load(share float64, from, to time.Time) func(time.Time) (float64, bool) {
	return func(at time.Time) (float64, bool) {
		there := !at.Before(from) && !at.After(to) && !between(at, lostFrom, lostTo) && !between(at, sleepFrom, sleepTo)
		since := from
		if !at.Before(sleepTo) && from.Before(sleepTo) {
			since = sleepTo // another life of the counter
		}
		return share * (wave(at) - wave(since)), there
	}
}

func startPrometheus(t *testing.T) (url string) {
	t.Helper()
	end := begin.Add(4 * day)
	var series []promtest.Series
	for _, c := range []struct {
		name, more string
		factor     float64
	}{{"sluice_request_concurrency_seconds_total", "", 1}, {"sluice_requests_total", `,code="2xx"`, 5}} {
		add := func(namespace, pod string, share float64, from, to time.Time) {
			series = append(series, promtest.Series{
				Kind: "counter", Name: c.name, Labels: `namespace="` + namespace + `",pod="` + pod + `"` + c.more, Value: load(c.factor*share, from, to),
			})
		}
		add("shop", "web-6d4cf56db6-x7k2p", 0.25, begin, end)
		add("shop", "web-6d4cf56db6-9bqzt", 0.75, begin, rollout)
		add("shop", "web-7f9cd8b7b5-2m4nd", 0.75, rollout, end)
		// others, whose names begin alike
		add("shop", "web-api-5c8d9f7b64-k8s2v", 10, begin, end)
		add("shop", "web-api-0", 10, begin, end)
		add("shop", "web-db-x7k2p", 10, begin, end)
		add("shop", "web-0", 10, begin, end)
		add("other", "web-6d4cf56db6-x7k2p", 10, begin, end)
	}
	series = append(series, promtest.Series{
		Kind: "gauge", Name: "kube_deployment_spec_replicas", Labels: `namespace="shop",deployment="web"`, Value: func(at time.Time) (float64, bool) {
			replicas := 2.0
			if !at.Before(sleepFrom) && at.Before(sleepTo) {
				replicas = 0
			}
			return replicas, !between(at, lostFrom, lostTo)
		},
	})
	return promtest.Start(t, promtest.Loopback, begin, end, series...)
}

// TestPrometheus reads the past of a workload by the default queries from a real Prometheus that
// was filled with a known one.
func TestPrometheus(t *testing.T) {
	url := startPrometheus(t)
	end := begin.Add(4 * day)
	open := func(args ...string) targetHistory {
		t.Helper()
		var f historyFlags
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		f.add(fs)
		if err := fs.Parse(append([]string{"--history-prometheus=" + url, "--history-range=96h"}, args...)); err != nil {
			t.Fatal(err)
		}
		if err := f.validate(); err != nil {
			t.Fatal(err)
		}
		r, err := f.reader(slog.New(slog.NewTextHandler(t.Output(), nil)))
		if err != nil {
			t.Fatal(err)
		}
		return targetHistory{r, kube.NewTargets(nil, nil, nil, nil)}
	}
	fetch := func(h targetHistory, target loop.Ref, signals ...string) []algorithms.Sample {
		t.Helper()
		got, err := h.Fetch(t.Context(), target, signals, end.Add(10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if err := algorithms.CheckHistory(got, begin); err != nil {
			t.Error(err)
		}
		return got
	}
	near := func(at, of time.Time, d time.Duration) bool { return at.Sub(of).Abs() <= d }

	h := open()
	step := time.Minute
	both := fetch(h, workload("Deployment", "web"), algorithms.Concurrency, algorithms.Rate)
	for signal, factor := range map[string]float64{algorithms.Concurrency: 1, algorithms.Rate: 5} {
		n, worst := 0, 0.0
		for _, s := range both {
			if s.Signal != signal {
				continue
			}
			n++
			if between(s.At, lostFrom, lostTo.Add(step)) || between(s.At, sleepFrom, sleepTo.Add(step)) {
				t.Errorf("%s at %s = %v, want a gap", signal, s.At, s.Value)
			}
			if near(s.At, rollout, 2*step) {
				continue // of a pod that ends or begins a rate knows less
			}
			want := factor * (wave(s.At) - wave(s.At.Add(-step))) / step.Seconds()
			worst = max(worst, math.Abs(s.Value/want-1))
		}
		points := int(4*day/step) - int(lostTo.Sub(lostFrom)/step) - int(sleepTo.Sub(sleepFrom)/step)
		t.Logf("%s: %d samples of %d known minutes, the worst %.3f %% off", signal, n, points, 100*worst)
		if n > points || n < points-12 {
			t.Errorf("%d samples of %s, want %d, less a few beside the gaps", n, signal, points)
		}
		if worst > 0.01 {
			t.Errorf("%s is off by up to %.2f %%, want at most 1 %%", signal, 100*worst)
		}
	}

	// Each other workload has its own, and none has another's.
	for _, c := range []struct {
		target loop.Ref
		share  float64
	}{{workload("Deployment", "web-api"), 10}, {workload("StatefulSet", "web-api"), 10}, {workload("StatefulSet", "web"), 10}, {workload("ReplicaSet", "web-db"), 10}} {
		got := fetch(h, c.target, algorithms.Concurrency)
		if len(got) < 1000 {
			t.Errorf("%s: %d samples", c.target, len(got))
			continue
		}
		s := got[500]
		if want := c.share * (wave(s.At) - wave(s.At.Add(-step))) / step.Seconds(); math.Abs(s.Value/want-1) > 0.01 {
			t.Errorf("%s: %v at %s, want %v", c.target, s.Value, s.At, want)
		}
	}
	for _, name := range []string{"nobody", ".*", `web"} or vector(7) #`, `web\`, "we\nb", "w.b", "web|.*"} {
		for _, kind := range []string{"Deployment", "StatefulSet"} {
			if got := fetch(h, workload(kind, name), algorithms.Concurrency); len(got) > 0 {
				t.Errorf("%s %q has %d samples, want none", kind, name, len(got))
			}
		}
	}

	// With kube-state-metrics sleep is told from a gap.
	asleep := open("--history-query", strings.TrimSpace(`
sum(rate(sluice_request_concurrency_seconds_total{namespace="{namespace}",pod=~"{pods}"}[{step}]))
  or sum(kube_deployment_spec_replicas{namespace="{namespace}",deployment="{name}"} == 0)`))
	zeros := 0
	for _, s := range fetch(asleep, workload("Deployment", "web"), algorithms.Concurrency) {
		if s.Value == 0 {
			zeros++
			if !between(s.At, sleepFrom.Add(-step), sleepTo.Add(step)) {
				t.Errorf("0 at %s, where the workload did not sleep", s.At)
			}
		}
		if between(s.At, lostFrom, lostTo.Add(step)) {
			t.Errorf("%v at %s, want a gap", s.Value, s.At)
		}
	}
	if want := int(sleepTo.Sub(sleepFrom) / step); zeros < want-3 || zeros > want {
		t.Errorf("%d minutes are 0, want about %d", zeros, want)
	}

	// What was read can be learnt.
	for _, name := range []string{"seasonal", "histogram", "lookahead", "portfolio"} {
		p, err := catalog.Default().New(name, 5, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.(algorithms.Learner).Learn(both); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	if _, err := open("--history-query=count(up) by (").Fetch(t.Context(), workload("Deployment", "web"), []string{algorithms.Concurrency}, end); err == nil ||
		!strings.Contains(err.Error(), "parse error") || !strings.Contains(err.Error(), "see --history-prometheus and --history-query") {
		t.Errorf("a broken query: %v, want a parse error that names the flags", err)
	}
}
