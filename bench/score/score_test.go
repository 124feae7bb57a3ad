package score_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluice-autoscaler/sluice/bench/score"
)

func approx(tolerance float64) cmp.Option { return cmpopts.EquateApprox(0, tolerance) }

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func vector(demand, supply []float64, dt float64) score.Vector {
	var e score.Elasticity
	for i := range demand {
		e.Add(demand[i], supply[i], dt)
	}
	return e.Vector()
}

func TestElasticity(t *testing.T) {
	for _, tt := range []struct {
		name           string
		demand, supply []float64
		want           score.Vector
	}{
		{"the notes' vector", []float64{2, 2, 4, 4}, []float64{2, 3, 3, 4}, score.Vector{ThetaU: 0.0625, ThetaO: 0.125, TauU: 0.25, TauO: 0.25, Upsilon: 1}},
		{"nothing", nil, nil, score.Vector{}},
		{"one step", []float64{2}, []float64{1}, score.Vector{ThetaU: 0.5, TauU: 1}},
		{"ideal", []float64{1, 5, 0, 2}, []float64{1, 5, 0, 2}, score.Vector{}},
		{"no demand", []float64{0, 0, 0.5, 0.5}, []float64{3, 1, 1, 0}, score.Vector{ThetaU: 0.125, ThetaO: 1.125, TauU: 0.25, TauO: 0.75, Upsilon: 1}},
	} {
		for _, dt := range []float64{1, 30} {
			if got := vector(tt.demand, tt.supply, dt); !cmp.Equal(got, tt.want, approx(1e-12)) {
				t.Errorf("%s, steps of %v: %+v, want %+v", tt.name, dt, got, tt.want)
			}
		}
	}
	var e score.Elasticity
	for _, bad := range [][3]float64{{math.NaN(), 1, 1}, {1, math.NaN(), 1}, {1, 1, math.NaN()}, {1, 1, 0}, {1, 1, -1}, {-1, 1, 1}, {1, -1, 1}, {math.Inf(1), 1, 1}, {1, 1, math.Inf(1)}} {
		e.Add(bad[0], bad[1], bad[2])
	}
	if e != (score.Elasticity{}) {
		t.Errorf("bad steps count: %+v", e)
	}
	e.Add(0, 3, 10)
	e.Add(1, 3, 10)
	if n := testing.AllocsPerRun(100, func() { e.Add(1, 2, 3) }); n != 0 {
		t.Errorf("Add allocates %v times", n)
	}
}

// Steps may be split without a change, but for υ, which depends on their length.
func TestElasticityOfSplitSteps(t *testing.T) {
	rng := seeded(3)
	var whole, split score.Elasticity
	for range 1000 {
		d, s, dt := float64(rng.IntN(5)), float64(rng.IntN(5)), rng.Float64()
		whole.Add(d, s, dt)
		split.Add(d, s, dt/4)
		split.Add(d, s, dt*3/4)
	}
	a, b := whole.Vector(), split.Vector()
	a.Upsilon, b.Upsilon = 0, 0
	if !cmp.Equal(a, b, approx(1e-9)) {
		t.Errorf("split: %+v, want %+v", b, a)
	}
}

// Quantiles as in the tables.
func TestStudentT(t *testing.T) {
	for _, tt := range []struct{ p, df, want float64 }{
		{0.975, 1, 12.7062047364},
		{0.975, 2, 4.3026527297},
		{0.975, 4, 2.7764451052},
		{0.975, 9, 2.2621571628},
		{0.975, 29, 2.0452296421},
		{0.975, 1000, 1.9623390808},
		{0.975, 1e9, 1.9599639869},
		{0.95, 1, 6.3137515147},
		{0.95, 10, 1.8124611228},
		{0.995, 5, 4.0321429836},
		{0.5, 7, 0},
		{0.025, 9, -2.2621571628},
		{0.9995, 3, 12.9239786369},
		{0.75, 1, 1},
	} {
		if got := score.StudentT(tt.p, tt.df); math.Abs(got-tt.want) > 1e-8*max(1, math.Abs(tt.want)) {
			t.Errorf("StudentT(%v, %v) = %.10f, want %.10f", tt.p, tt.df, got, tt.want)
		}
	}
	for _, bad := range [][2]float64{{0, 1}, {1, 1}, {0.5, 0}, {math.NaN(), 1}, {0.5, math.NaN()}} {
		if got := score.StudentT(bad[0], bad[1]); !math.IsNaN(got) {
			t.Errorf("StudentT(%v) = %v, want NaN", bad, got)
		}
	}
}

func TestIntervals(t *testing.T) {
	in := func(i score.Interval, err error) score.Interval {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	// Mean 3, s = √2.5, t(0.975; 4) = 2.776445.
	half := 2.7764451052 * math.Sqrt(2.5/5)
	five := []float64{1, 2, 3, 4, 5}
	for name, tt := range map[string]struct{ got, want score.Interval }{
		"mean":       {in(score.Mean(five, score.Confidence95)), score.Interval{Mean: 3, Low: 3 - half, High: 3 + half, N: 5}},
		"one value":  {in(score.Mean([]float64{7}, score.Confidence95)), score.Interval{Mean: 7, Low: 7, High: 7, N: 1}},
		"difference": {in(score.Difference([]float64{11, 22, 33, 44, 55}, []float64{10, 20, 30, 40, 50}, score.Confidence95)), score.Interval{Mean: 3, Low: 3 - half, High: 3 + half, N: 5}},
		"ratio":      {in(score.Ratio([]float64{2, 4, 6}, []float64{1, 2, 3}, score.Confidence95)), score.Interval{Mean: 2, Low: 2, High: 2, N: 3}},
		"geometric":  {in(score.GeometricMean([]float64{0.5, 2, 1}, score.Confidence95)), score.Interval{Mean: 1, Low: math.Exp(-4.3026527297 * math.Ln2 / math.Sqrt(3)), High: math.Exp(4.3026527297 * math.Ln2 / math.Sqrt(3)), N: 3}},
	} {
		if !cmp.Equal(tt.got, tt.want, approx(1e-8)) {
			t.Errorf("%s = %+v, want %+v", name, tt.got, tt.want)
		}
	}
	for name, f := range map[string]func() (score.Interval, error){
		"none":       func() (score.Interval, error) { return score.Mean(nil, 0.95) },
		"NaN":        func() (score.Interval, error) { return score.Mean([]float64{math.NaN()}, 0.95) },
		"confidence": func() (score.Interval, error) { return score.Mean(five, 95) },
		"pairs":      func() (score.Interval, error) { return score.Difference(five, five[:4], 0.95) },
		"ratio to 0": func() (score.Interval, error) { return score.Ratio(five, []float64{0, 0, 0, 0, 0}, 0.95) },
		"negative":   func() (score.Interval, error) { return score.GeometricMean([]float64{1, -1}, 0.95) },
	} {
		if got, err := f(); err == nil {
			t.Errorf("%s: %+v, want an error", name, got)
		}
	}
}

// The intervals hold the truth as often as they say, within five standard errors.
func TestCoverage(t *testing.T) {
	rng := seeded(5)
	const runs = 4000
	var mean, ratio float64
	for range runs {
		a, b := make([]float64, 6), make([]float64, 6)
		for i := range a {
			shared := rng.NormFloat64()
			a[i], b[i] = 20+2*shared+0.5*rng.NormFloat64(), 10+shared+0.5*rng.NormFloat64()
		}
		m, err := score.Mean(a, 0.9)
		if err != nil {
			t.Fatal(err)
		}
		r, err := score.Ratio(a, b, 0.9)
		if err != nil {
			t.Fatal(err)
		}
		if m.Low <= 20 && 20 <= m.High {
			mean++
		}
		if r.Low <= 2 && 2 <= r.High {
			ratio++
		}
	}
	for name, got := range map[string]float64{"mean": mean / runs, "ratio": ratio / runs} {
		if math.Abs(got-0.9) > 5*math.Sqrt(0.9*0.1/runs) {
			t.Errorf("the interval of the %s holds the truth in %v, want 0.9", name, got)
		}
	}
}

func TestPareto(t *testing.T) {
	nan := math.NaN()
	for _, tt := range []struct {
		points []score.Point
		want   []int
	}{
		{nil, nil},
		{[]score.Point{{1, 1}}, []int{0}},
		{[]score.Point{{3, 1}, {1, 3}, {2, 2}, {3, 3}, {2, 4}}, []int{1, 2, 0}},
		{[]score.Point{{1, 1}, {1, 1}, {1, 2}, {2, 1}}, []int{0, 1}},
		{[]score.Point{{nan, 0}, {1, nan}, {1, 1}}, []int{2}},
	} {
		if got := score.Pareto(tt.points); !slices.Equal(got, tt.want) {
			t.Errorf("Pareto(%v) = %v, want %v", tt.points, got, tt.want)
		}
	}
	// Against the definition.
	rng := seeded(8)
	for range 300 {
		points := make([]score.Point, rng.IntN(12))
		for i := range points {
			points[i] = score.Point{Cost: float64(rng.IntN(6)), Violations: float64(rng.IntN(6))}
		}
		var want []int
		for i, p := range points {
			if !slices.ContainsFunc(points, func(q score.Point) bool {
				return q.Cost <= p.Cost && q.Violations <= p.Violations && q != p
			}) {
				want = append(want, i)
			}
		}
		got := slices.Sorted(slices.Values(score.Pareto(points)))
		if !slices.Equal(got, want) {
			t.Errorf("Pareto(%v) = %v, want %v", points, got, want)
		}
	}
}
