package benchadapter

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// warmUp is how long Sluice runs before it is measured for the first time: it has fetched what
	// HPAs name by then, as it has in a cluster. settle is how long it runs after a pause, in which
	// what it had grew old.
	warmUp, settle = 7 * time.Second, 5 * time.Second
	// refill is how long prometheus-adapter rests before it is measured, until it may list pods as
	// often at once as its flags say.
	refill = 2 * time.Second
)

// measureShape measures a shape with all its adapters and latencies, in turns. prometheus-adapter
// is started anew for each window, since what it has not done of one would burden the next; Sluice
// is paused while others are measured.
func (b *bed) measureShape(ctx context.Context, s *shape, sum *Summary) error {
	fmt.Fprintln(b.Stdout, s)
	if err := b.demand(ctx, s); err != nil {
		return err
	}
	p, err := startPrometheus(ctx, b.Options)
	if err != nil {
		return err
	}
	defer p.close()
	if err := s.fill(ctx, p); err != nil {
		return err
	}
	// The first window's latency is that of the start, too.
	ours, err := b.startAdapter(ctx, sluice, p, s.latencies[0], s)
	if err != nil {
		return err
	}
	defer ours.close()
	if err := pause(ctx, warmUp); err != nil {
		return err
	}
	fresh := true
	for i, latency := range s.latencies {
		turns := slices.Clone(s.adapters)
		if i%2 == 1 {
			slices.Reverse(turns)
		}
		if latency == s.unthrottledAt {
			turns = append(turns, unthrottled)
		}
		for _, name := range turns {
			var r Run
			if name == sluice {
				ours.way.latency.Store(int64(latency))
				if !fresh {
					ours.process.resume()
					if err := pause(ctx, settle); err != nil {
						return err
					}
				}
				if r, err = ours.window(ctx, s); err != nil {
					return err
				}
				ours.process.pause()
				fresh = false
			} else {
				ours.process.pause()
				fresh = false
				if r, err = b.others(ctx, name, p, latency, s, ours); err != nil {
					return err
				}
			}
			sum.Runs = append(sum.Runs, r)
			fmt.Fprintf(b.Stdout, "  %-31s %4d ms: p50 %.2f ms, p99 %.2f ms, %d queries, %.0f MiB\n", r.Adapter, r.PrometheusLatencyMs, r.GetP50Ms, r.GetP99Ms, r.Queries, r.RSSMiB)
		}
	}
	ours.process.resume()
	if !s.fresh {
		return nil
	}
	got, err := b.measureNew(ctx, p, s, ours)
	sum.NewSeries = append(sum.NewSeries, got...)
	return err
}

// others measures an adapter that is started for one window, and sees that it and Sluice say the
// same.
func (b *bed) others(ctx context.Context, name string, p *prometheus, latency time.Duration, s *shape, ours *adapter) (Run, error) {
	a, err := b.startAdapter(ctx, name, p, latency, s)
	if err != nil {
		return Run{}, err
	}
	defer a.close()
	one := s.asks()[0]
	theirs, err := a.values(ctx, s, one)
	if err != nil {
		return Run{}, fmt.Errorf("%s: %w", name, err)
	}
	if err := pause(ctx, refill); err != nil {
		return Run{}, err
	}
	r, err := a.window(ctx, s)
	if err != nil {
		return Run{}, fmt.Errorf("%s: %w", name, err)
	}
	a.process.stop() // what it still does is not to cost the others
	ours.process.resume()
	defer ours.process.pause()
	// What Sluice has is old after the pause; it says so until it has asked again.
	for began := time.Now(); ; {
		mine, err := ours.values(ctx, s, one)
		if err == nil && !maps.Equal(theirs, mine) {
			err = fmt.Errorf("%v and %v", theirs, mine)
		}
		if err == nil {
			return r, nil
		}
		if time.Since(began) > 20*time.Second {
			return r, fmt.Errorf("%s and %s do not say the same of %s: %w", name, sluice, one.name, err)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return r, err
		}
	}
}

// measureNew measures how long it takes from a new series to the first answer with it. Others have
// listed names just before, so that a new name takes the longest; Sluice did so at any time.
func (b *bed) measureNew(ctx context.Context, p *prometheus, s *shape, ours *adapter) ([]NewSeries, error) {
	const bound = 75 * time.Second
	all := []*adapter{ours}
	for _, name := range []string{upstream, minutely} {
		a, err := b.startAdapter(ctx, name, p, s.latencies[0], s)
		if err != nil {
			return nil, err
		}
		defer a.close()
		all = append(all, a)
	}
	// A pod of a known workload, and the first series of a name.
	one := s.asks()[0]
	pod := podName(one.workload, s.pods)
	if err := b.addPod(ctx, namespaceOf(s.pods), one.workload, s.pods); err != nil {
		return nil, err
	}
	name := ask{one.workload, "bench_new"}
	series := [][]label{labels(one.name, s.pods, pod), labels(name.name, s.pods, pod)}
	if err := p.write(ctx, time.Now(), len(series), func(i int) []label { return series[i] }); err != nil {
		return nil, err
	}
	written := time.Now()
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	rows := make([]NewSeries, 2*len(all))
	var group sync.WaitGroup
	for i, a := range all {
		for j, what := range []struct {
			text string
			ask  ask
		}{{"a series of a known name", one}, {"a series of a new name", name}} {
			row := &rows[2*i+j]
			*row = NewSeries{Adapter: a.name, What: what.text, BoundSeconds: bound.Seconds()}
			group.Go(func() {
				for pause(ctx, 100*time.Millisecond) == nil {
					if v, err := a.values(ctx, s, what.ask); err == nil && v[pod] != "" {
						row.Seconds = new(time.Since(written).Seconds())
						return
					}
				}
			})
		}
	}
	group.Wait()
	return rows, nil
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
