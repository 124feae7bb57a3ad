// Package reading holds what the adapter's parts say to one another about a workload's signals.
package reading

import (
	"time"

	"k8s.io/apimachinery/pkg/labels"
)

// Value is one signal of a workload or a pod over a window.
type Value struct {
	// Value is the total, in the signal's unit; meaningless unless Known.
	Value float64
	// Known is false when the value must not be acted on; Missing then says in a few words what is missing, for people.
	Known   bool
	Missing string
	// At is the instant of the newest reading behind it; Age how old the stalest source's newest reading is.
	At  time.Time
	Age time.Duration
	// Coverage is the share of expected sources × window time that reported, 0–1.
	Coverage float64
	// Window is the time over which Value is the mean.
	Window time.Duration
	// Source names where it came from.
	Source string
	// Sources is how many sources (pods, gateways) it was expected from.
	Sources int
}

// PodValue is a Value of one pod.
type PodValue struct {
	Name   string
	Labels labels.Set
	Value
}

// Reader answers with signals from memory. Implementations are safe for concurrent use and do no I/O.
type Reader interface {
	// Workload sums a signal (algorithms.Concurrency, Rate or Waiting) over the selected pods and what gateways hold for the Services.
	Workload(now time.Time, namespace string, pods labels.Selector, services []string, signal string, window time.Duration) Value
	// Pods gives a signal pod by pod, for every selected pod that takes requests. Known is false where it has no value.
	Pods(now time.Time, namespace string, pods labels.Selector, signal string, window time.Duration) []PodValue
	// Ready says why nothing can be answered yet, nil once everything has been read once.
	Ready() error
}
