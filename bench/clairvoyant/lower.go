package clairvoyant

import (
	"context"
	"math"
)

// lower gives true lower bounds of the pod-seconds of any schedule that meets the SLO, with and
// without pre-warming. Let n(t) be the pods that work or drain; a schedule costs ∫n dt + startup ·
// (starts), and is, level by level, Σ_k (|O_k| + startup · runs of O_k) with O_k = {t : n(t) ≥ k},
// since with fewer starts than runs of the levels n could not rise so often.
//
// Bounds on ∫n: the work Σ service / Concurrency, and the time in which at least one request is in
// service, for which requests that can never overlap stand (chain); both without the longest of the
// requests that may violate.
//
// Bounds on a level's cost: while level k is off, at most K·(k−1) requests are in service. Relax
// the rest: while it is on, any number may be, at any speed. So a time off must not be so long that
// requests which arrive in it run out of time in it. Requests count with σ of their service at
// most, which has to be done within Wait + σ of the arrival. The cheapest choice of times off under
// this relaxation is found exactly, by a dynamic programme over steps that are relaxed outwards.
// (For level 1, which has nothing in service while off, the request has to be begun within Wait.)
//
// Violations: each level may drop all the requests allowed; the price μ of a drop is a Lagrange
// multiplier, and any μ ≥ 0 gives a bound. See the functions of levels for what a drop is taken to
// be worth.
//
// Both bounds are joined: with a share α, cost ≥ α·(bound on ∫n) + Σ_k (the level's cost with time
// weighted by 1−α).
//
// Without pre-warming and with startup > wait, a time off on level 1 can only end at startup after
// the arrival of a request, which then has violated, as those that came up to startup − wait after
// it have.
func lower(ctx context.Context, c Problem, l *load) (prewarmed, reactive float64, err error) {
	work := max(l.least/float64(c.Concurrency), l.chain)
	d := newLevels(c, l)
	prewarmed = work + c.Startup.Seconds() // one pod has to be started, at least
	reactive = prewarmed
	for _, alpha := range []float64{0, 0.9} {
		price := 1 - alpha
		own := make([]float64, l.levels)
		for i := range own {
			if err := ctx.Err(); err != nil {
				return 0, 0, err
			}
			if own[i] = d.best(i+1, price); own[i] == 0 {
				break // higher levels cost nothing either
			}
		}
		prewarmed = max(prewarmed, alpha*work+d.joint(price, own))
		if c.Startup > c.Wait {
			own[0] = max(own[0], d.first(price, true))
		}
		reactive = max(reactive, alpha*work+d.joint(price, own))
	}
	return prewarmed, max(prewarmed, reactive), nil
}

// levels solves the relaxed problems of a level. It keeps scratch memory.
type levels struct {
	c       Problem
	l       *load
	sums    []float64 // of arrivals
	keys    []float64
	over    []float64
	minimum deque
	maximum deque
}

func newLevels(c Problem, l *load) *levels {
	d := &levels{c: c, l: l, sums: make([]float64, len(l.arrivals)+1)}
	for i, a := range l.arrivals {
		d.sums[i+1] = d.sums[i] + float64(a)
	}
	return d
}

// best is the greatest bound for a level that the relaxations give, with all drops allowed for this
// level alone.
func (d *levels) best(k int, price float64) float64 {
	if k == 1 {
		return d.first(price, false)
	}
	cost := d.dual(3, 8, func(mu float64) float64 { return d.emptied(k, price, mu) })
	if d.l.allowed > 0 {
		d.regulate(k)
		cost = max(cost, d.dual(3, 8, func(mu float64) float64 { return d.overflown(k, price, mu) }))
	}
	return cost
}

// first is the bound for level 1.
func (d *levels) first(price float64, reactive bool) float64 {
	return d.dual(8, 10, func(mu float64) float64 { return d.begun(price, mu, reactive) })
}

// joint adds up the levels, each with its own bound or the one from certain service, if that is
// more; for the latter all levels share the drops.
func (d *levels) joint(price float64, own []float64) float64 {
	sum := func(mu float64) float64 {
		total := 0.0
		for i, cost := range own {
			if d.l.certain != nil {
				cost = max(cost, d.occupied(i+1, price, mu))
			}
			total += cost
		}
		return total
	}
	if d.l.certain == nil {
		return sum(0)
	}
	return max(d.dual(5, 10, sum), sum(0))
}

// dual is the greatest of bound(mu) − mu·allowed, which is concave in mu, by golden section over a
// range of prices; 0 if that is more.
func (d *levels) dual(top float64, rounds int, bound func(mu float64) float64) float64 {
	if d.l.allowed == 0 {
		return max(bound(math.Inf(1)), 0)
	}
	unit := d.c.Startup.Seconds() + d.l.sigma
	at := func(x float64) float64 {
		mu := unit * math.Exp(x)
		return bound(mu) - mu*float64(d.l.allowed)
	}
	const golden = 0.6180339887498949
	lo, hi := -9.0, top
	a, b := hi-golden*(hi-lo), lo+golden*(hi-lo)
	fa, fb := at(a), at(b)
	most := max(fa, fb, 0)
	for range rounds {
		if fa > fb {
			hi, b, fb = b, a, fa
			a = hi - golden*(hi-lo)
			fa = at(a)
		} else {
			lo, a, fa = a, b, fb
			b = lo + golden*(hi-lo)
			fb = at(b)
		}
		most = max(most, fa, fb)
	}
	return most
}

// gains finds the least cost of a level if a second on costs price and a run the start-up time, by
// a programme over times off:
//
//	e(t) is the greatest gain up to t if the level is off just before t, o(t) the same if it is on; a time off from u to t gains
//	(t−u)·price less its penalty
//	e(t) = max over u of  h(u) + (t−u)·price − penalty(u, t)
//	o(t) = max(o(t−1), e(t))           if a time off may end at t
//	h(u) = o(u) − startup + 2·step·price
//
// 2·step makes up for the steps that a time off covers in part. best gives max over u of key(u) −
// penalty(u, t), with the keys h(u) − u·price in d.keys; may reports whether a time off may end at
// t, nil that any may. For the price again (+Inf: never) a time off may begin anew where another
// ends.
func (d *levels) gains(n int, price, again float64, best func(t int) float64, may func(t int) bool) float64 {
	start := d.c.Startup.Seconds()
	p := price * d.l.step
	if cap(d.keys) < n+1 {
		d.keys = make([]float64, n+1)
	}
	d.keys = d.keys[:n+1]
	d.maximum.reset()
	d.keys[0] = p
	d.maximum.pushMax(0, d.keys[0])
	on, off := 0.0, 0.0
	for t := 1; t <= n; t++ {
		off = best(t) + float64(t)*p
		if may == nil || may(t) {
			on = max(on, off)
		}
		d.keys[t] = max(on-start+2*p, off-again) - float64(t)*p
		d.maximum.pushMax(t, d.keys[t])
	}
	return float64(n)*p - max(off, on-start)
}

// window is the greatest key of those from first on.
func (d *levels) window(first int) float64 {
	for d.maximum.len() > 0 && d.maximum.index() < first {
		d.maximum.popFront()
	}
	if d.maximum.len() == 0 {
		return math.Inf(-1)
	}
	return d.maximum.value()
}

// begun is the bound for level 1: what arrives in a time off and cannot wait for its end is
// dropped, at mu each. Reactive lets times off end only where a request began to start a pod.
func (d *levels) begun(price, mu float64, reactive bool) float64 {
	w := d.steps(d.c.Wait.Seconds())
	n := len(d.l.arrivals) + w + 1
	first, old := 0, math.Inf(-1)
	var may func(t int) bool
	if startSteps := d.c.Startup.Seconds() / d.l.step; reactive {
		may = func(t int) bool { return d.arrivedBetween(float64(t)-startSteps, float64(t+1)-startSteps) }
	}
	return d.gains(n, price, math.Inf(1), func(t int) float64 {
		u := min(t-w, t-1)
		if math.IsInf(mu, 1) {
			if t-w > 0 && d.arrived(t-w) > d.arrived(t-w-1) {
				first = t - w
			}
			return d.window(first)
		}
		// Of a time off from u ≤ t−w on, what arrived in u … t−w−1 is dropped.
		if u >= 0 {
			old = max(old, d.keys[u]+mu*d.arrived(u))
			first = u + 1
		}
		return max(d.window(first), old-mu*d.arrived(max(t-w, 0)))
	}, may)
}

// queue gives what the level below can do in a step, the steps in which work has to be done after
// that of its arrival, and how much may wait.
func (d *levels) queue(k int) (free float64, w int, theta float64) {
	free = float64(d.c.Concurrency) * float64(k-1) * d.l.step
	w = d.steps(d.c.Wait.Seconds() + d.l.sigma)
	theta = free * float64(w)
	return free, w, theta * (1 + 1e-9)
}

// steps rounds seconds up to steps.
func (d *levels) steps(seconds float64) int { return int(math.Ceil(seconds/d.l.step - 1e-9)) }

// emptied is the bound for k ≥ 2 in which a time off lasts while work that arrives in it, served at
// the rate of the level below, does not exceed what may wait; a drop, at mu, empties the queue.
func (d *levels) emptied(k int, price, mu float64) float64 {
	l := d.l
	free, w, theta := d.queue(k)
	d.minimum.reset()
	first, x := 0, 0.0 // x is the work that has arrived less what the level below can do
	return d.gains(len(l.arrivals)+w+1, price, mu, func(t int) float64 {
		if q := t - 1 - w; q >= 0 && q < len(l.arrivals) {
			d.minimum.pushMin(q, x)
			x += l.truncated[q] - free
			for d.minimum.len() > 0 && d.minimum.value() < x-theta-1e-6 {
				first = max(first, d.minimum.index()+1)
				d.minimum.popFront()
			}
		}
		return d.window(first)
	}, nil)
}

// regulate works out the least work that has to be dropped if the level is always off: the queue is
// kept within 0 and what may wait.
func (d *levels) regulate(k int) {
	free, _, theta := d.queue(k)
	if d.over == nil {
		d.over = make([]float64, len(d.l.arrivals)+1)
	}
	waiting, over := 0.0, 0.0
	for i, x := range d.l.truncated {
		waiting = max(waiting+x-free, 0)
		if waiting > theta {
			over += waiting - theta
			waiting = theta
		}
		d.over[i+1] = over
	}
}

// overflown is the bound for k ≥ 2 in which drops take σ of work at most each. A time off from u to
// t, whose queue is empty at first, overflows by at least O(t) − O(u) − θ, O as regulate has it:
// queues that differ by at most θ overflow by amounts that differ by no more.
func (d *levels) overflown(k int, price, mu float64) float64 {
	_, w, theta := d.queue(k)
	mu /= d.l.sigma
	first, old := 0, math.Inf(-1)
	return d.gains(len(d.l.arrivals)+w+1, price, math.Inf(1), func(t int) float64 {
		o := 0.0
		if t > w {
			o = d.over[min(t-w, len(d.over)-1)]
		}
		for first < t && d.overAt(first) < o-theta {
			old = max(old, d.keys[first]+mu*(d.overAt(first)+theta))
			first++
		}
		return max(d.window(first), old-mu*o)
	}, nil)
}

func (d *levels) overAt(i int) float64 { return d.over[min(i, len(d.over)-1)] }

// occupied is the bound from requests that last longer than they may wait: whenever they begin,
// they are in service from the end of the wait to the end of the service that begins at once. Of
// those beyond the levels that are on each is dropped; level k stands for the K beyond K·(k−1), so
// that all levels together count every drop once. A drop takes σ − wait of that time at most.
func (d *levels) occupied(k int, price, mu float64) float64 {
	start := d.c.Startup.Seconds()
	size := float64(d.c.Concurrency)
	slots := size * float64(k-1)
	p := price * d.l.step
	per := mu * d.l.step / (d.l.sigma - d.c.Wait.Seconds())
	on, off := start, 0.0
	for _, occupied := range d.l.certain {
		excess := 0.0
		if x := float64(occupied)*(1-1e-5) - 1e-5 - slots; x > 0 {
			excess = per * min(x, size)
		}
		on, off = min(on, off+start)+p, min(off, on-2*p)+excess
	}
	return min(on-2*p, off)
}

// arrived counts the arrivals of the steps before i.
func (d *levels) arrived(i int) float64 { return d.sums[min(i, len(d.sums)-1)] }

// arrivedBetween reports whether a request arrived in the steps that hold from … to.
func (d *levels) arrivedBetween(from, to float64) bool {
	last := int(math.Floor(to + 1e-6))
	if last < 0 {
		return false
	}
	return d.arrived(last+1) > d.arrived(max(int(math.Floor(from-1e-6)), 0))
}

// deque holds indices with values in monotone order.
type deque struct {
	items []item
	head  int
}

type item struct {
	index int
	value float64
}

func (d *deque) reset()         { d.items, d.head = d.items[:0], 0 }
func (d *deque) len() int       { return len(d.items) - d.head }
func (d *deque) index() int     { return d.items[d.head].index }
func (d *deque) value() float64 { return d.items[d.head].value }

func (d *deque) popFront() {
	if d.head++; d.head == len(d.items) {
		d.reset()
	}
}

// pushMin keeps values rising from the front.
func (d *deque) pushMin(i int, v float64) {
	for d.len() > 0 && d.items[len(d.items)-1].value >= v {
		d.items = d.items[:len(d.items)-1]
	}
	d.push(i, v)
}

// pushMax keeps values falling from the front.
func (d *deque) pushMax(i int, v float64) {
	for d.len() > 0 && d.items[len(d.items)-1].value <= v {
		d.items = d.items[:len(d.items)-1]
	}
	d.push(i, v)
}

func (d *deque) push(i int, v float64) {
	if d.head > 1024 && d.head > len(d.items)/2 {
		n := copy(d.items, d.items[d.head:])
		d.items, d.head = d.items[:n], 0
	}
	d.items = append(d.items, item{i, v})
}
