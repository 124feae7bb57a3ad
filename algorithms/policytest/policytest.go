// Package policytest holds the properties that every policy must have, for tests of policies to
// call: answers within bounds and finite, equal answers for equal inputs, and equal answers after a
// snapshot is restored in the middle.
package policytest

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

// Make returns a fresh policy.
type Make func() (algorithms.Policy, error)

// Epoch is the instant at which the random sequences begin.
func Epoch() time.Time { return time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC) }

// Sequence returns n random observations for a policy with those needs: load that jumps, rests at
// zero, goes unknown and is sometimes absurd (NaN, infinite, negative), at uneven steps, with pods
// that lag behind.
func Sequence(r *rand.Rand, needs []algorithms.Need, n int) []algorithms.Observation {
	now, load, current := Epoch(), 0.0, r.IntN(20)
	out := make([]algorithms.Observation, 0, n)
	for range n {
		now = now.Add(time.Duration(r.IntN(30_000)) * time.Millisecond)
		switch r.IntN(6) {
		case 0:
			load = 0
		case 1:
			load = r.Float64() * 1000
		case 2:
			load *= r.Float64() * 3
		}
		ready := r.IntN(current + 1)
		o := algorithms.Observation{
			Now: now, Limits: algorithms.Limits{Min: 0, Max: 1 + r.IntN(200)},
			Replicas: algorithms.Replicas{Current: current, Ready: ready, Starting: current - ready},
			StartUp:  algorithms.StartUp{P50: 2 * time.Second, P90: 4 * time.Second, P99: 9 * time.Second, Samples: 20},
			Cost:     algorithms.Cost{PodSecond: 1, ColdStart: 60},
		}
		for _, need := range needs {
			s := algorithms.Signal{Name: need.Name, Window: need.Window, Value: load * (0.9 + r.Float64()/5), Known: true, Coverage: 1}
			switch r.IntN(40) {
			case 0:
				s.Known, s.Coverage = false, 0
			case 1:
				s.Value = math.NaN()
			case 2:
				s.Value = math.Inf(1)
			case 3:
				s.Value = -s.Value
			case 4:
				s.Value = math.MaxFloat64
			}
			o.Signals = append(o.Signals, s)
		}
		out = append(out, o)
		if r.IntN(2) == 0 {
			current = r.IntN(o.Limits.Max + 1)
		}
	}
	return out
}

// Check runs all properties over rounds random sequences from that seed.
func Check(t *testing.T, seed uint64, rounds int, make Make) {
	t.Helper()
	for round := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, round))
		first, err := make()
		if err != nil {
			t.Fatalf("make the policy: %v", err)
		}
		seq := Sequence(r, first.Needs(), 120)
		whole := Run(t, first, seq)

		again, err := make()
		if err != nil {
			t.Fatalf("make the policy: %v", err)
		}
		cut := r.IntN(len(seq))
		got := Run(t, again, seq[:cut])
		resumed, err := make()
		if err != nil {
			t.Fatalf("make the policy: %v", err)
		}
		if err := resumed.Restore(again.Snapshot()); err != nil {
			t.Fatalf("seed %d round %d: restore at %d: %v", seed, round, cut, err)
		}
		got = append(got, Run(t, resumed, seq[cut:])...)
		for i := range whole {
			if !bytes.Equal(whole[i], got[i]) {
				t.Fatalf("seed %d round %d: snapshot and restore at %d: decision %d = %s, uninterrupted %s", seed, round, cut, i, got[i], whole[i])
			}
		}
		for _, foreign := range []string{`{"version":999}`, `{"policy":"other","version":1,"state":{}}`, `7`} {
			if err := resumed.Restore(json.RawMessage(foreign)); err == nil {
				t.Fatalf("the snapshot %s was taken", foreign)
			}
		}
	}
}

// Run decides each observation, checks the answer alone, and returns the answers as JSON, which a
// NaN could not become.
func Run(t *testing.T, p algorithms.Policy, seq []algorithms.Observation) [][]byte {
	t.Helper()
	out := make([][]byte, 0, len(seq))
	for i, o := range seq {
		d := p.Decide(o)
		if d.Valid && (d.Replicas < 0 || o.Limits.Max > 0 && d.Replicas > o.Limits.Max) {
			t.Fatalf("decision %d: %d replicas, want 0–%d", i, d.Replicas, o.Limits.Max)
		}
		if d.Reason == "" || d.Message == "" {
			t.Fatalf("decision %d says neither why nor what: %+v", i, d)
		}
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatalf("decision %d is not finite: %+v: %v", i, d, err)
		}
		out = append(out, b)
	}
	return out
}

// Monotone checks of a policy without memory that more of every signal never wants fewer pods, all
// else equal.
func Monotone(t *testing.T, seed uint64, rounds int, make Make) {
	t.Helper()
	for round := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, round))
		current, low := r.IntN(50), r.Float64()*300
		high := low * (1 + r.Float64())
		answer := func(load float64) algorithms.Decision {
			p, err := make()
			if err != nil {
				t.Fatalf("make the policy: %v", err)
			}
			o := algorithms.Observation{Now: Epoch(), Limits: algorithms.Limits{Max: 10_000}, Replicas: algorithms.Replicas{Current: current, Ready: current}}
			for _, n := range p.Needs() {
				o.Signals = append(o.Signals, algorithms.Signal{Name: n.Name, Window: n.Window, Value: load, Known: true, Coverage: 1})
			}
			return p.Decide(o)
		}
		if a, b := answer(low), answer(high); a.Valid && b.Valid && a.Replicas > b.Replicas {
			t.Fatalf("seed %d round %d: at %d pods a load of %v wants %d and %v wants %d", seed, round, current, low, a.Replicas, high, b.Replicas)
		}
	}
}
