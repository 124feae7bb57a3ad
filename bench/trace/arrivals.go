package trace

import (
	"math"
	"math/rand/v2"
	"time"
)

// segment is a stretch of time in which the rate moves in a straight line:
//
//	rate(t) = rate + slope·(t − start)    start ≤ t < end, in requests per second
type segment struct {
	start, end time.Duration
	rate       float64
	slope      float64
	// mass is the expected number of requests in it. Traces know it exactly; others leave it to
	// straight.
	mass float64
}

// straight is the segment with rates from and to at its ends.
func straight(start, end time.Duration, from, to float64) segment {
	s := segment{start: start, end: end, rate: from, mass: (from + to) / 2 * (end - start).Seconds()}
	if from != to {
		s.slope = (to - from) / (end - start).Seconds()
	}
	return s
}

// profile yields the segments of a rate over time, one after another without a hole.
type profile interface {
	next() (segment, bool)
}

// plan is a rate over time with a model of how the arrivals fall at that rate.
type plan struct {
	name   string
	length time.Duration
	// rate makes the profile; rng is its own.
	rate  func(rng *rand.Rand) profile
	model Model
}

// Name implements Source.
func (p *plan) Name() string { return p.name }

// Length implements Source.
func (p *plan) Length() time.Duration { return p.length }

// Open implements Source.
func (p *plan) Open(rng *rand.Rand) Arrivals {
	// Their own generators, so that neither the size of the reads nor what else the caller draws
	// changes the arrivals.
	forRate, forGaps := fork(rng), fork(rng)
	if p.model.kind == exact {
		return &exactArrivals{rate: p.rate(forRate), rng: forGaps, carry: forGaps.Float64()}
	}
	g := p.model.gaps(forGaps)
	return &renewal{rate: p.rate(forRate), gaps: g, u: g.first(), i: batch}
}

// fork makes a generator of its own from the state of another.
func fork(rng *rand.Rand) *rand.Rand {
	a := rng.Uint64()
	return rand.New(rand.NewPCG(a, rng.Uint64()))
}

// batch is how many gaps are drawn at once.
const batch = 256

// most is the mass at which segments are cut, lest the position within them lose precision.
const most = 1 << 22

// renewal are the arrivals of a renewal process of rate 1 in the time Λ(t) = ∫₀ᵗ rate(u) du: with
// exponential gaps the Poisson process of that rate, exactly; with others a process whose gaps keep
// their coefficient of variation while the rate is steady.
//
// Within a segment Λ is a line or a parabola, so its inverse is in closed form: one multiplication,
// or one root, per request.
type renewal struct {
	rate profile
	gaps gaps
	buf  [batch]float64
	i    int

	seg  segment
	rest segment // what was cut off seg
	// u is where the next request lies, in expected requests since seg.start.
	u float64
	// done is set at the end.
	done bool
}

// Read implements Arrivals.
func (a *renewal) Read(dst []Request) int {
	n := 0
	for n < len(dst) && !a.done {
		if a.u >= a.seg.mass {
			a.u -= a.seg.mass
			if !a.advance() {
				a.done = true
			}
			continue
		}
		m := a.fill(dst[n:])
		n += m
	}
	return n
}

// advance takes the next segment.
func (a *renewal) advance() bool {
	s := a.rest
	a.rest = segment{}
	if s.end == 0 {
		var ok bool
		if s, ok = a.rate.next(); !ok {
			return false
		}
	}
	if s.mass > most && s.end-s.start > 1 {
		parts := time.Duration(math.Ceil(2 * s.mass / most))
		cut := s.start + max((s.end-s.start)/parts, 1)
		middle := s.rate + s.slope*(cut-s.start).Seconds()
		first, second := s, s
		first.end, second.start, second.rate = cut, cut, middle
		first.mass = (s.rate + middle) / 2 * (cut - s.start).Seconds()
		second.mass = s.mass - first.mass
		if second.mass > 0 && second.end > second.start {
			s, a.rest = first, second
		}
	}
	a.seg = s
	return true
}

// fill writes requests of the current segment until it or dst is full.
func (a *renewal) fill(dst []Request) int {
	start, last, mass := a.seg.start, a.seg.end-1, a.seg.mass
	u, i, n := a.u, a.i, 0
	if a.seg.slope == 0 {
		perRequest := float64(a.seg.end-a.seg.start) / mass
		for n < len(dst) && u < mass {
			dst[n] = Request{At: min(start+time.Duration(u*perRequest), last)}
			n++
			if i == batch {
				a.gaps.fill(&a.buf)
				i = 0
			}
			u += a.buf[i]
			i++
		}
	} else {
		r, rr, s2 := a.seg.rate, a.seg.rate*a.seg.rate, 2*a.seg.slope
		for n < len(dst) && u < mass {
			// u = r·x + slope·x²/2 solved for x, in the form that loses no digits as slope → 0.
			x := 0.0
			if d := r + math.Sqrt(max(rr+s2*u, 0)); d > 0 {
				x = 2 * u / d
			}
			dst[n] = Request{At: min(start+time.Duration(x*1e9), last)}
			n++
			if i == batch {
				a.gaps.fill(&a.buf)
				i = 0
			}
			u += a.buf[i]
			i++
		}
	}
	a.u, a.i = u, i
	return n
}

// exactArrivals are as many as each segment's mass says, at the order statistics of uniform
// instants. A fraction of a request is carried to the next segment, from a random start, so that
// its mean is right.
//
// They come in blocks, so that none has to be kept: the m-th of k uniform instants in what is left
// of the segment comes at a share of it that is Beta(m, k−m+1) distributed, and the m−1 before it
// are uniform below it. Those are sums of exponentials, scaled.
type exactArrivals struct {
	rate  profile
	rng   *rand.Rand
	carry float64

	seg segment
	k   int64   // how many of seg are not yet in a block
	at  float64 // where the last block ended, in nanoseconds since seg.start

	block [block]float64 // nanoseconds since seg.start
	i, n  int            // the next one and the end of the block
}

// block is the most requests that are placed at once.
const block = 128

// Read implements Arrivals.
func (a *exactArrivals) Read(dst []Request) int {
	n := 0
	for n < len(dst) {
		if a.i == a.n {
			if !a.place() {
				break
			}
			continue
		}
		start, last := a.seg.start, a.seg.end-1
		m := min(len(dst)-n, a.n-a.i)
		for j, x := range a.block[a.i : a.i+m] {
			dst[n+j] = Request{At: min(start+time.Duration(x), last)}
		}
		a.i += m
		n += m
	}
	return n
}

// place fills the block, which is empty if a segment is; false is the end.
func (a *exactArrivals) place() bool {
	a.i, a.n = 0, 0
	if a.k == 0 {
		s, ok := a.rate.next()
		if !ok {
			return false
		}
		whole := math.Floor(s.mass)
		if a.carry += s.mass - whole; a.carry >= 1 {
			a.carry--
			whole++
		}
		a.seg, a.k, a.at = s, int64(whole), 0
		return true
	}
	m := int(min(a.k, block))
	width := float64(a.seg.end - a.seg.start)
	// The m requests lie at the ends of so many gaps, the last of which ends at width.
	gaps := m
	if a.k == int64(m) {
		gaps++
	} else {
		below := GammaVariate(a.rng, float64(m))
		width = a.at + (width-a.at)*below/(below+GammaVariate(a.rng, float64(a.k-int64(m)+1)))
	}
	var sum float64
	for j := range a.block[:m] {
		sum += a.rng.ExpFloat64()
		a.block[j] = sum
	}
	if gaps > m {
		sum += a.rng.ExpFloat64()
	}
	scale := (width - a.at) / sum
	for j := range a.block[:m] {
		a.block[j] = a.at + a.block[j]*scale
	}
	a.at = width
	a.k -= int64(m)
	a.n = m
	return true
}
