package guard_test

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/behavior"
	"github.com/sluice-autoscaler/sluice/algorithms/guard"
	"github.com/sluice-autoscaler/sluice/algorithms/kpa"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
)

// script is a policy that needs nothing and answers what it is told.
type script struct{ answer func() algorithms.Decision }

func (s *script) Needs() []algorithms.Need                          { return nil }
func (s *script) Decide(algorithms.Observation) algorithms.Decision { return s.answer() }
func (s *script) Snapshot() json.RawMessage                         { return json.RawMessage("null") }
func (s *script) Restore(json.RawMessage) error                     { return nil }

// says makes the script answer n.
func (s *script) says(n int) {
	s.answer = func() algorithms.Decision {
		return algorithms.Decision{Replicas: n, Valid: true, Reason: "Script", Message: "as told"}
	}
}

func at(second float64, current int) algorithms.Observation {
	micros := int64(math.Round(second * 1e6))
	return algorithms.Observation{
		Now: time.UnixMicro(1e12 + micros), Limits: algorithms.Limits{Min: 1, Max: 1000},
		Replicas: algorithms.Replicas{Current: current, Ready: current},
	}
}

func parse(t *testing.T, params string) guard.Config {
	t.Helper()
	c, err := guard.Parse(guard.Default(), json.RawMessage(params))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestBadPoliciesAreContained(t *testing.T) {
	t.Parallel()
	answer := func(d algorithms.Decision) func() algorithms.Decision { return func() algorithms.Decision { return d } }
	tests := map[string]struct {
		answer       func() algorithms.Decision
		reason, says string
	}{
		"panic":       {func() algorithms.Decision { panic("boom") }, "PolicyPanic", "boom"},
		"index":       {func() algorithms.Decision { return algorithms.Decision{Replicas: []int{}[len(t.Name())]} }, "PolicyPanic", "out of range"},
		"negative":    {answer(algorithms.Decision{Replicas: -1, Valid: true}), "PolicyNonsense", "-1 replicas"},
		"absurd":      {answer(algorithms.Decision{Replicas: 1_000_001, Valid: true}), "PolicyNonsense", "1000001 replicas"},
		"not a term":  {answer(algorithms.Decision{Replicas: 1, Valid: true, Terms: []algorithms.Term{{Name: "x", Value: math.NaN()}}}), "PolicyNonsense", "x = NaN"},
		"no end":      {answer(algorithms.Decision{Replicas: 1, Valid: true, Terms: []algorithms.Term{{Name: "x", Value: math.Inf(1)}}}), "PolicyNonsense", "x = +Inf"},
		"not decided": {answer(algorithms.Decision{}), "NoData", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := guard.New(guard.Default(), &script{tt.answer})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // once more: it goes on
				d := p.Decide(at(0, 5))
				if d.Valid || d.Reason != tt.reason || !strings.Contains(d.Message, tt.says) {
					t.Errorf("Decide = %+v, want no decision because of %s that says %q", d, tt.reason, tt.says)
				}
				if _, err := json.Marshal(d); err != nil {
					t.Errorf("the decision is not finite: %v", err)
				}
			}
			// requests that wait are served all the same
			o := at(1, 0)
			o.Signals = []algorithms.Signal{{Name: algorithms.Waiting, Value: 3, Known: true, Coverage: 1}}
			if d := p.Decide(o); !d.Valid || d.Replicas != 1 || d.Reason != "Wake" {
				t.Errorf("Decide with requests waiting = %+v, want a wake-up", d)
			}
		})
	}
}

func TestFallback(t *testing.T) {
	t.Parallel()
	s := &script{}
	p, err := guard.New(parse(t, `{"onMissingData":{"hold":"60s","replicas":4}}`), s)
	if err != nil {
		t.Fatal(err)
	}
	unknown := func() algorithms.Decision { return algorithms.Decision{Reason: "NoData"} }
	steps := []struct {
		at      float64
		answer  func() algorithms.Decision
		current int
		valid   bool
		want    int
		reason  string
		next    time.Duration
	}{
		{0, unknown, 2, false, 0, "NoData", time.Minute},
		{59, unknown, 2, false, 0, "NoData", time.Second},
		{60, unknown, 2, true, 4, "Fallback", 0},
		{70, unknown, 9, true, 9, "Fallback", 0}, // never down on what is unknown
		{80, nil, 4, true, 2, "Script", 0},
		{90, unknown, 2, false, 0, "NoData", time.Minute}, // known in between: the hold begins anew
	}
	for _, st := range steps {
		if s.answer = st.answer; st.answer == nil {
			s.says(2)
		}
		d := p.Decide(at(st.at, st.current))
		if d.Valid != st.valid || d.Reason != st.reason || d.Next != st.next || d.Valid && d.Replicas != st.want {
			t.Errorf("at %v s: %+v, want %d, valid %v, %s, next %v", st.at, d, st.want, st.valid, st.reason, st.next)
		}
	}
}

func TestBoundsHoldWhileNothingIsKnown(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		current, want int
		valid         bool
	}{{3, 5, true}, {12, 10, true}, {7, 0, false}, {0, 0, false}} {
		p, err := guard.New(parse(t, `{"minReplicas":5,"maxReplicas":10}`), &script{func() algorithms.Decision { return algorithms.Decision{} }})
		if err != nil {
			t.Fatal(err)
		}
		if d := p.Decide(at(0, tt.current)); d.Valid != tt.valid || d.Valid && d.Replicas != tt.want {
			t.Errorf("at %d: %+v, want %d, valid %v", tt.current, d, tt.want, tt.valid)
		}
	}
}

func TestUnknownSignalsOfOneOfSeveral(t *testing.T) {
	t.Parallel()
	p, err := guard.New(guard.Default(), says{5})
	if err != nil {
		t.Fatal(err)
	}
	o := at(0, 3)
	o.Signals = []algorithms.Signal{{Name: algorithms.Concurrency, Window: time.Minute, Value: 5, Known: true, Coverage: 0.2}}
	if d := p.Decide(o); !d.Valid || d.Replicas != 5 {
		t.Errorf("Decide = %+v, want 5: up is allowed on part of the data", d)
	}
	o.Replicas.Current = 6
	if d := p.Decide(o); d.Valid || d.Reason != "PartialData" {
		t.Errorf("Decide = %+v, want a hold: down is not", d)
	}
}

// TestBehaviorHolds runs random wishes through random behaviors and checks, over the whole history
// of applied counts and of wishes, what the rules promise.
func TestBehaviorHolds(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 5))
		pods, period := 1+rng.IntN(10), 1+rng.IntN(60)
		percent, periodDown := 1+rng.IntN(100), 1+rng.IntN(60)
		up, down := rng.IntN(40), rng.IntN(120)
		c := guard.Default()
		c.Behavior = &behavior.Rules{
			ScaleUp:   &behavior.Direction{StabilizationWindowSeconds: &up, Policies: []behavior.Policy{{Type: behavior.Pods, Value: pods, PeriodSeconds: period}}},
			ScaleDown: &behavior.Direction{StabilizationWindowSeconds: &down, Policies: []behavior.Policy{{Type: behavior.Percent, Value: percent, PeriodSeconds: periodDown}}},
		}
		s := &script{}
		p, err := guard.New(c, s)
		if err != nil {
			t.Fatal(err)
		}
		type moment struct {
			at             time.Duration
			from, to, wish int
		}
		var history []moment
		cur, now := 10, time.Duration(0)
		for range 300 {
			wish := rng.IntN(200)
			s.says(wish)
			d := p.Decide(at(now.Seconds(), cur))
			if !d.Valid {
				t.Fatalf("seed %d: %+v", seed, d)
			}
			history = append(history, moment{now, cur, d.Replicas, wish})
			added, start := 0, cur // start is the count when the down period began
			for _, m := range history {
				age := now - m.at
				if d.Replicas > cur && age < time.Duration(period)*time.Second {
					added += m.to - m.from
				}
				if age < time.Duration(periodDown)*time.Second && age > 0 {
					start -= m.to - m.from
				}
				if d.Replicas > cur && age < time.Duration(up)*time.Second && m.wish < d.Replicas {
					t.Fatalf("seed %d: at %v from %d up to %d, although %d was wished %v ago and the window is %d s", seed, now, cur, d.Replicas, m.wish, age, up)
				}
				if d.Replicas < cur && age < time.Duration(down)*time.Second && m.wish > d.Replicas {
					t.Fatalf("seed %d: at %v from %d down to %d, although %d was wished %v ago and the window is %d s", seed, now, cur, d.Replicas, m.wish, age, down)
				}
			}
			if added > pods {
				t.Fatalf("seed %d: at %v there are %d pods more than %d s ago, want at most %d", seed, now, added, period, pods)
			}
			if floor := int(float64(start) * (1 - float64(percent)/100)); d.Replicas < cur && d.Replicas < floor {
				t.Fatalf("seed %d: at %v from %d to %d, which is less than %d %% of the %d of %d s ago", seed, now, cur, d.Replicas, 100-percent, start, periodDown)
			}
			cur = d.Replicas
			now += []time.Duration{0, time.Second, 2 * time.Second, 15 * time.Second, time.Duration(period) * time.Second, time.Duration(rng.Int64N(int64(30 * time.Second)))}[rng.IntN(6)].Truncate(time.Microsecond)
		}
	}
}

func TestToleranceOfTheCount(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ current, says, want int }{{10, 12, 10}, {10, 13, 13}, {10, 9, 10}, {10, 8, 8}, {0, 1, 1}, {10, 10, 10}} {
		s := &script{}
		p, err := guard.New(parse(t, `{"minReplicas":0,"behavior":{"scaleUp":{"tolerance":"0.2"},"scaleDown":{"tolerance":"100m","stabilizationWindowSeconds":0}}}`), s)
		if err != nil {
			t.Fatal(err)
		}
		s.says(tt.says)
		if d := p.Decide(at(0, tt.current)); d.Replicas != tt.want {
			t.Errorf("from %d with %d asked for: %d (%s), want %d", tt.current, tt.says, d.Replicas, d.Message, tt.want)
		}
	}
}

// TestUnappliedAnswersAreNoEvents keeps the count where it is: what was answered and not done does
// not use up the rate.
func TestUnappliedAnswersAreNoEvents(t *testing.T) {
	t.Parallel()
	s := &script{}
	p, err := guard.New(parse(t, `{"behavior":{"scaleUp":{"policies":[{"type":"Pods","value":2,"periodSeconds":60}]}}}`), s)
	if err != nil {
		t.Fatal(err)
	}
	s.says(50)
	for i, st := range []struct{ current, want int }{{3, 5}, {3, 5}, {5, 5}, {5, 5}} {
		if d := p.Decide(at(float64(i), st.current)); d.Replicas != st.want {
			t.Errorf("step %d at %d: %d, want %d", i, st.current, d.Replicas, st.want)
		}
	}
}

func TestSnapshotKeepsRatesAndHold(t *testing.T) {
	t.Parallel()
	const seed = 9
	c := parse(t, `{"behavior":{"scaleUp":{"stabilizationWindowSeconds":20}},"onMissingData":{"hold":"30s","replicas":7}}`)
	make := func() (algorithms.Policy, error) {
		k := kpa.Default()
		k.Target = 10
		inner, err := kpa.New(k)
		if err != nil {
			return nil, err
		}
		return guard.New(c, inner)
	}
	policytest.Check(t, seed, 200, make)

	p, err := make()
	if err != nil {
		t.Fatal(err)
	}
	before := p.Snapshot()
	for _, bad := range []string{`{"version":2,"policy":null}`, `{"version":1,"policy":{"version":99}}`, `[]`} {
		if err := p.Restore(json.RawMessage(bad)); err == nil {
			t.Errorf("Restore(%s) succeeded", bad)
		}
		if diff := cmp.Diff(string(before), string(p.Snapshot())); diff != "" {
			t.Errorf("Restore(%s) failed and left its mark (-before +after):\n%s", bad, diff)
		}
	}
}

// blank is a script that takes no memory.
type blank struct{ script }

func (*blank) Restore(json.RawMessage) error { return errors.New("another kind of policy") }

// RestoreRules takes over what guards the policy, and nothing of the policy.
func TestRestoreRules(t *testing.T) {
	t.Parallel()
	c := parse(t, `{"behavior":{"scaleDown":{"stabilizationWindowSeconds":300}}}`)
	old, fresh := &script{}, &blank{}
	p, err := guard.New(c, old)
	if err != nil {
		t.Fatal(err)
	}
	old.says(8)
	p.Decide(at(0, 8))
	q, err := guard.New(c, fresh)
	if err != nil {
		t.Fatal(err)
	}
	if err := q.RestoreRules(p.Snapshot()); err != nil {
		t.Fatal(err)
	}
	fresh.says(2)
	if d := q.Decide(at(60, 8)); d.Replicas != 8 {
		t.Errorf("a minute after 8 were wanted: %d, want 8 as the window says", d.Replicas)
	}
	if err := q.RestoreRules(json.RawMessage(`{"version":2}`)); err == nil {
		t.Error("RestoreRules of another version succeeded")
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for params, want := range map[string]string{
		`{"min":1}`:                                        `unknown field "min"`,
		`{"minReplicas":5,"maxReplicas":2}`:                "maxReplicas = 2",
		`{"scaleToZero":{"after":"0s"}}`:                   "scaleToZero.after = 0s",
		`{"onMissingData":{"hold":"25h"}}`:                 "onMissingData.hold = 25h0m0s",
		`{"onMissingData":{"replicas":-1}}`:                "onMissingData.replicas = -1",
		`{"behavior":{"scaleUp":{"selectPolicy":"Most"}}}`: `selectPolicy = "Most"`,
		`{"behavior":{"scaleUp":{"policies":[]}}}`:         "policies is empty",
	} {
		if _, err := guard.Parse(guard.Default(), json.RawMessage(params)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%s) = %v, want an error that says %q", params, err, want)
		}
	}
}

func BenchmarkGuardedKPA(b *testing.B) {
	inner, err := kpa.New(kpa.Default())
	if err != nil {
		b.Fatal(err)
	}
	p, err := guard.New(guard.Default(), inner)
	if err != nil {
		b.Fatal(err)
	}
	o := at(0, 10)
	o.Quiet = true
	for _, n := range p.Needs() {
		o.Signals = append(o.Signals, algorithms.Signal{Name: n.Name, Window: n.Window, Value: 700, Known: true, Coverage: 1})
	}
	b.ReportAllocs()
	for b.Loop() {
		o.Now = o.Now.Add(2 * time.Second)
		p.Decide(o)
	}
}

// stock is a policy with limits of its own, which it can lay down.
type stock struct {
	algorithms.Policy
	yielded bool
}

func (s *stock) YieldLimits() { s.yielded = true }

// TestBehaviorReplacesStockLimits lets the limits of a policy and a behavior not hold twice.
func TestBehaviorReplacesStockLimits(t *testing.T) {
	t.Parallel()
	for _, rules := range []*behavior.Rules{nil, {}} {
		s := &stock{Policy: &script{}}
		c := guard.Default()
		c.Behavior = rules
		if _, err := guard.New(c, s); err != nil {
			t.Fatal(err)
		}
		if s.yielded != (rules != nil) {
			t.Errorf("with behavior %v the policy's own limits were taken away: %t", rules, s.yielded)
		}
	}
}
