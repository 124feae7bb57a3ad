package histogram_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/histogram"
	"github.com/sluice-autoscaler/sluice/algorithms/keepalive"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
)

func idle(t *testing.T, change func(*histogram.Config)) *histogram.Idle {
	t.Helper()
	c := histogram.Default()
	if change != nil {
		change(&c)
	}
	h, err := histogram.NewIdle(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// The computed values of field/algorithms.md (d): 20 idle times of 30 min have CV 15.46, head 27
// min and tail 34.1 min, so that a pod is there for 7.1 min.
func TestThirtyMinutes(t *testing.T) {
	t.Parallel()
	h := idle(t, nil)
	for range 20 {
		h.Add(30 * time.Minute)
	}
	if got := h.CV(); math.Abs(got-15.46) > .005 {
		t.Errorf("CV %v, want 15.46", got)
	}
	want := histogram.Rule{PreWarm: 27 * time.Minute, KeepAlive: 7*time.Minute + 6*time.Second, Kind: histogram.Distribution}
	if diff := cmp.Diff(want, h.Rule(keepalive.Forever)); diff != "" {
		t.Errorf("rule (− want):\n%s", diff)
	}
}

// n idle times in n bins represent something while n ≤ 48, where CV is exactly 2; one alone has CV
// 15.46, so a least count is needed.
func TestRepresentative(t *testing.T) {
	t.Parallel()
	h := idle(t, func(c *histogram.Config) { c.MinCount = 1 })
	for n := 1; n <= 60; n++ {
		h.Add(time.Duration(n) * time.Minute)
		if n == 1 && math.Abs(h.CV()-15.46) > .005 {
			t.Errorf("CV of one %v, want 15.46", h.CV())
		}
		want := histogram.Distribution
		if n > 48 {
			want = histogram.Flat
		}
		if got := h.Rule(keepalive.Forever).Kind; got != want {
			t.Errorf("%d idle times in as many bins: CV %v is %s, want %s", n, h.CV(), got, want)
		}
	}
	few := idle(t, nil)
	for range 9 {
		few.Add(30 * time.Minute)
	}
	if got := few.Rule(keepalive.Forever); got != (histogram.Rule{KeepAlive: 4 * time.Hour, Kind: histogram.Few}) {
		t.Errorf("nine idle times: %+v", got)
	}
}

// Idle times beyond the range: five hours give 4 h 15 and 1 h 30. The cap holds for every kind.
func TestOutOfBounds(t *testing.T) {
	t.Parallel()
	h := idle(t, nil)
	for range 12 {
		h.Add(5 * time.Hour)
	}
	want := histogram.Rule{PreWarm: 4*time.Hour + 15*time.Minute, KeepAlive: 90 * time.Minute, Kind: histogram.OutOfBounds}
	if got := h.Rule(keepalive.Forever); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := h.Rule(10 * time.Minute).KeepAlive; got != 10*time.Minute {
		t.Errorf("capped at %v, want 10m", got)
	}
}

// Head in the first bin: the pod never goes before the end of its keep-alive time.
func TestHeadInFirstBin(t *testing.T) {
	t.Parallel()
	h := idle(t, nil)
	for i := range 100 {
		h.Add(time.Duration(i%5) * 10 * time.Second)
	}
	if got := h.Rule(keepalive.Forever); got != (histogram.Rule{KeepAlive: 66 * time.Second, Kind: histogram.Distribution}) {
		t.Errorf("%+v", got)
	}
}

// The percentiles' slow twin: sort the idle times.
func TestPercentileTwin(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(4, 2))
	for range 100 {
		h := idle(t, func(c *histogram.Config) { c.MinCV = 0 })
		bins := make([]int, 240)
		n := 10 + r.IntN(400)
		for range n {
			m := r.IntN(1 + r.IntN(239))
			bins[m]++
			h.Add(time.Duration(m)*time.Minute + time.Duration(r.IntN(60))*time.Second)
		}
		at := func(p float64) int {
			var all []int
			for b, c := range bins {
				for range c {
					all = append(all, b)
				}
			}
			return all[max(int(math.Ceil(p*float64(n))), 1)-1]
		}
		head, tail := at(.05), at(.99)
		pre := time.Duration(0.9 * float64(time.Duration(head)*time.Minute))
		want := histogram.Rule{PreWarm: pre, KeepAlive: time.Duration(1.1*float64(time.Duration(tail+1)*time.Minute)) - pre, Kind: histogram.Distribution}
		if got := h.Rule(keepalive.Forever); got != want {
			t.Fatalf("%+v, want %+v", got, want)
		}
	}
}

func policy(t *testing.T) *histogram.Policy {
	t.Helper()
	c := histogram.Default()
	c.Target = 10
	p, err := histogram.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func at(p *histogram.Policy, now time.Time, load float64, current int) algorithms.Decision {
	o := algorithms.Observation{
		Now: now, Limits: algorithms.Limits{Max: 100}, Replicas: algorithms.Replicas{Current: current, Ready: current},
		StartUp: algorithms.StartUp{P50: 5 * time.Second, P90: 10 * time.Second, P99: 10 * time.Second, Samples: 9},
	}
	for _, n := range p.Needs() {
		o.Signals = append(o.Signals, algorithms.Signal{Name: n.Name, Window: n.Window, Value: load, Known: true, Coverage: 1})
	}
	return p.Decide(o)
}

// A request every half hour: after ten of them a pod is there when the next comes, and gone in
// between.
func TestEveryHalfHour(t *testing.T) {
	t.Parallel()
	p := policy(t)
	now, current, up, cold := policytest.Epoch(), 0, 0, 0
	const cycle = 900 // of 2 s
	for i := range 24 * cycle {
		load := 0.0
		if i%cycle == 0 {
			load = 1
			if current == 0 && i > 12*cycle {
				cold++
			}
		}
		d := at(p, now, load, current)
		current = d.Replicas
		if i > 12*cycle && current > 0 {
			up++
		}
		now = now.Add(2 * time.Second)
	}
	if cold > 0 {
		t.Errorf("%d cold starts after twelve of the same idle time", cold)
	}
	if share := float64(up) / (12 * cycle); share > 7.3/30+.01 {
		t.Errorf("the pod was there for %.2f of the time, want 7.1 min of 30 and the start-up", share)
	}
}

// Above zero the target rule decides, and what is unknown changes nothing.
func TestAboveZero(t *testing.T) {
	t.Parallel()
	p := policy(t)
	if d := at(p, policytest.Epoch(), 95, 1); d.Replicas != 10 || d.Reason != "Target" {
		t.Errorf("%+v", d)
	}
	if d := p.Decide(algorithms.Observation{Now: policytest.Epoch()}); d.Valid {
		t.Errorf("unknown load gives %+v", d)
	}
}

// Stretches of zero in the past are idle times.
func TestLearn(t *testing.T) {
	t.Parallel()
	p := policy(t)
	var past []algorithms.Sample
	now := policytest.Epoch()
	for i := range 15 * 30 {
		v := 0.0
		if i%30 == 0 {
			v = 3
		}
		past = append(past, algorithms.Sample{At: now, Signal: algorithms.Concurrency, Value: v})
		now = now.Add(time.Minute)
	}
	if err := p.Learn(past); err != nil {
		t.Fatal(err)
	}
	if d := at(p, now, 0, 1); d.Reason != "PreWarmed" {
		t.Errorf("%+v", d)
	}
}

func TestProperties(t *testing.T) {
	t.Parallel()
	policytest.Check(t, 31, 20, func() (algorithms.Policy, error) { return histogram.New(histogram.Default()) })
}

func TestValidate(t *testing.T) {
	t.Parallel()
	c := histogram.Config{Target: -1, Bin: algorithms.Duration(time.Minute), Range: 7, Head: 3, Tail: 2, Margin: 3, MinCV: -1, OutOfBounds: 2, ColdStartCost: -1, StartUp: -1}
	_, err := histogram.New(c)
	for _, want := range []string{"target", "window", "activity", "range", "head", "tail", "margin", "minCV", "minCount", "outOfBounds", "coldStartCost", "startUp"} {
		if err == nil || !strings.Contains(err.Error(), want+" = ") {
			t.Errorf("no fault of %s in %v", want, err)
		}
	}
}

// Any idle times and any state: the rule stays sane.
func FuzzIdle(f *testing.F) {
	f.Add([]byte(`{"counts":[1,2,3],"out":4,"long":20000}`), int64(1800e9))
	f.Fuzz(func(t *testing.T, raw []byte, it int64) {
		h := idle(t, nil)
		var s histogram.IdleState
		if json.Unmarshal(raw, &s) != nil || h.Load(s) != nil {
			return
		}
		for range 20 {
			h.Add(time.Duration(it))
		}
		if r := h.Rule(time.Hour); r.PreWarm < 0 || r.KeepAlive < 0 || r.KeepAlive > time.Hour {
			t.Fatalf("%+v", r)
		}
	})
}
