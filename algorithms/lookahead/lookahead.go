// Package lookahead staffs for the load that there will be when a pod ordered now is ready, so that at most a given share of requests waits
// longer than a goal, at the least pod-seconds. It is staffing (queueing theory) on a forecast with a conformal margin.
//
//	lead     L = start-up time (its 90th percentile) + tick: what is not ordered now cannot be there before
//	ŷ(L)     the load then, in slots, by whichever of seven forecasts erred less lately (means of 2 s to 160 s that follow jumps, trend, season)
//	tail     the errors of ŷ so far, in roots of load (√(y + 3/8)) and in units of their recent spread, each lead time its own
//	a*(n)    the load that n pods carry: the largest at which at most the budgeted share waits longer than the goal (Erlang C)
//	n(L)     argmin n + price/β · (load/K) · P(load > a*(n))
//
// The cost to be minimised says: one pod-second against the requests that violate the goal, each at price·S/(Kβ) pod-seconds, which is the work
// that it is worth over the budget β. At price 1 that is a newsvendor whose critical ratio is 1 − β. So a burst that few requests make is let
// wait where a pod for it would be dear, and a large one never. The price follows the budget, as α does in adaptive conformal inference: overspending
// the budget of budgetWindow (of which three quarters are aimed at) makes violations e times as dear, not using it e times as cheap, within 1/64–16.
//
// The answer is the largest of n(L), of what the pods there are needed for until the next decision, and of what it was within the start-up time
// plus two ticks: holding a pod for less than that costs less than starting it again. A backlog adds the pods that work it off at least cost.
//
// Without demand the idle times seen tell whether the last pod is worth keeping, or worth bringing back before the next request (keepalive.Idle). What a
// cold start is worth follows from a budget as well: idleness is to cost what it would with a pod kept for idleReference after each request. Where prices are
// given they say it. No idle time costs more than one cold start.
//
// Sources: Erlang 1917; Gibbs and Candès 2021 (package conformal); Arrow, Harris and Marschak 1951 (newsvendor); Karlin et al. 1988 (ski
// rental); Anscombe 1948 (roots); the rest is this project's.
package lookahead

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/conformal"
	"github.com/sluice-autoscaler/sluice/algorithms/demand"
	"github.com/sluice-autoscaler/sluice/algorithms/forecast"
	"github.com/sluice-autoscaler/sluice/algorithms/keepalive"
	"github.com/sluice-autoscaler/sluice/algorithms/memory"
)

// Policy decides as the package says. It is not safe for concurrent use.
type Policy struct {
	cfg       Config
	est       demand.Estimator
	daily     *forecast.Daily // nil unless Seasonal
	near, far horizon
	state     state
	carry     carry
	rests     keepalive.Idle
}

type state struct {
	At time.Time `json:"at,omitzero"`
	// Demand is the estimator's memory, in snapshots only; so are Near, Far and Daily.
	Demand demand.State         `json:"demand"`
	Near   horizonState         `json:"near"`
	Far    horizonState         `json:"far"`
	Daily  *forecast.DailyState `json:"daily,omitempty"`
	Levels levels               `json:"levels"`
	// Service is the service time in use, in seconds: it follows the measured one in steps of 3 %.
	Service float64 `json:"service"`
	// Price is the logarithm of the price; Rate the mean of requests per second over the budget window, Rated the weight it rests on.
	Price float64 `json:"price"`
	Rate  float64 `json:"rate"`
	Rated float64 `json:"rated"`
	// Queued is the share that was late by the queue at the reading before.
	Queued float64 `json:"queued"`
	// Recent holds the answers that are held.
	Recent algorithms.Maxima `json:"recent,omitempty"`
	// LastDemand is when there was demand last; Idle are the idle times seen, in snapshots only.
	LastDemand time.Time           `json:"lastDemand,omitzero"`
	Idle       keepalive.IdleState `json:"idle"`
	// Cold is the logarithm of what a cold start is worth, in pod-seconds, where no price is given; Usual the share of time for which a
	// pod that is kept for the reference time would be there idle, of Used weight; Spent is how long one was there in this idle time, in seconds.
	Cold  float64 `json:"cold"`
	Usual float64 `json:"usual"`
	Used  float64 `json:"used"`
	Spent float64 `json:"spent"`
	// Warmed says that the pod was brought back ahead of demand, and none has come yet.
	Warmed bool `json:"warmed,omitempty"`
}

const (
	version = 1
	// cheapest and dearest bound the logarithm of the price: a sixty-fourth and sixteen times.
	cheapest, dearest = -4.1588830833596715, 1.3862943611198906
	// aim is the share of the budget that is spent on purpose: within the days that matter the share of late requests is off by some of it.
	aim = 0.75
	// enoughIdles is how many idle times must be known to be believed; idleLife after how many of them one counts half.
	enoughIdles, idleLife = 5, 64
	// coldest and warmest bound what a cold start is worth, in seconds of a pod.
	coldest, warmest = 5.0, 6 * 3600.0
	// gap is after how many seconds without a reading what went before says nothing of now.
	gap = 60.0
)

// New returns a policy with a validated Config.
func New(c Config) (*Policy, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	p := &Policy{cfg: c, est: demand.Estimator{Short: time.Duration(c.Window)}}
	p.near.state.Best, p.far.state.Best = by40s, by40s
	if c.Seasonal {
		var err error
		if p.daily, err = forecast.NewDaily(forecast.DefaultDaily()); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Needs names concurrency now, concurrency and rate over the short window, and concurrency of a minute in their stead.
func (p *Policy) Needs() []algorithms.Need { return p.est.Needs() }

// Learn takes in past concurrency, for the season.
func (p *Policy) Learn(history []algorithms.Sample) error {
	if err := algorithms.CheckHistory(history, p.state.At); err != nil || p.daily == nil {
		return err
	}
	p.daily.Learn(history, algorithms.Concurrency)
	return nil
}

// plan is the arithmetic of one decision.
type plan struct {
	r                 demand.Reading
	slots             float64
	most              int // pods allowed
	start, lead       time.Duration
	near, far         [candidates]float64
	nearPods, farPods int
	drain, held       int
	cold              float64 // seconds of a pod
	price             float64
	late              float64 // share of the requests that come now, as estimated
}

// Decide answers one observation.
func (p *Policy) Decide(o algorithms.Observation) algorithms.Decision {
	s := &p.state
	g := plan{slots: p.slots(&o), most: 1_000_000}
	if o.Limits.Max > 0 {
		g.most = min(o.Limits.Max, g.most)
	}
	g.r = p.est.Read(&o, g.slots)
	if !g.r.Known {
		d := algorithms.Decision{Reason: "NoData"}
		if !o.Quiet {
			d.Message = fmt.Sprintf("concurrency over %s and over %s is unknown", time.Duration(p.cfg.Window), demand.Long)
		}
		return d
	}
	tick := time.Duration(p.cfg.Tick)
	g.start = time.Duration(p.cfg.StartUp)
	likely := g.start
	if o.StartUp.Samples > 0 {
		g.start, likely = min(o.StartUp.P90, time.Hour), min(o.StartUp.P50, time.Hour)
	}
	g.lead = g.start + tick
	dt := o.Now.Sub(s.At).Seconds()
	fresh := s.At.IsZero() || dt >= time.Duration(p.cfg.Window).Seconds()/2
	if fresh {
		p.learn(&o, &g, dt)
	}
	service := s.Service
	if service == 0 {
		service = 1
	}
	noise := readingNoise(service, time.Duration(p.cfg.Window).Seconds())
	floor := service / (4 * 40) // the variance of a mean of 40 s of a Poisson load, in roots
	s.Levels.at(tick.Seconds(), ratio(p.daily, o.Now, o.Now.Add(tick)), noise, &g.near)
	s.Levels.at(g.lead.Seconds(), ratio(p.daily, o.Now, o.Now.Add(g.lead)), noise, &g.far)
	if fresh {
		p.near.promise(o.Now, tick, &g.near, floor)
		p.far.promise(o.Now, g.lead, &g.far, floor)
	}
	g.price = math.Exp(s.Price)
	p.carry.set(p.cfg.ViolationBudget/g.price, time.Duration(p.cfg.WaitGoal).Seconds()/service, g.slots)
	g.nearPods = p.staff(&p.near, g.near[p.near.state.Best], floor, &g)
	g.farPods = p.staff(&p.far, g.far[p.far.state.Best], floor, &g)
	// pods for the next tick are there or come too late: only those that exist count for it
	n, reason := g.farPods, "Forecast"
	if kept := min(g.nearPods, max(o.Replicas.Current, 1)); kept > n {
		n, reason = kept, "Present"
	}
	if g.drain = p.drain(&o, &g); g.drain > 0 {
		n, reason = n+g.drain, "Backlog"
	}
	if g.held = s.Recent.Add(o.Now, n, likely+2*tick); g.held > n && o.Replicas.Current > n {
		n, reason = min(g.held, o.Replicas.Current), "Held"
	}
	g.cold = p.cold(&o)
	switch {
	case n > 1:
	case g.r.InFlight > 0:
		n = 1
	case p.wanted(&o, &g): // nothing is asked for: idle times know more of so little load than forecasts do
		n, reason = 1, "KeptAlive"
		if o.Replicas.Current == 0 {
			reason, s.Warmed = "PreWarmed", true
		}
	default:
		n, reason = 0, "Idle"
	}
	n = min(n, g.most)
	d := algorithms.Decision{Replicas: n, Valid: true, Reason: reason}
	if !o.Quiet {
		p.explain(&d, &o, &g)
	}
	return d
}

func (p *Policy) slots(o *algorithms.Observation) float64 {
	switch {
	case p.cfg.PodConcurrency > 0:
		return p.cfg.PodConcurrency
	case o.Limits.PodConcurrency > 0 && algorithms.Finite(o.Limits.PodConcurrency):
		return max(o.Limits.PodConcurrency, 1e-6)
	}
	return p.cfg.Target
}

// readingNoise is the variance, in roots, of a mean over w seconds of a Poisson load with that service time: 2aS/w·(1 − (S/w)(1 − e^(−w/S)))/4a.
func readingNoise(service, w float64) float64 {
	x := service / w
	return x / 2 * (1 - x*(1-math.Exp(-1/x)))
}

// learn takes in the reading.
func (p *Policy) learn(o *algorithms.Observation, g *plan, dt float64) {
	s, c := &p.state, &p.cfg
	window := time.Duration(c.Window).Seconds()
	if s.At.IsZero() || dt > gap {
		dt = window
	}
	s.At = o.Now
	if m := g.r.Service; m > 0 && (s.Service == 0 || math.Abs(math.Log(m/s.Service)) > 0.03) {
		s.Service = m
	}
	service := s.Service
	if service == 0 {
		service = 1
	}
	s.Levels.observe(g.r.Load, dt, func(k int) float64 { return readingNoise(service, window*float64(k)) })
	if p.daily != nil {
		p.daily.Observe(o.Now, g.r.Load, time.Duration(dt*float64(time.Second)))
	}
	life := time.Duration(c.HalfLife).Seconds()
	p.near.settle(o.Now, &s.Levels, 1, readingNoise(service, window), life)
	k := int(min(max(g.lead.Seconds(), window), 10) / window)
	p.far.settle(o.Now, &s.Levels, k, readingNoise(service, window*float64(max(k, 1))), life)
	p.account(o, g, dt)
	p.idle(o, g, dt)
}

// account moves the price by what was spent of the budget.
func (p *Policy) account(o *algorithms.Observation, g *plan, dt float64) {
	s, c := &p.state, &p.cfg
	if g.r.Service == 0 {
		return
	}
	horizon := time.Duration(c.BudgetWindow).Seconds()
	asked := g.r.Rate * dt
	k := 1 - math.Exp(-dt/horizon)
	s.Rate += k * (g.r.Rate - s.Rate)
	s.Rated += k * (1 - s.Rated)
	usual := s.Rate / max(s.Rated, 1e-9) * horizon
	if !(usual > 0) {
		return
	}
	goal := time.Duration(c.WaitGoal).Seconds()
	late := 0.0
	switch {
	case g.r.InFlight == 0:
	case o.Replicas.Ready == 0:
		if g.start.Seconds() > goal {
			late = 1
		}
	default: // looked at now and then, the queue is too long for as large a share of time as requests are late
		queued := min(max(2*g.r.Wait/goal-1.5, 0), 1)
		late = (queued + s.Queued) / 2
		s.Queued = queued
	}
	g.late = late
	s.Price = min(max(s.Price+asked*(late-aim*c.ViolationBudget)/(c.ViolationBudget*usual), cheapest), dearest)
}

// idle keeps the book of idle times, and of what idleness costs beside what it would with a pod kept for the reference time.
func (p *Policy) idle(o *algorithms.Observation, g *plan, dt float64) {
	s, c := &p.state, &p.cfg
	rest := o.Now.Sub(s.LastDemand)
	known := !s.LastDemand.IsZero()
	if s.Cold == 0 {
		s.Cold = math.Log(min(max(time.Duration(c.IdleReference).Seconds(), coldest), warmest))
	}
	reference, mine := 0.0, 0.0
	if g.r.InFlight == 0 {
		if known && rest < time.Duration(c.IdleReference) {
			reference = 1
		}
		// a start is paid for by whoever needs the pod: only one in vain counts
		switch {
		case o.Replicas.Ready > 0:
			mine = 1
			s.Spent = min(s.Spent+dt, 1e9)
		case o.Replicas.Current == 0 && s.Warmed:
			mine = g.start.Seconds() / dt
		}
	}
	s.Warmed = s.Warmed && o.Replicas.Current > 0 && g.r.InFlight == 0
	horizon := time.Duration(c.BudgetWindow).Seconds()
	k := 1 - math.Exp(-dt/horizon)
	s.Usual += k * (reference - s.Usual)
	s.Used += k * (1 - s.Used)
	s.Cold = min(max(s.Cold+dt*(reference-mine)/(horizon*max(s.Usual/s.Used, 0.01)), math.Log(coldest)), math.Log(warmest))
	if g.r.InFlight > 0 {
		if known && rest.Seconds() > 2*dt {
			p.rests.Add(rest, math.Exp2(-1.0/idleLife))
		}
		s.LastDemand, s.Spent = o.Now, 0
	}
}

// cold is what a cold start is worth, in seconds of a pod: by the user's prices; or so that idleness costs as much as it would with a pod kept for the
// reference time.
func (p *Policy) cold(o *algorithms.Observation) float64 {
	if o.Cost.PodSecond > 0 && o.Cost.ColdStart > 0 {
		return min(o.Cost.ColdStart/o.Cost.PodSecond, 1e6)
	}
	if p.state.Cold == 0 {
		return time.Duration(p.cfg.IdleReference).Seconds()
	}
	return math.Exp(p.state.Cold)
}

// wanted tells whether there is to be a pod though nothing is asked for: never for longer than a cold start is worth (ski rental), and as the idle
// times say once there are some.
func (p *Policy) wanted(o *algorithms.Observation, g *plan) bool {
	s := &p.state
	if s.LastDemand.IsZero() || s.Spent >= g.cold {
		return false
	}
	rest := o.Now.Sub(s.LastDemand)
	if p.rests.Seen() < enoughIdles {
		return o.Replicas.Current > 0 && rest.Seconds() < g.cold
	}
	if o.Replicas.Current == 0 { // it would be there after its start only
		rest += g.start
	}
	return p.rests.Worth(rest, g.cold, g.lead+time.Duration(p.cfg.Tick))
}

// staff is the least costly count for a forecast.
func (p *Policy) staff(h *horizon, y, floor float64, g *plan) int {
	spread, u := h.spread(floor), root(y)
	best, least := 0, math.Inf(1)
	for n := min(int(0.8*y/g.slots), g.most); float64(n) < least && n <= g.most; n += 1 + n/64 {
		load := p.carry.load(n)
		cost := float64(n) + g.price/p.cfg.ViolationBudget*max(load, y)/g.slots*h.above(root(load)-u, spread)
		if cost < least {
			best, least = n, cost
		}
	}
	return best
}

// drain is how many pods more work off a backlog at least cost: x slots take W/x seconds, in which everyone waits, and cost a start each.
//
//	min over x of  price·a/(Kβ) · W/x + (x/K)·L   gives   x = √(price·a·W / (β·L)),  at most W per tick
func (p *Policy) drain(o *algorithms.Observation, g *plan) int {
	goal := time.Duration(p.cfg.WaitGoal).Seconds()
	if g.r.Backlog == 0 || g.r.Wait < goal/2 {
		return 0
	}
	left := g.lead.Seconds()
	for _, age := range o.Replicas.StartingAges {
		left = min(left, max(g.lead-age, 0).Seconds())
	}
	cap := float64(o.Replicas.Ready) * g.slots
	// what will be left of it when pods come, at the load expected; most backlogs of a burst are gone by then
	ahead := g.far[p.far.state.Best]
	work := g.r.Backlog + (ahead-cap)*left
	// and of that, what the pods asked for anyway take at once waits no longer
	work -= max(float64(g.farPods)*g.slots-cap, 0) * g.r.Service
	if work <= 0 {
		return 0
	}
	x := min(math.Sqrt(g.price*ahead*work/(p.cfg.ViolationBudget*g.lead.Seconds())), work/time.Duration(p.cfg.Tick).Seconds())
	return algorithms.Pods(math.Ceil(x / g.slots))
}

// explain adds the sentence and the terms.
func (p *Policy) explain(d *algorithms.Decision, o *algorithms.Observation, g *plan) {
	s := &p.state
	y := g.far[p.far.state.Best]
	floor := max(s.Service, 1e-3) / 160
	d.Message = fmt.Sprintf("%.4g slots in use now and %.4g in %s (by %s, spread %.2g roots) at a price of %.3g ask for %d pods, now %d; %s gives %d",
		g.r.Load, y, g.lead.Round(time.Millisecond), name(p.far.state.Best), p.far.spread(floor), g.price, g.farPods, g.nearPods, d.Reason, d.Replicas)
	if g.r.InFlight == 0 && d.Replicas <= 1 {
		d.Message = fmt.Sprintf("no demand for %s; by %d idle times seen, and with a cold start worth %.0f s of a pod, %s gives %d",
			o.Now.Sub(s.LastDemand).Round(time.Second), p.rests.Seen(), g.cold, d.Reason, d.Replicas)
		if s.LastDemand.IsZero() {
			d.Message = "no demand since the beginning: " + d.Reason
		}
	}
	wait := g.r.Wait
	if math.IsInf(wait, 1) {
		wait = -1
	}
	d.Terms = append(o.Scratch[:0],
		algorithms.Term{Name: "load", Value: g.r.Load},
		algorithms.Term{Name: "serviceSeconds", Value: s.Service},
		algorithms.Term{Name: "waitSeconds", Value: wait},
		algorithms.Term{Name: "leadSeconds", Value: g.lead.Seconds()},
		algorithms.Term{Name: "forecast", Value: y},
		algorithms.Term{Name: "spread", Value: p.far.spread(floor)},
		algorithms.Term{Name: "errorsSeen", Value: p.far.tail.Size()},
		algorithms.Term{Name: "lateShare", Value: g.late},
		algorithms.Term{Name: "price", Value: g.price},
		algorithms.Term{Name: "podConcurrency", Value: g.slots},
		algorithms.Term{Name: "forecastPods", Value: float64(g.farPods)},
		algorithms.Term{Name: "presentPods", Value: float64(g.nearPods)},
		algorithms.Term{Name: "drainPods", Value: float64(g.drain)},
		algorithms.Term{Name: "heldPods", Value: float64(g.held)},
		algorithms.Term{Name: "coldStartSeconds", Value: g.cold},
		algorithms.Term{Name: "idleTimes", Value: float64(p.rests.Seen())},
	)
}

// Snapshot returns the memory.
func (p *Policy) Snapshot() json.RawMessage {
	s := p.state
	s.Demand, s.Idle = p.est.State, p.rests.State()
	s.Near, s.Far = p.near.snapshot(), p.far.snapshot()
	if p.daily != nil {
		d := p.daily.State()
		s.Daily = &d
	}
	return memory.Save("lookahead", version, s)
}

// Restore puts back a Snapshot. A season is left out where either side has none.
func (p *Policy) Restore(raw json.RawMessage) error {
	s, err := memory.Load[state]("lookahead", version, raw)
	if err != nil {
		return err
	}
	if len(s.Near.Promises) > pending || len(s.Far.Promises) > pending || s.Near.Best < 0 || s.Near.Best >= candidates || s.Far.Best < 0 || s.Far.Best >= candidates {
		return fmt.Errorf("read lookahead snapshot: %d and %d promises: want at most %d", len(s.Near.Promises), len(s.Far.Promises), pending)
	}
	for _, l := range [][]promise{s.Near.Promises, s.Far.Promises} {
		for _, q := range l {
			if q.Best < 0 || q.Best >= candidates {
				return fmt.Errorf("read lookahead snapshot: candidate %d: want 0–%d", q.Best, candidates-1)
			}
		}
	}
	var (
		near, far horizon
		rests     keepalive.Idle
	)
	if err := rests.Load(s.Idle); err != nil {
		return fmt.Errorf("read lookahead snapshot: %w", err)
	}
	if err := near.restore(s.Near); err != nil {
		return fmt.Errorf("read lookahead snapshot: %w", err)
	}
	if err := far.restore(s.Far); err != nil {
		return fmt.Errorf("read lookahead snapshot: %w", err)
	}
	if p.daily != nil && s.Daily != nil {
		if err := p.daily.Load(*s.Daily); err != nil {
			return fmt.Errorf("read lookahead snapshot: %w", err)
		}
	}
	p.near, p.far, p.est.State, p.rests = near, far, s.Demand, rests
	s.Demand, s.Idle = demand.State{}, keepalive.IdleState{}
	s.Daily, s.Near, s.Far = nil, horizonState{}, horizonState{}
	p.state = s
	return nil
}

func (h *horizon) snapshot() horizonState {
	s := h.state
	s.Promises = append([]promise(nil), s.Promises...)
	s.Tail, s.Plain = h.tail.State(), h.plain.State()
	return s
}

func (h *horizon) restore(s horizonState) error {
	if err := h.tail.Load(s.Tail); err != nil {
		return err
	}
	if err := h.plain.Load(s.Plain); err != nil {
		return err
	}
	s.Tail, s.Plain = conformal.TailState{}, conformal.TailState{}
	h.state = s
	return nil
}
