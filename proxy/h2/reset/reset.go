// Package reset accounts for the streams of a connection that were reset.
package reset

import (
	"slices"
	"time"
)

// kept is how many streams are remembered.
const kept = 256

// Recent remembers the last 256 streams that this side has reset: what their peers have sent before
// they knew is no fault. The zero value is none. It is not safe for concurrent use.
type Recent struct {
	ids  []uint32
	next int
}

// Note remembers a stream.
func (r *Recent) Note(id uint32) {
	if len(r.ids) < kept {
		r.ids = append(r.ids, id)
		return
	}
	r.ids[r.next] = id
	r.next = (r.next + 1) % kept
}

// Has says whether a stream is among them.
func (r *Recent) Has(id uint32) bool { return slices.Contains(r.ids, id) }

// Budget bounds how often something happens. The zero value is unspent. It is not safe for
// concurrent use.
type Budget struct {
	spent float64
	at    time.Duration // of the last
}

// Spend counts one more, now, and says whether it is within burst at once and rate per second.
func (b *Budget) Spend(now time.Duration, burst int, rate float64) bool {
	b.spent = max(0, b.spent-rate*(now-b.at).Seconds()) + 1
	b.at = now
	return b.spent <= float64(burst)
}
