package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-autoscaler/sluice/gateway/hold"
	"github.com/sluice-autoscaler/sluice/wire"
)

// refusal is an answer that the gateway gives itself, as an error.
type refusal struct {
	code   int // HTTP
	grpc   int
	reason string // Sluice-Reason
	text   string
	retry  bool // Retry-After
}

func (r *refusal) Error() string { return r.text }

// gRPC status codes of refusals.
const (
	grpcDeadline    = 4
	grpcUnavailable = 14
)

// errGone says that the client of a held request has left: there is nobody to answer.
var errGone = errors.New("client left")

// lane is one assigned Service port: its queue, and the lock and clock that the queue lacks.
type lane struct {
	target Target
	clock  func() time.Duration
	notify func(urgent bool)
	work   *workers
	probe  func(ctx context.Context, address string) bool
	every  time.Duration // probe interval

	assigned atomic.Pointer[wire.Assignment] // the latest; bounds resolved
	cancel   func()                          // ends the subscription

	mu      sync.Mutex
	queue   *hold.Queue
	probing bool
	urgent  time.Duration // when the last urgent notice was given
	kick    chan struct{}

	// Guarded by Gateway.mu.
	live  bool   // is in the assignments in effect
	owner string // whose assignment is in effect
	port  *port
	ports int // open or draining
}

// do runs f on the queue under the lock, then does what its change asks for: a notice to the readers, a prober.
func (l *lane) do(f func(q *hold.Queue, now time.Duration)) {
	l.mu.Lock()
	now := l.clock()
	waiting, ready := l.queue.Waiting(), l.queue.ReadyPods()
	f(l.queue, now)
	changed := waiting != l.queue.Waiting() || ready != l.queue.ReadyPods()
	first := waiting == 0 && l.queue.Waiting() > 0 && (l.urgent == 0 || now-l.urgent >= coalesce)
	if first {
		l.urgent = now
	}
	if l.queue.NeedsProbe() {
		if !l.probing {
			l.probing = l.work.start(l.probeLoop)
		} else if ready != l.queue.ReadyPods() {
			poke(l.kick)
		}
	}
	l.mu.Unlock()
	if changed {
		l.notify(first)
	}
}

func (l *lane) endpoints(eps []hold.Endpoint) {
	l.do(func(q *hold.Queue, now time.Duration) { q.Endpoints(now, eps) })
	poke(l.kick)
}

func (l *lane) assign(a wire.Assignment, grace time.Duration) {
	l.assigned.Store(&a)
	l.do(func(q *hold.Queue, now time.Duration) {
		q.Limit(now, hold.Limits{
			MaxHeld: a.MaxHeld, MaxHeldBytes: a.MaxHeldBytes, PodConcurrency: a.PodConcurrency,
			TerminatingGrace: grace, Failure: a.Failure,
		})
	})
}

// admit takes a request in and waits until a pod has a place for it. gone, where not nil, is asked now and then whether
// the client has left.
func (l *lane) admit(ctx context.Context, bytes int64, gone func() bool) (*hold.Ticket, error) {
	var t *hold.Ticket
	var state hold.State
	l.do(func(q *hold.Queue, now time.Duration) {
		t = q.Arrive(now, bytes)
		state = t.State()
	})
	switch state {
	case hold.Granted:
		return t, nil
	case hold.Rejected:
		return nil, l.refuse(t)
	default:
		return t, l.wait(ctx, t, gone)
	}
}

// try is admit for health checks, which never wait: nil without a place.
func (l *lane) try() *hold.Ticket {
	var t *hold.Ticket
	l.do(func(q *hold.Queue, now time.Duration) {
		if t = q.Try(now); t.State() != hold.Granted {
			t = nil
		}
	})
	return t
}

// wait blocks while t is in the queue. An error means that t is over.
func (l *lane) wait(ctx context.Context, t *hold.Ticket, gone func() bool) error {
	limit := time.Duration(l.assigned.Load().HoldSeconds * float64(time.Second))
	timer := time.NewTimer(limit - (l.clock() - t.Arrived()))
	defer timer.Stop()
	var look <-chan time.Time
	if gone != nil {
		ticker := time.NewTicker(goneInterval)
		defer ticker.Stop()
		look = ticker.C
	}
	for {
		select {
		case <-t.C:
			switch l.state(t) {
			case hold.Waiting:
			case hold.Granted:
				return nil
			default:
				return l.refuse(t)
			}
		case <-timer.C:
			if l.leave(t, hold.Expired) {
				return &refusal{
					code: 504, grpc: grpcDeadline, reason: "held-too-long",
					text: fmt.Sprintf("%s: no pod could take the request within %v", l.target, limit),
				}
			}
		case <-look:
			if gone() && l.leave(t, hold.Canceled) {
				return errGone
			}
		case <-ctx.Done():
			l.leave(t, hold.Canceled)
			return errGone
		}
	}
}

// refused puts a request back whose pod took no connection, and waits again.
func (l *lane) refused(ctx context.Context, t *hold.Ticket, gone func() bool) error {
	var state hold.State
	l.do(func(q *hold.Queue, now time.Duration) {
		q.Refused(now, t)
		state = t.State()
	})
	if state == hold.Rejected {
		return l.refuse(t)
	}
	return l.wait(ctx, t, gone)
}

func (l *lane) refuse(t *hold.Ticket) error {
	l.mu.Lock()
	full := t.Full()
	l.mu.Unlock()
	switch a := l.assigned.Load(); {
	case full:
		return &refusal{
			code: 503, grpc: grpcUnavailable, reason: "full", retry: true,
			text: fmt.Sprintf("%s: too many requests wait for a pod", l.target),
		}
	case a.Failure != "":
		return &refusal{
			code: 503, grpc: grpcUnavailable, reason: a.Failure, retry: true,
			text: fmt.Sprintf("%s: no pod can start: %s", l.target, a.Failure),
		}
	default: // the failure has been lifted since
		return &refusal{
			code: 503, grpc: grpcUnavailable, reason: "cannot-start", retry: true,
			text: fmt.Sprintf("%s: no pod could start", l.target),
		}
	}
}

func (l *lane) connected(t *hold.Ticket) {
	l.mu.Lock()
	l.queue.Connected(t)
	l.mu.Unlock()
}

func (l *lane) finish(t *hold.Ticket) {
	l.do(func(q *hold.Queue, now time.Duration) { q.Finish(now, t) })
}

func (l *lane) leave(t *hold.Ticket, why hold.State) (left bool) {
	l.do(func(q *hold.Queue, now time.Duration) { left = q.Leave(now, t, why) })
	return left
}

// where returns the pod that a granted ticket is for, and whether only a fresh connection will do.
func (l *lane) where(t *hold.Ticket) (address string, fresh bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return t.Address(), t.Fresh()
}

func (l *lane) state(t *hold.Ticket) hold.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return t.State()
}

func (l *lane) readyPods() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queue.ReadyPods()
}

// poke leaves one token in a channel of capacity 1.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// workers are goroutines that share one context and are waited for together.
type workers struct {
	// start runs f, unless close was called.
	start func(f func(context.Context)) bool
	// close ends the context and waits for all that was started.
	close func()
}

func newWorkers(ctx context.Context) *workers {
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	var (
		mu     sync.Mutex
		closed bool
		all    sync.WaitGroup
	)
	return &workers{
		start: func(f func(context.Context)) bool {
			mu.Lock()
			defer mu.Unlock()
			if !closed {
				all.Go(func() { f(ctx) })
			}
			return !closed
		},
		close: func() {
			mu.Lock()
			closed = true
			mu.Unlock()
			end()
			all.Wait()
		},
	}
}
