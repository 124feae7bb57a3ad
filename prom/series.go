package prom

import (
	"iter"
	"math"
	"slices"
	"time"

	"github.com/prometheus/common/model"
)

// Series is a value over time in steps of equal length. It is not changed after it was made.
type Series struct {
	// Start is where the first step begins; Step is > 0.
	Start time.Time
	Step  time.Duration
	// Values are means over their steps, finite and ≥ 0, or NaN where nothing is known.
	Values []float64
	// Odd counts values that were negative or infinite, which are unknown too.
	Odd int
}

// fill puts the values of an answer into their steps.
func (s *Series) fill(samples []model.SamplePair) {
	for _, sample := range samples {
		i := int(sample.Timestamp.Time().Sub(s.Start)/s.Step) - 1
		v := float64(sample.Value)
		switch {
		case i < 0 || i >= len(s.Values) || math.IsNaN(v):
		case v < 0 || math.IsInf(v, 0):
			s.Odd++
		default:
			s.Values[i] = v
		}
	}
}

// Known yields the known values, each with the end of its step.
func (s Series) Known() iter.Seq2[time.Time, float64] {
	return func(yield func(time.Time, float64) bool) {
		for i, v := range s.Values {
			if !math.IsNaN(v) && !yield(s.Start.Add(time.Duration(i+1)*s.Step), v) {
				return
			}
		}
	}
}

// Widen extends each gap by a margin on both sides: next to a gap the window of a rate is covered
// in part only, and the rate is too low.
func (s Series) Widen(margin time.Duration) Series {
	by := int((margin + s.Step - 1) / s.Step)
	if by <= 0 {
		return s
	}
	out := s
	out.Values = slices.Clone(s.Values)
	for i, v := range s.Values {
		if !math.IsNaN(v) {
			continue
		}
		if i > 0 && !math.IsNaN(s.Values[i-1]) {
			for k := max(0, i-by); k < i; k++ {
				out.Values[k] = math.NaN()
			}
		}
		if i+1 < len(s.Values) && !math.IsNaN(s.Values[i+1]) {
			for k := i + 1; k <= min(i+by, len(s.Values)-1); k++ {
				out.Values[k] = math.NaN()
			}
		}
	}
	return out
}
