package lookahead_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/lookahead"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
)

// The first readings of requests in service are low, since they have only begun: no pod is taken
// away by them, as long as another one would take to start.
func TestFirstReadings(t *testing.T) {
	t.Parallel()
	p := policy(t, nil)
	now := policytest.Epoch()
	for i := range 60 {
		load := 70 * (1 - math.Exp(-float64(i)/3))
		if d := at(p, now, load, 9, 9, time.Minute); d.Replicas < 9 || d.Next != time.Second {
			t.Fatalf("%d s after the first reading, at a load of %.0f: %+v, want 9 pods or more, asked again in 1s", i, load, d)
		}
		now = now.Add(time.Second)
	}
	for range 600 {
		at(p, now, 20, 9, 9, time.Minute)
		now = now.Add(time.Second)
	}
	if d := at(p, now, 20, 9, 9, time.Minute); d.Replicas > 5 {
		t.Errorf("ten minutes later, at a load of 20: %+v", d)
	}
}

// swings is a load around mean whose readings are as far from it as a share says, each on its own.
func swings(r *rand.Rand, mean, share float64) float64 { return max(mean*(1+share*r.NormFloat64()), 0) }

// Readings that swing, each on its own, say nothing of the next: the forecast does not follow them,
// for all that the first ones were wrong by far more.
func TestSwingsAreNotFollowed(t *testing.T) {
	t.Parallel()
	p := policy(t, nil)
	r := rand.New(rand.NewPCG(5, 5))
	now := policytest.Epoch()
	for range 60 {
		at(p, now, 900, 12, 12, 15*time.Second)
		now = now.Add(time.Second)
	}
	sum, squares, n := 0.0, 0.0, 0.0
	for i := range 3600 {
		d := at(p, now, swings(r, 80, 0.35), 12, 12, 15*time.Second)
		if i > 3000 {
			y := term(t, d, "forecast")
			sum, squares, n = sum+y, squares+y*y, n+1
		}
		now = now.Add(time.Second)
	}
	if sd := math.Sqrt(squares/n - sum/n*sum/n); sd > 5 {
		t.Errorf("forecasts of a load of 80 ± 28 swing by ± %.1f", sd)
	}
}

// A flash crowd is answered at once though an hour of swings has taught to look at the mean of
// minutes.
func TestFlashAfterSwings(t *testing.T) {
	t.Parallel()
	p := policy(t, nil)
	r := rand.New(rand.NewPCG(6, 6))
	now := policytest.Epoch()
	for range 3600 {
		at(p, now, swings(r, 20, 0.3), 4, 4, 15*time.Second)
		now = now.Add(time.Second)
	}
	for i := range 3 {
		d := at(p, now, 90, 9, 9, 15*time.Second)
		if i == 2 && term(t, d, "forecast") < 80 {
			t.Errorf("3 s after a jump to 90: %+v", d)
		}
		now = now.Add(time.Second)
	}
}

// mean is the mean count of p's answers to a load each second, all carried out at once, from the
// from-th of so many on.
func mean(p *lookahead.Policy, current int, start time.Duration, steps, from int, load func() float64) float64 {
	now, sum := policytest.Epoch(), 0
	for i := range steps {
		current = at(p, now, load(), current, current, start).Replicas
		if i >= from {
			sum += current
		}
		now = now.Add(time.Second)
	}
	return float64(sum) / float64(steps-from)
}

// pods is the mean count for a load that is carried at once, and whose readings are burst times
// further from each other than Poisson ones, squared.
func pods(t *testing.T, start time.Duration, burst float64) float64 {
	t.Helper()
	p := policy(t, nil)
	r := rand.New(rand.NewPCG(7, 7))
	return mean(p, 12, start, 5400, 3600, func() float64 { return max(100+(poisson(r, 100)-100)*math.Sqrt(burst), 1) })
}

// What arrives in bursts needs more pods than what Poisson's arrivals need, and more so where a
// start takes long: a queue of a second is worked off by pods that come in the next.
func TestBurstsAndStarts(t *testing.T) {
	t.Parallel()
	calm, bursty := pods(t, 30*time.Second, 1), pods(t, 30*time.Second, 6)
	if bursty < calm+0.5 {
		t.Errorf("%.2f pods for arrivals in bursts, %.2f for Poisson's", bursty, calm)
	}
	if quick := pods(t, 0, 6); quick > bursty-0.3 {
		t.Errorf("%.2f pods where they start at once, %.2f where they take half a minute", quick, bursty)
	}
}
