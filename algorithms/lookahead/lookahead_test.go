package lookahead_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/lookahead"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
)

func policy(t testing.TB, change func(*lookahead.Config)) *lookahead.Policy {
	t.Helper()
	c := lookahead.Default()
	c.Target = 10
	if change != nil {
		change(&c)
	}
	p, err := lookahead.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// at asks with a load of n requests and a mean service time of half a second.
func at(p *lookahead.Policy, now time.Time, n float64, current, ready int, start time.Duration) algorithms.Decision {
	o := algorithms.Observation{
		Now: now, Limits: algorithms.Limits{Max: 100, PodConcurrency: 10}, Replicas: algorithms.Replicas{Current: current, Ready: ready, Starting: max(current-ready, 0)},
		StartUp: algorithms.StartUp{P50: start, P90: start, P99: start, Samples: 9},
	}
	for _, need := range p.Needs() {
		v := n
		if need.Name == algorithms.Rate {
			v = min(n, float64(ready)*10) / 0.5
		}
		o.Signals = append(o.Signals, algorithms.Signal{Name: need.Name, Window: need.Window, Value: v, Known: true, Coverage: 1})
	}
	return p.Decide(o)
}

// minute is the counts that were asked for in the last minute, in steps of 2 s: pods take that long
// to start.
type minute []int

// ready is how many of current pods have started.
func (m minute) ready(current int) int {
	for _, n := range m {
		current = min(current, n)
	}
	return current
}

func (m *minute) ask(n int) {
	if *m = append(*m, n); len(*m) > 30 {
		*m = (*m)[1:]
	}
}

func TestProperties(t *testing.T) {
	t.Parallel()
	policytest.Check(t, 51, 20, func() (algorithms.Policy, error) { return lookahead.New(lookahead.Default()) })
}

// poisson draws a mean over 2 s of a load a with service time 0.5 s: its variance is 2aS/w·(1 −
// (S/w)(1 − e^(−w/S))).
func poisson(r *rand.Rand, a float64) float64 {
	x := 0.25
	return max(a+r.NormFloat64()*math.Sqrt(2*a*x*(1-x*(1-math.Exp(-1/x)))), 0)
}

// A steady Poisson load is staffed for as queueing theory says (57 slots and a margin of forecast
// for a load of 50), whatever the start-up.
func TestSteady(t *testing.T) {
	t.Parallel()
	for _, start := range []time.Duration{0, 10 * time.Second, time.Minute} {
		r := rand.New(rand.NewPCG(1, uint64(start)))
		p := policy(t, nil)
		now, current, sum := policytest.Epoch(), 6, 0
		const steps, late = 3600, 1800
		for i := range steps {
			d := at(p, now, poisson(r, 50), current, current, start)
			if current = d.Replicas; i >= late {
				sum += current
			}
			now = now.Add(2 * time.Second)
		}
		if mean := float64(sum) / (steps - late); mean < 5.5 || mean > 7 {
			t.Errorf("start-up %s: %.2f pods on average for a load of 50, want 6 or a little more", start, mean)
		}
	}
}

// A jump of load is answered at the next decision.
func TestJump(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(2, 2))
	p := policy(t, nil)
	now := policytest.Epoch()
	for range 300 {
		at(p, now, poisson(r, 20), 4, 4, 10*time.Second)
		now = now.Add(2 * time.Second)
	}
	d := at(p, now, 90, 4, 4, 10*time.Second)
	if d.Replicas < 9 {
		t.Errorf("a jump from 20 to 90 gives %+v", d)
	}
}

// A surge every ten minutes, longer than a start-up takes, is learnt: there are pods for it before
// it comes, when it is worth them; and fewer when a late request is cheap.
func TestBudgetSetsTheMargin(t *testing.T) {
	t.Parallel()
	mean := func(budget float64) float64 {
		p := policy(t, func(c *lookahead.Config) { c.ViolationBudget = budget })
		r := rand.New(rand.NewPCG(3, 3))
		now, current, sum := policytest.Epoch(), 3, 0
		var starts minute
		for i := range 4 * 1800 {
			load := 20.0
			if i%300 < 45 {
				load = 60
			}
			ready := starts.ready(current)
			d := at(p, now, poisson(r, load), current, ready, time.Minute)
			current = d.Replicas
			starts.ask(current)
			sum += current
			now = now.Add(2 * time.Second)
		}
		return float64(sum) / (4 * 1800)
	}
	tight, loose := mean(0.01), mean(0.3)
	if tight < 5.5 || loose > tight-1 {
		t.Errorf("%.2f pods at a budget of 1 %%, %.2f at 30 %%", tight, loose)
	}
}

// The last pod of an unknown workload stays for the reference time; of one that asks every half
// hour it goes at once, and is back before the next request, at no more pod-seconds than the
// reference would cost.
func TestLastPod(t *testing.T) {
	t.Parallel()
	p := policy(t, nil)
	now := policytest.Epoch()
	at(p, now, 3, 1, 1, 0)
	if d := at(p, now.Add(50*time.Second), 0, 1, 1, 0); d.Replicas != 1 {
		t.Errorf("50 s after the last demand: %+v", d)
	}
	if d := at(p, now.Add(90*time.Second), 0, 1, 1, 0); d.Replicas != 0 {
		t.Errorf("90 s after the last demand: %+v", d)
	}
	now = now.Add(10 * time.Minute)
	const cycle, cycles = 900, 60
	current, cold, on := 1, 0, 0
	for i := range cycles * cycle {
		load := 0.0
		if i%cycle < 2 {
			load = 1
			if current == 0 && i > cycles*cycle/2 {
				cold++
			}
		}
		current = at(p, now, load, current, current, 2*time.Second).Replicas
		if i > cycles*cycle/2 && load == 0 {
			on += current
		}
		now = now.Add(2 * time.Second)
	}
	if limit := cycles / 2 * 35; on > limit { // of 2 s
		t.Errorf("on for %d s in %d idle times", 2*on, cycles/2)
	}
	t.Logf("%d cold starts of %d, on for %d s of %d", cold, cycles/2, 2*on, cycles/2*60)
}

// term is the value of a term of a decision.
func term(t *testing.T, d algorithms.Decision, name string) float64 {
	t.Helper()
	for _, term := range d.Terms {
		if term.Name == name {
			return term.Value
		}
	}
	t.Fatalf("no term %q in %+v", name, d.Terms)
	return 0
}

// A load that jumps from nothing to 100 and back again and again, where pods take a minute, teaches
// that it jumps up from nothing, not that it jumps from 100 to 400; and that whoever sleeps pays
// for waking is no reason to pay more for what comes in time.
func TestJumpsBelongToTheirLevel(t *testing.T) {
	t.Parallel()
	p := policy(t, nil)
	r := rand.New(rand.NewPCG(3, 3))
	now, current, most := policytest.Epoch(), 1, 0
	var starts minute
	for i := range 12 * 600 {
		load := 0.0
		if i%600 < 300 {
			load = 100
		}
		ready := starts.ready(current)
		d := at(p, now, poisson(r, load), current, ready, time.Minute)
		if i > 6*600 && i%600 > 150 && i%600 < 300 {
			most = max(most, d.Replicas)
		}
		if price := term(t, d, "price"); price > 1 {
			t.Fatalf("a price of %.2f after cold starts only", price)
		}
		current = d.Replicas
		starts.ask(current)
		now = now.Add(2 * time.Second)
	}
	if most > 16 {
		t.Errorf("%d pods for a steady load of 100, want 11 or some more", most)
	}
}

// One surge, the first, is not staffed for again once it is over.
func TestFirstJumpTeachesNothing(t *testing.T) {
	t.Parallel()
	p := policy(t, nil)
	r := rand.New(rand.NewPCG(4, 4))
	now, current := policytest.Epoch(), 3
	for i := range 3 * 1800 {
		load := 20.0
		if i > 1800 && i < 1800+150 {
			load = 120
		}
		d := at(p, now, poisson(r, load), current, current, time.Minute)
		if current = d.Replicas; i > 1800+300 && current > 6 {
			t.Fatalf("%d pods for a load of 20, %v after the surge", current, time.Duration(i-1950)*2*time.Second)
		}
		now = now.Add(2 * time.Second)
	}
}

// While nothing was answered yet a queue cannot be told from load: it is answered, and not learnt.
func TestQueueBeforeTheFirstAnswer(t *testing.T) {
	t.Parallel()
	p := policy(t, nil)
	now := policytest.Epoch()
	var d algorithms.Decision
	for i := range 30 {
		d = at(p, now, float64(20*i), 1, 0, time.Minute)
		now = now.Add(2 * time.Second)
	}
	if d.Reason != "Queue" || d.Replicas != 58 {
		t.Errorf("580 requests before the first answer: %+v, want 58 pods for a Queue", d)
	}
	for range 60 {
		d = at(p, now, 20, 4, 4, time.Minute)
		now = now.Add(2 * time.Second)
	}
	if d.Replicas > 5 {
		t.Errorf("a load of 20 after it: %+v", d)
	}
}

// The rate is what the pods can do and the concurrency is the queue: neither is taken for the load.
func TestBacklog(t *testing.T) {
	t.Parallel()
	p := policy(t, nil)
	now := policytest.Epoch()
	for range 300 {
		at(p, now, 40, 6, 6, 10*time.Second)
		now = now.Add(2 * time.Second)
	}
	d := algorithms.Decision{}
	for i := range 6 { // 80 slots of load at 60: the queue grows by 80 requests every 2 s
		d = at(p, now, 60+float64(80*i), 6, 6, 10*time.Second)
		now = now.Add(2 * time.Second)
	}
	for _, term := range d.Terms {
		if term.Name == "load" && math.Abs(term.Value-80) > 1 {
			t.Errorf("a load of 80 is taken for %v", term.Value)
		}
	}
	if d.Replicas < 9 || d.Reason != "Backlog" {
		t.Errorf("%+v", d)
	}
}

func TestUnknown(t *testing.T) {
	t.Parallel()
	if d := policy(t, nil).Decide(algorithms.Observation{Now: policytest.Epoch()}); d.Valid {
		t.Errorf("unknown load gives %+v", d)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	_, err := lookahead.New(lookahead.Config{PodConcurrency: -1, StartUp: -1})
	for _, want := range []string{"window", "waitGoal", "violationBudget", "budgetWindow", "podConcurrency", "target", "startUp", "tick", "halfLife", "idleReference"} {
		if err == nil || !strings.Contains(err.Error(), want+" = ") {
			t.Errorf("no fault of %s in %v", want, err)
		}
	}
}

// Any snapshot is either refused or leads to answers within bounds.
func FuzzRestore(f *testing.F) {
	p := policy(f, nil)
	now := policytest.Epoch()
	for i := range 100 {
		at(p, now.Add(time.Duration(2*i)*time.Second), float64(i%30), 3, 3, 5*time.Second)
	}
	f.Add([]byte(p.Snapshot()))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p := policy(t, nil)
		if p.Restore(json.RawMessage(raw)) != nil {
			return
		}
		for i := range 20 {
			if d := at(p, now.Add(time.Duration(400+2*i)*time.Second), float64(i), 3, 2, time.Second); d.Valid && (d.Replicas < 0 || d.Replicas > 100) {
				t.Fatalf("%+v", d)
			}
		}
	})
}

// One decision without explanation allocates nothing.
func BenchmarkDecide(b *testing.B) {
	p := policy(b, nil)
	r := rand.New(rand.NewPCG(2, 2))
	o := algorithms.Observation{
		Now: policytest.Epoch(), Quiet: true, Limits: algorithms.Limits{Max: 100, PodConcurrency: 10}, Replicas: algorithms.Replicas{Current: 8, Ready: 8},
		StartUp: algorithms.StartUp{P50: time.Minute, P90: time.Minute, Samples: 9},
	}
	for _, n := range p.Needs() {
		o.Signals = append(o.Signals, algorithms.Signal{Name: n.Name, Window: n.Window, Known: true, Coverage: 1})
	}
	b.ReportAllocs()
	for b.Loop() {
		o.Now = o.Now.Add(2 * time.Second)
		n := 50 + 30*r.NormFloat64()
		for i := range o.Signals {
			o.Signals[i].Value = n
			if o.Signals[i].Name == algorithms.Rate {
				o.Signals[i].Value = n * 2
			}
		}
		p.Decide(o)
	}
}
