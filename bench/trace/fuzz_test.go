package trace_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// open reads the beginning and checks it.
func open(t *testing.T, s trace.Source) {
	buf := make([]trace.Request, 1000)
	a := s.Open(seeded(1))
	orderly(t, s, buf[:a.Read(buf)])
	if err := trace.Err(a); err != nil {
		t.Error(err)
	}
}

func FuzzParseModel(f *testing.F) {
	for _, s := range []string{"poisson", "even", "exact", "gamma:cv=4", "weibull:cv=0.5", "gamma:cv=1,cv=2", ":,=", "weibull:cv=1e9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := trace.ParseModel(text)
		if err != nil {
			return
		}
		again, err := trace.ParseModel(m.String())
		if err != nil || again != m {
			t.Errorf("ParseModel(%q) = %v, which reads as %v, %v", text, m, again, err)
		}
		open(t, bins(t, time.Second, 1, 0, 100, 3.7).Source(m))
	})
}

func FuzzGenerate(f *testing.F) {
	for _, g := range trace.Generators() {
		f.Add(example(g))
	}
	f.Add("sparse:idle=lognormal:5m,4,duration=1d,burst=100,gap=1ns")
	f.Add("diurnal:mean=1e9,amplitude=1,period=1s,duration=100000d,noise=3,weekly=1,cv=100")
	f.Add("flash:base=0,peak=1,at=1ns,rise=1ns,decay=1ns,duration=1ns")
	f.Fuzz(func(t *testing.T, spec string) {
		s, err := trace.Generate(spec)
		if err != nil {
			return
		}
		if s.Length() <= 0 || s.Name() != spec {
			t.Errorf("Generate(%q) = %q of %v", spec, s.Name(), s.Length())
		}
		if s.Length() > 10*time.Minute {
			return // with hardly a request, reading it could take long
		}
		open(t, s)
	})
}

func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"1h", "7d", "1.5d", "-1d", "d", "1e9d", "NaNd"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := trace.ParseDuration(s)
		if err == nil && d%(24*time.Hour) == 0 && strings.HasSuffix(strings.TrimSpace(s), "d") && math.Abs(d.Hours()) > 2_400_000 {
			t.Errorf("ParseDuration(%q) = %v", s, d)
		}
	})
}
