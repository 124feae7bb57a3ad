package lookahead

import (
	"math"

	"github.com/sluice-autoscaler/sluice/algorithms/staffing"
)

// carry answers what load n pods carry, and remembers: its answers are a function of its parameters alone.
type carry struct {
	share, wait, slots float64
	known              [256]float64
}

// exact is the count of servers up to which Erlang's recursion is walked; beyond, Halfin and Whitt's limit serves.
const exact = 64

// set names the share that may wait longer than wait mean service times, and the slots of a pod. The share counts in steps of about a tenth.
func (c *carry) set(share, wait, slots float64) {
	share = min(max(math.Exp(math.Round(math.Log(share)*8)/8), 1e-9), 0.5)
	if share != c.share || wait != c.wait || slots != c.slots {
		*c = carry{share: share, wait: wait, slots: slots}
	}
}

// load is the largest load, in slots, of which at most the share waits longer than allowed at n pods; 0 for none.
func (c *carry) load(n int) float64 {
	if n <= 0 {
		return 0
	}
	if n < len(c.known) && c.known[n] > 0 {
		return c.known[n]
	}
	servers := float64(n) * c.slots
	lo, hi := 0.0, servers
	for hi-lo > 1e-3*servers {
		mid := (lo + hi) / 2
		if waitTail(servers, mid, c.wait) > c.share {
			hi = mid
		} else {
			lo = mid
		}
	}
	if n < len(c.known) {
		c.known[n] = lo
	}
	return lo
}

// waitTail is the share that waits longer than t mean service times at c servers under load a: Erlang C for few servers, whole ones, and Halfin and
// Whitt's limit for many.
func waitTail(c, a, t float64) float64 {
	switch {
	case a <= 0:
		return 0
	case a >= c:
		return 1
	case c <= exact && c >= 1:
		return staffing.WaitTail(int(c), a, t)
	}
	return staffing.HalfinWhitt((c-a)/math.Sqrt(a)) * math.Exp(-(c-a)*t)
}
