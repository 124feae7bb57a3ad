package tune_test

import (
	"context"
	"errors"
	"math"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/space"
	"github.com/sluice-autoscaler/sluice/bench/trace"
	"github.com/sluice-autoscaler/sluice/bench/tune"
)

var policies = catalog.Default()

func policy(t testing.TB, spec string) plan.Policy {
	t.Helper()
	p, err := plan.ParsePolicy(policies, spec)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// scenario has pods that take 10 requests at a time.
func webScenario() *scenario.Scenario {
	s := scenario.Default()
	return &s
}

func metric(t testing.TB, name string) tune.Metric {
	t.Helper()
	m, err := tune.FindMetric(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func ranges(t testing.TB, spec string, search ...string) *space.Space {
	t.Helper()
	s, err := space.New(policy(t, spec), webScenario(), search)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// number reads a parameter of a policy.
func number(t testing.TB, p plan.Policy, name string) float64 {
	t.Helper()
	var params map[string]float64
	if err := algorithms.Strict(p.Params, &params); err != nil {
		t.Fatal(err)
	}
	return params[name]
}

// bowl is a landscape with its least cost of 1 at target 4, ki 0.05, and violations that fall with
// target: with the limit the best is where it is just kept, target 3.
func bowl(t testing.TB, calls *atomic.Int64) tune.Evaluate {
	return func(_ context.Context, p plan.Policy, share float64) ([]score.Result, error) {
		calls.Add(1)
		x, k := number(t, p, "target"), number(t, p, "ki")
		cost := 1 + (x-4)*(x-4)/10 + math.Pow(math.Log10(k/0.05), 2)
		return []score.Result{{Trace: "bowl", PodSeconds: cost * share, SLOViolations: 0.01 * x / 3}}, nil
	}
}

func bowlConfig(t testing.TB, budget, workers int, limits ...tune.Limit) (tune.Config, *atomic.Int64) {
	var calls atomic.Int64
	return tune.Config{
		Space: ranges(t, "pid:target=9,ki=0.5", "target=1..10", "ki=0.001..1:log"), Objective: metric(t, "podSeconds"), Limits: limits,
		Evaluate: bowl(t, &calls), Budget: budget, Seed: 3, Workers: workers,
	}, &calls
}

func TestSearchFindsTheLeast(t *testing.T) {
	t.Parallel()
	c, _ := bowlConfig(t, 100, 2)
	r, err := tune.Search(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if r.Best.Objective > 1.01 {
		t.Errorf("best = %v at %s, want at most 1.01", r.Best.Objective, r.Best.Policy.Label)
	}
	if !reflect.DeepEqual(r.Top[0], r.Best) || len(r.Top) != 10 || r.Default.Values != nil {
		t.Errorf("top has %d, default values %v: want 10 with the best first, and none", len(r.Top), r.Default.Values)
	}
	if r.Spent > 100+1e-6 || r.Spent < 50 {
		t.Errorf("spent %v of a budget of 100", r.Spent)
	}
}

func TestSearchKeepsTheLimits(t *testing.T) {
	t.Parallel()
	limit, err := tune.ParseLimit("sloViolations=0.01")
	if err != nil {
		t.Fatal(err)
	}
	c, _ := bowlConfig(t, 100, 2, limit)
	r, err := tune.Search(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if x := number(t, r.Best.Policy, "target"); !r.Best.Feasible() || x > 3 || x < 2.9 {
		t.Errorf("best at target %v, feasible %v: want just below 3, where the limit is", x, r.Best.Feasible())
	}
	if r.Default.Feasible() {
		t.Error("the default at target 9 counts as feasible, want that it breaks the limit")
	}
	// No setting keeps this one: the least violation wins, however dear.
	strict, err := tune.ParseLimit("sloViolations=0.0001")
	if err != nil {
		t.Fatal(err)
	}
	c, _ = bowlConfig(t, 60, 2, strict)
	if r, err = tune.Search(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if x := number(t, r.Best.Policy, "target"); r.Best.Feasible() || x > 1.01 {
		t.Errorf("best at target %v, feasible %v: want the least violation, at 1", x, r.Best.Feasible())
	}
}

func TestSearchIsDeterministic(t *testing.T) {
	t.Parallel()
	var all []tune.Result
	for _, workers := range []int{1, 4} {
		c, _ := bowlConfig(t, 40, workers)
		r, err := tune.Search(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	if !reflect.DeepEqual(all[0].Top, all[1].Top) || all[0].Evaluated != all[1].Evaluated {
		t.Errorf("with 1 worker %+v, with 4 %+v: want the same", all[0].Best, all[1].Best)
	}
}

func TestSearchWithinSmallBudgets(t *testing.T) {
	t.Parallel()
	for budget := 1; budget < 12; budget++ {
		c, calls := bowlConfig(t, budget, 1)
		r, err := tune.Search(t.Context(), c)
		if err != nil || r.Best.Results == nil || r.Spent > float64(budget)+1e-6 {
			t.Errorf("budget %d: best %v, spent %v in %d calls, %v: want a result within it", budget, r.Best.Objective, r.Spent, calls.Load(), err)
		}
	}
}

func TestSearchInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	c, calls := bowlConfig(t, 100, 1)
	inner := c.Evaluate
	c.Evaluate = func(ctx context.Context, p plan.Policy, share float64) ([]score.Result, error) {
		if calls.Load() == 9 {
			cancel()
			return nil, ctx.Err()
		}
		return inner(ctx, p, share)
	}
	r, err := tune.Search(ctx, c)
	if r.Excerpt == nil || r.Excerpt.Share >= 1 || r.Excerpt.Values == nil {
		t.Errorf("interrupted before the design was through: excerpt %+v, want the best of it", r.Excerpt)
	}
	if !errors.Is(err, context.Canceled) || r.Best.Results == nil || r.Evaluated != 9 {
		t.Errorf("interrupted: %v after %d scorings, best %+v: want the cause and the best so far", err, r.Evaluated, r.Best)
	}
}

func TestSearchFaults(t *testing.T) {
	t.Parallel()
	_, err := tune.Search(t.Context(), tune.Config{LeastShare: 2})
	for _, want := range []string{"space is missing", "objective is missing", "evaluate is missing", "budget = 0", "least share = 2", "workers = 0"} {
		if err == nil || !contains(err, want) {
			t.Errorf("Search of nothing: %v, want it to name %q", err, want)
		}
	}
	c, _ := bowlConfig(t, 10, 2)
	broken := errors.New("the disk is gone")
	c.Evaluate = func(context.Context, plan.Policy, float64) ([]score.Result, error) { return nil, broken }
	if _, err := tune.Search(t.Context(), c); !errors.Is(err, broken) {
		t.Errorf("Search = %v, want the fault of the scoring", err)
	}
}

// steps is a load that goes up and down.
func steps(t testing.TB, length string) trace.Source {
	t.Helper()
	src, err := trace.Generate("diurnal:mean=150,amplitude=0.8,period=15m,duration=" + length)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func TestBenchSplitsTime(t *testing.T) {
	t.Parallel()
	sc := scenario.Default()
	b, err := tune.NewBench([]tune.Work{{Source: steps(t, "2h"), Scenario: sc}}, 0.5, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	p := policy(t, "kpa")
	whole, err := b.Evaluate(t.Context(), p, 1)
	if err != nil {
		t.Fatal(err)
	}
	held := b.HeldBack(p)
	if len(whole) != 2 || len(held) != 2 {
		t.Fatalf("%d results, %d held back: want one for each of two seeds", len(whole), len(held))
	}
	all := plan.Job{Source: held[0].Source, Scenario: sc, Policy: p, Seed: 1}
	sum, err := all.Run(t.Context(), plan.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rest, err := held[0].Run(t.Context(), plan.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Both parts together are the whole run. The first ends with idle pods where the whole goes on,
	// so only nearly.
	if got, want := whole[0].Requests+rest.Result.Requests, sum.Result.Requests; got != want {
		t.Errorf("requests: %d and %d make %d, want %d", whole[0].Requests, rest.Result.Requests, got, want)
	}
	if got, want := whole[0].PodSeconds+rest.Result.PodSeconds, sum.Result.PodSeconds; math.Abs(got/want-1) > 1e-6 {
		t.Errorf("pod-seconds: %v and %v make %v, want %v", whole[0].PodSeconds, rest.Result.PodSeconds, got, want)
	}
	ninth, err := b.Evaluate(t.Context(), p, 1.0/9)
	if err != nil {
		t.Fatal(err)
	}
	if len(ninth) != 1 || ninth[0].Requests == 0 || ninth[0].Requests > whole[0].Requests/3 {
		t.Errorf("a ninth: %d results with %d requests, want one seed with less than a third of %d", len(ninth), ninth[0].Requests, whole[0].Requests)
	}
	if _, err := tune.NewBench([]tune.Work{{Source: steps(t, "40s"), Scenario: sc}}, 0.9, 1, 1); err == nil || !contains(err, "leaves nothing on one side") {
		t.Errorf("NewBench of 40s = %v, want that nothing is left", err)
	}
}

func TestTuningBeatsDefaults(t *testing.T) {
	t.Parallel()
	sc := scenario.Default()
	sc.Startup = scenario.Startup{}
	b, err := tune.NewBench([]tune.Work{{Source: steps(t, "30m"), Scenario: sc}}, 1, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	limit := tune.Limit{Metric: metric(t, "sloViolations"), Most: 0.01}
	c := tune.Config{
		Space: ranges(t, "target", "target=20%..110%", "stabilizationWindow=0s|1m|5m"), Objective: metric(t, "podSeconds"), Limits: []tune.Limit{limit},
		Evaluate: b.Evaluate, Budget: 20, LeastShare: b.LeastShare(), Seed: 1, Workers: 2,
	}
	r, err := tune.Search(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Best.Feasible() || r.Best.Objective >= r.Default.Objective {
		t.Errorf("tuned %v (feasible %v) at %s, default %v: want less", r.Best.Objective, r.Best.Feasible(), r.Best.Policy.Label, r.Default.Objective)
	}
	if b.HeldBack(r.Best.Policy) != nil {
		t.Error("HeldBack with a train share of 1: want nothing")
	}
}

func TestSearchSaysWhereARangeIsTooNarrow(t *testing.T) {
	t.Parallel()
	c, _ := bowlConfig(t, 40, 2)
	c.Space = ranges(t, "pid", "target=1..3", "ki=0.001..0.01:log", "kd=0|30|60")
	r, err := tune.Search(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	// kd at 0 is at the end of what there is, so it is not named.
	want := []string{"target is at the upper end of 1..3", "ki is at the upper end of 0.001..0.01:log"}
	if !reflect.DeepEqual(r.Edges, want) {
		t.Errorf("edges %q, want %q", r.Edges, want)
	}
}

func TestParseLimit(t *testing.T) {
	t.Parallel()
	if l, err := tune.ParseLimit("waitP99=0.5"); err != nil || l.String() != "waitP99=0.5" {
		t.Errorf("ParseLimit = %v, %v", l, err)
	}
	for spec, want := range map[string]string{"waitP99": "METRIC=NUMBER", "wait=1": "unknown; known are podSeconds", "cost=-1": "≥ 0", "cost=NaN": "finite"} {
		if _, err := tune.ParseLimit(spec); err == nil || !contains(err, want) {
			t.Errorf("ParseLimit(%q) = %v, want %q", spec, err, want)
		}
	}
}

func contains(err error, part string) bool { return strings.Contains(err.Error(), part) }
