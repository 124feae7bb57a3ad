package source

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/common/model"

	"github.com/sluice-autoscaler/sluice/adapter/rules"
)

// Bounds of listings.
const (
	// labelsPeriod is how long the names of labels are taken to be those of a series' name.
	labelsPeriod = 15 * time.Minute
	// maxNames bounds the names of one rule.
	maxNames = 20_000
	// listWorkers bounds the requests for labels at once, besides each source's own bound.
	listWorkers = 4
)

// List asks for the names of series, and for the names of the labels of those that are new.
func (s *Source) List(ctx context.Context, r *rules.Rule, now time.Time, lookback time.Duration) (rules.Listing, error) {
	from := now.Add(-lookback)
	names, warnings, err := s.Names(ctx, r.Config.SeriesQuery, from, now)
	if err == nil {
		err = s.whole(warnings)
	}
	if err != nil {
		return rules.Listing{}, fmt.Errorf("list the series of %s: %w", r.Config.SeriesQuery, err)
	}
	if len(names) > maxNames {
		return rules.Listing{}, fmt.Errorf("list the series of %s: there are %d names: want at most %d", r.Config.SeriesQuery, len(names), maxNames)
	}
	slices.Sort(names)
	var all []rules.Series
	var texts []string
	for _, name := range names {
		if r.Takes(name) {
			all = append(all, rules.Series{Name: name})
			texts = append(texts, r.Selector.Named(name))
		}
	}
	return rules.Listing{Series: all}, s.label(ctx, all, texts, from, now)
}

// label fills in the labels of series.
func (s *Source) label(ctx context.Context, all []rules.Series, texts []string, from, now time.Time) error {
	work, group := make(chan int), sync.WaitGroup{}
	errs, labels, asked := make([]error, len(all)), make([][]string, len(all)), make([]bool, len(all))
	for range listWorkers {
		group.Go(func() {
			for i := range work {
				labels[i], errs[i] = s.labelNames(ctx, texts[i], from, now)
			}
		})
	}
	for i, text := range texts {
		known, ok := s.labels[text]
		if ok {
			known.used = now
			s.labels[text] = known
			labels[i] = known.names
		}
		if !ok || now.Sub(known.at) > Spread(text, labelsPeriod) {
			asked[i] = true
			work <- i
		}
	}
	close(work)
	group.Wait()
	for i := range all {
		known, ok := s.labels[texts[i]]
		switch {
		case !asked[i]:
		case errs[i] == nil:
			s.labels[texts[i]] = labelsOf{names: labels[i], at: now, used: now}
		case ok: // what it had stands
			labels[i] = known.names
		default:
			return fmt.Errorf("list the labels of %s: %w", texts[i], errs[i])
		}
		all[i].Labels = labels[i]
	}
	return nil
}

// labelNames asks for the labels of the series that a text selects.
func (s *Source) labelNames(ctx context.Context, text string, from, now time.Time) ([]string, error) {
	names, warnings, err := s.Labels(ctx, text, from, now)
	if err == nil {
		err = s.whole(warnings)
	}
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	out := slices.DeleteFunc(names, func(n string) bool { return n == model.MetricNameLabel })
	if out == nil {
		out = []string{}
	}
	return out, nil
}

// Forget drops labels that no listing used for a while.
func (s *Source) Forget(now time.Time) {
	for text, l := range s.labels {
		if now.Sub(l.used) > labelsPeriod {
			delete(s.labels, text)
		}
	}
}

// Spread is a time between half of d and d that belongs to a text, so that not all come at once.
func Spread(text string, d time.Duration) time.Duration {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text))
	return d/2 + time.Duration(h.Sum64()%uint64(d/2)) //nolint:gosec // both are > 0
}
