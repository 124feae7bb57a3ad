package load

import (
	"cmp"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// Segment is a stretch of time in which the rate moves in a straight line.
//
//	rate(t) = From + (To − From)·t/Length    0 ≤ t < Length, in requests per second
type Segment struct {
	// Length is how long it lasts, ≥ 0.
	Length time.Duration
	// From and To are the rates at its start and end, in requests per second, finite and ≥ 0.
	// Anything else counts as 0.
	From, To float64
}

// Shape is a rate of arrivals as a function of time: segments one after another, and 0 outside of
// them. It is a value; its functions change nothing.
//
//	Ramp      ╱   Constant  ──   Burst  ▁█▁   Idle  ▁▁
type Shape []Segment

// Constant sends rate requests per second for d.
func Constant(rate float64, d time.Duration) Shape { return Ramp(rate, rate, d) }

// Ramp moves from one rate to another in a straight line, over d.
func Ramp(from, to float64, d time.Duration) Shape {
	return Shape{{Length: d, From: from, To: to}}
}

// Idle sends nothing for d.
func Idle(d time.Duration) Shape { return Constant(0, d) }

// Burst sends n requests evenly within d, which is above 0.
func Burst(n int, d time.Duration) Shape { return Constant(float64(n)/d.Seconds(), d) }

// Sequence is one shape after the other.
func Sequence(shapes ...Shape) Shape { return slices.Concat(shapes...) }

// Length is how long the shape lasts.
func (s Shape) Length() time.Duration {
	var d time.Duration
	for _, seg := range s {
		d += seg.length()
	}
	return d
}

// Requests is the expected number of requests until an instant since the shape's start: ∫₀ᵗ rate(u)
// du.
func (s Shape) Requests(t time.Duration) float64 {
	var n float64
	for _, seg := range s {
		if t <= 0 {
			break
		}
		n += seg.requests(min(t, seg.length()))
		t -= seg.length()
	}
	return n
}

func (s Segment) length() time.Duration { return max(0, s.Length) }

func (s Segment) ends() (from, to float64) { return sane(s.From), sane(s.To) }

func (s Segment) rate(t time.Duration) float64 {
	from, to := s.ends()
	if s.length() == 0 {
		return 0
	}
	return from + (to-from)*(float64(t)/float64(s.length()))
}

// requests is ∫₀ᵗ rate(u) du = From·t + (To − From)·t²/(2·Length), in requests.
func (s Segment) requests(t time.Duration) float64 {
	return (s.rate(0) + s.rate(t)) / 2 * t.Seconds()
}

// after inverts requests: the time after which n ≤ requests(Length) requests are due.
func (s Segment) after(n float64) time.Duration {
	from, to := s.ends()
	slope := (to - from) / s.length().Seconds()
	// The smaller root of slope/2·t² + from·t − n = 0, written so that it stays exact as slope goes
	// to 0.
	root := math.Sqrt(max(0, from*from+2*slope*n))
	return min(s.length(), time.Duration(2*n/(from+root)*float64(time.Second)))
}

func sane(rate float64) float64 {
	if math.IsNaN(rate) || math.IsInf(rate, 0) {
		return 0
	}
	return max(0, rate)
}

// Even yields the instants of arrivals, since the shape's start, at equal distances of ∫ rate: the
// kth, from 0, at the t where Requests(t) = k + ½. There are Requests(Length()) of them, rounded to
// a whole number.
func (s Shape) Even() iter.Seq[time.Duration] {
	return s.times(0.5, func() float64 { return 1 })
}

// Poisson yields the instants of arrivals of a Poisson process whose rate is the shape. The same
// state of rng gives the same instants. (Unit-rate arrivals are mapped through the inverse of
// Requests.)
func (s Shape) Poisson(rng *rand.Rand) iter.Seq[time.Duration] {
	return func(yield func(time.Duration) bool) {
		s.times(rng.ExpFloat64(), rng.ExpFloat64)(yield)
	}
}

// times maps first, first+gap(), … through the inverse of Requests.
func (s Shape) times(first float64, gap func() float64) iter.Seq[time.Duration] {
	return func(yield func(time.Duration) bool) {
		next := first
		var start time.Duration
		var before float64
		for _, seg := range s {
			within := seg.requests(seg.length())
			for ; next <= before+within && within > 0; next += gap() {
				if !yield(start + seg.after(next-before)) {
					return
				}
			}
			start += seg.length()
			before += within
		}
	}
}

// Quantile returns the smallest value that at least the share q (0–1) of values do not exceed, and
// 0 if there are none. The values must be sorted.
func Quantile[T cmp.Ordered](sorted []T, q float64) T {
	var zero T
	if len(sorted) == 0 {
		return zero
	}
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}
