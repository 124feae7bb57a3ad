package flags

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/sluice-autoscaler/sluice/bench/history"
	"github.com/sluice-autoscaler/sluice/bench/intake"
	"github.com/sluice-autoscaler/sluice/bench/trace"
	"github.com/sluice-autoscaler/sluice/prom"
)

// History is the flags that say which history of a workload is read.
type History struct {
	Query, Record, Saved                      string
	url, kind, span, end, before, gaps, token string
	headers                                   []string
	step, margin                              time.Duration
	maxGaps                                   float64

	set *pflag.FlagSet
}

// Add adds them.
func (f *History) Add(fs *pflag.FlagSet) {
	f.set = fs
	fs.StringVar(&f.url, "prometheus", "", "`URL` of a Prometheus, or of what speaks its API")
	fs.StringVar(&f.Query, "query", "", "the demand, as `PROMQL` with one series as its result")
	fs.StringVar(&f.kind, "kind", history.Concurrency, "what the demand is: concurrency or requests (per second)")
	fs.StringVar(&f.span, "range", "7d", "how far back from --end")
	fs.StringVar(&f.end, "end", "", "end of the range, `TIME` as 2026-03-01T00:00:00Z (default: now)")
	fs.DurationVar(&f.step, "step", 30*time.Second, "length of a bin of demand")
	fs.StringVar(&f.before, "history", "", "how much before the range policies that learn are given, such as 14d")
	fs.StringVar(&f.gaps, "gaps", "interpolate", "how unknown demand is filled: interpolate, hold, or day (the same time of the nearest known day)")
	fs.DurationVar(&f.margin, "gap-margin", time.Minute, "time next to a gap that is unknown as well: as long as the window of the query's rate, which is only partly covered there")
	fs.Float64Var(&f.maxGaps, "max-gaps", 0.5, "most of the range (a share) that may be unknown")
	fs.StringVar(&f.token, "bearer-token-file", "", "a `FILE` with a token for Prometheus, read again for each request")
	fs.StringArrayVar(&f.headers, "header", nil, "a header for Prometheus, `NAME: VALUE`; repeatable")
	fs.StringVar(&f.Saved, "saved", "", "a saved answer of query_range, or another `FILE` of values over time (docs/loads.md), instead of a Prometheus")
	fs.StringVar(&f.Record, "record", "", "recorded observations, a `FILE` of JSON Lines, instead of a Prometheus")
}

// Given says that any history is asked for.
func (f *History) Given() bool {
	return f.url != "" || f.Query != "" || f.Record != "" || f.Saved != ""
}

// Check reports every fault that shows without a history.
func (f *History) Check() error {
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	live := f.url != "" || f.Query != ""
	bad(f.Given(), "no history: want --prometheus URL with --query PROMQL, --saved FILE or --record FILE")
	bad(f.Saved == "" || f.Record == "" && !live, "--saved and --prometheus or --record are given: want one of them")
	bad(!live || f.Record == "", "--record and --prometheus are both given: want one of them")
	bad(!live || f.url != "" && f.Query != "", "--prometheus and --query go together: want both")
	if f.Saved != "" {
		for _, name := range []string{"replicas-query", "range", "end", "history", "bearer-token-file", "header"} {
			bad(!f.set.Changed(name), "--%s is for a Prometheus, not for --saved", name)
		}
	}
	if f.Record != "" {
		bad(f.kind == history.Concurrency, "--kind = %q: records hold concurrency", f.kind)
		for _, name := range []string{"replicas-query", "range", "end", "history", "bearer-token-file", "header", "gap-margin"} {
			bad(!f.set.Changed(name), "--%s is for a Prometheus, not for --record", name)
		}
	}
	bad(f.kind == history.Concurrency || f.kind == history.Requests, "--kind = %q: want concurrency or requests", f.kind)
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

// Read reads the history and fills its gaps; replicas is a query for the pods that really ran, or
// empty.
func (f *History) Read(ctx context.Context, replicas string) (past *history.Past, err error) {
	fill, err := history.ParseFill(f.gaps)
	if err != nil {
		return nil, fmt.Errorf("--gaps: %w", err)
	}
	switch {
	case f.Record != "":
		past, err = f.readRecord()
	case f.Saved != "":
		past, err = f.readSaved()
	default:
		past, err = f.ask(ctx, replicas)
	}
	if err != nil {
		return nil, err
	}
	return past, past.FillGaps(history.Gap{Fill: fill, Most: f.maxGaps})
}

func (f *History) readSaved() (*history.Past, error) {
	step := f.step
	if !f.set.Changed("step") {
		step = 0
	}
	margin := time.Duration(0) // what was saved is taken as it is
	if f.set.Changed("gap-margin") {
		margin = f.margin
	}
	file := intake.File{Name: f.Saved, Open: func() (io.ReadCloser, error) { return os.Open(f.Saved) }}
	past, err := history.FromSaved(file, f.kind, step, margin)
	if err != nil {
		return nil, fmt.Errorf("--saved %s: %w", f.Saved, err)
	}
	return past, nil
}

func (f *History) readRecord() (past *history.Past, err error) {
	file, err := os.Open(f.Record)
	if err != nil {
		return nil, fmt.Errorf("--record: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if past, err = history.FromRecords(file, f.step); err != nil {
		return nil, fmt.Errorf("--record %s: %w", f.Record, err)
	}
	return past, nil
}

// ask relies on Check.
func (f *History) ask(ctx context.Context, replicas string) (*history.Past, error) {
	q := history.Query{Demand: f.Query, Replicas: replicas, Kind: f.kind, End: time.Now(), Step: f.step, Margin: f.margin}
	var err error
	q.Range, err = trace.ParseDuration(f.span)
	if err == nil && f.before != "" {
		q.Before, err = trace.ParseDuration(f.before)
	}
	if err == nil && f.end != "" {
		q.End, err = time.Parse(time.RFC3339, f.end)
	}
	headers, errHeaders := headerOf(f.headers)
	if err = errors.Join(err, errHeaders); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrUsage)
	}
	c, err := prom.NewClient(f.url, prom.Auth{BearerTokenFile: f.token, Headers: headers})
	if err != nil {
		return nil, fmt.Errorf("--prometheus: %w: %w", err, ErrUsage)
	}
	return history.FromPrometheus(ctx, c, q)
}

// Keeps says which fields of a scenario stay although the history says otherwise: those that have a
// flag of their own.
func (f *Bench) Keeps() history.Keep {
	return history.Keep{PeakReplicas: f.set.Changed("peak-replicas"), InitialReplicas: f.set.Changed("initial-replicas")}
}
