// Package scrape reads what pods and gateways say, and puts it into a store. Pods are read by HTTP
// at an interval; gateways send their reports on a stream that is held open.
package scrape

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/adapter/scrape/preset"
	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/wire"
)

// Options configure a Scraper. Store, Log and Registerer are needed.
type Options struct {
	Store *store.Store
	Log   *slog.Logger
	// Registerer takes the scraper's own metrics, sluice_adapter_….
	Registerer prometheus.Registerer
	// Presets say how pods without a sidecar are read; nil: not at all.
	Presets *preset.Set
	// Interval is how often each pod is read, 1 s–60 s. Lower follows demand sooner, at one request
	// per pod and interval.
	Interval time.Duration
	// IdleInterval is how often a pod is read of which nothing has changed for ten reads, Interval
	// to 60 s; 0 means Interval.
	IdleInterval time.Duration
	// Stale is the age beyond which a reading tells nothing of now, as in store.Options; 0 means
	// max(3×Interval, 3×IdleInterval, 5 s).
	Stale time.Duration
	// TLS returns the configuration of the next connection to a gateway, with the client's
	// certificate; nil from it means that there is none yet. A nil TLS means plain HTTP, for tests.
	TLS func() *tls.Config
	// Assigned says whether a gateway was given a port that it reports. What it reports of others
	// is left out. It must return within microseconds; nil means that every port counts.
	Assigned func(gateway string, p *wire.PortReport) bool
	// OnReport is told of each report of a gateway, at once, and of a stream that ended (not
	// Connected then). It must return within milliseconds, and is called by one goroutine per
	// gateway. Urgent names the Services of which the report says something new.
	OnReport func(g wire.Gateway, urgent []types.NamespacedName)
}

const (
	// firstRetry is the wait after the first failed read of a pod that was never read; it doubles
	// up to the interval.
	firstRetry = 100 * time.Millisecond
	// maxTimeout bounds a read's duration where the interval is long.
	maxTimeout = 5 * time.Second
)

// Scraper reads everything. It is a discover.Sink. Run runs once.
type Scraper struct {
	Options
	http    *http.Client
	streams *http.Client
	slots   *slots
	metrics instruments

	mu       sync.Mutex
	tasks    sync.WaitGroup // begun with mu held
	closed   bool           // no task is begun any more
	targets  map[types.UID]*target
	gateways map[types.UID]*target
	// endpoints are the pods that presets read.
	endpoints map[types.UID]*target
}

// target is a pod that is read, or a gateway whose reports are followed.
type target struct {
	address string
	// endpoint is what a preset reads; nil for others.
	endpoint *endpoint
	cancel   context.CancelFunc
	// poke asks for a read at once.
	poke chan struct{}
	// ready, terminating and running are the pod's states that were last acted on.
	ready, terminating, running bool
}

// wake asks for a read at once, unless one is asked for already.
func (t *target) wake() {
	select {
	case t.poke <- struct{}{}:
	default:
	}
}

// New returns a Scraper that has not started.
func New(o Options) (*Scraper, error) {
	var errs []error
	if o.Interval < time.Second || o.Interval > time.Minute {
		errs = append(errs, fmt.Errorf("interval = %v: want 1s–1m", o.Interval))
	}
	if o.IdleInterval == 0 {
		o.IdleInterval = o.Interval
	}
	if o.IdleInterval < o.Interval || o.IdleInterval > time.Minute {
		errs = append(errs, fmt.Errorf("idle interval = %v: want the interval (%v) to 1m", o.IdleInterval, o.Interval))
	}
	if o.Stale == 0 {
		o.Stale = max(3*o.Interval, 3*o.IdleInterval, 5*time.Second)
	}
	if o.Store == nil || o.Log == nil || o.Registerer == nil {
		errs = append(errs, errors.New("store, log and registerer are needed"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("scraper: %w", err)
	}
	if o.OnReport == nil {
		o.OnReport = func(wire.Gateway, []types.NamespacedName) {}
	}
	s := &Scraper{
		Options: o, slots: newSlots(maxReads, maxNamespaceReads),
		targets: map[types.UID]*target{}, gateways: map[types.UID]*target{}, endpoints: map[types.UID]*target{},
		metrics: newInstruments(),
	}
	if err := s.register(o.Registerer); err != nil {
		return nil, fmt.Errorf("scraper: register metrics: %w", err)
	}
	dial := &net.Dialer{Timeout: min(s.timeout(), 2*time.Second)}
	s.http = &http.Client{
		Transport: &http.Transport{
			DialContext: dial.DialContext, DisableCompression: true, MaxIdleConnsPerHost: 1, IdleConnTimeout: 3 * o.IdleInterval,
			MaxResponseHeaderBytes: 16 << 10,
			// A pod has no certificate for its address. What is read is not secret, and is not
			// believed beyond what the pod may say of itself.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // as the kubelet's probes
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	s.streams = newStreamClient(dial, o.TLS)
	return s, nil
}

func (s *Scraper) timeout() time.Duration { return min(s.Interval*9/10, maxTimeout) }

// Run returns when ctx has ended and with it everything that was begun.
func (s *Scraper) Run(ctx context.Context) error {
	<-ctx.Done()
	s.mu.Lock()
	s.closed = true
	for _, all := range []map[types.UID]*target{s.targets, s.endpoints, s.gateways} {
		for uid := range all {
			s.end(all, uid)
		}
	}
	s.mu.Unlock()
	s.tasks.Wait()
	s.http.CloseIdleConnections()
	return nil
}

// Synced says that SetPod and SetGateway have been called for everything that there is.
func (s *Scraper) Synced() { s.Store.Synced() }

// SetPod takes a pod's new state, and reads it from now on until it is gone or ctx ends.
func (s *Scraper) SetPod(ctx context.Context, now time.Time, p store.Pod) {
	s.Store.SetPod(now, p)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setEndpoint(ctx, &p)
	t := s.targets[p.UID]
	if p.MetricsPort == 0 || p.IP == "" {
		s.end(s.targets, p.UID)
		return
	}
	addr := net.JoinHostPort(p.IP, strconv.Itoa(p.MetricsPort))
	if t == nil || t.address != addr {
		s.end(s.targets, p.UID)
		t = &target{address: addr, poke: make(chan struct{}, 1)}
		s.targets[p.UID] = t
		s.begin(ctx, t, func(ctx context.Context) { s.repeat(ctx, t, s.readSidecar(addr, p.Namespace, p.UID)) })
	}
	t.follow(p.State, p.Running)
}

// DeletePod takes that a pod is gone.
func (s *Scraper) DeletePod(now time.Time, namespace string, uid types.UID) {
	s.mu.Lock()
	s.end(s.targets, uid)
	s.end(s.endpoints, uid)
	s.mu.Unlock()
	s.Store.DeletePod(now, namespace, uid)
}

// SetGateway takes a gateway's new state, and follows its reports from now on until it is gone or
// ctx ends.
func (s *Scraper) SetGateway(ctx context.Context, now time.Time, g store.GatewayPod) {
	s.Store.SetGateway(now, g)
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.gateways[g.UID]; t != nil && t.address == g.Control {
		if g.Running && !t.running {
			t.wake()
		}
		t.running = g.Running
		return
	}
	s.end(s.gateways, g.UID)
	t := &target{address: g.Control, poke: make(chan struct{}, 1), running: g.Running}
	s.gateways[g.UID] = t
	s.begin(ctx, t, func(ctx context.Context) { s.followGateway(ctx, t, g.UID, g.Name) })
}

// DeleteGateway takes that a gateway is gone.
func (s *Scraper) DeleteGateway(now time.Time, uid types.UID) {
	s.mu.Lock()
	s.end(s.gateways, uid)
	s.mu.Unlock()
	s.Store.DeleteGateway(now, uid)
}

// begin starts a target's work. mu is held.
func (s *Scraper) begin(ctx context.Context, t *target, work func(context.Context)) {
	ctx, t.cancel = context.WithCancel(ctx)
	if s.closed {
		t.cancel()
		return
	}
	s.tasks.Go(func() { work(ctx) })
}

// end stops a target's work. mu is held.
func (s *Scraper) end(from map[types.UID]*target, uid types.UID) {
	if t := from[uid]; t != nil {
		t.cancel()
		delete(from, uid)
	}
}
