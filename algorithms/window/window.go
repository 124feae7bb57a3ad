// Package window turns readings of cumulative counters into exact means over time. A source counts
// the integral of what it measures, by its own monotonic clock; the increase between two readings
// divided by the time between them is the mean of that interval, however rarely it is read.
// Restarts leave gaps, and gaps are told apart from zeros.
//
// It is pure: instants come with the readings. A Series is not safe for concurrent use.
package window

import (
	"math"
	"time"
)

// Values is how many counters a Series keeps side by side, all read at the same instant of the
// source's clock.
const Values = 2

// Longest is the longest window that a Series can answer.
const Longest = time.Hour

const (
	// spacing is the least distance of two readings kept, in seconds; readings that come closer
	// replace the one before.
	spacing = 0.5
	// fine, medium: up to these ages in seconds readings are kept every spacing and mediumSpacing;
	// beyond, every coarseSpacing. The integral between kept readings stays exact; only the
	// position of a window's edge gets coarser.
	fine, medium                 = 90.0, 600.0
	mediumSpacing, coarseSpacing = 10.0, 60.0
	// maxPoints bounds the readings of one life: 180 fine, 51 medium and 50 coarse ones, and room
	// so that thinning is rare.
	maxPoints = 352
	// maxLives bounds the restarts that are remembered.
	maxLives = 8
	// maxBirth is the longest first interval, in seconds from the source's start to its first
	// reading, that counts as known. Of an older source only the mean over its whole life is known
	// then, and that says nothing of a window.
	maxBirth = 60.0
	// drift is how fast the source's clock may lose against the collector's, as a share.
	drift = 200e-6
	// reanchor is by how many seconds a source's clock must have stood still to be set anew.
	reanchor = 10.0
	// sameLife is by how many seconds the start time of one life may be told differently.
	sameLife = 0.5
)

// Reading is what a source said at one instant.
type Reading struct {
	// Life identifies the source's life: its start in Unix seconds. A change means that the
	// counters began at zero again.
	Life float64
	// Mono is the source's own monotonic clock, in seconds since its start, at which Sums were
	// read.
	Mono float64
	// Sums are the counters: integrals in unit-seconds, or counts.
	Sums [Values]float64
	// At is when the reading was received, by the collector's clock.
	At time.Time
	// Unborn says that the counters were not zero at the life's start, or that nobody knows: what
	// came before the life's first reading is not told by it.
	Unborn bool
}

// Span is what is known of one counter within a window. All are seconds but Sum.
type Span struct {
	// Sum is the counter's increase within the covered part of the window.
	Sum float64
	// Covered is the part of the window that lies between readings of one life, or between a birth
	// and its first reading.
	Covered float64
	// Before is the part before the source was born, in which it certainly contributed nothing.
	Before float64
	// After is the part of the window after the newest reading.
	After float64
}

// Gap is the part of a window of w that is neither covered, nor before the birth, nor after the
// newest reading, in seconds.
func (s Span) Gap(w time.Duration) float64 {
	return max(0, w.Seconds()-s.Covered-s.Before-s.After)
}

type point struct {
	mono float64
	sums [Values]float64
}

// life is the readings between two starts of the source, oldest first.
type life struct {
	start float64
	// origin is the instant of the source's start by the collector's clock: the least of receipt −
	// Mono, since the way of a reading to the collector only ever adds. It is let go up slowly, so
	// that it follows a slow clock.
	origin time.Time
	// born says that the counters are known to have been zero at the origin, and points[0] is near
	// enough to it to tell.
	born   bool
	points []point
}

// Series is the memory of one source. The zero value is empty. Its size is bounded.
type Series struct {
	lives []life
	// forgot says that lives before the first one were dropped.
	forgot bool
	// received is the newest reading's At.
	received time.Time
}

// Add takes a reading and tells whether it was used. Readings with NaN, infinite or negative
// numbers are refused, and so are those received before the newest, and those of the same life that
// are older than it. A counter that fell within a life begins a new one, without a known birth.
func (s *Series) Add(r Reading) bool {
	if !valid(r) || r.At.Before(s.received) || !s.add(r) {
		return false
	}
	s.received = r.At
	return true
}

func (s *Series) add(r Reading) bool {
	l := s.newest()
	if l == nil {
		s.begin(r, true)
		return true
	}
	last := &l.points[len(l.points)-1]
	if math.Abs(r.Life-l.start) > sameLife {
		if r.Life < l.start && r.Life != 0 { // an answer from before the restart that came late
			return false
		}
		s.begin(r, true)
		return true
	}
	if r.Mono <= last.mono {
		if r.Life != 0 || r.Mono == last.mono {
			return false
		}
		s.begin(r, true) // without a start time, a clock that fell is what tells a restart
		return true
	}
	for k := range r.Sums {
		if r.Sums[k] < last.sums[k] {
			s.begin(r, false)
			return true
		}
	}
	l.anchor(r, r.Mono-last.mono)
	p := point{mono: r.Mono, sums: r.Sums}
	if n := len(l.points); n > 1 && r.Mono-l.points[n-2].mono < spacing {
		l.points[n-1] = p
		return true
	}
	l.points = append(l.points, p)
	if len(l.points) >= maxPoints {
		l.thin()
	}
	return true
}

func valid(r Reading) bool {
	ok := func(v float64) bool { return v >= 0 && v <= math.MaxFloat64 } // false for NaN
	for _, v := range r.Sums {
		if !ok(v) {
			return false
		}
	}
	// what time.Duration can hold, and more than any source lives
	const century = 100 * 365 * 24 * 3600
	return ok(r.Life) && ok(r.Mono) && r.Mono < century
}

func (s *Series) newest() *life {
	if len(s.lives) == 0 {
		return nil
	}
	return &s.lives[len(s.lives)-1]
}

func (s *Series) begin(r Reading, birth bool) {
	if len(s.lives) == maxLives {
		copy(s.lives, s.lives[1:])
		s.lives = s.lives[:maxLives-1]
		s.forgot = true
	}
	s.lives = append(s.lives, life{
		start: r.Life, origin: r.At.Add(-seconds(r.Mono)), born: birth && !r.Unborn && r.Mono <= maxBirth,
		points: []point{{mono: r.Mono, sums: r.Sums}},
	})
}

func seconds(v float64) time.Duration { return time.Duration(v * float64(time.Second)) }

// anchor follows the offset between the two clocks, delta seconds after the reading before.
func (l *life) anchor(r Reading, delta float64) {
	seen := r.At.Add(-seconds(r.Mono))
	allowed := l.origin.Add(seconds(drift * delta))
	if seen.Before(allowed) || seen.Sub(allowed).Seconds() > reanchor {
		l.origin = seen
		return
	}
	l.origin = allowed
}

// thin drops readings that are closer than their age deserves, and those beyond the longest window
// but one.
func (l *life) thin() {
	newest := l.points[len(l.points)-1].mono
	beyond := 0
	for beyond+1 < len(l.points) && newest-l.points[beyond+1].mono > Longest.Seconds() {
		beyond++
	}
	if beyond > 0 {
		l.born = false
	}
	kept := l.points[:1]
	kept[0] = l.points[beyond]
	for _, p := range l.points[beyond+1:] {
		need := spacing
		switch age := newest - p.mono; {
		case age > medium:
			need = coarseSpacing
		case age > fine:
			need = mediumSpacing
		}
		if p.mono-kept[len(kept)-1].mono >= need || p.mono == newest {
			kept = append(kept, p)
		}
	}
	l.points = kept
}

// Newest returns the instant of the newest reading by the collector's clock, as far as its answer's
// way can be told apart from it. ok is false when there is none.
func (s *Series) Newest() (at time.Time, ok bool) {
	l := s.newest()
	if l == nil {
		return time.Time{}, false
	}
	return l.end(), true
}

func (l *life) end() time.Time { return l.origin.Add(seconds(l.points[len(l.points)-1].mono)) }

// Over tells what is known of counter k in the window of w that ends at end. w is at most Longest.
func (s *Series) Over(end time.Time, w time.Duration, k int) Span {
	var sp Span
	width := w.Seconds()
	if len(s.lives) == 0 || width <= 0 {
		return sp
	}
	for i := range s.lives {
		l := &s.lives[i]
		hi := end.Sub(l.origin).Seconds() // the window's end on the life's own clock
		lo := hi - width
		if i == 0 && !s.forgot {
			sp.Before = min(max(0, -lo), width)
		}
		if i == len(s.lives)-1 {
			sp.After = min(max(0, hi-l.points[len(l.points)-1].mono), width)
		}
		if i > 0 { // no instant counts twice, even if clocks disagree
			lo = max(lo, s.lives[i-1].end().Sub(l.origin).Seconds())
		}
		sum, covered := l.between(lo, hi, k)
		sp.Sum += sum
		sp.Covered += covered
	}
	if over := sp.Before + sp.Covered + sp.After - width; over > 0 { // rounding
		sp.Covered = max(0, sp.Covered-over)
	}
	return sp
}

func (l *life) between(lo, hi float64, k int) (sum, covered float64) {
	first := l.points[0].mono
	if l.born {
		first = 0
	}
	lo, hi = max(lo, first), min(hi, l.points[len(l.points)-1].mono)
	if hi <= lo {
		return 0, 0
	}
	return max(0, l.sumAt(hi, k)-l.sumAt(lo, k)), hi - lo
}

// sumAt interpolates the counter at an instant between the first and the newest reading.
func (l *life) sumAt(mono float64, k int) float64 {
	lo, hi := 0, len(l.points)-1 // the first point at or after mono
	for lo < hi {
		if mid := (lo + hi) / 2; l.points[mid].mono < mono {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	b, a := l.points[lo], point{}
	if lo > 0 {
		a = l.points[lo-1]
	}
	if b.mono <= a.mono || mono >= b.mono {
		return b.sums[k]
	}
	return a.sums[k] + (b.sums[k]-a.sums[k])*((mono-a.mono)/(b.mono-a.mono))
}
