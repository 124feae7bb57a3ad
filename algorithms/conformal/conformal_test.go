package conformal_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/conformal"
)

func aci(t testing.TB, c conformal.Config) *conformal.ACI {
	t.Helper()
	a, err := conformal.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// The guarantee: for any sequence the share missed is within (max(α₁, 1−α₁) + γ)/(γT) of α. With γ = 0.01, α = 0.1, T = 1000 that is 0.091.
func TestGuarantee(t *testing.T) {
	t.Parallel()
	const steps = 1000
	for name, next := range map[string]func(r *rand.Rand, i int, margin float64) float64{
		"gaussian": func(r *rand.Rand, _ int, _ float64) float64 { return r.NormFloat64() },
		"five times": func(r *rand.Rand, i int, _ float64) float64 {
			return r.NormFloat64() * math.Sqrt(1+4*float64(i/(steps/2)))
		},
		"rising":      func(_ *rand.Rand, i int, _ float64) float64 { return math.Exp(float64(i) / 20) },
		"falling":     func(_ *rand.Rand, i int, _ float64) float64 { return -float64(i) },
		"adversarial": func(_ *rand.Rand, _ int, m float64) float64 { return m + 1 }, // over any finite bound
		"constant":    func(*rand.Rand, int, float64) float64 { return 3 },
	} {
		for _, c := range []conformal.Config{{Alpha: .1, Gamma: .01, Window: 200}, {Alpha: .01, Gamma: .05, Window: 30}, {Alpha: .5, Gamma: .005, Window: 1}} {
			r := rand.New(rand.NewPCG(7, 8))
			a := aci(t, c)
			missed := 0.0
			for i := range steps {
				m := a.Margin()
				e := next(r, i, m)
				if e > m {
					missed++
				}
				a.Observe(e, e > m)
			}
			limit := (max(c.Alpha, 1-c.Alpha) + c.Gamma) / (c.Gamma * steps)
			if c.Alpha == .1 && math.Abs(limit-.091) > 1e-12 {
				t.Errorf("the bound is %v, want .091", limit)
			}
			if got := math.Abs(missed/steps - c.Alpha); got > limit {
				t.Errorf("%s, %+v: missed %v, further than %v", name, c, missed/steps, limit)
			}
		}
	}
}

// Gaussian scores whose variance jumps by five at half time: about a tenth is missed (field/algorithms.md (h): .099).
func TestVarianceJump(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(9, 10))
	a := aci(t, conformal.Default())
	missed := 0.0
	const steps = 20_000
	for i := range steps {
		e := r.NormFloat64()
		if i >= steps/2 {
			e *= math.Sqrt(5)
		}
		m := a.Margin()
		if e > m {
			missed++
		}
		a.Observe(e, e > m)
	}
	if got := missed / steps; math.Abs(got-.1) > .005 {
		t.Errorf("missed %v, want about .1", got)
	}
}

// The slow twin of the sorted window; and the memory is whole.
func TestQuantileTwin(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 1))
	c := conformal.Config{Alpha: .2, Gamma: .01, Window: 37}
	a := aci(t, c)
	var all []float64
	for i := range 500 {
		e := math.Round(r.NormFloat64()*5) / 2
		all = append(all, e)
		a.Observe(e, r.IntN(5) == 0)
		last := slices.Clone(all[max(0, len(all)-c.Window):])
		slices.Sort(last)
		for _, p := range []float64{0, .1, .5, .8, .99, 1} {
			want := last[min(max(int(math.Ceil(p*float64(len(last)+1))), 1), len(last))-1]
			if got := a.Quantile(p); got != want {
				t.Fatalf("step %d: quantile %v = %v, want %v", i, p, got, want)
			}
		}
		if i%50 == 7 {
			raw, err := json.Marshal(a.State())
			if err != nil {
				t.Fatal(err)
			}
			var s conformal.State
			if err := json.Unmarshal(raw, &s); err != nil {
				t.Fatal(err)
			}
			b := aci(t, c)
			if err := b.Load(s); err != nil {
				t.Fatal(err)
			}
			a = b
		}
	}
	a.Observe(math.NaN(), true)
	if a.Scores() != c.Window {
		t.Errorf("%d scores, want %d", a.Scores(), c.Window)
	}
	if err := a.Load(conformal.State{Scores: make([]float64, 99)}); err == nil {
		t.Error("too many scores were taken")
	}
	if _, err := conformal.New(conformal.Config{Gamma: 2}); err == nil {
		t.Error("a faulty config was taken")
	}
}

// Scores of one lead time do not touch another's.
func TestLeads(t *testing.T) {
	t.Parallel()
	l, err := conformal.NewLeads(conformal.Default(), 2*time.Second, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		l.For(2*time.Second).Observe(1, false)
		l.For(9*time.Second).Observe(5, false)
	}
	if a, b, c := l.For(0).Margin(), l.For(10*time.Second).Margin(), l.For(time.Hour).Margin(); a != 1 || b != 5 || c != 5 {
		t.Errorf("margins %v, %v and %v, want 1, 5 and 5", a, b, c)
	}
	if err := l.Load(l.State()); err != nil {
		t.Error(err)
	}
	if err := l.Load(nil); err == nil {
		t.Error("a state of no lead times was taken")
	}
	if _, err := conformal.NewLeads(conformal.Default()); err == nil {
		t.Error("no lead times were taken")
	}
}

// Tracking alone, and with the integrator, comes to miss α of a drifting sequence.
func TestTracker(t *testing.T) {
	t.Parallel()
	for _, integral := range []float64{0, 1} {
		r := rand.New(rand.NewPCG(5, 6))
		p := conformal.Tracker{Alpha: .05, Eta: .5, Integral: integral, Saturation: 5}
		missed := 0.0
		const steps = 5000
		for i := range steps {
			e := r.NormFloat64() + 20*math.Sin(float64(i)/500)
			m := p.Margin()
			if e > m {
				missed++
			}
			p.Observe(e > m)
		}
		if got := missed / steps; math.Abs(got-.05) > .01 {
			t.Errorf("integral %v: missed %v, want about .05", integral, got)
		}
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(2, 3))
	var d conformal.Tail
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
	// forgetting: a half-life of 10 scores leaves about 14.9 of them, and nothing of what was long ago
	for range 5000 {
		d.Add(50, 1, math.Exp2(-.1))
	}
	if got := d.Size(); math.Abs(got-1/(1-math.Exp2(-.1))) > .01 {
		t.Errorf("size %v", got)
	}
	if got := d.Above(10); math.Abs(got-1) > 1e-9 {
		t.Errorf("above 10 = %v, want all", got)
	}
	var e conformal.Tail
	raw, err := json.Marshal(d.State())
	if err != nil {
		t.Fatal(err)
	}
	var s conformal.TailState
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	if err := e.Load(s); err != nil {
		t.Fatal(err)
	}
	if math.Abs(e.Above(1)-d.Above(1)) > 1e-9 {
		t.Error("a restore changes the tail")
	}
	if err := e.Load(conformal.TailState{Weights: []float64{1}}); err == nil {
		t.Error("a tail of one bin was taken")
	}
}

func BenchmarkTail(b *testing.B) {
	var d conformal.Tail
	r := rand.New(rand.NewPCG(2, 3))
	b.ReportAllocs()
	for b.Loop() {
		d.Add(r.NormFloat64(), 1, .9999)
		d.Above(2)
	}
}

func BenchmarkObserve(b *testing.B) {
	a := aci(b, conformal.Default())
	r := rand.New(rand.NewPCG(2, 3))
	b.ReportAllocs()
	for b.Loop() {
		a.Observe(r.NormFloat64(), false)
		a.Margin()
	}
}

// The sums of a Tail are those over its scores, and as monotone.
func TestExcess(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(7, 7))
	var tail conformal.Tail
	var scores []float64
	for range 20_000 {
		z := r.NormFloat64() * 3
		tail.Add(z, 1, 1)
		scores = append(scores, z)
	}
	var e conformal.Excess
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
	new(conformal.Tail).Sum(&e, value)
	if sum, share := e.Above(0); sum != 0 || share != 0 {
		t.Errorf("of an empty tail: %v, %v", sum, share)
	}
}
