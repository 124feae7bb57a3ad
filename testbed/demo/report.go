package demo

import (
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/bench/load"
)

// Sample is what was seen in one second. What could not be read is nil: unknown is not zero.
type Sample struct {
	// At is the time since the demo's first act began.
	At time.Duration `json:"at"`
	// Act counts from 0. Stage is the plan's word for what goes on.
	Act   int    `json:"act"`
	Stage string `json:"stage"`
	// Wanted is the rate that the plan asks for, Sent and Answered the rates that were; in requests
	// per second, over the time since the sample before.
	Wanted   float64 `json:"wanted"`
	Sent     float64 `json:"sent"`
	Answered float64 `json:"answered"`
	// InFlight counts requests that the load generator waits for, Lost all that were lost since the
	// start.
	InFlight int `json:"inFlight"`
	Lost     int `json:"lost"`
	// Waiting is how many requests the gateways held at once, at most since the sample before.
	Waiting *int `json:"waiting"`
	// Concurrency is request_concurrency as the metrics API serves it.
	Concurrency *float64 `json:"concurrency"`
	// Replicas is what the Deployment is to have, Ready what is ready of it.
	Replicas *int `json:"replicas"`
	Ready    *int `json:"ready"`
	// Phase is the Autoscaler's, or what the HPA wants.
	Phase string `json:"phase"`
}

// Milestone is a state that had to be seen.
type Milestone struct {
	What    string        `json:"what"`
	Reached bool          `json:"reached"`
	At      time.Duration `json:"at,omitempty"`
}

// Phase is a stretch of a cold start.
type Phase struct {
	Name string `json:"name"`
	// Until is its end, since the first request found no pod.
	Until time.Duration `json:"until"`
}

// ColdStart is one wake-up from zero.
type ColdStart struct {
	Detected time.Time `json:"detected"`
	Phases   []Phase   `json:"phases"`
	// Held is how many requests had waited when the first was released.
	Held int `json:"held"`
}

// ActReport is the outcome of an act.
type ActReport struct {
	Name string `json:"name"`
	// From and To are its ends, since the first act began.
	From       time.Duration `json:"from"`
	To         time.Duration `json:"to"`
	Load       load.Summary  `json:"load"`
	Milestones []Milestone   `json:"milestones"`
	ColdStarts []ColdStart   `json:"coldStarts,omitempty"`
}

// Report is the demo's outcome.
type Report struct {
	// Start is when the first act began.
	Start   time.Time   `json:"start"`
	Acts    []ActReport `json:"acts"`
	Samples []Sample    `json:"samples"`
	// Interrupted tells that the demo was stopped before its end.
	Interrupted bool `json:"interrupted,omitempty"`
	// Faults are what went wrong besides lost requests and missed milestones.
	Faults []string `json:"faults,omitempty"`
}

// Failures says all that was not as it had to be, a sentence each.
func (r Report) Failures() []string {
	all := slices.Clone(r.Faults)
	for _, a := range r.Acts {
		if a.Load.Lost > 0 {
			all = append(all, fmt.Sprintf("%s: %v", a.Name, a.Load))
		}
		for _, m := range a.Milestones {
			if !m.Reached && !r.Interrupted {
				all = append(all, fmt.Sprintf("%s: not reached: %s", a.Name, m.What))
				break // those after it could not be reached
			}
		}
	}
	return all
}

// Requests adds up the acts' requests.
func (r Report) Requests() (sent, answered, lost int) {
	for _, a := range r.Acts {
		sent, answered, lost = sent+a.Load.Sent, answered+a.Load.OK, lost+a.Load.Lost
	}
	return sent, answered, lost
}

// coldStart reads a wake-up from an Autoscaler's status. Only a finished one is told.
func coldStart(s *v1alpha1.ColdStartStatus) (ColdStart, bool) {
	if s == nil || s.Released == "" {
		return ColdStart{}, false
	}
	c := ColdStart{Detected: s.Detected.Time, Held: int(s.Held)}
	for _, p := range []struct{ name, seconds string }{
		{"scale written", s.Decided},
		{"pod created", s.PodCreated},
		{"scheduled", s.Scheduled},
		{"containers started", s.Started},
		{"pod answers", s.Answering},
		{"first request released", s.Released},
	} {
		seconds, err := strconv.ParseFloat(p.seconds, 64)
		if err != nil {
			continue // not seen
		}
		c.Phases = append(c.Phases, Phase{Name: p.name, Until: time.Duration(seconds * float64(time.Second))})
	}
	return c, true
}

// writeSamples writes samples as CSV; unknown values are empty.
func writeSamples(w io.Writer, samples []Sample) error {
	out := csv.NewWriter(w)
	rows := [][]string{{"at_seconds", "act", "stage", "wanted_per_second", "sent_per_second", "answered_per_second", "in_flight", "lost_total", "held", "concurrency", "replicas", "ready", "phase"}}
	for _, s := range samples {
		rows = append(rows, []string{
			number(s.At.Seconds()), strconv.Itoa(s.Act), s.Stage, number(s.Wanted), number(s.Sent), number(s.Answered), strconv.Itoa(s.InFlight),
			strconv.Itoa(s.Lost), whole(s.Waiting, ""), decimal(s.Concurrency, ""), whole(s.Replicas, ""), whole(s.Ready, ""), s.Phase,
		})
	}
	return out.WriteAll(rows)
}

// writeRequests writes each request as CSV, with times in seconds since the demo's first act began.
func writeRequests(w io.Writer, start time.Time, r load.Result) error {
	shift := r.Start.Sub(start)
	out := csv.NewWriter(w)
	rows := [][]string{{"intended_seconds", "sent_seconds", "done_seconds", "status", "cause", "fresh_connection", "tries"}}
	for _, q := range r.Records {
		rows = append(rows, []string{
			number((q.Intended + shift).Seconds()), number((q.Sent + shift).Seconds()), number((q.Done + shift).Seconds()),
			strconv.Itoa(q.Status), q.Cause, strconv.FormatBool(q.Fresh), strconv.Itoa(q.Tries),
		})
	}
	return out.WriteAll(rows)
}

func number(x float64) string { return strconv.FormatFloat(x, 'f', 3, 64) }

func whole(n *int, unknown string) string {
	if n == nil {
		return unknown
	}
	return strconv.Itoa(*n)
}

func decimal(x *float64, unknown string) string {
	if x == nil {
		return unknown
	}
	return strconv.FormatFloat(*x, 'f', 1, 64)
}
