package forecast_test

import (
	"encoding/json"
	"math"
	"math/cmplx"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/algorithms/forecast"
)

// The computed values of field/algorithms.md (g).
func TestHarmonicsGolden(t *testing.T) {
	t.Parallel()
	x := make([]float64, 60)
	for i := range x {
		x[i] = 5 + 3*math.Cos(2*math.Pi*float64(i)/12)
	}
	h := forecast.FitHarmonics(x, 10, true)
	near(t, "slope", h.Slope(), -0.005001, 5e-7)
	for i, want := range []float64{7.79744, 7.31037, 6.17359, 4.67859, 3.20147, 2.11705} {
		near(t, "with the slope", h.At(float64(60+i)), want, 5e-6)
	}
	h = forecast.FitHarmonics(x, 10, false)
	for i := range 12 {
		near(t, "without it", h.At(float64(60+i)), x[i], 1e-9)
	}
	if got := forecast.FitHarmonics([]float64{9, 6, 3, 0}, 0, true).At(100); got != 0 {
		t.Errorf("a falling line goes on to %v, want 0", got)
	}
	if got := forecast.FitHarmonics(nil, 10, true).At(3); got != 0 {
		t.Errorf("an empty window gives %v", got)
	}
}

// The slow twin: a discrete Fourier transform by its definition, of which the lowest frequencies are kept.
func TestHarmonicsTwin(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		n := 2 + r.IntN(60)
		x := make([]float64, n)
		for i := range x {
			x[i] = 50 + 10*r.Float64()
		}
		k := r.IntN(12)
		h := forecast.FitHarmonics(x, k, false)
		at := float64(r.IntN(3 * n))
		want := complex(0, 0)
		for f := -k; f <= k; f++ {
			if k > (n-1)/2 && (f > (n-1)/2 || f < -(n-1)/2) {
				continue
			}
			sum := complex(0, 0)
			for i, v := range x {
				sum += complex(v, 0) * cmplx.Exp(complex(0, -2*math.Pi*float64(f*i)/float64(n)))
			}
			want += sum / complex(float64(n), 0) * cmplx.Exp(complex(0, 2*math.Pi*float64(f)*at/float64(n)))
		}
		near(t, "harmonics", h.At(at), real(want), 1e-6)
	}
}

func day(t *testing.T) *forecast.Fourier {
	t.Helper()
	f, err := forecast.NewFourier(forecast.FourierConfig{Cycles: []forecast.Cycle{{Period: 24, Harmonics: 3}, {Period: 168, Harmonics: 2}}, HalfLife: 336})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// A sum of waves of the periods is continued, over gaps too; a day alone is known before the week is.
func TestFourier(t *testing.T) {
	t.Parallel()
	f := day(t)
	y := func(i int) float64 {
		return 100 + 30*math.Sin(2*math.Pi*float64(i)/24) + 10*math.Cos(2*math.Pi*2*float64(i)/24) + 20*math.Sin(2*math.Pi*float64(i)/168)
	}
	for i := range 900 {
		if got, ok := f.Forecast(1); ok {
			tol := 40.0
			if i > 500 {
				tol = 1.5
			}
			near(t, "one bin ahead", got, y(i), tol)
		} else if i > 48 {
			t.Fatalf("not ready after %d bins", i)
		}
		if i%13 == 4 {
			f.Update(math.Inf(1))
			continue
		}
		f.Update(y(i))
	}
	for h := 1; h < 200; h++ {
		got, _ := f.Forecast(h)
		near(t, "forecast", got, y(899+h), 2)
	}
	g := day(t)
	raw, err := json.Marshal(f.State())
	if err != nil {
		t.Fatal(err)
	}
	var s forecast.FourierState
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	if err := g.Load(s); err != nil {
		t.Fatal(err)
	}
	a, _ := f.Forecast(5)
	b, _ := g.Forecast(5)
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("after a restore: %s", diff)
	}
	if err := g.Load(forecast.FourierState{With: []float64{1}}); err == nil {
		t.Error("a state of another size was taken")
	}
	if _, err := forecast.NewFourier(forecast.FourierConfig{Cycles: []forecast.Cycle{{Period: 3, Harmonics: 2}, {Period: 2, Harmonics: 1}}}); err == nil {
		t.Error("a faulty config was taken")
	}
}

// Whatever comes in, what goes out is finite and not negative.
func FuzzForecast(f *testing.F) {
	f.Add(uint64(1), 1e3)
	f.Add(uint64(2), 1e300)
	f.Fuzz(func(t *testing.T, seed uint64, scale float64) {
		r := rand.New(rand.NewPCG(seed, 1))
		hw, fo := golden(t), day(t)
		x := make([]float64, 0, 100)
		for range 100 {
			v := scale * r.Float64() * math.Exp2(float64(r.IntN(40)-20))
			if r.IntN(10) == 0 {
				v = 0
			}
			hw.Update(v)
			fo.Update(v)
			if v >= 0 && v < forecast.Most {
				x = append(x, v)
			}
			h := 1 + r.IntN(50)
			a, _ := hw.Forecast(h)
			b, _ := fo.Forecast(h)
			c := forecast.FitHarmonics(x, 10, true).At(float64(len(x) + h))
			for _, y := range []float64{a, b, c} {
				if !(y >= 0 && y <= forecast.Most) {
					t.Fatalf("forecast %v", y)
				}
			}
		}
	})
}
