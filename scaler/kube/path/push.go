package path

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/scaler/kube/path/slice"
	"github.com/sluice-autoscaler/sluice/wire"
)

const (
	// retryEvery is how often a gateway that is behind is tried again.
	retryEvery = 500 * time.Millisecond
	// pushTimeout bounds one push.
	pushTimeout = 2 * time.Second
	// leastGap and mostGap bound the time between two pushes to one gateway. In between it is ten
	// times what the last push took, so that churn among many workloads costs a tenth of a core.
	leastGap, mostGap = 5 * time.Millisecond, time.Second
	// patience is how long expected workloads may take. Then the rest is taken from their slices.
	patience = 10 * time.Second
)

var errNoCertificate = errors.New("there is no certificate for gateways yet")

// pusher keeps the set of all assignments and each gateway's copy of it equal.
type pusher struct {
	d      *Driver
	client *http.Client

	mu    sync.Mutex
	epoch int64
	gen   uint64
	// parts hold the assignments by Service, encoded; order lists them as they came.
	parts map[types.NamespacedName]*part
	order []*part
	// body is the whole set as it is sent, nil after a change.
	body []byte
	// expected are workloads that have not settled; nil before Expect.
	expected map[loop.Ref]struct{}
	poked    chan struct{}
	// faults say why the last push to a gateway failed, by its control address.
	faults sync.Map
}

// part is what is assigned for one Service.
type part struct {
	place  int // in order
	holder loop.Ref
	ports  []wire.Assignment
	raw    []byte
}

func newPusher(d *Driver) *pusher {
	p := &pusher{d: d, epoch: d.Epoch, gen: 1, parts: map[types.NamespacedName]*part{}, poked: make(chan struct{}, 1)}
	dialer := &net.Dialer{Timeout: pushTimeout}
	transport := &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute}
	if d.TLS != nil {
		transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			config := d.TLS()
			if config == nil {
				return nil, errNoCertificate
			}
			return (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, network, address)
		}
	}
	p.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return p
}

// set replaces what is assigned for a Service; nil takes away what the holder has assigned.
func (p *pusher) set(service types.NamespacedName, holder loop.Ref, ports []wire.Assignment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.parts[service]
	switch {
	case was == nil && len(ports) == 0, was != nil && len(ports) == 0 && was.holder != holder && was.holder != (loop.Ref{}):
		// recalled ones are anybody's
		return
	case was != nil && len(ports) > 0 && slices.Equal(was.ports, ports):
		was.holder = holder
		return
	case len(ports) == 0:
		last := p.order[len(p.order)-1]
		p.order[was.place], last.place = last, was.place
		p.order = p.order[:len(p.order)-1]
		delete(p.parts, service)
	default:
		if was == nil {
			was = &part{place: len(p.order)}
			p.parts[service], p.order = was, append(p.order, was)
		}
		was.holder, was.ports, was.raw = holder, slices.Clone(ports), nil
	}
	p.gen++
	p.body = nil
	p.wake()
}

// assigned tells whether one of a Service's ports is assigned.
func (p *pusher) assigned(service types.NamespacedName, is func(name string, number int) bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	part := p.parts[service]
	return part != nil && slices.ContainsFunc(part.ports, func(a wire.Assignment) bool { return is(a.PortName, a.Listen) })
}

// settle says that a workload has had its round.
func (p *pusher) settle(ref loop.Ref) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.expected[ref]; ok {
		if delete(p.expected, ref); len(p.expected) == 0 {
			p.wake()
		}
	}
}

// wake makes Run look for gateways that are behind.
func (p *pusher) wake() {
	select {
	case p.poked <- struct{}{}:
	default:
	}
}

// Expect names the workloads that must have had a round, or have been forgotten, before anything is
// pushed: pushing a part of the set after a restart would close the others' ports. A workload that
// has none within ten seconds of Run is pushed as its slice remembers it. Run pushes nothing before
// Expect was called.
func (d *Driver) Expect(refs []loop.Ref) {
	p := d.pusher
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected = make(map[loop.Ref]struct{}, len(refs))
	for _, ref := range refs {
		p.expected[ref] = struct{}{}
	}
	for _, part := range p.order {
		delete(p.expected, part.holder)
	}
	p.wake()
}

// Settle says that an expected workload needs no path, since its spec is invalid or has no Service.
func (d *Driver) Settle(ref loop.Ref) { d.pusher.settle(ref) }

// Run pushes until ctx ends. Only one Driver of an owner may run at a time.
func (d *Driver) Run(ctx context.Context) error {
	p := d.pusher
	defer p.client.CloseIdleConnections()
	retry := time.NewTicker(retryEvery)
	defer retry.Stop()
	began, recalled := d.Clock(), false
	workers := map[string]*worker{}
	var all sync.WaitGroup
	defer all.Wait()
	leased := d.Lease == nil
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.poked:
		case <-retry.C:
		}
		if !leased {
			if leased = p.lease(ctx); !leased {
				continue
			}
		}
		if !p.ready() && d.Clock().Sub(began) < patience {
			continue
		}
		if !recalled || !p.ready() { // before the first push, and for what settles too late
			if recalled = p.recall(ctx); !recalled {
				continue
			}
		}
		gateways := *d.gateways.Load()
		for i := range gateways {
			control := gateways[i].Control
			if workers[control] == nil {
				own, stop := context.WithCancel(ctx)
				w := &worker{pusher: p, control: control, poked: make(chan struct{}, 1), stop: stop}
				workers[control] = w
				all.Go(func() { w.run(own) })
			}
		}
		for control, w := range workers {
			if !slices.ContainsFunc(gateways, func(g wire.Gateway) bool { return g.Control == control }) {
				w.stop()
				delete(workers, control)
				p.faults.Delete(control)
				continue
			}
			select {
			case w.poked <- struct{}{}:
			default:
			}
		}
	}
}

func (p *pusher) ready() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.expected != nil && len(p.expected) == 0
}

// recall takes from the slices what has not been put since the start, and gives up waiting. When
// every workload has settled it takes those that gateways stand in the path of: a workload whose
// spec is invalid, or which a rival scales, may be asleep.
func (p *pusher) recall(ctx context.Context) bool {
	p.mu.Lock()
	missing := len(p.expected)
	begun := p.expected != nil
	p.mu.Unlock()
	if !begun {
		return false
	}
	var list discoveryv1.EndpointSliceList
	if err := p.d.Client.List(ctx, &list, client.MatchingLabels{discoveryv1.LabelManagedBy: wire.Domain, slice.OwnerLabel: p.d.Owner}, client.UnsafeDisableDeepCopy); err != nil {
		p.d.Log.WarnContext(ctx, "slices not listed, will retry", slog.Any("error", err))
		return false
	}
	if missing > 0 {
		p.d.Log.WarnContext(ctx, "not every workload had a round: its ports are taken from its slice", slog.Int("workloads", missing))
	}
	for i := range list.Items {
		s := &list.Items[i]
		service := types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
		p.mu.Lock()
		known := p.parts[service] != nil
		p.mu.Unlock()
		if known || service.Name == "" || s.Name != slice.Name(service.Name) || missing == 0 && len(s.Endpoints) == 0 {
			continue
		}
		var ports []wire.Assignment
		for j := range s.Ports {
			if n := s.Ports[j].Port; n != nil && p.d.Range.has(int(*n)) {
				if rival, err := p.d.rival(ctx, s, int(*n)); err != nil || rival != nil && slice.Has(rival, int(*n)) && older(rival, s) {
					continue
				}
				ports = append(ports, wire.Assignment{
					Namespace: service.Namespace, Service: service.Name, PortName: slice.Deref(s.Ports[j].Name), Listen: int(*n),
					Protocol: slice.Protocol("", slice.Deref(s.Ports[j].Name)), InPath: len(s.Endpoints) > 0,
				})
			}
		}
		p.set(service, loop.Ref{}, ports)
	}
	p.mu.Lock()
	p.expected = map[loop.Ref]struct{}{}
	p.mu.Unlock()
	return true
}

// whole returns the set as it is sent.
func (p *pusher) whole() (body []byte, epoch int64, gen uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.body != nil {
		return p.body, p.epoch, p.gen, nil
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"epoch":%d,"generation":%d,"ports":[`, p.epoch, p.gen)
	for i, part := range p.order {
		if part.raw == nil {
			raw, err := json.Marshal(part.ports)
			if err != nil {
				return nil, 0, 0, fmt.Errorf("encode assignments: %w", err)
			}
			part.raw = raw[1 : len(raw)-1] // without the brackets
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(part.raw)
	}
	b.WriteString("]}")
	p.body = b.Bytes()
	return p.body, p.epoch, p.gen, nil
}

// lease takes the epoch from the lease. It tells whether this process holds it.
func (p *pusher) lease(ctx context.Context) bool {
	epoch, err := p.d.Lease(ctx)
	if err != nil {
		p.d.Log.WarnContext(ctx, "nothing is pushed to gateways, will retry", slog.Any("error", err))
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if epoch > p.epoch {
		p.epoch, p.body = epoch, nil
	}
	return true
}

// outrank raises the epoch over what a gateway has in effect of this owner, when that is not this
// process's: of a controller whose clock was ahead, or of a lease that was lost since. Whoever
// holds the lease is the owner, so it is asked for first.
func (p *pusher) outrank(ctx context.Context, gateway string, mine wire.OwnerReport) bool {
	if !p.behind(mine) {
		return true
	}
	if p.d.Lease != nil && !p.lease(ctx) {
		return false
	}
	if !p.behind(mine) {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if mine.Epoch == math.MaxInt64 {
		p.d.Log.ErrorContext(ctx, "gateway has an epoch that none can follow: restart it", slog.String("gateway", gateway), slog.Int64("epoch", mine.Epoch))
		return false
	}
	p.d.Log.WarnContext(ctx, "gateway has a newer epoch, which is outranked", slog.String("gateway", gateway),
		slog.Int64("epoch", mine.Epoch), slog.Int64("own_epoch", p.epoch))
	p.epoch, p.body = mine.Epoch+1, nil
	return true
}

// behind tells whether a gateway has something in effect that is newer than all that this process
// has assigned.
func (p *pusher) behind(mine wire.OwnerReport) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return mine.Epoch > p.epoch || mine.Epoch == p.epoch && mine.Generation > p.gen
}

// worker pushes to one gateway.
type worker struct {
	*pusher
	control string
	poked   chan struct{}
	stop    context.CancelFunc
	// What the gateway's life that began at start was last given.
	start float64
	epoch int64
	gen   uint64
}

func (w *worker) run(ctx context.Context) {
	defer w.stop()
	gap := time.NewTimer(0)
	defer gap.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.poked:
		}
		began := w.d.Clock()
		if !w.catchUp(ctx) {
			continue
		}
		gap.Reset(min(max(10*w.d.Clock().Sub(began), leastGap), mostGap))
		select {
		case <-ctx.Done():
			return
		case <-gap.C:
		}
	}
}

// catchUp pushes when the gateway is behind, and tells whether it did.
func (w *worker) catchUp(ctx context.Context) bool {
	gateways := *w.d.gateways.Load()
	i := slices.IndexFunc(gateways, func(g wire.Gateway) bool { return g.Control == w.control })
	if i < 0 || !gateways[i].Connected || gateways[i].Report == nil {
		return false
	}
	g := &gateways[i]
	mine, _ := g.Report.Owner(w.d.Owner)
	if !w.outrank(ctx, g.Name, mine) {
		w.faults.Store(w.control, "the gateway has assignments of another controller")
		return true
	}
	body, epoch, gen, err := w.whole()
	if err != nil {
		w.d.Log.ErrorContext(ctx, "assignments not pushed", slog.Any("error", err))
		return false
	}
	given := w.start == g.Report.StartTime && w.epoch == epoch && w.gen == gen
	if given || mine.Epoch == epoch && mine.Generation >= gen {
		return false
	}
	if err := w.put(ctx, g, body); err != nil {
		if said, _ := w.faults.Swap(w.control, err.Error()); ctx.Err() == nil && said != err.Error() {
			w.d.Log.WarnContext(ctx, "gateway not assigned, will retry", slog.String("gateway", g.Name), slog.Any("error", err))
		}
		return true
	}
	w.faults.Delete(w.control)
	w.start, w.epoch, w.gen = g.Report.StartTime, epoch, gen
	return true
}

func (w *worker) put(ctx context.Context, g *wire.Gateway, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	scheme := "http://"
	if w.d.TLS != nil {
		scheme = "https://"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, scheme+g.Control+wire.OwnerPath(w.d.Owner), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("address gateway %s: %w", g.Control, err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := w.client.Do(req)
	if err != nil {
		return fmt.Errorf("assign ports to gateway %s: %w", g.Name, err)
	}
	defer res.Body.Close() //nolint:errcheck // a read body: nothing is lost
	if res.StatusCode/100 != 2 {
		said, _ := io.ReadAll(io.LimitReader(res.Body, 512))
		return fmt.Errorf("assign ports to gateway %s: %s: %s", g.Name, res.Status, strings.TrimSpace(string(said)))
	}
	// A body that was read to its end leaves the connection for the next push.
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20))
	return nil
}
