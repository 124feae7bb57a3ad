package remote

import (
	"fmt"
	"sync"
	"time"
)

const (
	// failuresToOpen is how many failures in a row stop requests.
	failuresToOpen = 5
	// firstPause and longestPause bound the time without requests; it doubles.
	firstPause, longestPause = 2 * time.Second, 30 * time.Second
)

// breaker stops requests to a provider that fails. Once a pause is over one request may try. It is
// safe for concurrent use; its zero value lets requests pass.
type breaker struct {
	mu       sync.Mutex
	failures int
	pause    time.Duration
	until    time.Time
	trying   bool
	last     error
	success  time.Time
}

// pausedError says that a provider is not asked for a while.
type pausedError struct {
	failures int
	until    time.Time
	last     error
}

// Error implements error.
func (e *pausedError) Error() string {
	return fmt.Sprintf("not asked until %s after %d failures in a row: %v", e.until.UTC().Format(time.TimeOnly), e.failures, e.last)
}

// Unwrap gives the last failure.
func (e *pausedError) Unwrap() error { return e.last }

// begin says why no request may be made. Each begin without an error is followed by an end.
func (b *breaker) begin(now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < failuresToOpen {
		return nil
	}
	if b.trying || now.Before(b.until) {
		return &pausedError{failures: b.failures, until: b.until, last: b.last}
	}
	b.trying = true
	return nil
}

// end tells how a request went: an error of the provider, an answer (with why it is of no use, if
// it is not), or neither, which says nothing.
func (b *breaker) end(now time.Time, err error, answered bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trying = false
	switch {
	case answered:
		b.failures, b.pause, b.until, b.last = 0, 0, time.Time{}, err
		if err == nil {
			b.success = now
		}
	case err != nil:
		b.failures++
		b.last = err
		if b.failures >= failuresToOpen && !now.Before(b.until) {
			b.pause = min(max(2*b.pause, firstPause), longestPause)
			b.until = now.Add(b.pause)
		}
	}
}

// health tells what was wrong with the last request, nil for nothing, and whether any succeeded.
func (b *breaker) health() (last error, succeeded bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last, !b.success.IsZero()
}
