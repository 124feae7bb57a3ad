package plan

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/bench/perrequest"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/sim"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// Load makes the arrivals of a scenario: a trace may be scaled to its peak replicas.
type Load func(s *scenario.Scenario) (trace.Source, error)

// Generated is the load of a generator (trace.Generate).
func Generated(spec string) (Load, error) {
	src, err := trace.Generate(spec)
	if err != nil {
		return nil, err
	}
	return func(*scenario.Scenario) (trace.Source, error) { return src, nil }, nil
}

// Recorded is the load of a trace, with arrivals within its bins after a model. read makes the
// trace, given the mean work, which a trace of concurrency needs. A scenario's PeakReplicas scale
// it.
func Recorded(read func(service time.Duration) (*trace.Trace, error), model trace.Model) Load {
	return func(s *scenario.Scenario) (trace.Source, error) {
		t, err := read(s.Service.Mean())
		if err != nil {
			return nil, err
		}
		if s.PeakReplicas > 0 {
			// busy is the pods that are wholly busy at the peak.
			busy := t.PeakRate() * s.Service.Mean().Seconds() / float64(s.PodConcurrency)
			if t, err = t.Scale(s.PeakReplicas / busy); err != nil {
				return nil, fmt.Errorf("scale to %v peak replicas: %w", s.PeakReplicas, err)
			}
		}
		return t.Source(model), nil
	}
}

// Job is one run.
type Job struct {
	Source   trace.Source
	Scenario scenario.Scenario
	Policy   Policy
	Seed     uint64
	// Warmup is simulated and not scored; Start is the instant at which it begins, and History what
	// was before (sim.Config).
	Warmup  time.Duration
	Start   time.Time
	History []algorithms.Sample
	// Rate, unless it is nil, is the load's in requests per second at an instant since its start: a
	// policy that takes a forecast gets it.
	Rate func(at time.Duration) float64
}

// forecastPolicy takes a forecast of the load, in requests in flight.
type forecastPolicy interface {
	SetKnownLoad(load func(at time.Time) float64)
}

// TakesForecast reports whether a Job's Rate is of use to the policy.
func (p *Policy) TakesForecast() bool {
	made, err := p.New(1)
	_, ok := made.(forecastPolicy)
	return err == nil && closePolicy(made) == nil && ok
}

// Matrix is every policy on every load in every scenario with every seed from 1 on, in that order
// from the outside: scenario, load, policy, seed.
func Matrix(scenarios []scenario.Scenario, loads []Load, policies []Policy, firstSeed uint64, seeds int) ([]Job, error) {
	var jobs []Job
	for _, s := range scenarios {
		for _, l := range loads {
			src, err := l(&s)
			if err != nil {
				return nil, fmt.Errorf("scenario %s: %w", s.Name, err)
			}
			for _, p := range policies {
				for k := range seeds {
					jobs = append(jobs, Job{Source: src, Scenario: s, Policy: p, Seed: firstSeed + uint64(k)})
				}
			}
		}
	}
	return jobs, nil
}

// Options say how jobs are run.
type Options struct {
	// Workers is how many at once, ≥ 1.
	Workers int
	// Points bounds the rows of each run's series; Explain has decisions worded.
	Points  int
	Explain bool
	// Share is called with the share of all work that is done, from several goroutines; it may be
	// nil.
	Share func(float64)
}

// Run runs jobs and hands each result to done, from several goroutines and in no order. The first
// fault ends all.
func Run(ctx context.Context, jobs []Job, o Options, done func(i int, run score.Run) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, o.Workers))
	var worked atomic.Int64 // in millionths of a run
	for i := range jobs {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			last := int64(0)
			progress := func(share float64) {
				now := int64(share * 1e6)
				all := worked.Add(now - last)
				if last = now; o.Share != nil {
					o.Share(float64(all) / 1e6 / float64(len(jobs)))
				}
			}
			run, err := jobs[i].Run(ctx, o, progress)
			if err != nil {
				return err
			}
			progress(1)
			return done(i, run)
		})
	}
	return g.Wait()
}

// Run does one; progress is called with the share of it that is done, and may be nil.
func (j *Job) Run(ctx context.Context, o Options, progress func(float64)) (run score.Run, err error) {
	s := j.Scenario
	if j.Policy.Tick > 0 {
		s.Tick = algorithms.Duration(j.Policy.Tick)
	}
	if j.Policy.Name == PerRequest {
		params, err := perrequest.ParseParams(j.Policy.Params)
		if err != nil {
			return score.Run{}, j.fault(err)
		}
		return perrequest.Run(ctx, perrequest.Config{
			Source: j.Source, Scenario: s, Name: j.Policy.Label, Seed: j.Seed, Progress: progress,
		}, params)
	}
	policy, err := j.Policy.New(s.PerPod())
	if err != nil {
		return score.Run{}, j.fault(err)
	}
	defer func() { err = errors.Join(err, closePolicy(policy)) }()
	if forecast, ok := policy.(forecastPolicy); ok && j.Rate != nil {
		start, service := j.Start, s.Service.Mean().Seconds()
		if start.IsZero() {
			start = sim.Epoch()
		}
		forecast.SetKnownLoad(func(at time.Time) float64 { return j.Rate(at.Sub(start)) * service })
	}
	return sim.Run(ctx, sim.Config{
		Source: j.Source, Scenario: s, Policy: policy, Name: j.Policy.Label, Seed: j.Seed, Guard: j.Policy.Guard,
		Warmup: j.Warmup, Start: j.Start, History: j.History, Points: o.Points, Explain: o.Explain, Progress: progress,
	})
}

func (j *Job) fault(err error) error { return fmt.Errorf("policy %q: %w", j.Policy.Label, err) }
