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

// Idle times just over τ are the worst for the deterministic rule: twice the optimum, and never more.
func TestDeterministicIsWithinTwo(t *testing.T) {
	t.Parallel()
	const r, cold = 1.0, 60.0
	tau := keepalive.BreakEven(r, cold)
	over := tau + time.Nanosecond
	near(t, "worst ratio", keepalive.Cost(tau, over, r, cold)/keepalive.Optimum(over, r, cold), 2, 1e-8)
	rng := rand.New(rand.NewPCG(3, 4))
	for range 1000 {
		idle := time.Duration(1 + rng.Int64N(int64(5*tau)))
		if ratio := keepalive.Cost(tau, idle, r, cold) / keepalive.Optimum(idle, r, cold); ratio > 2+1e-9 {
			t.Fatalf("idle %v: ratio %v > 2", idle, ratio)
		}
	}
}

// The random schedule costs e/(e−1) of the optimum at every idle time: values of field/algorithms.md (i).
func TestRandomizedRatio(t *testing.T) {
	t.Parallel()
	const r, cold, steps = 1.0, 100.0, 200_000
	tau := keepalive.BreakEven(r, cold)
	for _, share := range []float64{0.2, 0.7, 1, 3} {
		idle := time.Duration(share * float64(tau))
		sum := 0.0
		for i := range steps { // the mean over u by the midpoint rule
			sum += keepalive.Cost(keepalive.Randomized(tau, (float64(i)+0.5)/steps), idle, r, cold)
		}
		near(t, "ratio at "+idle.String(), sum/steps/keepalive.Optimum(idle, r, cold), 1.58198, 1e-4)
	}
}

func TestWithAdvice(t *testing.T) {
	t.Parallel()
	const r, cold, trust = 1.0, 60.0, 0.5
	tau := keepalive.BreakEven(r, cold)
	if got := keepalive.WithAdvice(tau, 2*tau, trust); got != tau/2 {
		t.Errorf("a long idle time foretold: keep %v, want τ/2", got)
	}
	if got := keepalive.WithAdvice(tau, tau/2, trust); got != 2*tau {
		t.Errorf("a short idle time foretold: keep %v, want 2τ", got)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		idle, told := time.Duration(1+rng.Int64N(int64(6*tau))), time.Duration(rng.Int64N(int64(6*tau)))
		opt := keepalive.Optimum(idle, r, cold)
		if ratio := keepalive.Cost(keepalive.WithAdvice(tau, told, trust), idle, r, cold) / opt; ratio > 1+1/trust+1e-9 {
			t.Fatalf("idle %v, foretold %v: ratio %v over the robustness bound %v", idle, told, ratio, 1+1/trust)
		}
		if ratio := keepalive.Cost(keepalive.WithAdvice(tau, idle, trust), idle, r, cold) / opt; ratio > 1+trust+1e-9 {
			t.Fatalf("idle %v foretold rightly: ratio %v over the consistency bound %v", idle, ratio, 1+trust)
		}
	}
}

func TestBestAgainstSearch(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 8))
	for range 200 {
		idles := make([]time.Duration, 1+rng.IntN(12))
		for i := range idles {
			idles[i] = time.Duration(rng.IntN(20)) * time.Second
		}
		cold := float64(rng.IntN(30))
		cost := func(keep time.Duration) (sum float64) {
			for _, it := range idles {
				sum += keepalive.Cost(keep, it, 1, cold)
			}
			return sum
		}
		got := cost(keepalive.Best(idles, 1, cold))
		for keep := time.Duration(0); keep <= 21*time.Second; keep += 500 * time.Millisecond {
			if c := cost(keep); c < got-1e-9 {
				t.Fatalf("idles %v, cold start %v: keeping %v costs %v, less than Best's %v", idles, cold, keep, c, got)
			}
		}
	}
	if got := keepalive.Best(nil, 1, 1); got != 0 {
		t.Errorf("Best of nothing = %v", got)
	}
}

func TestExponential(t *testing.T) {
	t.Parallel()
	if got := keepalive.Exponential(time.Minute, 1, 61); got != keepalive.Forever {
		t.Errorf("a cold start dearer than the mean idle time: keep %v, want for ever", got)
	}
	if got := keepalive.Exponential(time.Minute, 1, 59); got != 0 {
		t.Errorf("a cold start cheaper than the mean idle time: keep %v, want 0", got)
	}
}
