package serve

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// Heartbeat reports whether a loop still makes progress. The loop calls Beat when a step begins.
// Alive fails when the last step began two periods ago or longer; before the first step, time
// counts from the construction. It is safe for concurrent use, and Beat allocates nothing.
type Heartbeat struct {
	name   string
	period time.Duration
	start  time.Time
	last   atomic.Int64 // nanoseconds from start to the begin of the last step
}

// NewHeartbeat returns the heartbeat of a loop that begins a step each period (> 0). With a longer
// period a hang is found later; with a shorter one a slow step may look like a hang.
func NewHeartbeat(name string, period time.Duration, now time.Time) *Heartbeat {
	return &Heartbeat{name: name, period: period, start: now}
}

// Beat records that a step begins now. An instant before the last one changes nothing.
func (h *Heartbeat) Beat(now time.Time) {
	next := int64(now.Sub(h.start))
	for {
		last := h.last.Load()
		if next <= last || h.last.CompareAndSwap(last, next) {
			return
		}
	}
}

// Alive returns nil while the last step began less than two periods before now, else an error that
// names the time since.
func (h *Heartbeat) Alive(now time.Time) error {
	if age := now.Sub(h.start) - time.Duration(h.last.Load()); age >= 2*h.period {
		return fmt.Errorf("no step has begun for %v: want one each %v", age.Round(time.Millisecond), h.period)
	}
	return nil
}

// Check returns the heartbeat as a condition of health; clock tells the time of each probe.
func (h *Heartbeat) Check(clock func() time.Time) Check {
	return Check{Name: h.name, Probe: func(context.Context) error { return h.Alive(clock()) }}
}
