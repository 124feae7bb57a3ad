package hold

import "time"

// Integral is the exact time integral of a count, in request-seconds: Σ count · duration. Time is
// an argument, a duration since an origin of the caller's choice; going backwards adds nothing. The
// zero value is a count of 0 at instant 0. It is not safe for concurrent use.
//
// The sum is kept in whole nanoseconds, split in two words: a count of 10 000 would overflow one
// within ten days.
type Integral struct {
	count   int64
	last    time.Duration
	seconds int64
	nanos   int64
}

// Add changes the count by delta at the instant now.
func (i *Integral) Add(now time.Duration, delta int) {
	i.advance(now)
	i.count += int64(delta)
}

// Credit adds d for one request whose wait was known only afterwards. Negative d is ignored.
func (i *Integral) Credit(d time.Duration) {
	if d > 0 {
		i.sum(int64(d))
	}
}

// Count returns the count since the last Add.
func (i *Integral) Count() int { return int(i.count) }

// Seconds returns the integral up to now, in request-seconds.
func (i *Integral) Seconds(now time.Duration) float64 {
	i.advance(now)
	return float64(i.seconds) + float64(i.nanos)/1e9
}

func (i *Integral) advance(now time.Duration) {
	d := now - i.last
	if d <= 0 {
		return
	}
	i.last = now
	// Whole seconds and the rest apart: count · nanoseconds could overflow after a long calm.
	i.seconds += i.count * int64(d/time.Second)
	i.sum(i.count * int64(d%time.Second))
}

func (i *Integral) sum(nanos int64) {
	nanos += i.nanos
	i.seconds += nanos / int64(time.Second)
	i.nanos = nanos % int64(time.Second)
}
