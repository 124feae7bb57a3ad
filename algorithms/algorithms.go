// Package algorithms defines what a scaling policy is given and what it answers. Everything below it is pure: no clock,
// no I/O, no goroutines, no locks, no Kubernetes types. The cluster's scaler and the bench run the same code.
package algorithms

import (
	"encoding/json"
	"time"
)

// Names of the signals that every workload has. Others are named by their rules.
const (
	// Concurrency is demand in requests: in flight at pods plus held at gateways.
	Concurrency = "concurrency"
	// Rate is requests answered per second.
	Rate = "rate"
	// Waiting is requests held at gateways.
	Waiting = "waiting"
)

// Instant is the window of a Signal that is a reading at Observation.Now rather than a mean over time.
const Instant time.Duration = 0

// Signal is one measured value over one window that ends at Observation.Now.
type Signal struct {
	// Name is one of the constants above or a rule's own name.
	Name string `json:"name"`
	// Window is the time over which Value is the mean; Instant for a reading.
	Window time.Duration `json:"window"`
	// Value is the workload's total, in the signal's unit. It is meaningless unless Known.
	Value float64 `json:"value"`
	// Known is false when there is no value: unknown is not zero.
	Known bool `json:"known"`
	// Age is how old the newest reading behind Value is.
	Age time.Duration `json:"age"`
	// Coverage is the share of the expected sources × window time that reported, 0–1.
	Coverage float64 `json:"coverage"`
	// Source names where it came from, for people ("sidecar", "gateway", "sidecar+gateway", "prometheus").
	Source string `json:"source,omitempty"`
}

// Replicas counts the workload's pods by state.
type Replicas struct {
	// Current is spec.replicas of the scale target: what was last asked for.
	Current int `json:"current"`
	// Ready pods take requests; Starting ones exist and do not yet; Terminating ones are going.
	Ready       int `json:"ready"`
	Starting    int `json:"starting"`
	Terminating int `json:"terminating"`
}

// Limits are the bounds within which the decision is to stay.
type Limits struct {
	Min int `json:"min"`
	// Max is the most replicas allowed, at least 1.
	Max int `json:"max"`
}

// Observation is all that a policy may know when it decides. It is read only.
type Observation struct {
	Now      time.Time `json:"now"`
	Signals  []Signal  `json:"signals"`
	Replicas Replicas  `json:"replicas"`
	Limits   Limits    `json:"limits"`
	// ActiveSince is when the workload last left zero replicas; the zero time means unknown or long ago. There was no demand
	// in the time before it, so a policy may take means from then on.
	ActiveSince time.Time `json:"activeSince"`
}

// Signal returns the signal of that name and window; ok is false when there is none or its value is unknown.
func (o *Observation) Signal(name string, window time.Duration) (s Signal, ok bool) {
	for i := range o.Signals {
		if o.Signals[i].Name == name && o.Signals[i].Window == window {
			return o.Signals[i], o.Signals[i].Known
		}
	}
	return Signal{Name: name, Window: window}, false
}

// Term is one named number of the arithmetic behind a decision.
type Term struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
}

// Decision is a policy's answer.
type Decision struct {
	// Replicas is how many pods there should be. It is meaningless unless Valid.
	Replicas int `json:"replicas"`
	// Valid is false when the policy cannot tell; the caller then changes nothing.
	Valid bool `json:"valid"`
	// Reason is a short CamelCase word for metrics and events; Message one sentence for people.
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// Terms are the numbers that lead to Replicas, in the order in which they were computed.
	Terms []Term `json:"terms,omitempty"`
	// Next is when to ask again, after Observation.Now; 0 leaves it to the caller.
	Next time.Duration `json:"next,omitempty"`
}

// Need is a signal that a policy reads.
type Need struct {
	Name   string        `json:"name"`
	Window time.Duration `json:"window"`
}

// Policy turns observations into decisions. The same state and observation give the same decision. A Policy may keep
// memory and is not safe for concurrent use.
type Policy interface {
	// Decide answers one observation. Observation.Now never goes backwards.
	Decide(o Observation) Decision
	// Needs lists the signals and windows that Decide reads.
	Needs() []Need
	// Snapshot returns the policy's memory as versioned JSON, null when it has none.
	Snapshot() json.RawMessage
	// Restore puts back what Snapshot gave; an error leaves the policy as it was.
	Restore(json.RawMessage) error
}
