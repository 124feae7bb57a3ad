package staffing_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
	"github.com/sluice-autoscaler/sluice/algorithms/staffing"
)

func near(t *testing.T, what string, got, want, tol float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tol) {
		t.Errorf("%s = %.10g, want %.10g ± %g", what, got, want, tol)
	}
}

// meanWait is the mean wait Wq in units of the mean service time, for c > a.
func meanWait(c int, a float64) float64 { return staffing.ErlangC(c, a) / (float64(c) - a) }

// The computed values of field/algorithms.md (e).
func TestErlangTable(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		c          int
		a, b, w, q float64
	}{
		{1, 0.5, 0.33333333, 0.50000000, 1.0},
		{2, 1, 0.2, 0.33333333, 0.33333333},
		{3, 2, 0.21052632, 0.44444444, 0.44444444},
		{5, 4, 0.19906687, 0.55411255, 0.55411255},
		{10, 8, 0.12166106, 0.40918015, 0.20459008},
		{55, 50, 0.05374881, 0.38454732, 0.07690946},
		{100, 90, 0.02695738, 0.21694048, 0.02169405},
		{110, 100, 0.02746345, 0.23700750, 0.02370075},
	} {
		near(t, "B", staffing.ErlangB(v.c, v.a), v.b, 5e-9)
		near(t, "C", staffing.ErlangC(v.c, v.a), v.w, 5e-9)
		near(t, "Wq/S", meanWait(v.c, v.a), v.q, 5e-9)
		near(t, "P(W > 0)", staffing.WaitTail(v.c, v.a, 0), v.w, 5e-9)
	}
}

func TestHalfinWhittTable(t *testing.T) {
	t.Parallel()
	for beta, want := range map[float64]float64{0.25: .720932, .5: .504539, 1: .223361, 1.5: .084690, 2: .026881} {
		near(t, "alpha", staffing.HalfinWhitt(beta), want, 5e-7)
	}
	for alpha, want := range map[float64]float64{.5: .5061, .2: 1.0615, .1: 1.4202, .05: 1.7398, .01: 2.3749} {
		near(t, "beta", staffing.Beta(alpha), want, 5e-5)
	}
}

func TestServersTable(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		a, want, root float64
	}{{1, 3, 2.06}, {10, 14, 13.35}, {50, 58, 57.5}, {100, 111, 110.6}, {1000, 1034, 1033.5}} {
		g := staffing.Goal{WaitProbability: 0.2}
		if got := staffing.Servers(v.a, 1, g); got != v.want {
			t.Errorf("least servers at %v erlangs with C ≤ 0.2 = %v, want %v", v.a, got, v.want)
		}
		near(t, "a + β√a", v.a+staffing.Beta(0.2)*math.Sqrt(v.a), v.root, 0.1)
		if got := staffing.SquareRoot(v.a, 1, g); got != math.Ceil(v.a+staffing.Beta(0.2)*math.Sqrt(v.a)) {
			t.Errorf("square root staffing at %v erlangs = %v", v.a, got)
		}
	}
	for a, want := range map[float64]float64{10: 13, 100: 106} {
		if got := staffing.Servers(a, 1, staffing.Goal{MeanWait: 0.1}); got != want {
			t.Errorf("least servers at %v erlangs with Wq ≤ 0.1 S = %v, want %v", a, got, want)
		}
	}
	if got := staffing.Servers(0, 1, staffing.Goal{WaitProbability: 0.2}); got != 0 {
		t.Errorf("no load needs %v servers", got)
	}
}

// Servers is the least count: one fewer breaks the promise, whatever it is; and the square-root
// rule is near it.
func TestServersIsLeast(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		a := math.Exp(r.Float64()*9 - 2)
		variability := 0.2 + r.Float64()*3 // Allen–Cunneen scales waits, not the chance of one
		for _, g := range []staffing.Goal{{WaitProbability: 0.01 + r.Float64()*0.9}, {MeanWait: 0.001 + r.Float64()}, {Tail: 0.01 + r.Float64()*0.9, TailWait: r.Float64() * 3}} {
			ok := func(c int) bool {
				switch {
				case float64(c) <= a:
					return false
				case g.WaitProbability > 0:
					return staffing.ErlangC(c, a) <= g.WaitProbability
				case g.MeanWait > 0:
					return variability*meanWait(c, a) <= g.MeanWait
				}
				return staffing.WaitTail(c, a, g.TailWait/variability) <= g.Tail
			}
			c := int(staffing.Servers(a, variability, g))
			if !ok(c) || ok(c-1) {
				t.Fatalf("a = %v, goal %+v: %d servers are not the least", a, g, c)
			}
			if a > 100 {
				near(t, "square-root rule", staffing.SquareRoot(a, variability, g), float64(c), 2)
			}
		}
	}
	near(t, "Erlang and its limit where one gives way to the other",
		staffing.Servers(20_000, 1, staffing.Goal{WaitProbability: 0.2}), staffing.Servers(20_001, 1, staffing.Goal{WaitProbability: 0.2}), 4)
}

// The quick share is exact for few servers and near the exact one for many.
func TestWaitShare(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(6, 6))
	for range 2000 {
		c := 1 + r.IntN(400)
		a, wait := float64(c)*r.Float64(), r.Float64()*3
		got, want := staffing.WaitShare(float64(c), a, wait), staffing.WaitTail(c, a, wait)
		tol := 1e-12
		if c > 64 {
			tol = 0.02
		}
		near(t, "share", got, want, tol)
	}
	for _, v := range []struct{ c, a, want float64 }{{0, 0, 0}, {0, 1, 1}, {5, 5, 1}, {5, math.NaN(), 0}, {0.5, 0.1, 0}} {
		if got := staffing.WaitShare(v.c, v.a, 0.5); !(got >= 0 && got <= 1) || v.want == 1 && got != 1 {
			t.Errorf("WaitShare(%v, %v) = %v", v.c, v.a, got)
		}
	}
}

func config(change func(*staffing.Config)) staffing.Config {
	c := staffing.Default()
	if change != nil {
		change(&c)
	}
	return c
}

func TestDecide(t *testing.T) {
	t.Parallel()
	minute := time.Minute
	sig := func(name string, v float64) algorithms.Signal {
		return algorithms.Signal{Name: name, Window: minute, Value: v, Known: true, Coverage: 1}
	}
	rate := func(c *staffing.Config) { c.Load = staffing.LoadRate }
	for _, c := range []struct {
		name   string
		change func(*staffing.Config)
		in     []algorithms.Signal
		limit  float64
		want   int
		reason string
	}{
		{"a pod is a server", nil, []algorithms.Signal{sig("concurrency", 10)}, 0, 14, "Staffed"},
		{"a pod is ten servers", func(c *staffing.Config) { c.PodConcurrency = 10 }, []algorithms.Signal{sig("concurrency", 10)}, 4, 2, "Staffed"},
		{"the observed limit counts", nil, []algorithms.Signal{sig("concurrency", 10)}, 7, 2, "Staffed"},
		{"rate times duration", rate, []algorithms.Signal{sig("rate", 20), sig("duration", 0.5)}, 0, 14, "Staffed"},
		{"duration unknown", rate, []algorithms.Signal{sig("rate", 20)}, 0, 0, "NoData"},
		{"configured service time", func(c *staffing.Config) {
			rate(c)
			c.ServiceTime = algorithms.Duration(500 * time.Millisecond)
		}, []algorithms.Signal{sig("rate", 20)}, 0, 14, "Staffed"},
		{"mean wait", func(c *staffing.Config) {
			c.WaitProbability, c.MeanWait, c.ServiceTime = 0, algorithms.Duration(50*time.Millisecond), algorithms.Duration(500*time.Millisecond)
		}, []algorithms.Signal{sig("concurrency", 100)}, 0, 106, "Staffed"},
		{"square root", func(c *staffing.Config) { c.Method = staffing.SquareRootRule }, []algorithms.Signal{sig("concurrency", 1000)}, 0, 1034, "Staffed"},
		{"nothing known", nil, nil, 0, 0, "NoData"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, err := staffing.New(config(c.change))
			if err != nil {
				t.Fatal(err)
			}
			d := p.Decide(algorithms.Observation{Signals: c.in, Limits: algorithms.Limits{Max: 5000, PodConcurrency: c.limit}})
			if d.Replicas != c.want || d.Reason != c.reason || d.Valid != (c.reason != "NoData") {
				t.Errorf("Decide = %+v, want %d %s", d, c.want, c.reason)
			}
		})
	}
}

// The last pod goes when keeping it has cost as much as one cold start.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	p, err := staffing.New(staffing.Default())
	if err != nil {
		t.Fatal(err)
	}
	at := func(sec int, load float64) int {
		return p.Decide(algorithms.Observation{
			Now: policytest.Epoch().Add(time.Duration(sec) * time.Second), Replicas: algorithms.Replicas{Current: 1, Ready: 1}, Limits: algorithms.Limits{Max: 10},
			Signals: []algorithms.Signal{{Name: "concurrency", Window: time.Minute, Value: load, Known: true}},
		}).Replicas
	}
	for _, step := range []struct {
		sec  int
		load float64
		want int
	}{{0, 0, 0}, {1, 0.1, 1}, {2, 0, 1}, {60, 0, 1}, {61, 0, 0}} {
		if got := at(step.sec, step.load); got != step.want {
			t.Errorf("at %d s: %d pods, want %d", step.sec, got, step.want)
		}
	}
}

func TestProperties(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*staffing.Config){
		"erlang": nil,
		"rate":   func(c *staffing.Config) { c.Load = staffing.LoadRate },
		"tail": func(c *staffing.Config) {
			c.WaitProbability, c.TailProbability, c.TailWait, c.Method = 0, 0.05, algorithms.Duration(time.Second), staffing.SquareRootRule
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			policytest.Check(t, 11, 10, func() (algorithms.Policy, error) { return staffing.New(config(change)) })
			policytest.Monotone(t, 12, 200, func() (algorithms.Policy, error) { return staffing.New(config(change)) })
		})
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*staffing.Config){
		"no promise":   func(c *staffing.Config) { c.WaitProbability = 0 },
		"two promises": func(c *staffing.Config) { c.MeanWait = 1 },
		"half a tail":  func(c *staffing.Config) { c.WaitProbability, c.TailWait = 0, 1 },
		"method":       func(c *staffing.Config) { c.Method = "erlang" },
		"NaN":          func(c *staffing.Config) { c.PodConcurrency = math.NaN() },
	} {
		if _, err := staffing.New(config(change)); err == nil {
			t.Errorf("%s: New took it", name)
		}
	}
}

func FuzzServers(f *testing.F) {
	f.Add(10.0, 1.0, 0.2, 0.0, 0.0)
	f.Add(1e9, 3.0, 0.0, 0.1, 0.0)
	f.Fuzz(func(t *testing.T, a, variability, wait, mean, tail float64) {
		if !algorithms.Finite(a) || !(variability >= 0 && variability < 1e3) || !(wait >= 0 && wait < 1) || !(mean >= 0 && mean < 1e6) || !(tail >= 0 && tail < 1) {
			t.Skip()
		}
		g := staffing.Goal{WaitProbability: wait, MeanWait: mean, Tail: max(tail, 1e-9), TailWait: 1}
		got := staffing.Servers(a, variability, g)
		if math.IsNaN(got) || got < 0 || (a > 0 && got < a) {
			t.Errorf("Servers(%v, %v, %+v) = %v", a, variability, g, got)
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	p, err := staffing.New(staffing.Default())
	if err != nil {
		b.Fatal(err)
	}
	o := algorithms.Observation{Quiet: true, Limits: algorithms.Limits{Max: 1000}, Signals: []algorithms.Signal{{Name: "concurrency", Window: time.Minute, Value: 100, Known: true}}}
	b.ReportAllocs()
	for b.Loop() {
		p.Decide(o)
	}
}
