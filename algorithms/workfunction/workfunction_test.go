package workfunction_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/algorithms/workfunction"
)

// A course is left when having stayed cost as much as the way to another count and back.
func TestStep(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		costs [3]float64 // per step, of 0, 1 and 2 pods
		move  float64
		from  int
		steps int // until the count changes
		to    int
	}{
		{name: "large regret at once", costs: [3]float64{1000, 500, 2}, move: 30, from: 0, steps: 1, to: 2},
		{name: "small regret after a while", costs: [3]float64{9, 2, 1}, move: 30, from: 1, steps: 61, to: 2},
		{name: "saved pods as well", costs: [3]float64{9, 1, 2}, move: 30, from: 2, steps: 61, to: 1},
		{name: "free moves", costs: [3]float64{3, 1, 2}, move: 0, from: 2, steps: 1, to: 1},
		{name: "not finite", costs: [3]float64{math.NaN(), math.Inf(1), 2}, move: 30, from: 0, steps: 1, to: 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var f workfunction.Function
			for step := 1; step <= 100; step++ {
				if got := f.Step(test.from, 2, test.move, func(n int) float64 { return test.costs[n] }); got != test.from {
					if step != test.steps || got != test.to {
						t.Errorf("%d pods after %d steps, want %d after %d", got, step, test.to, test.steps)
					}
					return
				}
			}
			t.Errorf("still %d pods after 100 steps", test.from)
		})
	}
}

// What costs about the same either way does not make the count flutter.
func TestNoFlutter(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 1))
	var f workfunction.Function
	n, changes := 5, 0
	for range 10_000 {
		best := 5 + r.IntN(2)
		to := f.Step(n, 20, 10, func(n int) float64 { return math.Abs(float64(n - best)) })
		if to != n {
			n, changes = to, changes+1
		}
	}
	if changes > 200 {
		t.Errorf("%d changes in 10000 steps", changes)
	}
}

// Between two counts the course costs at most three times the best one in hindsight, and a
// constant.
func TestCompetitive(t *testing.T) {
	t.Parallel()
	const move = 4.0
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		var f workfunction.Function
		best := [2]float64{0, move}
		n, mine := 0, 0.0
		phase := 0
		for range 500 {
			if r.Float64() < 0.05 {
				phase = r.IntN(3)
			}
			costs := [2]float64{r.Float64() * float64(phase), r.Float64() * float64(2-phase)}
			to := f.Step(n, 1, move, func(n int) float64 { return costs[n] })
			mine += move*math.Abs(float64(to-n)) + costs[to]
			n = to
			a, b := min(best[0], best[1]+move)+costs[0], min(best[1], best[0]+move)+costs[1]
			best = [2]float64{a, b}
		}
		if least := min(best[0], best[1]); mine > 3*least+4*move {
			t.Errorf("seed %d: %.1f, and %.1f in hindsight", seed, mine, least)
		}
	}
}

func TestState(t *testing.T) {
	t.Parallel()
	var f, g workfunction.Function
	cost := func(n int) float64 { return math.Abs(float64(n - 700)) }
	n := 3
	for range 5 {
		n = f.Step(n, 1000, 20, cost)
	}
	if err := g.Load(f.State()); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		a, b := f.Step(n, 1200, 20, cost), g.Step(n, 1200, 20, cost)
		if a != b || !cmp.Equal(f.State(), g.State()) {
			t.Fatalf("%d pods, and %d after Load", a, b)
		}
		n = a
	}
	for _, bad := range [][]float64{{math.NaN()}, {-1}, {math.Inf(1)}, make([]float64, 5000)} {
		if g.Load(bad) == nil {
			t.Errorf("Load(%v…) is no error", bad[:1])
		}
	}
}

// Whatever is asked, the answer is within bounds and the memory stays finite.
func FuzzStep(f *testing.F) {
	f.Add(3, 10, 2.0, 5.0)
	f.Add(-1, 2_000_000, 0.0, math.Inf(1))
	f.Fuzz(func(t *testing.T, current, most int, move, scale float64) {
		if !(move >= 0 && move <= 1e9) || most > 2000 {
			return
		}
		var w workfunction.Function
		for i := range 20 {
			got := w.Step(current, most, move, func(n int) float64 { return scale * float64((n*31+i)%17) })
			if got < 0 || got > max(most, 0) {
				t.Fatalf("%d pods of at most %d", got, most)
			}
			current = got
		}
		if err := new(workfunction.Function).Load(w.State()); err != nil {
			t.Fatal(err)
		}
	})
}
