// Package keepalive decides how long to keep the last pod after the last request: the ski-rental
// problem. A kept pod costs r per second, and a cold start costs C at the next request, whose time
// is unknown. Costs are in any one unit.
//
// Sources: Karlin, Manasse, Rudolph, Sleator, "Competitive snoopy caching", 1988 (deterministic,
// 2). Functions are pure and safe for concurrent use.
package keepalive

import (
	"math"
	"time"
)

// Forever stands for an infinite time.
const Forever time.Duration = math.MaxInt64

// BreakEven is τ = C / r, the idle time at which keeping has cost as much as one cold start.
// Keeping for exactly τ costs at most twice the optimum in hindsight. A free pod is kept Forever; a
// free cold start is worth 0.
func BreakEven(idlePerSecond, coldStart float64) time.Duration {
	if !(coldStart > 0) { // NaN too
		return 0
	}
	if !(idlePerSecond > 0) {
		return Forever
	}
	return seconds(coldStart / idlePerSecond)
}

func seconds(s float64) time.Duration {
	if s >= Forever.Seconds() {
		return Forever
	}
	return time.Duration(s * float64(time.Second))
}
