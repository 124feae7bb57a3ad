package score

import (
	"math"
	"math/bits"
	"time"
)

const (
	// sub is the number of buckets in each doubling: a value is told to 1/256 of itself.
	subBits = 7
	sub     = 1 << subBits
)

// Histogram counts times in buckets whose width grows with the value, so that every quantile is
// told to within 0.4 % of itself, in bounded memory. The zero value is empty. It is not safe for
// concurrent use.
type Histogram struct {
	counts [(64 - subBits) * sub]int64
	n      int64
	max    time.Duration
	sum    float64
}

// index is the bucket of a value; neighbouring buckets hold neighbouring values.
func index(v uint64) int {
	if v < 2*sub {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return shift*sub + int(v>>shift)
}

// bounds are the least value of a bucket and that of the next one.
func bounds(i int) (lo, hi uint64) {
	if i < 2*sub {
		return uint64(i), uint64(i) + 1
	}
	shift := i/sub - 1
	m := uint64(i - shift*sub)
	return m << shift, (m + 1) << shift
}

// Add counts a value; negative ones count as 0.
func (h *Histogram) Add(d time.Duration) {
	if d <= 0 {
		h.counts[0]++
		h.n++
		return
	}
	h.counts[index(uint64(d))]++
	h.n++
	h.sum += float64(d)
	if d > h.max {
		h.max = d
	}
}

// AddZeros counts n zeros.
func (h *Histogram) AddZeros(n int64) {
	h.counts[0] += n
	h.n += n
}

// Count is how many values there are.
func (h *Histogram) Count() int64 { return h.n }

// Max is the largest value, exactly.
func (h *Histogram) Max() time.Duration { return h.max }

// MeanSeconds is the mean of all values in seconds, exactly; 0 when there are none.
func (h *Histogram) MeanSeconds() float64 {
	if h.n == 0 {
		return 0
	}
	return h.sum / float64(h.n) / float64(time.Second)
}

// Quantile is the value that the share q (0–1) of all do not exceed, to within 0.4 %; 0 when there
// are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := min(max(int64(math.Ceil(q*float64(h.n))), 1), h.n)
	seen := int64(0)
	for i, c := range h.counts {
		if seen += c; seen >= rank {
			lo, hi := bounds(i)
			if hi == lo+1 {
				return time.Duration(lo)
			}
			return min(time.Duration(lo+(hi-lo)/2), h.max)
		}
	}
	return h.max
}

// Buckets are the bars that are not empty, joined to at most eight for each doubling, in seconds.
func (h *Histogram) Buckets() []Bucket {
	var out []Bucket
	const join = sub / 8
	for i := 0; i < len(h.counts); i += join {
		n := int64(0)
		for _, c := range h.counts[i : i+join] {
			n += c
		}
		if i == 0 && h.counts[0] > 0 { // no wait at all is a bar of its own
			out = append(out, Bucket{Upper: 0, Count: h.counts[0]})
			n -= h.counts[0]
		}
		if n > 0 {
			_, hi := bounds(i + join - 1)
			out = append(out, Bucket{Upper: time.Duration(hi).Seconds(), Count: n})
		}
	}
	return out
}
