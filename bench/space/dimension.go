package space

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// kind is what a dimension's values are.
type kind uint8

const (
	number   kind = iota // written as a JSON number
	relative             // a share of the pod's concurrency, written as a number of requests
	span                 // a duration, in seconds here
	list                 // one of a few values
)

// Dimension is one parameter with the values that are searched. It is made by ParseDimension and
// not changed after.
type Dimension struct {
	// Path names the parameter; dots lead into objects. "tick" and what is below "guard." are not
	// the policy's own.
	Path string

	kind   kind
	lo, hi float64
	log    bool
	whole  bool
	values []json.RawMessage
	// ordered says that the values of a list rise, so that neighbours are alike.
	ordered bool
	text    string
	// lowest and highest say that the policy takes nothing beyond the range's ends.
	lowest, highest bool
}

const (
	maxValues = 100
	maxPath   = 200
)

// ParseDimension reads PATH=RANGE, where RANGE is one of
//
//	LOW..HIGH            numbers, such as 0.5..4, durations (6s..10m), or shares of the pod's concurrency (30%..95%)
//	LOW..HIGH:log        the same, spaced evenly in the logarithm; LOW above 0
//	LOW..HIGH:whole      whole numbers; a parameter that takes no others is found out without it
//	A|B|C                these values, each JSON or else text; neighbours are tried first where they rise
//
// and PATH is the parameter's name; dots lead into objects
// (behavior.scaleDown.stabilizationWindowSeconds), tick is the time between decisions and guard.… a
// parameter of the guard.
func ParseDimension(spec string) (Dimension, error) {
	path, text, ok := strings.Cut(spec, "=")
	d := Dimension{Path: strings.TrimSpace(path), text: strings.TrimSpace(text)}
	fault := func(format string, args ...any) (Dimension, error) {
		return Dimension{}, fmt.Errorf("search %q: %s", spec, fmt.Sprintf(format, args...))
	}
	if !ok || d.Path == "" || d.text == "" {
		return fault("want NAME=LOW..HIGH, NAME=LOW..HIGH:log or NAME=A|B|C")
	}
	if len(d.Path) > maxPath || slices.Contains(strings.Split(d.Path, "."), "") {
		return fault("name %q: want parts joined by single dots, at most %d characters", d.Path, maxPath)
	}
	low, rest, isRange := strings.Cut(d.text, "..")
	if !isRange {
		if err := d.parseList(); err != nil {
			return fault("%v", err)
		}
		return d, nil
	}
	parts := strings.Split(rest, ":")
	for _, option := range parts[1:] {
		switch option {
		case "log":
			d.log = true
		case "whole":
			d.whole = true
		default:
			return fault("option %q: want log or whole", option)
		}
	}
	var errLow, errHigh error
	var other kind
	d.kind, d.lo, errLow = parseBound(low)
	other, d.hi, errHigh = parseBound(parts[0])
	switch err := errors.Join(errLow, errHigh); {
	case err != nil:
		return fault("%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	case d.kind != other:
		return fault("%s and %s: want both as numbers, both with a unit of time or both with %%", low, parts[0])
	case d.lo >= d.hi:
		return fault("%s..%s: want the lower bound first, below the upper", low, parts[0])
	case d.log && d.lo <= 0:
		return fault("%s..%s:log: want a lower bound above 0, or a list such as 0s|30s|2m", low, parts[0])
	case d.whole && (d.kind != number || d.lo != math.Trunc(d.lo) || d.hi != math.Trunc(d.hi)):
		return fault("%s..%s:whole: want whole numbers without a unit", low, parts[0])
	}
	return d, nil
}

// parseBound reads a number, a duration or a percentage.
func parseBound(text string) (kind, float64, error) {
	text = strings.TrimSpace(text)
	digits, percent := strings.CutSuffix(text, "%")
	if v, err := strconv.ParseFloat(digits, 64); err == nil {
		switch {
		case !algorithms.Finite(v) || math.Abs(v) > 1e12:
			return number, 0, fmt.Errorf("bound %s: want a number within ±1e12", text)
		case percent && (v <= 0 || v > 10_000):
			return number, 0, fmt.Errorf("bound %s: want more than 0%%, at most 10000%%", text)
		case percent:
			return relative, v / 100, nil
		}
		return number, v, nil
	}
	v, err := trace.ParseDuration(text)
	if err != nil || v < 0 || v > 366*24*time.Hour {
		return number, 0, fmt.Errorf("bound %q: want a number, a duration within 0s–366d such as 90s, or a percentage", text)
	}
	return span, v.Seconds(), nil
}

func (d *Dimension) parseList() error {
	d.kind = list
	last, rising := math.Inf(-1), true
	for piece := range strings.SplitSeq(d.text, "|") {
		piece = strings.TrimSpace(piece)
		if piece == "" {
			return errors.New("an empty value: want A|B|C")
		}
		raw := json.RawMessage(piece)
		if !json.Valid(raw) {
			b, err := json.Marshal(piece)
			if err != nil {
				return fmt.Errorf("value %q: %w", piece, err)
			}
			raw = b
		}
		if slices.ContainsFunc(d.values, func(v json.RawMessage) bool { return string(v) == string(raw) }) {
			return fmt.Errorf("value %s is there twice", piece)
		}
		d.values = append(d.values, raw)
		_, v, err := parseBound(piece)
		rising = rising && err == nil && v > last
		last = v
	}
	if len(d.values) < 2 || len(d.values) > maxValues {
		return fmt.Errorf("%d values: want 2–%d, or LOW..HIGH", len(d.values), maxValues)
	}
	d.ordered = rising
	return nil
}

// String is the specification.
func (d *Dimension) String() string { return d.Path + "=" + d.text }

// value is the parameter at a place 0–1 of the range, for a pod that takes that many requests at a
// time. Numbers have at most three significant digits and durations a granularity of at most a
// twentieth, so that people can read them.
func (d *Dimension) value(u, concurrency float64) json.RawMessage {
	u = min(1, max(0, u))
	if d.kind == list {
		return d.values[min(int(u*float64(len(d.values))), len(d.values)-1)]
	}
	v := d.lo + u*(d.hi-d.lo)
	if d.log {
		v = d.lo * math.Pow(d.hi/d.lo, u)
	}
	switch d.kind {
	case span:
		t := time.Duration(v * float64(time.Second))
		grain := time.Millisecond
		for _, g := range []time.Duration{100 * time.Millisecond, time.Second, time.Minute} {
			if t >= 20*g {
				grain = g
			}
		}
		seconds := func(s float64) time.Duration { return time.Duration(math.Round(s * 1e9)) }
		t = min(max(t.Round(grain), seconds(d.lo)), seconds(d.hi))
		return json.RawMessage(strconv.Quote(t.String()))
	case relative:
		v = min(max(digits(v*concurrency), d.lo*concurrency), d.hi*concurrency)
	default:
		if d.whole {
			v = math.Round(v)
		} else {
			v = digits(v)
		}
		v = min(max(v, d.lo), d.hi)
	}
	return json.RawMessage(strconv.FormatFloat(v, 'f', -1, 64))
}

// digits rounds to three significant digits.
func digits(v float64) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'e', 2, 64), 64)
	if err != nil {
		return v
	}
	return r
}

// place is where a value lies in the range, 0–1; ok is false if it is no such value at all. What
// lies outside is put at the end.
func (d *Dimension) place(raw json.RawMessage, concurrency float64) (u float64, ok bool) {
	text := strings.Trim(string(raw), `"`)
	k, v, err := parseBound(text)
	if d.kind == list {
		best, distance := -1, math.Inf(1)
		for i, x := range d.values {
			if string(x) == string(raw) {
				best = i
				break
			}
			if _, w, errValue := parseBound(strings.Trim(string(x), `"`)); d.ordered && err == nil && errValue == nil && math.Abs(w-v) < distance {
				best, distance = i, math.Abs(w-v)
			}
		}
		return (float64(best) + 0.5) / float64(len(d.values)), best >= 0
	}
	switch {
	case err != nil:
		return 0, false
	case d.kind == relative && k == number:
		v /= concurrency
	case d.kind != k:
		return 0, false
	}
	v = min(max(v, d.lo), d.hi)
	if d.log {
		return math.Log(v/d.lo) / math.Log(d.hi/d.lo), true
	}
	return (v - d.lo) / (d.hi - d.lo), true
}

// neighbours are the places to try from u with a step: one to each side, or for a list without
// order all others.
func (d *Dimension) neighbours(u, step float64) []float64 {
	if d.kind != list {
		if d.whole {
			step = max(step, 1/(d.hi-d.lo))
		}
		return []float64{max(0, u-step), min(1, u+step)}
	}
	n := len(d.values)
	at := min(int(u*float64(n)), n-1)
	var out []float64
	by := max(1, int(step*float64(n)))
	for i := range n {
		if i != at && (!d.ordered || i == at-by || i == at+by) {
			out = append(out, (float64(i)+0.5)/float64(n))
		}
	}
	return out
}

// edge tells at which bound of the range a place is, if at one.
func (d *Dimension) edge(u float64) string {
	if d.kind == list && !d.ordered {
		return ""
	}
	near := 0.01
	if d.kind == list {
		near = 0.75 / float64(len(d.values))
	}
	switch {
	case u <= near && !d.lowest:
		return "lower"
	case u >= 1-near && !d.highest:
		return "upper"
	}
	return ""
}
