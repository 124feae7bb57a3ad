// Package demand estimates the offered load: what would be in service if pods were endless.
// Policies that look ahead forecast it. Under overload the measured concurrency is the queue, and
// the measured rate is what the pods can serve.
//
//	N        mean requests in flight and held over the short window
//	cap      slots per pod · pods that are ready, were ready at the previous reading, or are terminating
//	S        mean service time = Σ min(N, cap)·dt / Σ rate·dt, forgetting over five minutes (Little's law)
//	λ        arrivals per second = rate answered + change of the requests now per second, while
//	         saturated (N ≥ 0.95 cap); else N / S
//	load     λ·S slots, within 0 and N, while saturated; else N
//	backlog  (requests now beyond the slots now)·S slot-seconds; N − cap where the reading of now is
//	         unknown
//	wait     backlog / slots
//
// It is pure. An Estimator is not safe for concurrent use.
package demand

import (
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

const (
	// saturated is the share of the slots in use from which on concurrency is not the offered load.
	saturated = 0.95
	// memory is after how many seconds work and answers count 1/e in the mean service time.
	memory = 300.0
	// few is how many answers, so discounted, make the service time known.
	few = 5.0
)

// Long is the window that is used where the short one is unknown.
const Long = time.Minute

// Reading is the demand of one observation. Numbers are finite and ≥ 0.
type Reading struct {
	// Known is false when concurrency is unknown; the rest is then empty.
	Known bool
	// Load is the offered load in slots. InFlight is N as measured.
	Load, InFlight float64
	// Service is the mean service time in seconds, 0 while unknown; Rate is arrivals per second, 0
	// while that is.
	Service, Rate float64
	// Backlog is in slot-seconds; Wait, of a request that arrives now, in seconds, +Inf with work
	// and no ready pod.
	Backlog, Wait float64
	// Saturated says that the slots are in use. While Service is unknown, Load then includes the
	// queue.
	Saturated bool
}

// State is the memory of an Estimator. Its zero value has seen nothing.
type State struct {
	At       time.Time `json:"at,omitzero"`
	InFlight float64   `json:"inFlight"`
	Work     float64   `json:"work"`
	Answered float64   `json:"answered"`
	// Now is how many requests there were at that instant, where it was Seen.
	Now  float64 `json:"now"`
	Seen bool    `json:"seen"`
	// Ready is how many pods were ready then.
	Ready int `json:"ready"`
}

// Estimator reads observations in their order.
type Estimator struct {
	// Short is the window of the freshest means, > 0.
	Short time.Duration
	State State
}

// Needs lists concurrency now, concurrency and rate over the short window, and concurrency over
// Long.
func (e *Estimator) Needs() []algorithms.Need {
	needs := []algorithms.Need{
		{Name: algorithms.Concurrency, Window: algorithms.Instant}, {Name: algorithms.Concurrency, Window: e.Short}, {Name: algorithms.Rate, Window: e.Short},
	}
	if e.Short < Long {
		needs = append(needs, algorithms.Need{Name: algorithms.Concurrency, Window: Long})
	}
	return needs
}

// most bounds readings so that sums and products of them stay finite.
const most = 1e12

func value(o *algorithms.Observation, name string, window time.Duration) (float64, bool) {
	i := o.Index(name, window)
	if i < 0 || o.Signals[i].Value < 0 {
		return 0, false
	}
	return min(o.Signals[i].Value, most), true
}

// Read reads an observation, at slots per pod > 0. A round less than half the short window after
// the previous one sees the same means again, so the estimator answers it without an update.
func (e *Estimator) Read(o *algorithms.Observation, slots float64) Reading {
	n, ok := value(o, algorithms.Concurrency, e.Short)
	if !ok {
		if n, ok = value(o, algorithms.Concurrency, Long); !ok {
			return Reading{}
		}
	}
	s := &e.State
	rate, rated := value(o, algorithms.Rate, e.Short)
	now, seen := value(o, algorithms.Concurrency, algorithms.Instant)
	// Pods that were removed within the window, or are terminating, served requests.
	cap := float64(max(o.Replicas.Ready, s.Ready, 0)+max(o.Replicas.Terminating, 0)) * slots
	if o.Replicas.Ready <= 0 {
		cap = 0
	}
	r := Reading{Known: true, InFlight: n, Load: n, Saturated: n >= saturated*cap && n > 0}
	dt := o.Now.Sub(s.At).Seconds()
	fresh := s.At.IsZero() || dt >= e.Short.Seconds()/2
	// without work there is no new service time
	if fresh && rated && !s.At.IsZero() && (rate > 0 || min(n, cap) > 0) {
		span := min(dt, 60)
		keep := math.Exp(-span / memory)
		s.Work = keep*s.Work + min(n, cap)*span
		s.Answered = keep*s.Answered + rate*span
	}
	if s.Answered >= few && s.Work > 0 {
		r.Service = min(max(s.Work/s.Answered, 1e-6), 1e6)
	}
	if r.Service > 0 {
		r.Rate = n / r.Service
		if r.Saturated && rated {
			if !s.At.IsZero() && dt > 0 && dt <= 60 {
				change := n - s.InFlight
				// means lag, by hundreds of requests when many pods start at once
				if seen && s.Seen {
					change = now - s.Now
				}
				r.Rate = max(rate+change/max(dt, e.Short.Seconds()/2), 0)
			}
			r.Load = min(r.Rate*r.Service, n)
			r.Rate = min(r.Rate, most)
		}
		queue := max(0, n-cap)
		if seen {
			queue = max(0, now-float64(max(o.Replicas.Ready, 0)+max(o.Replicas.Terminating, 0))*slots)
		}
		r.Backlog = queue * r.Service
		switch {
		case r.Backlog == 0:
		case o.Replicas.Ready > 0:
			r.Wait = r.Backlog / (float64(o.Replicas.Ready) * slots)
		default:
			r.Wait = math.Inf(1)
		}
	}
	if fresh {
		s.At, s.InFlight, s.Ready, s.Now, s.Seen = o.Now, n, o.Replicas.Ready, now, seen
	}
	return r
}
