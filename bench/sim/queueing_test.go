package sim_test

import (
	"fmt"
	"math"
	"os"
	"testing"

	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
)

// erlangC is the probability of waiting in M/M/c with offered load a, by the recursion of the
// Erlang B formula.
func erlangC(c int, a float64) float64 {
	b := 1.0
	for k := 1; k <= c; k++ {
		b = a * b / (float64(k) + a*b)
	}
	rho := a / float64(c)
	return b / (1 - rho*(1-b))
}

// waits runs the same queue under several seeds and returns the mean of the waits and the half
// width of its 95 % interval (Student's t with 7 degrees of freedom).
func waits(t *testing.T, generator string, edit func(*scenario.Scenario), servers int, pick func(score.Result) float64) (mean, half float64) {
	t.Helper()
	const seeds = 8
	var v [seeds]float64
	for s := range v {
		v[s] = pick(run(t, uint64(s+1), generator, "fixed", fmt.Sprintf(`{"replicas":%d}`, servers), edit).Result)
		mean += v[s] / seeds
	}
	ss := 0.0
	for _, x := range v {
		ss += (x - mean) * (x - mean)
	}
	return mean, 2.365 * math.Sqrt(ss/(seeds-1)/seeds)
}

// long says that the closed forms are to be checked to 1 %, which takes minutes (make bench-check);
// else runs are a twenty-fifth as long, and theory must be within five percent and within the 99.9
// % interval.
func long() bool { return os.Getenv("SLUICE_LONG") != "" }

// near checks a mean wait against theory.
func near(t *testing.T, seconds float64, arrivals string, edit func(*scenario.Scenario), servers int, want float64, pick func(score.Result) float64) {
	t.Helper()
	tolerance, student := 0.01, 1.0
	if !long() {
		seconds, tolerance, student = seconds/25, 0.05, 5.408/2.365
	}
	got, half := waits(t, fmt.Sprintf("%s,duration=%gs", arrivals, seconds), edit, servers, pick)
	t.Logf("%.5f ± %.5f, by theory %.5f (%+.2f %%)", got, half, want, 100*(got/want-1))
	if math.Abs(got/want-1) > tolerance || math.Abs(got-want) > student*half {
		t.Errorf("got %v ± %v, want %v: within %v and within the interval", got, half, want, tolerance)
	}
}

func meanWait(r score.Result) float64 { return r.WaitMean }

func TestErlangC(t *testing.T) {
	t.Parallel()
	for _, q := range []struct {
		c          int
		a, seconds float64
	}{{1, 0.5, 800_000}, {2, 1, 800_000}, {5, 4, 700_000}, {10, 8, 600_000}, {100, 90, 400_000}} {
		t.Run(fmt.Sprintf("M/M/%d", q.c), func(t *testing.T) {
			t.Parallel()
			want := erlangC(q.c, q.a) / (float64(q.c) - q.a)
			near(t, q.seconds, fmt.Sprintf("poisson:rate=%g", q.a), queue(t, "exp:1s", q.c), q.c, want, meanWait)
		})
	}
}

// In M/D/1 the mean wait is ρS / 2(1 − ρ) (Pollaczek and Khinchine).
func TestConstantService(t *testing.T) {
	t.Parallel()
	near(t, 800_000, "poisson:rate=0.8", queue(t, "const:1s", 1), 1, 0.8/(2*(1-0.8)), meanWait)
}

// In M/M/c/K a request that finds K in the system is lost: the share p_K of the birth-death chain.
func TestLoss(t *testing.T) {
	t.Parallel()
	const c, k, a = 5, 8, 4.0
	weight, sum, last := 1.0, 1.0, 0.0
	for n := 1; n <= k; n++ {
		weight *= a / math.Min(float64(n), c)
		sum, last = sum+weight, weight
	}
	edit := queue(t, "exp:1s", c)
	near(t, 400_000, fmt.Sprintf("poisson:rate=%g", a), func(s *scenario.Scenario) {
		edit(s)
		s.HoldRequests = k - c
	}, c, last/sum, func(r score.Result) float64 { return float64(r.Lost) / float64(r.Requests) })
}
