package queue

import (
	"hash/fnv"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Spread gives the time until the workload's own instant within the tick. Rounds that were late
// together, or began together, would come together for ever, ten thousand at once.
func Spread(now time.Time, tick, phase time.Duration) time.Duration {
	passed := (time.Duration(now.UnixNano()) - phase) % tick
	return tick - passed
}

// Phase is a workload's own instant within the tick.
func Phase(key types.NamespacedName, tick time.Duration) time.Duration {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key.String()))
	return time.Duration(h.Sum64() % uint64(tick))
}
