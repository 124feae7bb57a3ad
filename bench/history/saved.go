package history

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/intake"
	"github.com/sluice-autoscaler/sluice/bench/intake/formats"
	"github.com/sluice-autoscaler/sluice/bench/intake/item"
	"github.com/sluice-autoscaler/sluice/prom"
)

// FromSaved reads a saved answer of Prometheus' query_range, or of what else holds values over time
// (package intake). Each value is the mean of the step that ends at its time. Several series are
// added up; a time at which one of them has no value is unknown. A step of 0 is the distance of the
// times. Margin is the time next to a gap that is unknown as well.
func FromSaved(f intake.File, kind string, step, margin time.Duration) (*Past, error) {
	type value struct {
		sum float64
		n   int
	}
	values := map[int64]value{}
	series := map[string]int{}
	unit := item.UnitRate
	if kind == Concurrency {
		unit = item.UnitConcurrency
	}
	format, _, err := formats.Recognise(f)
	if err != nil {
		return nil, err
	}
	s, err := intake.Read([]intake.File{f}, intake.Options{Format: format.Name}, func(it *intake.Item) {
		v := values[it.At]
		values[it.At] = value{v.sum + it.Value, v.n + 1}
		series[it.Series]++
	})
	if err != nil {
		return nil, err
	}
	if !s.Binned {
		return nil, fmt.Errorf("%s holds requests one by one: want values over time", s.Format.Name)
	}
	if s.Meta.Unit == item.UnitCounter {
		return nil, errors.New("it holds a counter: want rate(…) or a mean, as --query would have")
	}
	times := make([]int64, 0, len(values))
	for at := range values {
		times = append(times, at)
	}
	slices.Sort(times)
	if step == 0 {
		if step = intake.Step(times); step == 0 {
			return nil, errors.New("it has one time only: give --step")
		}
	}
	span := times[len(times)-1] - times[0]
	if span/int64(step) >= 10_000_000 {
		return nil, fmt.Errorf("it has %d steps of %v: want at most 10000000", span/int64(step), step)
	}
	n := (span+int64(step)/2)/int64(step) + 1
	p := &Past{Kind: kind, warnings: []string{fmt.Sprintf("the file's values are taken for %s", unit)}}
	if s.Skipped > 0 {
		p.odd = int(s.Skipped)
	}
	p.Demand = Series{Start: time.Unix(0, times[0]).UTC().Add(-step), Step: step, Values: make([]float64, n)}
	many := make([]int, n)
	for _, at := range times {
		i := (at - times[0] + int64(step)/2) / int64(step)
		many[i]++
		if v := values[at]; v.n == len(series) {
			p.Demand.Values[i] += v.sum
		} else {
			p.Demand.Values[i] = math.NaN()
		}
	}
	for i, k := range many {
		p.Demand.Values[i] /= float64(k) // NaN where there is none
	}
	p.asked = p.Demand.End().Sub(p.Demand.Start)
	p.Demand = Series(prom.Series(p.Demand).Widen(margin))
	return p, nil
}
