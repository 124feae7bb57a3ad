package summary_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/summary"
)

func result(policy, trace string, seed uint64, pods, violations float64, cold int64) score.Result {
	return score.Result{Policy: policy, Trace: trace, Scenario: "s", Seed: seed, PodSeconds: pods, SLOViolations: violations, ColdStarts: cold}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	rows := summary.Compare([]score.Result{
		result("kpa", "a", 1, 100, 0.02, 4),
		result("kpa", "a", 2, 200, 0.04, 0),
		result("own", "a", 1, 50, 0.01, 1),
		result("own", "a", 2, 50, 0.01, 1),
		result("own", "a", 3, 999, 0.5, 1), // the baseline lacks this seed
		result("kpa", "b", 1, 10, 0, 0),
		result("own", "b", 1, 20, 0, 3),
	}, "kpa")
	if len(rows) != 4 {
		t.Fatalf("%d rows, want 4", len(rows))
	}
	own := rows[1]
	if own.Policy != "own" || own.Seeds != 3 {
		t.Fatalf("row 1 is %+v", own)
	}
	near := func(name string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-4*math.Max(1, math.Abs(want)) {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
	near("mean", rows[0].Mean["podSeconds"].Mean, 150)
	near("low", rows[0].Mean["podSeconds"].Low, 150-12.7062*50)
	// By hand: the ratios are 1/2 and 1/4, their logarithms' mean −ln √8, their standard error
	// ln(2)/2.
	r := own.Ratio["podSeconds"]
	near("ratio", r.Mean, 1/math.Sqrt(8))
	near("ratio high", r.High, math.Exp(-math.Log(math.Sqrt(8))+12.7062*math.Ln2/2))
	near("cold starts, with a zero: the means' ratio", own.Ratio["coldStarts"].Mean, 0.5)
	near("its low bound, cut off at 0", own.Ratio["coldStarts"].Low, 0)
	near("difference", own.Delta["sloViolations"].Mean, -0.02)
	if _, ok := rows[3].Ratio["coldStarts"]; ok {
		t.Error("a ratio to nothing is there")
	}
	over := summary.OverTraces(rows)
	if len(over) != 2 || over[1].Traces != 2 {
		t.Fatalf("over traces: %+v", over)
	}
	near("geometric mean", over[1].Ratio["podSeconds"].Mean, math.Sqrt(2/math.Sqrt(8)))
	near("worst", over[1].Worst, (0.01+0.01+0.5)/3)
	if diff := cmp.Diff([]summary.Front{{Trace: "a", Scenario: "s", Policies: []string{"kpa"}}, {Trace: "b", Scenario: "s", Policies: []string{"kpa"}}}, summary.Fronts(rows)); diff != "" {
		t.Errorf("fronts (-want +got):\n%s", diff)
	}
}

// TestFront checks the front against the definition on random points.
func TestFront(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var results []score.Result
		for i := range 1 + rng.IntN(12) {
			results = append(results, result(fmt.Sprint("p", i), "t", 1, float64(rng.IntN(6)), float64(rng.IntN(6))/10, 0))
		}
		want := map[string]bool{}
		for _, a := range results {
			beaten := false
			for _, b := range results {
				if b.PodSeconds <= a.PodSeconds && b.SLOViolations <= a.SLOViolations && (b.PodSeconds < a.PodSeconds || b.SLOViolations < a.SLOViolations) {
					beaten = true
				}
			}
			if !beaten {
				want[a.Policy] = true
			}
		}
		got := map[string]bool{}
		for _, p := range summary.Fronts(summary.Compare(results, ""))[0].Policies {
			got[p] = true
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("front of %+v (-want +got):\n%s", results, diff)
		}
	}
}

// TestIntervalCovers checks that 95 % intervals hold the true ratio 95 times in 100.
func TestIntervalCovers(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	for _, seeds := range []uint64{2, 5, 15} {
		const rounds = 250
		hits := 0
		for range rounds {
			var results []score.Result
			for trace := range 3 {
				for seed := range seeds {
					load := math.Exp(rng.NormFloat64())
					results = append(results, result("base", fmt.Sprint(trace), seed, load, 0, 0), result("own", fmt.Sprint(trace), seed, load*0.8*math.Exp(0.1*rng.NormFloat64()), 0, 0))
				}
			}
			r := summary.OverTraces(summary.Compare(results, "base"))[1].Ratio["podSeconds"]
			if r.Low <= 0.8 && 0.8 <= r.High {
				hits++
			}
		}
		if share := float64(hits) / rounds; share < 0.90 || share > 0.999 {
			t.Errorf("with %d seeds the interval holds the truth in %.3f of all cases, want about 0.95", seeds, share)
		}
	}
}
