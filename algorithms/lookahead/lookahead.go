// Package lookahead staffs for the load that there will be when a pod ordered now is ready, so that at most a given share of requests waits
// longer than a goal, at the least pod-seconds. It is staffing (queueing theory) on a forecast with a conformal margin.
//
//	lead     L = start-up time (its 90th percentile) + tick: what is not ordered now cannot be there before
//	ŷ(L)     the load then, in slots, by whichever of seven forecasts erred less lately (means of 1 s to 160 s that follow jumps, trend, season)
//	errors   of ŷ so far, in roots of load (√(y + 3/8)) and in units of their recent spread; each lead time has its own, and each level of ŷ
//	a*(n)    the load that n pods carry until there can be others: the largest at which at most the budgeted share waits longer than the goal
//	late(n)  the load expected in seconds in which it is above a*(n), by the errors
//	cost(n)  n + price/β · late(n)/K
//	n(L)     where the cheapest course of such costs leads (package workfunction), if it costs L to add a pod and remove it again
//
// The cost says: one pod-second against the requests that violate the goal, each at price·S/(Kβ) pod-seconds, which is the work that it is worth over
// the budget β. At price 1 that is a newsvendor whose critical ratio is 1 − β. So a burst that few requests make is let wait where a pod for it would
// be dear, and a large one never. The price follows the budget, as α does in adaptive conformal inference: overspending the budget of budgetWindow (of
// which three quarters are aimed at) makes violations e times as dear, not using it e times as cheap, within 1/64–1.
//
// A queue takes time to grow: who has other pods in a second may be surprised by a load of half as much again, who waits a minute for them may not. So
// a* is that of the lead time, from an empty queue on (staffing.WaitShareWithin); only what is expected must be carried for a minute at least.
// Readings further from each other than Poisson arrivals would make them tell of arrivals in bursts: these count in a*, and in what is taken for noise.
//
// Errors are told apart by the level of the forecast, a factor of two each, since loads jump up from where they are low. One jump makes errors for
// as long as the lead, and the first tells nothing of how often it comes: a lead's worth of the largest errors is left out, so that k jumps count as k − 1.
//
// What runs by a clock makes load jump at the same minutes of every hour. Where chance does not explain how unevenly the jumps seen fall upon the minutes, late(n)
// is multiplied by how much likelier they are in the minutes until L than at other times, and n(L) moves at once when they are.
//
// The answer is the larger of n(L) and of what the pods there are needed for until the next decision. A backlog adds the pods that work it off at least
// cost, which are held for the start-up time plus two ticks. Within the lead time after the first reading, ten seconds at least, no pod is taken away.
//
// Without demand the idle times seen tell whether the last pod is worth keeping, or worth bringing back before the next request (keepalive.Idle). What a
// cold start is worth follows from a budget as well: idleness, with the starts that follow it, is to cost what it would with a pod kept for idleReference
// after each request. Where prices are given they say it. The last pod is kept for no longer than a cold start costs. Requests that wait for one move that
// price and not the other.
//
// Sources: Erlang 1917; Gibbs and Candès 2021 (package conformal); Vovk, Gammerman and Shafer 2005 (errors by category); Arrow, Harris and Marschak 1951
// (newsvendor); Karlin et al. 1988 (ski rental); Anscombe 1948 (roots); Pearson 1900 (unevenness); the rest is this project's.
package lookahead

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/demand"
	"github.com/sluice-autoscaler/sluice/algorithms/forecast"
	"github.com/sluice-autoscaler/sluice/algorithms/keepalive"
	"github.com/sluice-autoscaler/sluice/algorithms/memory"
	"github.com/sluice-autoscaler/sluice/algorithms/workfunction"
)

// Policy decides as the package says. It is not safe for concurrent use.
type Policy struct {
	cfg       Config
	est       demand.Estimator
	daily     *forecast.Daily // nil unless Seasonal
	near, far horizon
	state     state
	// surge answers what pods carry until there can be more of them, steady what they carry for long.
	surge, steady carry
	rests         keepalive.Idle
	course        workfunction.Function
	past          past
	told          func(time.Time) float64
}

type state struct {
	At time.Time `json:"at,omitzero"`
	// Since is when the first of the readings that came without a gap did.
	Since time.Time `json:"since,omitzero"`
	// Demand is the estimator's memory, in snapshots only; so are Near, Far and Daily.
	Demand demand.State         `json:"demand"`
	Near   horizonState         `json:"near"`
	Far    horizonState         `json:"far"`
	Daily  *forecast.DailyState `json:"daily,omitempty"`
	Levels levels               `json:"levels"`
	// Clock knows at what minutes of the hour the load jumps.
	Clock clock `json:"clock"`
	// Service is the service time in use, in seconds: it follows the measured one in steps of 3 %.
	Service float64 `json:"service"`
	// Burst is the peakedness of the load: how many times further its readings are from each other than those of Poisson arrivals, squared.
	// Peak is the one that margins are made for: it follows in steps of an eighth.
	Burst float64 `json:"burst"`
	Peak  float64 `json:"peak"`
	// Price is the logarithm of the price; Rate the mean of requests per second over the budget window, Rated the weight it rests on.
	Price float64 `json:"price"`
	Rate  float64 `json:"rate"`
	Rated float64 `json:"rated"`
	// Queued is the share that was late by the queue at the reading before.
	Queued float64 `json:"queued"`
	// Waking says that there was no pod, and that what came then is not worked off yet.
	Waking bool `json:"waking,omitempty"`
	// Choice is the count that the forecasts led to; Course, in snapshots only, what led there.
	Choice int       `json:"choice"`
	Course []float64 `json:"course,omitempty"`
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
	version = 3
	// cheapest, first and dearest are logarithms of prices: a sixty-fourth and the newsvendor's bound it, and it begins at a quarter, since pods are
	// whole and most loads need little of the budget.
	cheapest, first, dearest = -4.1588830833596715, -1.3862943611198906, 0
	// early is for how long at least nothing is taken for too many pods: requests in service are few at first.
	early = 10 * time.Second
	// lasting is for how many seconds at least pods are to carry the load that is expected.
	lasting = 60.0
	// aim is the share of the budget that is spent on purpose: within the days that matter the share of late requests is off by some of it.
	aim = 0.75
	// enoughIdles is how many idle times must be known to be believed; idleLife after how many of them one counts half.
	enoughIdles, idleLife = 5, 64
	// coldest and warmest bound what a cold start is worth, in seconds of a pod.
	coldest, warmest = 5.0, 6 * 3600.0
	// gap is after how many seconds without a reading what went before says nothing of now.
	gap = 60.0
	// mostBins bounds the past that is kept.
	mostBins = 50_000
)

// New returns a policy with a validated Config.
func New(c Config) (*Policy, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	p := &Policy{cfg: c, est: demand.Estimator{Short: time.Duration(c.Window)}}
	p.near.state.Best, p.far.state.Best = by40s, by40s
	p.state.Price = first
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

// Learns names concurrency.
func (p *Policy) Learns() []string { return []string{algorithms.Concurrency} }

// Learn takes in past concurrency: for the season, and for how far the load jumps.
func (p *Policy) Learn(history []algorithms.Sample) error {
	if err := algorithms.CheckHistory(history, p.state.At); err != nil {
		return err
	}
	if p.daily != nil {
		p.daily.Learn(history, algorithms.Concurrency)
	}
	if !p.state.At.IsZero() {
		return nil // what it saw itself is worth more
	}
	p.past = past{}
	for _, s := range history {
		if s.Signal == algorithms.Concurrency {
			p.past.bins = append(p.past.bins, bin{s.At, s.Value})
		}
	}
	p.past.bins = p.past.bins[max(0, len(p.past.bins)-mostBins):]
	return nil
}

// Tell names the load to come, in requests in flight at an instant, which takes the place of forecasts and has no errors: for a bench that asks what a better
// forecast could gain at most. Who knows the load does not know the requests, so that margins for their chance and for queues stay.
func (p *Policy) Tell(load func(at time.Time) float64) { p.told = load }

// foresee replaces the forecasts by what was told: that a lead time ahead, and the most until then, for which no pod ordered now comes in time.
func (p *Policy) foresee(now time.Time, tick time.Duration, g *plan) {
	near, far := 0.0, p.told(now.Add(g.lead))
	for d := time.Duration(0); d < g.lead; d += tick {
		near = max(near, p.told(now.Add(d)))
	}
	for i := range candidates {
		g.near[i], g.far[i] = near, far
	}
}

// past is a history that was learnt, kept until the start-up time is known by which it is to be read.
type past struct {
	bins []bin
	// lead is for how many seconds ahead it was read, 0 before it was.
	lead float64
}

// recall reads the past for the lead time that is assumed at first, and again once that was measured.
func (p *Policy) recall(o *algorithms.Observation, g *plan) {
	lead, measured := g.lead.Seconds(), o.StartUp.Samples > 0
	if len(p.past.bins) == 0 || !measured && p.past.lead > 0 {
		return
	}
	if p.past.lead == 0 || math.Abs(math.Log(lead/p.past.lead)) > 0.125 {
		service := p.service()
		p.state.Clock = p.far.recall(p.past.bins, lead, time.Duration(p.cfg.HalfLife).Seconds(), service/160, func(w float64) float64 { return p.noise(service, w) })
		p.past.lead = lead
	}
	if measured {
		p.past = past{}
	}
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
	cold              float64 // what a cold start costs, its own start included, in seconds of a pod
	price             float64
	likelier          float64 // how many times likelier than usual more load is to come, by the clock
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
		d := algorithms.Decision{Reason: "NoData", Next: time.Duration(p.cfg.Tick)}
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
	p.recall(&o, &g)
	service := p.service()
	noise := p.noise(service, time.Duration(p.cfg.Window).Seconds())
	floor := service / (4 * 40) // the variance of a mean of 40 s of a Poisson load, in roots
	s.Levels.at(tick.Seconds(), ratio(p.daily, o.Now, o.Now.Add(tick)), noise, &g.near)
	s.Levels.at(g.lead.Seconds(), ratio(p.daily, o.Now, o.Now.Add(g.lead)), noise, &g.far)
	if p.told != nil {
		p.foresee(o.Now, tick, &g)
	}
	if fresh && !blind(&g.r) {
		p.near.promise(o.Now, tick, &g.near, floor)
		p.far.promise(o.Now, g.lead, &g.far, floor)
	}
	g.price = math.Exp(s.Price)
	share, wait := p.cfg.ViolationBudget/g.price, time.Duration(p.cfg.WaitGoal).Seconds()/service
	p.surge.set(share, wait, g.slots, g.lead.Seconds()/service, s.Peak)
	p.steady.set(share, wait, g.slots, max(g.lead.Seconds(), lasting)/service, s.Peak)
	g.nearPods = p.staff(floor, &g)
	g.likelier = s.Clock.factor(o.Now, o.Now.Add(g.lead))
	if fresh {
		s.Choice = p.choose(floor, min(max(dt, 0), gap), &g)
	}
	g.farPods = min(s.Choice, g.most)
	// pods for the next tick are there or come too late: only those that exist count for it
	n, reason := g.farPods, "Forecast"
	if kept := min(g.nearPods, max(o.Replicas.Current, 1)); kept > n {
		n, reason = kept, "Present"
	}
	if queued := algorithms.Pods(math.Ceil(g.r.Load / g.slots)); blind(&g.r) && queued > n {
		n, reason = queued, "Queue"
	}
	if g.drain = p.drain(&o, &g); g.drain > 0 {
		n, reason = n+g.drain, "Backlog"
	}
	hold := 0
	if g.drain > 0 {
		hold = n
	}
	if g.held = s.Recent.Add(o.Now, hold, likely+2*tick); g.held > n && o.Replicas.Current > n {
		n, reason = min(g.held, o.Replicas.Current), "Held"
	}
	g.cold = p.cold(&o) + g.start.Seconds()
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
	if now := o.Replicas.Current; n < now && o.Now.Sub(s.Since) < max(g.lead, early) {
		n, reason = now, "Early"
	}
	n = min(n, g.most)
	d := algorithms.Decision{Replicas: n, Valid: true, Reason: reason, Next: tick}
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

// service is the service time in use, in seconds; one second while none was measured.
func (p *Policy) service() float64 {
	if p.state.Service == 0 {
		return 1
	}
	return p.state.Service
}

// readingNoise is the variance, in roots, of a mean over w seconds of a Poisson load with that service time: 2aS/w·(1 − (S/w)(1 − e^(−w/S)))/4a.
func readingNoise(service, w float64) float64 {
	x := service / w
	return x / 2 * (1 - x*(1-math.Exp(-1/x)))
}

// stepNoise is the variance, in roots, of the step from one such mean to the next.
func stepNoise(service, w float64) float64 {
	x := service / w
	both := x * (1 - math.Exp(-1/x)) // what the two have in common
	return 2*readingNoise(service, w) - both*both/2
}

// noise is readingNoise of a load as peaked as this one.
func (p *Policy) noise(service, w float64) float64 {
	return readingNoise(service, w) * max(p.state.Burst, 1)
}

// learn takes in the reading.
func (p *Policy) learn(o *algorithms.Observation, g *plan, dt float64) {
	s, c := &p.state, &p.cfg
	window := time.Duration(c.Window).Seconds()
	if s.At.IsZero() || dt > gap {
		dt, s.Since = window, o.Now
	}
	s.At = o.Now
	if m := g.r.Service; m > 0 && (s.Service == 0 || math.Abs(math.Log(m/s.Service)) > 0.03) {
		s.Service = m
	}
	p.idle(o, g, dt)
	if blind(&g.r) {
		return
	}
	service := p.service()
	if !g.r.Saturated && dt < 2*window {
		p.burst(g.r.Load, service, window, dt)
	}
	s.Levels.observe(g.r.Load, dt, func(k int) float64 { return p.noise(service, window*float64(k)) })
	if p.daily != nil {
		p.daily.Observe(o.Now, g.r.Load, time.Duration(dt*float64(time.Second)))
	}
	life := time.Duration(c.HalfLife).Seconds()
	p.near.settle(o.Now, &s.Levels, 1, p.noise(service, window), time.Duration(c.Tick).Seconds(), life, nil)
	k := int(min(max(g.lead.Seconds(), window), 10) / window)
	p.far.settle(o.Now, &s.Levels, k, p.noise(service, window*float64(max(k, 1))), g.lead.Seconds(), life, &s.Clock)
	p.account(o, g, dt)
}

// burst learns the peakedness by how far the reading is from the one before. A step beyond two standard deviations counts as one of two, since jumps are
// the forecast's matter; of normal ones 0.92 of the variance is left so.
func (p *Policy) burst(load, service, window, dt float64) {
	s := &p.state
	if s.Burst == 0 {
		s.Burst, s.Peak = 1, 1
	}
	if s.Levels.Count == 0 || load+s.Levels.Last[0] < 2 {
		return
	}
	e := root(load) - root(s.Levels.Last[0])
	ratio := min(e*e/stepNoise(service, window), 4*max(s.Burst, 1)) / 0.92
	s.Burst += (1 - math.Exp(-dt/offLife)) * (ratio - s.Burst)
	if b := max(s.Burst, 1); math.Abs(math.Log(b/s.Peak)) > 0.125 {
		s.Peak = b
	}
}

// blind says that a queue cannot be told from load yet.
func blind(r *demand.Reading) bool { return r.Saturated && r.Service == 0 }

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
		s.Waking = true
		if g.start.Seconds() > goal {
			late = 1
		}
	default: // looked at now and then, the queue is too long for as large a share of time as requests are late
		queued := min(max(2*g.r.Wait/goal-1.5, 0), 1)
		late = (queued + s.Queued) / 2
		s.Queued = queued
		s.Waking = s.Waking && late > 0
	}
	if g.late = late; s.Waking {
		return // what a cold start costs is the matter of idle times
	}
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
	// in seconds of a pod; who is without one when demand comes pays for a start
	reference, mine := 0.0, 0.0
	start := g.start.Seconds()
	switch {
	case g.r.InFlight > 0 && known && rest.Seconds() > 2*dt:
		if rest > time.Duration(c.IdleReference) {
			reference = start
		}
		if o.Replicas.Ready == 0 {
			mine = start
		}
	case g.r.InFlight > 0:
	case o.Replicas.Ready > 0:
		mine = dt
		s.Spent = min(s.Spent+dt, 1e9)
	case o.Replicas.Current == 0 && s.Warmed:
		mine = start // in vain
	}
	if g.r.InFlight == 0 && known && rest < time.Duration(c.IdleReference) {
		reference = dt
	}
	s.Warmed = s.Warmed && o.Replicas.Current > 0 && g.r.InFlight == 0
	horizon := time.Duration(c.BudgetWindow).Seconds()
	k := 1 - math.Exp(-dt/horizon)
	s.Usual += k * (reference/dt - s.Usual)
	s.Used += k * (1 - s.Used)
	s.Cold = min(max(s.Cold+(reference-mine)/(horizon*max(s.Usual/s.Used, 0.01)), math.Log(coldest)), math.Log(warmest))
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

// costs tells what n pods cost a second, for a forecast y of a horizon: themselves, and what the load that they do not carry is worth. It is
// asked for n that rises from call to call.
type costs struct {
	p                *Policy
	h                *horizon
	y, spread, price float64
	// likelier is how many times likelier than usual more load is to come.
	likelier float64
	safe     bool
}

// costs prepares them for a forecast lead seconds ahead.
func (p *Policy) costs(h *horizon, y, floor, lead float64, g *plan) costs {
	spread := h.spread(floor)
	h.expect(y, spread, lead)
	return costs{p: p, h: h, y: y, spread: spread, price: g.price / p.cfg.ViolationBudget / g.slots, likelier: 1}
}

func (c *costs) of(n int) float64 {
	cost := float64(n)
	if !c.safe {
		load := c.p.surge.load(n)
		if steady := c.p.steady.load(n); steady < c.y { // it is not for this once that they do not carry what is expected
			load = steady
		}
		late := c.price * c.late(load)
		cost += late
		c.safe = late < 1e-6 && load > c.y
	}
	return cost
}

// late is the load expected in seconds in which it is above load.
func (c *costs) late(load float64) float64 {
	if c.p.told != nil {
		if c.y > load {
			return c.y
		}
		return 0
	}
	late := c.h.late(load, c.y, c.spread)
	if load > c.y {
		late = min(late*c.likelier, max(late, c.y))
	}
	return late
}

// staff is the least costly count for the next tick.
func (p *Policy) staff(floor float64, g *plan) int {
	y := g.near[p.near.state.Best]
	c := p.costs(&p.near, y, floor, time.Duration(p.cfg.Tick).Seconds(), g)
	best, least := 0, math.Inf(1)
	for n := min(int(0.8*y/g.slots), g.most); float64(n) < least && n <= g.most; n += 1 + n/64 {
		if cost := c.of(n); cost < least {
			best, least = n, cost
		}
	}
	return best
}

// choose moves the count along the cheapest course, dt seconds on: to add a pod and remove it costs its start, and a tick. Where the clock says that more load
// is likelier to come now, that is known to hold for a minute and those beside it, and is not waited for.
func (p *Policy) choose(floor, dt float64, g *plan) int {
	lead := g.lead.Seconds()
	c := p.costs(&p.far, g.far[p.far.state.Best], floor, lead, g)
	c.likelier = g.likelier
	now := p.course.Step(p.state.Choice, g.most, lead/2, func(n int) float64 { return c.of(n) * dt })
	if c.likelier <= 1 {
		return now
	}
	c.safe = false
	best, least := now, math.Inf(1)
	for n := now; n <= g.most; n += 1 + n/64 {
		cost := c.of(n)*span.Seconds() + float64(n-now)*lead
		if cost < least {
			best, least = n, cost
		}
		if c.safe {
			break
		}
	}
	return best
}

// drain is how many pods more work off a backlog at least cost, down to one in which requests wait for half the goal: x slots take W/x seconds, in which
// everyone waits for too long, and cost a start each.
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
	asked := max(float64(g.farPods)*g.slots, cap)
	work -= (asked - cap) * g.r.Service
	work -= goal / 2 * asked
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
	if g.likelier > 1 {
		d.Message += fmt.Sprintf("; at these minutes of the hour more load is %.1f times likelier to come", g.likelier)
	}
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
		algorithms.Term{Name: "errorsSeen", Value: p.far.all.tail.Size()},
		algorithms.Term{Name: "likelier", Value: g.likelier},
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
	s.Demand, s.Idle, s.Course = p.est.State, p.rests.State(), p.course.State()
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
	if err := s.Clock.check(); err != nil {
		return fmt.Errorf("read lookahead snapshot: %w", err)
	}
	var course workfunction.Function
	if err := course.Load(s.Course); err != nil {
		return fmt.Errorf("read lookahead snapshot: %w", err)
	}
	if p.daily != nil && s.Daily != nil {
		if err := p.daily.Load(*s.Daily); err != nil {
			return fmt.Errorf("read lookahead snapshot: %w", err)
		}
	}
	p.near, p.far, p.est.State, p.rests, p.course, p.past = near, far, s.Demand, rests, course, past{}
	s.Demand, s.Idle, s.Course = demand.State{}, keepalive.IdleState{}, nil
	s.Daily, s.Near, s.Far = nil, horizonState{}, horizonState{}
	p.state = s
	return nil
}

func (b *book) snapshot() bookState { return bookState{Tail: b.tail.State(), Plain: b.plain.State()} }

func (b *book) restore(s bookState) error {
	return errors.Join(b.tail.Load(s.Tail), b.plain.Load(s.Plain))
}

func (h *horizon) snapshot() horizonState {
	s := h.state
	s.Promises = append([]promise(nil), s.Promises...)
	s.All, s.At = h.all.snapshot(), map[int]bookState{}
	for i, b := range h.at {
		if b != nil {
			s.At[i] = b.snapshot()
		}
	}
	return s
}

func (h *horizon) restore(s horizonState) error {
	if err := h.all.restore(s.All); err != nil {
		return err
	}
	for i, b := range s.At {
		if i < 0 || i >= heights {
			return fmt.Errorf("level %d: want 0–%d", i, heights-1)
		}
		h.at[i] = new(book)
		if err := h.at[i].restore(b); err != nil {
			return err
		}
	}
	s.All, s.At = bookState{}, nil
	h.state = s
	return nil
}
