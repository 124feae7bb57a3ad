package history

import (
	"context"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/trace"
	"github.com/sluice-autoscaler/sluice/prom"
)

// The kinds of demand.
const (
	// Concurrency is requests in flight.
	Concurrency = "concurrency"
	// Requests is requests per second.
	Requests = "requests"
)

// Past is what a workload went through, ready to be replayed.
type Past struct {
	// Kind is what the demand counts.
	Kind string
	// Demand is cut to what is known, with its gaps filled. Before is what came before it, with
	// gaps. Ran is the pods that really ran, with gaps; it is empty unless they were asked for.
	Demand, Before, Ran Series
	// Gaps are those that Fill has filled.
	Gaps Gaps
	Fill Fill

	odd int
	// asked is the whole range, which may be longer than the demand.
	asked    time.Duration
	warnings []string
}

// Gap says how unknown demand is dealt with.
type Gap struct {
	Fill Fill
	// Most is the share of the demand that may be unknown, 0 up to below 1.
	Most float64
}

// FromRecords reads recorded observations, in steps.
func FromRecords(r io.Reader, step time.Duration) (*Past, error) {
	p := &Past{Kind: Concurrency}
	var err error
	if p.Demand, p.Ran, err = ReadRecords(r, step); err != nil {
		return nil, err
	}
	p.asked = p.Demand.End().Sub(p.Demand.Start)
	return p, nil
}

// Query is what a Prometheus is asked.
type Query struct {
	// Demand and Replicas are PromQL for one series each; the latter may be empty.
	Demand, Replicas string
	// Kind is what the demand counts.
	Kind string
	// Range ends at End. Before is how much of the time before it is read too.
	Range, Before time.Duration
	End           time.Time
	// Step is the length of a bin of demand. Margin is the time next to a gap that is unknown as
	// well: as long as the window of the query's rate.
	Step, Margin time.Duration
}

// FromPrometheus asks a Prometheus.
func FromPrometheus(ctx context.Context, c *prom.Client, q Query) (*Past, error) {
	begin := q.End.Add(-q.Range).Truncate(q.Step)
	series, warnings, err := c.Query(ctx, prom.Range{PromQL: q.Demand, From: begin.Add(-q.Before), To: q.End, Step: q.Step})
	if err != nil {
		return nil, err
	}
	all := Series(series.Widen(q.Margin))
	p := &Past{
		Kind: q.Kind, Demand: all.Cut(begin, q.End), Before: all.Cut(begin.Add(-q.Before), begin), odd: all.Odd, warnings: warnings,
	}
	p.asked = p.Demand.End().Sub(p.Demand.Start)
	if q.Replicas == "" {
		return p, nil
	}
	ran, more, err := c.Query(ctx, prom.Range{PromQL: q.Replicas, From: begin, To: q.End, Step: q.Step})
	if err != nil {
		return nil, err
	}
	p.Ran, p.warnings = Series(ran), append(p.warnings, more...)
	return p, nil
}

// Keep says what of a scenario stays as it is, whatever follows from the history.
type Keep struct{ PeakReplicas, InitialReplicas bool }

// Run is the history in a scenario.
type Run struct {
	// Source gives the arrivals, which begin at the demand's start.
	Source trace.Source
	// Scenario is the one given with what follows from the history.
	Scenario scenario.Scenario
	// Before is what policies that learn are given.
	Before []algorithms.Sample
}

// In lays the history into a scenario. The load is what it was, so a peak scales nothing unless it
// is kept, and a run begins with as many pods as the first bin needs unless that is kept. model is
// how requests fall within the bins.
func (p *Past) In(s scenario.Scenario, model trace.Model, keep Keep) (Run, error) {
	work := s.Service.Mean().Seconds()
	rate, concurrency, before := p.Demand, p.Demand, p.Before
	if p.Kind == Concurrency {
		rate = p.Demand.Times(1 / work)
	} else {
		concurrency, before = p.Demand.Times(work), p.Before.Times(work)
	}
	t, err := rate.Trace("history")
	if err != nil {
		return Run{}, fmt.Errorf("scenario %s: %w", s.Name, err)
	}
	if !keep.PeakReplicas {
		s.PeakReplicas = 0
	}
	if !keep.InitialReplicas {
		first := algorithms.Pods(math.Ceil(concurrency.Values[0] / s.PerPod()))
		s.InitialReplicas = min(max(first, s.MinReplicas), s.MaxReplicas)
	}
	if pods := concurrency.Peak() / s.PerPod(); pods > float64(s.MaxReplicas) && s.PeakReplicas == 0 {
		p.warnings = append(p.warnings, fmt.Sprintf("the busiest bin asks for %.0f pods in scenario %s, which has at most %d (--max-replicas)",
			math.Ceil(pods), s.Name, s.MaxReplicas))
	}
	src, err := plan.Recorded(func(time.Duration) (*trace.Trace, error) { return t, nil }, model)(&s)
	if err != nil {
		return Run{}, err
	}
	return Run{Source: src, Scenario: s, Before: before.Samples(algorithms.Concurrency)}, nil
}

// FillGaps trims the demand to what is known, and fills its gaps.
func (p *Past) FillGaps(g Gap) error {
	p.Fill = g.Fill
	trimmed, ok := p.Demand.Trim()
	if !ok {
		return fmt.Errorf("nothing is known of the demand from %s on for %v: want a query that has results there; an empty one is not taken for zero",
			p.Demand.Start.UTC().Format(time.RFC3339), p.asked)
	}
	if p.Gaps = trimmed.Gaps(); p.Gaps.Share > g.Most {
		return fmt.Errorf("%.1f %% of the demand is unknown (%s, %v in all): want at most --max-gaps %v, another --query, or another --range", 100*p.Gaps.Share,
			plural(p.Gaps.Count, "gap"), p.Gaps.Total, g.Most)
	}
	var err error
	if p.Demand, err = trimmed.Fill(g.Fill); err != nil {
		return err
	}
	if p.Demand.Peak() == 0 {
		return fmt.Errorf("the demand is 0 all the time from %s to %s: there is nothing to scale for", p.Demand.Start.UTC().Format(time.RFC3339), p.Demand.End().UTC().Format(time.RFC3339))
	}
	if len(p.Ran.Values) > 0 {
		p.Ran = p.Ran.Cut(p.Demand.Start, p.Demand.End())
	}
	return nil
}

// Notes are what a reader of the results must know.
func (p *Past) Notes() []string {
	out := []string{fmt.Sprintf("Demand is %s from %s to %s in steps of %v, as it was served: what was refused then is not in it, and its waiting may be.",
		p.Kind, p.Demand.Start.UTC().Format(time.RFC3339), p.Demand.End().UTC().Format(time.RFC3339), p.Demand.Step)}
	if length := p.Demand.End().Sub(p.Demand.Start); length < p.asked {
		out = append(out, fmt.Sprintf("Of the %s asked for, the first and last %s are unknown and left out.", FormatLong(p.asked), FormatLong(p.asked-length)))
	}
	if p.Gaps.Count > 0 {
		out = append(out, fmt.Sprintf("%.2f %% of the demand is unknown: %s, %s in all, the longest %s. It was filled (%s), and counts in the scores.",
			100*p.Gaps.Share, plural(p.Gaps.Count, "gap"), FormatLong(p.Gaps.Total), FormatLong(p.Gaps.Longest), p.Fill))
	}
	if p.odd > 0 {
		out = append(out, fmt.Sprintf("%d values were negative or infinite and taken for unknown.", p.odd))
	}
	if len(p.Before.Values) > 0 {
		out = append(out, fmt.Sprintf("Policies that learn were given what is known of the %s before (%.1f %%).", FormatLong(p.Before.End().Sub(p.Before.Start)), 100*(1-p.Before.Gaps().Share)))
	}
	for _, w := range p.warnings {
		out = append(out, "Warning: "+w)
	}
	return out
}

// plural is a count with its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// FormatLong writes a duration that may be of many days.
func FormatLong(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%.4g d", d.Hours()/24)
	}
	return d.String()
}
