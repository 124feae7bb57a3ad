package clairvoyant

import (
	"context"
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// feasible finds the price of violations that gives the cheapest schedule within the allowed ones,
// and fills in what it costs. As many requests may be worth the same, a price that allows too few
// may be next to one that allows too many: then the latter holds up to an instant, and the former
// from there on, which is bisected as well.
func feasible(ctx context.Context, c Problem, l *load, open func() trace.Arrivals, reactive bool, s *Schedule) error {
	n := len(l.mean)
	horizon := float64(n) * l.step
	p := &planner{c: c, l: l, reactive: reactive, levels: min(l.levels, c.MaxReplicas)}
	// try gives the violations of a plan. One that has too many by far is given up, and its
	// violations are extrapolated.
	try := func(before, after float64, change int) (violated int64, err error) {
		r := newReplay(c, p.plan(math.Exp(before), math.Exp(after), change), reactive)
		var seen int64
		err = each(ctx, time.Duration(horizon*1e9), open, func(q trace.Request) bool {
			seen++
			r.arrive(q)
			return r.violated <= 2*l.allowed+10
		})
		switch {
		case err != nil:
			return 0, err
		case seen < l.requests:
			return int64(float64(r.violated) / float64(seen) * float64(l.requests)), nil
		}
		r.finish()
		if r.violated <= l.allowed && (!s.Found || r.cost.Seconds() < s.Feasible) {
			s.Feasible, s.Found, s.Violated, s.Starts, s.Peak = r.cost.Seconds(), true, r.violated, r.starts, r.peak
		}
		return r.violated, nil
	}
	// A violation is worth about what serving it alone would cost; if that is too little, the price
	// goes up to where it is beyond the cost of all pods all the time.
	unit := math.Log(l.work/float64(l.requests) + c.Startup.Seconds())
	lo, hi, top := unit-7, unit+3, math.Log(1e4*(horizon+c.Startup.Seconds()))
	many := l.requests
	left := c.Replays - 1
	few, err := try(hi, hi, n)
	if err != nil {
		return err
	}
	if few > l.allowed && hi < top {
		lo, hi, many = hi, top, few
		left--
		if few, err = try(hi, hi, n); err != nil {
			return err
		}
	}
	search := (2*left + 2) / 3
	for range search {
		mid := (lo + hi) / 2
		v, err := try(mid, mid, n)
		if err != nil {
			return err
		}
		if v <= l.allowed {
			hi, few = mid, v
		} else {
			lo, many = mid, v
		}
	}
	// Violations are taken to be spread evenly over the time between what is known, a bit fewer of
	// them than are allowed.
	from, to := 0, n
	for range left - search {
		if few >= l.allowed || few >= many || to-from < 2 {
			break
		}
		share := 0.95 * float64(l.allowed-few) / float64(many-few)
		mid := from + min(max(int(share*float64(to-from)), 1), to-from-1)
		v, err := try(lo, hi, mid)
		if err != nil {
			return err
		}
		if v <= l.allowed {
			from, few = mid, v
		} else {
			to, many = mid, v
		}
	}
	return nil
}

// run is a time in which a level is on.
type run struct{ from, to time.Duration }

// planner makes schedules for a price of violations.
type planner struct {
	c        Problem
	l        *load
	reactive bool
	levels   int

	harm   []float64 // sums over steps
	choice []uint8
}

const (
	offFromOn uint8 = 1 << iota // being off at the step's end came from being on at its start
	onFromOff
)

// plan chooses each level's times on: the path of least cost through the states off and on, step by
// step. Off costs lambda times the requests that would find no slot. On costs the time; a start
// costs the start-up time or, if reactive, the harm during it, when the time on counts from the
// start.
//
// The price is one before a step and another from it on.
func (p *planner) plan(before, after float64, change int) [][]run {
	n := len(p.l.mean)
	if p.harm == nil {
		p.harm, p.choice = make([]float64, n+1), make([]uint8, n)
	}
	startup := p.c.Startup.Seconds()
	delay := int(math.Ceil(startup / p.l.step))
	out := make([][]run, p.levels)
	for k := range out {
		p.sumHarm(float64(k * p.c.Concurrency))
		if p.harm[n] == 0 {
			continue
		}
		on, off := math.Inf(1), 0.0
		lambda := before
		for j := range n {
			if j == change {
				lambda = after
			}
			start := startup
			if p.reactive {
				start = math.Inf(1)
				// A request that needs it is there.
				if p.l.arrivals[j] > 0 && p.harm[j+1] > p.harm[j] {
					start = lambda * (p.harm[min(j+delay, n)] - p.harm[j])
				}
			}
			var choice uint8
			nextOn, nextOff := on, off
			if off+start < on {
				nextOn = off + start
				choice |= onFromOff
			}
			if on < off {
				nextOff = on
				choice |= offFromOn
			}
			on, off = nextOn+p.l.step, nextOff+lambda*(p.harm[j+1]-p.harm[j])
			p.choice[j] = choice
		}
		out[k] = p.path(on < off)
	}
	return out
}

// path follows the choices back.
func (p *planner) path(on bool) []run {
	at := func(j int) time.Duration { return time.Duration(float64(j) * p.l.step * 1e9) }
	var runs []run
	n := len(p.choice)
	end := n
	for j := n - 1; j >= 0; j-- {
		switch {
		case on && p.choice[j]&onFromOff != 0:
			runs = append(runs, run{at(j), at(end)})
			on = false
		case !on && p.choice[j]&offFromOn != 0:
			on, end = true, j
		}
	}
	slices.Reverse(runs)
	return runs
}

// sumHarm estimates the requests that find no slot if there are `slots` and the next pod's are
// missing. The number in service within a step is taken for uniform up to its peak, around its
// mean.
func (p *planner) sumHarm(slots float64) {
	l := p.l
	perSlot := l.step * float64(l.requests) / l.work
	size := float64(p.c.Concurrency)
	sum := 0.0
	for j, peak := range l.peak {
		if b := float64(peak); b > slots {
			a := max(2*float64(l.mean[j])-b, 0)
			sum += perSlot * (above(a, b, slots) - above(a, b, slots+size))
		}
		p.harm[j+1] = sum
	}
}

// above is the mean of (X−c)⁺ for X uniform in a–b.
func above(a, b, c float64) float64 {
	switch {
	case c >= b:
		return 0
	case c <= a:
		return (a+b)/2 - c
	default:
		return (b - c) * (b - c) / (2 * (b - a))
	}
}

// replay plays requests on pods that take requests at given times, in the order of arrival. A
// request goes to the lowest pod with a free slot, or waits; one that has waited too long is
// dropped. (Dropping the longest ones instead would be cheaper still; lower allows for it.)
type replay struct {
	c        Problem
	reactive bool
	pods     []livePod
	free     []uint64 // pods with a free slot
	armed    []uint64 // pods that the next request without a slot may start
	services ends     // of requests
	events   ends     // of pods
	queue    []trace.Request
	head     int

	violated int64
	starts   int64
	cost     time.Duration
	alive    int
	peak     int
}

type livePod struct {
	runs []run
	// begun is when it was started, to when it takes no more, last when the last of its requests is
	// done.
	begun, to, last time.Duration
	working, used   bool
	busy            int
	life            int32
}

func newReplay(c Problem, runs [][]run, reactive bool) *replay {
	words := (len(runs) + 63) / 64
	r := &replay{c: c, reactive: reactive, pods: make([]livePod, len(runs)), free: make([]uint64, words), armed: make([]uint64, words)}
	for i := range runs {
		r.pods[i].runs = runs[i]
		r.schedule(int32(i))
	}
	return r
}

// schedule lets the pod's next run begin.
func (r *replay) schedule(i int32) {
	p := &r.pods[i]
	if len(p.runs) > 0 {
		r.events.push(end{at: p.runs[0].from, pod: i, kind: runBegins})
	}
}

func set(words []uint64, i int32)   { words[i/64] |= 1 << (i % 64) }
func unset(words []uint64, i int32) { words[i/64] &^= 1 << (i % 64) }

// lowest gives the lowest set bit, -1 if there is none.
func lowest(words []uint64) int32 {
	for w, x := range words {
		if x != 0 {
			return int32(w*64 + bits.TrailingZeros64(x))
		}
	}
	return -1
}

func (r *replay) arrive(q trace.Request) {
	r.until(q.At)
	r.serve(q.At)
	if r.head == len(r.queue) {
		if i := lowest(r.free); i >= 0 {
			r.begin(i, q.At, q.Service)
			return
		}
	}
	r.queue = append(r.queue, q)
	if r.reactive {
		r.start(q.At)
	}
}

// start lets a request that found no slot start a pod that the plan wants.
func (r *replay) start(now time.Duration) {
	i := lowest(r.armed)
	if i < 0 {
		return
	}
	unset(r.armed, i)
	p := &r.pods[i]
	if now+r.c.Startup >= p.to {
		return // it would come too late to be of use
	}
	p.begun, p.used, p.last = now, false, 0
	r.count()
	r.events.push(end{at: now + r.c.Startup, pod: i, life: p.life, kind: startupEnds})
	if r.c.Startup == 0 {
		r.until(now)
	}
}

func (r *replay) count() {
	r.alive++
	r.peak = max(r.peak, r.alive)
}

// until lets happen what happens up to an instant.
func (r *replay) until(now time.Duration) {
	for {
		// What ends first, a request before what happens to pods at the same time.
		var e end
		switch {
		case len(r.services) > 0 && r.services[0].at <= now && (len(r.events) == 0 || r.services[0].at <= r.events[0].at):
			e = r.services.pop()
		case len(r.events) > 0 && r.events[0].at <= now:
			e = r.events.pop()
		default:
			return
		}
		p := &r.pods[e.pod]
		switch e.kind {
		case serviceEnds:
			if e.life == p.life && p.working {
				p.busy--
				set(r.free, e.pod)
			}
		case startupEnds:
			p.working, p.busy = true, 0
			set(r.free, e.pod)
		case runBegins:
			p.to = p.runs[0].to
			p.runs = p.runs[1:]
			r.events.push(end{at: p.to, pod: e.pod, kind: runEnds})
			if r.reactive {
				set(r.armed, e.pod)
				continue
			}
			if p.last > e.at { // what drains from the run before is another pod
				p.used, p.last = false, 0
			}
			p.working, p.busy = true, 0
			r.count()
			set(r.free, e.pod)
		case runEnds:
			unset(r.armed, e.pod)
			unset(r.free, e.pod)
			if p.working {
				r.alive--
			}
			p.working = false
			p.life++
			r.schedule(e.pod)
			continue
		}
		r.serve(e.at)
	}
}

// serve begins those that wait, and drops those that have waited too long.
func (r *replay) serve(now time.Duration) {
	for r.head < len(r.queue) {
		q := r.queue[r.head]
		if now-q.At > r.c.Wait {
			r.violated++
		} else {
			i := lowest(r.free)
			if i < 0 {
				break
			}
			r.begin(i, now, q.Service)
		}
		r.head++
	}
	if r.head == len(r.queue) {
		r.queue, r.head = r.queue[:0], 0
	} else if r.head > 1024 && r.head > len(r.queue)/2 {
		n := copy(r.queue, r.queue[r.head:])
		r.queue, r.head = r.queue[:n], 0
	}
}

func (r *replay) begin(i int32, now, service time.Duration) {
	p := &r.pods[i]
	// What is paid is what a schedule that knows the future needs for the same service: pods from
	// the start-up time before their first use to the end of their last, ended meanwhile if that is
	// cheaper and starting ahead is allowed.
	switch idle := now - p.last; {
	case r.reactive && !p.used:
		p.used = true
		r.starts++
		r.cost += now - p.begun
	case !r.reactive && (!p.used || idle > r.c.Startup):
		p.used = true
		r.starts++
		r.cost += r.c.Startup
	case idle > 0:
		r.cost += idle
	}
	r.cost += max(now+service-max(p.last, now), 0)
	p.busy++
	if p.busy == r.c.Concurrency {
		unset(r.free, i)
	}
	p.last = max(p.last, now+service)
	r.services.push(end{at: now + service, pod: i, life: p.life, kind: serviceEnds})
}

// finish lets everything end.
func (r *replay) finish() {
	r.until(math.MaxInt64)
	r.violated += int64(len(r.queue) - r.head)
	r.queue, r.head = r.queue[:0], 0
}
