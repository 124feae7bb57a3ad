package kpa_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/kpa"
)

func observation(at time.Time, c kpa.Config, ready int, stable, panicky float64) algorithms.Observation {
	return algorithms.Observation{
		Now: at, Replicas: algorithms.Replicas{Current: ready, Ready: ready}, Limits: algorithms.Limits{Max: 1 << 20},
		Signals: []algorithms.Signal{
			{Name: algorithms.Concurrency, Window: time.Duration(c.StableWindow), Value: stable, Known: true, Coverage: 1},
			{Name: algorithms.Concurrency, Window: c.PanicWindow(), Value: panicky, Known: true, Coverage: 1},
		},
	}
}

// TestKnativeVectors holds Knative's own unit-test vectors
// (pkg/autoscaler/scaling/autoscaler_test.go), restated: rates of 10, a panic threshold of 200 %, a
// stable window of 60 s.
func TestKnativeVectors(t *testing.T) {
	t.Parallel()
	type step struct {
		at              time.Duration
		ready           int
		stable, panicky float64
		want            int
	}
	tests := map[string]struct {
		target, up, down float64
		steps            []step
	}{
		"burst above the threshold":    {10, 10, 10, []step{{0, 1, 50, 100, 10}}},
		"nothing":                      {10, 10, 10, []step{{0, 1, 0, 0, 0}}},
		"a little":                     {10, 10, 10, []step{{0, 1, 1, 0, 1}}},
		"stable only":                  {10, 10, 10, []step{{0, 1, 50, 50, 5}}},
		"bounded by the rate up":       {10, 10, 10, []step{{0, 1, 1000, 1001, 10}, {time.Second, 10, 1000, 1001, 100}}},
		"small rate up still grows":    {1, 1.1, 10, []step{{0, 2, 3, 3.1, 3}}},
		"panic pods hold to 60 s":      {10, 10, 10, []step{{0, 1, 100, 100, 10}, {0, 10, 1, 1000, 100}, {30 * time.Second, 10, 1, 1, 100}, {61 * time.Second, 10, 1, 1, 1}}},
		"no ready pod counts as one":   {10, 10, 10, []step{{0, 0, 50, 50, 5}}},
		"stable above panic, in panic": {1, 10, 10, []step{{0, 5, 50, 30, 50}}},
		"panic above stable, in panic": {1, 10, 10, []step{{0, 5, 20, 30, 30}}},
		"bounded by the rate down":     {10, 10, 10, []step{{0, 1, 1, 1, 1}, {2 * time.Second, 100, 1, 1, 10}, {4 * time.Second, 10, 1, 1, 1}}},
		"small rate down":              {10, 10, 1.1, []step{{0, 1, 1, 1, 1}, {2 * time.Second, 100, 1, 1, 90}}},
		"burst, growth, end of panic":  {1, 10, 10, []step{{0, 10, 11, 25, 25}, {30 * time.Second, 40, 30, 41, 41}, {91 * time.Second, 55, 50, 56, 50}}},
		"burst at the threshold":       {10, 10, 10, []step{{0, 1, 100, 100, 10}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := kpa.Default()
			c.Target, c.MaxScaleUpRate, c.MaxScaleDownRate = tt.target, tt.up, tt.down
			p, err := kpa.New(c)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Unix(1_000_000, 0)
			for i, s := range tt.steps {
				d := p.Decide(observation(start.Add(s.at), c, s.ready, s.stable, s.panicky))
				if !d.Valid || d.Replicas != s.want {
					t.Errorf("step %d: Decide(ready %d, stable %v, panic %v) = %d (%s, valid %v), want %d", i, s.ready, s.stable, s.panicky, d.Replicas, d.Message, d.Valid, s.want)
				}
			}
		})
	}
}

func TestDownRateAndStartInPanic(t *testing.T) {
	t.Parallel()
	c := kpa.Default()
	c.Target, c.MaxScaleDownRate = 10, 10
	p, err := kpa.New(c)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Unix(1_000_000, 0)
	if d := p.Decide(observation(start, c, 100, 1, 1)); d.Replicas != 100 || d.Reason != "Panic" {
		t.Errorf("a policy started over 100 pods decides %d (%s), want 100 (Panic): a restart must not scale down", d.Replicas, d.Reason)
	}
	if d := p.Decide(observation(start.Add(61*time.Second), c, 100, 1, 1)); d.Replicas != 10 {
		t.Errorf("after the stable window it decides %d, want 10: one tenth at a time", d.Replicas)
	}
}

func TestMeansSinceLeavingZeroAreUndiluted(t *testing.T) {
	t.Parallel()
	c := kpa.Default()
	c.Target = 10
	p, err := kpa.New(c)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_000_000, 0)
	// 100 requests in flight for the 2 s since the wake-up
	o := observation(now, c, 0, 100.0/60*2, 100.0/6*2)
	o.ActiveSince = now.Add(-2 * time.Second)
	if d := p.Decide(o); d.Replicas != 10 {
		t.Errorf("100 requests since 2 s at 10 a pod decide %d (%s), want 10", d.Replicas, d.Message)
	}
}

// A wake-up that was late leaves no time out of the means in which requests waited.
func TestLateWake(t *testing.T) {
	t.Parallel()
	c := kpa.Default()
	c.Target = 10
	for _, tt := range []struct {
		name          string
		stable, panic float64
		active        time.Duration
		want          int
	}{
		{"7 waited for a minute", 7, 7, 200 * time.Millisecond, 1},
		{"7 waited for 20 s", 7.0 / 60 * 20, 7, 200 * time.Millisecond, 1},
		{"70 waited for 20 s", 70.0 / 60 * 20, 70, 200 * time.Millisecond, 7},
		{"of the life before", 3, 7.0 / 6 * 2, 2 * time.Second, 1},
		{"7 since the wake-up, a second ago", 7.0 / 60, 7.0 / 6, time.Second, 1},
		{"70 since the wake-up, 10 s ago", 70.0 / 60 * 10, 70, 10 * time.Second, 7},
	} {
		p, err := kpa.New(c)
		if err != nil {
			t.Fatal(err)
		}
		o := observation(time.Unix(1_000_000, 0), c, 0, tt.stable, tt.panic)
		o.ActiveSince = o.Now.Add(-tt.active)
		if d := p.Decide(o); d.Replicas != tt.want {
			t.Errorf("%s: %d (%s), want %d", tt.name, d.Replicas, d.Message, tt.want)
		}
	}
}

func TestUnknownIsNotADecision(t *testing.T) {
	t.Parallel()
	c := kpa.Default()
	p, err := kpa.New(c)
	if err != nil {
		t.Fatal(err)
	}
	o := observation(time.Unix(1_000_000, 0), c, 3, 30, 30)
	o.Signals[1].Known = false
	if d := p.Decide(o); d.Valid {
		t.Errorf("Decide with an unknown panic window = %+v, want no valid decision", d)
	}
}

// TestSnapshotContinues interrupts a run at every step and compares with the uninterrupted one.
func TestSnapshotContinues(t *testing.T) {
	t.Parallel()
	const seed = 7
	c := kpa.Default()
	c.Target, c.ScaleDownDelay = 10, algorithms.Duration(20*time.Second)
	whole, err := kpa.New(c)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, seed))
	at, ready := time.Unix(1_000_000, 0), 1
	parts := whole.Snapshot()
	for i := range 2000 {
		o := observation(at, c, ready, rng.Float64()*200, rng.Float64()*400)
		part, err := kpa.New(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := part.Restore(parts); err != nil {
			t.Fatalf("step %d: restore: %v", i, err)
		}
		want, got := whole.Decide(o), part.Decide(o)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d, step %d: restored policy differs (-whole +restored):\n%s", seed, i, diff)
		}
		parts = part.Snapshot()
		at, ready = at.Add(2*time.Second), want.Replicas
	}
}

func FuzzDecide(f *testing.F) {
	f.Add(uint16(1), 10.0, 20.0, int64(2))
	f.Add(uint16(0), 0.0, 1e300, int64(0))
	f.Fuzz(func(t *testing.T, ready uint16, stable, panicky float64, stepSeconds int64) {
		c := kpa.Default()
		p, err := kpa.New(c)
		if err != nil {
			t.Fatal(err)
		}
		at := time.Unix(1_000_000, 0)
		for range 3 {
			d := p.Decide(observation(at, c, int(ready), stable, panicky))
			if d.Valid && d.Replicas < 0 {
				t.Fatalf("Decide(ready %d, stable %v, panic %v) = %d, want ≥ 0", ready, stable, panicky, d.Replicas)
			}
			for _, term := range d.Terms {
				if !algorithms.Finite(term.Value) {
					t.Fatalf("term %s = %v for finite input", term.Name, term.Value)
				}
			}
			at = at.Add(time.Duration(stepSeconds%3600) * time.Second).Add(time.Second)
		}
	})
}

func TestValidateNamesEveryFault(t *testing.T) {
	t.Parallel()
	err := kpa.Config{}.Validate()
	if err == nil {
		t.Fatal("the zero Config is valid, want faults")
	}
	for _, want := range []string{"target = 0", "stableWindow = 0s", "panicWindowPercentage = 0", "panicThresholdPercentage = 0", "maxScaleUpRate = 0", "maxScaleDownRate = 0", "activationScale = 0"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Validate() says %q, want it to name %q", err, want)
		}
	}
	if err := kpa.Default().Validate(); err != nil {
		t.Errorf("Default() is not valid: %v", err)
	}
}
