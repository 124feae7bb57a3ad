package scenario_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/scenario"
)

// Every family has the mean and the variation that it promises.
func TestDistMoments(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]struct{ mean, cv float64 }{
		"200ms":                           {0.2, 0},
		"const:200ms":                     {0.2, 0},
		"exp:200ms":                       {0.2, 1},
		"lognormal:200ms,cv=1.5":          {0.2, 1.5},
		"gamma:200ms,cv=0.5":              {0.2, 0.5},
		"gamma:200ms,cv=2":                {0.2, 2},
		"uniform:100ms,300ms":             {0.2, 1 / math.Sqrt(12)},
		"empirical:100ms,100ms,400ms,0ms": {0.15, 1},
	} {
		d := dist(t, spec)
		r := rand.New(rand.NewPCG(1, 2))
		const n = 400_000
		sum, squares := 0.0, 0.0
		for range n {
			v := d.Draw(r).Seconds()
			sum, squares = sum+v, squares+v*v
		}
		mean := sum / n
		cv := math.Sqrt(max(0, squares/n-mean*mean)) / mean
		if math.Abs(d.Mean().Seconds()-want.mean) > 1e-9 || math.Abs(mean/want.mean-1) > 0.02 || math.Abs(cv-want.cv) > 0.06 {
			t.Errorf("%s: drawn mean %v and CV %v, told mean %v: want %v and %v", spec, mean, cv, d.Mean(), want.mean, want.cv)
		}
	}
}

func FuzzParseDist(f *testing.F) {
	for _, s := range []string{"exp:1s", "lognormal:1s,cv=2", "gamma:1s,cv=0.1", "uniform:1s,2s", "empirical:1s,2s,3s", "const:", "exp:-1s", "lognormal:1s", "uniform:2s,1s", "exp:1s,cv=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		d, err := scenario.ParseDist(spec)
		if err != nil {
			return
		}
		r := rand.New(rand.NewPCG(1, 1))
		for range 20 {
			if v := d.Draw(r); v < 0 || v > 10*365*24*time.Hour {
				t.Fatalf("%q draws %v", spec, v)
			}
		}
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		var again scenario.Dist
		if err := json.Unmarshal(b, &again); err != nil || again.Mean() != d.Mean() {
			t.Fatalf("%q does not survive JSON: %s, %v", spec, b, err)
		}
	})
}

// Validate names every fault at once.
func TestScenarioFaults(t *testing.T) {
	t.Parallel()
	_, err := scenario.Parse(scenario.Default(), json.RawMessage(`{"podConcurrency": -1, "routing": "magic", "scrape": {"interval": "1s", "lag": "2s"}, "slo": {"wait": "-1s", "share": 2}, "startFailure": 1}`))
	if err == nil {
		t.Fatal("a scenario full of faults was taken")
	}
	for _, want := range []string{"podConcurrency = -1", `routing = magic: want shared, random or leastOfTwo`, "scrape.lag = 2s", "slo.wait = -1s", "slo.share = 2", "startFailure = 1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
	if _, err := scenario.Parse(scenario.Default(), json.RawMessage(`{"nosuch": 1}`)); err == nil || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("an unknown field: %v", err)
	}
}

func dist(t testing.TB, spec string) scenario.Dist {
	t.Helper()
	d, err := scenario.ParseDist(spec)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
