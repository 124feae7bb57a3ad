// Package inflight measures the demand on one source exactly: the time integral of the requests in flight.
package inflight

import (
	"sync"
	"time"
)

// Counter holds ∫ n dt, where n is the number of requests between Begin and End. The caller passes every instant, as the
// time since some fixed origin on a clock that does not go backwards. The zero value is ready to use, at n = 0 and
// instant 0. A Counter is safe for concurrent use, and its methods allocate nothing but Idle's channel.
//
// Instants from several goroutines may arrive in another order than they were taken. One that is older than the newest
// seen counts as the newest, so that the integral never decreases; the error is the delay between reading the clock and
// calling.
type Counter struct {
	mu   sync.Mutex // held for a few additions only
	n    int64
	last time.Duration
	// The integral, split because request-nanoseconds overflow 64 bits within months at a thousand in flight.
	seconds int64         // whole request-seconds
	rest    time.Duration // the rest, in request-nanoseconds, [0, 1 s)
	idle    chan struct{} // closed when n falls to 0; nil while nobody waits for it
}

// Reading is the state of a Counter at one instant.
type Reading struct {
	// Now is the instant of the reading; later than the one asked for when a newer one was seen already.
	Now time.Duration
	// Seconds is the integral up to Now, in request-seconds.
	Seconds float64
	// InFlight is the number of requests in flight.
	InFlight int
}

// Begin counts one more request in flight from now on.
func (c *Counter) Begin(now time.Duration) {
	c.mu.Lock()
	c.advance(now)
	c.n++
	c.mu.Unlock()
}

// End counts one request less from now on. An End without a Begin is ignored.
func (c *Counter) End(now time.Duration) {
	c.mu.Lock()
	c.advance(now)
	if c.n > 0 {
		c.n--
	}
	if c.n == 0 && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
	c.mu.Unlock()
}

// Read returns the integral and the number in flight at now.
func (c *Counter) Read(now time.Duration) Reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance(now)
	return Reading{Now: c.last, Seconds: float64(c.seconds) + c.rest.Seconds(), InFlight: int(c.n)}
}

// Idle returns a channel that is closed as soon as nothing is in flight, at once when nothing is now.
func (c *Counter) Idle() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == 0 {
		done := make(chan struct{})
		close(done)
		return done
	}
	if c.idle == nil {
		c.idle = make(chan struct{})
	}
	return c.idle
}

func (c *Counter) advance(now time.Duration) {
	if now <= c.last {
		return
	}
	passed := now - c.last
	c.last = now
	c.seconds += c.n * int64(passed/time.Second)
	c.rest += time.Duration(c.n) * (passed % time.Second)
	c.seconds += int64(c.rest / time.Second)
	c.rest %= time.Second
}
