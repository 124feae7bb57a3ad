package loop_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/algorithms/loop/looptest"
)

// stepped drives one workload by a loop, with a clock that may be set back.
type stepped struct {
	loop     *loop.Loop
	replicas int
	in       bool
	back     time.Duration
	// counts are the counts after each round.
	counts []int
}

func (s *stepped) round(now time.Time, demand float64, waiting int) {
	now = now.Add(-s.back)
	v := loop.View{Now: now, Born: looptest.Epoch().Add(-time.Hour), Replicas: s.replicas, Path: &loop.Path{In: s.in, Ready: s.replicas, Listening: 1, Waiting: waiting}}
	for _, n := range s.loop.Needs() {
		x := algorithms.Signal{Name: n.Name, Window: n.Window, Known: true, Coverage: 1, Value: demand}
		if n.Name == algorithms.Waiting {
			x.Value = float64(waiting)
		}
		v.Signals = append(v.Signals, x)
	}
	c := s.loop.Step(v)
	if c.Scale != nil {
		s.replicas = *c.Scale
	}
	if c.Path != nil {
		s.in = c.Path.In
	}
	s.loop.Done(now, c, nil)
	s.counts = append(s.counts, s.replicas)
}

// openStepped makes the loop of a test of steps.
func openStepped(t *testing.T, least int, policy string) *stepped {
	t.Helper()
	var spec loop.Spec
	raw := fmt.Sprintf(`{"serviceRef":{"name":"web"},"minReplicas":%d,"maxReplicas":10,"signals":[{"name":"concurrency","target":{"averageValue":"10"}}],
		"behavior":{"scaleDown":{"stabilizationWindowSeconds":30},"scaleUp":{"policies":[{"type":"Pods","value":10,"periodSeconds":1}]}},"scaleToZero":{"after":"20s"},"policy":%s}`, least, policy)
	if err := json.Unmarshal([]byte(raw), &spec); err != nil {
		t.Fatal(err)
	}
	l, err := loop.New(spec, policies(), loop.DefaultTiming())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return &stepped{loop: l, replicas: 1}
}

// TestClockStepsMoveNothing drives two loops by the same histories. The clock of one is set back by
// hours now and then. At no round has it fewer or more instances than the other has had within a
// tenth of the longest timers: no step took instances away, or kept them for hours. Tolerances
// leave policies one of two neighbouring counts, by where they came from.
func TestClockStepsMoveNothing(t *testing.T) {
	t.Parallel()
	const rounds, within = 600, 15
	for h, policy := range []string{
		`{"name":"target","parameters":{"stabilizationWindow":"30s"}}`, `{"name":"hpa"}`,
	} {
		for range 10 {
			seed := rand.Uint64()
			rng := rand.New(rand.NewPCG(seed, uint64(h)))
			plain, back := openStepped(t, 1, policy), openStepped(t, 1, policy)
			demand := 0.0
			for i := range rounds {
				if rng.IntN(40) == 0 {
					demand = []float64{0, 5, 25, 60, 95}[rng.IntN(5)]
				}
				if i%200 == 100 {
					back.back += time.Duration(1+rng.IntN(12)) * time.Hour
				}
				now := looptest.Epoch().Add(time.Duration(i) * time.Second)
				plain.round(now, demand, 0)
				back.round(now, demand, 0)
			}
			for i, got := range back.counts {
				near := plain.counts[max(0, i-within):min(rounds, i+within+1)]
				if least, most := slices.Min(near), slices.Max(near); got < least-1 || got > most+1 {
					t.Fatalf("seed %d, policy %s, round %d: %d instances, without the steps %d–%d", seed, policy, i, got, least, most)
				}
			}
		}
	}
}

// TestClockStepsAndZero sets the clock back at random rounds of workloads that sleep and wake: what
// waits wakes in the same round, nothing sleeps before its idle time, and nothing stays for hours.
func TestClockStepsAndZero(t *testing.T) {
	t.Parallel()
	// The path is put in and waits for the grace of 2 s: three rounds at least. Stabilization takes
	// 30 s, a policy's window 12 s, grace and settling 2 s each, and a tenth may come to all.
	const rounds, soonest, latest = 2000, 3, 75
	for _, policy := range []string{`{"name":"target","parameters":{"stabilizationWindow":"0s"}}`, `{"name":"kpa","parameters":{"stableWindow":"12s"}}`} {
		for range 10 {
			seed := rand.Uint64()
			rng := rand.New(rand.NewPCG(seed, 1))
			s := openStepped(t, 0, policy)
			demand, last, slept := 0.0, 0, 0
			for i := range rounds {
				if rng.IntN(60) == 0 {
					demand = []float64{0, 0, 0, 25, 95}[rng.IntN(5)]
				}
				if rng.IntN(100) == 0 {
					s.back += time.Duration(rng.IntN(12*3600)) * time.Second
				}
				if demand > 0 {
					last = i
				}
				at, waiting, before := demand, 0, s.replicas
				if before == 0 && demand > 0 {
					at, waiting = 0, int(demand)
				}
				s.round(looptest.Epoch().Add(time.Duration(i)*time.Second), at, waiting)
				switch {
				case waiting > 0 && s.replicas == 0:
					t.Fatalf("seed %d, policy %s, round %d: %d wait and nothing wakes", seed, policy, i, waiting)
				case before > 0 && s.replicas == 0 && i-last < soonest:
					t.Fatalf("seed %d, policy %s, round %d: asleep %d s after demand, want %d at least", seed, policy, i, i-last, soonest)
				case before > 0 && s.replicas == 0:
					slept++
				case s.replicas > 0 && i-last > latest:
					t.Fatalf("seed %d, policy %s, round %d: awake %d s after demand, want at most %d", seed, policy, i, i-last, latest)
				}
			}
			if slept == 0 {
				t.Errorf("seed %d, policy %s: never slept", seed, policy)
			}
		}
	}
}

// TestClockOfOneStepBack names the plainest case in numbers: after a step back of 3 h a burst is
// answered in the same round, and given up as soon as without the step.
func TestClockOfOneStepBack(t *testing.T) {
	t.Parallel()
	l, err := loop.New(loop.Spec{
		ServiceRef: &loop.ServiceRef{Name: "web"}, MaxReplicas: 10,
		Policy: loop.Policy{Name: "target", Parameters: json.RawMessage(`{"stabilizationWindow":"0s"}`)},
	}, policies(), loop.DefaultTiming())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	s := &stepped{loop: l, replicas: 1}
	now := looptest.Epoch()
	for i, demand := range []float64{5, 5, 95, 95, 5, 5, 5, 5} {
		if i == 3 {
			s.back = 3 * time.Hour
		}
		s.round(now.Add(time.Duration(i)*time.Second), demand*10, 0)
	}
	// Up at once; down 2 s after that, to which a tenth may come.
	if got := fmt.Sprint(s.counts[2:]); got != "[10 10 10 1 1 1]" && got != "[10 10 10 10 1 1]" {
		t.Errorf("counts %s around a step back, want 10 at once and 1 within 3 s", got)
	}
}
