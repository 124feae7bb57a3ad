package forecast_test

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/forecast"
)

func daily(t *testing.T) *forecast.Daily {
	t.Helper()
	d, err := forecast.NewDaily(forecast.DefaultDaily())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A smooth day is forecast within a few percent after three of them, over a gap of hours too; a gap
// of weeks begins anew.
func TestDaily(t *testing.T) {
	t.Parallel()
	load := func(at time.Time) float64 {
		return 100 + 60*math.Sin(2*math.Pi*at.Sub(at.Truncate(24*time.Hour)).Hours()/24)
	}
	d := daily(t)
	now := time.Date(2026, 3, 2, 5, 0, 0, 0, time.UTC)
	for range 4 * 24 * 60 {
		now = now.Add(time.Minute)
		if h := now.Sub(time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)).Hours(); h > 0 && h < 4 {
			continue
		}
		d.Observe(now, load(now.Add(-30*time.Second)), time.Minute)
	}
	if d.Best() == forecast.None {
		t.Fatal("not ready after four days")
	}
	for m := range 70 {
		at := now.Add(time.Duration(m) * time.Minute)
		y, ok := d.At(at)
		middle := at.Truncate(10 * time.Minute).Add(5 * time.Minute)
		if !ok || math.Abs(y-load(middle)) > 8 {
			t.Errorf("in %d min: %v (%t, by %s), want about %v", m, y, ok, d.Best(), load(middle))
		}
	}
	if _, ok := d.At(now.Add(3 * time.Hour)); ok {
		t.Error("a forecast beyond eight bins")
	}
	a, _ := d.At(now)
	b, _ := d.At(now.Add(10 * time.Minute))
	if y, ok := d.Max(now, now.Add(10*time.Minute)); !ok || y != max(a, b) {
		t.Errorf("maximum %v of %v and %v", y, a, b)
	}
	e := daily(t)
	raw, err := json.Marshal(d.State())
	if err != nil {
		t.Fatal(err)
	}
	var s forecast.DailyState
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	if err := e.Load(s); err != nil {
		t.Fatal(err)
	}
	if x, _ := e.At(now.Add(20 * time.Minute)); !same(x, d, now.Add(20*time.Minute)) {
		t.Errorf("after a restore %v", x)
	}
	if err := e.Load(forecast.DailyState{HoltWinters: forecast.HoltWintersState{Season: []float64{1}}}); err == nil {
		t.Error("a state of another bin was taken")
	}
	d.Observe(now.AddDate(0, 1, 0), 50, time.Minute)
	if d.Best() != forecast.None {
		t.Error("a month's gap is taken for a season")
	}
}

// Samples of an hour fill all the bins of that hour.
func TestLearnHours(t *testing.T) {
	t.Parallel()
	d := daily(t)
	start := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	var past []algorithms.Sample
	for h := range 5*24 + 1 {
		v := 50.0
		if (h+23)%24 < 12 {
			v = 150
		}
		past = append(past, algorithms.Sample{At: start.Add(time.Duration(h) * time.Hour), Signal: "x", Value: v})
	}
	d.Learn(past, "x")
	if d.Best() == forecast.None {
		t.Fatal("not ready after five days")
	}
	now := start.AddDate(0, 0, 5)
	for m := 5; m < 60; m += 10 {
		if y, ok := d.At(now.Add(time.Duration(m) * time.Minute)); !ok || math.Abs(y-150) > 15 {
			t.Errorf("%d min past midnight: %v (%t), want about 150", m, y, ok)
		}
	}
}

func same(x float64, d *forecast.Daily, at time.Time) bool {
	y, ok := d.At(at)
	return ok && x == y
}

func TestDailyValidate(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*forecast.DailyConfig){
		"bin":       func(c *forecast.DailyConfig) { c.Bin = algorithms.Duration(7 * time.Minute) },
		"alpha":     func(c *forecast.DailyConfig) { c.Alpha = 2 },
		"harmonics": func(c *forecast.DailyConfig) { c.Harmonics = 0 },
		"half life": func(c *forecast.DailyConfig) { c.HalfLife = 0 },
	} {
		c := forecast.DefaultDaily()
		change(&c)
		if _, err := forecast.NewDaily(c); err == nil {
			t.Errorf("a faulty %s was taken", name)
		}
	}
}
