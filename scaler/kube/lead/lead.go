// Package lead lets one of several replicas scale, by a lease, and lets it lose the lease and win
// it again while it runs. A term is a stretch of time in which this replica holds the lease.
//
// controller-runtime's manager ends the process when it loses its lease. An outage of the API
// server would then cost every window and every policy's memory, and a back-off of restarts on top.
// So the election runs beside a manager that has none, and rounds ask whether there is a term.
//
// A term ends by this replica's own clock, RenewDeadline after the last renewal was asked for. That
// is before LeaseDuration, when others may take the lease. Fence refuses writes outside a term.
package lead

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

const (
	// LeaseDuration is how long others leave a lease that is not renewed.
	LeaseDuration = 8 * time.Second
	// RenewDeadline is how long a renewal lasts for its holder; the difference is the room for a
	// write that is under way.
	RenewDeadline = 5 * time.Second
	// RetryPeriod is the least time between two attempts to take or renew it.
	RetryPeriod = time.Second
)

// ErrNotLeading means that a write was refused because this replica does not hold the lease.
var ErrNotLeading = errors.New("this replica does not hold the lease")

// Term describes a term. Terms are comparable.
type Term struct {
	// Memory is equal in two terms of this process when nobody else held the lease in between, so
	// that what was remembered in the one is true in the other.
	Memory int
	// Epoch grows from term to term over all replicas, unless the lease is deleted: it is the
	// instant at which the lease was taken, in Unix nanoseconds, or one more than the term before.
	// Terms of one holder with nobody between them share it.
	Epoch int64
}

// Leader takes part in an election. It is safe for concurrent use.
type Leader struct {
	lock resourcelock.Interface
	log  *slog.Logger
	// always says that there is no election.
	always bool

	mu sync.Mutex
	// ctx ends with the term; it is nil outside one. It is no call's context.
	ctx  context.Context //nolint:containedctx // it is the term, which many calls end with
	end  context.CancelFunc
	term Term
	// renewed is when the last renewal that succeeded was asked for; expiry ends the term then.
	renewed time.Time
	expiry  *time.Timer
	// changed is closed when a term begins or ends.
	changed chan struct{}
	// other says that another holder was seen since the last term. epoch is the highest seen.
	other       bool
	epoch       int64
	transitions int
}

// New returns a Leader that takes part in the election of a lease.
func New(lock resourcelock.Interface, log *slog.Logger) *Leader {
	return &Leader{lock: lock, log: log, other: true, changed: make(chan struct{})}
}

// NewLease returns the lock for New: a Lease of this name, and an identity that no other replica
// has.
func NewLease(cfg *rest.Config, namespace, name, identity string) (resourcelock.Interface, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.Timeout = RenewDeadline / 2 // so that a request that hangs leaves time for another
	client, err := coordinationv1.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	return &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Client: client,
		LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
	}, nil
}

// Always returns a Leader that leads from now on, without an election.
func Always(epoch int64) *Leader {
	l := &Leader{always: true, changed: make(chan struct{}), term: Term{Memory: 1, Epoch: epoch}}
	l.ctx, l.end = context.WithCancel(context.Background())
	return l
}

// Run takes part in the election until ctx ends, and gives the lease up then.
func (l *Leader) Run(ctx context.Context) error {
	if l.always {
		<-ctx.Done()
		return nil
	}
	for ctx.Err() == nil {
		e, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: watched{l.lock, l}, LeaseDuration: LeaseDuration, RenewDeadline: RenewDeadline, RetryPeriod: RetryPeriod,
			// The lock tells of terms: it knows when a renewal was asked for, which counts. A lease
			// that was lost is not given up: its holder may take it again and go on.
			Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) {}, OnStoppedLeading: func() {}},
		})
		if err != nil {
			return fmt.Errorf("take part in the election: %w", err)
		}
		e.Run(ctx)
	}
	l.finish("given up")
	l.release(context.WithoutCancel(ctx))
	return nil
}

// release gives the lease up, so that another replica need not wait for its end.
func (l *Leader) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, RetryPeriod)
	defer cancel()
	r, _, err := l.lock.Get(ctx)
	if err != nil || r.HolderIdentity != l.lock.Identity() {
		return
	}
	now := metav1.Now()
	err = l.lock.Update(ctx, resourcelock.LeaderElectionRecord{
		LeaderTransitions: r.LeaderTransitions, LeaseDurationSeconds: 1, RenewTime: now, AcquireTime: now,
	})
	if err != nil {
		l.log.WarnContext(ctx, "lease not given up: others wait for its end", slog.Any("error", err))
	}
}

// Term returns the term that there is; ok is false when there is none.
func (l *Leader) Term() (t Term, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.term, l.leads()
}

// Bind returns a context that also ends with the term that there is; ok is false when there is
// none. The caller calls cancel.
func (l *Leader) Bind(ctx context.Context) (bound context.Context, cancel context.CancelFunc, t Term, ok bool) {
	l.mu.Lock()
	term, t, ok := l.ctx, l.term, l.leads()
	l.mu.Unlock()
	if !ok {
		return ctx, func() {}, t, false
	}
	bound, end := context.WithCancelCause(ctx)
	stop := context.AfterFunc(term, func() { end(ErrNotLeading) })
	return bound, func() { stop(); end(nil) }, t, true
}

// Each calls f once in each term, with a context that ends with the term, until ctx ends or f
// fails within its term. It waits for f.
func (l *Leader) Each(ctx context.Context, f func(ctx context.Context, t Term) error) error {
	for {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		if bound, cancel, t, ok := l.Bind(ctx); ok {
			err := f(bound, t)
			over := bound.Err() != nil
			if cancel(); err != nil && !over {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// leads tells whether there is a term; l.mu is held.
func (l *Leader) leads() bool { return l.ctx != nil && l.ctx.Err() == nil }

// mayWrite tells whether the term still lasts by both clocks: the monotonic one, which others
// cannot set, and that of the wall, which goes on while a machine is suspended.
func (l *Leader) mayWrite(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leads() && (l.always || now.Sub(l.renewed) < RenewDeadline && now.Round(0).Sub(l.renewed.Round(0)) < RenewDeadline)
}

// renew begins a term or prolongs it, after a write of the lease that was asked for at an instant.
func (l *Leader) renew(asked time.Time, r *resourcelock.LeaderElectionRecord) {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := RenewDeadline - time.Since(asked)
	if left <= 0 { // the answer came too late to be of use
		return
	}
	l.renewed = asked
	if l.leads() {
		l.expiry.Reset(left)
		return
	}
	if l.other || r.LeaderTransitions != l.transitions || l.term.Memory == 0 {
		l.term = Term{Memory: l.term.Memory + 1, Epoch: max(r.AcquireTime.UnixNano(), l.epoch+1)}
	}
	l.other, l.transitions, l.epoch = false, r.LeaderTransitions, l.term.Epoch
	ctx, end := context.WithCancel(context.Background())
	l.ctx, l.end = ctx, end
	l.expiry = time.AfterFunc(left, func() {
		if ctx.Err() == nil && !l.renewedWithin(RenewDeadline) {
			l.finish("not renewed in time")
		}
	})
	l.announce()
	l.log.Info("leading", slog.Int64("epoch", l.term.Epoch), slog.Int("memory", l.term.Memory))
}

// renewedWithin guards against an expiry that a renewal has overtaken.
func (l *Leader) renewedWithin(d time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.renewed) < d
}

// finish ends the term, if there is one.
func (l *Leader) finish(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.leads() {
		return
	}
	l.expiry.Stop()
	l.end()
	l.announce()
	l.log.Info("not leading", slog.String("reason", why))
}

// announce tells Each; l.mu is held.
func (l *Leader) announce() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// see notes who holds the lease.
func (l *Leader) see(r *resourcelock.LeaderElectionRecord) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.HolderIdentity != "" && r.HolderIdentity != l.lock.Identity() {
		l.other = true
		l.epoch = max(l.epoch, r.AcquireTime.UnixNano())
	}
}

// watched is a lock that tells its Leader what becomes of the lease.
type watched struct {
	resourcelock.Interface
	l *Leader
}

// Get implements resourcelock.Interface.
func (w watched) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	r, raw, err := w.Interface.Get(ctx)
	if err == nil {
		w.l.see(r)
		if r.HolderIdentity != "" && r.HolderIdentity != w.Identity() {
			w.l.finish("another replica holds the lease")
		}
	}
	return r, raw, err
}

// Create implements resourcelock.Interface.
func (w watched) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	return w.write(ctx, &r, w.Interface.Create)
}

// Update implements resourcelock.Interface.
func (w watched) Update(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	return w.write(ctx, &r, w.Interface.Update)
}

func (w watched) write(ctx context.Context, r *resourcelock.LeaderElectionRecord, do func(context.Context, resourcelock.LeaderElectionRecord) error) error {
	asked := time.Now()
	if err := do(ctx, *r); err != nil {
		return err
	}
	w.l.renew(asked, r) //nolint:contextcheck // a term outlives the request that began it
	return nil
}

// Fence returns a transport that refuses what would change the cluster while there is no term.
// Reads and events pass.
func (l *Leader) Fence(next http.RoundTripper) http.RoundTripper { return fence{l, next} }

type fence struct {
	l    *Leader
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (f fence) RoundTrip(r *http.Request) (*http.Response, error) {
	if changes(r) && !f.l.mayWrite(time.Now()) {
		if r.Body != nil {
			_ = r.Body.Close() // as a RoundTripper has to
		}
		return nil, ErrNotLeading
	}
	return f.next.RoundTrip(r)
}

// WrappedRoundTripper lets the Kubernetes client find the transport by which requests are
// cancelled.
func (f fence) WrappedRoundTripper() http.RoundTripper { return f.next }

// changes tells whether a request changes anything but events, which every replica may record.
func changes(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return false
	}
	return !strings.Contains(r.URL.Path, "/apis/events.k8s.io/")
}
