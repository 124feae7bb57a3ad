package lookahead_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/lookahead"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
)

// past is two days of a load of 20, in bins of a width, that is 90 in one of every twenty of them;
// hole leaves out what is around those.
func past(width time.Duration, hole bool) []algorithms.Sample {
	r := rand.New(rand.NewPCG(11, 11))
	var out []algorithms.Sample
	n := int(48 * time.Hour / width)
	jump := 0
	for i := range n {
		if i%20 == 0 {
			jump = 3 + r.IntN(14)
		}
		v, off := 20.0, i%20-jump
		if off == 0 {
			v = 90
		}
		if hole && off != 0 && off >= -2 && off <= 2 {
			continue
		}
		out = append(out, algorithms.Sample{At: policytest.Epoch().Add(time.Duration(i-n) * width), Signal: algorithms.Concurrency, Value: v})
	}
	return out
}

// settled is the mean count for a load of 20 in the first ten minutes after history was learnt, the
// first two left out.
func settled(t *testing.T, p *lookahead.Policy, start time.Duration) float64 {
	t.Helper()
	r := rand.New(rand.NewPCG(8, 8))
	return mean(p, 3, start, 600, 120, func() float64 { return poisson(r, 20) })
}

// A past in which the load jumped has pods kept for the next jump from the beginning, where pods
// take long to start; one whose bins are too wide to tell of jumps, or which does not show what was
// around them, has not.
func TestPastTeachesJumps(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		past   []algorithms.Sample
		start  time.Duration
		lo, hi float64
	}{
		{name: "nothing learnt", start: time.Minute, lo: 2, hi: 5},
		{name: "jumps between minutes", past: past(time.Minute, false), start: time.Minute, lo: 9, hi: 14},
		{name: "jumps between quarters of a minute", past: past(15*time.Second, false), start: time.Minute, lo: 9, hi: 14},
		{name: "pods that start within a second", past: past(time.Minute, false), start: time.Second, lo: 2, hi: 5},
		{name: "jumps between hours", past: past(time.Hour, false), start: time.Minute, lo: 2, hi: 5},
		{name: "jumps beside gaps", past: past(10*time.Minute, true), start: time.Minute, lo: 2, hi: 5},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := policy(t, func(c *lookahead.Config) { c.Seasonal = false })
			if err := p.Learn(test.past); err != nil {
				t.Fatal(err)
			}
			if got := settled(t, p, test.start); got < test.lo || got > test.hi {
				t.Errorf("%.2f pods for a load of 20, want %g–%g", got, test.lo, test.hi)
			}
		})
	}
}

// The past is read anew for the start-up time that is measured, and what was read is in snapshots.
func TestPastAndMeasuredStart(t *testing.T) {
	t.Parallel()
	quick := func(c *lookahead.Config) { c.Seasonal, c.StartUp = false, algorithms.Duration(time.Second) }
	p := policy(t, quick)
	if err := p.Learn(past(time.Minute, false)); err != nil {
		t.Fatal(err)
	}
	o := algorithms.Observation{Now: policytest.Epoch(), Limits: algorithms.Limits{Max: 100, PodConcurrency: 10}, Replicas: algorithms.Replicas{Current: 3, Ready: 3}}
	for _, need := range p.Needs() {
		o.Signals = append(o.Signals, algorithms.Signal{Name: need.Name, Window: need.Window, Value: 20, Known: true, Coverage: 1})
	}
	before := term(t, p.Decide(o), "errorsSeen")
	after := term(t, at(p, o.Now.Add(time.Second), 20, 3, 3, time.Minute), "errorsSeen")
	if before > 100 || after < 3600 {
		t.Errorf("%.0f s of errors with the start-up assumed, %.0f s once it was measured: want none that are of bins too wide, then hours", before, after)
	}
	restored := policy(t, quick)
	if err := restored.Restore(p.Snapshot()); err != nil {
		t.Fatal(err)
	}
	if got := settled(t, restored, time.Minute); got < 9 {
		t.Errorf("%.2f pods after a restart, want 9 at least", got)
	}
}

// Who is told the load has the pods for a jump when it comes, not later than a start before it, and
// keeps them until it is over.
func TestTold(t *testing.T) {
	t.Parallel()
	p := policy(t, func(c *lookahead.Config) { c.Seasonal = false })
	begin := policytest.Epoch()
	jump, end := begin.Add(10*time.Minute), begin.Add(15*time.Minute)
	load := func(at time.Time) float64 {
		if at.Before(jump) || !at.Before(end) {
			return 20
		}
		return 90
	}
	p.SetKnownLoad(load)
	const start = time.Minute
	for now, current := begin, 3; now.Before(end.Add(5 * time.Minute)); now = now.Add(time.Second) {
		current = at(p, now, load(now), current, current, start).Replicas
		switch {
		case now.Before(begin.Add(start)): // nothing is taken away
		case now.Before(jump.Add(-start - 2*time.Second)), now.After(end.Add(2 * start)):
			if current > 5 {
				t.Fatalf("%v after the beginning: %d pods for a load of 20", now.Sub(begin), current)
			}
		case now.After(jump.Add(-start)) && now.Before(end.Add(-time.Second)):
			if current < 9 {
				t.Fatalf("%v after the beginning: %d pods for a load of 90", now.Sub(begin), current)
			}
		}
	}
}

// What comes by the clock has its pods when it comes, and no pods are kept for it at other times;
// half of the times it does not come.
func TestByTheClock(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(10, 10))
	var days []algorithms.Sample
	const minutes = 3 * 24 * 60
	comes := false
	for i := range minutes {
		v := 20.0
		switch i % 60 {
		case 10:
			if comes = r.Float64() < 0.5; comes {
				v = 90
			}
		case 11, 12:
			if comes {
				v = 90
			}
		}
		days = append(days, algorithms.Sample{At: policytest.Epoch().Add(time.Duration(i+1-minutes) * time.Minute), Signal: algorithms.Concurrency, Value: v})
	}
	p := policy(t, func(c *lookahead.Config) { c.Seasonal = false })
	if err := p.Learn(days); err != nil {
		t.Fatal(err)
	}
	now, current := policytest.Epoch(), 3
	ready := minute{current}
	between, n := 0, 0
	for i := range 3 * 1800 { // in steps of 2 s
		load := 20.0
		due := i%1800 >= 10*30 && i%1800 < 13*30
		if due {
			load = 90
		}
		if i > 30 && i%1800 == 10*30 && ready.ready(current) < 9 {
			t.Errorf("%d pods when it comes for the %d. time, want 9 at least", ready.ready(current), i/1800+1)
		}
		d := at(p, now, load, current, ready.ready(current), time.Minute)
		current = d.Replicas
		ready.ask(current)
		if i > 30 && i%1800 == 10*30 && (term(t, d, "likelier") < 2 || !strings.Contains(d.Message, "likelier to come")) {
			t.Errorf("when it comes: %+v, want a word on why there are pods", d)
		}
		if m := i % 1800 / 30; m > 20 {
			between, n = between+current, n+1
		}
		now = now.Add(2 * time.Second)
	}
	if mean := float64(between) / float64(n); mean > 5 {
		t.Errorf("%.2f pods on average from twenty past to the full hour, for a load of 20", mean)
	}
}
