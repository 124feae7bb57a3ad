package fetch

import (
	"context"
	"time"

	"github.com/sluice-autoscaler/sluice/adapter/rules"
)

// kept is a listing that succeeded.
type kept struct {
	listing rules.Listing
	at      time.Time
}

// list asks what there is for each rule. A rule whose list fails has what it had, for KeepNames.
// Memory follows names of series and of labels, and never series.
func (e *Engine) list(ctx context.Context, set *rules.Set) map[*rules.Rule]rules.Listing {
	now := e.opts.Clock()
	out := map[*rules.Rule]rules.Listing{}
	asked := map[string]rules.Listing{} // rules with one seriesQuery share a list
	for _, r := range set.Rules() {
		if r.Err != nil {
			continue
		}
		key := r.Config.Source + "\x00" + r.Config.SeriesQuery
		l, ok := asked[key]
		if !ok {
			s, err := e.Source(r.Config.Source)
			if err == nil {
				l, err = s.List(ctx, r, now, time.Duration(e.opts.Config.Lookback))
			}
			switch old, known := e.listed[key]; {
			case err == nil:
				e.listed[key] = kept{l, now}
			case known && now.Sub(old.at) <= time.Duration(e.opts.Config.KeepNames):
				l = old.listing
				e.metrics.ListErrors.Inc()
			default:
				l = rules.Listing{Err: err}
				e.metrics.ListErrors.Inc()
			}
			if err != nil && ctx.Err() == nil {
				e.complain(ctx, "series not listed", key, err)
			} else {
				e.settle("series not listed", key)
			}
			asked[key] = l
		}
		out[r] = l
	}
	for key := range e.listed {
		if _, ok := asked[key]; !ok {
			delete(e.listed, key)
		}
	}
	for _, s := range e.sources {
		s.Forget(now)
	}
	return out
}
