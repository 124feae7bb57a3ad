package staffing_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/sluice-autoscaler/sluice/algorithms/staffing"
)

// queued is the share of the time until span, at the instants that WaitShareWithin looks at, in
// which more than c·t wait at c servers that were all busy at first, by the equations of the M/M/c
// queue.
func queued(c int, a, t, span float64) float64 {
	p := make([]float64, 6*c)
	p[c] = 1
	next := make([]float64, len(p))
	const steps = 8000
	dt := span / steps
	sum := 0.0
	for i := range steps {
		for n := range p {
			next[n] = p[n]
			if n < len(p)-1 {
				next[n] += dt * (float64(min(n+1, c))*p[n+1] - a*p[n])
			}
			if n > 0 {
				next[n] += dt * (a*p[n-1] - float64(min(n, c))*p[n])
			}
		}
		p, next = next, p
		if (i+1)%(steps/4) == steps/8 {
			for n := range p {
				if float64(n-c) > t*float64(c) {
					sum += p[n] / 4
				}
			}
		}
	}
	return sum
}

// The queue of a short while, as the equations have it: a load above c included.
func TestWaitShareWithin(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		c                     int
		a, wait, span, within float64
	}{
		{c: 50, a: 50, wait: 0.5, span: 2, within: 0.05},
		{c: 50, a: 60, wait: 0.5, span: 2, within: 0.07},
		{c: 50, a: 75, wait: 0.5, span: 1, within: 0.07},
		{c: 20, a: 40, wait: 0.5, span: 2, within: 0.07},
		{c: 50, a: 47, wait: 0.2, span: 8, within: 0.1},
	} {
		near(t, "share", staffing.WaitShareWithin(float64(v.c), v.a, v.wait, v.span, 1), queued(v.c, v.a, v.wait, v.span), v.within)
	}
	for _, a := range []float64{60, 80, 95} {
		near(t, "share for ever", staffing.WaitShareWithin(100, a, 0.1, 1e7, 1), staffing.WaitShare(100, a, 0.1), 1e-3)
	}
	near(t, "overload for ever", staffing.WaitShareWithin(100, 101, 0.5, 1e6, 1), 1, 1e-3)
	near(t, "no load", staffing.WaitShareWithin(100, 0, 0.5, 10, 1), 0, 0)
}

// A share never leaves 0–1, and grows with load, time and peakedness.
func TestWaitShareWithinProperties(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(8, 8))
	for range 20000 {
		c, wait := math.Exp(r.Float64()*9), math.Exp(r.Float64()*8-6)
		a, span, burst := c*(0.3+1.5*r.Float64()), math.Exp(r.Float64()*14-7), 1+20*r.Float64()*r.Float64()
		p := staffing.WaitShareWithin(c, a, wait, span, burst)
		if !(p >= 0 && p <= 1) {
			t.Fatalf("WaitShareWithin(%v, %v, %v, %v, %v) = %v", c, a, wait, span, burst, p)
		}
		for _, q := range []float64{
			staffing.WaitShareWithin(c, a*1.01, wait, span, burst), staffing.WaitShareWithin(c, a, wait, span*1.1, burst),
		} {
			if q < p-1e-3 {
				t.Fatalf("WaitShareWithin(%v, %v, %v, %v, %v) falls from %v to %v", c, a, wait, span, burst, p, q)
			}
		}
		if q := staffing.WaitShareWithin(c, a, wait, span, burst*1.5); a < c && burst > 1.01 && q < p-1e-3 {
			t.Fatalf("WaitShareWithin(%v, %v, %v, %v, %v) falls from %v to %v with peakedness", c, a, wait, span, burst, p, q)
		}
	}
}
