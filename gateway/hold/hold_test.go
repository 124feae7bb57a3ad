package hold_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-autoscaler/sluice/gateway/hold"
)

func limits() hold.Limits {
	return hold.Limits{MaxHeld: 1000, MaxHeldBytes: 1 << 20, PodConcurrency: 4, TerminatingGrace: time.Second}
}

func newQueue(l hold.Limits) *hold.Queue {
	return hold.New(l, hold.NewBudget(10_000).Share("shop", "web"), rand.New(rand.NewPCG(1, 2)))
}

func up(a string) hold.Endpoint { return hold.Endpoint{Address: a, Ready: true, Serving: true} }

// The integral equals the sum of what each request waited, whatever the order of events.
func TestIntegralAgainstTwin(t *testing.T) {
	const seed = 42
	r := rand.New(rand.NewPCG(seed, 0))
	var (
		exact  hold.Integral
		now    time.Duration
		begins []time.Duration
		ended  time.Duration // the twin: each request's own wait
	)
	for range 20000 {
		now += time.Duration(r.IntN(1_000_000_000))
		if len(begins) == 0 || r.IntN(2) == 0 {
			begins = append(begins, now)
			exact.Add(now, 1)
			continue
		}
		i := r.IntN(len(begins))
		ended += now - begins[i]
		begins = slices.Delete(begins, i, i+1)
		exact.Add(now, -1)
	}
	want := ended.Seconds()
	for _, b := range begins {
		want += (now - b).Seconds()
	}
	if got := exact.Seconds(now); math.Abs(got-want) > 1e-6*want {
		t.Errorf("integral = %v, want %v (seed %d)", got, want, seed)
	}
	if exact.Count() != len(begins) {
		t.Errorf("count = %d, want %d", exact.Count(), len(begins))
	}
}

func TestIntegralLastsForYears(t *testing.T) {
	var i hold.Integral
	i.Add(0, 10000)
	const year = 365 * 24 * time.Hour
	for y := range 50 {
		i.Add(time.Duration(y+1)*year, 0)
	}
	if got, want := i.Seconds(50*year), 10000*(50*year).Seconds(); got != want {
		t.Errorf("integral of 10000 over 50 years = %v, want %v", got, want)
	}
	if got := i.Seconds(0); got != 10000*(50*year).Seconds() {
		t.Errorf("time going backwards changed the integral to %v", got)
	}
}

// Requests held over a bubble's clock give their exact request-seconds.
func TestWaitingIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		q := newQueue(limits())
		now := func() time.Duration { return time.Since(begin) }
		a := q.Arrive(now(), 0)
		time.Sleep(3 * time.Second)
		b := q.Arrive(now(), 0)
		time.Sleep(500 * time.Millisecond)
		q.Leave(now(), b, hold.Canceled)
		time.Sleep(time.Second)
		q.Endpoints(now(), []hold.Endpoint{up("p:1")})
		time.Sleep(time.Hour)
		c := q.Counts(now())
		if c.WaitingSeconds != 5 || c.Waiting != 0 || a.State() != hold.Granted {
			t.Errorf("counts = %+v, want exactly 3 + 2·0.5 + 1 = 5 request-seconds", c)
		}
		// A pod that takes no connection leaves the request waiting: the attempt counts.
		q.Refused(now(), a)
		if c := q.Counts(now()); c.WaitingSeconds != 5+3600 || c.Waiting != 1 {
			t.Errorf("counts = %+v, want the hour of the failed attempt, and 1 waiting", c)
		}
	})
}

func TestReleaseIsFIFO(t *testing.T) {
	q := newQueue(limits())
	var all []*hold.Ticket
	for range 10 {
		all = append(all, q.Arrive(0, 0))
	}
	granted := func() (g []int) {
		for i, x := range all {
			if x.State() == hold.Granted {
				g = append(g, i)
			}
		}
		return g
	}
	q.Endpoints(1, []hold.Endpoint{up("p:1")})
	if g := granted(); !slices.Equal(g, []int{0, 1, 2, 3}) {
		t.Fatalf("granted %v, want the first four", g)
	}
	if late := q.Arrive(2, 0); late.State() != hold.Waiting {
		t.Errorf("a newcomer is %v, want waiting behind the others", late.State())
	}
	q.Connected(all[1])
	q.Finish(3, all[1])
	if g := granted(); !slices.Equal(g, []int{0, 2, 3, 4}) {
		t.Errorf("granted %v, want the fifth to follow the second", g)
	}
	// A refused one keeps its turn: it is first once another pod is there.
	q.Refused(4, all[0])
	q.Refused(4, all[3])
	q.Endpoints(5, []hold.Endpoint{up("p:1"), up("p:2")})
	if g := granted(); !slices.Equal(g, []int{0, 2, 3, 4, 5, 6}) {
		t.Errorf("granted %v, want the refused 0 and 3 before the rest", g)
	}
}

func TestPods(t *testing.T) {
	const addr = "p:1"
	tests := map[string]struct {
		steps []hold.Endpoint // one set of endpoints after another; none for an empty address
		at    time.Duration   // since the last
		grant bool
		probe bool
	}{
		"none":                       {steps: []hold.Endpoint{{}}},
		"ready":                      {steps: []hold.Endpoint{up(addr)}, grant: true},
		"starting":                   {steps: []hold.Endpoint{{Address: addr}}, probe: true},
		"became ready":               {steps: []hold.Endpoint{{Address: addr}, up(addr)}, grant: true},
		"says it is not ready":       {steps: []hold.Endpoint{up(addr), {Address: addr}}},
		"gone":                       {steps: []hold.Endpoint{up(addr), {}}},
		"terminating, serving":       {steps: []hold.Endpoint{up(addr), {Address: addr, Serving: true, Terminating: true}}, grant: true},
		"terminating for long":       {steps: []hold.Endpoint{up(addr), {Address: addr, Serving: true, Terminating: true}}, at: time.Second},
		"terminating, not serving":   {steps: []hold.Endpoint{up(addr), {Address: addr, Terminating: true}}},
		"terminating, never started": {steps: []hold.Endpoint{{Address: addr, Terminating: true}}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			q := newQueue(limits())
			for _, e := range tc.steps {
				if e.Address == "" {
					q.Endpoints(0, nil)
					continue
				}
				q.Endpoints(0, []hold.Endpoint{e})
			}
			x := q.Arrive(tc.at, 0)
			if got := x.State() == hold.Granted; got != tc.grant {
				t.Errorf("granted = %v, want %v", got, tc.grant)
			}
			if got := q.NeedsProbe(); got != tc.probe || (len(q.Probe()) > 0) != tc.probe {
				t.Errorf("probes %v, NeedsProbe %v, want %v", q.Probe(), got, tc.probe)
			}
			if tc.probe {
				q.Answered(tc.at, addr)
				if x.State() != hold.Granted {
					t.Error("not granted after the probe was answered")
				}
			}
		})
	}
}

func TestTerminatingIsTheLastResort(t *testing.T) {
	q := newQueue(limits())
	q.Endpoints(0, []hold.Endpoint{up("new:1"), {Address: "old:1", Serving: true, Terminating: true}})
	for range 4 {
		if x := q.Arrive(0, 0); x.Address() != "new:1" || x.Fresh() {
			t.Errorf("request went to %q", x.Address())
		}
	}
	if x := q.Arrive(0, 0); x.State() != hold.Waiting {
		t.Errorf("request went to %q, want it to wait for the ready pod", x.Address())
	}
}

// No pod ever has more than its limit, loads stay close, nothing is lost, and the counters add up:
// random events against plain bookkeeping.
func TestRandomEventsAgainstTwin(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		l := limits()
		l.MaxHeld = 30
		budget := hold.NewBudget(25)
		q := hold.New(l, budget.Share("shop", "web"), rand.New(rand.NewPCG(seed, 2)))
		var open []*hold.Ticket
		counts := map[hold.State]int{}
		now := time.Duration(0)
		for range 5000 {
			now += time.Duration(r.IntN(1e6))
			switch op := r.IntN(10); {
			case op < 4:
				open = append(open, q.Arrive(now, 10))
			case op == 4:
				var eps []hold.Endpoint
				for i := range r.IntN(5) {
					eps = append(eps, hold.Endpoint{Address: fmt.Sprint("p:", i), Ready: r.IntN(2) == 0, Serving: true, Terminating: r.IntN(4) == 0})
				}
				q.Endpoints(now, eps)
			case op == 5:
				for _, a := range q.Probe() {
					q.Answered(now, a)
				}
			case op == 6 && r.IntN(10) == 0:
				l.PodConcurrency = 1 + r.IntN(6)
				l.Failure = []string{"", "broken"}[r.IntN(2)]
				q.Limit(now, l)
			case len(open) > 0:
				x := open[r.IntN(len(open))]
				switch x.State() {
				case hold.Waiting:
					q.Leave(now, x, []hold.State{hold.Expired, hold.Canceled}[r.IntN(2)])
				case hold.Granted:
					if r.IntN(3) == 0 {
						q.Refused(now, x)
					} else {
						q.Connected(x)
					}
				case hold.Connected:
					q.Finish(now, x)
				default:
				}
			}
			waiting, flying := 0, 0
			kept := open[:0]
			for _, x := range open {
				switch x.State() {
				case hold.Waiting:
					waiting++
				case hold.Granted, hold.Connected:
					flying++
				default:
					counts[x.State()]++
					continue
				}
				kept = append(kept, x)
			}
			open = kept
			c := q.Counts(now)
			if c.Waiting != waiting || c.Forwarding != flying || budget.Used() != int64(waiting) {
				t.Fatalf("seed %d: counts = %+v, budget %d, want %d waiting, %d forwarding", seed, c, budget.Used(), waiting, flying)
			}
			if int(c.Expired) != counts[hold.Expired] || int(c.Canceled) != counts[hold.Canceled] || int(c.Rejected) != counts[hold.Rejected] {
				t.Fatalf("seed %d: counts = %+v, want %v", seed, c, counts)
			}
			if int(c.Arrived) != waiting+flying+counts[hold.Done]+counts[hold.Expired]+counts[hold.Canceled]+counts[hold.Rejected] {
				t.Fatalf("seed %d: %d arrived, but %v, %d waiting, %d forwarding", seed, c.Arrived, counts, waiting, flying)
			}
			if c.Waiting > 0 && l.Failure != "" && c.ReadyPods == 0 {
				t.Fatalf("seed %d: %d wait for pods that cannot start", seed, c.Waiting)
			}
		}
	}
}

func TestSpreadsAndPaces(t *testing.T) {
	l := limits()
	l.PodConcurrency = 100
	q := newQueue(l)
	var all []*hold.Ticket
	for range 700 {
		all = append(all, q.Arrive(0, 0))
	}
	var eps []hold.Endpoint
	for i := range 10 {
		eps = append(eps, up(fmt.Sprint("p:", i)))
	}
	q.Endpoints(1, eps)
	load := map[string]int{}
	for _, x := range all {
		load[x.Address()]++
	}
	for _, e := range eps {
		// Two choices keep 700 over 10 within a few of 70; one random choice would not.
		if n := load[e.Address]; n < 62 || n > 78 {
			t.Errorf("%s has %d of 700 requests, want about 70: %v", e.Address, n, load)
		}
	}
	for range 300 {
		q.Arrive(2, 0)
	}
	if x := q.Arrive(3, 0); x.State() != hold.Waiting {
		t.Error("request 1001 was granted, want 10 pods · 100 and no more")
	}
}

func TestColdStart(t *testing.T) {
	q := newQueue(limits())
	var seen []hold.ColdStart
	q.OnColdStart = func(c hold.ColdStart) { seen = append(seen, c) }
	q.Arrive(10, 0)
	q.Arrive(20, 0)
	q.Endpoints(30, []hold.Endpoint{{Address: "p:1"}})
	q.Answered(40, "p:1")
	want := hold.ColdStart{Detected: 10, Answering: 40, Released: 40, Pod: "p:1", Held: 2}
	if c := q.Counts(50).ColdStart; c == nil || *c != want || len(seen) != 1 || seen[0] != want {
		t.Errorf("cold start = %+v, told %+v, want %+v", c, seen, want)
	}
	// Waiting for a place is no cold start.
	for range 10 {
		q.Arrive(60, 0)
	}
	if c := q.Counts(70).ColdStart; *c != want {
		t.Errorf("cold start = %+v, want %+v still", c, want)
	}
}

func TestArriveAllocates(t *testing.T) {
	q := newQueue(limits())
	q.Endpoints(0, []hold.Endpoint{up("p:1"), up("p:2")})
	n := testing.AllocsPerRun(1000, func() {
		x := q.Arrive(0, 100)
		q.Connected(x)
		q.Finish(0, x)
	})
	if n > 2 { // the ticket and its channel
		t.Errorf("%v allocations a request, want at most 2", n)
	}
}
