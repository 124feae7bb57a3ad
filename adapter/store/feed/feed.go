// Package feed keeps what a preset reads of one pod: a window.Series for each signal.
package feed

import (
	"slices"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/window"
)

// Sample is what one reading by a preset says of one signal.
type Sample struct {
	// Signal is its name, Source where it comes from and how good it is, for people.
	Signal, Source string
	// Missing says what the answer lacks, "" for nothing; what follows has no meaning otherwise.
	Missing string
	// Reading holds as the first sum the signal's integral or count. With Ratio the signal is the
	// increase of the first sum divided by that of the second.
	Reading window.Reading
	Ratio   bool
	// Instant is the value of that instant, where HasInstant says that there is one.
	Instant    float64
	HasInstant bool
}

// Feed is one signal of a pod.
type Feed struct {
	// Signal, Source and Ratio are those of the newest sample.
	Signal, Source string
	Ratio          bool
	Series         window.Series
	Instant        float64
	HasInstant     bool
	// Read is the receipt of its newest value; Missing says what the newest answer lacked of it.
	Read    time.Time
	Missing string
}

// Feeds are a pod's signals. The zero value has none. They are not safe for concurrent use.
type Feeds struct {
	all []*Feed // by name
	// Read is the receipt of the newest answer; Since is when the pod last began to be expected.
	Read, Since time.Time
	// Cause is the last failure's, "" after an answer.
	Cause string
}

func (f *Feeds) find(signal string) (int, bool) {
	return slices.BinarySearchFunc(f.all, signal, func(f *Feed, s string) int { return strings.Compare(f.Signal, s) })
}

// Find returns a signal, nil when there is none. It allocates nothing.
func (f *Feeds) Find(signal string) *Feed {
	if i, ok := f.find(signal); ok {
		return f.all[i]
	}
	return nil
}

// Add takes what was read at an instant. It tells whether all was used.
func (f *Feeds) Add(at time.Time, samples []Sample) bool {
	f.Read, f.Cause = at, ""
	used := true
	for i := range samples {
		used = f.add(&samples[i]) && used
	}
	return used
}

func (f *Feeds) add(s *Sample) bool {
	i, ok := f.find(s.Signal)
	if !ok {
		f.all = slices.Insert(f.all, i, &Feed{Signal: s.Signal})
	}
	one := f.all[i]
	one.Source, one.Ratio, one.Missing = s.Source, s.Ratio, s.Missing
	if s.Missing != "" {
		return true
	}
	if !one.Series.Add(s.Reading) {
		return false
	}
	one.Instant, one.HasInstant, one.Read = s.Instant, s.HasInstant, s.Reading.At
	return true
}
