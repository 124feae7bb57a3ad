package history

import (
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/record"
	"github.com/sluice-autoscaler/sluice/prom"
)

// longestSilence is how long an observation may speak for at most, unless its window or the step is
// longer.
const longestSilence = time.Minute

// ReadRecords reads recorded observations (algorithms/record) as concurrency and replicas over
// time. Each speaks for the time since the one before it, up to a minute, the step or its window,
// whichever is longest; the rest is a gap, and so is the time of one whose concurrency is unknown.
// A step of which less than half is known is unknown.
func ReadRecords(r io.Reader, step time.Duration) (concurrency, replicas Series, err error) {
	if step < time.Second || step > 24*time.Hour {
		return concurrency, replicas, fmt.Errorf("step = %v: want 1s–24h", step)
	}
	dec := record.NewDecoder(r)
	var demand, pods binner
	var last time.Time
	for {
		o, err := dec.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return concurrency, replicas, err
		}
		if last.IsZero() {
			last = o.Now
			demand, pods = binner{start: o.Now.Truncate(step), step: step}, binner{start: o.Now.Truncate(step), step: step}
			continue
		}
		s, known := o.Shortest(algorithms.Concurrency)
		from := o.Now.Add(-max(longestSilence, step, s.Window))
		if from.Before(last) {
			from = last
		}
		if known {
			err = demand.add(from, o.Now, s.Value)
		}
		if err = errors.Join(err, pods.add(from, o.Now, float64(o.Replicas.Existing()))); err != nil {
			return concurrency, replicas, fmt.Errorf("line %d: %w", dec.Line(), err)
		}
		last = o.Now
	}
	return demand.series(), pods.series(), nil
}

// binner means values over steps.
type binner struct {
	start        time.Time
	step         time.Duration
	sums, covers []float64 // value × seconds, and seconds
}

func (b *binner) add(from, to time.Time, v float64) error {
	if v < 0 || !algorithms.Finite(v) {
		return nil
	}
	for from.Before(to) {
		i := int(from.Sub(b.start) / b.step)
		if i >= prom.MaxPoints {
			return fmt.Errorf("t is %v after the first line: want at most %d steps of %v", to.Sub(b.start), prom.MaxPoints, b.step)
		}
		for len(b.sums) <= i {
			b.sums, b.covers = append(b.sums, 0), append(b.covers, 0)
		}
		end := b.start.Add(time.Duration(i+1) * b.step)
		if end.After(to) {
			end = to
		}
		seconds := end.Sub(from).Seconds()
		b.sums[i] += v * seconds
		b.covers[i] += seconds
		from = end
	}
	return nil
}

func (b *binner) series() Series {
	s := Series{Start: b.start, Step: b.step, Values: make([]float64, len(b.sums))}
	for i := range s.Values {
		s.Values[i] = math.NaN()
		if b.covers[i] >= b.step.Seconds()/2 {
			s.Values[i] = b.sums[i] / b.covers[i]
		}
	}
	return s
}
