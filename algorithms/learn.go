package algorithms

import (
	"fmt"
	"time"
)

// Sample is one value of a signal's past: its mean since the signal's previous sample.
type Sample struct {
	At     time.Time `json:"at"`
	Signal string    `json:"signal"`
	// Value is the workload's total, in the signal's unit, finite and ≥ 0. Unknown values are left
	// out, never written as 0.
	Value float64 `json:"value"`
}

// Learner is a Policy that can read the past before it decides, such as what Prometheus has of a
// workload.
type Learner interface {
	// Learns names the signals that Learn reads. None means that the policy, by its parameters, has
	// nothing to learn.
	Learns() []string
	// Learn reads samples in the order of their instants, all before the first observation, and
	// ignores other signals. An error (out of order, not finite, negative, later than the
	// observations) leaves the policy as it was.
	Learn(history []Sample) error
}

// CheckHistory reports what is wrong with a history: nil when it is in order, finite, not negative,
// and begins no earlier than after.
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
