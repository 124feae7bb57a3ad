package score

import (
	"context"
	"math"
)

// lower gives true lower bounds of the pod-seconds of any schedule that meets the SLO, with and without pre-warming. Let n(t) be the
// pods that work or drain; a schedule costs ∫n dt + startup · (starts), and is, level by level, Σ_k (|O_k| + startup · runs of O_k)
// with O_k = {t : n(t) ≥ k}, since with fewer starts than runs of the levels n could not rise so often.
//
// Bounds on ∫n: the work Σ service / Concurrency, and the time in which at least one request is in service, for which requests that
// can never overlap stand (chain); both without the longest of the requests that may violate.
//
// Bounds on a level's cost: while level k is off, at most K·(k−1) requests are in service. Relax the rest: while it is on, any number
// may be, at any speed. So a time off must not be so long that requests which arrive in it run out of time in it. Requests count with
// σ of their service at most, which has to be done within Wait + σ of the arrival. The cheapest choice of times off under this
// relaxation is found exactly, by a dynamic programme over steps that are relaxed outwards. (For level 1, which has nothing in
// service while off, the request has to be begun within Wait.)
//
// Violations: each level may drop all the requests allowed; the price μ of a drop is a Lagrange multiplier, and any μ ≥ 0 gives a
// bound. A drop is taken to empty the queue, for level 1 each request is counted.
//
// Both bounds are joined: with a share α, cost ≥ α·(bound on ∫n) + Σ_k (the level's cost with time weighted by 1−α).
//
// Without pre-warming and with startup > wait, a time off on level 1 can only end at startup after the arrival of a request, which
// then has violated, as those that came up to startup − wait after it have.
func lower(ctx context.Context, c Clairvoyant, l *load) (prewarmed, reactive float64, err error) {
	work := max(l.least/float64(c.Concurrency), l.chain)
	startup := c.Startup.Seconds()
	d := newLevels(c, l)
	prewarmed = work + startup // one pod has to be started, at least
	reactive = prewarmed
	for _, alpha := range []float64{0, 0.5, 0.9} {
		first := d.best(1, 1-alpha, false)
		firstReactive := first
		if c.Startup > c.Wait {
			firstReactive = d.best(1, 1-alpha, true)
		}
		rest := alpha * work
		for k := 2; k <= l.levels; k++ {
			if err := ctx.Err(); err != nil {
				return 0, 0, err
			}
			cost := d.best(k, 1-alpha, false)
			rest += cost
			if cost == 0 {
				break // higher levels cost nothing either
			}
		}
		prewarmed = max(prewarmed, first+rest)
		reactive = max(reactive, firstReactive+rest)
	}
	return prewarmed, max(prewarmed, reactive), nil
}

// levels solves the relaxed problem of a level. It keeps scratch memory.
type levels struct {
	c       Clairvoyant
	l       *load
	sums    []float64 // of arrivals
	keys    []float64
	minimum deque
	maximum deque
}

func newLevels(c Clairvoyant, l *load) *levels {
	d := &levels{c: c, l: l, sums: make([]float64, len(l.arrivals)+1)}
	for i, a := range l.arrivals {
		d.sums[i+1] = d.sums[i] + float64(a)
	}
	return d
}

// best is the greatest bound over the price of drops, by golden section: the dual is concave.
func (d *levels) best(k int, price float64, reactive bool) float64 {
	if d.l.allowed == 0 {
		return max(d.cost(k, price, math.Inf(1), reactive), 0)
	}
	unit := d.c.Startup.Seconds() + d.l.sigma
	at := func(x float64) float64 {
		mu := unit * math.Exp(x)
		return d.cost(k, price, mu, reactive) - mu*float64(d.l.allowed)
	}
	const golden = 0.6180339887498949
	lo, hi, rounds := -6.0, 3.0, 4
	if k == 1 {
		hi, rounds = 8, 10
	}
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

// cost is the least cost of level k if a second on costs price, a run the start-up time, and a drop mu; reactive, for level 1, lets
// times off end only where a request began to start a pod.
//
// In steps: e(t) is the greatest gain up to t of times off if the level is off just before t, o(t) the same if it is on; a time off
// from u to t gains (t−u)·price.
//
//	e(t) = max over feasible u of  max(o(u) − start + 2·step·price, e(u) − mu) + (t−u)·price
//	o(t) = max(o(t−1), e(t))                if a time off may end at t
//
// 2·step makes up for the steps that a time off covers in part. The feasible u are a window whose start rises with t.
func (d *levels) cost(k int, price, mu float64, reactive bool) float64 {
	l := d.l
	start := d.c.Startup.Seconds()
	p := price * l.step
	bonus := 2 * p
	free := float64(d.c.Concurrency) * float64(k-1) * l.step
	deadline := d.c.Wait.Seconds()
	if k > 1 {
		deadline += l.sigma
	}
	w := int(math.Ceil(deadline/l.step - 1e-9))
	n := len(l.arrivals) + w + 1
	theta := free * float64(w)
	startSteps := start / l.step

	d.minimum.reset()
	d.maximum.reset()
	if cap(d.keys) < n+1 {
		d.keys = make([]float64, n+1)
	}
	keys := d.keys[:n+1]
	// keys[u] = h(u) − u·p, what a time off from u on is worth.
	keys[0] = p
	on, off := 0.0, 0.0
	first := 0 // the least feasible u
	x := 0.0   // truncated work that has arrived, less what level k−1 can do
	old := math.Inf(-1)
	d.maximum.pushMax(0, keys[0])
	for t := 1; t <= n; t++ {
		q := t - 1 - w
		if k == 1 {
			switch u := min(t-w, t-1); {
			case u < 0:
			case mu < math.Inf(1):
				// Of a time off from u ≤ t−w on, what arrived in u … t−w−1 is dropped, at mu each.
				old = max(old, keys[u]+mu*d.arrived(u))
				first = u + 1
			case q >= 0 && d.arrived(q+1) > d.arrived(q):
				first = q + 1
			}
		} else if q >= 0 && q < len(l.arrivals) {
			d.minimum.pushMin(q, x)
			x += float64(l.truncated[q]) - free
			limit := x - theta - 1e-6*(1+math.Abs(theta))
			for d.minimum.len() > 0 && d.minimum.value() < limit {
				first = max(first, d.minimum.index()+1)
				d.minimum.popFront()
			}
		}
		for d.maximum.len() > 0 && d.maximum.index() < first {
			d.maximum.popFront()
		}
		best := math.Inf(-1)
		if d.maximum.len() > 0 {
			best = d.maximum.value()
		}
		if k == 1 && mu < math.Inf(1) {
			best = max(best, old-mu*d.arrived(max(t-w, 0)))
		}
		off = best + float64(t)*p
		if !reactive || d.arrivedBetween(float64(t)-startSteps, float64(t+1)-startSteps) {
			on = max(on, off)
		}
		h := on - start + bonus
		if k > 1 {
			h = max(h, off-mu)
		}
		keys[t] = h - float64(t)*p
		d.maximum.pushMax(t, keys[t])
	}
	return float64(n)*p - max(off, on-start)
}

// arrived counts the arrivals of the steps before i.
func (d *levels) arrived(i int) float64 { return d.sums[min(i, len(d.sums)-1)] }

// arrivedBetween tells whether a request arrived in the steps that hold from … to.
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
