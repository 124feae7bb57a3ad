package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/sluice-autoscaler/sluice/bench/score"
)

// count writes a number with three significant digits, and k, M or G for thousands, millions and milliards.
func count(v float64) string { return countLike(v, v) }

// countLike writes a number in the unit that suits another, so that a mean and its interval share it.
func countLike(v, like float64) string {
	if math.Abs(v) < math.Abs(like)/100 { // it would have more zeros than digits
		like = v
	}
	for _, u := range []struct {
		size float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if math.Abs(like) >= u.size*0.9995 && (u.size > 1e3 || math.Abs(like) >= 1e4) {
			return digits(v/u.size) + u.name
		}
	}
	if math.Abs(like) >= 999.5 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return digits(v)
}

// digits writes three significant digits without an exponent, and no zeros behind the point.
func digits(v float64) string {
	a := math.Abs(v)
	switch {
	case v == 0:
		return "0"
	case a >= 1e15 || a < 1e-6 || math.IsNaN(v):
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	places := max(0, 2-int(math.Floor(math.Log10(a)+1e-9)))
	s := strconv.FormatFloat(v, 'f', places, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// duration writes seconds in the unit that suits.
func duration(v float64) string { return durationLike(v, v) }

// durationLike writes seconds in the unit that suits another value.
func durationLike(v, like float64) string {
	if math.Abs(v) < math.Abs(like)/100 {
		like = v
	}
	switch a := math.Abs(like); {
	case v == 0 || a == 0:
		return digits(v) + " s"
	case a < 1e-3:
		return digits(v*1e6) + " µs"
	case a < 1:
		return digits(v*1e3) + " ms"
	case a < 120:
		return digits(v) + " s"
	case a < 7200:
		return digits(v/60) + " min"
	case a < 172800:
		return digits(v/3600) + " h"
	}
	return digits(v/86400) + " d"
}

// percent writes a share within 0–1; what is not 0 never reads as 0.
func percent(v float64) string {
	switch a := math.Abs(v * 100); {
	case a == 0:
		return "0 %"
	case a < 0.001:
		return "< 0.001 %"
	case a >= 10:
		return strconv.FormatFloat(v*100, 'f', 1, 64) + " %"
	case a >= 0.1:
		return strconv.FormatFloat(v*100, 'f', 2, 64) + " %"
	}
	return strconv.FormatFloat(v*100, 'f', 3, 64) + " %"
}

// show writes a metric's value with its unit, the one that suits like.
func show(m Metric, v, like float64) string {
	switch m.Unit {
	case "share":
		return percent(v)
	case "s":
		if strings.HasSuffix(m.Title, "pod-seconds") {
			return countLike(v, like)
		}
		return durationLike(v, like)
	case "ratio":
		return digits(v)
	}
	return countLike(v, like)
}

// ratio writes a ratio with its interval, if it has one.
func ratio(i score.Interval, ok bool) string {
	if !ok {
		return "–"
	}
	if !spread(i) {
		return fmt.Sprintf("%.2f", i.Mean)
	}
	return fmt.Sprintf("%.2f [%.2f, %.2f]", i.Mean, i.Low, i.High)
}

// plural is a count with its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
