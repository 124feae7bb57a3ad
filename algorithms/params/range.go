package params

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

// Range is the set of allowed numbers; durations are in nanoseconds. An infinite end is open: only
// finite numbers are allowed.
type Range struct {
	Lo, Hi         float64
	LoOpen, HiOpen bool
	// Single is one more allowed number below Lo; nil for none.
	Single *float64
}

// Between is lo to hi, both included.
func Between(lo, hi float64) Range { return Range{Lo: lo, Hi: hi} }

// Spans is lo to hi, both included.
func Spans(lo, hi time.Duration) Range { return Between(float64(lo), float64(hi)) }

// AtLeast is lo and more.
func AtLeast(lo float64) Range { return Range{Lo: lo, Hi: math.Inf(1), HiOpen: true} }

// Above is more than lo.
func Above(lo float64) Range { return Range{Lo: lo, Hi: math.Inf(1), LoOpen: true, HiOpen: true} }

// Finite is every finite number.
func Finite() Range { return Range{Lo: math.Inf(-1), Hi: math.Inf(1), LoOpen: true, HiOpen: true} }

// UpTo bounds the range by hi, included.
func (r Range) UpTo(hi float64) Range {
	r.Hi, r.HiOpen = hi, false
	return r
}

// Below bounds the range by hi, not included.
func (r Range) Below(hi float64) Range {
	r.Hi, r.HiOpen = hi, true
	return r
}

// Or allows one more number.
func (r Range) Or(single float64) Range {
	r.Single = &single
	return r
}

// Holds tells whether v is in the range.
func (r Range) Holds(v float64) bool {
	if r.Single != nil && v == *r.Single {
		return true
	}
	return algorithms.Finite(v) && (v > r.Lo || v == r.Lo && !r.LoOpen) && (v < r.Hi || v == r.Hi && !r.HiOpen)
}

// text is the range for people.
func (r Range) text(k Kind) string {
	lo, hi := write(r.Lo, k), write(r.Hi, k)
	var out string
	switch endless := math.IsInf(r.Hi, 1); {
	case endless && math.IsInf(r.Lo, -1):
		out = "a finite number"
	case endless && r.LoOpen:
		out = "> " + lo
	case endless:
		out = "≥ " + lo
	case r.Lo == r.Hi:
		out = lo
	case !r.LoOpen && !r.HiOpen:
		out = lo + "–" + hi
	default:
		out = sign(r.LoOpen, ">", "≥") + " " + lo + " and " + sign(r.HiOpen, "<", "≤") + " " + hi
	}
	if r.Single != nil {
		out = write(*r.Single, k) + " or " + out
	}
	return out
}

func sign(open bool, strict, loose string) string {
	if open {
		return strict
	}
	return loose
}

// write writes a bound: durations without their zero parts, numbers without a needless exponent.
func write(v float64, k Kind) string {
	if k == Span {
		s := time.Duration(v).String()
		if strings.HasSuffix(s, "m0s") {
			s = strings.TrimSuffix(s, "0s")
		}
		if strings.HasSuffix(s, "h0m") {
			s = strings.TrimSuffix(s, "0m")
		}
		return s
	}
	if math.Abs(v) < 1e9 {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return strings.Replace(strconv.FormatFloat(v, 'g', -1, 64), "e+", "e", 1)
}
