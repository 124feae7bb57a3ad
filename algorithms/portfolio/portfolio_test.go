package portfolio_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
	"github.com/sluice-autoscaler/sluice/algorithms/portfolio"
)

func named(name string, target float64, params json.RawMessage) (algorithms.Policy, error) {
	return catalog.Default().New(name, target, params)
}

func policy(t *testing.T, change func(*portfolio.Config)) *portfolio.Policy {
	t.Helper()
	c := portfolio.Default()
	c.Target = 10
	if change != nil {
		change(&c)
	}
	p, err := portfolio.New(c, named)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// field/algorithms.md (j): losses (0, 1) and (1, 0) in turn, the first a half. Following the leader
// loses about T; Hedge at most T/2 + √(T ln 2 / 2).
func TestHedgeAgainstTheLeader(t *testing.T) {
	t.Parallel()
	const rounds = 10_000
	h := portfolio.NewHedge(2, rounds, 0)
	total, leader := [2]float64{}, 0.0
	hedged := 0.0
	for i := range rounds {
		loss := []float64{0.5, 0}
		switch {
		case i == 0:
		case i%2 == 1:
			loss = []float64{0, 1}
		default:
			loss = []float64{1, 0}
		}
		follow := 0
		if total[1] < total[0] {
			follow = 1
		}
		leader += loss[follow]
		hedged += h.Update(loss)
		total[0] += loss[0]
		total[1] += loss[1]
	}
	if leader < rounds-2 {
		t.Errorf("following the leader loses %v, want about %d", leader, rounds)
	}
	if limit := rounds/2 + math.Sqrt(rounds*math.Ln2/2); hedged > limit {
		t.Errorf("Hedge loses %v, want at most %v", hedged, limit)
	}
}

// The bound holds for any losses: regret ≤ √(T ln N / 2). With fixed share a change of the best
// expert is followed.
func TestHedgeRegret(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(8, 1))
	for range 50 {
		n, rounds := 2+r.IntN(8), 50+r.IntN(2000)
		h := portfolio.NewHedge(n, rounds, 0)
		sums, mine := make([]float64, n), 0.0
		bias := r.IntN(n)
		for range rounds {
			loss := make([]float64, n)
			for i := range loss {
				if loss[i] = r.Float64(); i == bias {
					loss[i] *= 0.9
				}
				sums[i] += loss[i]
			}
			mine += h.Update(loss)
		}
		best := math.Inf(1)
		for _, s := range sums {
			best = min(best, s)
		}
		if limit := best + math.Sqrt(float64(rounds)*math.Log(float64(n))/2); mine > limit {
			t.Fatalf("%d experts, %d rounds: lost %v, want at most %v", n, rounds, mine, limit)
		}
	}
	h := portfolio.NewHedge(2, 100, 0.01)
	for range 500 {
		h.Update([]float64{0, 1})
	}
	after := 0
	for ; h.Weights[1] < 0.5 && after < 100; after++ {
		h.Update([]float64{1, 0})
	}
	if after > 30 {
		t.Errorf("%d rounds to follow a change after 500", after)
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		answers []int
		known   []bool
		weights []float64
		want    int
		ok      bool
	}{
		{[]int{1, 9}, []bool{true, true}, []float64{.5, .5}, 9, true},
		{[]int{1, 9}, []bool{true, true}, []float64{.51, .49}, 1, true},
		{[]int{1, 5, 9}, []bool{true, true, true}, []float64{.3, .3, .4}, 5, true},
		{[]int{1, 5, 9}, []bool{false, true, false}, []float64{.8, .1, .1}, 5, true},
		{[]int{1, 5}, []bool{false, false}, []float64{.5, .5}, 0, false},
		{[]int{0, 0, 3}, []bool{true, true, true}, []float64{.2, .3, .5}, 3, true},
	} {
		if n, ok := portfolio.Median(c.answers, c.known, c.weights); n != c.want || ok != c.ok {
			t.Errorf("Median(%v, %v, %v) = %d, %t, want %d, %t", c.answers, c.known, c.weights, n, ok, c.want, c.ok)
		}
	}
}

func TestProperties(t *testing.T) {
	t.Parallel()
	policytest.Check(t, 41, 8, func() (algorithms.Policy, error) { return portfolio.New(portfolio.Default(), named) })
}

// Of a policy with far too many pods, one with too few and one that fits, the last comes to decide.
func TestFollowsTheCheapest(t *testing.T) {
	t.Parallel()
	p := policy(t, func(c *portfolio.Config) {
		c.Experts = []portfolio.Expert{
			{Name: "fixed", Parameters: json.RawMessage(`{"replicas": 50}`)},
			{Name: "fixed", Parameters: json.RawMessage(`{"replicas": 2}`)},
			{Name: "fixed", Parameters: json.RawMessage(`{"replicas": 7}`)},
		}
	})
	now, current := policytest.Epoch(), 7
	var d algorithms.Decision
	for range 30 * 60 * 10 {
		o := algorithms.Observation{
			Now: now, Limits: algorithms.Limits{Max: 100, PodConcurrency: 10}, Replicas: algorithms.Replicas{Current: current, Ready: current},
			StartUp: algorithms.StartUp{P50: time.Second, P90: time.Second, P99: time.Second, Samples: 9},
		}
		for _, n := range p.Needs() {
			v := 50.0
			if n.Name == algorithms.Rate {
				v = 100
			}
			o.Signals = append(o.Signals, algorithms.Signal{Name: n.Name, Window: n.Window, Value: v, Known: true, Coverage: 1})
		}
		d = p.Decide(o)
		current = d.Replicas
		now = now.Add(2 * time.Second)
	}
	if d.Replicas != 7 || !strings.Contains(d.Message, "fixed 7 (weight 0.") {
		t.Errorf("%+v", d)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	_, err := portfolio.New(portfolio.Config{Experts: []portfolio.Expert{{Name: "portfolio"}}, PodConcurrency: -1, ColdStartCost: -1, StartUp: -1, Memory: -1}, named)
	for _, want := range []string{"experts = ", "experts[0].name", "target", "podConcurrency", "waitGoal", "violationBudget", "coldStartCost", "block", "memory", "startUp", "window"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no fault of %s in %v", want, err)
		}
	}
	c := portfolio.Default()
	c.Experts = append(c.Experts, portfolio.Expert{Name: "nope"})
	if _, err := portfolio.New(c, named); err == nil || !strings.Contains(err.Error(), `experts[5]: policy "nope": unknown`) {
		t.Errorf("an unknown expert gives %v", err)
	}
}
