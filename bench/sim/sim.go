// Package sim simulates a workload under a scaling policy, event by event in virtual time:
// arrivals, queues, concurrency limits, pods that start, drain and fail, readings that lag, and the
// policies and guard of algorithms/, asked as the scaler asks them. The same inputs and seed give
// the same run. It is pure: no clock, no files.
//
// Randomness comes in streams of their own for arrivals, work, starts, routing and readings, so
// that policies compared under one seed meet the same requests with the same work.
package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/guard"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/bench/event"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// Config is one run.
type Config struct {
	// Source gives the arrivals; Scenario everything else.
	Source   trace.Source
	Scenario scenario.Scenario
	// Policy decides, fresh for this run; Name is what results call it. Guard wraps it as the
	// scaler does.
	Policy algorithms.Policy
	Name   string
	// Guard holds parameters of the guard (guard.Parse) over those that follow from the scenario;
	// it may be nil.
	Guard json.RawMessage
	// Seed of all randomness.
	Seed uint64
	// Explain records a sentence with each change, at some cost of time.
	Explain bool
	// Points bounds the rows of the series, 0 for none. Steps are as long as that takes, in whole
	// elasticity steps.
	Points int
	// Warmup is how much of the beginning is simulated without being scored, so that policies with
	// a memory meet the rest with one. It is rounded up to whole elasticity steps, and must leave
	// some of the trace. Requests that wait when it ends count with their whole waits; the result's
	// times begin there.
	Warmup time.Duration
	// Start is the instant at which the run begins, for policies that know the time of day; the
	// zero time is Epoch.
	Start time.Time
	// History is what a policy that learns (algorithms.Learner) is given before its first decision;
	// others are not. All of it is before Start.
	History []algorithms.Sample
	// Progress is told the share of the trace that is done, now and then; it may be nil.
	Progress func(share float64)
}

// Epoch is the instant at which runs begin unless they say otherwise, a Monday.
func Epoch() time.Time { return time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC) }

// loop makes the control loop that the scenario describes, the very one of the scaler.
func (c *Config) loop() (*loop.Loop, error) {
	s := &c.Scenario
	g := guard.Default()
	g.IdleAfter, g.Target = time.Duration(s.ScaleToZeroAfter), s.PerPod()
	g, err := guard.Parse(g, c.Guard)
	if err != nil {
		return nil, err
	}
	return loop.Build(loop.Config{
		Policy: c.Policy, Guard: g, Timing: s.Timing(), Cost: s.Cost, Quiet: !c.Explain,
		Limits: algorithms.Limits{Min: s.MinReplicas, Max: s.MaxReplicas, PodConcurrency: float64(s.PodConcurrency)},
	})
}

// warm is where scoring begins, the warm-up in whole elasticity steps.
func (c *Config) warm() int64 {
	step := int64(c.Scenario.ElasticityStep)
	return (int64(c.Warmup) + step - 1) / step * step
}

// Run simulates. It ends with ctx, or when the last request of the source was answered or lost.
func Run(ctx context.Context, c Config) (score.Run, error) {
	if err := c.Scenario.Validate(); err != nil {
		return score.Run{}, fmt.Errorf("scenario %s: %w", c.Scenario.Name, err)
	}
	if c.Source.Length() <= 0 {
		return score.Run{}, fmt.Errorf("trace %s has no length", c.Source.Name())
	}
	if warm := c.warm(); warm < 0 || warm >= int64(c.Source.Length()) {
		return score.Run{}, fmt.Errorf("warm-up = %v (%v in whole steps): want at least 0s and less than the %v of trace %s",
			c.Warmup, time.Duration(warm), c.Source.Length(), c.Source.Name())
	}
	control, err := c.loop()
	if err != nil {
		return score.Run{}, err
	}
	if c.Start.IsZero() {
		c.Start = Epoch()
	}
	if len(c.History) > 0 {
		if last := c.History[len(c.History)-1].At; last.After(c.Start) {
			return score.Run{}, fmt.Errorf("history ends at %s: want no later than the start at %s", last.Format(time.RFC3339), c.Start.Format(time.RFC3339))
		}
		if err := control.Learn(c.History); err != nil {
			return score.Run{}, fmt.Errorf("%s learns from history: %w", c.Name, err)
		}
	}
	e := newEngine(&c, control)
	if err := e.run(ctx); err != nil {
		return score.Run{}, fmt.Errorf("simulate %s on %s: %w", c.Name, c.Source.Name(), err)
	}
	return e.result(), nil
}

// engine is one run's state. Instants are nanoseconds since its beginning.
type engine struct {
	cfg  *Config
	sc   *scenario.Scenario
	loop *loop.Loop

	now, end int64
	arrivals trace.Arrivals
	buf      []trace.Request
	at, have int // the position in buf, and how many are in it
	dry      bool

	deps   event.Departures
	ctl    event.Schedule
	pods   []pod
	unused []int32
	live   []int32 // starting and ready pods by creation
	ready  []int32
	levels levels
	hold   event.FIFO
	limit  int32 // podConcurrency; as good as endless when there is none
	shared bool

	starts, route, read *rand.Rand

	wanted    int // spec.replicas
	capacity  int // places on nodes, −1 without bound
	placed    int // pods on nodes
	coming    int // nodes that come
	nodes     int
	roundGen  int32 // generation of the next planned round
	nextRound int64 // when the planned round is
	poked     bool  // a round is due at once
	inPath    bool  // the gateway is beside the ready pods in the path
	pathUntil int64 // and for proxies it is so until then
	instances []loop.Instance

	meter   meter
	account account
}

// what is a kind of planned event.
type what = uint8

const (
	evRound  what = iota // ask the policy
	evScrape             // read the pods
	evPod                // a pod answers, or fails to
	evReady              // the cluster says that a pod is ready
	evFrame              // a step of the record ends
	evDrain              // a pod's time to drain is over
	evDuck               // a pod that is to go has served on for long enough
	evPoke               // a round besides the planned one
	evGone               // a pod has ended
	evNode               // a node takes pods
)

const (
	chunk    = 512
	longAgo  = int64(-1 << 62)
	noLimit  = int32(1 << 30)
	checkCtx = 1 << 16
)

func newEngine(c *Config, control *loop.Loop) *engine {
	s := &c.Scenario
	e := &engine{
		cfg: c, sc: s, loop: control, end: int64(c.Source.Length()),
		arrivals: scenario.Requests(c.Source, s, c.Seed), buf: make([]trace.Request, chunk),
		limit: int32(s.PodConcurrency), shared: s.Routing == scenario.RoutingShared,
		starts: scenario.Stream(c.Seed, scenario.Starts), route: scenario.Stream(c.Seed, scenario.Routes), read: scenario.Stream(c.Seed, scenario.Readings),
		capacity: -1, pathUntil: longAgo,
	}
	if s.PodConcurrency == 0 {
		e.limit = noLimit
	}
	if s.Nodes != nil {
		e.nodes, e.capacity = s.Nodes.Initial, s.Nodes.Initial*s.Nodes.PodsPerNode
	}
	e.meter.init(e)
	e.account.init(e)
	return e
}

// run is the loop over events. At equal instants control comes first, then ends of work, then
// arrivals.
func (e *engine) run(ctx context.Context) error {
	e.scale(e.sc.InitialReplicas, &loop.Record{Reason: "Initial"})
	for _, i := range e.live { // what is there at the beginning has started long before
		if e.pods[i].state != ready {
			e.becomeReady(i)
		}
	}
	e.account.starts, e.account.wakeUps, e.account.changes = 0, 0, 0
	// Rounds and readings go on at instants of their own, which know nothing of the load's
	// beginning or of one another.
	phase := scenario.Stream(e.cfg.Seed, scenario.Phases)
	e.plan(phase.Int64N(int64(e.sc.Tick)), evRound, none)
	e.plan(1+phase.Int64N(int64(e.sc.Scrape.Interval)), evScrape, none)
	e.plan(int64(e.sc.ElasticityStep), evFrame, none)
	arrive := e.nextArrival()
	for n := 0; ; n++ {
		if n%checkCtx == 0 {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if e.cfg.Progress != nil {
				e.cfg.Progress(min(1, float64(e.now)/float64(e.end)))
			}
		}
		depart, control := e.deps.Next(), e.ctl.Next()
		switch {
		case control <= depart && control <= arrive:
			if arrive == event.Never && control > e.end && e.outstanding() == 0 {
				return e.finish()
			}
			e.now = control
			e.control(e.ctl.Pop())
		case depart <= arrive:
			e.now = depart
			e.depart(e.deps[0].Pod)
		default:
			e.now = arrive
			e.arrive(int64(e.buf[e.at].Service))
			e.at++
			arrive = e.nextArrival()
		}
	}
}

// finish is the end of a run: what went wrong with reading, if anything.
func (e *engine) finish() error {
	if f, ok := e.arrivals.(interface{ Err() error }); ok {
		return f.Err()
	}
	return nil
}

func (e *engine) outstanding() int { return len(e.deps) + e.hold.Len() + e.meter.queued.Value }

// nextArrival is the instant of the next request, never (event.Never) when there is none.
func (e *engine) nextArrival() int64 {
	if e.at == e.have {
		if e.dry {
			return event.Never
		}
		e.at, e.have = 0, e.arrivals.Read(e.buf)
		if e.have == 0 {
			e.dry = true
			return event.Never
		}
	}
	return max(int64(e.buf[e.at].At), e.now)
}

func (e *engine) plan(at int64, kind what, pod int32) {
	ev := event.Planned{At: at, Kind: kind, Pod: pod}
	switch {
	case pod != none:
		ev.Gen = e.pods[pod].gen
	case kind == evRound:
		e.roundGen++
		ev.Gen, e.nextRound = e.roundGen, at
	}
	e.ctl.Push(ev)
}

func (e *engine) control(ev event.Planned) {
	if ev.Pod != none && e.pods[ev.Pod].gen != ev.Gen {
		return // of a pod that is no more
	}
	switch ev.Kind {
	case evRound:
		if ev.Gen == e.roundGen { // else one was planned for another instant since
			e.nextRound = event.Never
			e.round()
		}
	case evPoke:
		e.poked = false
		e.round()
	case evScrape:
		e.expire()
		e.meter.scrape(e)
		e.plan(e.now+int64(e.sc.Scrape.Interval), evScrape, none)
	case evFrame:
		e.account.frame(e)
		e.plan(e.now+int64(e.sc.ElasticityStep), evFrame, none)
	case evPod:
		e.started(ev.Pod)
	case evReady:
		e.becomeReady(ev.Pod)
		e.spread()
	case evDuck:
		if p := &e.pods[ev.Pod]; p.state == draining && p.held() == 0 {
			e.terminate(ev.Pod)
		}
	case evDrain:
		e.kill(ev.Pod)
	case evGone:
		e.remove(ev.Pod)
	case evNode:
		e.coming--
		e.nodes++
		e.capacity += e.sc.Nodes.PodsPerNode
		e.place()
	}
}

// arrive takes a request with that much work.
func (e *engine) arrive(work int64) {
	cold := len(e.ready) == 0
	e.account.arrive(e, work, cold)
	if e.shared || cold || e.viaGateway() {
		if e.hold.Len() == 0 {
			if i := e.levels.pick(); i != none && e.pods[i].load < e.limit {
				e.serve(i, work, 0)
				return
			}
		}
		e.holdIt(event.Waiting{At: e.now, Work: work}, cold)
		return
	}
	i := e.ready[e.route.IntN(len(e.ready))]
	if e.sc.Routing == scenario.RoutingTwo {
		if j := e.ready[e.route.IntN(len(e.ready))]; e.pods[j].held() < e.pods[i].held() {
			i = j
		}
	}
	p := &e.pods[i]
	switch {
	case p.load < e.limit:
		e.serve(i, work, 0)
	case p.queue.Len() < e.sc.PodQueue:
		e.meter.came(e, p)
		p.queue.Push(event.Waiting{At: e.now, Work: work})
		e.meter.queued.Set(e.now, e.meter.queued.Value+1)
	default:
		e.account.lose(1)
	}
}

// viaGateway tells whether a proxy chooses a gateway rather than a ready pod: only while gateways
// are in the path, as often as there are endpoints.
func (e *engine) viaGateway() bool {
	if !e.inPath && e.now >= e.pathUntil {
		return false
	}
	return e.route.IntN(e.sc.Gateways+len(e.ready)) < e.sc.Gateways
}

// holdIt keeps a request at the gateway, and wakes the scaler when it is the first one of a
// workload without pods.
func (e *engine) holdIt(h event.Waiting, cold bool) {
	if e.hold.Len() >= e.sc.HoldRequests {
		e.account.lose(1)
		return
	}
	if cold && e.hold.Len() == 0 && e.wanted == 0 {
		e.plan(e.now+int64(e.sc.WakeDelay), evPoke, none)
	}
	e.meter.held.Set(e.now, e.hold.Len()+1)
	e.hold.Push(h)
}

// serve lets pod i begin to work on a request that comes to it now, after a wait.
func (e *engine) serve(i int32, work, wait int64) {
	e.meter.came(e, &e.pods[i])
	e.begin(i, work, wait, false)
}

// begin puts work on pod i, of which the meter knows; replace says that it takes the place of the
// departure just due.
func (e *engine) begin(i int32, work, wait int64, replace bool) {
	p := &e.pods[i]
	takes := work
	if e.sc.Knee > 0 {
		if over := int(p.load) + 1 - e.sc.Knee; over > 0 {
			takes += int64(float64(work) * e.sc.KneeSlope * float64(over) / float64(e.sc.Knee))
		}
	}
	overhead := int64(e.sc.Overhead)
	e.account.begun(wait+overhead, work, takes)
	takes += overhead
	d := event.Departure{At: e.now + takes, Pod: i}
	if replace {
		e.deps.Replace(d)
		p.load++
		return
	}
	e.deps.Push(d)
	if p.usable() {
		e.levels.remove(e.pods, i)
		p.load++
		e.levels.add(e.pods, i)
		return
	}
	p.load++
}

// depart ends the earliest work, which is at pod i.
func (e *engine) depart(i int32) {
	p := &e.pods[i]
	if p.killed {
		e.deps.Drop()
		if p.load--; p.load == 0 && p.state == free {
			p.killed = false
			e.unused = append(e.unused, i)
		}
		return
	}
	e.meter.left(e, p)
	switch {
	case p.queue.Len() > 0:
		h := p.queue.Pop()
		e.meter.queued.Set(e.now, e.meter.queued.Value-1)
		p.load--
		e.begin(i, h.Work, e.now-h.At, true)
	case p.usable() && e.hold.Len() > 0 && e.release():
		h := e.hold.Pop()
		e.meter.held.Set(e.now, e.hold.Len())
		e.meter.came(e, p)
		p.load--
		e.begin(i, h.Work, e.now-h.At, true)
	default:
		e.deps.Drop()
		if p.usable() {
			e.levels.remove(e.pods, i)
			p.load--
			e.levels.add(e.pods, i)
			return
		}
		if p.load--; p.load == 0 && p.state == draining {
			e.worked(i)
		}
	}
}

// release drops what has waited too long, and tells whether something still waits.
func (e *engine) release() bool {
	if e.now-e.hold.Front().At > int64(e.sc.HoldTimeout) {
		e.expire()
	}
	return e.hold.Len() > 0
}

// expire loses what the gateway has held for too long.
func (e *engine) expire() {
	for e.hold.Len() > 0 && e.now-e.hold.Front().At > int64(e.sc.HoldTimeout) {
		e.hold.Pop()
		e.meter.held.Set(e.now, e.hold.Len())
		e.account.lose(1)
	}
}

// spread gives the ready pods what the gateway holds, the least loaded first.
func (e *engine) spread() {
	for e.hold.Len() > 0 && e.release() {
		i := e.levels.pick()
		if i == none || e.pods[i].load >= e.limit {
			return
		}
		h := e.hold.Pop()
		e.meter.held.Set(e.now, e.hold.Len())
		e.serve(i, h.Work, e.now-h.At)
	}
}

// scale makes or ends pods until n are wanted.
func (e *engine) scale(n int, r *loop.Record) {
	from := e.wanted
	if n == from {
		return
	}
	e.account.changed(e, from, n, r)
	e.wanted = n
	if from == 0 {
		e.account.wakeUps++
	}
	for len(e.live) < n {
		e.create()
	}
	for len(e.live) > n {
		e.evict()
	}
	e.account.peak = max(e.account.peak, n)
}

// create adds a pod.
func (e *engine) create() {
	var i int32
	if k := len(e.unused); k > 0 {
		i = e.unused[k-1]
		e.unused = e.unused[:k-1]
	} else {
		i = int32(len(e.pods))
		e.pods = append(e.pods, pod{})
	}
	old := &e.pods[i]
	old.queue.Clear()
	e.pods[i] = pod{state: pending, gen: old.gen + 1, prev: none, next: none, place: none, created: e.now, queue: old.queue}
	if e.sc.Scrape.Sample > 0 {
		e.pods[i].rank = e.read.Uint64()
	}
	e.live = append(e.live, i)
	e.account.starting.Set(e.clock(), len(e.live)-len(e.ready))
	e.account.starts++
	e.place()
}

// place puts pending pods on nodes, in the order of their creation, and asks for nodes.
func (e *engine) place() {
	waiting := 0
	for _, i := range e.live {
		if e.pods[i].state != pending {
			continue
		}
		if e.capacity >= 0 && e.placed >= e.capacity {
			waiting++
			continue
		}
		e.placed++
		e.pods[i].state = starting
		s := &e.sc.Startup
		took := s.Draw(e.starts)
		if took == 0 {
			e.started(i)
			continue
		}
		e.plan(e.now+int64(took), evPod, i)
	}
	if n := e.sc.Nodes; n != nil {
		for waiting > e.coming*n.PodsPerNode && e.nodes+e.coming < n.Max {
			e.coming++
			e.plan(e.now+int64(n.Provision.Draw(e.starts)), evNode, none)
		}
	}
}

// started is the moment at which a pod answers, or fails.
func (e *engine) started(i int32) {
	p := &e.pods[i]
	if e.sc.StartFailure > 0 && e.starts.Float64() < e.sc.StartFailure {
		e.account.failed++
		pause := min(10*time.Second<<min(p.attempts, 10), 5*time.Minute)
		p.attempts++
		s := &e.sc.Startup
		e.plan(e.now+int64(pause+s.Start.Draw(e.starts)+s.Ready.Draw(e.starts)), evPod, i)
		return
	}
	if took := e.sc.Startup.Announce.Draw(e.starts); took > 0 {
		p.state = answering
		p.gen++ // a planned start of it counts no more
		e.levels.add(e.pods, i)
		e.appear(p)
		e.plan(e.now+int64(took), evReady, i)
	} else {
		e.becomeReady(i)
	}
	e.spread()
}

// appear has the meter know a pod from now on.
func (e *engine) appear(p *pod) {
	p.born = e.now
	e.meter.appear(e, p)
}

func (e *engine) becomeReady(i int32) {
	p := &e.pods[i]
	if p.state == pending {
		e.placed++
	}
	if p.state != answering {
		e.levels.add(e.pods, i)
		e.appear(p)
	}
	p.state, p.place, p.readyAt = ready, int32(len(e.ready)), e.now
	p.gen++ // a planned start of it counts no more
	e.ready = append(e.ready, i)
	e.poke() // the scaler watches the Service's endpoints
	e.account.ready.Set(e.clock(), len(e.ready))
	e.account.starting.Set(e.clock(), len(e.live)-len(e.ready))
}

// poke has the policy asked at once, besides the planned rounds.
func (e *engine) poke() {
	if !e.poked && e.now > 0 {
		e.poked = true
		e.plan(e.now, evPoke, none)
	}
}

// evict ends one pod: one that is not ready if there is one, and the newest of those, as a
// ReplicaSet does.
func (e *engine) evict() {
	pick := len(e.live) - 1
	for k := pick; k >= 0; k-- {
		if s := e.pods[e.live[k]].state; s != ready {
			pick = k
			break
		}
	}
	i := e.live[pick]
	e.live = append(e.live[:pick], e.live[pick+1:]...)
	p := &e.pods[i]
	p.gen++
	was := p.state
	if was == answering {
		e.levels.remove(e.pods, i)
	}
	if was == ready {
		last := len(e.ready) - 1
		moved := e.ready[last]
		e.ready[p.place] = moved
		e.pods[moved].place = p.place
		e.ready = e.ready[:last]
		e.levels.remove(e.pods, i)
		e.account.ready.Set(e.clock(), len(e.ready))
	}
	e.account.starting.Set(e.clock(), len(e.live)-len(e.ready))
	if was == pending {
		e.account.ending.Set(e.clock(), e.account.ending.Value+1)
		e.remove(i)
		return
	}
	p.state, p.serveUntil = draining, e.now
	e.account.ending.Set(e.clock(), e.account.ending.Value+1)
	// A sidecar runs before its app does, and knows of no other end.
	p.serveUntil += int64(e.sc.LameDuck)
	if p.held() == 0 {
		e.worked(i)
		return
	}
	e.plan(p.serveUntil+int64(e.sc.Drain), evDrain, i)
}

// worked is the moment at which a pod that is to go has no more work: it ends, or serves on for a
// while.
func (e *engine) worked(i int32) {
	if p := &e.pods[i]; e.now < p.serveUntil {
		e.plan(p.serveUntil, evDuck, i)
		return
	}
	e.terminate(i)
}

// kill ends a pod whose time to drain is over: what it has is lost.
func (e *engine) kill(i int32) {
	p := &e.pods[i]
	if p.state != draining {
		return
	}
	lost := p.held()
	e.meter.leave(e, p, lost)
	e.account.lose(int64(lost))
	e.meter.queued.Set(e.now, e.meter.queued.Value-p.queue.Len())
	p.queue.Clear()
	p.killed = p.load > 0
	e.terminate(i)
}

// terminate begins the end of a pod that has no more work.
func (e *engine) terminate(i int32) {
	p := &e.pods[i]
	p.state = terminating
	p.gen++
	if took := e.sc.Termination.Draw(e.starts); took > 0 {
		e.plan(e.now+int64(took), evGone, i)
		return
	}
	e.remove(i)
}

func (e *engine) remove(i int32) {
	p := &e.pods[i]
	if p.state != draining && p.state != terminating && p.state != pending {
		return
	}
	if p.state != pending {
		e.placed--
	}
	e.meter.vanish(e, p)
	p.state = free
	p.gen++
	e.account.ending.Set(e.clock(), e.account.ending.Value-1)
	if p.load == 0 {
		e.unused = append(e.unused, i)
	}
	if e.capacity >= 0 {
		e.place()
	}
}

// clock is the instant up to which the run is accounted for: never past the trace's end.
func (e *engine) clock() int64 { return min(e.now, e.end) }
