package target_test

import (
	"maps"
	"math"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
	"github.com/sluice-autoscaler/sluice/algorithms/target"
)

type event struct {
	sec, current int
	load         float64
	want         int
	reason       string
}

func play(t *testing.T, c target.Config, events ...event) {
	t.Helper()
	c.Target = 10
	p, err := target.New(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		d := p.Decide(algorithms.Observation{
			Now: policytest.Epoch().Add(time.Duration(e.sec) * time.Second), Limits: algorithms.Limits{Max: 100}, Replicas: algorithms.Replicas{Current: e.current, Ready: e.current},
			Signals: []algorithms.Signal{{Name: c.Signal, Window: time.Duration(c.Window), Value: e.load, Known: !math.IsNaN(e.load)}},
		})
		if d.Replicas != e.want || d.Reason != e.reason || d.Valid == (e.reason == "NoData") {
			t.Errorf("at %d s: %d %s, want %d %s (%s)", e.sec, d.Replicas, d.Reason, e.want, e.reason, d.Message)
		}
	}
}

// The defaults answer at once going out and hold the largest of a minute going in.
func TestDefault(t *testing.T) {
	t.Parallel()
	play(t, target.Default(),
		event{0, 0, 0, 0, "Target"}, event{2, 0, 0.1, 1, "Target"}, event{4, 1, 45, 5, "Target"},
		event{6, 5, 55, 5, "WithinTolerance"}, event{8, 5, 45, 5, "WithinTolerance"}, event{10, 5, 55.1, 6, "Target"},
		event{12, 6, math.NaN(), 0, "NoData"},
		event{14, 6, 10, 6, "Stabilized"}, event{70, 6, 10, 1, "Target"},
		event{80, 50, 5000, 100, "Target"},
	)
}

// AWS: three points above to go out, fifteen below the margin to go in, cooldowns, and no way in on
// missing data.
func TestAWS(t *testing.T) {
	t.Parallel()
	events := []event{
		{0, 5, 60, 5, "Evaluating"},
		{30, 5, 60, 5, "Evaluating"},
		{60, 5, 60, 5, "Evaluating"},
		{120, 5, 60, 6, "Target"},
		{180, 6, 90, 6, "CoolingDown"},
		{360, 6, 90, 6, "CoolingDown"},
		{420, 6, 90, 9, "Target"},
		{480, 9, 85, 9, "WithinTolerance"},
	}
	for i := range 14 {
		events = append(events, event{540 + 60*i, 9, 40, 9, "Evaluating"})
	}
	events = append(events, event{1380, 9, math.NaN(), 0, "NoData"}) // the row begins anew
	for i := range 14 {
		events = append(events, event{1440 + 60*i, 9, 40, 9, "Evaluating"})
	}
	events = append(events, event{2280, 9, 40, 4, "Target"}, event{2340, 4, 20, 4, "CoolingDown"})
	play(t, aws(), events...)
}

// aws returns AWS's own waits over Default.
func aws() target.Config {
	c := target.Default()
	c.Tolerance, c.ScaleInMargin, c.StabilizationWindow = 0, new(0.1), 0
	c.Window, c.EvaluationPeriod = algorithms.Duration(time.Minute), algorithms.Duration(time.Minute)
	c.ScaleOutPoints, c.ScaleInPoints = 3, 15
	c.ScaleOutCooldown, c.ScaleInCooldown = algorithms.Duration(5*time.Minute), algorithms.Duration(5*time.Minute)
	return c
}

func TestWarmUpBlocksScaleIn(t *testing.T) {
	t.Parallel()
	c := target.Default()
	c.StabilizationWindow, c.EstimatedInstanceWarmup = 0, algorithms.Duration(time.Minute)
	play(t, c, event{0, 2, 40, 4, "Target"}, event{10, 4, 10, 4, "WarmingUp"}, event{20, 4, 60, 6, "Target"}, event{70, 6, 10, 6, "WarmingUp"}, event{80, 6, 10, 1, "Target"})
	c.DisableScaleIn = true
	play(t, c, event{0, 4, 10, 4, "ScaleInDisabled"})
}

func TestProperties(t *testing.T) {
	t.Parallel()
	policytest.Check(t, 71, 20, func() (algorithms.Policy, error) { return target.New(target.Default()) })
	policytest.Check(t, 72, 20, func() (algorithms.Policy, error) { return target.New(aws()) })
	policytest.Monotone(t, 73, 300, func() (algorithms.Policy, error) { return target.New(target.Default()) })
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*target.Config){
		"target": func(c *target.Config) { c.Target = math.Inf(1) }, "points": func(c *target.Config) { c.ScaleInPoints = 0 },
		"margin": func(c *target.Config) { v := 1.1; c.ScaleInMargin = &v }, "cooldown": func(c *target.Config) { c.ScaleInCooldown = -1 },
	} {
		c := target.Default()
		change(&c)
		if _, err := target.New(c); err == nil {
			t.Errorf("%s: New took it", name)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	p, err := target.New(target.Default())
	if err != nil {
		b.Fatal(err)
	}
	o := algorithms.Observation{Now: policytest.Epoch(), Quiet: true, Limits: algorithms.Limits{Max: 100}, Signals: []algorithms.Signal{{Name: "concurrency", Window: 30 * time.Second, Value: 100, Known: true}}}
	b.ReportAllocs()
	for b.Loop() {
		o.Now = o.Now.Add(time.Second)
		p.Decide(o)
	}
}

// TestAWSOfAnECSService goes out at the third data point of a minute above the target and in at the
// 15th below 90 % of it, and waits 5 minutes in between.
func TestAWSOfAnECSService(t *testing.T) {
	t.Parallel()
	c := target.AWS()
	c.Target = 10
	p, err := target.New(c)
	if err != nil {
		t.Fatal(err)
	}
	cur, changes := 2, map[int]int{}
	for minute := range 40 {
		load := 40.0
		if minute >= 10 {
			load = 15
		}
		d := p.Decide(algorithms.Observation{
			Now: policytest.Epoch().Add(time.Duration(minute) * time.Minute), Limits: algorithms.Limits{Max: 100}, Replicas: algorithms.Replicas{Current: cur, Ready: cur},
			Signals: []algorithms.Signal{{Name: algorithms.Concurrency, Window: time.Minute, Value: load, Known: true, Coverage: 1}},
		})
		if d.Replicas != cur {
			changes[minute] = d.Replicas
		}
		cur = d.Replicas
	}
	if want := map[int]int{2: 4, 24: 2}; !maps.Equal(changes, want) {
		t.Errorf("changes by the minute: %v, want %v", changes, want)
	}
}
