package store

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/algorithms/window"
	"github.com/sluice-autoscaler/sluice/wire"
)

// Positions of the counters in a Reading: pods have the concurrency integral and answers, gateways
// the waiting integral and arrivals.
const (
	concurrencySum = 0
	rateSum        = 1
	waitingSum     = 0
)

// GatewayPod is a gateway's pod as the informer last showed it.
type GatewayPod struct {
	UID types.UID
	// Name is the pod's name, IP its address, Control its control address ("host:port").
	Name, IP, Control string
	// Running says that it is up and expected to report.
	Running bool
}

// portSource is one port of a Service at one gateway.
type portSource struct {
	name    string
	series  window.Series
	waiting float64
	// held says that the newest report lists the port.
	held bool
}

// serviceSource is what one gateway holds for one Service.
type serviceSource struct {
	mu    sync.Mutex
	ports []*portSource // few, in the order of their first report
	// turn is the number of the newest report that named the Service.
	turn uint64
}

// port returns a port; fresh says that it was not known.
func (s *serviceSource) port(name string) (p *portSource, fresh bool) {
	for _, p := range s.ports {
		if p.name == name {
			return p, false
		}
	}
	p = &portSource{name: name}
	s.ports = append(s.ports, p)
	return p, true
}

// release says that nothing is held any more.
func (s *serviceSource) release() {
	for _, p := range s.ports {
		p.held = false
	}
}

// prune drops the ports that no window reaches any more.
func (s *serviceSource) prune(now time.Time) {
	s.ports = slices.DeleteFunc(s.ports, func(p *portSource) bool {
		at, known := p.series.Newest()
		return !p.held && (!known || now.Sub(at) > window.Longest)
	})
}

type gatewaySource struct {
	uid types.UID
	// reportMu makes reports follow one another. turn counts them.
	reportMu sync.Mutex
	turn     uint64
	order    []int32 // scratch

	// mu guards what follows. services changes with reportMu held as well.
	mu       sync.RWMutex
	gateway  wire.Gateway
	running  bool
	services map[types.NamespacedName]*serviceSource
	// since is when it last began to be expected; read the receipt of the newest report.
	since, read, deleted time.Time
	// told says that OnSilentGateway was.
	told bool
}

// lost tells whether the gateway was not heard of for so long that it is left out. mu is held.
func (g *gatewaySource) lost(now time.Time) bool {
	return now.Sub(g.since) > GatewayLost && now.Sub(g.read) > GatewayLost
}

func (g *gatewaySource) name() string {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.gateway.Name
}

// findGateway returns a gateway, nil when there is none. There are few.
func (s *Store) findGateway(uid types.UID) *gatewaySource {
	s.gatewayMu.RLock()
	defer s.gatewayMu.RUnlock()
	for _, g := range s.gateways {
		if g.uid == uid {
			return g
		}
	}
	return nil
}

// SetGateway takes a gateway's state as seen at now.
func (s *Store) SetGateway(now time.Time, p GatewayPod) {
	g := s.findGateway(p.UID)
	fresh := g == nil
	if fresh {
		g = &gatewaySource{uid: p.UID, services: map[types.NamespacedName]*serviceSource{}}
	}
	g.mu.Lock()
	if p.Running && !g.running {
		g.since = now
	}
	g.running, g.deleted = p.Running, time.Time{}
	g.gateway.Name, g.gateway.IP, g.gateway.Control = p.Name, p.IP, p.Control
	g.mu.Unlock()
	if fresh {
		s.gatewayMu.Lock()
		defer s.gatewayMu.Unlock()
		s.gateways = append(s.gateways, g)
		slices.SortFunc(s.gateways, func(a, b *gatewaySource) int {
			return cmp.Or(strings.Compare(a.name(), b.name()), strings.Compare(string(a.uid), string(b.uid)))
		})
	}
}

// SetConnected notes whether a gateway's report stream is up, and returns the gateway.
func (s *Store) SetConnected(uid types.UID, up bool) (wire.Gateway, bool) {
	g := s.findGateway(uid)
	if g == nil {
		return wire.Gateway{}, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gateway.Connected = up && g.deleted.IsZero()
	return g.gateway, true
}

// DeleteGateway takes a gateway away at now.
func (s *Store) DeleteGateway(now time.Time, uid types.UID) {
	g := s.findGateway(uid)
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.deleted.IsZero() {
		g.deleted, g.running, g.gateway.Connected = now, false, false
	}
}

// sweepGateways drops the gateways that no window reaches any more, and tells of silent ones.
func (s *Store) sweepGateways(now time.Time) {
	var silent []GatewayPod
	s.gatewayMu.Lock()
	s.gateways = slices.DeleteFunc(s.gateways, func(g *gatewaySource) bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.running && !g.told && g.lost(now) {
			g.told = true
			silent = append(silent, GatewayPod{UID: g.uid, Name: g.gateway.Name, IP: g.gateway.IP, Control: g.gateway.Control, Running: true})
		}
		return !g.deleted.IsZero() && now.Sub(g.deleted) > window.Longest
	})
	s.gatewayMu.Unlock()
	for _, g := range silent {
		s.opts.OnSilentGateway(g)
	}
}

// Gateways lists the gateways, by name.
func (s *Store) Gateways() []wire.Gateway {
	s.gatewayMu.RLock()
	defer s.gatewayMu.RUnlock()
	out := make([]wire.Gateway, 0, len(s.gateways))
	for _, g := range s.gateways {
		g.mu.RLock()
		if g.deleted.IsZero() {
			gw := g.gateway
			gw.Leaving = !g.running
			out = append(out, gw)
		}
		g.mu.RUnlock()
	}
	return out
}

// AddReport takes a gateway's report received at now. It returns the gateway as it was before and
// as it is; ok is false for a gateway that is not there. The report must not be changed any more.
//
// Readers of a Service see the report's part about it at once or not at all. They wait for that
// part, not for the rest.
func (s *Store) AddReport(now time.Time, uid types.UID, r *wire.Report) (before, after wire.Gateway, ok bool) {
	g := s.findGateway(uid)
	if g == nil {
		return before, after, false
	}
	g.reportMu.Lock()
	defer g.reportMu.Unlock()
	g.mu.RLock()
	before, ok = g.gateway, g.deleted.IsZero()
	g.mu.RUnlock()
	if !ok {
		return wire.Gateway{}, after, false
	}
	g.turn++
	order := g.sorted(r.Ports)
	for len(order) > 0 {
		key, n := serviceOf(&r.Ports[order[0]]), 1
		for n < len(order) && serviceOf(&r.Ports[order[n]]) == key {
			n++
		}
		g.addService(now, key, before.Report, r, order[:n])
		order = order[n:]
	}
	g.releaseOthers(now)
	next := wire.Gateway{}.WithReport(r)
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.deleted.IsZero() {
		return wire.Gateway{}, after, false
	}
	was := g.gateway
	g.gateway, g.read, g.told = next, now, false
	g.gateway.Name, g.gateway.IP, g.gateway.Control, g.gateway.Connected = was.Name, was.IP, was.Control, true
	return before, g.gateway, true
}

func serviceOf(p *wire.PortReport) types.NamespacedName {
	return types.NamespacedName{Namespace: p.Namespace, Name: p.Service}
}

// sorted orders a report's ports by Service, those of one Service as they are. It leaves out those
// that cannot be true, which would be subtracted from the others' demand, and those that are too
// many.
func (g *gatewaySource) sorted(ports []wire.PortReport) []int32 {
	g.order = g.order[:0]
	for i := range ports[:min(len(ports), maxServices)] {
		p := &ports[i]
		if p.Waiting < 0 || p.Waiting > maxWaiting || !(p.WaitingSeconds >= 0) || math.IsInf(p.WaitingSeconds, 0) {
			continue
		}
		g.order = append(g.order, int32(i)) //nolint:gosec // the number of ports is bounded
	}
	byService := func(i, j int32) int {
		a, b := &ports[i], &ports[j]
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Service, b.Service))
	}
	if !slices.IsSortedFunc(g.order, byService) { // the wire promises it
		slices.SortStableFunc(g.order, byService)
	}
	return g.order
}

// addService takes what a report says of one Service: the ports at these places.
func (g *gatewaySource) addService(now time.Time, key types.NamespacedName, last, r *wire.Report, places []int32) {
	svc := g.services[key] // only written with reportMu held
	if svc == nil {
		svc = &serviceSource{}
		g.mu.Lock()
		g.services[key] = svc
		g.mu.Unlock()
	}
	svc.mu.Lock()
	defer svc.mu.Unlock()
	svc.turn = g.turn
	svc.release()
	for _, i := range places {
		pr := &r.Ports[i]
		p, fresh := svc.port(pr.PortName)
		if fresh && last != nil && last.StartTime == r.StartTime && last.Monotonic < r.Monotonic {
			// It was not assigned when the report before was made: nothing was held for it until
			// then.
			for _, mono := range []float64{max(0, last.Monotonic-window.Longest.Seconds()), last.Monotonic} {
				age := time.Duration((r.Monotonic - mono) * float64(time.Second))
				p.series.Add(window.Reading{Life: r.StartTime, Mono: mono, At: now.Add(-age)})
			}
		}
		p.held, p.waiting = true, float64(pr.Waiting)
		p.series.Add(window.Reading{
			Life: r.StartTime, Mono: r.Monotonic, At: now,
			Sums: [window.Values]float64{pr.WaitingSeconds, float64(pr.Arrived)},
		})
	}
	svc.prune(now)
}

// releaseOthers notes that the newest report does not name the other Services.
func (g *gatewaySource) releaseOthers(now time.Time) {
	for key, svc := range g.services {
		svc.mu.Lock()
		if svc.turn != g.turn {
			svc.release()
			svc.prune(now)
		}
		gone := len(svc.ports) == 0 || svc.turn != g.turn && len(g.services) > maxServices
		svc.mu.Unlock()
		if gone {
			g.mu.Lock()
			delete(g.services, key)
			g.mu.Unlock()
		}
	}
}

// addGateways adds what gateways hold for the Services to the sums of which gateways are sources.
func (s *Store) addGateways(sums []sum, namespace string, services []string) {
	if len(services) == 0 || !anyReadsGateways(sums) {
		return
	}
	now := sums[0].Now
	s.gatewayMu.RLock()
	defer s.gatewayMu.RUnlock()
	held := 0
	for _, g := range s.gateways {
		if g.addTo(sums, namespace, services, now, s.opts.GatewayStale) {
			held++
		}
	}
	if held == 0 {
		return
	}
	// Where others hold, one that never reported may as well.
	for _, g := range s.gateways {
		g.mu.RLock()
		if g.running && g.gateway.Report == nil && now.Sub(g.since) > s.opts.GatewayStale && !g.lost(now) {
			held++
			missGateway(sums, g.gateway.Name, "it never reported", g.since, false)
		}
		g.mu.RUnlock()
	}
	for i := range sums {
		if sums[i].ReadsGateways() {
			sums[i].Gateways += held
		}
	}
}

// addTo adds what a gateway holds for the Services, and tells whether it holds for any.
func (g *gatewaySource) addTo(sums []sum, namespace string, services []string, now time.Time, stale time.Duration) (holds bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	fresh := g.deleted.IsZero() && now.Sub(g.read) <= stale
	there := g.deleted.IsZero() && (!g.running || !g.lost(now))
	for n, name := range services {
		svc := g.services[types.NamespacedName{Namespace: namespace, Name: name}]
		if svc == nil || slices.Contains(services[:n], name) {
			continue
		}
		svc.mu.Lock()
		for _, p := range svc.ports {
			holds = holds || p.held && there
			for i := range sums {
				if sums[i].ReadsGateways() {
					sums[i].Add(&p.series, waitingSum, fresh && p.held, p.waiting)
				}
			}
		}
		svc.mu.Unlock()
	}
	if holds && g.running && !fresh {
		missGateway(sums, g.gateway.Name, "no report", g.read, true)
	}
	return holds
}

func missGateway(sums []sum, name, cause string, since time.Time, counted bool) {
	for i := range sums {
		if sums[i].ReadsGateways() {
			sums[i].MissSource("gateway", name, cause, since, counted)
		}
	}
}

func anyReadsGateways(sums []sum) bool {
	for i := range sums {
		if sums[i].ReadsGateways() {
			return true
		}
	}
	return false
}
