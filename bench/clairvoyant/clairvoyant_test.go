package clairvoyant_test

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/clairvoyant"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// list yields given requests.
type list struct {
	requests []trace.Request
}

// Read implements trace.Arrivals.
func (l *list) Read(dst []trace.Request) int {
	n := copy(dst, l.requests)
	l.requests = l.requests[n:]
	return n
}

func opener(requests []trace.Request) func() trace.Arrivals {
	return func() trace.Arrivals { return &list{requests} }
}

// optimum is the cheapest schedule by trying all: who is dropped, when each begins (in whole
// seconds, which is enough if all times are whole), and which pod's run each goes to. A run costs
// the start-up time and lasts from its first begin to its last end.
//
// Reactive schedules are those in which a run begins at the arrival, plus the start-up time, of a
// request that found no slot free then.
func optimum(c clairvoyant.Problem, requests []trace.Request) float64 {
	best := math.Inf(1)
	allowed := int(c.Violations*float64(len(requests)) + 1e-9)
	type job struct{ from, to time.Duration }
	var runs [][]job
	cost := func() float64 {
		var sum time.Duration
		for _, r := range runs {
			from, to := r[0].from, r[0].to
			for _, j := range r {
				from, to = min(from, j.from), max(to, j.to)
			}
			sum += c.Startup + to - from
		}
		return sum.Seconds()
	}
	fits := func(r []job) bool {
		for _, a := range r {
			n := 0
			for _, b := range r {
				if b.from <= a.from && a.from < b.to {
					n++
				}
			}
			if n > c.Concurrency {
				return false
			}
		}
		return true
	}
	var place func(i, dropped int)
	place = func(i, dropped int) {
		if cost() >= best {
			return
		}
		if i == len(requests) {
			best = cost()
			return
		}
		q := requests[i]
		if dropped < allowed {
			place(i+1, dropped+1)
		}
		for w := time.Duration(0); w <= c.Wait; w += time.Second {
			j := job{q.At + w, q.At + w + q.Service}
			for k := range runs {
				runs[k] = append(runs[k], j)
				if fits(runs[k]) {
					place(i+1, dropped)
				}
				runs[k] = runs[k][:len(runs[k])-1]
			}
			runs = append(runs, []job{j})
			place(i+1, dropped)
			runs = runs[:len(runs)-1]
		}
	}
	place(0, 0)
	return best
}

func bound(tb testing.TB, c clairvoyant.Problem, length time.Duration, open func() trace.Arrivals) clairvoyant.Bounds {
	tb.Helper()
	b, err := c.Bound(tb.Context(), length, open)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// On tiny loads the optimum, found by trying all, lies between the bounds.
func TestBoundsEncloseTheOptimum(t *testing.T) {
	rng := seeded(7)
	var low, high float64
	n := 0
	for i := range 600 {
		c := clairvoyant.Problem{
			Concurrency: 1 + rng.IntN(3), Startup: time.Duration(rng.IntN(6)) * time.Second, Wait: time.Duration(rng.IntN(3)) * time.Second,
			Violations: []float64{0, 0.2, 0.4}[rng.IntN(3)], MaxReplicas: 10, Replays: 16, Steps: 4096,
		}
		var requests []trace.Request
		span := 4 + rng.IntN(30)
		for range 1 + rng.IntN(5) {
			requests = append(requests, trace.Request{At: time.Duration(rng.IntN(span)) * time.Second, Service: time.Duration(1+rng.IntN(4)) * time.Second})
		}
		slices.SortFunc(requests, func(a, b trace.Request) int { return int(a.At - b.At) })
		want := optimum(c, requests)
		b := bound(t, c, time.Duration(span)*time.Second, opener(requests))
		if b.Prewarmed.Lower > want+1e-6 {
			t.Errorf("%d: %+v, %v: lower bound %v above the optimum %v", i, c, requests, b.Prewarmed.Lower, want)
		}
		if !b.Prewarmed.Found || b.Prewarmed.Feasible < want-1e-6 {
			t.Errorf("%d: %+v, %v: feasible %+v below the optimum %v", i, c, requests, b.Prewarmed, want)
		}
		if b.Reactive.Found && b.Reactive.Feasible < max(want, b.Reactive.Lower)-1e-6 {
			t.Errorf("%d: %+v, %v: reactive %+v below the optimum %v", i, c, requests, b.Reactive, want)
		}
		low += math.Log(b.Prewarmed.Lower / want)
		high += math.Log(b.Prewarmed.Feasible / want)
		n++
	}
	t.Logf("in geometric mean lower/optimum = %.3f, feasible/optimum = %.3f", math.Exp(low/float64(n)), math.Exp(high/float64(n)))
}

// In cases that can be worked out by hand both bounds are near it.
func TestBoundsByHand(t *testing.T) {
	single := make([]trace.Request, 40)
	for i := range single {
		single[i] = trace.Request{At: time.Duration(i) * time.Minute * 5, Service: time.Second}
	}
	steady := make([]trace.Request, 20_000)
	for i := range steady {
		steady[i] = trace.Request{At: time.Duration(i) * 100 * time.Millisecond, Service: time.Second}
	}
	for _, tt := range []struct {
		name               string
		c                  clairvoyant.Problem
		length             time.Duration
		requests           []trace.Request
		want, slackL, over float64
		reactive           float64
	}{
		// Each costs a start and its service. Without pre-warming the first violates.
		{"single", clairvoyant.Problem{Concurrency: 10, Startup: 10 * time.Second, Wait: 500 * time.Millisecond, MaxReplicas: 5}, 200 * time.Minute, single, 440, 0.05, 0.1, -1},
		// One of forty may go, so the first does: the pod that it starts stays until the end.
		{"single, 2.5 %", clairvoyant.Problem{Concurrency: 10, Startup: 10 * time.Second, Wait: 500 * time.Millisecond, MaxReplicas: 5, Violations: 0.025}, 200 * time.Minute, single, 429, 0.05, 0.1, 39 * 300},
		// Ten in service all the time, on pods of 5.
		{"steady", clairvoyant.Problem{Concurrency: 5, Startup: 30 * time.Second, Wait: 500 * time.Millisecond, MaxReplicas: 5}, 2000 * time.Second, steady, 2*2000 + 60, 0.03, 0.03, -1},
		{"start at once", clairvoyant.Problem{Concurrency: 5, Wait: 0, MaxReplicas: 5}, 2000 * time.Second, steady, 2 * 2000, 0.03, 0.03, 2 * 2000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := bound(t, tt.c, tt.length, opener(tt.requests))
			t.Logf("%+v", b)
			if p := b.Prewarmed; p.Lower > tt.want+1e-6 || p.Lower < tt.want*(1-tt.slackL) || !p.Found || p.Feasible < tt.want-1e-6 || p.Feasible > tt.want*(1+tt.over) {
				t.Errorf("prewarmed = %+v, want about %v", p, tt.want)
			}
			switch r := b.Reactive; {
			case tt.reactive < 0 && r.Found:
				t.Errorf("reactive = %+v, want none", r)
			case tt.reactive >= 0 && (!r.Found || r.Feasible < tt.reactive*0.97 || r.Feasible > tt.reactive*1.03 || r.Lower > tt.reactive*1.03):
				t.Errorf("reactive = %+v, want about %v", r, tt.reactive)
			}
		})
	}
}

// load makes Poisson-like arrivals with exponential service times drawn along, the same at each
// opening.
type load struct {
	trace.Arrivals
	rng  *rand.Rand
	mean float64
}

// Read implements trace.Arrivals.
func (l *load) Read(dst []trace.Request) int {
	n := l.Arrivals.Read(dst)
	for i := range dst[:n] {
		dst[i].Service = max(time.Duration(l.rng.ExpFloat64()*l.mean*1e9), 1)
	}
	return n
}

func generated(tb testing.TB, spec string, mean float64) (time.Duration, func() trace.Arrivals) {
	tb.Helper()
	s, err := trace.Generate(spec)
	if err != nil {
		tb.Fatal(err)
	}
	return s.Length(), func() trace.Arrivals { return &load{s.Open(seeded(1)), seeded(2), mean} }
}

// How close the bounds are on loads of the usual kinds, and how long it takes.
func TestBoundsAreClose(t *testing.T) {
	for _, tt := range []struct {
		spec    string
		service float64
		startup time.Duration
		slots   int
		ratio   float64
	}{
		{"sparse:idle=pareto:5m,1.5,burst=3,duration=1d", 0.2, 10 * time.Second, 10, 1.25},
		{"sparse:idle=pareto:5m,1.5,burst=3,duration=1d", 0.2, 100 * time.Millisecond, 10, 2.5},
		{"poisson:rate=0.5,duration=4h", 0.2, 10 * time.Second, 1, 1.15},
		{"poisson:rate=50,duration=20m", 0.5, 10 * time.Second, 10, 1.35},
		{"diurnal:mean=50,amplitude=0.9,duration=40m,period=20m,cv=2", 1, 10 * time.Second, 10, 1.3},
		{"mmpp:rates=5/100,holds=60s/10s,duration=30m", 0.2, 60 * time.Second, 10, 1.4},
		{"mmpp:rates=5/100,holds=60s/10s,duration=30m", 0.2, time.Second, 1, 1.5},
		{"poisson:rate=0.2,duration=4h", 30, time.Minute, 1, 1.4},
	} {
		c := clairvoyant.Problem{Concurrency: tt.slots, Startup: tt.startup, Wait: 500 * time.Millisecond, Violations: 0.01, MaxReplicas: 200, Steps: 1 << 15}
		length, open := generated(t, tt.spec, tt.service)
		began := time.Now()
		b := bound(t, c, length, open)
		p := b.Prewarmed
		t.Logf("%s, start-up %v, %d slots: work %.0f, lower %.0f, feasible %.0f (× %.3f, violated %d of %d, starts %d, peak %d); reactive lower %.0f, feasible %.0f; %v",
			tt.spec, tt.startup, tt.slots, b.Work, p.Lower, p.Feasible, p.Feasible/p.Lower, p.Violated, b.Requests, p.Starts, p.Peak, b.Reactive.Lower, b.Reactive.Feasible, time.Since(began).Round(time.Millisecond))
		if !p.Found || p.Feasible < p.Lower || p.Feasible > tt.ratio*p.Lower || float64(p.Violated) > 0.01*float64(b.Requests) {
			t.Errorf("bounds %+v, want within × %v", p, tt.ratio)
		}
		if b.Reactive.Found && b.Reactive.Feasible < b.Reactive.Lower {
			t.Errorf("reactive %+v", b.Reactive)
		}
	}
}

func TestBoundErrors(t *testing.T) {
	good := clairvoyant.Problem{Concurrency: 1, MaxReplicas: 1}
	ok := opener([]trace.Request{{At: 0, Service: time.Second}})
	for name, tt := range map[string]struct {
		c      clairvoyant.Problem
		length time.Duration
		open   func() trace.Arrivals
		want   string
	}{
		"settings":      {clairvoyant.Problem{Startup: -1, Wait: -1, Violations: math.NaN(), Replays: -1}, time.Second, ok, "concurrency = 0"},
		"share":         {clairvoyant.Problem{Concurrency: 1, MaxReplicas: 1, Violations: 1}, time.Second, ok, "violations = 1"},
		"length":        {good, 0, ok, "length"},
		"no service":    {good, time.Second, opener([]trace.Request{{At: 0}}), "service time > 0"},
		"out of order":  {good, time.Minute, opener([]trace.Request{{At: 2, Service: 1}, {At: 1, Service: 1}}), "in order"},
		"after the end": {good, time.Second, opener([]trace.Request{{At: time.Second, Service: 1}}), "in order"},
	} {
		_, err := tt.c.Bound(t.Context(), tt.length, tt.open)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := good.Bound(ctx, time.Second, ok); err == nil {
		t.Error("cancelled: no error")
	}
	// Two pods are needed at once, and one is allowed.
	both := []trace.Request{{At: 0, Service: time.Minute}, {At: time.Second, Service: time.Minute}}
	if b := bound(t, good, time.Minute, opener(both)); b.Prewarmed.Found || b.Reactive.Found || b.Prewarmed.Lower < 100 {
		t.Errorf("not enough pods: %+v", b)
	}
	b := bound(t, good, time.Second, opener(nil))
	if b != (clairvoyant.Bounds{Prewarmed: clairvoyant.Schedule{Found: true}, Reactive: clairvoyant.Schedule{Found: true}}) {
		t.Errorf("no requests: %+v", b)
	}
}
