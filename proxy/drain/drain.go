// Package drain orders the end of a server: unready at once, serving on while the cluster learns of it, then waiting for
// what still runs. It knows no transport.
package drain

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Drain is one such end. New makes it; it is safe for concurrent use. It happens once and is never taken back.
type Drain struct {
	lameDuck, limit time.Duration
	draining        atomic.Bool
	once            sync.Once
	begun, done     chan struct{}
	err             error // written before done is closed
}

// New returns a Drain that serves on for lameDuck ≥ 0 after its begin, and then gives running requests up to limit ≥ 0.
func New(lameDuck, limit time.Duration) *Drain {
	return &Drain{lameDuck: lameDuck, limit: limit, begun: make(chan struct{}), done: make(chan struct{})}
}

// Begin starts the drain and returns at once; only the first call has an effect.
func (d *Drain) Begin() {
	d.once.Do(func() {
		d.draining.Store(true)
		close(d.begun)
	})
}

// Draining says whether the drain has begun; it is cheap enough for every request.
func (d *Drain) Draining() bool { return d.draining.Load() }

// Begun is closed when the drain begins.
func (d *Drain) Begun() <-chan struct{} { return d.begun }

// Done is closed when the drain is over, whether or not everything ended in time; Err tells.
func (d *Drain) Done() <-chan struct{} { return d.done }

// Err is nil until Done is closed, and after it when everything ended in time.
func (d *Drain) Err() error {
	select {
	case <-d.done:
		return d.err
	default:
		return nil
	}
}

// Run waits for Begin, which the end of ctx causes too, then for the lame duck, and then calls finish, which is to close
// what is idle and wait for what runs; finish's context ends when the limit is reached. Run is called once.
func (d *Drain) Run(ctx context.Context, finish func(context.Context) error) error {
	select {
	case <-d.begun:
	case <-ctx.Done():
		d.Begin()
	}
	if d.lameDuck > 0 {
		t := time.NewTimer(d.lameDuck)
		<-t.C
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.limit)
	defer cancel()
	if err := finish(bound); err != nil {
		d.err = fmt.Errorf("drain within %v: %w", d.limit, err)
	}
	close(d.done)
	return d.err
}
