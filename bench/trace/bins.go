package trace

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// Trace is a recorded load: the number of requests in each of equally long bins. It holds 8 bytes
// per bin. It is a value that nothing changes after Read or New: safe for concurrent use.
type Trace struct {
	name  string
	width time.Duration
	// requests per bin, finite and ≥ 0; at least one, and one above 0.
	bins []float64
}

// Bin is one bin of a trace.
type Bin struct {
	// Start is since the trace's start, Width > 0.
	Start, Width time.Duration
	// Requests is the number of requests in it, ≥ 0; a fraction if the trace was scaled or recorded
	// concurrency.
	Requests float64
}

// ErrEmpty is what New, Read and Slice return for a trace without a request in any bin.
var ErrEmpty = errors.New("no request in any bin")

// New makes a trace of bins of a width > 0, in requests per bin: at least one bin, each finite and
// ≥ 0, one of them above 0, and none above 1e9 requests per second.
func New(name string, width time.Duration, requests []float64) (*Trace, error) {
	if width <= 0 {
		return nil, fmt.Errorf("trace %s: bin width %v: want > 0", name, width)
	}
	if len(requests) == 0 {
		return nil, fmt.Errorf("trace %s has no bins", name)
	}
	if float64(len(requests))*float64(width) > math.MaxInt64 {
		return nil, fmt.Errorf("trace %s: %d bins of %v are longer than 292 years", name, len(requests), width)
	}
	var total float64
	for i, v := range requests {
		if math.IsNaN(v) || v < 0 || v > maxRate*width.Seconds() {
			return nil, fmt.Errorf("trace %s: bin %d holds %v requests: want 0–%g (1e9 per second)", name, i, v, maxRate*width.Seconds())
		}
		total += v
	}
	if total == 0 {
		return nil, fmt.Errorf("trace %s: %d bins: %w", name, len(requests), ErrEmpty)
	}
	return &Trace{name: name, width: width, bins: slices.Clone(requests)}, nil
}

// Name is the file's name without folder and ending, with ".column" behind it if one of several
// columns was chosen.
func (t *Trace) Name() string { return t.name }

// Len is the number of bins, ≥ 1.
func (t *Trace) Len() int { return len(t.bins) }

// Width is the length of a bin.
func (t *Trace) Width() time.Duration { return t.width }

// Length is the length of all bins.
func (t *Trace) Length() time.Duration { return time.Duration(len(t.bins)) * t.width }

// Bin is the i-th bin, 0 ≤ i < Len.
func (t *Trace) Bin(i int) Bin {
	return Bin{Start: time.Duration(i) * t.width, Width: t.width, Requests: t.bins[i]}
}

// Requests is the number of all requests.
func (t *Trace) Requests() float64 {
	var sum float64
	for _, v := range t.bins {
		sum += v
	}
	return sum
}

// PeakRate is the rate of the fullest bin, in requests per second, > 0.
func (t *Trace) PeakRate() float64 { return slices.Max(t.bins) / t.width.Seconds() }

// MeanRate is in requests per second over the trace's length, > 0.
func (t *Trace) MeanRate() float64 { return t.Requests() / t.Length().Seconds() }

// Rate is that at an instant since the start, in requests per second; 0 outside of the trace.
func (t *Trace) Rate(at time.Duration) float64 {
	if at < 0 || at >= t.Length() {
		return 0
	}
	return t.bins[at/t.width] / t.width.Seconds()
}

// Scale multiplies every bin. To bring the peak to a number of pods: factor = pods · concurrency
// per pod / mean service time / PeakRate. The factor must be above 0 and leave no bin above 1e9
// requests per second.
func (t *Trace) Scale(factor float64) (*Trace, error) {
	if !(factor > 0) || factor*t.PeakRate() > maxRate {
		return nil, fmt.Errorf("trace %s: scale by %v: want > 0 and a peak within %g requests per second", t.name, factor, maxRate)
	}
	bins := make([]float64, len(t.bins))
	for i, v := range t.bins {
		bins[i] = v * factor
	}
	return New(t.name, t.width, bins)
}

// Slice cuts the trace to the bins that start within from ≤ start < to, which then starts at from's
// bin. It fails if no request is left.
func (t *Trace) Slice(from, to time.Duration) (*Trace, error) {
	if from < 0 || to <= from {
		return nil, fmt.Errorf("trace %s: slice %v–%v: want 0 ≤ from < to", t.name, from, to)
	}
	first := int(min((from+t.width-1)/t.width, time.Duration(len(t.bins))))
	end := int(min((to-1)/t.width+1, time.Duration(len(t.bins))))
	if first >= end {
		return nil, fmt.Errorf("trace %s: slice %v–%v: no bin of %v starts there; the trace lasts %v", t.name, from, to, t.width, t.Length())
	}
	return New(t.name, t.width, t.bins[first:end])
}

// Coarsen joins every k neighbouring bins into one, k ≥ 1; bins at the end that do not fill one are
// dropped. It suits traces whose instants are coarser than their bins.
func (t *Trace) Coarsen(k int) (*Trace, error) {
	if k < 1 || k > len(t.bins) {
		return nil, fmt.Errorf("trace %s: join %d bins: want 1–%d", t.name, k, len(t.bins))
	}
	bins := make([]float64, len(t.bins)/k)
	for i := range bins {
		for _, v := range t.bins[i*k : (i+1)*k] {
			bins[i] += v
		}
	}
	return New(t.name, t.width*time.Duration(k), bins)
}

// Source makes arrivals of the trace, by a model of what happens within bins.
func (t *Trace) Source(m Model) Source {
	return &plan{name: t.name, length: t.Length(), model: m, rate: func(*rand.Rand) profile { return &binProfile{trace: t} }}
}

type binProfile struct {
	trace *Trace
	i     int
}

func (p *binProfile) next() (segment, bool) {
	if p.i == len(p.trace.bins) {
		return segment{}, false
	}
	b := p.trace.Bin(p.i)
	p.i++
	return segment{start: b.Start, end: b.Start + b.Width, rate: b.Requests / b.Width.Seconds(), mass: b.Requests}, true
}
