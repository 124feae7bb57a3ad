package main

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/bench/history"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/trace"
	"github.com/sluice-autoscaler/sluice/prom"
)

// historyFlags say which history of a workload is read.
type historyFlags struct {
	url, query, kind, span, end, before, gaps, token, record string
	headers                                                  []string
	step, margin                                             time.Duration
	maxGaps                                                  float64
}

func (f *historyFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.url, "prometheus", "", "`URL` of a Prometheus, or of what speaks its API")
	fl.StringVar(&f.query, "query", "", "the demand, as `PROMQL` with one series as its result")
	fl.StringVar(&f.kind, "kind", "concurrency", "what the demand is: concurrency or requests (per second)")
	fl.StringVar(&f.span, "range", "7d", "how far back from --end")
	fl.StringVar(&f.end, "end", "", "end of the range, `TIME` as 2026-03-01T00:00:00Z (default: now)")
	fl.DurationVar(&f.step, "step", 30*time.Second, "length of a bin of demand")
	fl.StringVar(&f.before, "history", "", "how much before the range policies that learn are given, such as 14d")
	fl.StringVar(&f.gaps, "gaps", "interpolate", "how unknown demand is filled: interpolate, hold, or day (the same time of the nearest known day)")
	fl.DurationVar(&f.margin, "gap-margin", time.Minute, "time next to a gap that is unknown as well: as long as the window of the query's rate, which is only partly covered there")
	fl.Float64Var(&f.maxGaps, "max-gaps", 0.5, "most of the range (a share) that may be unknown")
	fl.StringVar(&f.token, "bearer-token-file", "", "a `FILE` with a token for Prometheus, read again for each request")
	fl.StringArrayVar(&f.headers, "header", nil, "a header for Prometheus, `NAME: VALUE`; repeatable")
	fl.StringVar(&f.record, "record", "", "recorded observations, a `FILE` of JSON Lines, instead of a Prometheus")
}

// given says that any history is asked for.
func (f *historyFlags) given() bool { return f.url != "" || f.query != "" || f.record != "" }

// check reads the flags that need no history.
func (f *historyFlags) check(cmd *cobra.Command) error {
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	live := f.url != "" || f.query != ""
	bad(f.given(), "no history: want --prometheus URL with --query PROMQL, or --record FILE")
	bad(!live || f.record == "", "--record and --prometheus are both given: want one of them")
	bad(!live || f.url != "" && f.query != "", "--prometheus and --query go together: want both")
	if f.record != "" {
		bad(f.kind == "concurrency", "--kind = %q: records hold concurrency", f.kind)
		for _, name := range []string{"replicas-query", "range", "end", "history", "bearer-token-file", "header", "gap-margin"} {
			bad(!cmd.Flags().Changed(name), "--%s is for a Prometheus, not for --record", name)
		}
	}
	bad(f.kind == "concurrency" || f.kind == "requests", "--kind = %q: want concurrency or requests", f.kind)
	bad(f.step >= time.Second && f.step <= 24*time.Hour, "--step = %v: want 1s–24h", f.step)
	bad(f.maxGaps >= 0 && f.maxGaps < 1, "--max-gaps = %v: want a share, 0 up to below 1", f.maxGaps)
	bad(f.margin >= 0 && f.margin <= 24*time.Hour, "--gap-margin = %v: want 0s–24h", f.margin)
	span, err := trace.ParseDuration(f.span)
	bad(err == nil && span >= 2*f.step, "--range = %q: want a time of at least two steps, such as 30d", f.span)
	if f.before != "" {
		d, err := trace.ParseDuration(f.before)
		bad(err == nil && d >= 0, "--history = %q: want a time, such as 14d", f.before)
	}
	if f.end != "" {
		_, err := time.Parse(time.RFC3339, f.end)
		bad(err == nil, "--end = %q: want a time such as 2026-03-01T00:00:00Z", f.end)
	}
	if _, err := history.ParseFill(f.gaps); err != nil {
		errs = append(errs, fmt.Errorf("--gaps: %w", err))
	}
	_, err = headerOf(f.headers)
	return errors.Join(append(errs, err)...)
}

// past is the history of a workload.
type past struct {
	kind string
	// demand is trimmed to what is known, and filled; before is what came before the range, ran the pods that really ran.
	demand, before, ran history.Series
	gaps                history.Gaps
	fill                history.Fill
	odd                 int
	// asked is the whole range, which may be longer than demand.
	asked    time.Duration
	warnings []string
}

// headerOf reads NAME: VALUE.
func headerOf(given []string) (http.Header, error) {
	h := http.Header{}
	for _, g := range given {
		name, value, ok := strings.Cut(g, ":")
		name = strings.TrimSpace(name)
		if !ok || name == "" || strings.ContainsAny(g, "\r\n") {
			return nil, errors.New("--header: want NAME: VALUE on one line")
		}
		h.Add(name, strings.TrimSpace(value))
	}
	return h, nil
}

// read reads the history and fills its gaps; replicas is a query for the pods that really ran, or empty.
func (f *historyFlags) read(cmd *cobra.Command, replicas string) (*past, error) {
	b := &past{kind: f.kind}
	var err error
	if b.fill, err = history.ParseFill(f.gaps); err != nil {
		return nil, fmt.Errorf("--gaps: %w", err)
	}
	if f.record != "" {
		err = b.fromRecords(f.record, f.step)
	} else {
		err = f.fromPrometheus(cmd, b, replicas)
	}
	if err != nil {
		return nil, err
	}
	return b, b.prepare(f.maxGaps)
}

func (b *past) fromRecords(name string, step time.Duration) (err error) {
	file, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("--record: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if b.demand, b.ran, err = history.ReadRecords(file, step); err != nil {
		return fmt.Errorf("--record %s: %w", name, err)
	}
	b.asked = b.demand.End().Sub(b.demand.Start)
	return nil
}

// fromPrometheus relies on check.
func (f *historyFlags) fromPrometheus(cmd *cobra.Command, b *past, replicas string) error {
	span, err := trace.ParseDuration(f.span)
	var before time.Duration
	if err == nil && f.before != "" {
		before, err = trace.ParseDuration(f.before)
	}
	end := time.Now()
	if err == nil && f.end != "" {
		end, err = time.Parse(time.RFC3339, f.end)
	}
	headers, errHeaders := headerOf(f.headers)
	if err = errors.Join(err, errHeaders); err != nil {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	p, err := prom.NewClient(f.url, prom.Auth{BearerTokenFile: f.token, Headers: headers})
	if err != nil {
		return fmt.Errorf("--prometheus: %w: %w", err, errUsage)
	}
	begin := end.Add(-span).Truncate(f.step)
	series, warnings, err := p.Query(cmd.Context(), prom.Range{PromQL: f.query, From: begin.Add(-before), To: end, Step: f.step})
	if err != nil {
		return err
	}
	b.warnings = warnings
	all := history.Series(series.Widen(f.margin))
	b.demand, b.before, b.odd = all.Cut(begin, end), all.Cut(begin.Add(-before), begin), all.Odd
	b.asked = b.demand.End().Sub(b.demand.Start)
	if replicas != "" {
		ran, more, err := p.Query(cmd.Context(), prom.Range{PromQL: replicas, From: begin, To: end, Step: f.step})
		if err != nil {
			return err
		}
		b.ran, b.warnings = history.Series(ran), append(b.warnings, more...)
	}
	return nil
}

// load is the demand in a scenario: the arrivals, when they begin, what was before, and the scenario with what follows from them: the load
// is what it was, so a peak scales nothing unless asked for, and a run begins with as many pods as the first bin needs.
func (b *past) load(cmd *cobra.Command, s scenario.Scenario, model trace.Model) (trace.Source, scenario.Scenario, []algorithms.Sample, error) {
	work := s.Service.Mean().Seconds()
	rate, concurrency, before := b.demand, b.demand, b.before
	if b.kind == "concurrency" {
		rate = b.demand.Times(1 / work)
	} else {
		concurrency, before = b.demand.Times(work), b.before.Times(work)
	}
	t, err := rate.Trace("history")
	if err != nil {
		return nil, s, nil, fmt.Errorf("scenario %s: %w", s.Name, err)
	}
	if !cmd.Flags().Changed("peak-replicas") {
		s.PeakReplicas = 0
	}
	if !cmd.Flags().Changed("initial-replicas") {
		s.InitialReplicas = min(max(algorithms.Pods(math.Ceil(concurrency.Values[0]/s.PerPod())), s.MinReplicas), s.MaxReplicas)
	}
	if pods := concurrency.Peak() / s.PerPod(); pods > float64(s.MaxReplicas) && s.PeakReplicas == 0 {
		b.warnings = append(b.warnings, fmt.Sprintf("the busiest bin asks for %.0f pods in scenario %s, which has at most %d (--max-replicas)", math.Ceil(pods), s.Name, s.MaxReplicas))
	}
	src, err := plan.Recorded(func(time.Duration) (*trace.Trace, error) { return t, nil }, model)(&s)
	return src, s, before.Samples(algorithms.Concurrency), err
}

// prepare trims and fills.
func (b *past) prepare(maxGaps float64) error {
	trimmed, ok := b.demand.Trim()
	if !ok {
		return fmt.Errorf("nothing is known of the demand from %s on for %v: want a query that has results there; an empty one is not taken for zero",
			b.demand.Start.UTC().Format(time.RFC3339), b.asked)
	}
	if b.gaps = trimmed.Gaps(); b.gaps.Share > maxGaps {
		return fmt.Errorf("%.1f %% of the demand is unknown (%s, %v in all): want at most --max-gaps %v, another --query, or another --range", 100*b.gaps.Share,
			plural(b.gaps.Count, "gap"), b.gaps.Total, maxGaps)
	}
	var err error
	if b.demand, err = trimmed.Fill(b.fill); err != nil {
		return err
	}
	if b.demand.Peak() == 0 {
		return fmt.Errorf("the demand is 0 all the time from %s to %s: there is nothing to scale for", b.demand.Start.UTC().Format(time.RFC3339), b.demand.End().UTC().Format(time.RFC3339))
	}
	if len(b.ran.Values) > 0 {
		b.ran = b.ran.Cut(b.demand.Start, b.demand.End())
	}
	return nil
}

// notes are what a reader of the results must know.
func (b *past) notes() []string {
	out := []string{fmt.Sprintf("Demand is %s from %s to %s in steps of %v, as it was served: what was refused then is not in it, and its waiting may be.",
		b.kind, b.demand.Start.UTC().Format(time.RFC3339), b.demand.End().UTC().Format(time.RFC3339), b.demand.Step)}
	if length := b.demand.End().Sub(b.demand.Start); length < b.asked {
		out = append(out, fmt.Sprintf("Of the %s asked for, the first and last %s are unknown and left out.", words(b.asked), words(b.asked-length)))
	}
	if b.gaps.Count > 0 {
		out = append(out, fmt.Sprintf("%.2f %% of the demand is unknown: %s, %s in all, the longest %s. It was filled (%s), and counts in the scores.",
			100*b.gaps.Share, plural(b.gaps.Count, "gap"), words(b.gaps.Total), words(b.gaps.Longest), b.fill))
	}
	if b.odd > 0 {
		out = append(out, fmt.Sprintf("%d values were negative or infinite and taken for unknown.", b.odd))
	}
	if len(b.before.Values) > 0 {
		out = append(out, fmt.Sprintf("Policies that learn were given what is known of the %s before (%.1f %%).", words(b.before.End().Sub(b.before.Start)), 100*(1-b.before.Gaps().Share)))
	}
	for _, w := range b.warnings {
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

// words writes a long duration for people.
func words(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%.4g d", d.Hours()/24)
	}
	return d.String()
}
