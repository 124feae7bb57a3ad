package suite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/bench/clairvoyant"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/space"
	"github.com/sluice-autoscaler/sluice/bench/trace"
	"github.com/sluice-autoscaler/sluice/bench/tune"
)

// Names of what is no policy by itself in the results.
const (
	// Tuned is put behind the name of a classic whose parameters were searched on the very load,
	// with hindsight.
	Tuned = " (tuned)"
	// Found is in the notes that tell what parameters that was.
	Found = "tuning found"
	// Told is put behind the name of a subject that had the rate of every bin as its forecast,
	// though not the requests: what a better forecast could gain at most.
	Told = " (told the rates)"
	// Bound is the cheapest schedule that was found with the future known. LowerBound is a cost
	// that no policy that keeps the promise can be below.
	Bound      = "clairvoyant"
	LowerBound = "lower bound"
)

// Config is a contest.
type Config struct {
	// Traces is the folder of the shared traces.
	Traces fs.FS
	// Loads and Scenarios span the cells.
	Loads     []Load
	Scenarios []scenario.Scenario
	// Subjects are the policies that are judged, one configuration each; Classics are run as they
	// come and, with a Budget above 0, tuned.
	Subjects, Classics []plan.Policy
	// Seeds is how many seeds score each policy; tuning has the first.
	Seeds int
	// Budget is how many whole evaluations the tuning of one classic in one cell may cost; sparse
	// loads are not tuned to.
	Budget int
	// Bounds asks for the clairvoyant's costs, and for those of the subjects that take a forecast
	// of the load's rates, on loads that are not sparse.
	Bounds bool
	// Workers is how many cells are worked on at once.
	Workers int
	// Points bounds the rows of a run's series.
	Points int
	// Known returns a run that was made before: those of classics and of the clairvoyant are not
	// made again. It may be nil, and is called from several goroutines.
	Known func(policy, trace, scenario string, seed uint64) (score.Run, bool)
	// Share is called with the share of all cells that is done, from several goroutines; it may be
	// nil.
	Share func(float64)
}

// Classics are the policies to beat: Knative's, the HPA's and KEDA's. Their scale-down to zero is
// the scenario's.
func Classics(policies catalog.Catalog) ([]plan.Policy, error) {
	var out []plan.Policy
	for _, spec := range []string{"kpa", "hpa", "keda"} {
		p, err := plan.ParsePolicy(policies, spec)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// Rivals are the names under which classics appear, with their defaults and tuned.
func (c *Config) Rivals() []string {
	var names []string
	for _, p := range c.Classics {
		names = append(names, p.Label)
		if c.Budget > 0 {
			names = append(names, p.Label+Tuned)
		}
	}
	return names
}

// cell is one load in one scenario.
type cell struct {
	load  *Load
	scene *scenario.Scenario
	n     int
}

// runs is the most results of a cell, which numbers them.
func (c *Config) runs() int {
	return c.Seeds*2*(len(c.Subjects)+len(c.Classics)) + 2
}

// Run holds the contest and hands every run to done with a number that gives its place, from
// several goroutines. It returns notes: what was left out, and the parameters that tuning found.
func Run(ctx context.Context, c Config, done func(n int, run score.Run) error) ([]string, error) {
	var cells []cell
	for i := range c.Loads {
		for k := range c.Scenarios {
			cells = append(cells, cell{&c.Loads[i], &c.Scenarios[k], len(cells) * c.runs()})
		}
	}
	notes := make([][]string, len(cells))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, c.Workers))
	var finished atomic.Int64
	for i, w := range cells {
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			var err error
			if notes[i], err = c.cell(ctx, w, done); err != nil {
				return fmt.Errorf("%s in scenario %s: %w", w.load.name(), w.scene.Name, err)
			}
			if n := finished.Add(1); c.Share != nil {
				c.Share(float64(n) / float64(len(cells)))
			}
			return nil
		})
	}
	err := g.Wait()
	return slices.Compact(slices.Concat(notes...)), err
}

// cell runs everything on one load in one scenario.
func (c *Config) cell(ctx context.Context, w cell, done func(n int, run score.Run) error) (notes []string, err error) {
	s := *w.scene
	if w.load.Sparse {
		s.PeakReplicas, s.InitialReplicas = 0, 0
	}
	scored, past, err := w.load.open(c.Traces, &s)
	if w.load.Sparse && errors.Is(err, trace.ErrEmpty) {
		return []string{fmt.Sprintf("%s was left out: the part that would be simulated has no request.", w.load.name())}, nil
	}
	if err != nil {
		return nil, err
	}
	e := &entry{
		Config: c, scene: s, past: past, n: w.n, done: done,
		src: scored.Source(trace.Model{}), // Poisson within bins
	}
	for _, p := range c.Subjects {
		if err := e.run(ctx, p, nil); err != nil {
			return nil, err
		}
		if c.Bounds && !w.load.Sparse && p.TakesForecast() {
			p.Label += Told
			if err := e.run(ctx, p, scored.Rate); err != nil {
				return nil, err
			}
		}
	}
	for _, p := range c.Classics {
		if err := e.classic(ctx, p, !w.load.Sparse); err != nil {
			return e.notes, err
		}
	}
	if !c.Bounds {
		return e.notes, nil
	}
	if known := e.known(1, LowerBound, Bound); known != nil {
		return e.notes, e.put(known...)
	}
	return e.notes, c.bound(ctx, e.n, e.src, s, done)
}

// entry is a cell whose runs are being made.
type entry struct {
	*Config
	src   trace.Source
	scene scenario.Scenario
	past  []algorithms.Sample
	// n is the number of the next run.
	n     int
	done  func(n int, run score.Run) error
	notes []string
}

func (e *entry) put(runs ...score.Run) error {
	for _, run := range runs {
		if err := e.done(e.n, run); err != nil {
			return err
		}
		e.n++
	}
	return nil
}

// run runs a policy with all seeds; rate, unless it is nil, is given to it as a forecast.
func (e *entry) run(ctx context.Context, p plan.Policy, rate func(time.Duration) float64) error {
	for k := range e.Seeds {
		job := plan.Job{Source: e.src, Scenario: e.scene, Policy: p, Seed: uint64(k) + 1, History: e.past, Rate: rate}
		run, err := job.Run(ctx, plan.Options{Points: e.Points}, nil)
		if err == nil {
			err = e.put(run)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// classic runs a policy to beat with its defaults and, unless that says nothing, tuned to the load.
// How many pods a classic aims at says nothing where one is too many, so sparse loads are not tuned
// to.
func (e *entry) classic(ctx context.Context, p plan.Policy, dense bool) error {
	if known := e.known(e.Seeds, p.Label); known != nil {
		if err := e.put(known...); err != nil {
			return err
		}
	} else if err := e.run(ctx, p, nil); err != nil {
		return err
	}
	if e.Budget == 0 || !dense {
		return nil
	}
	if known := e.known(e.Seeds, p.Label+Tuned); known != nil {
		return e.put(known...)
	}
	best, err := e.tune(ctx, p, e.src, e.scene)
	if err != nil {
		return err
	}
	e.notes = append(e.notes, fmt.Sprintf("%s, %s: %s %s.", e.src.Name(), e.scene.Name, Found, best.Label))
	best.Label = p.Label + Tuned
	return e.run(ctx, best, nil)
}

// known are the runs of policies that were made before under as many seeds, or nil unless all are
// there.
func (e *entry) known(seeds int, policies ...string) []score.Run {
	if e.Known == nil {
		return nil
	}
	var runs []score.Run
	for _, p := range policies {
		for k := range seeds {
			run, ok := e.Known(p, e.src.Name(), e.scene.Name, uint64(k)+1)
			if !ok {
				return nil
			}
			runs = append(runs, run)
		}
	}
	return runs
}

// tune searches a classic's parameters on the whole load under the first seed: fewest pod-seconds
// within the scenario's share of violations, or else fewest violations.
func (c *Config) tune(ctx context.Context, p plan.Policy, src trace.Source, s scenario.Scenario) (plan.Policy, error) {
	ranges, err := space.New(p, &s, nil)
	if err != nil {
		return p, err
	}
	objective, err := tune.FindMetric("podSeconds")
	if err != nil {
		return p, err
	}
	limit, err := tune.ParseLimit(fmt.Sprintf("sloViolations=%g", s.SLO.Share))
	if err != nil {
		return p, err
	}
	b, err := tune.NewBench([]tune.Work{{Source: src, Scenario: s}}, 1, 1, 1)
	if err != nil {
		return p, err
	}
	r, err := tune.Search(ctx, tune.Config{
		Space: ranges, Objective: objective, Limits: []tune.Limit{limit}, Evaluate: b.Evaluate,
		Budget: c.Budget, LeastShare: b.LeastShare(), Seed: 1, Workers: 1,
	})
	return r.Best.Policy, err
}

// bound adds the bounds on a schedule that knows the future, under the first seed.
func (c *Config) bound(ctx context.Context, n int, src trace.Source, s scenario.Scenario, done func(n int, run score.Run) error) error {
	b, err := clairvoyant.Problem{
		Concurrency: s.PodConcurrency, Startup: s.Startup.Mean(), Wait: time.Duration(s.SLO.Wait), Violations: s.SLO.Share,
		MaxReplicas: s.MaxReplicas, Replays: 8,
	}.Bound(ctx, src.Length(), func() trace.Arrivals { return scenario.Requests(src, &s, 1) })
	if err != nil {
		return err
	}
	r := score.Result{Trace: src.Name(), Scenario: s.Name, Seed: 1, Length: src.Length().Seconds(), Requests: b.Requests, WorkSeconds: b.Work}
	r.Policy, r.PodSeconds = LowerBound, b.Prewarmed.Lower
	if err := done(n, score.Run{Result: r}); err != nil || !b.Prewarmed.Found {
		return err
	}
	r.Policy, r.PodSeconds, r.Starts, r.PeakReplicas = Bound, b.Prewarmed.Feasible, b.Prewarmed.Starts, b.Prewarmed.Peak
	if b.Requests > 0 {
		r.SLOViolations = float64(b.Prewarmed.Violated) / float64(b.Requests)
	}
	return done(n+1, score.Run{Result: r})
}

// Scenarios are the names of the four scenarios of the contest, from quick to slow starts.
func Scenarios() []string { return []string{"instant", "small", "service", "heavy"} }

// Subject reads a policy that is judged; a label that a classic has as well would mix their
// results.
func Subject(policies catalog.Catalog, spec string, classics []plan.Policy) (plan.Policy, error) {
	p, err := plan.ParsePolicy(policies, spec)
	for _, c := range classics {
		if strings.TrimSuffix(p.Label, Tuned) == c.Label && err == nil {
			err = fmt.Errorf("policy %q is a classic already: judge another one, or give it a label", p.Label)
		}
	}
	return p, err
}
