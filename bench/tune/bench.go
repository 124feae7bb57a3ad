package tune

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// Work is one load in one scenario.
type Work struct {
	Source   trace.Source
	Scenario scenario.Scenario
	// Start is the instant at which it begins, and History what was before (sim.Config); both may
	// be left out.
	Start   time.Time
	History []algorithms.Sample
}

// job is a run of the part of the load that begins at from.
func (w *Work) job(src trace.Source, p plan.Policy, seed uint64, from time.Duration) plan.Job {
	j := plan.Job{Source: src, Scenario: w.Scenario, Policy: p, Seed: seed, History: w.History}
	if !w.Start.IsZero() {
		j.Start = w.Start.Add(from)
	}
	return j
}

// Bench scores settings by simulation: on the first part of each load while searching, on the rest
// after that. It is a value that nothing changes after NewBench: safe for concurrent use.
type Bench struct {
	work      []Work
	cuts      []time.Duration // where the first part of each ends
	firstSeed uint64
	seeds     int
}

const (
	// excerpts is how many pieces of the load a small share is taken from.
	excerpts = 3
	// leastExcerpt is the shortest piece whose score is worth anything, in ticks; leastSteps the
	// same in elasticity steps.
	leastExcerpt = 100
	leastSteps   = 10
)

// NewBench makes a Bench that searches on the share train (0–1] of each load's time and runs every
// setting with that many seeds.
func NewBench(work []Work, train float64, firstSeed uint64, seeds int) (*Bench, error) {
	b := &Bench{work: work, firstSeed: firstSeed, seeds: seeds}
	var errs []error
	if len(work) == 0 {
		errs = append(errs, errors.New("no load: want at least one"))
	}
	if !(train > 0 && train <= 1) {
		errs = append(errs, fmt.Errorf("train = %v: want a share of the time above 0, at most 1", train))
	}
	if seeds < 1 || seeds > 10_000 {
		errs = append(errs, fmt.Errorf("seeds = %d: want 1–10000", seeds))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, w := range work {
		length, step := w.Source.Length(), time.Duration(w.Scenario.ElasticityStep)
		cut := time.Duration(train * float64(length))
		if train < 1 { // a warm-up ends with an elasticity step
			cut = (cut + step - 1).Truncate(step)
			if cut < step || cut >= length {
				errs = append(errs, fmt.Errorf("trace %s of %v: a train share of %v leaves nothing on one side: want a longer trace, another share or a shorter elasticityStep (%v)",
					w.Source.Name(), length, train, step))
			}
		}
		b.cuts = append(b.cuts, cut)
	}
	return b, errors.Join(errs...)
}

// LeastShare is the smallest share of the work whose pieces are long enough to tell something, for
// Config.LeastShare.
func (b *Bench) LeastShare() float64 {
	least := 0.0
	for i, w := range b.work {
		piece := max(leastExcerpt*time.Duration(w.Scenario.Tick), leastSteps*time.Duration(w.Scenario.ElasticityStep))
		least = max(least, float64(excerpts*piece)/float64(b.cuts[i])/float64(b.seeds))
	}
	return min(1, least)
}

// Evaluate scores on the first part: on all of it with all seeds for a share of 1; for less with
// fewer seeds, and when one seed is still too much on pieces from the beginning, the middle and the
// end, each warmed up for a quarter of its length.
func (b *Bench) Evaluate(ctx context.Context, p plan.Policy, share float64) ([]score.Result, error) {
	seeds := min(b.seeds, max(1, int(share*float64(b.seeds)+0.5)))
	part := min(1, share*float64(b.seeds)/float64(seeds))
	if share >= 1 {
		seeds, part = b.seeds, 1
	}
	var out []score.Result
	for i, w := range b.work {
		for k := range seeds {
			seed := b.firstSeed + uint64(k)
			var pieces []score.Result
			for _, e := range b.pieces(i, part) {
				src, err := trace.Window(w.Source, e.from, e.to)
				if err != nil {
					return nil, err
				}
				job := w.job(src, p, seed, e.from)
				job.Warmup = e.warm
				run, err := job.Run(ctx, plan.Options{}, nil)
				if err != nil {
					return nil, err
				}
				pieces = append(pieces, run.Result)
			}
			out = append(out, pool(pieces))
		}
	}
	return out, nil
}

type piece struct{ from, to, warm time.Duration }

// pieces are what a share of the i-th load's first part is made of.
func (b *Bench) pieces(i int, share float64) []piece {
	cut, step := b.cuts[i], time.Duration(b.work[i].Scenario.ElasticityStep)
	length := time.Duration(share * float64(cut) / excerpts).Truncate(step)
	if share >= 1 || length < 4*step {
		return []piece{{0, cut, 0}}
	}
	var out []piece
	for k := range excerpts {
		from := time.Duration(float64(cut-length) * float64(k) / (excerpts - 1)).Truncate(step)
		warm := (length/4 + step - 1).Truncate(step)
		if from == 0 {
			warm = 0 // the real beginning counts
		}
		out = append(out, piece{from, from + length, warm})
	}
	return out
}

// HeldBack are the runs of the parts that were held back, in the order of the loads and seeds; the
// first parts are the warm-up. There are none when everything was searched on.
func (b *Bench) HeldBack(p plan.Policy) []plan.Job {
	var jobs []plan.Job
	for i, w := range b.work {
		if b.cuts[i] == w.Source.Length() {
			continue
		}
		for k := range b.seeds {
			job := w.job(w.Source, p, b.firstSeed+uint64(k), 0)
			job.Warmup = b.cuts[i]
			jobs = append(jobs, job)
		}
	}
	return jobs
}

// Train are the runs of the whole first parts, likewise.
func (b *Bench) Train(p plan.Policy) ([]plan.Job, error) {
	var jobs []plan.Job
	for i, w := range b.work {
		src, err := trace.Window(w.Source, 0, b.cuts[i])
		if err != nil {
			return nil, err
		}
		for k := range b.seeds {
			jobs = append(jobs, w.job(src, p, b.firstSeed+uint64(k), 0))
		}
	}
	return jobs, nil
}

// pool is one result of several pieces of a run: sums, means weighted by requests for what is about
// requests and by time for what is about time, and maxima.
func pool(pieces []score.Result) score.Result {
	r := pieces[0]
	if len(pieces) == 1 {
		return r
	}
	requests, length := float64(r.Requests), r.Length
	byRequest := func(a *float64, b float64, n float64) { *a = weighted(*a, requests, b, n) }
	for _, p := range pieces[1:] {
		n := float64(p.Requests)
		for _, f := range []struct {
			a *float64
			b float64
		}{
			{&r.WaitMean, p.WaitMean},
			{&r.WaitP50, p.WaitP50},
			{&r.WaitP90, p.WaitP90},
			{&r.WaitP99, p.WaitP99},
			{&r.WaitP999, p.WaitP999},
			{&r.SlowdownP50, p.SlowdownP50},
			{&r.SlowdownP99, p.SlowdownP99},
			{&r.SLOViolations, p.SLOViolations},
			{&r.ColdStartShare, p.ColdStartShare},
		} {
			byRequest(f.a, f.b, n)
		}
		for _, f := range []struct {
			a *float64
			b float64
		}{{&r.ThetaU, p.ThetaU}, {&r.ThetaO, p.ThetaO}, {&r.TauU, p.TauU}, {&r.TauO, p.TauO}, {&r.Upsilon, p.Upsilon}} {
			*f.a = weighted(*f.a, length, f.b, p.Length)
		}
		for _, f := range []struct {
			a *float64
			b float64
		}{
			{&r.PodSeconds, p.PodSeconds},
			{&r.ReadySeconds, p.ReadySeconds},
			{&r.StartingSeconds, p.StartingSeconds},
			{&r.TerminatingSeconds, p.TerminatingSeconds},
			{&r.IdleSeconds, p.IdleSeconds},
			{&r.ZeroDemandSeconds, p.ZeroDemandSeconds},
			{&r.WorkSeconds, p.WorkSeconds},
			{&r.Cost, p.Cost},
			{&r.Length, p.Length},
		} {
			*f.a += f.b
		}
		for _, f := range []struct {
			a *int64
			b int64
		}{
			{&r.Requests, p.Requests},
			{&r.Lost, p.Lost},
			{&r.ColdStarts, p.ColdStarts},
			{&r.WakeUps, p.WakeUps},
			{&r.Starts, p.Starts},
			{&r.FailedStarts, p.FailedStarts},
			{&r.Changes, p.Changes},
			{&r.Reversals, p.Reversals},
			{&r.Decisions, p.Decisions},
		} {
			*f.a += f.b
		}
		r.WaitMax, r.PeakReplicas = max(r.WaitMax, p.WaitMax), max(r.PeakReplicas, p.PeakReplicas)
		requests, length = requests+n, length+p.Length
	}
	return r
}

func weighted(a, na, b, nb float64) float64 {
	if na+nb == 0 {
		return 0
	}
	return (a*na + b*nb) / (na + nb)
}
