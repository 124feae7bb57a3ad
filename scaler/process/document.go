package process

import (
	"errors"
	"fmt"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
)

// Document is what the program answers to GET for a workload. docs/specs.md describes it.
type Document struct {
	// Replicas is the count that was last asked for.
	Replicas int `json:"replicas"`
	// Instances are those that exist and have not finished.
	Instances []Instance `json:"instances"`
	// Held are the requests that wait in the program; nil says that it holds none.
	Held *Held `json:"held,omitempty"`
	// Path is how requests reach the workload at zero; nil says that there is no such way.
	Path *Path `json:"path,omitempty"`
}

// Instance is one instance of a workload.
type Instance struct {
	// ID is unique among the workload's instances, those that are gone included.
	ID string `json:"id"`
	// Address is the host or IP under which it is reached.
	Address string `json:"address,omitempty"`
	// State is ready, starting, terminating, pending, unknown or failed.
	State   algorithms.PodState `json:"state"`
	Created time.Time           `json:"created,omitzero"`
	Started time.Time           `json:"started,omitzero"`
	Ready   time.Time           `json:"ready,omitzero"`
	// Limit is how many requests it works on at a time; 0 means no limit, or unknown.
	Limit float64 `json:"limit,omitempty"`
	// Trouble says why it cannot start without help.
	Trouble string `json:"trouble,omitempty"`
	// Counters are its readings; nil says that there are none, which makes the signals of a
	// workload unknown while the instance is ready.
	Counters *Counters `json:"counters,omitempty"`
}

// Counters are what one source has counted since its start. They never fall while it lives.
type Counters struct {
	// StartTime is when the source began to count, in Unix seconds. Another value says that the
	// counters began at zero again.
	StartTime float64 `json:"startTime"`
	// MonotonicSeconds is the time since then, by a clock that never jumps.
	MonotonicSeconds float64 `json:"monotonicSeconds"`
	// ConcurrencySeconds is the integral of InFlight over that time.
	ConcurrencySeconds float64 `json:"concurrencySeconds"`
	// Requests is how many requests were answered.
	Requests float64 `json:"requests"`
	// InFlight is how many requests are there now.
	InFlight float64 `json:"inFlight"`
}

// Held are the requests that wait in the program for an instance. Its Counters count those that
// wait as in flight.
type Held struct {
	Counters
}

// Path is the state of the way by which requests reach the workload.
type Path struct {
	// In says that requests go through what holds them.
	In bool `json:"in"`
	// Ready is how many instances requests are sent to.
	Ready int `json:"ready"`
	// Listening is how many gateways accept requests; Fault says why others do not.
	Listening  int         `json:"listening"`
	Fault      string      `json:"fault,omitempty"`
	Waiting    int         `json:"waiting"`
	ColdStarts []ColdStart `json:"coldStarts,omitempty"`
}

// ColdStart is one wake-up as a gateway saw it; see loop.ColdStart.
type ColdStart struct {
	Detected  time.Time `json:"detected"`
	Answering time.Time `json:"answering,omitzero"`
	Released  time.Time `json:"released,omitzero"`
	Address   string    `json:"address,omitempty"`
	Held      int       `json:"held"`
}

// Scale is the body of PUT …/scale.
type Scale struct {
	Replicas int `json:"replicas"`
	// First are the IDs of the instances that should go first.
	First []string `json:"first,omitempty"`
}

const (
	// mostReplicas and mostInstances bound what counts as sense.
	mostReplicas, mostInstances = 1_000_000, 100_000
)

// validate reports every fault of a document.
func (d *Document) validate() error {
	var errs []error
	if d.Replicas < 0 || d.Replicas > mostReplicas {
		errs = append(errs, fmt.Errorf("replicas = %d: want 0–%d", d.Replicas, mostReplicas))
	}
	if n := len(d.Instances); n > mostInstances {
		return errors.Join(append(errs, fmt.Errorf("instances has %d entries: want %d at most", n, mostInstances))...)
	}
	seen := make(map[string]bool, len(d.Instances))
	for i := range d.Instances {
		in := &d.Instances[i]
		if in.ID == "" || seen[in.ID] {
			errs = append(errs, fmt.Errorf("instances[%d].id = %q: want one that no other has", i, in.ID))
		}
		seen[in.ID] = true
		switch in.State {
		case algorithms.PodReady, algorithms.PodStarting, algorithms.PodUnknown, algorithms.PodPending, algorithms.PodTerminating, algorithms.PodFailed:
		default:
			errs = append(errs, fmt.Errorf("instances[%d].state = %q: want ready, starting, unknown, pending, terminating or failed", i, in.State))
		}
		if in.Limit < 0 {
			errs = append(errs, fmt.Errorf("instances[%d].limit = %v: want a number ≥ 0", i, in.Limit))
		}
		if in.Counters != nil {
			errs = append(errs, in.Counters.validate(fmt.Sprintf("instances[%d].counters", i)))
		}
	}
	if d.Held != nil {
		errs = append(errs, d.Held.validate("held"))
	}
	if p := d.Path; p != nil && (p.Ready < 0 || p.Listening < 0 || p.Waiting < 0) {
		errs = append(errs, fmt.Errorf("path.ready = %d, path.listening = %d, path.waiting = %d: want numbers ≥ 0", p.Ready, p.Listening, p.Waiting))
	}
	return errors.Join(errs...)
}

func (c *Counters) validate(field string) error {
	var errs []error
	for _, v := range []struct {
		name  string
		value float64
	}{
		{"startTime", c.StartTime},
		{"monotonicSeconds", c.MonotonicSeconds},
		{"concurrencySeconds", c.ConcurrencySeconds},
		{"requests", c.Requests},
		{"inFlight", c.InFlight},
	} {
		if v.value < 0 {
			errs = append(errs, fmt.Errorf("%s.%s = %v: want a number ≥ 0", field, v.name, v.value))
		}
	}
	return errors.Join(errs...)
}

// instance is the loop's word for an instance.
func (i *Instance) instance() loop.Instance {
	out := loop.Instance{
		ID: i.ID, Address: i.Address, State: i.State, Created: i.Created, Started: i.Started, Ready: i.Ready,
		InFlight: -1, Limit: i.Limit, Trouble: i.Trouble,
	}
	if i.Counters != nil {
		out.InFlight = i.Counters.InFlight
	}
	return out
}

// path is the loop's word for a path.
func (p *Path) path() *loop.Path {
	if p == nil {
		return nil
	}
	out := &loop.Path{In: p.In, Ready: p.Ready, Listening: p.Listening, Fault: p.Fault, Waiting: p.Waiting}
	for i := range p.ColdStarts {
		c := &p.ColdStarts[i]
		out.ColdStarts = append(out.ColdStarts, loop.ColdStart{
			Detected: c.Detected, Answering: c.Answering, Released: c.Released, Address: c.Address, Held: c.Held,
		})
	}
	return out
}
