package loop_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/algorithms/loop/looptest"
)

// TestEveryRowOfTheTable walks all combinations that the package comment's table tells apart.
func TestEveryRowOfTheTable(t *testing.T) {
	t.Parallel()
	timing := loop.DefaultTiming()
	const grace, linger = 2 * time.Second, 5 * time.Second
	rows := map[string]int{}
	for _, current := range []int{0, 1, 4} {
		for _, want := range []int{0, 1, 6} {
			for _, ready := range []int{0, 1, 4} {
				for _, in := range []bool{false, true} {
					for _, listening := range []int{0, 2} {
						for _, waiting := range []int{0, 3} {
							for _, waking := range []bool{false, true} {
								for _, since := range []time.Duration{0, grace - 1, grace, linger} {
									if ready > current {
										continue
									}
									row := checkRow(t, timing, tableCase{current, want, ready, listening, waiting, in, waking, since})
									rows[row]++
								}
							}
						}
					}
				}
			}
		}
	}
	for _, row := range []string{"asleep", "wake", "no gateway", "put in", "grace", "sleep", "lost", "linger", "awake"} {
		if rows[row] == 0 {
			t.Errorf("row %q of the table was never met: %v", row, rows)
		}
	}
}

type tableCase struct {
	current, want, ready, listening, waiting int
	in, waking                               bool
	// since is for how long the path was in and instances were ready.
	since time.Duration
}

// checkRow brings a loop into the case by its public face, and compares what it does with the
// table.
func checkRow(t *testing.T, timing loop.Timing, c tableCase) (row string) {
	t.Helper()
	spec := loop.Spec{ServiceRef: &loop.ServiceRef{Name: "web"}, MaxReplicas: 10, Policy: loop.Policy{Name: "script"}}
	script := &scripted{}
	l, err := loop.New(spec, catalogOf{script}, timing)
	if err != nil {
		t.Fatal(err)
	}
	now := looptest.Epoch()
	round := func(current, want int, p loop.Path) loop.Commands {
		script.n = want
		v := loop.View{Now: now, Replicas: current, Path: &p}
		for _, n := range l.Needs() { // no demand at all: the guard allows zero
			v.Signals = append(v.Signals, algorithms.Signal{Name: n.Name, Window: n.Window, Known: true, Coverage: 1})
		}
		cmds := l.Step(v)
		l.Done(now, cmds, errors.New("only looked at")) // so that settling does not matter
		return cmds
	}
	path := loop.Path{In: c.in, Ready: c.ready, Listening: c.listening, Waiting: c.waiting}
	if c.waking {
		round(1, 1, loop.Path{In: true, Listening: c.listening, Ready: 0})
	} else {
		round(1, 1, loop.Path{Ready: 1, Listening: c.listening})
	}
	if c.since > 0 { // the same was seen that long ago
		if c.want == 0 && c.current > 0 {
			round(c.current, 0, path)
		} else if c.waking && c.ready > 0 && c.current > 0 {
			round(c.current, max(1, c.want), loop.Path{In: c.in, Ready: c.ready, Listening: c.listening, Waiting: 1})
		}
	}
	now = now.Add(c.since)
	wasWaking := l.Phase() == loop.Waking
	got := round(c.current, c.want, path)

	phase, in, n := loop.Awake, false, c.want
	switch {
	case c.current == 0 && c.want == 0:
		row, phase, in = "asleep", loop.Asleep, true
	case c.current == 0:
		row, phase, in = "wake", loop.Waking, true
	case c.want == 0 && c.listening == 0:
		row, in, n = "no gateway", c.ready == 0, min(c.current, 1)
	case c.want == 0 && !c.in:
		row, phase, in, n = "put in", loop.GoingToSleep, true, c.current
	case c.want == 0 && c.since < timing.Grace:
		row, phase, in, n = "grace", loop.GoingToSleep, true, c.current
	case c.want == 0:
		row, phase, in = "sleep", loop.Asleep, true
	case c.ready == 0:
		row, phase, in = "lost", loop.Waking, true
	case wasWaking && (c.ready < c.current || c.waiting > 0) && c.since < timing.Linger:
		row, phase, in = "linger", loop.Waking, true
	default:
		row = "awake"
	}
	to := c.current
	if got.Scale != nil {
		to = *got.Scale
	}
	if got.Record.Phase != phase || got.Path.In != in || to != n {
		t.Errorf("%s: %+v gives phase %s, path in %v, %d replicas; want %s, %v, %d", row, c, got.Record.Phase, got.Path.In, to, phase, in, n)
	}
	if phase != loop.Awake && phase != loop.Asleep && got.Next > timing.Grace {
		t.Errorf("%s: %+v comes again in %v, want soon", row, c, got.Next)
	}
	return row
}

// scripted answers what the test says.
type scripted struct{ n int }

func (s *scripted) Decide(algorithms.Observation) algorithms.Decision {
	return algorithms.Decision{Valid: true, Replicas: s.n, Reason: "Script"}
}
func (*scripted) Needs() []algorithms.Need      { return nil }
func (*scripted) Snapshot() json.RawMessage     { return nil }
func (*scripted) Restore(json.RawMessage) error { return nil }

// catalogOf has one policy, whatever it is called.
type catalogOf struct{ p algorithms.Policy }

func (c catalogOf) New(string, float64, json.RawMessage) (algorithms.Policy, error) { return c.p, nil }

// TestNothingIsLostOnTheWay drives random worlds: whenever the last replicas are taken away, the
// path has been in without a break for the grace; whenever no instance is ready, the path is wanted
// in; the next round is never later than a tick, and the same history gives the same commands.
func TestNothingIsLostOnTheWay(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		first := history(t, seed)
		if diff := cmp.Diff(first, history(t, seed)); diff != "" {
			t.Fatalf("seed %d gives different commands the second time:\n%s", seed, diff)
		}
	}
}

func history(t *testing.T, seed uint64) (all []string) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 11))
	timing := loop.DefaultTiming()
	shell := open(t, loop.Spec{
		ServiceRef: &loop.ServiceRef{Name: "web"}, MaxReplicas: 9,
		ScaleToZero: &loop.ScaleToZero{After: new(algorithms.Duration(time.Second))},
		Policy:      loop.Policy{Name: "target", Parameters: json.RawMessage(`{"stabilizationWindow":"0s"}`)},
	}, timing)
	now := looptest.Epoch()
	current, ready, in := 1, 1, false
	var since time.Time
	for range 300 {
		waiting, demand := 0.0, 0.0
		if rng.IntN(4) == 0 {
			waiting, demand = float64(rng.IntN(3)), float64(rng.IntN(400))
		}
		v := loop.View{Now: now, Replicas: current, Path: &loop.Path{
			In: in && rng.IntN(20) > 0, Ready: ready, Listening: min(rng.IntN(8), 1), Waiting: int(waiting),
		}}
		for i := range ready {
			v.Instances = append(v.Instances, loop.Instance{ID: fmt.Sprint(i), State: algorithms.PodReady, InFlight: -1})
		}
		known := rng.IntN(10) > 0
		for _, n := range shell.Needs() {
			s := algorithms.Signal{Name: n.Name, Window: n.Window, Value: demand, Known: known, Coverage: 1}
			if n.Name == algorithms.Waiting {
				s.Value, s.Known = waiting, true
			}
			v.Signals = append(v.Signals, s)
		}
		switch {
		case !v.Path.In:
			since = time.Time{}
		case since.IsZero():
			since = now
		}
		c := shell.Round(v, nil)
		all = append(all, fmt.Sprintf("%d %v %v %s", c.Record.To, *c.Path, c.Next, c.Record.Phase))
		if ready == 0 && !c.Path.In {
			t.Fatalf("seed %d: no instance is ready and the path is not wanted in: %+v", seed, v)
		}
		if c.Next <= 0 || c.Next > timing.Tick {
			t.Fatalf("seed %d: next round in %v, want within %v", seed, c.Next, timing.Tick)
		}
		if !known && c.Record.To < current && demand == 0 && waiting == 0 {
			t.Fatalf("seed %d: %d to %d on unknown signals", seed, current, c.Record.To)
		}
		if current > 0 && c.Record.To == 0 && (since.IsZero() || now.Sub(since) < timing.Grace) {
			t.Fatalf("seed %d: replicas taken away %v after the path was in, want at least %v: %+v", seed, now.Sub(since), timing.Grace, v)
		}
		current, in = c.Record.To, c.Path.In
		ready = min(ready, current)
		if rng.IntN(3) == 0 {
			ready = current
		}
		now = now.Add(time.Duration(100+rng.IntN(900)) * time.Millisecond)
	}
	return all
}

// TestSpecNamesItsFaults checks that every fault has the path of its field.
func TestSpecNamesItsFaults(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		`{"maxReplicas":5}`:                                {"spec.serviceRef is missing while spec.minReplicas is 0"},
		`{"maxReplicas":0,"minReplicas":1}`:                {"spec.minReplicas = 1, spec.maxReplicas = 0"},
		`{"minReplicas":1,"maxReplicas":2,"mode":"Maybe"}`: {`spec.mode = "Maybe": want Apply or DryRun`},
		`{"minReplicas":1,"maxReplicas":2,"hold":{"timeout":"1ms","maxRequests":0,"podConcurrency":0}}`: {"spec.hold.timeout = 1ms", "spec.hold.maxRequests = 0", "spec.hold.podConcurrency = 0"},
		`{"minReplicas":1,"maxReplicas":2,"scaleToZero":{"after":"2h"},"onMissingData":{"hold":"25h","replicas":-1}}`: {
			"spec.scaleToZero.after = 2h0m0s: want 1s–1h", "spec.onMissingData.hold = 25h0m0s", "spec.onMissingData.replicas = -1",
		},
		`{"minReplicas":1,"maxReplicas":2,"behavior":{"scaleDown":{"stabilizationWindowSeconds":5000}}}`: {"spec.behavior.scaleDown.stabilizationWindowSeconds = 5000"},
		`{"minReplicas":1,"maxReplicas":2,"signals":[{"name":"5xx","target":{"averageValue":"0"}}]}`:     {`spec.signals[0].name = "5xx": want concurrency, rate, waiting or the name of a metric`, "spec.signals[0].target.averageValue = 0"},
		`{"minReplicas":0,"maxReplicas":2,"signals":[{"name":"rate","target":{"averageValue":"1"}}]}`:    {"spec.serviceRef is missing"},
		`{"minReplicas":1,"maxReplicas":2,"signals":[{"name":"rate","target":{"averageValue":"1"},"prometheus":{"query":" ","maxAge":"2h","interval":"1s"}}]}`: {
			"spec.signals[0].prometheus is given for the signal rate", "spec.signals[0].prometheus.query has 1 bytes", "spec.signals[0].prometheus.maxAge = 2h0m0s: want 1s–1h", "spec.signals[0].prometheus.interval = 1s: want 5s–5m",
		},
		`{"minReplicas":1,"maxReplicas":2,"signals":[{"name":"queue_depth","target":{"averageValue":"1"}}],"policy":{"name":"staffing"}}`:                                         {`spec.signals[0].name = "queue_depth": policy staffing reasons about requests`},
		`{"minReplicas":1,"maxReplicas":2,"serviceRef":{},"signals":[{"name":"concurrency","target":{"averageValue":"1"}},{"name":"concurrency","target":{"averageValue":"1"}}]}`: {`spec.serviceRef.name = ""`, "spec.signals has 2 entries"},
		`{"minReplicas":1,"maxReplicas":2,"policy":{"name":"guess"}}`:                                                                                                             {"spec.policy: ", `"guess"`},
		`{"minReplicas":1,"maxReplicas":2,"policy":{"name":"kpa","parameters":{"stableWindo":"6s"}}}`:                                                                             {"spec.policy: ", "stableWindo"},
	} {
		var s loop.Spec
		if err := algorithms.Strict(json.RawMessage(text), &s); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		l, err := loop.New(s, policies(), loop.DefaultTiming())
		if err == nil {
			l.Close()
			t.Errorf("New(%s) succeeds, want faults %q", text, want)
			continue
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("New(%s) = %v, want it to say %q", text, err, w)
			}
		}
	}
	if _, err := loop.New(loop.Spec{MinReplicas: 1, MaxReplicas: 2}, policies(), loop.Timing{}); err == nil || !strings.Contains(err.Error(), "timing.tick = 0s") {
		t.Errorf("New with an empty timing = %v, want its faults", err)
	}
}

// TestSnapshot stops a loop in the middle of a history and goes on with another: the same commands.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	mk := func() *loop.Loop {
		l, err := loop.New(loop.Spec{ServiceRef: &loop.ServiceRef{Name: "web"}, MaxReplicas: 20}, policies(), loop.DefaultTiming())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		return l
	}
	rng := rand.New(rand.NewPCG(5, 5))
	one, other := mk(), mk()
	now, current := looptest.Epoch(), 1
	for i := range 400 {
		v := loop.View{Now: now, Replicas: current, Path: &loop.Path{In: true, Ready: current, Listening: 1}}
		for _, n := range one.Needs() {
			v.Signals = append(v.Signals, algorithms.Signal{Name: n.Name, Window: n.Window, Value: float64(rng.IntN(3) / 2 * rng.IntN(900)), Known: true, Coverage: 1})
		}
		if i%7 == 0 {
			if err := other.Restore(one.Snapshot()); err != nil {
				t.Fatal(err)
			}
		}
		a, b := one.Step(v), other.Step(v)
		if diff := cmp.Diff(a, b); diff != "" {
			t.Fatalf("round %d differs (-went on +restored):\n%s", i, diff)
		}
		one.Done(now, a, nil)
		other.Done(now, b, nil)
		current = a.Record.To
		now = now.Add(a.Next)
	}
	before := one.Snapshot()
	for _, bad := range []string{`{"version":2,"policy":null}`, `[]`, `{"version":1,"limit":-1,"policy":null}`, `{"version":1,"handover":{"phase":"Lost"},"policy":null}`, `{"version":1,"policy":{"version":9}}`} {
		if err := one.Restore(json.RawMessage(bad)); err == nil {
			t.Errorf("Restore(%s) succeeds", bad)
		}
	}
	if diff := cmp.Diff(string(before), string(one.Snapshot())); diff != "" {
		t.Errorf("a refused snapshot left its mark (-before +after):\n%s", diff)
	}
}

// TestInherit changes the spec under a loop: a policy of the same kind keeps its memory, and one of
// another kind begins afresh while the rest goes on.
func TestInherit(t *testing.T) {
	t.Parallel()
	mk := func(policy string) *loop.Loop {
		l, err := loop.New(loop.Spec{
			ServiceRef: &loop.ServiceRef{Name: "web"}, MaxReplicas: 20, Policy: loop.Policy{Name: policy},
			Signals: []loop.Signal{{Name: algorithms.Concurrency, Target: loop.Target{AverageValue: quantity(t, "10")}}},
		}, policies(), loop.DefaultTiming())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		return l
	}
	now := looptest.Epoch()
	step := func(l *loop.Loop, d time.Duration, current int, demand float64) loop.Commands {
		now = now.Add(d)
		v := loop.View{Now: now, Replicas: current, Path: &loop.Path{Ready: current, Listening: 1}}
		for i := range current {
			v.Instances = append(v.Instances, loop.Instance{ID: fmt.Sprint(i), State: algorithms.PodReady})
		}
		for _, n := range l.Needs() {
			s := algorithms.Signal{Name: n.Name, Window: n.Window, Value: demand, Known: true, Coverage: 1}
			if n.Name == algorithms.Waiting {
				s.Value = 0
			}
			v.Signals = append(v.Signals, s)
		}
		c := l.Step(v)
		l.Done(now, c, nil)
		return c
	}
	old := mk("kpa")
	step(old, 0, 1, 100)
	step(old, 10*time.Second, 10, 100) // in panic
	again, another := mk("kpa"), mk("target")
	if err := again.Inherit(old); err != nil {
		t.Errorf("kpa from kpa: %v", err)
	}
	if err := another.Inherit(old); err == nil {
		t.Error("target from kpa keeps a memory that it cannot read")
	}
	if c := step(again, time.Second, 10, 10); c.Record.To != 10 {
		t.Errorf("kpa, which was in panic, says %d a second later, want 10: its memory is gone", c.Record.To)
	}
	stable, fresh := mk("target"), mk("target")
	step(stable, time.Second, 10, 100)
	if err := fresh.InheritRules(stable); err != nil {
		t.Fatal(err)
	}
	if c := step(stable, 10*time.Second, 10, 10); c.Record.To != 10 {
		t.Errorf("target within its stabilization window says %d, want 10", c.Record.To)
	}
	if c := step(fresh, 0, 10, 10); c.Record.To != 1 {
		t.Errorf("with the rules alone target says %d, want 1: it keeps the policy's memory", c.Record.To)
	}
}

func quantity(t *testing.T, s string) algorithms.Quantity {
	t.Helper()
	q, err := algorithms.ParseQuantity(s)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// TestFirst names who goes first: pods that do not run yet, the youngest before, then the idle
// ones.
func TestFirst(t *testing.T) {
	t.Parallel()
	script := &scripted{n: 1}
	l, err := loop.New(loop.Spec{MinReplicas: 1, MaxReplicas: 9}, catalogOf{script}, loop.DefaultTiming())
	if err != nil {
		t.Fatal(err)
	}
	at := func(s int) time.Time { return looptest.Epoch().Add(time.Duration(s) * time.Second) }
	v := loop.View{Now: at(100), Replicas: 5, Instances: []loop.Instance{
		{ID: "busy", State: algorithms.PodReady, InFlight: 9, Created: at(0)},
		{ID: "idle", State: algorithms.PodReady, InFlight: 0, Created: at(1)},
		{ID: "going", State: algorithms.PodTerminating},
		{ID: "old-start", State: algorithms.PodStarting, Created: at(80)},
		{ID: "young-start", State: algorithms.PodStarting, Created: at(90)},
		{ID: "some", State: algorithms.PodReady, InFlight: 2, Created: at(2)},
	}}
	for _, n := range l.Needs() {
		v.Signals = append(v.Signals, algorithms.Signal{Name: n.Name, Window: n.Window, Known: true, Coverage: 1})
	}
	c := l.Step(v)
	if diff := cmp.Diff([]string{"young-start", "old-start", "idle", "some"}, c.First); diff != "" {
		t.Errorf("from 5 to 1 (-want +got):\n%s", diff)
	}
}

// FuzzStep does random rounds with random numbers: bounds hold, nothing panics.
func FuzzStep(f *testing.F) {
	f.Add(uint64(1), 3.5, 0.5, int64(2e9), true)
	f.Fuzz(func(t *testing.T, seed uint64, value, coverage float64, step int64, in bool) {
		l, err := loop.New(loop.Spec{ServiceRef: &loop.ServiceRef{Name: "w"}, MaxReplicas: 7}, policies(), loop.DefaultTiming())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		rng := rand.New(rand.NewPCG(seed, 1))
		now, current := looptest.Epoch(), rng.IntN(12)
		for range 20 {
			v := loop.View{Now: now, Replicas: current, Path: &loop.Path{In: in != (rng.IntN(5) == 0), Ready: rng.IntN(current + 1), Listening: rng.IntN(2), Waiting: rng.IntN(3)}}
			for _, n := range l.Needs() {
				v.Signals = append(v.Signals, algorithms.Signal{Name: n.Name, Window: n.Window, Value: value, Known: rng.IntN(3) > 0, Coverage: coverage, Age: time.Duration(rng.Int64N(1e10))})
			}
			c := l.Step(v)
			if n := c.Record.To; n != current && (n < 0 || n > 7) {
				t.Fatalf("%d to %d replicas, want 0–7: %+v", current, n, v)
			}
			if c.Next <= 0 || c.Path == nil {
				t.Fatalf("next %v, path %v", c.Next, c.Path)
			}
			var err error
			if rng.IntN(4) == 0 {
				err = errors.New("refused")
			} else {
				current = c.Record.To
			}
			l.Done(now, c, err)
			now = now.Add(time.Duration(max(0, step) % int64(time.Hour)))
		}
	})
}

// A wake-up that is late, because the count cannot be written, makes nothing of the time in which
// requests waited: 7 requests at 10 a pod want one pod.
func TestLateWake(t *testing.T) {
	t.Parallel()
	born := time.Unix(1_000_000, 0)
	for name, tt := range map[string]struct {
		// outage is for how long the count cannot be written; before says that the loop begins
		// late, and a gateway tells since when requests wait.
		outage time.Duration
		before bool
	}{
		"at once": {}, "2 s late": {outage: 2 * time.Second}, "a minute late": {outage: time.Minute},
		"3 s late, and the loop is new": {outage: 3 * time.Second, before: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := loop.Spec{ServiceRef: &loop.ServiceRef{Name: "web"}, MaxReplicas: 100, Signals: []loop.Signal{{Name: algorithms.Concurrency, Target: loop.Target{AverageValue: quantity(t, "10")}}}}
			l, err := loop.New(spec, catalog.Default(), loop.DefaultTiming())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			replicas, ready, most := 0, 0, 0
			view := func(after time.Duration) loop.View {
				v := loop.View{Now: born.Add(after), Born: born.Add(-time.Hour), Replicas: replicas, Path: &loop.Path{In: true, Listening: 1, Ready: ready}}
				if after >= 0 {
					if v.Path.ColdStarts = []loop.ColdStart{{Detected: born}}; ready == 0 {
						v.Path.Waiting = 7
					}
				}
				for _, n := range l.Needs() {
					value := 0.0
					switch {
					case n.Name == algorithms.Waiting:
						value = float64(v.Path.Waiting)
					case n.Window > 0:
						value = 7 * min(max(after, 0), n.Window).Seconds() / n.Window.Seconds()
					case after >= 0:
						value = 7
					}
					v.Signals = append(v.Signals, algorithms.Signal{Name: n.Name, Window: n.Window, Value: value, Known: true, Coverage: 1})
				}
				for range ready {
					v.Instances = append(v.Instances, loop.Instance{ID: "a", State: algorithms.PodReady})
				}
				return v
			}
			first := -time.Second
			if tt.before {
				first = tt.outage - 100*time.Millisecond
			}
			for after := first; after < tt.outage+10*time.Second; after += 100 * time.Millisecond {
				v := view(after)
				c := l.Step(v)
				if c.Scale != nil && after < tt.outage {
					l.Done(v.Now, c, errors.New("the API is away"))
					continue
				}
				if c.Scale != nil {
					replicas = *c.Scale
				}
				l.Done(v.Now, c, nil)
				if most = max(most, replicas); replicas > 0 && after > tt.outage+300*time.Millisecond {
					ready = 1
				}
			}
			if most != 1 {
				t.Errorf("it wants up to %d pods, want 1", most)
			}
		})
	}
}

// A metric of a rule drives a loop as concurrency does: up from zero without a Service, and to zero
// once it was zero for the idle time. Unknown changes nothing.
func TestSignalOfAnotherName(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{`{}`, `{"name":"target"}`, `{"name":"hpa"}`, `{"name":"keda"}`} {
		var s loop.Spec
		text := `{"minReplicas":0,"maxReplicas":20,"signals":[{"name":"queue_depth","target":{"averageValue":"30"}}],"scaleToZero":{"after":"1m"},"policy":` + policy + `}`
		if err := algorithms.Strict(json.RawMessage(text), &s); err != nil {
			t.Fatal(err)
		}
		l, err := loop.New(s, policies(), loop.DefaultTiming())
		if err != nil {
			t.Errorf("%s: %v", policy, err)
			continue
		}
		step := func(now time.Time, replicas int, depth float64, known bool) int {
			v := loop.View{Now: now, Replicas: replicas}
			for i := range replicas {
				v.Instances = append(v.Instances, loop.Instance{ID: fmt.Sprint(i), State: algorithms.PodReady, Created: now.Add(-time.Hour), Ready: now.Add(-time.Hour)})
			}
			for _, n := range l.Needs() {
				sig := algorithms.Signal{Name: n.Name, Window: n.Window, Known: true, Coverage: 1}
				switch n.Name {
				case "queue_depth":
					if sig.Value, sig.Known = depth, known; !known {
						sig.Coverage = 0
					}
				case algorithms.Waiting:
				default:
					t.Fatalf("%s: the loop needs %s", policy, n.Name)
				}
				v.Signals = append(v.Signals, sig)
			}
			c := l.Step(v)
			l.Done(now, c, nil)
			if c.Scale != nil {
				replicas = *c.Scale
			}
			return replicas
		}
		now := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
		n := 0
		run := func(d time.Duration, depth float64, known bool) {
			for end := now.Add(d); now.Before(end); now = now.Add(2 * time.Second) {
				n = step(now, n, depth, known)
			}
		}
		run(time.Minute, 0, false)
		if n != 0 {
			t.Errorf("%s: %d replicas of what is unknown", policy, n)
		}
		run(5*time.Minute, 300, true)
		if n != 10 {
			t.Errorf("%s: %d replicas for a depth of 300 at 30 a pod, want 10", policy, n)
		}
		run(20*time.Minute, 0, false)
		if n != 10 {
			t.Errorf("%s: %d replicas once the depth is unknown, want 10", policy, n)
		}
		run(20*time.Minute, 0, true)
		if n != 0 {
			t.Errorf("%s: %d replicas for an empty queue, want 0", policy, n)
		}
		l.Close()
	}
}
