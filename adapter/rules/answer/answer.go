// Package answer turns what Prometheus answered into values of the metrics APIs. It is pure.
//
// What is not known is an error and never a number, unless the rule says otherwise. Quantities
// saturate and never wrap, on every architecture alike.
package answer

import (
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Sample is one value of Prometheus.
type Sample struct {
	Labels map[string]string
	Value  float64
	// Time is the sample's own.
	Time time.Time
}

// Result is the result of an instant query.
type Result struct {
	Samples []Sample
	// Scalar says that it is a number without labels, Samples[0].
	Scalar bool
}

// Options are what a rule says about values that are none. The zero value is the default.
type Options struct {
	OnEmpty, OnNaN, OnInf, Duplicates string
	// MaxAge makes older samples unknown, 0 none.
	MaxAge time.Duration
}

// Words of Options.
const (
	Fail  = "error"
	Omit  = "omit"
	Zero  = "zero"
	Max   = "max"
	Sum   = "sum"
	First = "first"
)

// Validate names every fault, by field.
func (o Options) Validate() map[string]error {
	faults := map[string]error{}
	for _, f := range []struct {
		field, value string
		words        []string
	}{
		{"onEmpty", o.OnEmpty, []string{Omit, Fail, Zero}},
		{"onNaN", o.OnNaN, []string{Fail, Zero}},
		{"onInf", o.OnInf, []string{Fail, Max, Zero}},
		{"duplicates", o.Duplicates, []string{Fail, Sum, Max, First}},
	} {
		if f.value != "" && !slices.Contains(f.words, f.value) {
			faults[f.field] = fmt.Errorf("%s = %q: want %s", f.field, f.value, strings.Join(f.words, ", "))
		}
	}
	if o.MaxAge < 0 {
		faults["maxAge"] = fmt.Errorf("maxAge = %s: want a duration ≥ 0", o.MaxAge)
	}
	return faults
}

// Error is why there is no value. Message is v0.12.0's where that has a message for it.
type Error struct {
	// Status is the status of HTTP: 400 the caller's fault, 404 no such thing, 500 the rule's
	// fault, 503 not known now.
	Status  int
	Message string
	// Cause says why, "" where Message does.
	Cause string
}

// Error implements error: the message, and the cause.
func (e *Error) Error() string {
	if e.Cause == "" {
		return e.Message
	}
	return e.Message + ": " + e.Cause
}

// NotFound is v0.12.0's error for a metric that is not there; of is the object, "" for none.
func NotFound(r schema.GroupResource, metric, object, cause string) *Error {
	message := fmt.Sprintf("the server could not find the metric %s for %s", metric, r)
	if object != "" {
		message += " " + object
	}
	return &Error{Status: http.StatusNotFound, Message: message, Cause: cause}
}

// Broken is the error for a rule that cannot answer.
func Broken(cause string) *Error {
	return &Error{Status: http.StatusInternalServerError, Message: "Internal error occurred: unable to fetch metrics", Cause: cause}
}

// Unknown is the error for a value that is not known now.
func Unknown(metric, of, cause string) *Error {
	return &Error{Status: http.StatusServiceUnavailable, Message: fmt.Sprintf("the metric %s of %s is unknown", metric, of), Cause: cause}
}

// Value is a value of an object, or of an external metric.
type Value struct {
	// Name is the object's.
	Name string
	// Labels are an external metric's.
	Labels map[string]string
	resource.Quantity
	// Time is the sample's own; zero where the value stands for none.
	Time time.Time
	// Saturated says that the true value is larger than a quantity can be.
	Saturated bool
	// Float is the value before it was cut to thousandths.
	Float float64
}

// Quantity is a value in thousandths, cut towards zero as v0.12.0 cuts it. It saturates. NaN is 0.
func Quantity(v float64, format resource.Format) (q resource.Quantity, saturated bool) {
	milli := v * 1000
	var n int64
	switch {
	case math.IsNaN(milli):
	case milli >= math.MaxInt64:
		n, saturated = math.MaxInt64, true
	case milli <= math.MinInt64:
		n, saturated = math.MinInt64, true
	default:
		n = int64(milli)
	}
	return *resource.NewMilliQuantity(n, format), saturated
}

// value makes a value of a sample, or says why it is unknown.
func (o Options) value(s Sample, now time.Time) (Value, string) {
	v := Value{Time: s.Time}
	if o.MaxAge > 0 && !s.Time.IsZero() && now.Sub(s.Time) > o.MaxAge {
		return v, fmt.Sprintf("its sample is %s old, and maxAge is %s", now.Sub(s.Time).Round(time.Millisecond), o.MaxAge)
	}
	switch {
	case math.IsNaN(s.Value):
		if o.OnNaN != Zero {
			return v, "Prometheus answered NaN, which is no number; onNaN says what it is to be"
		}
		s.Value = 0
	case math.IsInf(s.Value, 0):
		switch o.OnInf {
		case Max:
		case Zero:
			s.Value = 0
		default:
			return v, fmt.Sprintf("Prometheus answered %s, which is no amount; onInf says what it is to be", format(s.Value))
		}
	}
	v.Quantity, v.Saturated = Quantity(s.Value, resource.DecimalSI)
	v.Float = s.Value
	return v, ""
}

// format writes a value as Prometheus does.
func format(v float64) string {
	if math.IsInf(v, 1) {
		return "+Inf"
	}
	return fmt.Sprint(v)
}

// merge makes one sample of several of one object. why says that it cannot.
func (o Options) merge(all []Sample) (s Sample, why string) {
	if len(all) == 1 {
		return all[0], ""
	}
	s = all[0]
	for _, other := range all[1:] {
		if other.Time.Before(s.Time) {
			s.Time = other.Time
		}
		switch o.Duplicates {
		case First:
		case Sum:
			s.Value += other.Value
		case Max:
			s.Value = math.Max(s.Value, other.Value) // NaN wins, and is unknown then
		default:
			return s, fmt.Sprintf("the query gives %d samples for it, %s and %s among them; want one, by an aggregation in metricsQuery or by duplicates: sum, max or first",
				len(all), Text(all[0].Labels), Text(all[1].Labels))
		}
	}
	return s, ""
}

// Text writes labels as PromQL does, by name.
func Text(labels map[string]string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, key := range slices.Sorted(maps.Keys(labels)) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s=%q", key, labels[key])
	}
	b.WriteByte('}')
	return b.String()
}
