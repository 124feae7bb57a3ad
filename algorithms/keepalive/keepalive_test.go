package keepalive_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/keepalive"
)

func near(t *testing.T, what string, got, want, tol float64) {
	t.Helper()
	if math.Abs(got-want) > tol {
		t.Errorf("%s = %v, want %v ± %v", what, got, want, tol)
	}
}

func TestBreakEven(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		r, cold float64
		want    time.Duration
	}{
		{1, 60, time.Minute},
		{2, 1, 500 * time.Millisecond},
		{0, 1, keepalive.Forever},
		{1, 0, 0},
		{0, 0, 0},
		{1e-300, 1e300, keepalive.Forever},
		{1, math.NaN(), 0},
	} {
		if got := keepalive.BreakEven(c.r, c.cold); got != c.want {
			t.Errorf("BreakEven(%v, %v) = %v, want %v", c.r, c.cold, got, c.want)
		}
	}
}

// cost of keeping for keep when the next request comes after idle.
func cost(keep, idle time.Duration, idlePerSecond, coldStart float64) float64 {
	if idle <= keep {
		return idlePerSecond * idle.Seconds()
	}
	return idlePerSecond*keep.Seconds() + coldStart
}

// optimum is the least cost in hindsight: the lesser of keeping and one cold start.
func optimum(idle time.Duration, idlePerSecond, coldStart float64) float64 {
	return min(idlePerSecond*idle.Seconds(), coldStart)
}

// Idle times just over τ are the worst for the deterministic rule: twice the optimum, and never
// more.
func TestDeterministicIsWithinTwo(t *testing.T) {
	t.Parallel()
	const r, cold = 1.0, 60.0
	tau := keepalive.BreakEven(r, cold)
	over := tau + time.Nanosecond
	near(t, "worst ratio", cost(tau, over, r, cold)/optimum(over, r, cold), 2, 1e-8)
	rng := rand.New(rand.NewPCG(3, 4))
	for range 1000 {
		idle := time.Duration(1 + rng.Int64N(int64(5*tau)))
		if ratio := cost(tau, idle, r, cold) / optimum(idle, r, cold); ratio > 2+1e-9 {
			t.Fatalf("idle %v: ratio %v > 2", idle, ratio)
		}
	}
}
