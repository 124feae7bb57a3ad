package summary

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/sluice-autoscaler/sluice/bench/score"
)

// Metric is a figure of a result that is compared. Of all of them less is better.
type Metric struct {
	// Name is the figure's name in JSON.
	Name string
	// Title is short, for the head of a column; Unit is "s", "share", "ratio" or empty for a count.
	Title, Unit string
	// Value takes it from a result.
	Value func(score.Result) float64
}

// Metrics are the figures that are compared, the most telling first.
func Metrics() []Metric {
	return []Metric{
		{"podSeconds", "pod-seconds", "s", func(r score.Result) float64 { return r.PodSeconds }},
		{"sloViolations", "SLO violations", "share", func(r score.Result) float64 { return r.SLOViolations }},
		{"coldStarts", "cold starts", "", func(r score.Result) float64 { return float64(r.ColdStarts) }},
		{"lost", "lost", "", func(r score.Result) float64 { return float64(r.Lost) }},
		{"waitMean", "mean wait", "s", func(r score.Result) float64 { return r.WaitMean }},
		{"waitP50", "p50 wait", "s", func(r score.Result) float64 { return r.WaitP50 }},
		{"waitP99", "p99 wait", "s", func(r score.Result) float64 { return r.WaitP99 }},
		{"waitMax", "longest wait", "s", func(r score.Result) float64 { return r.WaitMax }},
		{"slowdownP99", "p99 slowdown", "ratio", func(r score.Result) float64 { return r.SlowdownP99 }},
		{"reversals", "reversals", "", func(r score.Result) float64 { return float64(r.Reversals) }},
		{"changes", "changes", "", func(r score.Result) float64 { return float64(r.Changes) }},
		{"starts", "pod starts", "", func(r score.Result) float64 { return float64(r.Starts) }},
		{"peakReplicas", "peak pods", "", func(r score.Result) float64 { return float64(r.PeakReplicas) }},
		{"idleSeconds", "idle pod-seconds", "s", func(r score.Result) float64 { return r.IdleSeconds }},
		{"cost", "cost", "", func(r score.Result) float64 { return r.Cost }},
		{"thetaU", "θU under", "ratio", func(r score.Result) float64 { return r.ThetaU }},
		{"thetaO", "θO over", "ratio", func(r score.Result) float64 { return r.ThetaO }},
		{"tauU", "τU under", "share", func(r score.Result) float64 { return r.TauU }},
		{"tauO", "τO over", "share", func(r score.Result) float64 { return r.TauO }},
		{"upsilon", "υ instability", "share", func(r score.Result) float64 { return r.Upsilon }},
	}
}

// RatioMetrics are compared by their ratio to the baseline's.
func RatioMetrics() []string { return []string{"podSeconds", "cost", "coldStarts"} }

// deltaMetrics are compared by their difference from the baseline's.
func deltaMetrics() []string { return []string{"sloViolations", "waitP99"} }

// MetricNamed is a field of a result as a metric with its title and unit, also one that Metrics
// does not list.
func MetricNamed(name string) Metric {
	for _, m := range Metrics() {
		if m.Name == name {
			return m
		}
	}
	m := Metric{Name: name, Title: name}
	if of, ok := strings.CutSuffix(name, "Share"); ok {
		m.Title, m.Unit = strings.ReplaceAll(of, "coldStart", "cold start")+" share", "share"
	} else if of, ok := strings.CutPrefix(name, "waitP"); ok {
		m.Title, m.Unit = "p"+of+" wait", "s"
	}
	return m
}

// Row is one policy on one trace in one scenario, over all its seeds. The maps' keys are names of
// Metrics.
type Row struct {
	Trace    string `json:"trace"`
	Scenario string `json:"scenario"`
	Policy   string `json:"policy"`
	// Seeds counts the runs, Requests sums theirs.
	Seeds    int   `json:"seeds"`
	Requests int64 `json:"requests"`
	// Mean has all metrics.
	Mean map[string]score.Interval `json:"mean"`
	// Ratio is of podSeconds, cost and coldStarts to the baseline's, over the seeds that both ran:
	// the geometric mean, or where any of the values is 0 the ratio of the means (score.Ratio). If
	// the baseline has none at all, it is missing.
	Ratio map[string]score.Interval `json:"ratio,omitempty"`
	// Delta is of sloViolations and waitP99: the mean difference from the baseline's over the seeds
	// that both ran.
	Delta map[string]score.Interval `json:"delta,omitempty"`
}

// key names what a row's runs share, without the policy.
type key struct{ scenario, trace string }

// Compare makes a row for each trace, scenario and policy, in the order of their first appearance
// in the results. Figures that are not finite are left out.
func Compare(results []score.Result, baseline string) []Row {
	type cell struct {
		key
		policy string
	}
	groups := map[cell][]score.Result{}
	var order []cell
	for _, r := range results {
		c := cell{key{r.Scenario, r.Trace}, r.Policy}
		if _, ok := groups[c]; !ok {
			order = append(order, c)
		}
		groups[c] = append(groups[c], r)
	}
	// Scenario by scenario and trace by trace, whatever order the runs had.
	rank := func(names []string) map[string]int {
		m := map[string]int{}
		for i, n := range names {
			m[n] = i
		}
		return m
	}
	scenarios := rank(Distinct(results, func(r score.Result) string { return r.Scenario }))
	traces := rank(Distinct(results, func(r score.Result) string { return r.Trace }))
	names := rank(Policies(results))
	slices.SortStableFunc(order, func(a, b cell) int {
		return cmp.Or(scenarios[a.scenario]-scenarios[b.scenario], traces[a.trace]-traces[b.trace], names[a.policy]-names[b.policy])
	})
	rows := make([]Row, 0, len(order))
	for _, c := range order {
		runs := groups[c]
		row := Row{Trace: c.trace, Scenario: c.scenario, Policy: c.policy, Seeds: len(runs), Mean: map[string]score.Interval{}}
		for _, r := range runs {
			row.Requests += r.Requests
		}
		for _, m := range Metrics() {
			values := make([]float64, len(runs))
			for i, r := range runs {
				values[i] = m.Value(r)
			}
			put(row.Mean, m.Name)(score.Mean(values, score.Confidence95))
		}
		if base := groups[cell{c.key, baseline}]; baseline != "" && len(base) > 0 {
			row.Ratio, row.Delta = against(runs, base)
		}
		rows = append(rows, row)
	}
	return rows
}

// put enters an interval under a name, unless there is an error: what is not finite has no
// interval, and what has none is left out.
func put(m map[string]score.Interval, name string) func(score.Interval, error) {
	return func(i score.Interval, err error) {
		for _, v := range []float64{i.Mean, i.Low, i.High} {
			if err != nil || math.IsNaN(v) || math.IsInf(v, 0) { // the sums may overflow
				return
			}
		}
		m[name] = i
	}
}

// against compares runs with the baseline's runs of the same seeds.
func against(runs, base []score.Result) (ratio, delta map[string]score.Interval) {
	bySeed := map[uint64]score.Result{}
	for _, b := range base {
		bySeed[b.Seed] = b
	}
	ratio, delta = map[string]score.Interval{}, map[string]score.Interval{}
	for _, m := range Metrics() {
		isRatio, isDelta := slices.Contains(RatioMetrics(), m.Name), slices.Contains(deltaMetrics(), m.Name)
		if !isRatio && !isDelta {
			continue
		}
		var ours, theirs, quotients []float64
		positive := true
		for _, r := range runs {
			if b, ok := bySeed[r.Seed]; ok {
				x, y := m.Value(r), m.Value(b)
				ours, theirs, quotients = append(ours, x), append(theirs, y), append(quotients, x/y)
				positive = positive && x > 0 && y > 0
			}
		}
		switch {
		case len(ours) == 0:
		case isDelta:
			put(delta, m.Name)(score.Difference(ours, theirs, score.Confidence95))
		case positive:
			put(ratio, m.Name)(score.GeometricMean(quotients, score.Confidence95))
		default:
			in, err := score.Ratio(ours, theirs, score.Confidence95)
			in.Low = max(in.Low, 0)
			put(ratio, m.Name)(in, err)
		}
	}
	return ratio, delta
}

// Overall is one policy in one scenario over all its traces.
type Overall struct {
	Scenario string `json:"scenario"`
	Policy   string `json:"policy"`
	// Traces counts the traces.
	Traces int `json:"traces"`
	// Ratio is the geometric mean over the traces of Row.Ratio. Its interval is that of the seeds,
	// the traces being given; N counts the traces that have a ratio above 0: the others cannot
	// enter a geometric mean.
	Ratio map[string]score.Interval `json:"ratio,omitempty"`
	// Mean is the plain mean over the traces of the shares sloViolations, tauU, tauO and of
	// slowdownP99: each trace counts the same.
	Mean map[string]float64 `json:"mean"`
	// Worst is the highest share of SLO violations of any trace, WorstTrace its name.
	Worst      float64 `json:"worst"`
	WorstTrace string  `json:"worstTrace"`
}

// OverTraces sums rows up over traces, if there are at least two.
func OverTraces(rows []Row) []Overall {
	if len(Distinct(rows, func(r Row) string { return r.Trace })) < 2 {
		return nil
	}
	var out []Overall
	index := map[[2]string]int{}
	groups := map[[2]string][]Row{}
	for _, r := range rows {
		k := [2]string{r.Scenario, r.Policy}
		if _, ok := index[k]; !ok {
			index[k] = len(out)
			out = append(out, Overall{Scenario: r.Scenario, Policy: r.Policy, Mean: map[string]float64{}, Ratio: map[string]score.Interval{}})
		}
		groups[k] = append(groups[k], r)
	}
	for i := range out {
		o := &out[i]
		group := groups[[2]string{o.Scenario, o.Policy}]
		o.Traces = len(group)
		for _, name := range []string{"sloViolations", "slowdownP99", "tauU", "tauO"} {
			sum := 0.0
			for _, r := range group {
				sum += r.Mean[name].Mean / float64(len(group))
			}
			if !math.IsInf(sum, 0) {
				o.Mean[name] = sum
			}
		}
		for k, r := range group {
			if v := r.Mean["sloViolations"].Mean; k == 0 || v > o.Worst {
				o.Worst, o.WorstTrace = v, r.Trace
			}
		}
		for _, name := range RatioMetrics() {
			var all []score.Interval
			for _, r := range group {
				if q, ok := r.Ratio[name]; ok && q.Mean > 0 {
					all = append(all, q)
				}
			}
			if len(all) > 0 {
				put(o.Ratio, name)(geometric(all), nil)
			}
		}
	}
	return out
}

// geometric is the geometric mean of independent ratios. The interval follows from theirs: the
// standard errors of the logarithms are recovered and added in squares, with the degrees of freedom
// by Welch and Satterthwaite. Without any known interval Low and High equal Mean.
func geometric(ratios []score.Interval) score.Interval {
	const upper = 0.5 + score.Confidence95/2
	n := float64(len(ratios))
	var mean, variance, denominator float64
	for _, r := range ratios {
		mean += math.Log(r.Mean) / n
		if !Known(r) {
			continue
		}
		// For a ratio of means that may be 0, wide is that of the logarithm by the delta method.
		wide := half(r) / r.Mean
		if r.Low > 0 {
			wide = (math.Log(r.High) - math.Log(r.Low)) / 2
		}
		df := float64(r.N - 1)
		se := wide / score.StudentT(upper, df) / n
		variance += se * se
		denominator += se * se * se * se / df
	}
	h := 0.0
	if denominator > 0 {
		h = score.StudentT(upper, variance*variance/denominator) * math.Sqrt(variance)
	}
	return score.Interval{Mean: math.Exp(mean), Low: math.Exp(mean - h), High: math.Exp(mean + h), N: len(ratios)}
}

// Front are the policies on one trace in one scenario that no other policy beats in both
// pod-seconds and SLO violations.
type Front struct {
	Trace    string `json:"trace"`
	Scenario string `json:"scenario"`
	// Policies are from the cheapest to the one with the fewest violations.
	Policies []string `json:"policies"`
}

// Fronts finds the Pareto front of the means for each trace and scenario.
func Fronts(rows []Row) []Front {
	var out []Front
	for start := 0; start < len(rows); {
		end := start
		for end < len(rows) && rows[end].Trace == rows[start].Trace && rows[end].Scenario == rows[start].Scenario {
			end++
		}
		group := rows[start:end]
		points := make([]score.Point, len(group))
		for i, r := range group {
			points[i] = score.Point{Cost: r.Mean["podSeconds"].Mean, Violations: r.Mean["sloViolations"].Mean}
		}
		f := Front{Trace: rows[start].Trace, Scenario: rows[start].Scenario}
		for _, i := range score.Pareto(points) {
			f.Policies = append(f.Policies, group[i].Policy)
		}
		out = append(out, f)
		start = end
	}
	return out
}
