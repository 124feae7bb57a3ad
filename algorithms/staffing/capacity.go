package staffing

import "math"

// Capacity computes what load n pods carry until more pods can be ready, and caches the answers:
// they depend on its parameters alone. The zero value carries nothing. It is not safe for
// concurrent use.
type Capacity struct {
	share, wait, slots, span, burst float64
	row                             int
	known                           [cachedShares][cachedCounts]float64
}

// cachedShares is how many shares are cached at a time, in steps of an eighth of e.
const cachedShares = 48

// cachedCounts is the pod count below which loads are cached.
const cachedCounts = 80

// Set sets the share that may wait longer than wait mean service times, the slots of a pod, how
// many mean service times pass until more pods can be ready, and the peakedness of arrivals
// (WaitShareWithin). Share and span are rounded to steps of about an eighth.
func (c *Capacity) Set(share, wait, slots, span, burst float64) {
	span = math.Exp(math.Round(math.Log(max(span, 1e-3))*8) / 8)
	step := math.Round(math.Log(share) * 8)
	c.share = min(math.Exp(step/8), 0.5)
	c.row = ((int(step) % cachedShares) + cachedShares) % cachedShares
	if wait != c.wait || slots != c.slots || span != c.span || burst != c.burst {
		c.wait, c.slots, c.span, c.burst = wait, slots, span, burst
		c.known = [cachedShares][cachedCounts]float64{}
	}
}

// Load is the largest load, in slots, of which at most the share waits longer than wait at n pods
// until more can be ready; 0 for none.
func (c *Capacity) Load(n int) float64 {
	if n <= 0 {
		return 0
	}
	row := &c.known[c.row]
	if n < len(row) && row[n] > 0 {
		return row[n]
	}
	servers := float64(n) * c.slots
	late := func(a float64) bool { return WaitShareWithin(servers, a, c.wait, c.span, c.burst) > c.share }
	lo, hi := 0.0, servers
	for hi < 1e6*servers && !late(hi) {
		lo, hi = hi, 2*hi
	}
	for hi-lo > 1e-3*servers {
		mid := (lo + hi) / 2
		if late(mid) {
			hi = mid
		} else {
			lo = mid
		}
	}
	if n < len(row) {
		row[n] = lo
	}
	return lo
}
