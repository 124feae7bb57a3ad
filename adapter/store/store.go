// Package store keeps what was read of pods and gateways, and answers what a workload's demand is,
// how old and how complete that answer is, and whether it can be trusted. Unknown is never answered
// as zero.
//
// A workload is bound to its pods and Services once, by Bind, and is then read by its Ref: such a
// read costs what the workload's own pods cost, whatever else the namespace or the cluster holds.
package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/algorithms/window"
)

// Options configure a Store.
type Options struct {
	// Interval is how often pods are read.
	Interval time.Duration
	// Stale is the age beyond which a pod that is expected to report makes values unknown; 0 means
	// max(3×Interval, 5 s). Lower reacts sooner to what cannot be read, higher bridges longer
	// pauses with the last mean.
	Stale time.Duration
	// GatewayStale is the same for gateways, which report each second; 0 means 5 s.
	GatewayStale time.Duration
	// Signals are the names of the signals that presets give. Others than those, concurrency, rate
	// and waiting are unknown.
	Signals []string
	// OnSilentGateway, when given, is told once of each gateway that is left out since it runs and
	// has not reported for GatewayLost. It must return within milliseconds.
	OnSilentGateway func(GatewayPod)
}

// grace is how much longer than one interval a pod that just became ready may be unread without
// being missed.
const grace = time.Second

// GatewayLost is how long a gateway that runs and does not report makes the values of the Services
// that it may hold for unknown. Then it is left out: it may be one that will never report. Longer
// bridges longer pauses, and stops scaling for as long.
const GatewayLost = 30 * time.Second

// Bounds of what is kept of reports, beside those of scrape.
const (
	// maxServices bounds the Services kept of one gateway. Over it those go that it does not
	// report.
	maxServices = 32_768
	// maxWaiting bounds the requests that a port may be said to hold.
	maxWaiting = 1_000_000
)

// Store is safe for concurrent use. Its locks are taken in this order: bindMu, a namespace's, a
// binding's, a pod's; a gateway's reportMu, its own, a Service's. The others are taken alone. None
// is held for longer than one pod's, one Service's or one workload's numbers take.
type Store struct {
	opts  Options
	named map[string]struct{} // Options.Signals

	// mu guards the map of namespaces, refMu that of bindings, gatewayMu the list of gateways.
	mu         sync.RWMutex
	namespaces map[string]*namespace

	bindMu   sync.Mutex // makes changes of bindings follow one another
	refMu    sync.RWMutex
	bindings map[loop.Ref]*binding

	gatewayMu sync.RWMutex
	gateways  []*gatewaySource // by name

	readyMu        sync.Mutex
	synced, filled bool
}

// New returns an empty Store.
func New(o Options) *Store {
	if o.Stale == 0 {
		o.Stale = max(3*o.Interval, 5*time.Second)
	}
	if o.GatewayStale == 0 {
		o.GatewayStale = 5 * time.Second
	}
	if o.OnSilentGateway == nil {
		o.OnSilentGateway = func(GatewayPod) {}
	}
	s := &Store{opts: o, namespaces: map[string]*namespace{}, bindings: map[loop.Ref]*binding{}, named: map[string]struct{}{}}
	for _, name := range o.Signals {
		s.named[name] = struct{}{}
	}
	return s
}

// findNamespace returns a namespace, nil when nothing is known of it.
func (s *Store) findNamespace(name string) *namespace {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.namespaces[name]
}

// lockNamespace returns a namespace, which it makes if need be, with its lock held.
func (s *Store) lockNamespace(name string) *namespace {
	for {
		ns := s.findNamespace(name)
		if ns == nil {
			s.mu.Lock()
			if ns = s.namespaces[name]; ns == nil {
				ns = newNamespace()
				s.namespaces[name] = ns
			}
			s.mu.Unlock()
		}
		ns.mu.Lock()
		if !ns.removed {
			return ns
		}
		ns.mu.Unlock()
	}
}

// allNamespaces returns the namespaces by name, as they are now.
func (s *Store) allNamespaces() map[string]*namespace {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return maps.Clone(s.namespaces)
}

// SweepPeriod is how often Run drops what no window reaches. A sweep takes the store's locks, so
// whoever holds one for good stops it.
const SweepPeriod = 10 * time.Second

// Run keeps the store small until ctx ends. Beat, where it is not nil, is called at the beginning
// of each sweep.
func (s *Store) Run(ctx context.Context, beat func(now time.Time)) error {
	sweep := time.NewTicker(SweepPeriod)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-sweep.C:
			if beat != nil {
				beat(now)
			}
			s.Sweep(now)
		}
	}
}

// Sweep drops what no window reaches any more. Run calls it.
func (s *Store) Sweep(now time.Time) {
	for name, ns := range s.allNamespaces() {
		ns.mu.Lock()
		for _, src := range ns.deleted {
			if now.Sub(src.deletedAt()) > window.Longest {
				ns.drop(src)
			}
		}
		if ns.empty() {
			ns.removed = true
			s.mu.Lock()
			delete(s.namespaces, name)
			s.mu.Unlock()
		}
		ns.mu.Unlock()
	}
	s.sweepGateways(now)
}

// Size returns how many pods there are, and of how many pods and gateways readings are kept.
func (s *Store) Size() (pods, sources int) {
	for _, ns := range s.allNamespaces() {
		ns.mu.RLock()
		for _, src := range ns.pods {
			src.mu.Lock()
			if src.deleted.IsZero() {
				pods++
			}
			if !src.read.IsZero() || src.preset != nil && !src.preset.Read.IsZero() {
				sources++
			}
			src.mu.Unlock()
		}
		ns.mu.RUnlock()
	}
	s.gatewayMu.RLock()
	defer s.gatewayMu.RUnlock()
	return pods, sources + len(s.gateways)
}

// Synced says that SetPod and SetGateway have been called for everything that there is.
func (s *Store) Synced() {
	s.readyMu.Lock()
	defer s.readyMu.Unlock()
	s.synced = true
}

// Ready says why nothing can be answered yet; nil once every pod that is expected to report has
// been read or has failed to be, and from then on.
func (s *Store) Ready() error {
	s.readyMu.Lock()
	defer s.readyMu.Unlock()
	if s.filled {
		return nil
	}
	if !s.synced {
		return errors.New("the pods are not listed yet")
	}
	for _, ns := range s.allNamespaces() {
		if pod, ok := ns.unread(); ok {
			return fmt.Errorf("pod %s/%s is not read yet", pod.Namespace, pod.Name)
		}
	}
	s.filled = true
	return nil
}
