package kpa_test

import (
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/guard"
	"github.com/sluice-autoscaler/sluice/algorithms/kpa"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
)

func TestProperties(t *testing.T) {
	t.Parallel()
	policytest.Check(t, 3, 200, func() (algorithms.Policy, error) {
		c := kpa.Default()
		c.Target, c.ScaleDownDelay, c.ActivationScale, c.InitialScale = 10, algorithms.Duration(30*time.Second), 3, 4
		p, err := kpa.New(c)
		if err != nil {
			return nil, err
		}
		return guard.New(guard.Default(), p)
	})
}

func TestScaleDownDelayReachableAndInitialScale(t *testing.T) {
	t.Parallel()
	type step struct {
		at    time.Duration
		ready int
		load  float64
		want  int
	}
	tests := map[string]struct {
		change func(*kpa.Config)
		steps  []step
	}{
		"delay holds the largest of its time, in ticks of 2 s": {
			func(c *kpa.Config) { c.ScaleDownDelay = algorithms.Duration(10 * time.Second) },
			[]step{{0, 1, 10, 1}, {2 * time.Second, 2, 15, 2}, {10 * time.Second, 2, 10, 2}, {11 * time.Second, 2, 10, 2}, {12 * time.Second, 2, 10, 1}},
		},
		"unreachable shrinks at once": {
			func(c *kpa.Config) { c.Reachable, c.ScaleDownDelay = false, algorithms.Duration(time.Hour) },
			[]step{{0, 1, 10, 1}, {2 * time.Second, 8, 80, 8}, {4 * time.Second, 8, 0, 0}},
		},
		"reachable shrinks by the rate": {
			func(*kpa.Config) {},
			[]step{{0, 1, 10, 1}, {2 * time.Second, 8, 80, 8}, {4 * time.Second, 8, 0, 4}},
		},
		"initial scale until it was reached": {
			func(c *kpa.Config) { c.InitialScale = 3 },
			[]step{{0, 0, 0, 3}, {2 * time.Second, 2, 0, 3}, {4 * time.Second, 3, 0, 1}, {6 * time.Second, 1, 0, 0}},
		},
		"activation scale": {
			func(c *kpa.Config) { c.ActivationScale = 4 },
			[]step{{0, 0, 0, 0}, {2 * time.Second, 0, 1, 4}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := kpa.Default()
			c.Target = 10
			tt.change(&c)
			p, err := kpa.New(c)
			if err != nil {
				t.Fatal(err)
			}
			for i, s := range tt.steps {
				if d := p.Decide(observation(time.Unix(1_000_000, 0).Add(s.at), c, s.ready, s.load, s.load)); d.Replicas != s.want {
					t.Errorf("step %d: Decide(ready %d, load %v) = %d (%s), want %d", i, s.ready, s.load, d.Replicas, d.Message, s.want)
				}
			}
		})
	}
}

func TestExcessBurstCapacity(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		ready            int
		burst, total, in float64
		want             float64
	}{
		"none asked for":          {3, 0, 10, 5, 0},
		"without bound":           {3, -1, 10, 5, -1},
		"some left":               {30, 200, 10, 50.5, 49},
		"would queue":             {3, 200, 10, 5, -175},
		"total is target if left": {30, 200, 0, 50, -40},
	} {
		c := kpa.Default()
		c.Target, c.TotalValue, c.TargetBurstCapacity = 7, tt.total, tt.burst
		p, err := kpa.New(c)
		if err != nil {
			t.Fatal(err)
		}
		d := p.Decide(observation(time.Unix(1, 0), c, tt.ready, tt.in, tt.in))
		if got := d.Terms[len(d.Terms)-1]; got != (algorithms.Term{Name: "excessBurstCapacity", Value: tt.want}) {
			t.Errorf("%s: %+v, want %v", name, got, tt.want)
		}
	}
}

func TestQuietAllocatesNothing(t *testing.T) {
	c := kpa.Default()
	c.ScaleDownDelay = algorithms.Duration(time.Minute)
	p, err := kpa.New(c)
	if err != nil {
		t.Fatal(err)
	}
	o := observation(time.Unix(1_000_000, 0), c, 10, 700, 700)
	o.Quiet = true
	p.Decide(o)
	if n := testing.AllocsPerRun(1000, func() { o.Now = o.Now.Add(2 * time.Second); p.Decide(o) }); n != 0 {
		t.Errorf("%v allocations a decision without explanation, want 0", n)
	}
	for i := range 40 { // falling counts, all of which the delay has to remember
		o.Now, o.Signals[0].Value, o.Signals[1].Value = o.Now.Add(2*time.Second), float64(7000-70*i), 0
		o.Replicas.Ready = 100
		p.Decide(o)
	}
	if n := len(p.Snapshot()); n > 4096 {
		t.Errorf("state of a 60 s delay is %d bytes, want at most 4096", n)
	}
}

func benchmark(b *testing.B, quiet bool) {
	c := kpa.Default()
	p, err := kpa.New(c)
	if err != nil {
		b.Fatal(err)
	}
	o := observation(time.Unix(1_000_000, 0), c, 10, 700, 700)
	o.Quiet = quiet
	b.ReportAllocs()
	for b.Loop() {
		o.Now = o.Now.Add(2 * time.Second)
		p.Decide(o)
	}
}

func BenchmarkDecide(b *testing.B)          { benchmark(b, true) }
func BenchmarkDecideExplained(b *testing.B) { benchmark(b, false) }
