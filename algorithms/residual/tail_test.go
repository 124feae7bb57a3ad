package residual_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/sluice-autoscaler/sluice/algorithms/residual"
)

func TestTail(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(2, 3))
	var d residual.Tail
	if d.Above(0) != 0 || d.Quantile(.9) != 0 || d.Size() != 0 {
		t.Error("an empty tail is not empty")
	}
	for range 200_000 {
		d.Add(r.NormFloat64(), 1, 1)
	}
	for z, want := range map[float64]float64{-2: .97725, 0: .5, 1: .158655, 2: .02275, 3: .00135} {
		if got := d.Above(z); math.Abs(got-want) > .004 {
			t.Errorf("above %v = %v, want about %v", z, got, want)
		}
		if got := d.Quantile(1 - want); math.Abs(got-z) > .15 {
			t.Errorf("quantile %v = %v, want about %v", 1-want, got, z)
		}
	}
	last := 1.0
	for z := -100.0; z < 100; z += .01 {
		p := d.Above(z)
		if p > last+1e-12 || p < 0 {
			t.Fatalf("above %v = %v after %v", z, p, last)
		}
		last = p
	}
	// forgetting: a half-life of 10 scores leaves about 14.9 of them, and nothing of what was long
	// ago
	for range 5000 {
		d.Add(50, 1, math.Exp2(-.1))
	}
	if got := d.Size(); math.Abs(got-1/(1-math.Exp2(-.1))) > .01 {
		t.Errorf("size %v", got)
	}
	if got := d.Above(10); math.Abs(got-1) > 1e-9 {
		t.Errorf("above 10 = %v, want all", got)
	}
	var e residual.Tail
	raw, err := json.Marshal(d.State())
	if err != nil {
		t.Fatal(err)
	}
	var s residual.TailState
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	if err := e.Load(s); err != nil {
		t.Fatal(err)
	}
	if math.Abs(e.Above(1)-d.Above(1)) > 1e-9 {
		t.Error("a restore changes the tail")
	}
	if err := e.Load(residual.TailState{Weights: []float64{1}}); err == nil {
		t.Error("a tail of one bin was taken")
	}
}

func BenchmarkTail(b *testing.B) {
	var d residual.Tail
	r := rand.New(rand.NewPCG(2, 3))
	b.ReportAllocs()
	for b.Loop() {
		d.Add(r.NormFloat64(), 1, .9999)
		d.Above(2)
	}
}

// The sums of a Tail are those over its scores, and as monotone.
func TestExcess(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(7, 7))
	var tail residual.Tail
	var scores []float64
	for range 20_000 {
		z := r.NormFloat64() * 3
		tail.Add(z, 1, 1)
		scores = append(scores, z)
	}
	var e residual.Excess
	value := func(z float64) float64 { return (z + 10) * (z + 10) }
	tail.Sum(&e, value)
	before := math.Inf(1)
	for z := -12.0; z < 12; z += 0.5 {
		want := 0.0
		for _, s := range scores {
			if s > z {
				want += value(s) / float64(len(scores))
			}
		}
		sum, share := e.Above(z)
		if math.Abs(sum-want) > 1.5 || sum > before+1e-9 {
			t.Errorf("above %v: %.2f after %.2f, want about %.2f", z, sum, before, want)
		}
		if math.Abs(share-tail.Above(z)) > 1e-12 {
			t.Errorf("share above %v: %v, want %v", z, share, tail.Above(z))
		}
		before = sum
	}
	new(residual.Tail).Sum(&e, value)
	if sum, share := e.Above(0); sum != 0 || share != 0 {
		t.Errorf("of an empty tail: %v, %v", sum, share)
	}
}
