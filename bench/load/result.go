package load

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Result is the raw outcome of a run; everything else is derived from it.
type Result struct {
	// Start is the instant that the records' times count from.
	Start time.Time `json:"start"`
	// Records are all requests that were sent, by intended instant.
	Records []Record `json:"records"`
}

func (r Result) sorted() Result {
	slices.SortStableFunc(r.Records, func(a, b Record) int { return int(a.Intended - b.Intended) })
	return r
}

// Join makes one result of several, in terms of the earliest start.
func Join(results ...Result) Result {
	var all Result
	for _, r := range results {
		if !r.Start.IsZero() && (all.Start.IsZero() || r.Start.Before(all.Start)) {
			all.Start = r.Start
		}
	}
	for _, r := range results {
		shift := r.Start.Sub(all.Start)
		for _, record := range r.Records {
			record.Intended += shift
			record.Sent += shift
			record.Done += shift
			all.Records = append(all.Records, record)
		}
	}
	return all.sorted()
}

// Summary is a result in numbers.
type Summary struct {
	// Sent = OK + Lost + Aborted.
	Sent    int `json:"sent"`
	OK      int `json:"ok"`
	Lost    int `json:"lost"`
	Aborted int `json:"aborted"`
	// Causes counts the lost ones by cause.
	Causes map[string]int `json:"causes,omitempty"`
	// Late counts requests sent later than LateAfter past their intended instant; a high share
	// means that the client itself was short of time or places.
	Late int `json:"late"`
	// Resent counts requests that Go's HTTP client sent more than once; see Record.Tries.
	Resent int `json:"resent"`
	// P50, P90, P99 and Max are latencies of the answered ones, from the intended instant.
	P50 time.Duration `json:"p50"`
	P90 time.Duration `json:"p90"`
	P99 time.Duration `json:"p99"`
	Max time.Duration `json:"max"`
}

// Summary derives the numbers.
func (r Result) Summary() Summary {
	s := Summary{Sent: len(r.Records), Causes: map[string]int{}}
	var latencies []time.Duration
	for _, record := range r.Records {
		switch {
		case record.OK():
			s.OK++
			latencies = append(latencies, record.Latency())
		case record.Lost():
			s.Lost++
			s.Causes[record.Cause]++
		default:
			s.Aborted++
		}
		if record.Sent-record.Intended > LateAfter {
			s.Late++
		}
		if record.Tries > 1 {
			s.Resent++
		}
	}
	slices.Sort(latencies)
	s.P50, s.P90, s.P99, s.Max = Quantile(latencies, 0.5), Quantile(latencies, 0.9), Quantile(latencies, 0.99), Quantile(latencies, 1)
	return s
}

// String says the counts in a line: "120 sent, 118 answered, 2 lost (2 timeout)".
func (s Summary) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d sent, %d answered, %d lost", s.Sent, s.OK, s.Lost)
	var causes []string
	for _, cause := range slices.Sorted(maps.Keys(s.Causes)) {
		causes = append(causes, fmt.Sprintf("%d %s", s.Causes[cause], cause))
	}
	if len(causes) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(causes, ", "))
	}
	if s.Aborted > 0 {
		fmt.Fprintf(&b, ", %d aborted", s.Aborted)
	}
	return b.String()
}
