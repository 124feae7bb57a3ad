package report

import "github.com/sluice-autoscaler/sluice/bench/score"

// Format writes the mean of a metric over seeds in the unit that suits it, with half its 95 % interval behind ± where one is known, and
// a dash where there is no number.
func (m Metric) Format(values []float64) string {
	i, err := score.Mean(values, score.Confidence95)
	if err != nil {
		return "–"
	}
	s := show(m, i.Mean, i.Mean)
	if spread(i) {
		s += " ± " + show(m, half(i), i.Mean)
	}
	return s
}
