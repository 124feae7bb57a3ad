package sim_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/sim"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// TestWarmup: a run's parts before and after a warm-up add up to the whole run.
func TestWarmup(t *testing.T) {
	t.Parallel()
	src, err := trace.Generate("diurnal:mean=40,amplitude=0.9,period=20m,duration=1h")
	if err != nil {
		t.Fatal(err)
	}
	simulate := func(src trace.Source, warm time.Duration) (score.Run, error) {
		sc := scenario.Default()
		p, err := catalog.Default().New("kpa", sc.PerPod(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return sim.Run(t.Context(), sim.Config{Source: src, Scenario: sc, Policy: p, Name: "kpa", Seed: 7, Points: 1000, Warmup: warm})
	}
	must := func(src trace.Source, warm time.Duration) score.Run {
		r, err := simulate(src, warm)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	head, err := trace.Window(src, 0, 20*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	// The warm-up is rounded up to the step of 30 s.
	whole, first, rest := must(src, 0), must(head, 0), must(src, 20*time.Minute-time.Second)
	same := func(name string, first, rest, whole float64) {
		if math.Abs(first+rest-whole) > 1e-6*whole {
			t.Errorf("%s: %v before and %v after make %v, want %v", name, first, rest, first+rest, whole)
		}
	}
	a, b, c := first.Result, rest.Result, whole.Result
	same("requests", float64(a.Requests), float64(b.Requests), float64(c.Requests))
	same("readySeconds", a.ReadySeconds, b.ReadySeconds, c.ReadySeconds)
	same("startingSeconds", a.StartingSeconds, b.StartingSeconds, c.StartingSeconds)
	same("podSeconds", a.PodSeconds, b.PodSeconds, c.PodSeconds)
	same("cost", a.Cost, b.Cost, c.Cost)
	same("late", a.SLOViolations*float64(a.Requests), b.SLOViolations*float64(b.Requests), c.SLOViolations*float64(c.Requests))
	same("thetaO", a.ThetaO*1200, b.ThetaO*2400, c.ThetaO*3600)
	same("zeroDemandSeconds", a.ZeroDemandSeconds+1, b.ZeroDemandSeconds+1, c.ZeroDemandSeconds+2)
	if got, want := len(rest.Series.Ready), len(whole.Series.Ready)-40; got != want || rest.Series.Step != 30 {
		t.Fatalf("the series has %d rows of %v s, want %d of 30", got, rest.Series.Step, want)
	}
	for i, v := range rest.Series.Ready {
		if w := whole.Series.Ready[i+40]; math.Abs(float64(v-w)) > 1e-4 {
			t.Errorf("row %d: %v pods, want the whole run's %v", i, v, w)
		}
	}
	if len(rest.Decisions) == 0 || int64(len(rest.Decisions)) != b.Changes || rest.Decisions[0].T < 0 {
		t.Errorf("%d of %d changes recorded, the first %+v: want all, from 0 s on", len(rest.Decisions), b.Changes, rest.Decisions)
	}
	for _, warm := range []time.Duration{-time.Minute, time.Hour} {
		if _, err := simulate(src, warm); err == nil || !strings.Contains(err.Error(), "warm-up") {
			t.Errorf("warm-up of %v of an hour: %v, want a fault", warm, err)
		}
	}
}

// clock is a policy that notes when it was asked first and what it learnt.
type clock struct {
	algorithms.Policy
	first  time.Time
	learnt []algorithms.Sample
}

func (c *clock) Decide(o algorithms.Observation) algorithms.Decision {
	if c.first.IsZero() {
		c.first = o.Now
	}
	return c.Policy.Decide(o)
}

func (c *clock) Learns() []string { return []string{algorithms.Concurrency} }

func (c *clock) Learn(history []algorithms.Sample) error {
	c.learnt = history
	return algorithms.CheckHistory(history, time.Time{})
}

func TestStartAndHistory(t *testing.T) {
	t.Parallel()
	src, err := trace.Generate("poisson:rate=5,duration=1m")
	if err != nil {
		t.Fatal(err)
	}
	inner, err := catalog.Default().New("fixed", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)
	history := []algorithms.Sample{{At: start.Add(-time.Hour), Signal: algorithms.Concurrency, Value: 2}}
	p := &clock{Policy: inner}
	c := sim.Config{Source: src, Scenario: scenario.Default(), Policy: p, Name: "clock", Start: start, History: history}
	if _, err := sim.Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if !p.first.Equal(start) || len(p.learnt) != 1 {
		t.Errorf("first asked at %v with %d samples learnt, want %v and 1", p.first, len(p.learnt), start)
	}
	c.Start = start.Add(-2 * time.Hour)
	if _, err := sim.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "history ends at 2026-03-14T14:09:26Z") {
		t.Errorf("a history after the start: %v, want a fault", err)
	}
}
