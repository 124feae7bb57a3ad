package forecast_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/sluice-autoscaler/sluice/algorithms/forecast"
)

func near(t *testing.T, what string, got, want, tol float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tol) {
		t.Errorf("%s = %.10g, want %.10g ± %g", what, got, want, tol)
	}
}

func golden(t *testing.T) *forecast.HoltWinters {
	t.Helper()
	f, err := forecast.NewHoltWinters(forecast.HoltWintersConfig{Alpha: .5, Beta: .1, Gamma: .3, Phi: 1, Period: 4})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// The computed values of field/algorithms.md (f).
func TestHoltWintersGolden(t *testing.T) {
	t.Parallel()
	y := []float64{10, 20, 30, 20, 12, 22, 32, 22, 14, 24, 34, 24}
	f := golden(t)
	want := []float64{10.5, 21.825, 32.49625, 22.807063, 13.372116, 23.838536, 34.275945, 24.588983}
	for i, v := range y {
		if got, ok := f.Forecast(1); ok {
			near(t, "one-step forecast", got, want[i-4], 5e-7)
		} else if i >= 8 {
			t.Fatal("not ready after two seasons")
		}
		f.Update(v)
	}
	s := f.State()
	near(t, "level", s.Level, 24.53661, 5e-6)
	near(t, "trend", s.Trend, 0.514805, 5e-7)
	for i, want := range []float64{-9.361635, .100939, 9.768342, -.418814} {
		near(t, "season", s.Season[i], want, 5e-7)
	}
	for i, want := range []float64{15.689781, 25.66716, 35.849368, 26.177018} {
		got, _ := f.Forecast(i + 1)
		near(t, "forecast", got, want, 5e-6)
	}
}

// A damped trend ends; the factor is the geometric sum.
func TestHoltWintersDamped(t *testing.T) {
	t.Parallel()
	f, err := forecast.NewHoltWinters(forecast.HoltWintersConfig{Alpha: .5, Beta: .5, Gamma: 0, Phi: .5, Period: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		f.Update(float64(10 * i))
	}
	s := f.State()
	for h := 1; h < 6; h++ {
		sum := 0.0
		for j := 1; j <= h; j++ {
			sum += math.Pow(.5, float64(j))
		}
		got, _ := f.Forecast(h)
		near(t, "damped forecast", got, s.Level+sum*s.Trend+s.Season[0], 1e-9)
	}
}

// A missed bin is not learnt: neither as a zero, nor at all.
func TestHoltWintersMissing(t *testing.T) {
	t.Parallel()
	f := golden(t)
	for i := range 40 {
		switch {
		case i%7 == 3:
			f.Miss()
		case i%11 == 5:
			f.Update(math.NaN())
		default:
			f.Update([]float64{10, 20, 30, 20}[i%4])
		}
	}
	for h := 1; h <= 4; h++ {
		got, ok := f.Forecast(h)
		if !ok {
			t.Fatal("not ready")
		}
		near(t, "forecast after gaps", got, []float64{10, 20, 30, 20}[(39+h)%4], 1e-6)
	}
	few := golden(t)
	for range 100 {
		few.Miss()
	}
	if few.Ready() {
		t.Error("ready with nothing seen")
	}
	if len(few.State().First) >= 8 {
		t.Errorf("%d bins gathered", len(few.State().First))
	}
}

func TestHoltWintersStateGoesOn(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	a := golden(t)
	for i := range 60 {
		b := golden(t)
		raw, err := json.Marshal(a.State())
		if err != nil {
			t.Fatal(err)
		}
		var s forecast.HoltWintersState
		if err := json.Unmarshal(raw, &s); err != nil {
			t.Fatal(err)
		}
		if err := b.Load(s); err != nil {
			t.Fatal(err)
		}
		v := r.Float64() * 100
		if r.IntN(5) == 0 {
			v = -1
		}
		a.Update(v)
		b.Update(v)
		x, okx := a.Forecast(3)
		y, oky := b.Forecast(3)
		if x != y || okx != oky {
			t.Fatalf("bin %d: %v after a restore, want %v", i, y, x)
		}
	}
	if err := a.Load(forecast.HoltWintersState{Season: []float64{1}}); err == nil {
		t.Error("a season of another length was taken")
	}
	if _, err := forecast.NewHoltWinters(forecast.HoltWintersConfig{Alpha: 2, Period: 0}); err == nil {
		t.Error("a faulty config was taken")
	}
}
