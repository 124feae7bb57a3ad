// Package history reads the past of workloads from a Prometheus, for policies that learn from it.
package history

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/prom"
)

// Query is how the past of a signal is asked for.
type Query struct {
	Signal   string
	Template prom.Template
	// Setting is what an error names as the place of the template, such as a flag.
	Setting string
}

// Config says what is read. All fields but Queries are required.
type Config struct {
	Client *prom.Client
	// Setting is what an error names as the place of the Prometheus, such as a flag.
	Setting string
	// Queries are those of the signals that are known; others have no past.
	Queries []Query
	// Range is how much of the past is read, Step the time between its points. A longer range costs
	// memory and time, a shorter step too.
	Range, Step time.Duration
	Log         *slog.Logger
}

// Reader reads the past of workloads. It is safe for concurrent use.
type Reader struct{ config Config }

// NewReader relies on a config that is complete.
func NewReader(c Config) *Reader { return &Reader{config: c} }

// Fetch returns the known samples of a workload's signals up to an instant, in the order of their
// instants. A gap is left out, and so is one step beside it, where a rate is of a window that is
// covered in part only.
func (r *Reader) Fetch(ctx context.Context, w prom.Workload, signals []string, until time.Time) ([]algorithms.Sample, error) {
	var all []algorithms.Sample
	for _, q := range r.config.Queries {
		if !slices.Contains(signals, q.Signal) {
			continue
		}
		series, err := r.read(ctx, w, q, until)
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", q.Signal, w, err)
		}
		for at, v := range series.Widen(r.config.Step).Known() {
			all = append(all, algorithms.Sample{At: at, Signal: q.Signal, Value: v})
		}
	}
	slices.SortStableFunc(all, func(a, b algorithms.Sample) int { return a.At.Compare(b.At) })
	return all, nil
}

func (r *Reader) read(ctx context.Context, w prom.Workload, q Query, until time.Time) (prom.Series, error) {
	c := &r.config
	promQL, err := q.Template.Expand(w, c.Step)
	if err != nil {
		return prom.Series{}, fmt.Errorf("%w; see %s", err, q.Setting)
	}
	series, warnings, err := c.Client.Query(ctx, prom.Range{PromQL: promQL, From: until.Add(-c.Range), To: until, Step: c.Step})
	if err != nil {
		return prom.Series{}, fmt.Errorf("%w; see %s and %s", err, c.Setting, q.Setting)
	}
	if len(warnings) > 0 || series.Odd > 0 {
		c.Log.WarnContext(ctx, "history read with doubts", slog.String("target", w.String()), slog.String("signal", q.Signal),
			slog.Any("prometheus_warnings", warnings), slog.Int("values_negative_or_infinite", series.Odd))
	}
	return series, nil
}
