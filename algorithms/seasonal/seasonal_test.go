package seasonal_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
	"github.com/sluice-autoscaler/sluice/algorithms/seasonal"
)

func policy(t *testing.T) *seasonal.Policy {
	t.Helper()
	c := seasonal.Default()
	c.Target = 10
	p, err := seasonal.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestProperties(t *testing.T) {
	t.Parallel()
	policytest.Check(t, 21, 6, func() (algorithms.Policy, error) { return seasonal.New(seasonal.Default()) })
}

// office is a load that jumps from 20 to 100 at eight and back at six.
func office(at time.Time) float64 {
	if h := at.Hour(); h >= 8 && h < 18 {
		return 100
	}
	return 20
}

func at(p *seasonal.Policy, now time.Time, load float64, current int, start time.Duration) algorithms.Decision {
	return p.Decide(algorithms.Observation{
		Now: now, Limits: algorithms.Limits{Max: 100}, Replicas: algorithms.Replicas{Current: current, Ready: current},
		StartUp: algorithms.StartUp{P50: start, P90: start, P99: start, Samples: 9},
		Signals: []algorithms.Signal{{Name: algorithms.Concurrency, Window: 30 * time.Second, Value: load, Known: true, Coverage: 1}},
	})
}

// From a history of days the morning is known: pods are asked for a start-up time ahead of it, and
// not earlier; and present load counts whatever the season says.
func TestLearntMorning(t *testing.T) {
	t.Parallel()
	p := policy(t)
	day := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	var history []algorithms.Sample
	for m := 0; m <= 5*24*60; m++ {
		now := day.Add(time.Duration(m) * time.Minute)
		history = append(history, algorithms.Sample{At: now, Signal: algorithms.Concurrency, Value: office(now.Add(-time.Second))}, algorithms.Sample{At: now, Signal: "other", Value: 1e6})
	}
	if err := p.Learn(history); err != nil {
		t.Fatal(err)
	}
	morning := day.AddDate(0, 0, 5).Add(7 * time.Hour)
	current := 2
	for s := 0; s < 3600; s += 10 {
		now := morning.Add(time.Duration(s) * time.Second)
		d := at(p, now, 20, current, time.Minute)
		left := 3600 - s
		switch {
		case left > 600 && d.Replicas > 5:
			t.Fatalf("%d s before the jump: %+v", left, d)
		case left < 60 && d.Replicas < 9:
			t.Fatalf("%d s before the jump: %+v", left, d)
		}
		current = d.Replicas
	}
	if d := at(p, morning.Add(time.Hour+10*time.Second), 300, current, time.Minute); d.Replicas != 30 || d.Reason != "Present" {
		t.Errorf("a load of 300 gives %+v", d)
	}
	if err := p.Learn(history); err == nil {
		t.Error("a past that is older than what was seen was taken")
	}
	if err := p.Learn([]algorithms.Sample{{At: morning.AddDate(1, 0, 0), Signal: "x", Value: math.NaN()}}); err == nil {
		t.Error("a value that is no number was taken")
	}
}

// Without history the present alone counts.
func TestNoHistory(t *testing.T) {
	t.Parallel()
	p := policy(t)
	if d := at(p, policytest.Epoch(), 45, 1, 0); d.Replicas != 5 || !strings.Contains(d.Message, "no forecast yet") {
		t.Errorf("%+v", d)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	c := seasonal.Default()
	c.Signal, c.Target, c.Window, c.Bin, c.StartUp, c.Tick = "", -1, 0, algorithms.Duration(7*time.Minute), -1, 0
	_, err := seasonal.New(c)
	for _, want := range []string{"signal", "target", "window", "bin = 7m", "startUp", "tick"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no fault of %s in %v", want, err)
		}
	}
}
