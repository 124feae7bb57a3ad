// Package algorithms defines what a scaling policy is given and what it answers. Everything below
// it is pure: no clock, no I/O, no goroutines, no locks, no Kubernetes types. The cluster's scaler
// and the bench run the same code.
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

// Instant is the window of a Signal that is a reading at Observation.Now rather than a mean over
// time.
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
	// Source names where it came from, for people ("sidecar", "gateway", "sidecar+gateway",
	// "prometheus").
	Source string `json:"source,omitempty"`
	// Missing says in a few words why it is not known, for people; it may be empty.
	Missing string `json:"missing,omitempty"`
}

// Usable reports whether the value can be counted with: it is known, finite and possible. Fewer
// requests than none are not possible.
func (s *Signal) Usable() bool {
	return s.Known && Finite(s.Value) && (s.Value >= 0 || s.Name != Concurrency && s.Name != Rate && s.Name != Waiting)
}

// Replicas counts the workload's pods by state.
type Replicas struct {
	// Current is spec.replicas of the scale target: what was last asked for.
	Current int `json:"current"`
	// Ready pods take requests; Starting ones exist and do not yet; Terminating ones are going.
	Ready       int `json:"ready"`
	Starting    int `json:"starting"`
	Terminating int `json:"terminating"`
	// StartingAges holds how long each starting pod has existed, where that is known; in no order,
	// not longer than Starting.
	StartingAges []time.Duration `json:"startingAges,omitempty"`
}

// Existing counts the pods that are there to stay, ready or not: what a workload reports as
// status.replicas.
func (r Replicas) Existing() int { return r.Ready + r.Starting }

// PodState is where a pod is in its life.
type PodState string

// The states of a pod.
const (
	// PodReady runs and takes requests.
	PodReady PodState = "ready"
	// PodStarting runs and is not ready: not yet, or no more.
	PodStarting PodState = "starting"
	// PodUnknown runs on a node that has not been heard of for a while.
	PodUnknown PodState = "unknown"
	// PodPending has not started to run.
	PodPending PodState = "pending"
	// PodTerminating was deleted and is going.
	PodTerminating PodState = "terminating"
	// PodFailed has ended with a fault and does not come back.
	PodFailed PodState = "failed"
	// PodSucceeded has ended without a fault and does not come back.
	PodSucceeded PodState = "succeeded"
	// PodGone is not there any more, and its readings are still served.
	PodGone PodState = "gone"
)

// Pod is one pod with what was read from it. It is given to policies that look at single pods.
type Pod struct {
	Name  string   `json:"name,omitempty"`
	State PodState `json:"state"`
	// StillReady says of a terminating pod that it takes requests yet.
	StillReady bool `json:"stillReady,omitempty"`
	// Values are the pod's own readings by signal name, in the signal's unit. A name that is not
	// there is a missing reading.
	Values map[string]float64 `json:"values,omitempty"`
	// Requests are what the pod reserves of a resource, by the signal's name and in its unit; for
	// targets of type Utilization.
	Requests map[string]float64 `json:"requests,omitempty"`
	// Overhead is what the pod's runtime needs besides Requests, in the same form.
	Overhead map[string]float64 `json:"overhead,omitempty"`
	// Started is when the pod began to run, Changed when it last became ready or unready; the zero
	// time means unknown.
	Started time.Time `json:"started,omitzero"`
	Changed time.Time `json:"changed,omitzero"`
	// ReadAt is when Values were read, the zero time meaning Observation.Now; ReadOver the time
	// over which they are means.
	ReadAt   time.Time     `json:"readAt,omitzero"`
	ReadOver time.Duration `json:"readOver,omitempty"`
}

// Limits are the bounds within which the decision is to stay.
type Limits struct {
	Min int `json:"min"`
	// Max is the most replicas allowed, at least 1.
	Max int `json:"max"`
	// PodConcurrency is how many requests one pod takes at a time, 0 when there is no limit or it
	// is unknown.
	PodConcurrency float64 `json:"podConcurrency,omitempty"`
}

// StartUp says how long this workload's pods took from creation to readiness.
type StartUp struct {
	// P50, P90 and P99 are quantiles over the recent starts; 0 when Samples is 0.
	P50 time.Duration `json:"p50"`
	P90 time.Duration `json:"p90"`
	P99 time.Duration `json:"p99"`
	// Samples is the number of starts behind them.
	Samples int `json:"samples"`
}

// Cost holds prices, all in one unit of the user's choice and ≥ 0; 0 means unknown or free.
type Cost struct {
	// PodSecond is the price of one pod for one second.
	PodSecond float64 `json:"podSecond"`
	// ColdStart is the price of one request that found no pod.
	ColdStart float64 `json:"coldStart"`
	// WaitSecond is the price of one request waiting for one second.
	WaitSecond float64 `json:"waitSecond"`
}

// Observation is all that a policy may know when it decides. It is read only.
type Observation struct {
	Now     time.Time `json:"now"`
	Signals []Signal  `json:"signals"`
	// Pods lists single pods for policies that read them; nil means that only their counts are
	// known.
	Pods     []Pod    `json:"pods,omitempty"`
	Replicas Replicas `json:"replicas"`
	Limits   Limits   `json:"limits"`
	StartUp  StartUp  `json:"startUp,omitzero"`
	Cost     Cost     `json:"cost,omitzero"`
	// ActiveSince is since when the workload is wanted: when it last left zero replicas, or when
	// the first request waited for that, if that is earlier. The zero time means unknown or long
	// ago. While the workload was at zero there was no demand before it, so a policy may take means
	// from then on.
	ActiveSince time.Time `json:"activeSince,omitzero"`
	// Done is closed when the decision has taken too long; nil never is. A policy that may take
	// long gives up then, with a decision that is not valid.
	Done <-chan struct{} `json:"-"`
	// Quiet asks for the bare decision, without Message and Terms. It changes nothing else, and
	// saves their cost.
	Quiet bool `json:"-"`
	// Scratch is a buffer of the caller's, which Decision.Terms may use from its beginning; nil
	// lets the policy allocate.
	Scratch []Term `json:"-"`
}

// Signal returns the signal of that name and window; ok is false when there is none or its value is
// unknown.
func (o *Observation) Signal(name string, window time.Duration) (s Signal, ok bool) {
	for i := range o.Signals {
		if o.Signals[i].Name == name && o.Signals[i].Window == window {
			return o.Signals[i], o.Signals[i].Usable()
		}
	}
	return Signal{Name: name, Window: window}, false
}

// Shortest returns the known signal of that name over the shortest window, an Instant before all.
func (o *Observation) Shortest(name string) (s Signal, ok bool) {
	best := -1
	for i := range o.Signals {
		if c := &o.Signals[i]; c.Name == name && c.Usable() && (best < 0 || c.Window < o.Signals[best].Window) {
			best = i
		}
	}
	if best < 0 {
		return Signal{Name: name}, false
	}
	return o.Signals[best], true
}

// Index returns the place in Signals of the signal of that name and window, -1 when there is none
// or its value is not usable. It spares hot paths the copy that Signal makes.
func (o *Observation) Index(name string, window time.Duration) int {
	for i := range o.Signals {
		if s := &o.Signals[i]; s.Window == window && s.Name == name {
			if s.Usable() {
				return i
			}
			return -1
		}
	}
	return -1
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
	// Reason is a short CamelCase word for metrics and events; Message one sentence for people,
	// empty when Observation.Quiet.
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// Terms are the numbers that lead to Replicas, in the order in which they were computed; none
	// when Observation.Quiet.
	Terms []Term `json:"terms,omitempty"`
	// Clamps are the rules around the policy that changed the count, in their order; none when
	// Observation.Quiet.
	Clamps []Clamp `json:"clamps,omitempty"`
	// Next is when to ask again, after Observation.Now; 0 leaves it to the caller.
	Next time.Duration `json:"next,omitempty"`
}

// Clamp is one rule that changed a count.
type Clamp struct {
	// Rule is its name, a CamelCase word, such as MaxReplicas.
	Rule string `json:"rule"`
	// From is the count before the rule, To the one after it. From is -1 where the policy had no
	// answer.
	From int `json:"from"`
	To   int `json:"to"`
}

// Need is a signal that a policy reads.
type Need struct {
	Name   string        `json:"name"`
	Window time.Duration `json:"window"`
	// PerPod says that the policy reads the values of single pods (Observation.Pods) rather than
	// the total.
	PerPod bool `json:"perPod,omitempty"`
}

// Policy turns observations into decisions. The same state and observation give the same decision.
// A Policy may keep memory and is not safe for concurrent use.
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
