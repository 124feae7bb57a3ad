package promtest

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Point is a sample before it is written: labels such as `pod="a"`, and a value.
type Point struct{ Labels, Value string }

// Outage is a way in which a Prometheus fails.
type Outage struct {
	Name string
	// Cause is a part of what a reader is told, and Usage that of readers of CPU and memory, where
	// it is another.
	Cause, Usage string
	// Answer answers a query; the points are plausible and wrong.
	Answer func(w http.ResponseWriter, f *Fake, points []Point)
	// All says that it befalls lists of names, too; Forgets that the names are gone.
	All, Forgets bool
}

// VectorAt is Vector of points with the time of the samples.
func VectorAt(at time.Time, points []Point) string {
	var all []string
	for _, p := range points {
		all = append(all, SampleAt(at, p.Labels, p.Value))
	}
	return Vector(all...)
}

// Outages are the rows of the matrix of outages.
func Outages() []Outage {
	const none, noNumber = "Prometheus has no sample", "of no pod a number of both"
	value := func(name, value, cause string) Outage {
		return Outage{Name: name, Cause: cause, Usage: noNumber, Answer: func(w http.ResponseWriter, _ *Fake, points []Point) {
			for i := range points {
				points[i].Value = value
			}
			fmt.Fprint(w, VectorAt(time.Now(), points))
		}}
	}
	text := func(change func(healthy string) string) func(http.ResponseWriter, *Fake, []Point) {
		return func(w http.ResponseWriter, _ *Fake, points []Point) {
			fmt.Fprint(w, change(VectorAt(time.Now(), points)))
		}
	}
	status := func(code int) func(http.ResponseWriter, *Fake, []Point) {
		return func(w http.ResponseWriter, _ *Fake, _ []Point) { http.Error(w, "not now", code) }
	}
	empty := text(func(string) string { return Vector() })
	return []Outage{
		value("nan", "NaN", "Prometheus answered NaN"),
		value("inf", "+Inf", "Prometheus answered +Inf"),
		value("minusinf", "-Inf", "Prometheus answered -Inf"),
		value("huge", "1e17", "too large for a quantity"),
		{Name: "empty", Cause: none, Answer: empty},
		{Name: "nothing", Cause: none, Answer: text(func(string) string { return `{"status":"success","data":{"resultType":"vector","result":null}}` })},
		{Name: "truncated", Cause: "read the answer", Answer: text(func(healthy string) string { return healthy[:len(healthy)/2] })},
		{Name: "unauthorized", Cause: "status 401", Answer: status(http.StatusUnauthorized), All: true},
		{Name: "unavailable", Cause: "status 503", Answer: status(http.StatusServiceUnavailable), All: true},
		{Name: "hanging", Cause: "no answer within 1s", Answer: func(_ http.ResponseWriter, f *Fake, _ []Point) { f.Hang() }, All: true},
		{Name: "stale", Cause: "it answers for 5m", Answer: func(w http.ResponseWriter, _ *Fake, points []Point) {
			fmt.Fprint(w, VectorAt(time.Now().Add(-5*time.Minute), points))
		}},
		{Name: "restarted", Cause: "the server could not find the metric", Usage: none, Answer: empty, Forgets: true},
		{Name: "partial", Cause: "store down", Answer: text(func(healthy string) string { return strings.Replace(healthy, "{", `{"warnings":["store down"],`, 1) })},
	}
}
