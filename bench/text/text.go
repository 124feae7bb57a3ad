// Package text formats numbers and names for people: with significant digits only, in units that
// suit, and without control characters.
package text

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Count writes a number with three significant digits, and k, M or G for thousands, millions and
// milliards.
func Count(v float64) string { return CountLike(v, v) }

// CountLike writes a number in the unit that suits another, so that a mean and its interval share
// it.
func CountLike(v, like float64) string {
	if math.Abs(v) < math.Abs(like)/100 { // it would have more zeros than digits
		like = v
	}
	for _, u := range []struct {
		size float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if math.Abs(like) >= u.size*0.9995 && (u.size > 1e3 || math.Abs(like) >= 1e4) {
			return Digits(v/u.size) + u.name
		}
	}
	if math.Abs(like) >= 999.5 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return Digits(v)
}

// Digits writes three significant digits without an exponent, and no zeros behind the point.
func Digits(v float64) string {
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

// Duration writes seconds in the unit that suits.
func Duration(v float64) string { return DurationLike(v, v) }

// DurationLike writes seconds in the unit that suits another value.
func DurationLike(v, like float64) string {
	if math.Abs(v) < math.Abs(like)/100 {
		like = v
	}
	switch a := math.Abs(like); {
	case v == 0 || a == 0:
		return Digits(v) + " s"
	case a < 1e-3:
		return Digits(v*1e6) + " µs"
	case a < 1:
		return Digits(v*1e3) + " ms"
	case a < 120:
		return Digits(v) + " s"
	case a < 7200:
		return Digits(v/60) + " min"
	case a < 172800:
		return Digits(v/3600) + " h"
	}
	return Digits(v/86400) + " d"
}

// Percent writes a share within 0–1; what is not 0 never reads as 0.
func Percent(v float64) string {
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

// Plural is a count with its noun.
func Plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Plain makes a name safe for a terminal and for one cell of a table: control characters, tabs and
// line ends become spaces.
func Plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || (r >= 0x7f && r < 0xa0) {
			return ' '
		}
		return r
	}, s)
}

// Heading names a trace in a scenario, which may be empty.
func Heading(trace, scenario string) string {
	if scenario == "" {
		return Plain(trace)
	}
	return Plain(trace) + ", " + Plain(scenario)
}
