package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-autoscaler/sluice/gateway/assignment"
	"github.com/sluice-autoscaler/sluice/gateway/control"
	"github.com/sluice-autoscaler/sluice/gateway/hold"
	"github.com/sluice-autoscaler/sluice/gateway/lane"
	"github.com/sluice-autoscaler/sluice/internal/serve"
	"github.com/sluice-autoscaler/sluice/proxy/request"
	"github.com/sluice-autoscaler/sluice/wire"
)

// reopen is how often a port that could not be opened is tried again.
const reopen = time.Second

// heartbeatPeriod is the longest time between two steps of the loop that opens ports. A step takes
// g.mu, as reports and assignments do: whoever holds it for good stops the loop. It is far above
// reopen, so that a busy machine is not taken for a hung gateway.
const heartbeatPeriod = 10 * time.Second

// Gateway holds and forwards for the Service ports assigned to it. It is safe for concurrent use.
type Gateway struct {
	cfg    Config
	source Source
	log    *slog.Logger
	start  time.Time
	// places bounds the requests that are held, memory the bytes that clients take.
	places, memory *hold.Budget
	metrics        *metrics
	readers        control.Readers
	ready          atomic.Bool
	leaving        atomic.Bool // from the lame duck on
	beat           *serve.Heartbeat
	over           chan struct{} // closed when all is drained: streams end

	dial       func(ctx context.Context, address string) (net.Conn, error)
	transports [4]*http.Transport // http1, http2, and both without reuse
	buffers    *bufferPool

	mu       sync.Mutex
	work     *lane.Workers // nil while not running
	lanes    map[Target]*slot
	table    assignment.Table
	draining bool
	retired  sync.WaitGroup // ports that drain although the gateway goes on
}

// slot is a lane and what the gateway knows of it, guarded by Gateway.mu.
type slot struct {
	*lane.Lane
	memory *hold.Share
	cancel func() // ends the subscription to its endpoints, and gives its shares back
	live   bool   // is in the assignments in effect
	owner  string // whose assignment is in effect
	// port is the open one. A lane has another one after its assignment changed, while the first
	// drains; ports counts both.
	port  *port
	ports int
}

// Control returns the handler of the control port. It does not ask who calls: TLS does.
func (g *Gateway) Control() http.Handler {
	return (&control.Server{Gateway: g, Readers: &g.readers, MaxReaders: g.cfg.MaxReaders, Over: g.over, Log: g.log}).Handler()
}

// New returns a gateway of a valid configuration; it does nothing until Run.
func New(cfg Config, source Source, log *slog.Logger) *Gateway {
	g := &Gateway{
		cfg: cfg, source: source, log: log, start: time.Now(), places: hold.NewBudget(int64(cfg.MaxHeldTotal)), memory: hold.NewBudget(cfg.MaxMemory),
		over: make(chan struct{}), buffers: newBufferPool(), lanes: map[Target]*slot{},
		beat: serve.NewHeartbeat("ports", heartbeatPeriod, time.Now()),
	}
	dialer := &net.Dialer{Timeout: cfg.DialTimeout}
	g.dial = func(ctx context.Context, address string) (net.Conn, error) {
		return dialer.DialContext(ctx, "tcp", address)
	}
	for i := range g.transports {
		g.transports[i] = newTransport(g.dial, i%2 == 1, i >= 2)
	}
	g.metrics = newMetrics(g)
	return g
}

// Run serves what is and will be assigned until ctx ends, then goes on for the lame duck (not
// ready, all ports open), and drains: it closes the ports, answers what is held and running, and
// returns.
func (g *Gateway) Run(ctx context.Context) error {
	w := lane.NewWorkers(ctx)
	defer w.Close()
	base := context.WithoutCancel(ctx)
	g.mu.Lock()
	if g.work != nil {
		g.mu.Unlock()
		return errors.New("run the gateway: it ran before")
	}
	g.work = w
	g.mu.Unlock()
	g.ready.Store(true)
	tick := time.NewTicker(reopen)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case now := <-tick.C:
			g.beat.Beat(now)
			g.reopen(base)
		}
	}
	g.leaving.Store(true)
	g.ready.Store(false)
	g.log.Info("draining soon", slog.Float64("lame_duck_seconds", g.cfg.LameDuck.Seconds()))
	timer := time.NewTimer(g.cfg.LameDuck)
	defer timer.Stop()
	<-timer.C
	g.drain(base)
	close(g.over)
	for _, t := range g.transports {
		t.CloseIdleConnections()
	}
	return nil
}

// drain closes all ports and waits for what they have. Lanes stay in the reports meanwhile: what
// they hold is demand.
func (g *Gateway) drain(ctx context.Context) {
	g.mu.Lock()
	g.draining = true
	var ports []*port
	lanes := slices.Collect(maps.Values(g.lanes))
	for _, l := range lanes {
		if l.port != nil {
			l.port.stop()
			ports = append(ports, l.port)
		}
	}
	g.mu.Unlock()
	var all sync.WaitGroup
	for _, p := range ports {
		// The lame duck was the linger.
		all.Go(func() { p.drain(ctx, 0, g.cfg.Drain) })
	}
	all.Wait()
	g.retired.Wait()
	for _, l := range lanes {
		l.cancel()
	}
}

// Apply replaces what an owner has assigned, and returns which of its ports are refused. Ports that
// are assigned no more stop accepting, and what they hold is still answered; the bounds of those
// that stay change in place.
func (g *Gateway) Apply(ctx context.Context, owner string, a wire.Assignments) ([]wire.RefusedPort, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.work == nil {
		return nil, errors.New("apply assignments: the gateway does not run")
	}
	if err := assignment.CheckEpoch(a.Epoch, time.Now()); err != nil {
		return nil, fmt.Errorf("apply assignments of owner %s: %w", owner, err)
	}
	refused, err := g.table.Put(owner, a)
	if err != nil {
		return nil, err
	}
	if len(refused) > 0 { // the report has them all
		r := &refused[0]
		g.log.WarnContext(ctx, "ports refused", slog.String("owner", owner), slog.Int("ports", len(refused)), slog.String("namespace", r.Namespace),
			slog.String("service", r.Service), slog.Int("port", r.Listen), slog.String("error", r.Error))
	}
	g.apply(ctx)
	return refused, nil
}

// Withdraw forgets an owner and takes away what only it had assigned.
func (g *Gateway) Withdraw(ctx context.Context, owner string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.work == nil {
		return errors.New("withdraw assignments: the gateway does not run")
	}
	g.table.Delete(owner)
	g.apply(ctx)
	return nil
}

// apply makes lanes and ports what is assigned; g.mu is held.
func (g *Gateway) apply(ctx context.Context) {
	ctx = context.WithoutCancel(ctx) // ports outlive the push that opens them
	wanted := g.table.InEffect()
	// First close, then open: a port number may have moved to another Service.
	for t, l := range g.lanes {
		w, ok := wanted[t]
		if l.live = ok; !ok {
			l.owner = ""
		}
		if l.port != nil && !g.draining && (!ok || l.port.number != w.Listen || l.port.protocol != w.Protocol) {
			g.retire(ctx, l)
		}
	}
	for t, claim := range wanted {
		w, l := g.resolve(claim.Assignment), g.lanes[t]
		if l == nil && g.draining {
			continue
		}
		if l == nil {
			l = g.newLane(t, w)
			g.lanes[t] = l
		} else if *l.Assigned() != w {
			l.Assign(w)
		}
		l.live, l.owner = true, claim.Owner
		if l.port == nil && !g.draining {
			l.port = g.newPort(l, w)
			l.ports++
			g.open(ctx, l.port)
		}
	}
	g.readers.Notify(false)
}

// resolve fills in the gateway's own defaults.
func (g *Gateway) resolve(a wire.Assignment) wire.Assignment {
	a.MaxHeld = cmp.Or(a.MaxHeld, g.cfg.MaxHeld)
	a.MaxHeldBytes = cmp.Or(a.MaxHeldBytes, g.cfg.MaxHeldBytes)
	a.HoldSeconds = cmp.Or(a.HoldSeconds, g.cfg.HoldTimeout.Seconds())
	a.PodConcurrency = cmp.Or(a.PodConcurrency, g.cfg.PodConcurrency)
	return a
}

// newLane makes the lane of a Service port and follows its endpoints; g.mu is held.
func (g *Gateway) newLane(t Target, a wire.Assignment) *slot {
	places, memory := g.places.Share(t.Namespace, t.Service), g.memory.Share(t.Namespace, t.Service)
	queue := hold.New(hold.Limits{}, places, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
	queue.OnHold, queue.OnColdStart = g.metrics.observers(t)
	l := lane.New(lane.Options{
		Target: t, Clock: g.now, Notify: g.readers.Notify, Work: g.work, Queue: queue,
		ProbeInterval: g.cfg.ProbeInterval, TCP: a.Protocol == assignment.TCP, TerminatingGrace: g.cfg.TerminatingGrace,
		PathLinger: g.cfg.PathLinger,
	}, a)
	cancel := g.source.Subscribe(t, l.Endpoints)
	return &slot{Lane: l, memory: memory, cancel: func() {
		cancel()
		places.Release()
		memory.Release()
	}}
}

func (g *Gateway) newPort(l *slot, a wire.Assignment) *port {
	return &port{
		lane: l.Lane, number: a.Listen, protocol: a.Protocol, dial: g.dial, health: g.health, log: g.log, buffers: g.buffers, memory: l.memory,
		http1: g.transports[0], http2: g.transports[1], fresh1: g.transports[2], fresh2: g.transports[3],
	}
}

// open tries to open a port and notes the outcome; g.mu is held.
func (g *Gateway) open(ctx context.Context, p *port) {
	err := p.open(ctx, g.cfg.ListenHost, g.work)
	fault := ""
	if err != nil {
		fault = err.Error()
	}
	if fault != p.fault || err == nil {
		log := g.log.With(slog.String("target", p.lane.Target.String()), slog.Int("port", p.number))
		if err != nil {
			log.Warn("cannot listen", slog.Any("error", err))
		} else {
			log.Info("listening", slog.String("protocol", p.protocol))
		}
		g.readers.Notify(false)
	}
	p.fault = fault
}

func (g *Gateway) reopen(ctx context.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range g.lanes {
		if l.port != nil && l.port.listener == nil {
			g.open(ctx, l.port)
		}
	}
}

// retire takes a lane's port away: it accepts no more, drains in the background, and the lane is
// forgotten after the last one unless it was assigned again; g.mu is held.
func (g *Gateway) retire(ctx context.Context, l *slot) {
	p := l.port
	l.port = nil
	p.stop()
	g.log.Info("closing", slog.String("target", l.Target.String()), slog.Int("port", p.number))
	g.retired.Add(1) // not with drain, which sets draining first
	g.work.Start(func(context.Context) {
		defer g.retired.Done()
		p.drain(ctx, g.cfg.LameDuck, g.cfg.Drain)
		g.mu.Lock()
		l.ports--
		forget := !l.live && l.ports == 0 && g.lanes[l.Target] == l
		if forget {
			delete(g.lanes, l.Target)
			g.metrics.drop(l.Target, g.lanes)
		}
		g.mu.Unlock()
		if forget {
			l.cancel()
			g.readers.Notify(false)
		}
	})
}

// health reports whether a request comes from a health checker or scraper.
func (g *Gateway) health(r *http.Request) bool {
	ignore := request.Ignore{Agents: g.cfg.ProbeAgents, Paths: g.cfg.ProbePaths}
	return request.Ignores(&ignore, r.URL.EscapedPath(), r.Header.Get("User-Agent"))
}

// now is the gateway's own monotonic clock, since its start.
func (g *Gateway) now() time.Duration { return time.Since(g.start) }

// Report reads all counters at one instant.
func (g *Gateway) Report() wire.Report {
	g.mu.Lock()
	defer g.mu.Unlock()
	slots := slices.SortedFunc(maps.Values(g.lanes), func(a, b *slot) int { return compare(a.Target, b.Target) })
	lanes := make([]*lane.Lane, len(slots))
	for i, l := range slots {
		lanes[i] = l.Lane
	}
	now, counts := lane.Counts(g.now, lanes)
	refused := g.table.Refused()
	r := wire.Report{
		Gateway: g.cfg.Name, StartTime: float64(g.start.UnixNano()) / 1e9, Monotonic: now.Seconds(),
		Owners: g.table.Owners(), Ports: make([]wire.PortReport, 0, len(lanes)), Refused: refused[:min(len(refused), wire.MaxRefused)],
	}
	for i, l := range slots {
		c := counts[i]
		p := wire.PortReport{
			Namespace: l.Target.Namespace, Service: l.Target.Service, PortName: l.Target.PortName,
			Waiting: c.Waiting, WaitingSeconds: c.WaitingSeconds, Forwarding: c.Forwarding, Arrived: c.Arrived,
			Forwarded: c.Forwarded, Rejected: c.Rejected, Expired: c.Expired, Canceled: c.Canceled, ReadyPods: c.ReadyPods,
		}
		if l.live {
			p.Owner, p.Listen = l.owner, l.Assigned().Listen
		}
		if l.port != nil {
			p.Listening, p.Error = l.port.listener != nil, l.port.fault
			p.InPath = l.live && p.Listening && l.Assigned().InPath
		}
		if c.ColdStart != nil {
			p.ColdStart = &wire.ColdStart{
				Detected: g.unix(c.ColdStart.Detected), Answering: g.unix(c.ColdStart.Answering), Pod: c.ColdStart.Pod,
				Released: g.unix(c.ColdStart.Released), Held: c.ColdStart.Held,
			}
		}
		r.Ports = append(r.Ports, p)
	}
	return r
}

// compare is the order of ports in a report.
func compare(a, b Target) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Service, b.Service), cmp.Compare(a.PortName, b.PortName))
}

func (g *Gateway) unix(at time.Duration) int64 {
	if at == 0 {
		return 0
	}
	return g.start.UnixNano() + int64(at)
}

// Alive returns nil while the gateway's loop turns, else since when it does not. From the lame duck
// on it returns nil: the end is bounded by itself, and whoever restarts a draining gateway loses
// requests.
func (g *Gateway) Alive() error {
	if g.leaving.Load() {
		return nil
	}
	return g.beat.Alive(time.Now())
}

// Ready returns nil while the gateway serves and knows the cluster's endpoints, else what is
// missing.
func (g *Gateway) Ready() error {
	if !g.ready.Load() {
		return errors.New("not serving")
	}
	if !g.source.Synced() {
		return errors.New("endpoints are not synced")
	}
	return nil
}
