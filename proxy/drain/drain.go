// Package drain orders the end of a server: it is unready at once, serves on while the cluster
// learns of that, and then waits for running requests. It depends on no transport.
package drain

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// slack is how much later than it should a drain may be undone before Overdue says so.
const slack = 20 * time.Second

// Drain is such an end. One that was asked for by Begin, and that no end of the process follows, is
// undone: otherwise whoever may ask for it could take the server out of service for good. New makes
// it; it is safe for concurrent use.
type Drain struct {
	lameDuck, limit, undo time.Duration
	draining              atomic.Bool
	again                 chan struct{} // capacity 1: Begin was called while it drains

	mu          sync.Mutex
	begun, done chan struct{} // of the present drain, or the next one
	err         error         // of the last one that is over
	since       time.Time     // when the present one was last asked for
	final       bool          // the process is to end: nothing is undone
}

// Steps are what a server does for a drain.
type Steps struct {
	// Begun is called when a drain has begun, Undone when it was undone. Nil is nothing to do.
	Begun, Undone func()
	// Finish is called after the lame duck. It closes what is idle and waits for what runs; its
	// context ends when the limit is reached.
	Finish func(context.Context) error
}

// New returns a Drain that serves on for lameDuck ≥ 0 after its begin, and then gives running
// requests up to limit ≥ 0. It is undone when the process has not been told to end within undo
// after that; 0 means never.
func New(lameDuck, limit, undo time.Duration) *Drain {
	d := &Drain{lameDuck: lameDuck, limit: limit, undo: undo, again: make(chan struct{}, 1)}
	d.begun, d.done = make(chan struct{}), make(chan struct{})
	return d
}

// Begin starts the drain and returns at once. While one is under way it only puts off that this one
// is undone.
func (d *Drain) Begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.since = time.Now()
	if d.draining.Swap(true) {
		select {
		case d.again <- struct{}{}:
		default:
		}
		return
	}
	close(d.begun)
}

// Draining says whether a drain is under way or over; it is cheap enough for every request.
func (d *Drain) Draining() bool { return d.draining.Load() }

// Done is closed when the drain is over, whether or not everything ended in time; Err tells.
func (d *Drain) Done() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}

// Err is of the last drain that is over: nil when everything ended in time, or when none is over.
func (d *Drain) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// Overdue returns an error when the drain should have been undone by now.
func (d *Drain) Overdue(now time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.draining.Load() || d.final || d.undo == 0 {
		return nil
	}
	if took, most := now.Sub(d.since), d.lameDuck+d.limit+d.undo+slack; took > most {
		return fmt.Errorf("drained %v ago, and neither ended nor undone: want one within %v", took.Round(time.Second), most)
	}
	return nil
}

// Run waits for Begin, which the end of ctx causes too, then for the lame duck, and then finishes.
// Then it waits for the end of ctx, and undoes the drain if that does not come. It returns the last
// drain's error when ctx has ended and the drain is over. Run is called once.
func (d *Drain) Run(ctx context.Context, steps Steps) error {
	for {
		d.mu.Lock()
		begun := d.begun
		d.mu.Unlock()
		select {
		case <-begun:
		case <-ctx.Done():
			d.Begin()
		}
		call(steps.Begun)
		err := d.once(ctx, steps.Finish)
		d.mu.Lock()
		d.err = err
		close(d.done)
		d.mu.Unlock()
		if d.ends(ctx) {
			return err
		}
		call(steps.Undone)
	}
}

func call(f func()) {
	if f != nil {
		f()
	}
}

// once drains.
func (d *Drain) once(ctx context.Context, finish func(context.Context) error) error {
	if d.lameDuck > 0 {
		t := time.NewTimer(d.lameDuck)
		<-t.C
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.limit)
	defer cancel()
	if err := finish(bound); err != nil {
		return fmt.Errorf("drain within %v: %w", d.limit, err)
	}
	return nil
}

// ends waits for the end of ctx, and says whether it came. If not, the drain is undone.
func (d *Drain) ends(ctx context.Context) bool {
	t := time.NewTimer(d.undo)
	defer t.Stop()
	late := t.C
	if d.undo == 0 {
		late = nil
	}
	for {
		select {
		case <-ctx.Done():
		case <-d.again:
			t.Reset(d.undo)
			continue
		case <-late:
		}
		if ended, again := d.undoUnless(ctx); !again {
			return ended
		}
		t.Reset(d.undo)
	}
}

// undoUnless undoes the drain, unless ctx has ended or the drain was just asked for again.
func (d *Drain) undoUnless(ctx context.Context) (ended, again bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ctx.Err() != nil {
		d.final = true
		return true, false
	}
	select {
	case <-d.again:
		return false, true
	default:
	}
	d.begun, d.done = make(chan struct{}), make(chan struct{})
	d.draining.Store(false)
	return false, false
}
