// Package tune searches a policy's parameters for the least of an objective within limits, over a
// bounded space. A seeded design fills the space; most settings are dropped after a run on a small
// part of the work; steps around the best ones follow. The same Config gives the same Result,
// whatever the number of workers.
package tune

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/space"
)

// Evaluate scores a policy with about that share (0–1] of the work that a whole evaluation is, one
// result for each seed, load and scenario. It is called from several goroutines, and the same
// arguments must give the same results.
type Evaluate func(ctx context.Context, p plan.Policy, share float64) ([]score.Result, error)

// Config is one search.
type Config struct {
	// Space is what is searched (space.New).
	Space *space.Space
	// Objective is what is to be least; Limits what must hold besides.
	Objective Metric
	Limits    []Limit
	// Evaluate scores a setting; Bench.Evaluate does it by simulation.
	Evaluate Evaluate
	// Budget is how much work is done, in whole evaluations, 1–MaxBudget: looking at a ninth of the
	// work costs a ninth.
	Budget int
	// LeastShare (0–1] is the smallest share of the work whose score is worth anything; 0 is 1/9.
	LeastShare float64
	// Seed makes the design and the steps.
	Seed uint64
	// Workers is how many evaluations run at once, ≥ 1.
	Workers int
	// Progress is called with what was spent of the budget and the best so far, which has no
	// Results yet when it is nil; from one goroutine at a time. It may be nil.
	Progress func(spent float64, best *Trial)
}

// MaxBudget bounds a search, and so its memory.
const MaxBudget = 100_000

// Trial is one setting that was scored.
type Trial struct {
	Policy plan.Policy `json:"policy"`
	// Values are the searched parameters; nil for the policy as it was given.
	Values map[string]json.RawMessage `json:"values,omitempty"`
	// Share is the share of the work that it was scored on.
	Share float64 `json:"share"`
	// Objective is the objective's value; Excess by how much limits are broken, summed over them,
	// each as a share of itself; 0 is feasible.
	Objective float64 `json:"objective"`
	Excess    float64 `json:"excess"`
	// Results are kept of whole evaluations only.
	Results []score.Result `json:"results,omitempty"`

	at    []float64
	loose float64 // excess with looser limits
	order int     // in which it was made, which breaks ties
}

// Feasible says that all limits are kept.
func (t *Trial) Feasible() bool { return t.Excess == 0 }

// Result is what a search found.
type Result struct {
	// Best is the best setting that was scored on the whole, the policy as it was given included.
	// Default is the latter.
	Best, Default Trial
	// Top are the best ten, Best first.
	Top []Trial
	// Excerpt is the best setting on a part of the work when the search ended before any of the
	// design was scored on the whole, else nil.
	Excerpt *Trial
	// Evaluated counts the scorings, Invalid the settings that the policy refused; Spent is the
	// work in whole evaluations.
	Evaluated, Invalid int
	Spent              float64
	// Edges names searched parameters of Best that are at an end of their range.
	Edges []string
}

// kept is how many of the best a Result has.
const kept = 10

// Search searches. When ctx ends it returns the best so far and the cause; Result.Best has Results
// unless not even one setting was scored on the whole.
func Search(ctx context.Context, c Config) (Result, error) {
	if err := c.validate(); err != nil {
		return Result{}, err
	}
	s := &search{Config: c, rng: rand.New(rand.NewPCG(c.Seed, 0x7475_6e65)), seen: map[string]bool{}}
	err := s.run(ctx)
	return s.result(), err
}

func (c *Config) validate() error {
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(c.Space != nil, "space is missing: want NewSpace's")
	bad(c.Objective.Of != nil, "objective is missing: want one of Metrics")
	bad(c.Evaluate != nil, "evaluate is missing: want a function that scores, such as Bench.Evaluate")
	bad(c.Budget >= 1 && c.Budget <= MaxBudget, "budget = %d: want 1–%d evaluations", c.Budget, MaxBudget)
	bad(c.LeastShare >= 0 && c.LeastShare <= 1, "least share = %v: want 0–1", c.LeastShare)
	bad(c.Workers >= 1, "workers = %d: want at least 1", c.Workers)
	return errors.Join(errs...)
}

// search is the state of one.
type search struct {
	Config
	rng     *rand.Rand
	seen    map[string]bool // settings made, by share
	whole   []Trial         // scored on all of the work
	initial *Trial          // the policy as it was given
	excerpt *Trial          // the best of the design on the largest part of the work yet
	made    int

	mu                 sync.Mutex
	evaluated, invalid int
	spent              float64
	reached            *Trial // the best so far, for progress
}

// designShare is the share of the budget for the design and its halving; the rest is for steps
// around the best.
const designShare = 0.6

func (s *search) run(ctx context.Context) error {
	first, err := s.score(ctx, []Trial{{Policy: s.Space.Base(), Share: 1}})
	if len(first) > 0 {
		first[0].at = s.Space.Start()
		s.initial = &first[0]
		s.whole = append(s.whole, first[0])
	}
	if err != nil {
		return err
	}
	if err := s.halving(ctx); err != nil {
		return err
	}
	return s.refine(ctx)
}

// levels are the shares of the work of the halving's rounds, each three times the one before.
func (s *search) levels() []float64 {
	least := s.LeastShare
	if least == 0 {
		least = 1.0 / 9
	}
	out := []float64{1}
	for share, enough := 1.0/3, 4; share >= least-1e-9 && s.Budget >= enough && len(out) < 3; share, enough = share/3, 2*enough {
		out = append([]float64{share}, out...)
	}
	return out
}

// halving scores a design on little work, the better third of it on three times that, and so on
// (successive halving, Jamieson and Talwalkar 2016, with 3 for 2). What survives is in two parts:
// those that are best by the limits, and those that would be if the limits were looser, since what
// little work says of rare events is not to be taken at its word.
func (s *search) halving(ctx context.Context) error {
	levels := s.levels()
	rounds := float64(len(levels))
	n := max(1, int((designShare*float64(s.Budget)-1)*math.Pow(3, rounds-1)/rounds))
	if s.Budget < 3 {
		n = s.Budget - 1
	}
	alive := s.design(n, levels[0])
	for i, share := range levels {
		scored, err := s.score(ctx, alive)
		if share == 1 {
			s.whole = append(s.whole, scored...)
		} else if len(scored) > 0 {
			best := slices.MinFunc(scored, compare)
			s.excerpt = &best
		}
		if err != nil || share == 1 {
			return err
		}
		alive = survivors(scored, (len(scored)+2)/3)
		for j := range alive {
			alive[j].Share = levels[i+1]
		}
	}
	return nil
}

// survivors are n of trials, half by each of two orders.
func survivors(trials []Trial, n int) []Trial {
	strict, loose := slices.Clone(trials), slices.Clone(trials)
	slices.SortFunc(strict, compare)
	slices.SortFunc(loose, func(a, b Trial) int { return byExcess(&a, &b, a.loose, b.loose) })
	var out []Trial
	take := func(from []Trial, n int) {
		for _, t := range from {
			if len(out) < n && !slices.ContainsFunc(out, func(u Trial) bool { return u.order == t.order }) {
				out = append(out, t)
			}
		}
	}
	take(strict, (n+1)/2)
	take(loose, n)
	slices.SortFunc(out, func(a, b Trial) int { return cmp.Compare(a.order, b.order) })
	return out
}

// compare puts the better trial first: one that keeps the limits before one that does not, then the
// lesser objective; among those that do not, the lesser excess.
func compare(a, b Trial) int { return byExcess(&a, &b, a.Excess, b.Excess) }

func byExcess(a, b *Trial, excessA, excessB float64) int {
	return cmp.Or(cmp.Compare(excessA, excessB), cmp.Compare(a.Objective, b.Objective), cmp.Compare(a.order, b.order))
}

// design are n settings: the policy's own values and points of a Halton sequence, shifted at random
// as a whole (Cranley and Patterson 1976), which leaves no part of the space empty.
func (s *search) design(n int, share float64) []Trial {
	dims := s.Space.Len()
	shift := make([]float64, dims)
	for i := range shift {
		shift[i] = s.rng.Float64()
	}
	var out []Trial
	if t, ok := s.make(s.Space.Start(), share); ok && n > 0 {
		out = append(out, t)
	}
	for k := 1; len(out) < n && k <= 20*n+100; k++ {
		at := make([]float64, dims)
		for i := range at {
			_, at[i] = math.Modf(halton(k, prime(i)) + shift[i])
		}
		if t, ok := s.make(at, share); ok {
			out = append(out, t)
		}
	}
	return out
}

// halton is the k-th number of van der Corput's sequence in a base: k's digits mirrored at the
// point.
func halton(k, base int) float64 {
	v, f := 0.0, 1.0
	for ; k > 0; k /= base {
		f /= float64(base)
		v += f * float64(k%base)
	}
	return v
}

// prime is the i-th prime number, from 2 on.
func prime(i int) int {
	for n := 2; ; n++ {
		is := true
		for d := 2; d*d <= n; d++ {
			is = is && n%d != 0
		}
		if is {
			if i == 0 {
				return n
			}
			i--
		}
	}
}

// make is a trial yet to be scored; ok is false when it was made before, or the policy refuses it.
func (s *search) make(at []float64, share float64) (Trial, bool) {
	p, err := s.Space.Policy(at)
	key := fmt.Sprint(share, p.Label)
	if s.seen[key] {
		return Trial{}, false
	}
	s.seen[key] = true
	if err != nil {
		s.invalid++
		return Trial{}, false
	}
	s.made++
	return Trial{Policy: p, Values: s.Space.Values(at), Share: share, at: at, order: s.made}, true
}

// refine looks around two centres in turn, with what is left: the best by the limits, and the best
// if the limits were looser, which is often a small step from being better than it. Around a centre
// it tries steps along single parameters, random directions, differences between good settings
// (Storn and Price 1997) and the direction of the last success. What a little work says of them
// chooses those that are scored on the whole. Steps become larger with success and smaller without.
func (s *search) refine(ctx context.Context) error {
	little := s.levels()[0]
	step := [2]float64{firstStep, firstStep}
	var from [2][]float64 // where the last success around each centre came from
	idle := 0
	for round := 0; s.left() >= 1 && idle < 20; round++ {
		k := round % 2
		centre := s.centre(k == 1)
		var tried []Trial
		share := little
		if s.left() < 2 {
			share = 1
		}
		for _, at := range s.around(centre.at, from[k], step[k]) {
			if share == 1 && float64(len(tried)+1) > s.left() {
				break
			}
			if t, ok := s.make(at, share); ok {
				tried = append(tried, t)
			}
		}
		if share < 1 {
			scored, err := s.score(ctx, tried)
			if err != nil {
				return err
			}
			tried = nil
			for _, t := range survivors(scored, min((len(scored)+3)/4, int(s.left()))) {
				if t, ok := s.make(t.at, 1); ok {
					tried = append(tried, t)
				}
			}
		}
		scored, err := s.score(ctx, tried)
		s.whole = append(s.whole, scored...)
		if err != nil {
			return err
		}
		from[k] = nil
		if now := s.centre(k == 1); now.order != centre.order {
			from[k] = centre.at
			step[k] = min(0.3, step[k]*1.5)
		} else if step[k] *= 0.6; step[k] < leastStep {
			step[k] = firstStep
		}
		if idle++; len(tried) > 0 {
			idle = 0
		}
	}
	return nil
}

const (
	// firstStep and leastStep are shares of a range; below the least the steps begin anew.
	firstStep = 0.15
	leastStep = 0.01
	// parents is how many of the best the differences are taken from.
	parents = 8
)

// centre is the best trial scored on the whole, by the limits or by looser ones.
func (s *search) centre(loose bool) Trial {
	if loose {
		return slices.MinFunc(s.whole, func(a, b Trial) int {
			return byExcess(&a, &b, max(0, a.Excess-looseness), max(0, b.Excess-looseness))
		})
	}
	return slices.MinFunc(s.whole, compare)
}

// looseness is by how much limits may be broken, in all, by the centre that is likely to be
// repaired.
const looseness = 0.5

// around are places to try around a centre.
func (s *search) around(centre, from []float64, step float64) [][]float64 {
	dims := len(centre)
	var places [][]float64
	add := func(change func(at []float64)) {
		at := slices.Clone(centre)
		change(at)
		for i := range at {
			at[i] = min(1, max(0, at[i]))
		}
		places = append(places, at)
	}
	if from != nil {
		add(func(at []float64) {
			for i := range at {
				at[i] += at[i] - from[i]
			}
		})
	}
	for n, i := range s.rng.Perm(dims) {
		if n == (dims+3)/2 {
			break
		}
		for _, u := range s.Space.Neighbours(i, centre[i], step) {
			add(func(at []float64) { at[i] = u })
		}
	}
	slices.SortFunc(s.whole, compare)
	good := s.whole[:min(parents, len(s.whole))]
	for range max(1, dims/2) {
		add(func(at []float64) {
			for i := range at {
				if s.Space.Ordered(i) {
					at[i] += step * s.rng.NormFloat64()
				}
			}
		})
		a, b := good[s.rng.IntN(len(good))], good[s.rng.IntN(len(good))]
		add(func(at []float64) {
			for i := range at {
				at[i] += 0.7 * (a.at[i] - b.at[i])
			}
		})
	}
	return places
}

// left is what remains of the budget.
func (s *search) left() float64 { return float64(s.Budget) - s.spent + 1e-9 }

// score evaluates trials in parallel and returns those that were, in their order. The first fault
// ends it.
func (s *search) score(ctx context.Context, trials []Trial) ([]Trial, error) {
	g, inner := errgroup.WithContext(ctx)
	g.SetLimit(s.Workers)
	done := make([]bool, len(trials))
	for i := range trials {
		if inner.Err() != nil {
			break
		}
		g.Go(func() error {
			t := &trials[i]
			results, err := s.Evaluate(inner, t.Policy, t.Share)
			if err != nil {
				return fmt.Errorf("%s: %w", t.Policy.Label, err)
			}
			if len(results) == 0 {
				return fmt.Errorf("%s: scored without a result", t.Policy.Label)
			}
			s.judge(t, results)
			done[i] = true
			return nil
		})
	}
	err := g.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	var out []Trial
	for i := range trials {
		if done[i] {
			out = append(out, trials[i])
		}
	}
	return out, err
}

// judge fills in what results say.
func (s *search) judge(t *Trial, results []score.Result) {
	t.Objective = s.Objective.Value(results)
	if math.IsNaN(t.Objective) {
		t.Objective = math.Inf(1)
	}
	t.Excess, t.loose = 0, 0
	for _, l := range s.Limits {
		worst := l.Metric.Worst(results)
		t.Excess += l.excess(worst, 1)
		t.loose += l.excess(worst, 2-t.Share)
	}
	if t.Share == 1 {
		t.Results = results
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.evaluated++
	s.spent += t.Share
	if t.Share == 1 && (s.reached == nil || compare(*t, *s.reached) < 0) {
		one := *t
		s.reached = &one
	}
	if s.Progress != nil {
		s.Progress(s.spent, s.reached)
	}
}

// result is what was found until now.
func (s *search) result() Result {
	r := Result{Evaluated: s.evaluated, Invalid: s.invalid, Spent: s.spent}
	slices.SortFunc(s.whole, compare)
	if s.initial != nil {
		r.Default = *s.initial
	}
	if len(s.whole) == 0 {
		return r
	}
	if len(s.whole) == 1 {
		r.Excerpt = s.excerpt
	}
	r.Best = s.whole[0]
	r.Top = slices.Clone(s.whole[:min(kept, len(s.whole))])
	if r.Best.Values != nil {
		r.Edges = s.Space.Edges(r.Best.at)
	}
	return r
}
