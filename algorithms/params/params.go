// Package params describes the parameters of a policy as data: name, range, unit, default, meaning,
// and the place in the Config. Validation, `sluice policies`, the reference page and the ranges
// that `sluice bench tune` searches derive from these descriptions.
package params

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
)

// Parameter is what is known of one parameter. It is a value for help texts and generators.
type Parameter struct {
	// Name is the JSON name; a dot leads into an object, as in circuitBreaker.failures.
	Name string
	// Range says which values are allowed, Unit in what they are, and Condition what they depend
	// on; Unit and Condition may be empty.
	Range, Unit, Condition string
	// Default says what holds without a value, for people. Value is the same as JSON, nil for none.
	Default string
	Value   json.RawMessage
	// Meaning is a phrase without a full stop.
	Meaning string
	// Bounds hold for numbers and durations; nil for all others.
	Bounds *Range
	// Kind tells how a number is written.
	Kind Kind
	// Search is the range that a search tries, in the notation of bench/tune; empty for none.
	Search string
}

// Allowed is the range with unit and condition, as in "0–1000000 (pods), at most maxReplicaCount".
func (p Parameter) Allowed() string {
	out := p.Range
	if p.Unit != "" {
		out += " (" + p.Unit + ")"
	}
	if p.Condition != "" {
		out += ", " + p.Condition
	}
	return out
}

// SignalTarget says where the default of a policy's target comes from.
const SignalTarget = "the signal's target"

// Kind tells how a number is written.
type Kind int

// The kinds.
const (
	// None is no number.
	None Kind = iota
	// Number may have a fraction.
	Number
	// Whole may not.
	Whole
	// Span is a duration in Go's notation.
	Span
)

// Field describes one parameter of the Config C. It is a value; its methods return changed copies.
type Field[C any] struct {
	about Parameter
	// first is what comes before the Config's default, zero what the value 0 stands for.
	first, zero string
	// value reads the Config, nil for an optional field without a value.
	value func(*C) any
	// valid tells whether the value is allowed; nil where Config.Validate alone can tell.
	valid func(*C) bool
}

// List describes the parameters of the Config C, in the order in which people read them.
type List[C any] []Field[C]

// Check reports every parameter whose value is not allowed, as in "kp = 2: want 0–1 (pods per
// missing pod)".
func (l List[C]) Check(c *C) error {
	var errs []error
	for i := range l {
		f := &l[i]
		if f.valid != nil && !f.valid(c) {
			want := f.about.Allowed()
			if f.about.Bounds != nil && f.about.Kind == Number && math.IsInf(f.about.Bounds.Hi, 1) && !math.IsInf(f.about.Bounds.Lo, -1) {
				want = "a finite number " + want
			}
			errs = append(errs, fmt.Errorf("%s = %s: want %s", f.about.Name, text(f.value(c)), want))
		}
	}
	return errors.Join(errs...)
}

// Describe returns what is known of each parameter, with the defaults of a Config.
func (l List[C]) Describe(defaults C) []Parameter {
	out := make([]Parameter, 0, len(l))
	for _, f := range l {
		p := f.about
		if f.value != nil {
			if v := f.value(&defaults); v != nil {
				p.Value, _ = json.Marshal(v) // a number, a text or a boolean always marshals
				p.Default = plain(v)
			}
		}
		switch {
		case f.first != "" && p.Default != "":
			p.Default = f.first + ", else " + p.Default
		case f.first != "":
			p.Default = f.first
		case f.zero != "":
			p.Default += ": " + f.zero
		case p.Default == "":
			p.Default = "none"
		}
		out = append(out, p)
	}
	return out
}

// In makes a list for C of a list for a part of C.
func In[C, D any](l List[D], part func(*C) *D) List[C] {
	out := make(List[C], 0, len(l))
	for _, f := range l {
		g := Field[C]{about: f.about, first: f.first, zero: f.zero}
		if f.value != nil {
			g.value = func(c *C) any { return f.value(part(c)) }
		}
		if f.valid != nil {
			g.valid = func(c *C) bool { return f.valid(part(c)) }
		}
		out = append(out, g)
	}
	return out
}

// After says what comes before the default, such as "the signal's target".
func (f Field[C]) After(first string) Field[C] {
	f.first = first
	return f
}

// Zero says what the default 0 stands for, such as "the observed limit".
func (f Field[C]) Zero(means string) Field[C] {
	f.zero = means
	return f
}

// Search sets the range that a search tries.
func (f Field[C]) Search(rng string) Field[C] {
	f.about.Search = rng
	return f
}

// Also adds a condition that depends on other parameters. It is asked for values within the range
// only, but the other parameters may be out of theirs.
func (f Field[C]) Also(condition string, holds func(*C) bool) Field[C] {
	within := f.valid
	f.about.Condition = condition
	f.valid = func(c *C) bool { return within(c) && holds(c) }
	return f
}

// number is what a numeric field may be.
type number interface {
	int | uint64 | float64 | algorithms.Duration
}

func kind[T number]() Kind {
	var v T
	switch any(v).(type) {
	case float64:
		return Number
	case algorithms.Duration:
		return Span
	}
	return Whole
}

// Of describes a number or a duration.
func Of[C any, T number](name string, r Range, unit, meaning string, at func(*C) *T) Field[C] {
	k := kind[T]()
	return Field[C]{
		about: Parameter{Name: name, Range: r.text(k), Unit: unit, Meaning: meaning, Bounds: &r, Kind: k},
		value: func(c *C) any { return *at(c) },
		valid: func(c *C) bool { return r.Holds(float64(*at(c))) },
	}
}

// Optional describes a number or a duration that may be left out.
func Optional[C any, T number](name string, r Range, unit, meaning string, at func(*C) *T) Field[C] {
	f := Of(name, r, unit, meaning, at)
	f.value = func(c *C) any {
		if v := at(c); v != nil {
			return *v
		}
		return nil
	}
	f.valid = func(c *C) bool {
		v := at(c)
		return v == nil || r.Holds(float64(*v))
	}
	return f
}

// Text describes a text that may not be empty.
func Text[C any](name, want, meaning string, at func(*C) *string) Field[C] {
	return Field[C]{
		about: Parameter{Name: name, Range: want, Meaning: meaning},
		value: func(c *C) any { return *at(c) },
		valid: func(c *C) bool { return *at(c) != "" },
	}
}

// OneOf describes a text that is one of the values.
func OneOf[C any](name, meaning string, at func(*C) *string, values ...string) Field[C] {
	last := len(values) - 1
	return Field[C]{
		about: Parameter{Name: name, Range: strings.Join(values[:last], ", ") + " or " + values[last], Meaning: meaning},
		value: func(c *C) any { return *at(c) },
		valid: func(c *C) bool { return slices.Contains(values, *at(c)) },
	}
}

// Bool describes a switch.
func Bool[C any](name, meaning string, at func(*C) *bool) Field[C] {
	return Field[C]{
		about: Parameter{Name: name, Range: "true or false", Meaning: meaning},
		value: func(c *C) any { return *at(c) },
	}
}

// Other describes a parameter that Config.Validate alone checks, such as an object or a list.
func Other[C any](name, allowed, defaults, meaning string) Field[C] {
	return Field[C]{about: Parameter{Name: name, Range: allowed, Default: defaults, Meaning: meaning}}
}

// plain is a value as help texts show it.
func plain(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	return text(v)
}

// text is a value as errors show it.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case algorithms.Duration:
		return time.Duration(v).String()
	}
	return fmt.Sprint(v)
}
