// Package store keeps what was collected of pods and gateways, and answers what a workload's demand is, how old and how complete
// that answer is, and whether it can be trusted. Unknown is never answered as zero.
package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/algorithms/window"
	"github.com/sluice-autoscaler/sluice/wire"
)

// State is where a pod is in its life.
type State string

// The states of a pod that is not finished.
const (
	Starting    State = "Starting"
	Ready       State = "Ready"
	Terminating State = "Terminating"
)

// Pod is a pod as the informer last showed it. The instants are those at which the change was seen; where a pod is older than the
// process they are what the API says, in whole seconds. Zero means not yet.
type Pod struct {
	Namespace, Name string
	UID             types.UID
	Labels          labels.Set
	IP              string
	// MetricsPort is the container port of that name; 0 means that the pod has none and cannot be collected.
	MetricsPort int
	State       State
	// Running says that the container with the metrics port runs (any container, when there is no such port).
	Running                            bool
	Created, Scheduled, Started, Ready time.Time
	// Limit is how many requests it works on at a time, as its sidecar last said; 0 is without limit or unknown.
	Limit float64
	// Trouble is why it cannot start without help ("ImagePullBackOff: …"), "" when nothing is known to be wrong.
	Trouble string
}

// Sample is one reading of a pod's sidecar.
type Sample struct {
	// Reading holds as sums the concurrency integral, in request-seconds, and the number of requests answered.
	Reading window.Reading
	// InFlight, Queued and Limit are the gauges of that instant, in requests.
	InFlight, Queued, Limit float64
}

// Positions of the counters in a Reading: pods have both, gateways the waiting integral and arrivals.
const (
	concurrencySum = 0
	rateSum        = 1
	waitingSum     = 0
)

// Gateway is one gateway as the controller sees it.
type Gateway struct {
	// Name is the pod's name, IP its address, Control its control address ("host:port").
	Name, IP, Control string
	// Connected says whether its report stream is up; Report is the last one, nil before the first. It is not to be changed.
	Connected bool
	Report    *wire.Report
	// Leaving says that its pod does not run, or is told to go: nothing new is to be sent to it.
	Leaving bool
}

// Options configure a Store.
type Options struct {
	// Interval is how often pods are read.
	Interval time.Duration
	// Stale is the age beyond which a pod that is expected to report makes values unknown; 0 means max(3×Interval, 5 s).
	// Lower reacts sooner to what cannot be read, higher bridges longer pauses with the last mean.
	Stale time.Duration
	// GatewayStale is the same for gateways, which report each second; 0 means 5 s.
	GatewayStale time.Duration
}

// grace is how much longer than one interval a pod that just became ready may be unread without being missed.
const grace = time.Second

// podSource is a pod and its memory.
type podSource struct {
	pod    Pod
	series window.Series
	last   Sample
	// read is the receipt of the newest good reading; since is when the pod last began to be expected.
	read, since, deleted time.Time
	// cause is the last failure's, "" after a success.
	cause string
}

// portKey names one port of a Service.
type portKey struct{ namespace, service, port string }

type portSource struct {
	series  window.Series
	waiting float64
	// held says that the newest report lists the port.
	held bool
}

type gatewaySource struct {
	gateway Gateway
	running bool
	ports   map[portKey]*portSource
	// since is when it last began to be expected; read the receipt of the newest report.
	since, read, deleted time.Time
}

// Store is safe for concurrent use.
type Store struct {
	opts Options

	mu       sync.RWMutex
	pods     map[string]map[types.UID]*podSource
	gateways map[types.UID]*gatewaySource
	synced   bool
	settled  bool
}

// New returns an empty Store.
func New(o Options) *Store {
	if o.Stale == 0 {
		o.Stale = max(3*o.Interval, 5*time.Second)
	}
	if o.GatewayStale == 0 {
		o.GatewayStale = 5 * time.Second
	}
	return &Store{opts: o, pods: map[string]map[types.UID]*podSource{}, gateways: map[types.UID]*gatewaySource{}}
}

// SetPod takes a pod's state as seen at now. The instants of the pod that are already known are kept.
func (s *Store) SetPod(now time.Time, p Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ns := s.pods[p.Namespace]
	if ns == nil {
		ns = map[types.UID]*podSource{}
		s.pods[p.Namespace] = ns
	}
	src := ns[p.UID]
	if src == nil {
		src = &podSource{}
		ns[p.UID] = src
	}
	first := func(known *time.Time, told time.Time) time.Time {
		if !known.IsZero() {
			return *known
		}
		return told
	}
	p.Created = first(&src.pod.Created, p.Created)
	p.Scheduled = first(&src.pod.Scheduled, p.Scheduled)
	p.Started = first(&src.pod.Started, p.Started)
	p.Ready = first(&src.pod.Ready, p.Ready)
	if expected(&p) && !expected(&src.pod) {
		src.since = now
	}
	src.pod, src.deleted = p, time.Time{}
}

// expected says that a pod's answer is needed for a complete value: it was ready once and its container runs. One that is not ready
// now may still serve what it began, and readiness may fail for the same reason as reading does.
func expected(p *Pod) bool {
	return (p.State == Ready || p.State == Starting && !p.Ready.IsZero()) && p.Running
}

// DeletePod takes a pod away at now. What it served stays in the windows that reach back to it.
func (s *Store) DeletePod(now time.Time, namespace string, uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	src := s.pods[namespace][uid]
	switch {
	case src == nil:
	case src.read.IsZero():
		s.drop(namespace, uid)
	case src.deleted.IsZero():
		src.deleted = now
	}
}

func (s *Store) drop(namespace string, uid types.UID) {
	delete(s.pods[namespace], uid)
	if len(s.pods[namespace]) == 0 {
		delete(s.pods, namespace)
	}
}

// AddSample takes a reading of a pod. It tells whether it was used.
func (s *Store) AddSample(namespace string, uid types.UID, sample Sample) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	src := s.pods[namespace][uid]
	if src == nil || !src.series.Add(sample.Reading) {
		return false
	}
	src.last, src.read, src.cause = sample, sample.Reading.At, ""
	return true
}

// Failed notes why a pod could not be read.
func (s *Store) Failed(namespace string, uid types.UID, cause string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if src := s.pods[namespace][uid]; src != nil {
		src.cause = cause
	}
}

// SetGateway takes a gateway's address as seen at now; running says that it is up and expected to report.
func (s *Store) SetGateway(now time.Time, uid types.UID, name, ip, control string, running bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gateways[uid]
	if g == nil {
		g = &gatewaySource{ports: map[portKey]*portSource{}}
		s.gateways[uid] = g
	}
	if running && !g.running {
		g.since = now
	}
	g.running, g.deleted = running, time.Time{}
	g.gateway.Name, g.gateway.IP, g.gateway.Control = name, ip, control
}

// SetConnected notes whether a gateway's report stream is up, and returns the gateway.
func (s *Store) SetConnected(uid types.UID, up bool) (Gateway, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gateways[uid]
	if g == nil {
		return Gateway{}, false
	}
	g.gateway.Connected = up && g.deleted.IsZero()
	return g.gateway, true
}

// AddReport takes a gateway's report received at now. It returns the gateway as it was before and as it is; ok is false for a gateway
// that is not there. The report must not be changed any more.
func (s *Store) AddReport(now time.Time, uid types.UID, r *wire.Report) (before, after Gateway, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gateways[uid]
	if g == nil || !g.deleted.IsZero() {
		return before, after, false
	}
	before = g.gateway
	g.gateway.Connected, g.gateway.Report, g.read = true, r, now
	for _, p := range g.ports {
		p.held = false
	}
	for i := range r.Ports {
		pr := &r.Ports[i]
		key := portKey{pr.Namespace, pr.Service, pr.PortName}
		p := g.ports[key]
		if p == nil {
			p = &portSource{}
			g.ports[key] = p
			if last := before.Report; last != nil && last.StartTime == r.StartTime && last.Monotonic < r.Monotonic {
				// It was not assigned when the report before was made: nothing was held for it until then.
				for _, mono := range []float64{max(0, last.Monotonic-window.Longest.Seconds()), last.Monotonic} {
					age := time.Duration((r.Monotonic - mono) * float64(time.Second))
					p.series.Add(window.Reading{Life: r.StartTime, Mono: mono, At: now.Add(-age)})
				}
			}
		}
		p.held, p.waiting = true, float64(pr.Waiting)
		p.series.Add(window.Reading{Life: r.StartTime, Mono: r.Monotonic, Sums: [window.Values]float64{pr.WaitingSeconds, float64(pr.Arrived)}, At: now})
	}
	for key, p := range g.ports {
		if at, known := p.series.Newest(); !p.held && (!known || now.Sub(at) > window.Longest) {
			delete(g.ports, key)
		}
	}
	return before, g.gateway, true
}

// DeleteGateway takes a gateway away at now.
func (s *Store) DeleteGateway(now time.Time, uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.gateways[uid]; g != nil && g.deleted.IsZero() {
		g.deleted, g.running, g.gateway.Connected = now, false, false
	}
}

// Sweep forgets what no window reaches any more. It is to be called every minute or so.
func (s *Store) Sweep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for namespace, ns := range s.pods {
		for uid, src := range ns {
			if !src.deleted.IsZero() && now.Sub(src.deleted) > window.Longest {
				s.drop(namespace, uid)
			}
		}
	}
	for uid, g := range s.gateways {
		if !g.deleted.IsZero() && now.Sub(g.deleted) > window.Longest {
			delete(s.gateways, uid)
		}
	}
}

// Size returns how many pods are there, and of how many pods and gateways a memory is kept.
func (s *Store) Size() (pods, sources int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, ns := range s.pods {
		for _, src := range ns {
			if src.deleted.IsZero() {
				pods++
			}
			if !src.read.IsZero() {
				sources++
			}
		}
	}
	return pods, sources + len(s.gateways)
}

// List gives the selected pods of a namespace that are not finished, by name.
func (s *Store) List(namespace string, selector labels.Selector) []Pod {
	s.mu.RLock()
	var out []Pod
	for _, src := range s.pods[namespace] {
		if src.deleted.IsZero() && selector.Matches(src.pod.Labels) {
			p := src.pod
			p.Limit = src.last.Limit
			out = append(out, p)
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(out, func(a, b Pod) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Gateways lists the gateways, by name.
func (s *Store) Gateways() []Gateway {
	s.mu.RLock()
	out := make([]Gateway, 0, len(s.gateways))
	for _, g := range s.gateways {
		if g.deleted.IsZero() {
			gw := g.gateway
			gw.Leaving = !g.running
			out = append(out, gw)
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(out, func(a, b Gateway) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Synced says that SetPod and SetGateway have been called for everything that there is.
func (s *Store) Synced() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synced = true
}

// Ready says why nothing can be answered yet; nil once every pod and gateway that is expected to report has been read or has failed to
// be, and from then on.
func (s *Store) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.settled {
		return nil
	}
	if !s.synced {
		return errors.New("the pods are not listed yet")
	}
	for _, ns := range s.pods {
		for _, src := range ns {
			if src.deleted.IsZero() && src.pod.MetricsPort != 0 && src.pod.IP != "" && expected(&src.pod) && src.read.IsZero() && src.cause == "" {
				return fmt.Errorf("pod %s/%s is not read yet", src.pod.Namespace, src.pod.Name)
			}
		}
	}
	s.settled = true
	return nil
}
