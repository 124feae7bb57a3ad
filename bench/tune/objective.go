package tune

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/bench/score"
)

// Metric is a number of a result of which less is better.
type Metric struct {
	Name string
	// Of reads it.
	Of func(r *score.Result) float64
}

// Metrics are all that can be an objective or have a limit, by their names in summary.json;
// lostShare is lost/requests.
func Metrics() []Metric {
	return []Metric{
		{"podSeconds", func(r *score.Result) float64 { return r.PodSeconds }},
		{"cost", func(r *score.Result) float64 { return r.Cost }},
		{"sloViolations", func(r *score.Result) float64 { return r.SLOViolations }},
		{"lost", func(r *score.Result) float64 { return float64(r.Lost) }},
		{"lostShare", func(r *score.Result) float64 { return float64(r.Lost) / math.Max(1, float64(r.Requests)) }},
		{"coldStarts", func(r *score.Result) float64 { return float64(r.ColdStarts) }},
		{"coldStartShare", func(r *score.Result) float64 { return r.ColdStartShare }},
		{"waitMean", func(r *score.Result) float64 { return r.WaitMean }},
		{"waitP50", func(r *score.Result) float64 { return r.WaitP50 }},
		{"waitP90", func(r *score.Result) float64 { return r.WaitP90 }},
		{"waitP99", func(r *score.Result) float64 { return r.WaitP99 }},
		{"waitP999", func(r *score.Result) float64 { return r.WaitP999 }},
		{"waitMax", func(r *score.Result) float64 { return r.WaitMax }},
		{"slowdownP99", func(r *score.Result) float64 { return r.SlowdownP99 }},
		{"idleSeconds", func(r *score.Result) float64 { return r.IdleSeconds }},
		{"thetaU", func(r *score.Result) float64 { return r.ThetaU }},
		{"thetaO", func(r *score.Result) float64 { return r.ThetaO }},
		{"tauU", func(r *score.Result) float64 { return r.TauU }},
		{"tauO", func(r *score.Result) float64 { return r.TauO }},
		{"changes", func(r *score.Result) float64 { return float64(r.Changes) }},
		{"reversals", func(r *score.Result) float64 { return float64(r.Reversals) }},
		{"peakReplicas", func(r *score.Result) float64 { return float64(r.PeakReplicas) }},
	}
}

// FindMetric is the metric of that name.
func FindMetric(name string) (Metric, error) {
	all := Metrics()
	for _, m := range all {
		if m.Name == name {
			return m, nil
		}
	}
	names := make([]string, 0, len(all))
	for _, m := range all {
		names = append(names, m.Name)
	}
	return Metric{}, fmt.Errorf("metric %q: unknown; known are %s", name, strings.Join(names, ", "))
}

// Limit is what a metric may be at most.
type Limit struct {
	Metric Metric
	Most   float64
}

// ParseLimit reads METRIC=NUMBER.
func ParseLimit(spec string) (Limit, error) {
	name, text, ok := strings.Cut(spec, "=")
	if !ok {
		return Limit{}, fmt.Errorf("limit %q: want METRIC=NUMBER, such as sloViolations=0.01", spec)
	}
	m, err := FindMetric(strings.TrimSpace(name))
	if err != nil {
		return Limit{}, fmt.Errorf("limit %q: %w", spec, err)
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || !algorithms.Finite(v) || v < 0 {
		return Limit{}, fmt.Errorf("limit %q: %s = %s: want a finite number ≥ 0", spec, m.Name, text)
	}
	return Limit{m, v}, nil
}

// String is the specification.
func (l Limit) String() string { return fmt.Sprintf("%s=%v", l.Metric.Name, l.Most) }

// Groups splits results by load and scenario, in their order.
func Groups(results []score.Result) [][]score.Result {
	var names []string
	var out [][]score.Result
	for _, r := range results {
		name := r.Scenario + "\n" + r.Trace
		i := slices.Index(names, name)
		if i < 0 {
			i = len(names)
			names, out = append(names, name), append(out, nil)
		}
		out[i] = append(out[i], r)
	}
	return out
}

func mean(results []score.Result, m Metric) float64 {
	sum := 0.0
	for i := range results {
		sum += m.Of(&results[i])
	}
	return sum / float64(len(results))
}

// Value is a metric over results: the mean over seeds, and over several loads and scenarios the
// geometric mean of those, in which each counts the same however large it is.
func (m Metric) Value(results []score.Result) float64 {
	all := Groups(results)
	switch len(all) {
	case 0:
		return math.NaN()
	case 1:
		return mean(all[0], m)
	}
	sum := 0.0
	for _, g := range all {
		sum += math.Log(math.Max(mean(g, m), 1e-9))
	}
	return math.Exp(sum / float64(len(all)))
}

// Worst is a metric of the load and scenario where it is largest, averaged over seeds: what a limit
// is about.
func (m Metric) Worst(results []score.Result) float64 {
	worst := math.Inf(-1)
	for _, g := range Groups(results) {
		worst = math.Max(worst, mean(g, m))
	}
	return worst
}

// excess is by how much a limit, loosened by a factor ≥ 1, is broken: 0 when it is kept, else as a
// share of it.
func (l Limit) excess(worst, loose float64) float64 {
	most := l.Most * loose
	switch {
	case math.IsNaN(worst):
		return math.Inf(1)
	case worst <= most:
		return 0
	case most == 0:
		return worst
	}
	return worst/most - 1
}
