package request

import (
	"net/http"
	"time"
)

// Account is what is known of one request: its instants, its status code, what it holds. The zero
// value is a request that has not arrived. Who changes it takes care of locks.
type Account struct {
	Arrived   time.Duration
	Queued    time.Duration // how long it waited for a place under the limit
	Asked     time.Duration // when the app was asked; 0: not yet
	Responded time.Duration // when the app's answer began, or the proxy's own
	Began     time.Duration // when the answer to the client began
	Code      int           // of the answer
	Own       bool          // the answer is the proxy's own

	counted bool // is in flight
	ignored bool
	placed  bool // holds a place under the limit
}

// Count counts a request of the kind as arrived.
func (a *Account) Count(r *Rules, k Kind) {
	switch k {
	case Ignored:
		a.ignored = true
		r.Metrics.Ignored()
	case Demand, Connect:
		a.counted = true
		r.InFlight.Begin(a.Arrived)
	case Readiness:
	}
}

// Ignored says whether the request was counted as Ignored.
func (a *Account) Ignored() bool { return a.ignored }

// TakePlace takes a place under the limit if one is free, and says whether it did.
func (a *Account) TakePlace(r *Rules) bool {
	a.placed = r.Limiter.TryAcquire()
	return a.placed
}

// GotPlace notes that the limiter gave the request a place that it waited for.
func (a *Account) GotPlace(now time.Duration) {
	a.placed = true
	a.Queued = now - a.Arrived
}

// Limited says whether the request holds a place under a limit.
func (a *Account) Limited(r *Rules) bool { return a.placed && r.Limiter.Limit() > 0 }

// LeavePlace leaves the request's place to the caller, who releases it.
func (a *Account) LeavePlace() { a.placed = false }

// Refuse counts a request that is demand as answered, or given up, by the proxy.
func (a *Account) Refuse(r *Rules, why Reason) {
	if a.counted {
		r.Metrics.Refused(why)
	}
}

// Fail is Refuse for a failure, and returns its answer.
func (a *Account) Fail(r *Rules, f Failure) Answer {
	if why, ok := f.Reason(); ok {
		a.Refuse(r, why)
	}
	return f.Answer()
}

// Leave notes that the client left before an answer began.
func (a *Account) Leave(r *Rules) {
	a.Code = ClientLeftCode
	a.Refuse(r, ClientLeft)
}

// Finish ends the account: the request is counted as ended, and its place is free. A second call
// does nothing.
func (a *Account) Finish(r *Rules) {
	if a.counted {
		a.counted = false
		overhead := time.Duration(-1)
		if a.Asked > 0 && a.Responded > 0 && a.Began >= a.Responded && !a.Own {
			overhead = a.Asked - a.Arrived - a.Queued + a.Began - a.Responded
		}
		if a.Code == 0 {
			a.Code = http.StatusBadGateway
		}
		now := r.Now()
		r.Metrics.Finished(a.Code, now-a.Arrived, overhead)
		r.InFlight.End(now) // last: what is no longer in flight was counted
	}
	if a.placed {
		a.placed = false
		r.Limiter.Release()
	}
}
