package summary

import (
	"fmt"
	"math"
	"strings"

	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/text"
)

// Known reports whether the bounds of an interval say anything: those of one value do not.
func Known(i score.Interval) bool { return i.N >= 2 }

// Spread reports whether an interval is worth showing. That of equal values is not, and has but the
// width of a rounding error.
func Spread(i score.Interval) bool { return Known(i) && half(i) > 1e-9*math.Abs(i.Mean) }

func half(i score.Interval) float64 { return (i.High - i.Low) / 2 }

// Format writes the mean of a metric over seeds in the unit that suits it, with half its 95 %
// interval behind ± where one is known, and a dash where there is no number.
func (m Metric) Format(values []float64) string {
	i, err := score.Mean(values, score.Confidence95)
	if err != nil {
		return "–"
	}
	return m.FormatInterval(i)
}

// FormatInterval writes a mean likewise.
func (m Metric) FormatInterval(i score.Interval) string {
	s := m.show(i.Mean, i.Mean)
	if Spread(i) {
		s += " ± " + m.show(half(i), i.Mean)
	}
	return s
}

// Cell writes the metric of a row for a table, with a star behind the best value.
func (m Metric) Cell(r Row, best float64) string {
	i, ok := r.Mean[m.Name]
	if !ok {
		return "–"
	}
	s := m.FormatInterval(i)
	if i.Mean == best {
		s += " *"
	}
	return s
}

// show writes a metric's value with its unit, the one that suits like.
func (m Metric) show(v, like float64) string {
	switch m.Unit {
	case "share":
		return text.Percent(v)
	case "s":
		if strings.HasSuffix(m.Title, "pod-seconds") {
			return text.CountLike(v, like)
		}
		return text.DurationLike(v, like)
	case "ratio":
		return text.Digits(v)
	}
	return text.CountLike(v, like)
}

// FormatRatio writes a ratio with its interval, if it has one.
func FormatRatio(i score.Interval, ok bool) string {
	if !ok {
		return "–"
	}
	if !Spread(i) {
		return fmt.Sprintf("%.2f", i.Mean)
	}
	return fmt.Sprintf("%.2f [%.2f, %.2f]", i.Mean, i.Low, i.High)
}
