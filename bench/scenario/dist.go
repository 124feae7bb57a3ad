package scenario

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// kind is a family of distributions.
type kind uint8

const (
	constant kind = iota
	exponential
	lognormal
	uniform
	gamma
	empirical
)

// Dist is a distribution of times. The zero value is the constant 0. It is immutable and safe for
// concurrent use.
//
//	const:200ms              always that
//	exp:200ms                exponential with that mean
//	lognormal:200ms,cv=1.5   log-normal with that mean and coefficient of variation
//	gamma:200ms,cv=0.5       gamma likewise
//	uniform:100ms,300ms      between the two
//	empirical:100ms,120ms,…  each equally likely
type Dist struct {
	kind kind
	// mean in nanoseconds; a and b are the family's own parameters.
	mean, a, b float64
	values     []time.Duration
	spec       string
}

// maxMean bounds times, so that no sum of them overflows.
const maxMean = 30 * 24 * time.Hour

// ParseDist reads a specification as in the type's documentation. A bare duration is a constant.
func ParseDist(spec string) (Dist, error) {
	name, rest, found := strings.Cut(spec, ":")
	if !found {
		name, rest = "const", spec
	}
	var plain []time.Duration
	cv := math.NaN()
	for field := range strings.SplitSeq(rest, ",") {
		field = strings.TrimSpace(field)
		if v, ok := strings.CutPrefix(field, "cv="); ok {
			f, err := strconv.ParseFloat(v, 64)
			if err != nil || !(f >= 0 && f <= 100) {
				return Dist{}, fmt.Errorf("%q: cv = %s: want 0–100", spec, v)
			}
			cv = f
			continue
		}
		d, err := time.ParseDuration(strings.TrimPrefix(field, "mean="))
		if err != nil {
			return Dist{}, fmt.Errorf("%q: %q is no duration: want a number with a unit, such as 200ms", spec, field)
		}
		if d < 0 || d > maxMean {
			return Dist{}, fmt.Errorf("%q: %v: want 0s–%v", spec, d, maxMean)
		}
		plain = append(plain, d)
	}
	d := Dist{spec: spec}
	want := 1
	switch name {
	case "const":
		d.kind = constant
	case "exp":
		d.kind = exponential
	case "lognormal":
		d.kind = lognormal
	case "gamma":
		d.kind = gamma
	case "uniform":
		d.kind, want = uniform, 2
	case "empirical":
		d.kind, want = empirical, len(plain)
	default:
		return Dist{}, fmt.Errorf("%q: unknown distribution %q: want const, exp, lognormal, gamma, uniform or empirical", spec, name)
	}
	if len(plain) == 0 || len(plain) != want {
		return Dist{}, fmt.Errorf("%q: %d durations: want %d", spec, len(plain), max(1, want))
	}
	if shaped := d.kind == lognormal || d.kind == gamma; shaped == math.IsNaN(cv) {
		return Dist{}, fmt.Errorf("%q: want cv=… with lognormal and gamma, and with no other", spec)
	}
	d.mean = float64(plain[0])
	switch d.kind {
	case lognormal:
		s2 := math.Log1p(cv * cv)
		d.a, d.b = math.Log(math.Max(d.mean, 1))-s2/2, math.Sqrt(s2)
	case gamma:
		if cv < 0.01 {
			return Dist{}, fmt.Errorf("%q: cv = %v: want at least 0.01 with gamma", spec, cv)
		}
		d.a = 1 / (cv * cv) // shape
		d.b = d.mean / d.a  // scale
	case uniform:
		if plain[1] < plain[0] {
			return Dist{}, fmt.Errorf("%q: the second duration is below the first", spec)
		}
		d.a, d.b = float64(plain[0]), float64(plain[1]-plain[0])
		d.mean = d.a + d.b/2
	case empirical:
		d.values = plain
		sum := 0.0
		for _, v := range plain {
			sum += float64(v)
		}
		d.mean = sum / float64(len(plain))
	case constant, exponential:
	}
	return d, nil
}

// Mean is the distribution's mean.
func (d *Dist) Mean() time.Duration { return time.Duration(d.mean) }

// Draw takes a value; the same state of r gives the same one.
func (d *Dist) Draw(r *rand.Rand) time.Duration {
	switch d.kind {
	case constant:
		return time.Duration(d.mean)
	case exponential:
		return time.Duration(d.mean * r.ExpFloat64())
	case lognormal:
		return clip(math.Exp(d.a + d.b*r.NormFloat64()))
	case uniform:
		return time.Duration(d.a + d.b*r.Float64())
	case gamma:
		return clip(d.b * trace.GammaVariate(r, d.a))
	case empirical:
		return d.values[r.IntN(len(d.values))]
	}
	return 0
}

// clip keeps a heavy tail within what a sum of times can hold.
func clip(ns float64) time.Duration { return time.Duration(min(ns, 10*float64(maxMean))) }

// String writes the specification.
func (d Dist) String() string { return cmp.Or(d.spec, "const:0s") }

// MarshalJSON writes the specification.
func (d Dist) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads a specification.
func (d *Dist) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("distribution %s: want a string such as \"exp:200ms\"", b)
	}
	v, err := ParseDist(s)
	if err != nil {
		return err
	}
	*d = v
	return nil
}
