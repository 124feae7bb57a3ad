package process

import (
	"slices"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/algorithms/window"
)

// The counters of a source's Series.
const (
	concurrencySum = iota
	requestsSum
)

const (
	// freshFor is for how long the reading of See does for the Get of the same round.
	freshFor = time.Second
	// mostGone bounds how many instances that are gone are remembered of one workload.
	mostGone = 1000
)

// source is what counts requests: an instance, or what holds requests.
type source struct {
	id     string
	series window.Series
	last   Counters
	// read is when its counters were last read, the zero time for never.
	read time.Time
	// expected says that it is to be heard of; since is from when on.
	expected bool
	since    time.Time
	// gone is when it was first missing from the document, the zero time while it is there.
	gone time.Time
}

// workload is what is remembered of one workload. It is safe for concurrent use.
type workload struct {
	mu        sync.Mutex
	instances []loop.Instance
	// read is when the document was last read.
	read    time.Time
	sources map[string]*source
	// order has the sources in the order of their first reading: sums do not depend on a map's.
	order []*source
	held  *source

	// offered is a count that the next Get may take, offeredAt when it was read; the zero time
	// for none.
	offered   int
	offeredAt time.Time
	// seen is the path in the latest document, put what Put last made it.
	seen *Path
	put  *loop.PathState
}

// remember takes a document that was received at an instant.
func (w *workload) remember(doc *Document, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.read, w.seen = at, doc.Path
	w.instances = w.instances[:0]
	here := make(map[string]bool, len(doc.Instances))
	for i := range doc.Instances {
		in := &doc.Instances[i]
		here[in.ID] = true
		if in.State != algorithms.PodFailed {
			w.instances = append(w.instances, in.instance())
		}
		s := w.sources[in.ID]
		if s == nil {
			s = &source{id: in.ID}
			w.sources[in.ID], w.order = s, append(w.order, s)
		}
		s.take(in.Counters, at, in.State == algorithms.PodReady)
		if in.State == algorithms.PodFailed {
			s.leave(at)
		}
	}
	gone := 0
	for _, s := range w.order {
		if !here[s.id] {
			s.leave(at)
			gone++
		}
	}
	w.order = slices.DeleteFunc(w.order, func(s *source) bool { // the longest there go first
		drop := !here[s.id] && (gone > mostGone || at.Sub(s.gone) > window.Longest)
		if drop {
			gone--
			delete(w.sources, s.id)
		}
		return drop
	})
	if doc.Held != nil {
		if w.held == nil {
			w.held = &source{}
		}
		w.held.take(&doc.Held.Counters, at, true)
	} else if w.held != nil {
		w.held.leave(at)
	}
}

// take takes a source's counters, nil for none.
func (s *source) take(c *Counters, at time.Time, expected bool) {
	s.gone = time.Time{}
	if expected && !s.expected {
		s.since = at
	}
	s.expected = expected
	if c == nil {
		return
	}
	r := window.Reading{Life: c.StartTime, Mono: c.MonotonicSeconds, At: at}
	r.Sums[concurrencySum], r.Sums[requestsSum] = c.ConcurrencySeconds, c.Requests
	// A counter that stands still as its clock does was read all the same.
	s.series.Add(r)
	s.last, s.read = *c, at
}

// leave says that a source is there no more.
func (s *source) leave(at time.Time) {
	if s.gone.IsZero() {
		s.gone, s.expected = at, false
	}
}

// add adds a source to a total. A source that is expected and was not read makes the total unknown.
func (s *source) add(t *window.Total, k int, stale time.Duration) {
	if !s.gone.IsZero() {
		t.Add(&s.series, k, false, 0)
		return
	}
	missed := s.expected && (s.read.Before(s.since) || t.Now.Sub(s.read) > stale)
	t.Add(&s.series, k, !missed && !s.read.IsZero() && t.Now.Sub(s.read) <= stale, s.last.InFlight)
	if missed {
		since := s.since
		if s.read.After(since) {
			since = s.read
		}
		t.Miss(since, !s.read.IsZero())
	}
}

// answer fills in a signal.
func (w *workload) answer(s *algorithms.Signal, now time.Time, stale time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.read.IsZero() || s.Window < 0 || s.Window > window.Longest {
		return
	}
	t := window.Total{Now: now, Width: s.Window}
	k, instances, held := concurrencySum, true, true
	switch s.Name {
	case algorithms.Concurrency:
	case algorithms.Waiting:
		instances = false
	case algorithms.Rate:
		if s.Window == algorithms.Instant {
			return // a rate has no instant
		}
		k, held = requestsSum, false
	default:
		return
	}
	if instances {
		for _, src := range w.order {
			src.add(&t, k, stale)
		}
	}
	if held && w.held != nil {
		w.held.add(&t, k, stale)
	}
	if now.Sub(w.read) > stale { // there may be instances by now that nobody has told of
		t.Miss(w.read, false)
	}
	s.Value, s.Known, s.Coverage, s.Age = t.Value(), t.Known(), t.Coverage(), t.Age()
}

// offer lets the next Get take a count that was just read.
func (w *workload) offer(n int, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offered, w.offeredAt = n, at
}

// take takes the count that was offered, once.
func (w *workload) take(now time.Time) (n int, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ok = !w.offeredAt.IsZero() && now.Sub(w.offeredAt) < freshFor
	w.offeredAt = time.Time{}
	return w.offered, ok
}

// spoil drops the count that was offered: it is about to change.
func (w *workload) spoil() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offeredAt = time.Time{}
}

// agreed tells whether the path is what it ought to be, by the latest document and what was put.
func (w *workload) agreed(want loop.PathState) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen != nil && w.seen.In == want.In && w.put != nil && *w.put == want
}

func (w *workload) agree(want loop.PathState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.put = &want
	if w.seen != nil {
		seen := *w.seen
		seen.In = want.In
		w.seen = &seen
	}
}
