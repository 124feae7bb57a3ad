// Package item holds what files of load are made of: requests and values over time, with their
// units.
package item

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Unit is what the values of a file are.
type Unit string

// The units.
const (
	// UnitAuto leaves it to the file.
	UnitAuto Unit = ""
	// UnitRequests is requests in the bin.
	UnitRequests Unit = "requests"
	// UnitRate is requests per second.
	UnitRate Unit = "rate"
	// UnitConcurrency is the mean number of requests in flight.
	UnitConcurrency Unit = "concurrency"
	// UnitCounter is a count that only rises, but for restarts.
	UnitCounter Unit = "counter"
)

// Units lists what a user may say.
func Units() []Unit { return []Unit{UnitRequests, UnitRate, UnitConcurrency, UnitCounter} }

// Item is a request, or a value over time.
type Item struct {
	// At is nanoseconds, since 1970 or since the file's own beginning (Meta.Relative). It is the
	// arrival of a request, or the beginning of a bin.
	At int64
	// Bin says that it is a value; else it is one request.
	Bin bool
	// Width is the bin's, 0 where the distance of the times gives it.
	Width time.Duration
	Value float64
	// Service is how long the request was worked on, 0 where that is unknown.
	Service time.Duration
	// In and Out are tokens of the request's prompt and answer, 0 where there are none.
	In, Out int
	// Series names what the value or request belongs to, where a file has several.
	Series string
}

// Meta is what a parser knows of its file.
type Meta struct {
	// Unit of values.
	Unit Unit
	// Relative says that times are since a beginning of the file's own, not since 1970.
	Relative bool
	// Notes are what a user should know of how the file was read.
	Notes []string
	// Column is what is selected of a file with several series; "" is all together.
	Column string
}

// Note adds a note once.
func (m *Meta) Note(format string, args ...any) {
	n := fmt.Sprintf(format, args...)
	if !slices.Contains(m.Notes, n) {
		m.Notes = append(m.Notes, n)
	}
}

// UnitOf guesses the unit by a name of a column or a metric, UnitAuto where it says nothing.
func UnitOf(name string) Unit {
	n := strings.ToLower(strings.TrimSpace(name))
	for _, w := range []string{"concurrency", "in_flight", "inflight", "in-flight", "active"} {
		if strings.Contains(n, w) {
			return UnitConcurrency
		}
	}
	switch n {
	case "rate", "rps", "qps", "tps", "req/s", "requests/s", "reqs/s", "hz", "throughput":
		return UnitRate
	}
	for _, w := range []string{"per_second", "per second", "persecond", "_per_sec", "/sec", "/s)", "_rps", "_qps", ":rate", "_rate", "rate_", "rate(", "requests_rate"} {
		if strings.Contains(n, w) {
			return UnitRate
		}
	}
	if strings.HasSuffix(n, "_rate") || strings.HasSuffix(n, " rate") || strings.HasPrefix(n, "rate") {
		return UnitRate
	}
	if strings.HasSuffix(n, "_total") || strings.HasSuffix(n, "_count") {
		return UnitCounter
	}
	return UnitAuto
}
