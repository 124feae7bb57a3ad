// Package limit bounds how many requests run at once; the others wait in a bounded queue, first come, first served.
package limit

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Reasons for which Acquire gives no place.
var (
	// ErrFull says that the queue has no room.
	ErrFull = errors.New("queue full")
	// ErrTimeout says that no place came free within the time a request may wait.
	ErrTimeout = errors.New("waited too long in the queue")
)

// Limiter hands out places. New makes one; it is safe for concurrent use.
type Limiter struct {
	limit, room int
	wait        time.Duration
	waiters     sync.Pool // of *waiter

	mu      sync.Mutex
	running int
	queued  int
	// The queue, oldest first. While it is not empty no place is free: Release passes its place to the head.
	head, tail *waiter
}

type waiter struct {
	granted    chan struct{} // capacity 1: Release never blocks on it
	next, prev *waiter
	waiting    bool // in the queue; guarded by Limiter.mu
}

// New returns a Limiter of limit places (0: no limit) with room for queue waiting requests (0: none waits), each of which
// waits no longer than wait (0: as long as its context allows).
func New(limit, queue int, wait time.Duration) *Limiter {
	return &Limiter{
		limit: limit, room: queue, wait: wait,
		waiters: sync.Pool{New: func() any { return &waiter{granted: make(chan struct{}, 1)} }},
	}
}

// TryAcquire takes a place if one is free, and says whether it did; then the caller owes one Release.
func (l *Limiter) TryAcquire() bool {
	if l.limit <= 0 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running >= l.limit {
		return false
	}
	l.running++
	return true
}

// Acquire takes a place, waiting for one if it must. With a nil error the caller owes one Release. Otherwise the error
// is ErrFull, ErrTimeout or the cause of ctx's end, and nothing is owed.
func (l *Limiter) Acquire(ctx context.Context) error {
	if l.limit <= 0 {
		return nil
	}
	l.mu.Lock()
	if l.running < l.limit {
		l.running++
		l.mu.Unlock()
		return nil
	}
	if l.queued >= l.room {
		l.mu.Unlock()
		return ErrFull
	}
	w := l.waiters.Get().(*waiter)
	l.push(w)
	l.mu.Unlock()

	var expired <-chan time.Time
	if l.wait > 0 {
		t := time.NewTimer(l.wait)
		defer t.Stop()
		expired = t.C
	}
	var err error
	select {
	case <-w.granted:
		l.waiters.Put(w)
		return nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-expired:
		err = ErrTimeout
	}
	l.mu.Lock()
	if w.waiting {
		l.remove(w)
		l.mu.Unlock()
	} else {
		// A place was granted at the same moment: it goes to the next one.
		l.mu.Unlock()
		<-w.granted
		l.Release()
	}
	l.waiters.Put(w)
	return err
}

// Release gives one place back. It never blocks.
func (l *Limiter) Release() {
	if l.limit <= 0 {
		return
	}
	l.mu.Lock()
	if w := l.head; w != nil {
		l.remove(w)
		w.granted <- struct{}{}
	} else {
		l.running--
	}
	l.mu.Unlock()
}

// Limit is the number of places; 0 means no limit.
func (l *Limiter) Limit() int { return l.limit }

// Queued is the number of requests that wait now.
func (l *Limiter) Queued() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queued
}

func (l *Limiter) push(w *waiter) {
	w.waiting, w.next, w.prev = true, nil, l.tail
	if l.tail == nil {
		l.head = w
	} else {
		l.tail.next = w
	}
	l.tail = w
	l.queued++
}

func (l *Limiter) remove(w *waiter) {
	if w.prev == nil {
		l.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.waiting, w.next, w.prev = false, nil, nil
	l.queued--
}
