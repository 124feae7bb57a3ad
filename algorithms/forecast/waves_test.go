package forecast_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/algorithms/forecast"
)

func day(t *testing.T) *forecast.Fourier {
	t.Helper()
	f, err := forecast.NewFourier(forecast.FourierConfig{Cycles: []forecast.Cycle{{Period: 24, Harmonics: 3}, {Period: 168, Harmonics: 2}}, HalfLife: 336})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// A sum of waves of the periods is continued, over gaps too; a day alone is known before the week
// is.
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
		for range 100 {
			v := scale * r.Float64() * math.Exp2(float64(r.IntN(40)-20))
			if r.IntN(10) == 0 {
				v = 0
			}
			hw.Update(v)
			fo.Update(v)
			h := 1 + r.IntN(50)
			a, _ := hw.Forecast(h)
			b, _ := fo.Forecast(h)
			for _, y := range []float64{a, b} {
				if !(y >= 0 && y <= forecast.Most) {
					t.Fatalf("forecast %v", y)
				}
			}
		}
	})
}
