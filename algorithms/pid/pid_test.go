package pid_test

import (
	"math"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/pid"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
)

// plant asks the policy every 15 s, does at once what it says, and returns the counts. loads holds
// the load, in pods, of each step.
func plant(t *testing.T, change func(*pid.Config), start int, limits algorithms.Limits, loads ...float64) []int {
	t.Helper()
	c := pid.Default()
	c.Target = 10
	if change != nil {
		change(&c)
	}
	p, err := pid.New(c)
	if err != nil {
		t.Fatal(err)
	}
	cur, out := start, []int(nil)
	for i, load := range loads {
		d := p.Decide(algorithms.Observation{
			Now: policytest.Epoch().Add(time.Duration(i) * 15 * time.Second), Limits: limits, Replicas: algorithms.Replicas{Current: cur, Ready: cur},
			Signals: []algorithms.Signal{{Name: c.Signal, Window: time.Duration(c.Window), Value: load * 10, Known: true}},
		})
		cur = d.Replicas
		out = append(out, cur)
	}
	return out
}

func repeat(v float64, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = v
	}
	return out
}

func TestConverges(t *testing.T) {
	t.Parallel()
	free := algorithms.Limits{Max: 100}
	got := plant(t, nil, 4, free, append(repeat(4, 3), repeat(20, 30)...)...)
	if got[0] != 4 {
		t.Errorf("the first answer is %d, want the current 4", got[0])
	}
	for i, n := range got[len(got)-8:] {
		if n < 19 || n > 21 {
			t.Errorf("step %d from the end: %d pods, want 20 ± 1: %v", 8-i, n, got)
		}
	}
}

// After a long time at the upper limit the answer comes down in the first steps of low load: the
// integral is not wound up.
func TestAntiWindup(t *testing.T) {
	t.Parallel()
	got := plant(t, nil, 5, algorithms.Limits{Max: 10}, append(repeat(200, 100), repeat(2, 6)...)...)
	if got[99] != 10 {
		t.Fatalf("at the limit: %d pods, want 10", got[99])
	}
	if got[100] >= 10 || got[105] > 3 {
		t.Errorf("after the load fell: %v, want down at once and at 2–3 pods after 6 steps", got[100:])
	}
}

// After a gap longer than maxStep the controller starts anew, from the current count.
func TestGapStartsAnew(t *testing.T) {
	t.Parallel()
	p, err := pid.New(pid.Default())
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		sec    int
		reason string
	}{{0, "Started"}, {120, "Tracking"}, {241, "Started"}} {
		d := p.Decide(algorithms.Observation{
			Now: policytest.Epoch().Add(time.Duration(step.sec) * time.Second), Limits: algorithms.Limits{Max: 100}, Replicas: algorithms.Replicas{Current: 3},
			Signals: []algorithms.Signal{{Name: "concurrency", Window: 30 * time.Second, Value: 700, Known: true}},
		})
		if d.Reason != step.reason || (d.Reason == "Started") != (d.Replicas == 3) {
			t.Errorf("at %d s: %+v, want %s", step.sec, d, step.reason)
		}
	}
}

// With a derivative the answer to a ramp is ahead of the one without.
func TestDerivativeLooksAhead(t *testing.T) {
	t.Parallel()
	ramp := make([]float64, 20)
	for i := range ramp {
		ramp[i] = float64(2 + 2*i)
	}
	free := algorithms.Limits{Max: 1000}
	without := plant(t, nil, 2, free, ramp...)
	with := plant(t, func(c *pid.Config) { c.KD = 60 }, 2, free, ramp...)
	if with[5] <= without[5] {
		t.Errorf("on a ramp: with derivative %v, without %v", with, without)
	}
}

// A change of target moves the error but not the derivative: the measurement did not change. Since
// demand is measured in pods of the target, what must not happen is a kick from a demand that stays
// the same.
func TestSteadyDemandHasNoDerivative(t *testing.T) {
	t.Parallel()
	c := pid.Default()
	c.KD = 600
	p, err := pid.New(c)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		d := p.Decide(algorithms.Observation{
			Now: policytest.Epoch().Add(time.Duration(i) * time.Second), Limits: algorithms.Limits{Max: 100}, Replicas: algorithms.Replicas{Current: 3 * i},
			Signals: []algorithms.Signal{{Name: c.Signal, Window: time.Duration(c.Window), Value: 700, Known: true}},
		})
		for _, term := range d.Terms {
			if term.Name == "derivative" && term.Value != 0 {
				t.Errorf("step %d: derivative %v though only the pods changed", i, term.Value)
			}
		}
	}
}

func TestProperties(t *testing.T) {
	t.Parallel()
	mk := func() (algorithms.Policy, error) {
		c := pid.Default()
		c.KD = 30
		return pid.New(c)
	}
	policytest.Check(t, 21, 30, mk)
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*pid.Config){
		"no gain": func(c *pid.Config) { c.KP, c.KI = 0, 0 }, "NaN": func(c *pid.Config) { c.KD = math.NaN() }, "signal": func(c *pid.Config) { c.Signal = "" },
	} {
		c := pid.Default()
		change(&c)
		if _, err := pid.New(c); err == nil {
			t.Errorf("%s: New took it", name)
		}
	}
}

func FuzzDecide(f *testing.F) {
	f.Add(3, 100.0, int64(time.Second), 10)
	f.Fuzz(func(t *testing.T, current int, load float64, step int64, limit int) {
		c := pid.Default()
		c.KD = 600
		p, err := pid.New(c)
		if err != nil {
			t.Fatal(err)
		}
		limit, current = max(1, limit%1000), max(0, current%100_000)
		now := policytest.Epoch()
		var seq []algorithms.Observation
		for k, v := range []float64{load, 0, load * 2, load} {
			seq = append(seq, algorithms.Observation{
				Now: now.Add(time.Duration(k) * time.Duration(step%int64(time.Hour))), Limits: algorithms.Limits{Max: limit}, Replicas: algorithms.Replicas{Current: current},
				Signals: []algorithms.Signal{{Name: c.Signal, Window: time.Duration(c.Window), Value: v, Known: true}},
			})
		}
		policytest.Run(t, p, seq)
	})
}

func BenchmarkDecide(b *testing.B) {
	p, err := pid.New(pid.Default())
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
