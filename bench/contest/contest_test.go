package contest_test

import (
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluice-autoscaler/sluice/bench/contest"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/summary"
)

func result(policy, trace string, pods, violations float64, cold int64) score.Result {
	return score.Result{Policy: policy, Trace: trace, Scenario: "s", Seed: 1, PodSeconds: pods, SLOViolations: violations, ColdStarts: cold}
}

func TestJudgePutsLossesFirst(t *testing.T) {
	t.Parallel()
	rows := summary.Compare([]score.Result{
		result("own", "won", 50, 0.005, 0), result("kpa", "won", 100, 0.005, 0), result("hpa", "won", 80, 0.2, 0),
		result("own", "dear", 120, 0.005, 0), result("kpa", "dear", 100, 0.005, 0),
		result("own", "late", 50, 0.3, 0), result("kpa", "late", 100, 0.005, 0),
		result("own", "even", 100, 0.02, 0), result("kpa", "even", 100, 0.03, 0), result("hpa", "even", 90, 0.4, 0),
		result("kpa", "missing", 100, 0.03, 0),
	}, "")
	type line struct {
		Trace, Rival string
		Lost         bool
	}
	var got []line
	for _, v := range contest.Judge(rows, contest.Contest{Subject: "own", Rivals: []string{"kpa", "hpa"}, Budget: 0.01}) {
		got = append(got, line{v.Trace, v.Rival, v.Lost})
	}
	want := []line{{"late", "kpa", true}, {"dear", "kpa", true}, {"even", "kpa", false}, {"won", "kpa", false}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
}

func TestStandings(t *testing.T) {
	t.Parallel()
	in := func(scenario string, results ...score.Result) []score.Result {
		for i := range results {
			results[i].Scenario = scenario
		}
		return results
	}
	rows := summary.Compare(slices.Concat(
		in("quick",
			result("own", "a", 50, 0.005, 1), result("kpa", "a", 100, 0.005, 4), result("hpa", "a", 80, 0.2, 0), result("clairvoyant", "a", 40, 0, 0),
			result("own", "b", 200, 0.005, 2), result("kpa", "b", 100, 0.005, 8), result("clairvoyant", "b", 50, 0, 0)),
		in("slow",
			result("own", "a", 50, 0.3, 3), result("kpa", "a", 100, 0.005, 0), result("kpa", "missing", 100, 0.03, 0)),
	), "")
	match := contest.Contest{Subject: "own", Rivals: []string{"kpa", "hpa"}, Bound: "clairvoyant", Budget: 0.01}
	nan := math.NaN()
	want := []contest.Standing{
		{Scenario: "quick", Traces: 2, Lost: 1, Ratio: 1, First: 1, ToBound: math.Sqrt(5), RivalToBound: math.Sqrt(5), Kept: 2, KeptRatio: 1, KeptToBound: math.Sqrt(5), RivalsKept: []int{2, 0}, ColdStarts: 0.25},
		{Scenario: "slow", Traces: 1, Lost: 1, Over: 1, Ratio: 0.5, First: 0.5, ToBound: nan, RivalToBound: nan, KeptRatio: nan, KeptToBound: nan, RivalsKept: []int{1, 0}, ColdStarts: math.Inf(1)},
		{Scenario: "all", Traces: 3, Lost: 2, Over: 1, Ratio: math.Cbrt(0.5), First: math.Cbrt(0.5), ToBound: math.Sqrt(5), RivalToBound: math.Sqrt(5), Kept: 2, KeptRatio: 1, KeptToBound: math.Sqrt(5), RivalsKept: []int{3, 0}, ColdStarts: 0.5},
	}
	if diff := cmp.Diff(want, contest.Standings(rows, match), cmpopts.EquateNaNs(), cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Errorf("standings (-want +got):\n%s", diff)
	}
	if got := contest.Standings(rows[:1], match); got != nil {
		t.Errorf("without a rival: %+v, want none", got)
	}
}
