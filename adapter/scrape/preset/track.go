package preset

import (
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/window"
)

// Track turns the values that are read of one pod into readings of counters, as window.Series takes
// them: gauges become integrals over time, by the trapezoid between two reads. The zero value is
// one that has read nothing. It is not safe for concurrent use.
type Track struct {
	// started is when the process said that it began.
	started float64
	signals map[string]*signalTrack
}

// signalTrack is the course of one signal. A run is a stretch of reads that follow one another; a
// run is a life of the window.Series.
type signalTrack struct {
	life   float64   // the run's, in Unix seconds
	offset float64   // of the run's clock at base, in seconds
	base   time.Time // the first reading of the run
	last   time.Time
	value  float64 // of the last reading
	sum    float64 // of a gauge, × seconds
}

// Point is one signal's reading.
type Point struct {
	Value
	Reading window.Reading
	// Instant is the value at the reading's instant: the gauge, or the mean since the reading
	// before. HasInstant is false for a first reading of a counter, and for ratios.
	Instant    float64
	HasInstant bool
}

// startTolerance is by how much a process may tell its start differently, in seconds.
const startTolerance = 1.0

// Add takes what was read at an instant. Between two reads that are further apart than gap nothing
// is known of a gauge. Before the instant born, the zero time when it is unknown, the pod certainly
// contributed nothing.
func (t *Track) Add(at time.Time, r Reading, born time.Time, gap time.Duration) []Point {
	if t.signals == nil {
		t.signals = map[string]*signalTrack{}
	}
	restarted := t.started != 0 && r.Started != 0 && (r.Started > t.started+startTolerance || r.Started < t.started-startTolerance)
	if r.Started != 0 {
		t.started = r.Started
	}
	points := make([]Point, 0, len(r.Values))
	for _, v := range r.Values {
		if v.Missing != "" {
			points = append(points, Point{Value: v})
			continue
		}
		s := t.signals[v.Signal]
		first := s == nil
		if first {
			s = &signalTrack{}
			t.signals[v.Signal] = s
			s.begin(at, born)
		}
		points = append(points, s.add(at, v, first, restarted, gap))
	}
	return points
}

// Restart says that the pod's container began anew: counters may have begun at zero.
func (t *Track) Restart() {
	for _, s := range t.signals {
		s.last = time.Time{}
	}
	t.started = 0
}

// begin starts a run. The first one reaches back to born.
func (s *signalTrack) begin(at, born time.Time) {
	s.base, s.offset = at, 0
	start := at
	if !born.IsZero() && born.Before(at) {
		start, s.offset = born, at.Sub(born).Seconds()
	}
	s.life = max(float64(start.UnixNano())/1e9, s.life+1)
}

// add takes a value that is no first one, or the first of a run that has begun.
func (s *signalTrack) add(at time.Time, v Value, first, restarted bool, gap time.Duration) Point {
	p := Point{Value: v}
	between := at.Sub(s.last).Seconds()
	broken := s.last.IsZero() || restarted || v.Kind == Gauge && at.Sub(s.last) > gap
	switch {
	case first:
	case broken:
		s.begin(at, time.Time{})
	case between <= 0:
	case v.Kind == Gauge:
		s.sum += (s.value + v.Value) / 2 * between
	case !v.Ratio && v.Value >= s.value:
		p.Instant, p.HasInstant = (v.Value-s.value)/between, true
	}
	p.Reading = window.Reading{Life: s.life, Mono: s.offset + at.Sub(s.base).Seconds(), At: at, Unborn: true}
	if v.Kind == Gauge {
		p.Instant, p.HasInstant = v.Value, true
		p.Reading.Sums[0] = s.sum
	} else {
		p.Reading.Sums = [window.Values]float64{v.Value, v.Per}
	}
	s.last, s.value = at, v.Value
	return p
}
