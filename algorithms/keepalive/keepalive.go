// Package keepalive answers how long to keep the last pod after the last request: the ski-rental problem. Keeping costs r per
// second, letting go costs C at the next request, and nobody knows when that comes. Costs are in any one unit.
//
// Sources: Karlin, Manasse, Rudolph, Sleator, "Competitive snoopy caching", 1988 (deterministic, 2); Karlin, Manasse, McGeoch,
// Owicki, "Competitive randomized algorithms for nonuniform problems", 1994 (e/(e−1)); Purohit, Svitkina, Kumar, "Improving online
// algorithms via ML predictions", 2018 (with advice). Functions are pure and safe for concurrent use.
package keepalive

import (
	"math"
	"time"
)

// Forever stands for a time that never ends.
const Forever time.Duration = math.MaxInt64

// BreakEven is τ = C / r, the idle time at which keeping has cost as much as one cold start. Keeping for exactly τ costs at
// most twice what one who knew the future would pay. A free pod is kept Forever; a free cold start is worth 0.
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
