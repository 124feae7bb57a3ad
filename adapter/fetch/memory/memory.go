// Package memory repeats queries while somebody asks for them, and keeps their last outcomes.
package memory

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/adapter/fetch/source"
	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
)

// maxQueries bounds the queries that are repeated at once. What goes beyond is unknown.
const maxQueries = 20_000

// Key is what is asked of a source.
type Key struct {
	From string
	source.Query
	// Tenant is the namespace whose query it is, "" for the operator's.
	Tenant string
	// Every is the time between two requests, 0 for the memory's.
	Every time.Duration
}

// Outcome is what came of of a query.
type Outcome struct {
	Result answer.Result
	// Err says why there is no result.
	Err error
	// At is when it was asked, so that the result is no older than that.
	At time.Time
	// Took is how long Prometheus needed.
	Took time.Duration
}

// entry is a query that is repeated while somebody asks for it.
type entry struct {
	key Key
	// first is closed once there is an outcome.
	first chan struct{}

	// The memory's lock guards what follows.
	last     Outcome
	done     bool
	busy     bool
	failures int
	next     time.Time
	wanted   time.Time
}

// Memory holds queries with their last outcomes. It is safe for concurrent use.
type Memory struct {
	interval, keep time.Duration
	clock          func() time.Time
	// ask asks a source.
	ask func(ctx context.Context, key Key) (answer.Result, error)

	mu      sync.Mutex
	entries map[Key]*entry
	wake    chan struct{}
}

// New makes a Memory. A query is repeated each interval, and dropped when nobody has asked for it
// for the time keep. ask asks a source.
func New(interval, keep time.Duration, clock func() time.Time, ask func(context.Context, Key) (answer.Result, error)) *Memory {
	return &Memory{interval: interval, keep: keep, clock: clock, ask: ask, entries: map[Key]*entry{}, wake: make(chan struct{}, 1)}
}

// Want has a query repeated from now on. The first time it is due at once.
func (m *Memory) Want(key Key) (*entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	e := m.entries[key]
	if e == nil {
		if len(m.entries) >= maxQueries {
			return nil, fmt.Errorf("there are %d queries already", len(m.entries))
		}
		e = &entry{key: key, first: make(chan struct{}), next: now}
		m.entries[key] = e
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
	e.wanted = now
	return e, nil
}

// Read gives the last outcome of a query; it waits for the first one.
func (m *Memory) Read(ctx context.Context, key Key) Outcome {
	e, err := m.Want(key)
	if err != nil {
		return Outcome{Err: err}
	}
	select {
	case <-e.first:
	default:
		select {
		case <-e.first:
		case <-ctx.Done():
			return Outcome{Err: fmt.Errorf("it is asked for the first time, and there is no answer yet: %w", context.Cause(ctx))}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return e.last
}

// Look has a query repeated, and gives its last outcome without waiting; ok is false before the
// first.
func (m *Memory) Look(key Key) (f Outcome, ok bool) {
	e, err := m.Want(key)
	if err != nil {
		return Outcome{Err: err, At: m.clock()}, true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return e.last, e.done
}

// Peek gives the last outcome of a query without asking for it.
func (m *Memory) Peek(key Key) (f Outcome, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[key]
	if e == nil || !e.done {
		return Outcome{}, e != nil
	}
	return e.last, true
}

// Size is how many queries are repeated.
func (m *Memory) Size() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.entries)
}

// tick is how often due queries are looked for.
const tick = 250 * time.Millisecond

// Run asks what is due until ctx ends.
func (m *Memory) Run(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var group sync.WaitGroup
	defer group.Wait()
	for {
		for _, e := range m.due() {
			group.Go(func() { m.fetch(ctx, e) })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-m.wake:
		}
	}
}

// due takes what is to be asked now, and drops what nobody asks for.
func (m *Memory) due() []*entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	var due []*entry
	for key, e := range m.entries {
		switch {
		case e.busy:
		case now.Sub(e.wanted) > m.keep:
			delete(m.entries, key)
		case !now.Before(e.next):
			e.busy = true
			due = append(due, e)
		}
	}
	return due
}

// fetch asks once.
func (m *Memory) fetch(ctx context.Context, e *entry) {
	began := m.clock()
	result, err := m.ask(ctx, e.key)
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	e.busy = false
	if ctx.Err() != nil {
		return
	}
	e.last = Outcome{Result: result, Err: err, At: began, Took: now.Sub(began)}
	if err == nil {
		e.failures = 0
		e.next = m.slot(e.key, began)
	} else {
		// A failure is soon tried again, then less and less soon.
		e.failures++
		e.next = now.Add(min(m.every(e.key), time.Second<<min(e.failures-1, 10)))
	}
	if !e.done {
		e.done = true
		close(e.first)
	}
}

// slot is the next instant of a query: each has its own phase within the interval, so that not all
// are asked at once.
func (m *Memory) slot(key Key, from time.Time) time.Time {
	interval := m.every(key)
	phase := source.Spread(key.From+key.PromQL, 2*interval) - interval
	next := from.Truncate(interval).Add(phase)
	for !next.After(from) {
		next = next.Add(interval)
	}
	return next
}

func (m *Memory) every(key Key) time.Duration {
	if key.Every > 0 {
		return key.Every
	}
	return m.interval
}
