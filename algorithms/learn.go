package algorithms

import (
	"fmt"
	"time"
)

// Sample is one value of a signal's past: its mean over the time since the sample of that signal before.
type Sample struct {
	At     time.Time `json:"at"`
	Signal string    `json:"signal"`
	// Value is the workload's total, in the signal's unit, finite and ≥ 0. What is unknown is left out, never written as 0.
	Value float64 `json:"value"`
}

// Learner is a Policy that can take in the past before it decides, for example what Prometheus still has of a workload.
type Learner interface {
	// Learns names the signals that Learn reads. None means that this policy, by its parameters, has nothing to learn.
	Learns() []string
	// Learn reads samples in the order of their instants, all before the first observation, and ignores signals that it does not
	// use. An error (out of order, not finite, negative, later than what was seen) leaves the policy as it was.
	Learn(history []Sample) error
}

// CheckHistory says what is wrong with a history, nil when it is in order, finite and not negative, and begins no earlier than after.
func CheckHistory(history []Sample, after time.Time) error {
	last := after
	for i, s := range history {
		switch {
		case s.At.Before(last):
			return fmt.Errorf("sample %d at %s: want no earlier than %s", i, s.At.Format(time.RFC3339), last.Format(time.RFC3339))
		case !Finite(s.Value) || s.Value < 0:
			return fmt.Errorf("sample %d of %s = %v: want a finite number ≥ 0", i, s.Signal, s.Value)
		}
		last = s.At
	}
	return nil
}
