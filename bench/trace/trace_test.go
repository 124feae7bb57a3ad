package trace_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// example is a generator's usage without what may be left out.
func example(g trace.Generator) string {
	s, _, _ := strings.Cut(g.Usage, "[")
	s, _, _ = strings.Cut(s, " ")
	return s
}

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// all reads everything, in reads of a size.
func all(tb testing.TB, a trace.Arrivals, size int) []trace.Request {
	tb.Helper()
	var out []trace.Request
	buf := make([]trace.Request, size)
	for n := a.Read(buf); n > 0; n = a.Read(buf) {
		out = append(out, buf[:n]...)
	}
	if err := trace.Err(a); err != nil {
		tb.Fatal(err)
	}
	if n := a.Read(buf); n != 0 {
		tb.Errorf("Read after the end = %d, want 0", n)
	}
	return out
}

// orderly checks what Arrivals promise.
func orderly(tb testing.TB, s trace.Source, requests []trace.Request) {
	tb.Helper()
	var last time.Duration
	for i, r := range requests {
		if r.At < last || r.At >= s.Length() || r.Service < 0 {
			tb.Fatalf("%s: request %d = %+v after %v of %v", s.Name(), i, r, last, s.Length())
		}
		last = r.At
	}
}

func source(tb testing.TB, spec string) trace.Source {
	tb.Helper()
	s, err := trace.Generate(spec)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func model(tb testing.TB, spec string) trace.Model {
	tb.Helper()
	m, err := trace.ParseModel(spec)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func bins(tb testing.TB, width time.Duration, values ...float64) *trace.Trace {
	tb.Helper()
	t, err := trace.New("bins", width, values)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func values(t *trace.Trace) []float64 {
	var out []float64
	for i := range t.Len() {
		out = append(out, t.Bin(i).Requests)
	}
	return out
}

func TestNewErrors(t *testing.T) {
	for name, f := range map[string]func() error{
		"no width": func() error { _, err := trace.New("x", 0, []float64{1}); return err },
		"no bins":  func() error { _, err := trace.New("x", 1, nil); return err },
		"NaN":      func() error { _, err := trace.New("x", time.Second, []float64{math.NaN()}); return err },
		"negative": func() error { _, err := trace.New("x", time.Second, []float64{-1}); return err },
		"long":     func() error { _, err := trace.New("x", math.MaxInt64/2, []float64{1, 1, 1}); return err },
		"scale 0":  func() error { _, err := bins(t, time.Second, 1).Scale(0); return err },
		"scale":    func() error { _, err := bins(t, time.Second, 1).Scale(2e9); return err },
		"NaN scale": func() error {
			_, err := bins(t, time.Second, 1).Scale(math.NaN())
			return err
		},
		"slice":         func() error { _, err := bins(t, time.Second, 1).Slice(2, 1); return err },
		"slice outside": func() error { _, err := bins(t, time.Second, 1).Slice(time.Second, time.Minute); return err },
		"slice between": func() error { _, err := bins(t, time.Second, 1, 1).Slice(1, 5); return err },
		"slice idle":    func() error { _, err := bins(t, time.Second, 1, 0).Slice(time.Second, time.Minute); return err },
		"coarsen 0":     func() error { _, err := bins(t, time.Second, 1).Coarsen(0); return err },
		"coarsen":       func() error { _, err := bins(t, time.Second, 1).Coarsen(2); return err },
	} {
		if f() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestTrace(t *testing.T) {
	tr := bins(t, time.Minute, 60, 120, 0, 30, 90)
	if got, want := tr.Length(), 5*time.Minute; got != want {
		t.Errorf("Length() = %v, want %v", got, want)
	}
	if got := tr.PeakRate(); got != 2 {
		t.Errorf("PeakRate() = %v, want 2", got)
	}
	if got := tr.MeanRate(); got != 1 {
		t.Errorf("MeanRate() = %v, want 1", got)
	}
	if got, want := tr.Bin(1), (trace.Bin{Start: time.Minute, Width: time.Minute, Requests: 120}); got != want {
		t.Errorf("Bin(1) = %+v, want %+v", got, want)
	}
	for name, tt := range map[string]struct {
		f     func() (*trace.Trace, error)
		width time.Duration
		want  []float64
	}{
		"scale":           {func() (*trace.Trace, error) { return tr.Scale(0.5) }, time.Minute, []float64{30, 60, 0, 15, 45}},
		"slice":           {func() (*trace.Trace, error) { return tr.Slice(time.Minute, 4*time.Minute) }, time.Minute, []float64{120, 0, 30}},
		"slice to inside": {func() (*trace.Trace, error) { return tr.Slice(1, 3*time.Minute+1) }, time.Minute, []float64{120, 0, 30}},
		"slice past":      {func() (*trace.Trace, error) { return tr.Slice(0, time.Hour) }, time.Minute, []float64{60, 120, 0, 30, 90}},
		"coarsen":         {func() (*trace.Trace, error) { return tr.Coarsen(2) }, 2 * time.Minute, []float64{180, 30}},
	} {
		got, err := tt.f()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.Width() != tt.width || !cmp.Equal(values(got), tt.want) {
			t.Errorf("%s = %v, %v, want %v, %v", name, got.Width(), values(got), tt.width, tt.want)
		}
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	tr, err := trace.New("t", time.Minute, []float64{60, 0, 120})
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[time.Duration]float64{
		-1: 0, 0: 1, time.Minute - 1: 1, time.Minute: 0, 2 * time.Minute: 2, 3*time.Minute - 1: 2, 3 * time.Minute: 0,
	} {
		if got := tr.Rate(at); got != want {
			t.Errorf("Rate(%v) = %v, want %v", at, got, want)
		}
	}
}

func TestModels(t *testing.T) {
	for spec, want := range map[string]string{
		"poisson": "poisson", "even": "even", "exact": "exact", "gamma:cv=2": "gamma:cv=2", " weibull : cv = 0.5 ": "weibull:cv=0.5",
	} {
		m, err := trace.ParseModel(spec)
		if err != nil || m.String() != want {
			t.Errorf("ParseModel(%q) = %v, %v, want %s", spec, m, err, want)
		}
	}
	for spec, want := range map[string]string{
		"": "no such model", "uniform": "no such model", "gamma": "cv is missing", "gamma:cv=0": "0.01–100", "gamma:cv=x": "cv = x",
		"poisson:cv=1": "cv is no parameter", "weibull:cv=1,cv=2": "twice", "weibull:2": "want key=value", "weibull:cv=NaN": "cv = NaN",
	} {
		_, err := trace.ParseModel(spec)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "gamma:cv=C") {
			t.Errorf("ParseModel(%q): %v, want %q and the models", spec, err, want)
		}
	}
}

// counts per bin.
func counts(requests []trace.Request, width time.Duration, n int) []float64 {
	out := make([]float64, n)
	for _, r := range requests {
		out[r.At/width]++
	}
	return out
}

// The counts that each model promises.
func TestCounts(t *testing.T) {
	whole := []float64{3, 0, 1, 500, 17, 0, 0, 1000, 128, 129, 256, 1}
	tr := bins(t, time.Minute, whole...)
	for _, spec := range []string{"even", "exact"} {
		for seed := range uint64(20) {
			s := tr.Source(model(t, spec))
			got := all(t, s.Open(seeded(seed)), 100)
			orderly(t, s, got)
			if c := counts(got, time.Minute, len(whole)); !cmp.Equal(c, whole) {
				t.Errorf("%s, seed %d: counts %v, want %v", spec, seed, c, whole)
			}
		}
	}
	// Fractions even out: of 0.3 per bin, 300 in 1000 bins within one, and evenly.
	small := make([]float64, 1000)
	for i := range small {
		small[i] = 0.3
	}
	for _, spec := range []string{"even", "exact"} {
		s := bins(t, time.Second, small...).Source(model(t, spec))
		got := all(t, s.Open(seeded(3)), 7)
		if len(got) < 299 || len(got) > 301 {
			t.Errorf("%s: %d requests, want 300", spec, len(got))
		}
	}
}

// Rates and the variation of the gaps are as asked, within five standard errors.
func TestStatistics(t *testing.T) {
	const n = 200_000
	values := make([]float64, 100)
	for i := range values {
		values[i] = n / 100
	}
	tr := bins(t, time.Hour, values...)
	for spec, cv := range map[string]float64{
		"poisson": 1, "gamma:cv=0.3": 0.3, "gamma:cv=1": 1, "gamma:cv=3": 3, "gamma:cv=5": 5, "weibull:cv=0.3": 0.3, "weibull:cv=1": 1,
		"weibull:cv=3": 3, "even": 0, "exact": 1,
	} {
		s := tr.Source(model(t, spec))
		got := all(t, s.Open(seeded(11)), 1000)
		orderly(t, s, got)
		// The count of a renewal process has variance about n·cv².
		if z := math.Abs(float64(len(got))-n) / (math.Max(cv, 1e-9) * math.Sqrt(n)); z > 5 {
			t.Errorf("%s: %d requests, want %d (z = %v)", spec, len(got), n, z)
		}
		var sum, square float64
		for i := 1; i < len(got); i++ {
			g := (got[i].At - got[i-1].At).Seconds()
			sum += g
			square += g * g
		}
		m := float64(len(got) - 1)
		mean := sum / m
		if have := math.Sqrt(max(square/m-mean*mean, 0)) / mean; math.Abs(have-cv) > 0.01+0.06*cv {
			t.Errorf("%s: gaps vary by %v, want %v", spec, have, cv)
		}
	}
}

// A renewal process that starts in equilibrium expects rate·t requests from the first instant on:
// no burst and no lull at the start, which a process that starts with a request would have,
// (cv²−1)/2 of them.
func TestStationaryStart(t *testing.T) {
	for _, spec := range []string{"gamma:rate=1,cv=4,duration=20s", "weibull:rate=1,cv=4,duration=20s", "gamma:rate=1,cv=0.3,duration=3s"} {
		s := source(t, spec)
		var count, square float64
		const runs = 5_000
		for seed := range uint64(runs) {
			n := float64(len(all(t, s.Open(seeded(seed)), 64)))
			count += n
			square += n * n
		}
		mean := count / runs
		se := math.Sqrt((square/runs - mean*mean) / runs)
		if want := s.Length().Seconds(); math.Abs(mean-want) > 5*se {
			t.Errorf("%s: %v ± %v requests, want %v", spec, mean, se, want)
		}
	}
}

// ks is the greatest distance between the distribution of x and a cumulative distribution, times
// √n: 1.95 is exceeded with probability 0.001.
func ks(x []float64, cdf func(float64) float64) float64 {
	x = slices.Sorted(slices.Values(x))
	n := float64(len(x))
	var d float64
	for i, v := range x {
		p := cdf(v)
		d = max(d, math.Abs(p-float64(i)/n), math.Abs(float64(i+1)/n-p))
	}
	return d * math.Sqrt(n)
}

func exponential(x float64) float64 { return -math.Expm1(-x) }

// Time rescaling: in the time Λ(t) = ∫ rate, worked out here from the formula in the documentation,
// gaps are exponential.
func TestRatesFollowTheirFormula(t *testing.T) {
	// integral is by Simpson's rule, in steps of 0.25 s.
	integral := func(rate func(t float64) float64) func(t float64) float64 {
		var sums []float64
		return func(t float64) float64 {
			const h = 0.25
			for float64(len(sums))*h < t+h {
				if len(sums) == 0 {
					sums = append(sums, 0)
					continue
				}
				a := float64(len(sums)-1) * h
				sums = append(sums, sums[len(sums)-1]+h/6*(rate(a)+4*rate(a+h/2)+rate(a+h)))
			}
			i := min(int(t/h), len(sums)-2)
			return sums[i] + (t/h-float64(i))*(sums[i+1]-sums[i])
		}
	}
	for spec, rate := range map[string]func(t float64) float64{
		"ramp:from=1,to=100,duration=1000s": func(t float64) float64 { return 1 + 99*t/1000 },
		"ramp:from=90,to=0,duration=1000s":  func(t float64) float64 { return 90 - 90*t/1000 },
		"diurnal:mean=20,amplitude=0.9,period=1000s,duration=3000s": func(t float64) float64 {
			return 20 * (1 - 0.9*math.Cos(2*math.Pi*t/1000))
		},
		"flash:base=5,peak=200,at=100s,rise=50s,decay=100s,duration=1500s": func(t float64) float64 {
			switch {
			case t < 100:
				return 5
			case t < 150:
				return 5 + 195*(t-100)/50
			}
			return 5 + 195*math.Exp(-(t-150)/100)
		},
		"steps:rates=10/100/0/30,each=250s": func(t float64) float64 { return []float64{10, 100, 0, 30, 30, 30}[int(t/250)] },
		"poisson:rate=50,duration=1000s":    func(float64) float64 { return 50 },
		"diurnal:mean=50,amplitude=0,weekly=0.5,period=100s,duration=1400s": func(t float64) float64 {
			w := 1 / (1 - 1.0/7)
			if int(t/100)%7 >= 5 {
				w /= 2
			}
			return 50 * w
		},
	} {
		s := source(t, spec)
		got := all(t, s.Open(seeded(5)), 333)
		orderly(t, s, got)
		lambda := integral(rate)
		var gaps []float64
		last := 0.0
		for _, r := range got {
			l := lambda(r.At.Seconds())
			gaps = append(gaps, l-last)
			last = l
		}
		if d := ks(gaps, exponential); d > 1.95 {
			t.Errorf("%s: rescaled gaps are not exponential: KS %v", spec, d)
		}
		total := lambda(s.Length().Seconds())
		if z := math.Abs(float64(len(got))-total) / math.Sqrt(total); z > 5 {
			t.Errorf("%s: %d requests, want %v", spec, len(got), total)
		}
	}
}

// Exact arrivals are uniform within the bin, in blocks or not: their instants and, as order
// statistics, the gaps, against a twin that sorts uniform instants.
func TestExactIsUniform(t *testing.T) {
	for _, n := range []int{1, 2, 127, 128, 129, 1000} {
		s := bins(t, time.Second, float64(n)).Source(model(t, "exact"))
		rng := seeded(9)
		var at, gap, twinGap []float64
		for range 20_000/n + 1 {
			got := all(t, s.Open(rng), n+1)
			twin := make([]float64, n)
			for i := range twin {
				twin[i] = rng.Float64()
			}
			slices.Sort(twin)
			for i, r := range got {
				at = append(at, r.At.Seconds())
				if i > 0 {
					gap = append(gap, (r.At - got[i-1].At).Seconds())
					twinGap = append(twinGap, twin[i]-twin[i-1])
				}
			}
		}
		if d := ks(at, func(x float64) float64 { return x }); d > 1.95 {
			t.Errorf("%d per bin: instants are not uniform: KS %v", n, d)
		}
		slices.Sort(twinGap)
		if d := ks(gap, func(x float64) float64 {
			i, _ := slices.BinarySearch(twinGap, x)
			return float64(i) / float64(len(twinGap))
		}); d > 1.95*math.Sqrt2 {
			t.Errorf("%d per bin: gaps are not those of order statistics: KS %v", n, d)
		}
	}
}

// The same seed gives the same arrivals, whatever the size of the reads and whatever else draws
// from the generator meanwhile; another seed gives others.
func TestDeterminism(t *testing.T) {
	sources := []trace.Source{}
	for _, m := range []string{"poisson", "exact", "gamma:cv=2", "weibull:cv=2", "even"} {
		sources = append(sources, bins(t, time.Minute, 10, 0, 300, 1000.5).Source(model(t, m)))
	}
	for _, spec := range []string{
		"poisson:rate=2,duration=5m", "mmpp:rates=5/50,holds=6s/1s,duration=2m", "onoff:rate=50,on=1s,off=6s,duration=5m",
		"diurnal:mean=5,amplitude=0.8,duration=10m,period=2m,noise=0.5,weekly=0.5,cv=2", "sparse:idle=pareto:30s,1.5,burst=3,duration=2h",
	} {
		sources = append(sources, source(t, spec))
	}
	for _, s := range sources {
		want := all(t, s.Open(seeded(1)), 1)
		orderly(t, s, want)
		for _, size := range []int{2, 7, 300, 10_000} {
			rng := seeded(1)
			a := s.Open(rng)
			rng.Uint64()
			if got := all(t, a, size); !cmp.Equal(got, want) {
				t.Errorf("%s: reads of %d differ from reads of 1", s.Name(), size)
			}
		}
		if !strings.Contains(s.Name(), "bins") {
			if got := all(t, s.Open(seeded(2)), 100); cmp.Equal(got, want) {
				t.Errorf("%s: another seed gives the same", s.Name())
			}
		}
	}
}

func TestGenerators(t *testing.T) {
	mean := map[string]float64{
		"poisson": 8, "even": 8, "gamma": 8, "weibull": 8, "mmpp": (5.*60 + 50*10) / 70, "onoff": 50. * 10 / 70, "ramp": 50.5, "steps": 16. / 3,
		// The flash's integral: base + the triangle + the tail.
		"flash":   5 + 195*(15+600*(1-math.Exp(-(7200-1830)/600.)))/7200,
		"diurnal": 50,
	}
	for _, g := range trace.Generators() {
		s := source(t, example(g))
		if s.Name() != example(g) {
			t.Errorf("Name() = %q, want %q", s.Name(), example(g))
		}
		if g.About == "" || g.Sketch == "" || !strings.HasPrefix(g.Usage, g.Name+":") {
			t.Errorf("generator %+v is not described", g)
		}
		var n, runs float64
		buf := make([]trace.Request, 1000)
		for seed := range uint64(20) {
			a := s.Open(seeded(seed))
			var last time.Duration
			for k := a.Read(buf); k > 0; k = a.Read(buf) {
				n += float64(k)
				if buf[0].At < last || buf[k-1].At >= s.Length() {
					t.Fatalf("%s: out of order", s.Name())
				}
				last = buf[k-1].At
			}
			runs++
			if n > 1e6 {
				break
			}
		}
		if want, ok := mean[g.Name]; ok {
			if got := n / runs / s.Length().Seconds(); math.Abs(got/want-1) > 0.05 {
				t.Errorf("%s: mean rate %v, want %v", s.Name(), got, want)
			}
		}
	}
}

func TestGenerateErrors(t *testing.T) {
	for spec, want := range map[string][]string{
		"":                                            {"no such generator", "poisson", "sparse"},
		"posson:rate=1":                               {`"posson:rate=1"`, "no such generator"},
		"poisson":                                     {"rate is missing", "duration is missing", "poisson:rate=8,duration=1h"},
		"poisson:rate=-1,duration=1h":                 {"rate = -1", "requests per second"},
		"poisson:rate=1,duration=0s":                  {"duration = 0s"},
		"poisson:rate=1,duration=5":                   {"duration = 5"},
		"poisson:rate=1,duration=1h,cv=2":             {"cv is no parameter of poisson"},
		"poisson:rate=1,duration=200000d":             {"duration = 200000d"},
		"mmpp:rates=1/2,holds=1s,duration=1h":         {"as many as rates"},
		"mmpp:rates=1/x,holds=1s/1s,duration=1h":      {"rates = x"},
		"onoff:rate=1,on=0s,off=1s,duration=1h":       {"on = 0s"},
		"steps:rates=1/2/3,each=90000d":               {"3 steps"},
		"diurnal:mean=1,amplitude=2,duration=1h":      {"amplitude = 2", "0–1"},
		"sparse:duration=1h":                          {"idle is missing"},
		"sparse:idle=5m,duration=1h":                  {"idle = 5m", "pareto:mean,alpha"},
		"sparse:idle=pareto:5m,1,duration=1h":         {"idle = 1", "1.01"},
		"sparse:idle=cauchy:5m,1,duration=1h":         {"cauchy", "lognormal"},
		"sparse:idle=pareto:5m,2,burst=0,duration=1h": {"burst = 0"},
		"even:rate=1,duration=1h,rate=2":              {"rate is given twice"},
		"even:1,duration=1h":                          {"want key=value", "rate is missing"},
		"even:=1,duration=1h":                         {"want key=value"},
	} {
		_, err := trace.Generate(spec)
		if err == nil {
			t.Errorf("Generate(%q): no error", spec)
			continue
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("Generate(%q): %q does not tell %q", spec, err, w)
			}
		}
	}
}

// Idle times and bursts of sparse have the means asked for, and the Pareto's tail its index.
func TestSparse(t *testing.T) {
	s := source(t, "sparse:idle=pareto:100s,2.5,burst=4,gap=1ms,duration=90000d")
	var idle []float64
	var last time.Duration
	n := 0
	buf := make([]trace.Request, 100)
	a := s.Open(seeded(4))
	for k := a.Read(buf); k > 0 && n < 400_000; k = a.Read(buf) {
		for _, r := range buf[:k] {
			if gap := r.At - last; gap > time.Second {
				idle = append(idle, gap.Seconds())
			}
			last = r.At
			n++
		}
	}
	if got := float64(n) / float64(len(idle)); math.Abs(got/4-1) > 0.03 {
		t.Errorf("%v requests per burst, want 4", got)
	}
	if d := ks(idle, func(x float64) float64 { return 1 - math.Pow(60/x, 2.5) }); d > 1.95 {
		t.Errorf("idle times are not Pareto: KS %v", d)
	}
	s = source(t, "sparse:idle=lognormal:100s,1,duration=90000d")
	got := make([]trace.Request, 100_000)
	if k := s.Open(seeded(4)).Read(got); k != len(got) {
		t.Fatalf("Read = %d", k)
	}
	if mean := got[len(got)-1].At.Seconds() / float64(len(got)); math.Abs(mean/100-1) > 0.02 {
		t.Errorf("mean idle time %v, want 100", mean)
	}
}

// Long and busy sources lose no precision: even arrivals stay even at the end, and the count is
// right.
func TestPrecision(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	s := source(t, "even:rate=100,duration=1000000s")
	a := s.Open(seeded(1))
	buf := make([]trace.Request, 4096)
	n := 0
	for k := a.Read(buf); k > 0; k = a.Read(buf) {
		for i, r := range buf[:k] {
			want := time.Duration(n+i)*10*time.Millisecond + 5*time.Millisecond
			if d := r.At - want; d > time.Microsecond || d < -time.Microsecond {
				t.Fatalf("request %d at %v, want %v", n+i, r.At, want)
			}
		}
		n += k
	}
	if n != 100_000_000 {
		t.Errorf("%d requests, want 100,000,000", n)
	}
}

func TestReadAllocatesNothing(t *testing.T) {
	var sources []trace.Source
	for _, m := range []string{"poisson", "exact", "gamma:cv=2", "weibull:cv=2", "even"} {
		v := make([]float64, 10_000)
		for i := range v {
			v[i] = 100
		}
		sources = append(sources, bins(t, time.Minute, v...).Source(model(t, m)))
	}
	for _, spec := range []string{
		"mmpp:rates=5/50,holds=6s/1s,duration=200h", "diurnal:mean=50,amplitude=0.8,duration=20d,noise=0.5", "ramp:from=1,to=100,duration=20h",
		"flash:base=5,peak=200,at=30m,rise=30s,decay=100h,duration=200h", "sparse:idle=pareto:30s,1.5,burst=3,duration=90000d",
	} {
		sources = append(sources, source(t, spec))
	}
	for _, s := range sources {
		a := s.Open(seeded(1))
		buf := make([]trace.Request, 512)
		if n := testing.AllocsPerRun(1000, func() {
			if a.Read(buf) == 0 {
				t.Error("too short")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations per Read", s.Name(), n)
		}
	}
}
