// Package lane is the way of one Service port's requests through a gateway: they are counted, held
// until a pod has a place for them, and refused when that takes too long. It probes pods while
// something waits.
package lane

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-autoscaler/sluice/gateway/assignment"
	"github.com/sluice-autoscaler/sluice/gateway/hold"
	"github.com/sluice-autoscaler/sluice/wire"
)

// RefusalError is an answer that the gateway gives itself, as an error.
type RefusalError struct {
	// Code is the HTTP status.
	Code int
	// Reason is the value of the header Sluice-Reason, Text what a person reads.
	Reason, Text string
	// Retry says that it is worth coming again soon.
	Retry bool
}

// Error implements error.
func (r *RefusalError) Error() string { return r.Text }

// ErrGone says that the client of a held request has left: there is nobody to answer.
var ErrGone = errors.New("client left")

// quiet is the least time between two urgent notices.
const quiet = 50 * time.Millisecond

// Options are what a Lane is made of. All but Notify are needed.
type Options struct {
	Target assignment.Target
	// Clock is the gateway's own, since its start.
	Clock func() time.Duration
	// Notify is told of changes; urgent says that a first request waits.
	Notify func(urgent bool)
	Work   *Workers
	Queue  *hold.Queue
	// ProbeInterval is the time between two probes of a pod; TCP probes by a connection alone.
	ProbeInterval time.Duration
	TCP           bool
	// TerminatingGrace is for how long a terminating pod may get new requests.
	TerminatingGrace time.Duration
	// PathLinger is for how long connections are taken after the gateway left the path.
	PathLinger time.Duration
}

// Lane is one assigned Service port: its queue, and the lock and clock that the queue lacks. It is
// safe for concurrent use.
type Lane struct {
	Options
	probe    func(ctx context.Context, address string) bool
	assigned atomic.Pointer[wire.Assignment] // the latest; bounds resolved
	// admitsUntil is until when connections are taken, by Clock.
	admitsUntil atomic.Int64

	mu      sync.Mutex
	queue   *hold.Queue
	probing bool
	urgent  time.Duration // when the last urgent notice was given
	kick    chan struct{}
}

// New returns a lane with its first assignment, whose bounds are resolved.
func New(o Options, a wire.Assignment) *Lane {
	l := &Lane{Options: o, queue: o.Queue, probe: probeHTTP, kick: make(chan struct{}, 1)}
	if o.TCP {
		l.probe = probeTCP
	}
	l.Assign(a)
	return l
}

// Counts reads the counters of several lanes at one instant of their clock, which it returns: no
// integral can be read backwards.
func Counts(clock func() time.Duration, lanes []*Lane) (now time.Duration, counts []hold.Counts) {
	// All locks, then one instant. Nobody else takes several.
	for _, l := range lanes {
		l.mu.Lock()
	}
	now = clock()
	counts = make([]hold.Counts, len(lanes))
	for i, l := range lanes {
		counts[i] = l.queue.Counts(now)
	}
	for _, l := range lanes {
		l.mu.Unlock()
	}
	return now, counts
}

// do runs f on the queue under the lock, then does what its change asks for: a notice to the
// readers, a prober.
func (l *Lane) do(f func(q *hold.Queue, now time.Duration)) {
	l.mu.Lock()
	now := l.Clock()
	waiting, ready := l.queue.Waiting(), l.queue.ReadyPods()
	f(l.queue, now)
	changed := waiting != l.queue.Waiting() || ready != l.queue.ReadyPods()
	first := waiting == 0 && l.queue.Waiting() > 0 && (l.urgent == 0 || now-l.urgent >= quiet)
	if first {
		l.urgent = now
	}
	if l.queue.NeedsProbe() {
		if !l.probing {
			l.probing = l.Work.Start(l.probeLoop)
		} else if ready != l.queue.ReadyPods() {
			poke(l.kick)
		}
	}
	l.mu.Unlock()
	if changed {
		l.Notify(first)
	}
}

// Endpoints takes what the cluster knows of the Service port's pods.
func (l *Lane) Endpoints(eps []hold.Endpoint) {
	l.do(func(q *hold.Queue, now time.Duration) { q.Endpoints(now, eps) })
	poke(l.kick)
}

// Assigned returns the assignment in effect. It is not to be changed.
func (l *Lane) Assigned() *wire.Assignment { return l.assigned.Load() }

// Admits tells whether connections are taken now: the gateway is in the path, or left it a moment
// ago, which not every proxy knows yet.
func (l *Lane) Admits() bool { return int64(l.Clock()) < l.admitsUntil.Load() }

// NoRoom is the answer to a request for which there is no place or no memory.
func (l *Lane) NoRoom() *RefusalError {
	return &RefusalError{
		Code: 503, Reason: "full", Retry: true,
		Text: fmt.Sprintf("%s: too many requests wait for a pod", l.Target),
	}
}

// CountRefusal counts a request that was refused before it was admitted.
func (l *Lane) CountRefusal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue.Refuse()
}

// Assign changes the bounds in place. It is called by one goroutine at a time.
func (l *Lane) Assign(a wire.Assignment) {
	was := l.assigned.Load()
	l.assigned.Store(&a)
	switch {
	case a.InPath:
		l.admitsUntil.Store(math.MaxInt64)
	case was != nil && was.InPath:
		l.admitsUntil.Store(int64(l.Clock() + l.PathLinger))
	}
	l.do(func(q *hold.Queue, now time.Duration) {
		q.Limit(now, hold.Limits{
			MaxHeld: a.MaxHeld, MaxHeldBytes: a.MaxHeldBytes, PodConcurrency: a.PodConcurrency,
			TerminatingGrace: l.TerminatingGrace, Failure: a.Failure,
		})
	})
}

// Admit takes a request in and waits until a pod has a place for it. gone, where not nil, is asked
// now and then whether the client has left.
func (l *Lane) Admit(ctx context.Context, bytes int64, gone func() bool) (*hold.Ticket, error) {
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

// Try is Admit for health checks, which never wait: nil without a place.
func (l *Lane) Try() *hold.Ticket {
	var t *hold.Ticket
	l.do(func(q *hold.Queue, now time.Duration) {
		if t = q.Try(now); t.State() != hold.Granted {
			t = nil
		}
	})
	return t
}

// wait blocks while t is in the queue. An error means that t is over.
func (l *Lane) wait(ctx context.Context, t *hold.Ticket, gone func() bool) error {
	limit := time.Duration(l.assigned.Load().HoldSeconds * float64(time.Second))
	timer := time.NewTimer(limit - (l.Clock() - t.Arrived()))
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
			if l.Leave(t, hold.Expired) {
				return &RefusalError{
					Code: 504, Reason: "held-too-long",
					Text: fmt.Sprintf("%s: no pod could take the request within %v", l.Target, limit),
				}
			}
		case <-look:
			if gone() && l.Leave(t, hold.Canceled) {
				return ErrGone
			}
		case <-ctx.Done():
			l.Leave(t, hold.Canceled)
			return ErrGone
		}
	}
}

// Refused puts a request back whose pod took no connection, and waits again.
func (l *Lane) Refused(ctx context.Context, t *hold.Ticket, gone func() bool) error {
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

func (l *Lane) refuse(t *hold.Ticket) error {
	l.mu.Lock()
	full := t.Full()
	l.mu.Unlock()
	switch a := l.assigned.Load(); {
	case full:
		return l.NoRoom()
	case a.Failure != "":
		return &RefusalError{
			Code: 503, Reason: a.Failure, Retry: true,
			Text: fmt.Sprintf("%s: no pod can start: %s", l.Target, a.Failure),
		}
	default: // the failure has been lifted since
		return &RefusalError{
			Code: 503, Reason: "cannot-start", Retry: true,
			Text: fmt.Sprintf("%s: no pod could start", l.Target),
		}
	}
}

// Connected notes that a connection to the ticket's pod was made.
func (l *Lane) Connected(t *hold.Ticket) {
	l.mu.Lock()
	l.queue.Connected(t)
	l.mu.Unlock()
}

// Finish gives the ticket's place back: its request was answered.
func (l *Lane) Finish(t *hold.Ticket) {
	l.do(func(q *hold.Queue, now time.Duration) { q.Finish(now, t) })
}

// Leave takes a ticket out of the queue; false when it has left already, or has been granted.
func (l *Lane) Leave(t *hold.Ticket, why hold.State) (left bool) {
	l.do(func(q *hold.Queue, now time.Duration) { left = q.Leave(now, t, why) })
	return left
}

// Where returns the pod that a granted ticket is for, and whether only a fresh connection will do.
func (l *Lane) Where(t *hold.Ticket) (address string, fresh bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return t.Address(), t.Fresh()
}

func (l *Lane) state(t *hold.Ticket) hold.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return t.State()
}

// ReadyPods is how many endpoints requests would be forwarded to now.
func (l *Lane) ReadyPods() int {
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

// Workers are goroutines that share one context and are waited for together.
type Workers struct {
	ctx context.Context //nolint:containedctx // that of the goroutines, ended by Close
	end context.CancelFunc

	mu     sync.Mutex
	closed bool
	all    sync.WaitGroup
}

// NewWorkers returns Workers without any. Their context has the values of ctx, and ends with Close.
func NewWorkers(ctx context.Context) *Workers {
	w := &Workers{}
	w.ctx, w.end = context.WithCancel(context.WithoutCancel(ctx))
	return w
}

// Start runs f, unless Close was called.
func (w *Workers) Start(f func(context.Context)) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.all.Go(func() { f(w.ctx) })
	}
	return !w.closed
}

// Close ends the context and waits for all that was started.
func (w *Workers) Close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.end()
	w.all.Wait()
}
