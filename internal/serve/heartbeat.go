package serve

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// Heartbeat tells whether a loop still turns. The loop calls Beat when a step begins; a loop whose last step began two
// periods ago or longer is taken for hung. Until the first step, time counts from the construction. It is safe for
// concurrent use, and Beat allocates nothing.
type Heartbeat struct {
	name   string
	period time.Duration
	start  time.Time
	last   atomic.Int64 // nanoseconds from start to the begin of the last step
}

// NewHeartbeat returns the heartbeat of the loop of that name, which begins a step each period (> 0). A longer period
// notices a hang later; a shorter one may take a slow step for a hang.
func NewHeartbeat(name string, period time.Duration, now time.Time) *Heartbeat {
	return &Heartbeat{name: name, period: period, start: now}
}

// Beat says that a step begins now. An earlier instant than the last one changes nothing.
func (h *Heartbeat) Beat(now time.Time) {
	next := int64(now.Sub(h.start))
	for {
		last := h.last.Load()
		if next <= last || h.last.CompareAndSwap(last, next) {
			return
		}
	}
}

// Alive returns nil while the last step began less than two periods before now, else since when no step has begun.
func (h *Heartbeat) Alive(now time.Time) error {
	if age := now.Sub(h.start) - time.Duration(h.last.Load()); age >= 2*h.period {
		return fmt.Errorf("no step has begun for %v: want one each %v", age.Round(time.Millisecond), h.period)
	}
	return nil
}

// Check returns h as a condition of health, by that clock.
func (h *Heartbeat) Check(clock func() time.Time) Check {
	return Check{Name: h.name, Probe: func(context.Context) error { return h.Alive(clock()) }}
}
