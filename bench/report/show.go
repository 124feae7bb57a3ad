package report

// Estimate is the mean of values and its interval.
func Estimate(values []float64) Interval { return interval(values) }

// Format writes the mean of a metric in the unit that suits it, with half its interval behind ± where one is known.
func (m Metric) Format(i Interval) string {
	s := show(m, i.Mean, i.Mean)
	if i.Known() && i.Half() > 0 {
		s += " ± " + show(m, i.Half(), i.Mean)
	}
	return s
}
