// Package history reads the past demand of a workload, from a Prometheus or from recorded
// observations. A gap stays a gap until a declared rule fills it.
package history

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/bench/trace"
	"github.com/sluice-autoscaler/sluice/prom"
)

// Series is a value over time in steps of equal length, as prom.Series, with rules that fill its
// gaps.
type Series prom.Series

// End is where the last step ends.
func (s Series) End() time.Time { return s.Start.Add(time.Duration(len(s.Values)) * s.Step) }

// Trim cuts unknown steps off both ends. ok is false when nothing is known at all.
func (s Series) Trim() (trimmed Series, ok bool) {
	first, end := 0, len(s.Values)
	for first < end && math.IsNaN(s.Values[first]) {
		first++
	}
	for end > first && math.IsNaN(s.Values[end-1]) {
		end--
	}
	t := s
	t.Start, t.Values = s.Start.Add(time.Duration(first)*s.Step), s.Values[first:end]
	return t, end > first
}

// Gaps are the stretches of a series that are unknown.
type Gaps struct {
	Count          int
	Total, Longest time.Duration
	// Share is Total as a share of the series.
	Share float64
}

// Gaps finds them.
func (s Series) Gaps() Gaps {
	var g Gaps
	run := 0
	for _, v := range s.Values {
		if !math.IsNaN(v) {
			run = 0
			continue
		}
		if run++; run == 1 {
			g.Count++
		}
		g.Total += s.Step
		g.Longest = max(g.Longest, time.Duration(run)*s.Step)
	}
	if n := len(s.Values); n > 0 {
		g.Share = float64(g.Total) / float64(time.Duration(n)*s.Step)
	}
	return g
}

// Fill is how gaps are filled.
type Fill string

const (
	// FillInterpolate draws a straight line between the neighbours.
	FillInterpolate Fill = "interpolate"
	// FillHold keeps the value before the gap.
	FillHold Fill = "hold"
	// FillDay takes the same time of the nearest day on which it is known, up to a week away, the
	// day before first; where there is none it interpolates.
	FillDay Fill = "day"
)

// ParseFill reads the name of a rule.
func ParseFill(name string) (Fill, error) {
	switch f := Fill(name); f {
	case FillInterpolate, FillHold, FillDay:
		return f, nil
	}
	return "", fmt.Errorf("%q: want interpolate, hold or day", name)
}

// Fill returns the series without gaps. What lies before the first or after the last known value is
// held. All must not be unknown.
func (s Series) Fill(rule Fill) (Series, error) {
	out := s
	out.Values = slices.Clone(s.Values)
	if rule == FillDay && 24*time.Hour%s.Step == 0 {
		day := int(24 * time.Hour / s.Step)
		for i, v := range s.Values {
			for d := 1; d <= 7 && math.IsNaN(v); d++ {
				for _, k := range []int{i - d*day, i + d*day} {
					if k >= 0 && k < len(s.Values) && math.IsNaN(v) {
						v = s.Values[k]
					}
				}
			}
			out.Values[i] = v
		}
	}
	last := -1 // the last known place
	for i, v := range out.Values {
		if math.IsNaN(v) {
			continue
		}
		for k := last + 1; k < i; k++ {
			switch {
			case last < 0:
				out.Values[k] = v
			case rule == FillHold:
				out.Values[k] = out.Values[last]
			default:
				out.Values[k] = out.Values[last] + (v-out.Values[last])*float64(k-last)/float64(i-last)
			}
		}
		last = i
	}
	if last < 0 {
		return Series{}, errors.New("nothing is known: there is no value to fill gaps from")
	}
	for k := last + 1; k < len(out.Values); k++ {
		out.Values[k] = out.Values[last]
	}
	return out, nil
}

// Mean is the mean of what is known, NaN if nothing is; Peak the largest.
func (s Series) Mean() float64 {
	sum, n := 0.0, 0
	for _, v := range s.Values {
		if !math.IsNaN(v) {
			sum, n = sum+v, n+1
		}
	}
	return sum / float64(n)
}

// Peak is the largest value, 0 if nothing is known.
func (s Series) Peak() float64 {
	peak := 0.0
	for _, v := range s.Values {
		if v > peak {
			peak = v
		}
	}
	return peak
}

// Cut is the part within from–to, in whole steps.
func (s Series) Cut(from, to time.Time) Series {
	n := len(s.Values)
	first := min(n, max(0, int((from.Sub(s.Start)+s.Step-1)/s.Step)))
	end := max(first, min(n, int(to.Sub(s.Start)/s.Step)))
	out := s
	out.Start, out.Values = s.Start.Add(time.Duration(first)*s.Step), s.Values[first:end]
	return out
}

// Times multiplies all values.
func (s Series) Times(factor float64) Series {
	out := s
	out.Values = make([]float64, len(s.Values))
	for i, v := range s.Values {
		out.Values[i] = v * factor
	}
	return out
}

// Samples are the known values as what a policy learns from: each at the end of its step.
func (s Series) Samples(signal string) []algorithms.Sample {
	out := make([]algorithms.Sample, 0, len(s.Values))
	for at, v := range prom.Series(s).Known() {
		out = append(out, algorithms.Sample{At: at, Signal: signal, Value: v})
	}
	return out
}

// Trace is a series of requests per second as a trace. It must have no gaps.
func (s Series) Trace(name string) (*trace.Trace, error) {
	bins := make([]float64, len(s.Values))
	for i, v := range s.Values {
		bins[i] = v * s.Step.Seconds()
	}
	return trace.New(name, s.Step, bins)
}
