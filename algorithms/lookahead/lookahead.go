// Package lookahead sizes a workload for the load at the time when a pod ordered now is ready. At
// most a given share of requests waits longer than a goal, at the least pod-seconds. It combines
// staffing (queueing theory) with a forecast and the distribution of its residuals.
//
//	lead       L = start-up time (its 90th percentile) + tick
//	ŷ(L)       load at now + L in slots, by the best of seven forecasts (means, trend, season)
//	residuals  of ŷ, in roots of load √(y + 3/8), scaled by their recent spread; one distribution
//	           per lead time and per level of ŷ
//	a*(n)      load that n pods carry until more pods can be ready: at most the budgeted share of
//	           requests waits longer than the goal
//	late(n)    expected load in seconds in which the load exceeds a*(n)
//	cost(n)    n + price/β · late(n)/K
//	n(L)       the count that the work function algorithm chooses for these costs, where adding and
//	           removing a pod costs L (package workfunction)
//
// Cost. A request that violates the goal costs price·S/(Kβ) pod-seconds, for service time S, pod
// concurrency K and budget β. At price 1 the count solves a newsvendor problem with critical ratio
// 1 − β. The price follows the budget of budgetWindow, of which three quarters are aimed at:
// overspending all of it makes violations e times as dear, spending none of it e times as cheap,
// within 1/64 and 1.
//
// Capacity. A queue takes time to grow, so a* is computed for the lead time, from an empty queue on
// (staffing.WaitShareWithin). Only the expected load must be carried for a minute at least. Where
// readings differ by more than Poisson arrivals explain, arrivals come in bursts. The peakedness
// enters a* and the noise of readings.
//
// Residuals are kept by the level of the forecast, a factor of two each, since loads jump up from
// low levels. One jump makes residuals for as long as the lead time. A lead time's worth of the
// largest residuals is left out, so that k jumps count as k − 1.
//
// Clock. Scheduled jobs make load jump at the same minutes of every hour. Where a test of
// uniformity rejects chance, late(n) is multiplied by how much likelier a jump is in the minutes
// until L, and n(L) follows at once.
//
// Answer. The larger of n(L) and of the count that serves the present load until the next decision.
// A backlog adds the pods that work it off at least cost; they are held for the start-up time plus
// two ticks. Within the lead time after the first reading, and ten seconds at least, no pod is
// removed.
//
// Last pod. Without demand the distribution of idle times tells whether the last pod is worth
// keeping, or worth starting before the next request (keepalive.Idle). The worth of a cold start
// follows a second budget: idle time and the starts after it are to cost what they would with a pod
// kept for idleReference after each request. Observed prices override it. The last pod is kept for
// no longer than a cold start is worth.
//
// Sources: Erlang 1917; Gibbs and Candès 2021 (the price follows the budget); Vovk, Gammerman and
// Shafer 2005 (residuals by category); Arrow, Harris and Marschak 1951 (newsvendor); Karlin et al.
// 1988 (ski rental); Anscombe 1948 (roots); Pearson 1900 (uniformity). The rest is this project's.
package lookahead

import (
	"fmt"
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/demand"
	"github.com/sluice-autoscaler/sluice/algorithms/forecast"
	"github.com/sluice-autoscaler/sluice/algorithms/keepalive"
	"github.com/sluice-autoscaler/sluice/algorithms/staffing"
	"github.com/sluice-autoscaler/sluice/algorithms/workfunction"
)

// Policy decides as the package says. It is not safe for concurrent use.
type Policy struct {
	cfg       Config
	estimator demand.Estimator
	daily     *forecast.Daily // nil unless Seasonal
	near, far horizon
	state     state
	// surge tells what pods carry until more can be ready, steady what they carry for long.
	surge, steady staffing.Capacity
	idleTimes     keepalive.Idle
	workFunction  workfunction.Function
	history       history
	knownLoad     func(time.Time) float64
}

type state struct {
	At time.Time `json:"at,omitzero"`
	// Since is the instant of the first reading after the last gap.
	Since time.Time `json:"since,omitzero"`
	// Demand is the estimator's memory. Demand, Near, Far and Daily are set in snapshots only.
	Demand demand.State         `json:"demand"`
	Near   horizonState         `json:"near"`
	Far    horizonState         `json:"far"`
	Daily  *forecast.DailyState `json:"daily,omitempty"`
	Levels averages             `json:"levels"`
	// Clock holds the minutes of the hour at which the load jumps.
	Clock jumpProfile `json:"clock"`
	// Service is the service time in use, in seconds. It follows the measured one in steps of 3 %.
	Service float64 `json:"service"`
	// Burst is the peakedness of the load: the variance of readings over that of Poisson arrivals.
	// Peak is the value that margins use; it follows Burst in steps of an eighth.
	Burst float64 `json:"burst"`
	Peak  float64 `json:"peak"`
	// Price is the logarithm of the price. Rate is the mean of requests per second over the budget
	// window, and RateWeight the weight behind it.
	Price      float64 `json:"price"`
	Rate       float64 `json:"rate"`
	RateWeight float64 `json:"rated"`
	// QueuedShare is the share of late requests by the queue at the previous reading.
	QueuedShare float64 `json:"queued"`
	// Waking is true from a demand that found no pod until its backlog is worked off.
	Waking bool `json:"waking,omitempty"`
	// Choice is the count chosen by the forecasts. WorkFunction, in snapshots only, is the state
	// behind it.
	Choice       int       `json:"choice"`
	WorkFunction []float64 `json:"course,omitempty"`
	// Recent holds the answers that are kept for a while.
	Recent algorithms.Maxima `json:"recent,omitempty"`
	// LastDemand is the last instant with demand. Idle, in snapshots only, are the idle times seen.
	LastDemand time.Time           `json:"lastDemand,omitzero"`
	Idle       keepalive.IdleState `json:"idle"`
	// LogColdStart is the logarithm of the worth of a cold start in pod-seconds, without observed
	// prices. ReferenceIdle is the share of time in which a pod kept for the reference time would
	// be idle, ReferenceWeight the weight behind it. IdleSpent is how long a pod was kept in the
	// present idle time, in seconds.
	LogColdStart    float64 `json:"cold"`
	ReferenceIdle   float64 `json:"usual"`
	ReferenceWeight float64 `json:"used"`
	IdleSpent       float64 `json:"spent"`
	// Warmed is true while a pod started ahead of demand waits for it.
	Warmed bool `json:"warmed,omitempty"`
}

const (
	version = 3
	// minPrice, initialPrice and maxPrice are logarithms: 1/64, 1/4 and the newsvendor's price. It
	// begins at a quarter, since pods are whole and most loads spend little of the budget.
	minPrice, initialPrice, maxPrice = -4.1588830833596715, -1.3862943611198906, 0
	// firstReadings is how long at least no pod is removed: at first few requests are in service.
	firstReadings = 10 * time.Second
	// sustained is for how many seconds at least pods must carry the expected load.
	sustained = 60.0
	// aimedShare is the share of the budget that is spent on purpose; the rest covers the variance
	// of the share of late requests over some days.
	aimedShare = 0.75
	// minIdleTimes is how many idle times make their distribution usable, idleHalfLife after how
	// many of them one counts half.
	minIdleTimes, idleHalfLife = 5, 64
	// minColdStart and maxColdStart bound the worth of a cold start, in pod-seconds.
	minColdStart, maxColdStart = 5.0, 6 * 3600.0
	// gap is after how many seconds without a reading the previous one is not used.
	gap = 60.0
	// maxBins bounds the history that is kept.
	maxBins = 50_000
)

// New returns a policy with a validated Config.
func New(c Config) (*Policy, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	p := &Policy{cfg: c, estimator: demand.Estimator{Short: time.Duration(c.Window)}}
	p.near.state.Best, p.far.state.Best = by40s, by40s
	p.state.Price = initialPrice
	if c.Seasonal {
		var err error
		if p.daily, err = forecast.NewDaily(forecast.DefaultDaily()); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Needs names concurrency now, concurrency and rate over the short window, and concurrency over a
// minute for when the short window is unknown.
func (p *Policy) Needs() []algorithms.Need { return p.estimator.Needs() }

// Learns names concurrency.
func (p *Policy) Learns() []string { return []string{algorithms.Concurrency} }

// Learn reads past concurrency: for the season, and for the distribution of residuals.
func (p *Policy) Learn(samples []algorithms.Sample) error {
	if err := algorithms.CheckHistory(samples, p.state.At); err != nil {
		return err
	}
	if p.daily != nil {
		p.daily.Learn(samples, algorithms.Concurrency)
	}
	if !p.state.At.IsZero() {
		return nil // its own readings are better
	}
	p.history = history{}
	for _, s := range samples {
		if s.Signal == algorithms.Concurrency {
			p.history.bins = append(p.history.bins, bin{s.At, s.Value})
		}
	}
	p.history.bins = p.history.bins[max(0, len(p.history.bins)-maxBins):]
	return nil
}

// SetKnownLoad sets the load to come, in requests in flight at an instant. It replaces the
// forecasts and has no residuals. A bench uses it to find the most that a better forecast could
// gain. Knowing the load does not tell when requests arrive, so the margins for their variance and
// for queues stay.
func (p *Policy) SetKnownLoad(load func(at time.Time) float64) { p.knownLoad = load }

// useKnownLoad replaces the forecasts by the known load: at the lead time, and its maximum until
// then, for which no pod ordered now is ready in time.
func (p *Policy) useKnownLoad(now time.Time, tick time.Duration, g *plan) {
	near, far := 0.0, p.knownLoad(now.Add(g.lead))
	for d := time.Duration(0); d < g.lead; d += tick {
		near = max(near, p.knownLoad(now.Add(d)))
	}
	for i := range candidates {
		g.near[i], g.far[i] = near, far
	}
}

// history is a past that was learnt. It is kept until the measured start-up time is known, which
// sets the lead time.
type history struct {
	bins []bin
	// lead is the lead time in seconds for which it was replayed, 0 before.
	lead float64
}

// replayHistory replays the history for the assumed lead time, and again once a start was measured.
func (p *Policy) replayHistory(o *algorithms.Observation, g *plan) {
	lead, measured := g.lead.Seconds(), o.StartUp.Samples > 0
	if len(p.history.bins) == 0 || !measured && p.history.lead > 0 {
		return
	}
	if p.history.lead == 0 || math.Abs(math.Log(lead/p.history.lead)) > 0.125 {
		service := p.service()
		p.state.Clock = p.far.replay(p.history.bins, lead, time.Duration(p.cfg.HalfLife).Seconds(), service/160, func(w float64) float64 { return p.noise(service, w) })
		p.history.lead = lead
	}
	if measured {
		p.history = history{}
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
	// what a cold start costs, its own start included, in seconds of a pod
	cold  float64
	price float64
	// how many times likelier than usual more load is to come, by the clock
	jumpFactor float64
	late       float64 // share of the requests that come now, as estimated
}

// Decide answers one observation.
func (p *Policy) Decide(o algorithms.Observation) algorithms.Decision {
	s := &p.state
	g := plan{slots: p.slots(&o), most: 1_000_000}
	if o.Limits.Max > 0 {
		g.most = min(o.Limits.Max, g.most)
	}
	g.r = p.estimator.Read(&o, g.slots)
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
		p.observe(&o, &g, dt)
	}
	p.replayHistory(&o, &g)
	service := p.service()
	noise := p.noise(service, time.Duration(p.cfg.Window).Seconds())
	floor := service / (4 * 40) // the variance of a mean of 40 s of a Poisson load, in roots
	s.Levels.forecasts(tick.Seconds(), seasonFactor(p.daily, o.Now, o.Now.Add(tick)), noise, &g.near)
	s.Levels.forecasts(g.lead.Seconds(), seasonFactor(p.daily, o.Now, o.Now.Add(g.lead)), noise, &g.far)
	if p.knownLoad != nil {
		p.useKnownLoad(o.Now, tick, &g)
	}
	if fresh && !ambiguous(&g.r) {
		p.near.issue(o.Now, tick, &g.near, floor)
		p.far.issue(o.Now, g.lead, &g.far, floor)
	}
	g.price = math.Exp(s.Price)
	share, wait := p.cfg.ViolationBudget/g.price, time.Duration(p.cfg.WaitGoal).Seconds()/service
	p.surge.Set(share, wait, g.slots, g.lead.Seconds()/service, s.Peak)
	p.steady.Set(share, wait, g.slots, max(g.lead.Seconds(), sustained)/service, s.Peak)
	g.nearPods = p.presentCount(floor, &g)
	g.jumpFactor = s.Clock.factor(o.Now, o.Now.Add(g.lead))
	if fresh {
		s.Choice = p.chooseCount(floor, min(max(dt, 0), gap), &g)
	}
	g.farPods = min(s.Choice, g.most)
	n, reason := p.answer(&o, &g, likely+2*tick)
	n = min(n, g.most)
	d := algorithms.Decision{Replicas: n, Valid: true, Reason: reason, Next: tick}
	if !o.Quiet {
		p.explain(&d, &o, &g)
	}
	return d
}

// answer combines the counts of a decision. Pods for a backlog are kept for hold.
func (p *Policy) answer(o *algorithms.Observation, g *plan, hold time.Duration) (n int, reason string) {
	s := &p.state
	// A pod ordered now is too late for the next tick, so only existing pods count for it.
	n, reason = g.farPods, "Forecast"
	if kept := min(g.nearPods, max(o.Replicas.Current, 1)); kept > n {
		n, reason = kept, "Present"
	}
	if queued := algorithms.Pods(math.Ceil(g.r.Load / g.slots)); ambiguous(&g.r) && queued > n {
		n, reason = queued, "Queue"
	}
	if g.drain = p.drain(o, g); g.drain > 0 {
		n, reason = n+g.drain, "Backlog"
	}
	held := 0
	if g.drain > 0 {
		held = n
	}
	if g.held = s.Recent.Add(o.Now, held, hold); g.held > n && o.Replicas.Current > n {
		n, reason = min(g.held, o.Replicas.Current), "Held"
	}
	g.cold = p.coldStartWorth(o) + g.start.Seconds()
	switch {
	case n > 1:
	case g.r.InFlight > 0:
		n = 1
	case p.keepsLastPod(o, g):
		// no demand: idle times describe so little load better than forecasts
		n, reason = 1, "KeptAlive"
		if o.Replicas.Current == 0 {
			reason, s.Warmed = "PreWarmed", true
		}
	default:
		n, reason = 0, "Idle"
	}
	if now := o.Replicas.Current; n < now && o.Now.Sub(s.Since) < max(g.lead, firstReadings) {
		n, reason = now, "Early"
	}
	return n, reason
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

// readingNoise is the variance, in roots, of a mean over w seconds of a Poisson load with that
// service time: 2aS/w·(1 − (S/w)(1 − e^(−w/S)))/4a.
func readingNoise(service, w float64) float64 {
	x := service / w
	return x / 2 * (1 - x*(1-math.Exp(-1/x)))
}

// stepNoise is the variance, in roots, of the step from one such mean to the next.
func stepNoise(service, w float64) float64 {
	x := service / w
	both := x * (1 - math.Exp(-1/x)) // the covariance
	return 2*readingNoise(service, w) - both*both/2
}

// noise is readingNoise for the peakedness of this load.
func (p *Policy) noise(service, w float64) float64 {
	return readingNoise(service, w) * max(p.state.Burst, 1)
}

// observe updates all estimates by the reading.
func (p *Policy) observe(o *algorithms.Observation, g *plan, dt float64) {
	s, c := &p.state, &p.cfg
	window := time.Duration(c.Window).Seconds()
	if s.At.IsZero() || dt > gap {
		dt, s.Since = window, o.Now
	}
	s.At = o.Now
	if m := g.r.Service; m > 0 && (s.Service == 0 || math.Abs(math.Log(m/s.Service)) > 0.03) {
		s.Service = m
	}
	p.updateIdle(o, g, dt)
	if ambiguous(&g.r) {
		return
	}
	service := p.service()
	if !g.r.Saturated && dt < 2*window {
		p.updatePeakedness(g.r.Load, service, window, dt)
	}
	s.Levels.observe(g.r.Load, dt, func(k int) float64 { return p.noise(service, window*float64(k)) })
	if p.daily != nil {
		p.daily.Observe(o.Now, g.r.Load, time.Duration(dt*float64(time.Second)))
	}
	life := time.Duration(c.HalfLife).Seconds()
	p.near.verify(o.Now, &s.Levels, 1, p.noise(service, window), time.Duration(c.Tick).Seconds(), life, nil)
	k := int(min(max(g.lead.Seconds(), window), 10) / window)
	p.far.verify(o.Now, &s.Levels, k, p.noise(service, window*float64(max(k, 1))), g.lead.Seconds(), life, &s.Clock)
	p.updatePrice(o, g, dt)
}

// updatePeakedness updates Burst by the step from the previous reading. A step beyond two standard
// deviations counts as two, since jumps are left to the forecast; 0.92 of a normal variance
// remains.
func (p *Policy) updatePeakedness(load, service, window, dt float64) {
	s := &p.state
	if s.Burst == 0 {
		s.Burst, s.Peak = 1, 1
	}
	if s.Levels.Count == 0 || load+s.Levels.Last[0] < 2 {
		return
	}
	e := root(load) - root(s.Levels.Last[0])
	surprise := min(e*e/stepNoise(service, window), 4*max(s.Burst, 1)) / 0.92
	s.Burst += (1 - math.Exp(-dt/offLife)) * (surprise - s.Burst)
	if b := max(s.Burst, 1); math.Abs(math.Log(b/s.Peak)) > 0.125 {
		s.Peak = b
	}
}

// ambiguous tells that a queue cannot be told from load yet.
func ambiguous(r *demand.Reading) bool { return r.Saturated && r.Service == 0 }

// updatePrice moves the price by how much of the budget was spent.
func (p *Policy) updatePrice(o *algorithms.Observation, g *plan, dt float64) {
	s, c := &p.state, &p.cfg
	if g.r.Service == 0 {
		return
	}
	horizon := time.Duration(c.BudgetWindow).Seconds()
	asked := g.r.Rate * dt
	k := 1 - math.Exp(-dt/horizon)
	s.Rate += k * (g.r.Rate - s.Rate)
	s.RateWeight += k * (1 - s.RateWeight)
	usual := s.Rate / max(s.RateWeight, 1e-9) * horizon
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
	default: // sampled, the queue is too long for the same share of time as requests are late
		queued := min(max(2*g.r.Wait/goal-1.5, 0), 1)
		late = (queued + s.QueuedShare) / 2
		s.QueuedShare = queued
		s.Waking = s.Waking && late > 0
	}
	if g.late = late; s.Waking {
		return // cold starts are accounted by the idle times
	}
	s.Price = min(max(s.Price+asked*(late-aimedShare*c.ViolationBudget)/(c.ViolationBudget*usual), minPrice), maxPrice)
}

// updateIdle records idle times, and compares the cost of idleness with that of a pod kept for the
// reference time.
func (p *Policy) updateIdle(o *algorithms.Observation, g *plan, dt float64) {
	s, c := &p.state, &p.cfg
	rest := o.Now.Sub(s.LastDemand)
	known := !s.LastDemand.IsZero()
	if s.LogColdStart == 0 {
		s.LogColdStart = math.Log(min(max(time.Duration(c.IdleReference).Seconds(), minColdStart), maxColdStart))
	}
	// In pod-seconds. Demand that finds no pod costs a start.
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
		s.IdleSpent = min(s.IdleSpent+dt, 1e9)
	case o.Replicas.Current == 0 && s.Warmed:
		mine = start // started in vain
	}
	if g.r.InFlight == 0 && known && rest < time.Duration(c.IdleReference) {
		reference = dt
	}
	s.Warmed = s.Warmed && o.Replicas.Current > 0 && g.r.InFlight == 0
	horizon := time.Duration(c.BudgetWindow).Seconds()
	k := 1 - math.Exp(-dt/horizon)
	s.ReferenceIdle += k * (reference/dt - s.ReferenceIdle)
	s.ReferenceWeight += k * (1 - s.ReferenceWeight)
	s.LogColdStart = min(max(s.LogColdStart+(reference-mine)/(horizon*max(s.ReferenceIdle/s.ReferenceWeight, 0.01)), math.Log(minColdStart)), math.Log(maxColdStart))
	if g.r.InFlight > 0 {
		if known && rest.Seconds() > 2*dt {
			p.idleTimes.Add(rest, math.Exp2(-1.0/idleHalfLife))
		}
		s.LastDemand, s.IdleSpent = o.Now, 0
	}
}

// coldStartWorth is the worth of a cold start in pod-seconds: by observed prices, else such that
// idleness costs what it would with a pod kept for the reference time.
func (p *Policy) coldStartWorth(o *algorithms.Observation) float64 {
	if o.Cost.PodSecond > 0 && o.Cost.ColdStart > 0 {
		return min(o.Cost.ColdStart/o.Cost.PodSecond, 1e6)
	}
	if p.state.LogColdStart == 0 {
		return time.Duration(p.cfg.IdleReference).Seconds()
	}
	return math.Exp(p.state.LogColdStart)
}

// keepsLastPod tells whether there should be a pod without demand: never for longer than a cold
// start is worth (ski rental), and by the distribution of idle times once it is usable.
func (p *Policy) keepsLastPod(o *algorithms.Observation, g *plan) bool {
	s := &p.state
	if s.LastDemand.IsZero() || s.IdleSpent >= g.cold {
		return false
	}
	rest := o.Now.Sub(s.LastDemand)
	if p.idleTimes.Seen() < minIdleTimes {
		return o.Replicas.Current > 0 && rest.Seconds() < g.cold
	}
	if o.Replicas.Current == 0 { // it would be ready after its start only
		rest += g.start
	}
	return p.idleTimes.WorthKeeping(rest, g.cold, g.lead+time.Duration(p.cfg.Tick))
}

// costModel is the cost per second of n pods for a forecast y of a horizon: the pods, and the load
// that they do not carry. It is asked for rising n.
type costModel struct {
	p                *Policy
	h                *horizon
	y, spread, price float64
	// jumpFactor is how many times likelier than usual a jump is.
	jumpFactor float64
	safe       bool
}

// costModel prepares the costs for a forecast lead seconds ahead.
func (p *Policy) costModel(h *horizon, y, floor, lead float64, g *plan) costModel {
	spread := h.spread(floor)
	h.prepare(y, spread, lead)
	return costModel{p: p, h: h, y: y, spread: spread, price: g.price / p.cfg.ViolationBudget / g.slots, jumpFactor: 1}
}

func (c *costModel) cost(n int) float64 {
	cost := float64(n)
	if !c.safe {
		load := c.p.surge.Load(n)
		// the expected load must be carried for long
		if steady := c.p.steady.Load(n); steady < c.y {
			load = steady
		}
		late := c.price * c.late(load)
		cost += late
		c.safe = late < 1e-6 && load > c.y
	}
	return cost
}

// late is the expected load in seconds in which the load exceeds load.
func (c *costModel) late(load float64) float64 {
	if c.p.knownLoad != nil {
		if c.y > load {
			return c.y
		}
		return 0
	}
	late := c.h.lateLoad(load, c.y, c.spread)
	if load > c.y {
		late = min(late*c.jumpFactor, max(late, c.y))
	}
	return late
}

// presentCount is the count of least cost for the next tick.
func (p *Policy) presentCount(floor float64, g *plan) int {
	y := g.near[p.near.state.Best]
	c := p.costModel(&p.near, y, floor, time.Duration(p.cfg.Tick).Seconds(), g)
	best, least := 0, math.Inf(1)
	for n := min(int(0.8*y/g.slots), g.most); float64(n) < least && n <= g.most; n += 1 + n/64 {
		if cost := c.cost(n); cost < least {
			best, least = n, cost
		}
	}
	return best
}

// chooseCount advances the work function by dt seconds and returns its count. Adding and removing a
// pod costs its start and a tick. A higher jumpFactor is known to hold for a few minutes, so that
// the count follows it at once.
func (p *Policy) chooseCount(floor, dt float64, g *plan) int {
	lead := g.lead.Seconds()
	c := p.costModel(&p.far, g.far[p.far.state.Best], floor, lead, g)
	c.jumpFactor = g.jumpFactor
	now := p.workFunction.Step(p.state.Choice, g.most, lead/2, func(n int) float64 { return c.cost(n) * dt })
	if c.jumpFactor <= 1 {
		return now
	}
	c.safe = false
	best, least := now, math.Inf(1)
	for n := now; n <= g.most; n += 1 + n/64 {
		cost := c.cost(n)*span.Seconds() + float64(n-now)*lead
		if cost < least {
			best, least = n, cost
		}
		if c.safe {
			break
		}
	}
	return best
}

// drain is how many more pods work off a backlog at least cost, until requests wait for half the
// goal. x slots take W/x seconds, in which all requests are late, and cost a start each:
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
	// The backlog left when pods are ready, at the expected load; most backlogs of a burst are gone
	// by then.
	ahead := g.far[p.far.state.Best]
	work := g.r.Backlog + (ahead-cap)*left
	// The pods ordered anyway take a part of it at once.
	asked := max(float64(g.farPods)*g.slots, cap)
	work -= (asked - cap) * g.r.Service
	work -= goal / 2 * asked
	if work <= 0 {
		return 0
	}
	x := min(math.Sqrt(g.price*ahead*work/(p.cfg.ViolationBudget*g.lead.Seconds())), work/time.Duration(p.cfg.Tick).Seconds())
	return algorithms.Pods(math.Ceil(x / g.slots))
}

// explain adds the message and the terms.
func (p *Policy) explain(d *algorithms.Decision, o *algorithms.Observation, g *plan) {
	s := &p.state
	y := g.far[p.far.state.Best]
	floor := max(s.Service, 1e-3) / 160
	d.Message = fmt.Sprintf("%.4g slots in use now and %.4g in %s (by %s, spread %.2g roots) at a price of %.3g ask for %d pods, now %d; %s gives %d",
		g.r.Load, y, g.lead.Round(time.Millisecond), name(p.far.state.Best), p.far.spread(floor), g.price, g.farPods, g.nearPods, d.Reason, d.Replicas)
	if g.jumpFactor > 1 {
		d.Message += fmt.Sprintf("; at these minutes of the hour more load is %.1f times likelier to come", g.jumpFactor)
	}
	if g.r.InFlight == 0 && d.Replicas <= 1 {
		d.Message = fmt.Sprintf("no demand for %s; by %d idle times seen, and with a cold start worth %.0f s of a pod, %s gives %d",
			o.Now.Sub(s.LastDemand).Round(time.Second), p.idleTimes.Seen(), g.cold, d.Reason, d.Replicas)
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
		algorithms.Term{Name: "likelier", Value: g.jumpFactor},
		algorithms.Term{Name: "lateShare", Value: g.late},
		algorithms.Term{Name: "price", Value: g.price},
		algorithms.Term{Name: "podConcurrency", Value: g.slots},
		algorithms.Term{Name: "forecastPods", Value: float64(g.farPods)},
		algorithms.Term{Name: "presentPods", Value: float64(g.nearPods)},
		algorithms.Term{Name: "drainPods", Value: float64(g.drain)},
		algorithms.Term{Name: "heldPods", Value: float64(g.held)},
		algorithms.Term{Name: "coldStartSeconds", Value: g.cold},
		algorithms.Term{Name: "idleTimes", Value: float64(p.idleTimes.Seen())},
	)
}
