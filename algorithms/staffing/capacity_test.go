package staffing_test

import (
	"math"
	"testing"

	"github.com/sluice-autoscaler/sluice/algorithms/staffing"
)

// The load of a Capacity keeps the promise, a load a little above breaks it, and the cache changes
// nothing.
func TestCapacity(t *testing.T) {
	t.Parallel()
	const wait, slots, burst = 0.5, 10.0, 1.5
	share := math.Exp(-4) // on a step of its rounding
	for _, span := range []float64{1, 60} {
		var c staffing.Capacity
		span = math.Exp(math.Round(math.Log(span)*8) / 8)
		c.Set(share, wait, slots, span, burst)
		if c.Load(0) != 0 {
			t.Error("no pods carry a load")
		}
		last := 0.0
		for _, n := range []int{1, 2, 5, 20, 79, 80, 500} {
			servers := float64(n) * slots
			load := c.Load(n)
			if at := staffing.WaitShareWithin(servers, load, wait, span, burst); at > share {
				t.Errorf("span %v: %d pods at a load of %v: %v wait too long, want at most %v", span, n, load, at, share)
			}
			if above := staffing.WaitShareWithin(servers, load+2e-3*servers, wait, span, burst); above <= share {
				t.Errorf("span %v: %d pods carry more than %v: only %v wait too long there", span, n, load, above)
			}
			if load <= last {
				t.Errorf("span %v: %d pods carry %v, no more than fewer pods", span, n, load)
			}
			last = load
			c.Set(share, wait, slots, span, burst)
			if again := c.Load(n); again != load {
				t.Errorf("span %v: %d pods carry %v and then %v", span, n, load, again)
			}
		}
	}
}
