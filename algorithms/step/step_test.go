package step_test

import (
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
	"github.com/sluice-autoscaler/sluice/algorithms/step"
)

// aws is the example of AWS's page: alarms at 60 and 40, 10 % and 30 % either way.
func aws() step.Config {
	c := step.Default()
	c.Metric, c.AdjustmentType, c.ScaleInCooldown = step.Total, step.PercentChangeInCapacity, 0
	c.ScaleOut = step.Alarm{Threshold: 60, EvaluationPeriods: 1, StepAdjustments: []step.Step{
		{MetricIntervalLowerBound: new(0.0), MetricIntervalUpperBound: new(10.0), ScalingAdjustment: 10},
		{MetricIntervalLowerBound: new(10.0), ScalingAdjustment: 30},
	}}
	c.ScaleIn = step.Alarm{Threshold: 40, EvaluationPeriods: 1, StepAdjustments: []step.Step{
		{MetricIntervalLowerBound: new(-10.0), MetricIntervalUpperBound: new(0.0), ScalingAdjustment: -10},
		{MetricIntervalUpperBound: new(-10.0), ScalingAdjustment: -30},
	}}
	return c
}

type event struct {
	sec, current int
	metric       float64
	want         int
	reason       string
}

func play(t *testing.T, c step.Config, events ...event) {
	t.Helper()
	p, err := step.New(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		d := p.Decide(algorithms.Observation{
			Now: policytest.Epoch().Add(time.Duration(e.sec) * time.Second), Limits: algorithms.Limits{Max: 100}, Replicas: algorithms.Replicas{Current: e.current, Ready: e.current},
			Signals: []algorithms.Signal{{Name: c.Signal, Window: time.Duration(c.Window), Value: e.metric, Known: true}},
		})
		if d.Replicas != e.want || d.Reason != e.reason {
			t.Errorf("at %d s: %d %s, want %d %s (%s)", e.sec, d.Replicas, d.Reason, e.want, e.reason, d.Message)
		}
	}
}

func TestWarmUpAddsTheDifference(t *testing.T) {
	t.Parallel()
	play(t, aws(),
		event{0, 10, 60, 11, "ScaleOut"},    // +10 % of 10
		event{10, 11, 65, 11, "AlreadyOut"}, // the same step while it warms up
		event{20, 11, 70, 13, "ScaleOut"},   // +30 % of the 10 that are warm: two more
		event{30, 13, 30, 13, "WarmingUp"},
		event{90, 13, 50, 13, "NoBreach"},
		event{100, 13, 40, 12, "ScaleIn"},
		event{200, 12, 30, 9, "ScaleIn"}, // breach −10 is of the second step; 3.6 rounds to 3
	)
}

// Changes in percent round towards zero, but never to no change: the examples of AWS's page.
func TestPercentRounding(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		base    int
		percent float64
		least   int
		want    int
	}{{10, 67, 0, 16}, {1, 67, 0, 2}, {10, 127, 0, 22}, {90, 1, 0, 91}, {10, 10, 3, 13}, {0, 50, 2, 2}, {0, 50, 0, 0}} {
		cfg := aws()
		cfg.MinAdjustmentMagnitude = c.least
		cfg.ScaleOut.StepAdjustments = []step.Step{{MetricIntervalLowerBound: new(0.0), ScalingAdjustment: c.percent}}
		reason := "ScaleOut"
		if c.want == c.base {
			reason = "AlreadyOut"
		}
		play(t, cfg, event{0, c.base, 100, c.want, reason})
	}
	for _, c := range []struct {
		base    int
		percent float64
		want    int
	}{{10, -67, 4}, {1, -58, 0}, {100, -6.67, 94}} {
		cfg := aws()
		cfg.ScaleIn.StepAdjustments = []step.Step{{MetricIntervalUpperBound: new(0.0), ScalingAdjustment: c.percent}}
		play(t, cfg, event{0, c.base, 0, c.want, "ScaleIn"})
	}
}

func TestExactAndPeriodsAndCooldown(t *testing.T) {
	t.Parallel()
	c := aws()
	c.AdjustmentType, c.ScaleInCooldown = step.ExactCapacity, algorithms.Duration(time.Minute)
	c.EstimatedInstanceWarmup = 0
	c.ScaleOut.EvaluationPeriods = 3
	c.ScaleOut.StepAdjustments = []step.Step{{MetricIntervalLowerBound: new(0.0), ScalingAdjustment: 20}}
	c.ScaleIn.StepAdjustments = []step.Step{{MetricIntervalUpperBound: new(0.0), ScalingAdjustment: 2}}
	play(t, c,
		event{0, 5, 80, 5, "NoBreach"}, event{10, 5, 80, 5, "NoBreach"}, event{20, 5, 80, 20, "ScaleOut"},
		event{30, 20, 50, 20, "NoBreach"}, event{40, 20, 10, 20, "CoolingDown"}, event{80, 20, 10, 2, "ScaleIn"}, event{90, 2, 10, 2, "AlreadyIn"},
	)
}

func TestPerPod(t *testing.T) {
	t.Parallel()
	play(t, step.Default(), event{0, 4, 280, 5, "ScaleOut"}, event{600, 4, 279, 4, "NoBreach"}, event{610, 2, 300, 4, "ScaleOut"})
}

func TestProperties(t *testing.T) {
	t.Parallel()
	policytest.Check(t, 31, 20, func() (algorithms.Policy, error) { return step.New(step.Default()) })
	policytest.Check(t, 32, 20, func() (algorithms.Policy, error) { return step.New(aws()) })
	policytest.Monotone(t, 33, 300, func() (algorithms.Policy, error) { return step.New(aws()) })
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*step.Config){
		"overlap":         func(c *step.Config) { c.ScaleOut.StepAdjustments[1].MetricIntervalLowerBound = new(5.0) },
		"thresholds":      func(c *step.Config) { c.ScaleIn.Threshold = 61 },
		"wrong direction": func(c *step.Config) { c.ScaleOut.StepAdjustments[0].ScalingAdjustment = -1 },
		"wrong side":      func(c *step.Config) { c.ScaleOut.StepAdjustments[0].MetricIntervalUpperBound = new(-1.0) },
		"periods":         func(c *step.Config) { c.ScaleOut.EvaluationPeriods = 0 },
	} {
		c := aws()
		change(&c)
		if _, err := step.New(c); err == nil {
			t.Errorf("%s: New took it", name)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	p, err := step.New(step.Default())
	if err != nil {
		b.Fatal(err)
	}
	o := algorithms.Observation{Now: policytest.Epoch(), Quiet: true, Limits: algorithms.Limits{Max: 100}, Signals: []algorithms.Signal{{Name: "concurrency", Window: time.Minute, Value: 100, Known: true}}}
	b.ReportAllocs()
	for b.Loop() {
		p.Decide(o)
	}
}

// TestOneThreshold has both alarms at one threshold: at it the count goes out, below it in.
func TestOneThreshold(t *testing.T) {
	t.Parallel()
	c := step.Default()
	c.Metric, c.Window = step.Total, 0
	c.ScaleOut = step.Alarm{Threshold: 60, EvaluationPeriods: 1, StepAdjustments: []step.Step{{MetricIntervalLowerBound: new(0.0), ScalingAdjustment: 1}}}
	c.ScaleIn = step.Alarm{Threshold: 60, EvaluationPeriods: 1, StepAdjustments: []step.Step{{MetricIntervalUpperBound: new(0.0), ScalingAdjustment: -1}}}
	for load, want := range map[float64]int{59: 4, 60: 6, 61: 6} {
		p, err := step.New(c)
		if err != nil {
			t.Fatal(err)
		}
		d := p.Decide(algorithms.Observation{
			Now: policytest.Epoch(), Limits: algorithms.Limits{Max: 100}, Replicas: algorithms.Replicas{Current: 5, Ready: 5},
			Signals: []algorithms.Signal{{Name: algorithms.Concurrency, Value: load, Known: true, Coverage: 1}},
		})
		if !d.Valid || d.Replicas != want {
			t.Errorf("at %v: %+v, want %d", load, d, want)
		}
	}
}
