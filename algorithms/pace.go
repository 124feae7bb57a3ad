package algorithms

import "time"

// Pace lets something happen once in each period, on a grid that begins with the first time. The
// zero value has not begun.
type Pace struct {
	// Next is when the next time is due.
	Next time.Time `json:"next,omitzero"`
}

// Due reports whether a time has come, and then plans the next one. A period of 0 is always due.
func (p *Pace) Due(now time.Time, period time.Duration) bool {
	if period <= 0 {
		return true
	}
	if p.Next.IsZero() {
		p.Next = now
	}
	if now.Before(p.Next) {
		return false
	}
	p.Next = now.Add(period - now.Sub(p.Next)%period)
	return true
}

// WaitForSync is the answer of a policy that looks at its signals at next only: nothing changes.
func WaitForSync(o *Observation, next time.Time) Decision {
	d := Decision{Replicas: o.Replicas.Current, Reason: "WaitingForSync", Next: next.Sub(o.Now)}
	if !o.Quiet {
		d.Message = "the sync period is not over; nothing changes"
	}
	return d
}
