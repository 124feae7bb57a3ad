package sim

import (
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/bench/event"
	"github.com/sluice-autoscaler/sluice/bench/score"
)

const (
	// keptChanges bounds the changes in a record.
	keptChanges = 2000
	// slowUnit is how a slowdown of 1 is written in a histogram of integers.
	slowUnit = 1 << 20
)

// account adds up what happened, for the result and its series.
type account struct {
	requests, lost, cold, late int64
	work                       float64
	waits, slow                score.Histogram
	immediate                  int64 // served at once and as fast as can be
	slo                        int64

	wakeUps, starts, failed, changes, reversals, decisions int64
	direction                                              int
	peak                                                   int
	log                                                    []score.Change

	wanted, ready, starting, ending event.Gauge

	// steps of the record
	step, frameEnd int64
	// warm is where the warm-up ends and scoring begins.
	warm int64
	// busy is the time worked by an endless number of pods in this step and those to come, in
	// nanoseconds; a ring.
	busy       []float64
	first      int
	elasticity score.Elasticity
	zeroDemand float64
	row, sum   row
	each, in   int // steps to a row, and steps in this one
	series     score.Series
	lastPods   float64
}

// row is one step's sums.
type row struct {
	seconds, arrivals, demand, waiting, wanted, ready, starting, cold, late, waitMax float64
}

func (a *account) init(e *engine) {
	a.slo, a.step = int64(e.sc.SLO.Wait), int64(e.sc.ElasticityStep)
	a.frameEnd, a.warm = a.step, e.cfg.warm()
	a.busy = make([]float64, 8)
	if e.cfg.Points > 0 {
		steps := (e.end - a.warm + a.step - 1) / a.step
		a.each = int((steps + int64(e.cfg.Points) - 1) / int64(e.cfg.Points))
		a.series.Step = float64(a.each) * time.Duration(a.step).Seconds()
	}
}

// arrive counts a request.
func (a *account) arrive(e *engine, work int64, cold bool) {
	a.requests++
	a.row.arrivals++
	a.work += float64(work)
	if cold {
		a.cold++
		a.row.cold++
	}
	if end := e.now + work; end <= a.frameEnd {
		a.busy[a.first] += float64(work)
	} else {
		a.spread(e.now, end)
	}
}

// spread lays work over the steps that it lasts.
func (a *account) spread(from, to int64) {
	for i, edge := 0, a.frameEnd; from < to; i, edge = i+1, edge+a.step {
		if i >= len(a.busy) {
			grown := make([]float64, 2*len(a.busy))
			for k := range a.busy {
				grown[k] = a.busy[(a.first+k)&(len(a.busy)-1)]
			}
			a.busy, a.first = grown, 0
		}
		until := min(to, edge)
		a.busy[(a.first+i)&(len(a.busy)-1)] += float64(until - from)
		from = until
	}
}

// begun counts a request that a pod begins to work on: how long it waited, how much work it is, and
// how long that takes here.
func (a *account) begun(wait, work, takes int64) {
	if wait == 0 && takes == work {
		a.immediate++
		return
	}
	a.waits.Add(time.Duration(wait))
	a.slow.Add(time.Duration(float64(wait+takes) / float64(max(work, 1)) * slowUnit))
	if wait > a.slo {
		a.late++
		a.row.late++
	}
	a.row.waitMax = max(a.row.waitMax, float64(wait)*1e-9)
}

// lose counts requests that got no answer.
func (a *account) lose(n int64) {
	a.lost += n
	a.row.late += float64(n)
}

// changed notes a change of the wanted count.
func (a *account) changed(e *engine, from, to int, r *loop.Record) {
	a.wanted.Set(e.clock(), to)
	a.changes++
	direction := 1
	if to < from {
		direction = -1
	}
	if a.direction != 0 && a.direction != direction {
		a.reversals++
	}
	a.direction = direction
	if len(a.log) >= 2*keptChanges {
		a.log = a.log[:copy(a.log, a.log[keptChanges:])]
	}
	a.log = append(a.log, score.Change{T: float64(e.now-a.warm) * 1e-9, From: from, To: to, Reason: r.Reason, Message: r.Message})
}

// frame ends a step of the record. Steps after the trace's end do not count.
func (a *account) frame(e *engine) {
	begin := a.frameEnd - a.step
	a.frameEnd += a.step
	busy := a.busy[a.first]
	a.busy[a.first] = 0
	a.first = (a.first + 1) & (len(a.busy) - 1)
	if begin < a.warm {
		if begin+a.step == a.warm {
			a.restart(e)
		}
		return
	}
	if begin >= e.end {
		a.row = row{}
		return
	}
	now := e.clock()
	seconds := float64(now-begin) * 1e-9
	mean := busy * 1e-9 / seconds // requests in service
	perPod := float64(e.sc.PodConcurrency)
	if perPod == 0 {
		perPod = e.sc.PerPod()
	}
	demand := mean / perPod
	a.elasticity.Add(math.Ceil(demand-1e-9), float64(a.ready.Value), seconds)
	pods := a.podSeconds(now)
	if busy == 0 {
		a.zeroDemand += pods - a.lastPods
	}
	a.lastPods = pods
	if a.each == 0 {
		a.row = row{}
		return
	}
	r := a.row
	a.row = row{}
	a.sum.seconds += seconds
	a.sum.arrivals += r.arrivals
	a.sum.demand += demand * seconds
	a.sum.cold += r.cold
	a.sum.late += r.late
	a.sum.waitMax = max(a.sum.waitMax, r.waitMax)
	if a.in++; a.in == a.each || now == e.end {
		a.flush(e, now)
	}
}

// restart forgets what the warm-up, which ends now, has counted. What is under way goes on: the
// demand of requests at work, and those that wait, which count as requests from here on.
func (a *account) restart(e *engine) {
	fresh := account{
		slo: a.slo, step: a.step, frameEnd: a.frameEnd, warm: a.warm, busy: a.busy, first: a.first, each: a.each, series: a.series,
		wanted: a.wanted, ready: a.ready, starting: a.starting, ending: a.ending,
		requests: int64(e.hold.Len() + e.meter.queued.Value), direction: a.direction, peak: e.wanted,
	}
	for _, g := range []*event.Gauge{&fresh.wanted, &fresh.ready, &fresh.starting, &fresh.ending} {
		g.Restart(e.now)
	}
	fresh.sum.waiting = e.meter.held.Until(e.now) + e.meter.queued.Until(e.now)
	*a = fresh
}

// flush writes a row of the series. Integrals are since the row before, of which sum holds the
// ends.
func (a *account) flush(e *engine, now int64) {
	s, t := &a.sum, a.sum.seconds
	put := func(dst *[]float32, v float64) { *dst = append(*dst, float32(v)) }
	waiting := e.meter.held.Until(e.now) + e.meter.queued.Until(e.now)
	wanted, ready, starting := a.wanted.Until(now), a.ready.Until(now), a.starting.Until(now)
	put(&a.series.Arrivals, s.arrivals/t)
	put(&a.series.Demand, s.demand/t)
	put(&a.series.Waiting, max(0, waiting-s.waiting)/t)
	put(&a.series.Wanted, (wanted-s.wanted)/t)
	put(&a.series.Ready, (ready-s.ready)/t)
	put(&a.series.Starting, (starting-s.starting)/t)
	put(&a.series.ColdStarts, s.cold)
	put(&a.series.Violations, s.late)
	put(&a.series.WaitMax, s.waitMax)
	a.sum = row{waiting: waiting, wanted: wanted, ready: ready, starting: starting}
	a.in = 0
}

// podSeconds is what was paid for until now.
func (a *account) podSeconds(now int64) float64 {
	return a.ready.Until(now) + a.starting.Until(now) + a.ending.Until(now)
}

// result is the run in numbers.
func (e *engine) result() score.Run {
	a, end := &e.account, e.end
	a.waits.AddZeros(a.immediate)
	seconds := func(d time.Duration) float64 { return d.Seconds() }
	slow := func(q float64) float64 {
		if rank := q * float64(a.slow.Count()+a.immediate); rank <= float64(a.immediate) || a.slow.Count() == 0 {
			return 1
		}
		rest := (q*float64(a.slow.Count()+a.immediate) - float64(a.immediate)) / float64(a.slow.Count())
		return max(1, float64(a.slow.Quantile(rest))/slowUnit)
	}
	r := score.Result{
		Policy: e.cfg.Name, Trace: e.cfg.Source.Name(), Scenario: e.sc.Name, Seed: e.cfg.Seed,
		Length: float64(e.now-a.warm) * 1e-9, Requests: a.requests, Lost: a.lost,
		WaitMean: a.waits.MeanSeconds(), WaitP50: seconds(a.waits.Quantile(0.5)), WaitP90: seconds(a.waits.Quantile(0.9)),
		WaitP99: seconds(a.waits.Quantile(0.99)), WaitP999: seconds(a.waits.Quantile(0.999)), WaitMax: seconds(a.waits.Max()),
		SlowdownP50: slow(0.5), SlowdownP99: slow(0.99),
		ColdStarts: a.cold, WakeUps: a.wakeUps, Starts: a.starts, FailedStarts: a.failed,
		ReadySeconds: a.ready.Until(end), StartingSeconds: a.starting.Until(end), TerminatingSeconds: a.ending.Until(end),
		ZeroDemandSeconds: a.zeroDemand,
		Changes:           a.changes, Reversals: a.reversals, PeakReplicas: a.peak, Decisions: a.decisions,
	}
	r.PodSeconds = r.ReadySeconds + r.StartingSeconds + r.TerminatingSeconds
	if k := float64(e.sc.PodConcurrency); k > 0 {
		r.WorkSeconds = a.work * 1e-9 / k
		r.IdleSeconds = max(0, r.ReadySeconds-r.WorkSeconds)
	}
	if a.requests > 0 {
		r.SLOViolations = min(1, float64(a.late+a.lost)/float64(a.requests))
		r.ColdStartShare = float64(a.cold) / float64(a.requests)
	}
	c := e.sc.Cost
	r.Cost = c.PodSecond*r.PodSeconds + c.ColdStart*float64(a.cold) + c.WaitSecond*a.waits.MeanSeconds()*float64(a.waits.Count())
	v := a.elasticity.Vector()
	r.ThetaU, r.ThetaO, r.TauU, r.TauO, r.Upsilon = v.ThetaU, v.ThetaO, v.TauU, v.TauO, v.Upsilon
	log := a.log
	if len(log) > keptChanges {
		log = log[len(log)-keptChanges:]
	}
	return score.Run{Result: r, Series: a.series, Waits: a.waits.Buckets(), Decisions: log}
}
