package lookahead

import (
	"math"

	"github.com/sluice-autoscaler/sluice/algorithms/staffing"
)

// capacity computes what load n pods carry, and caches the answers: they depend on its parameters
// alone.
type capacity struct {
	share, wait, slots, span, burst float64
	row                             int
	known                           [rows][80]float64
}

// rows is how many shares are cached at a time: steps of an eighth of e over the range of prices.
const rows = 48

// set sets the share that may wait longer than wait mean service times, the slots of a pod, and how
// many mean service times pass until more pods can be ready. Share and span are rounded to steps of
// about an eighth.
func (c *capacity) set(share, wait, slots, span, burst float64) {
	span = math.Exp(math.Round(math.Log(max(span, 1e-3))*8) / 8)
	step := math.Round(math.Log(share) * 8)
	c.share = min(math.Exp(step/8), 0.5)
	c.row = ((int(step) % rows) + rows) % rows
	if wait != c.wait || slots != c.slots || span != c.span || burst != c.burst {
		c.wait, c.slots, c.span, c.burst = wait, slots, span, burst
		c.known = [rows][80]float64{}
	}
}

// load is the largest load, in slots, of which at most the share waits longer than wait at n pods
// until more can be ready; 0 for none.
func (c *capacity) load(n int) float64 {
	if n <= 0 {
		return 0
	}
	row := &c.known[c.row]
	if n < len(row) && row[n] > 0 {
		return row[n]
	}
	servers := float64(n) * c.slots
	late := func(a float64) bool { return staffing.WaitShareWithin(servers, a, c.wait, c.span, c.burst) > c.share }
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
