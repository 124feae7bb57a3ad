//go:build e2e

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/backtest"
	"github.com/sluice-autoscaler/sluice/bench/summary"
	"github.com/sluice-autoscaler/sluice/bench/tune"
	"github.com/sluice-autoscaler/sluice/internal/cli"
	"github.com/sluice-autoscaler/sluice/internal/promtest"
)

// recorded is what the Prometheus of this test was filled with: three days of a load with a daily
// wave, of which two hours are missing.
type recorded struct {
	begin time.Time
	days  int
}

// integral of concurrency since the beginning, in request-seconds: 12 + 9·sin(2πt/day) requests are
// in flight, each for a second, so that it is requests as well.
func (r recorded) integral(at time.Time) float64 {
	day := (24 * time.Hour).Seconds()
	t := at.Sub(r.begin).Seconds()
	return 12*t + 9*day/(2*math.Pi)*(1-math.Cos(2*math.Pi*t/day))
}

func (r recorded) end() time.Time { return r.begin.AddDate(0, 0, r.days) }

// missing is where nothing was scraped: on the last day.
func (r recorded) missing(at time.Time) bool {
	h := at.Sub(r.end().AddDate(0, 0, -1)).Hours()
	return h > 6 && h < 8
}

// start fills a real Prometheus with it.
func (r recorded) start(t *testing.T) (url string) {
	t.Helper()
	series := func(kind, name, labels string, value func(time.Time) float64) promtest.Series {
		return promtest.Series{Kind: kind, Name: name, Labels: labels, Value: func(at time.Time) (float64, bool) { return value(at), !r.missing(at) }}
	}
	return promtest.Start(t, promtest.Loopback, r.begin, r.end(),
		series("counter", "sluice_request_concurrency_seconds_total", `pod="web-1"`, func(at time.Time) float64 { return r.integral(at) / 2 }),
		series("counter", "http_requests_total", `pod="web-2"`, r.integral),
		series("gauge", "kube_deployment_status_replicas", `deployment="web"`, func(time.Time) float64 { return 4 }))
}

// sluice runs a command line; ok is that it ended with 0.
func sluice(t *testing.T, args ...string) (stdout, stderr string, ok bool) {
	t.Helper()
	var out, errs bytes.Buffer
	err := execute(t.Context(), args, strings.NewReader(""), &out, &errs)
	_ = cli.Status("sluice", err, &errs)
	t.Logf("sluice %s\n%s%s", strings.Join(args, " "), &out, &errs)
	return out.String(), errs.String(), err == nil
}

func readJSON(t *testing.T, name string, into any) {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(raw, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func within(t *testing.T, what string, got, want, share float64) {
	t.Helper()
	t.Logf("%s: %.6g, expected %.6g (%+.2f %%)", what, got, want, 100*(got/want-1))
	if !(math.Abs(got/want-1) <= share) {
		t.Errorf("%s = %v, want %v within %v %%", what, got, want, 100*share)
	}
}

// TestPrometheus reads demand back from a real Prometheus that was filled with a known one, and
// backtests and tunes on it.
func TestPrometheus(t *testing.T) {
	r := recorded{begin: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC), days: 3}
	url := r.start(t)
	end := r.end().Format(time.RFC3339)
	dir := t.TempDir()
	source := []string{"--prometheus", url, "--end", end, "--service", "const:1s"}
	concurrency := []string{"--query", "sum(rate(sluice_request_concurrency_seconds_total[1m])) * 2"}

	out := filepath.Join(dir, "concurrency")
	stdout, _, ok := sluice(t, append(append([]string{
		"bench", "backtest", "--range", "24h", "--history", "2d", "--policy", "kpa", "--policy", "fixed:replicas=4", "--policy", "seasonal",
		"--replicas-query", "max(kube_deployment_status_replicas)", "--pod-hour-cost", "0.5", "--currency", "EUR", "--seeds", "1", "--out", out,
	}, source...), concurrency...)...)
	if !ok {
		t.Fatal("backtest failed")
	}
	var b backtest.Record
	readJSON(t, filepath.Join(out, "backtest.json"), &b)
	within(t, "mean demand", b.Mean, 12, 0.01)
	within(t, "peak demand", b.Peak, 21, 0.01)
	within(t, "unknown share", b.GapShare, 2.0/24, 0.05)
	if b.RanPodSeconds == nil {
		t.Fatal("what really ran is missing")
	}
	within(t, "what really ran", *b.RanPodSeconds, 4*24*3600, 0.001)
	var s summary.Summary
	readJSON(t, filepath.Join(out, "summary.json"), &s)
	for _, one := range s.Results {
		within(t, one.Policy+": requests", float64(one.Requests), 12*24*3600, 0.02)
		if one.Policy == "fixed:replicas=4" {
			within(t, "fixed pod-seconds", one.PodSeconds, 4*24*3600, 0.001)
		}
	}
	for _, want := range []string{"1 gap, 2h1m30s", "what really ran", "COST EUR", "kpa (current)", "Policies that learn were given what is known of the 2 d before (100.0 %)"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the report does not say %q", want)
		}
	}

	// The same load as a trace gives the same, within what the gap's straight line makes of the
	// wave.
	csv := "t_seconds,concurrency\n"
	last := r.end().AddDate(0, 0, -1)
	for i := range 24 * 120 {
		from := last.Add(time.Duration(i) * 30 * time.Second)
		csv += fmt.Sprintf("%d,%g\n", i*30, (r.integral(from.Add(30*time.Second))-r.integral(from))/30)
	}
	file := filepath.Join(dir, "direct.csv")
	if err := os.WriteFile(file, []byte(csv), 0o600); err != nil {
		t.Fatal(err)
	}
	direct := filepath.Join(dir, "direct")
	if _, _, ok = sluice(t, "bench", "run", "--trace", file, "--policy", "kpa", "--service", "const:1s", "--initial-replicas", "2", "--out", direct); !ok {
		t.Fatal("run failed")
	}
	var d summary.Summary
	readJSON(t, filepath.Join(direct, "summary.json"), &d)
	within(t, "kpa's pod-seconds by way of Prometheus", s.Results[0].PodSeconds, d.Results[0].PodSeconds, 0.02)

	// Requests per second are the same demand here.
	out = filepath.Join(dir, "requests")
	if _, _, ok = sluice(t, append([]string{
		"bench", "backtest", "--range", "6h", "--kind", "requests", "--query", "sum(rate(http_requests_total[1m]))", "--policy", "target", "--seeds", "1", "--out", out,
	}, source...)...); !ok {
		t.Fatal("backtest of requests failed")
	}
	readJSON(t, filepath.Join(out, "summary.json"), &s)
	within(t, "requests by rate", float64(s.Results[0].Requests), r.integral(r.end())-r.integral(r.end().Add(-6*time.Hour)), 0.03)

	// Tuning on the user's own history.
	out = filepath.Join(dir, "tune")
	stdout, _, ok = sluice(t, append(append([]string{
		"bench", "tune", "--range", "16h", "--policy", "kpa", "--search", "target=30%..110%", "--search", "stableWindow=6s..10m:log", "--budget", "8", "--seeds", "1", "--out", out,
	}, source...), concurrency...)...)
	if !ok || !strings.Contains(stdout, "held back  tuned") || !strings.Contains(stdout, "policy:\n    name: kpa") {
		t.Error("tune failed, or does not say what a user needs")
	}
	var tuned tune.Record
	readJSON(t, filepath.Join(out, "tune.json"), &tuned)
	if tuned.Top[0].Objective >= tuned.Default.Objective || !tuned.Top[0].Feasible() {
		t.Errorf("tuned %v, as given %v: want less, within the limits", tuned.Top[0].Objective, tuned.Default.Objective)
	}

	// What goes wrong says why.
	for _, c := range []struct{ query, want string }{
		{"rate(sluice_request_concurrency_seconds_total[1m]) or rate(http_requests_total[1m])", "2 series"},
		{"nothing_of_that_name", "an empty one is not taken for zero"},
		{"sum(", "parse error"},
	} {
		if _, stderr, ok := sluice(t, append([]string{"bench", "backtest", "--range", "1h", "--policy", "kpa", "--query", c.query}, source...)...); ok || !strings.Contains(stderr, c.want) {
			t.Errorf("query %q: want a fault that says %q", c.query, c.want)
		}
	}
}
