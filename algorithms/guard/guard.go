// Package guard wraps a policy with the rules that hold whatever the policy says: bounds, no scaling down on what is
// unknown, sleep only after an idle time that was really seen, and a wake-up that is sized by what is waiting.
package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

// FullCoverage is the share of sources × time that must have reported for a value to count as known when going down.
const FullCoverage = 0.9

// Config holds the parameters.
type Config struct {
	// IdleAfter is how long demand must have been exactly zero before 0 replicas are allowed, 1s–1h.
	IdleAfter time.Duration
	// Target is the concurrency per pod, > 0, by which a wake-up from zero is sized; 0 means: one pod.
	Target float64
}

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	if c.IdleAfter < time.Second || c.IdleAfter > time.Hour {
		errs = append(errs, fmt.Errorf("scale to zero after = %v: want 1s–1h", c.IdleAfter))
	}
	if !algorithms.Finite(c.Target) || c.Target < 0 {
		errs = append(errs, fmt.Errorf("target = %v: want a finite number ≥ 0 (requests per pod)", c.Target))
	}
	return errors.Join(errs...)
}

// Policy is a guarded policy. It is not safe for concurrent use.
type Policy struct {
	cfg   Config
	inner algorithms.Policy
}

// New wraps inner; the Config is validated.
func New(c Config, inner algorithms.Policy) (*Policy, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Policy{cfg: c, inner: inner}, nil
}

// Needs adds the idle time and what waits to the inner policy's needs.
func (p *Policy) Needs() []algorithms.Need {
	return append(p.inner.Needs(),
		algorithms.Need{Name: algorithms.Concurrency, Window: p.cfg.IdleAfter},
		algorithms.Need{Name: algorithms.Waiting, Window: algorithms.Instant})
}

// Decide asks the inner policy and applies the rules, in this order: unknown, waking, idleness, bounds.
func (p *Policy) Decide(o algorithms.Observation) algorithms.Decision {
	cur := o.Replicas.Current
	doubt, blind := p.doubts(o)
	partial := doubt != ""
	asked := o
	if partial {
		asked.Signals = trusted(o.Signals)
	}
	d := p.inner.Decide(asked)
	d.Terms = append(d.Terms, algorithms.Term{Name: "policyReplicas", Value: float64(d.Replicas)})

	waiting, waitingKnown := o.Signal(algorithms.Waiting, algorithms.Instant)
	wake := 0
	if o.Replicas.Ready == 0 && waitingKnown && waiting.Value > 0 {
		wake = max(1, cur) // means over windows lag behind a wake-up: nothing is taken back while it goes on
		if p.cfg.Target > 0 {
			wake = max(wake, algorithms.Pods(math.Ceil(waiting.Value/p.cfg.Target)))
		}
	}
	switch {
	case wake > 0 && (!d.Valid || d.Replicas < wake):
		note(&d, wake, "Wake", fmt.Sprintf("%.0f requests wait and no pod is ready", waiting.Value))
		d.Valid = true
	case !d.Valid || blind:
		d.Valid = false
		d.Reason, d.Message = "NoData", doubt
		return d
	case partial && d.Replicas <= cur:
		d.Valid = false
		d.Reason, d.Message = "PartialData", doubt+": up only ("+d.Message+")"
		return d
	}

	if d.Replicas < 1 && o.Limits.Min == 0 && cur > 0 && !p.idle(o) {
		note(&d, 1, "NotIdleYet", fmt.Sprintf("demand has not been zero for %s", p.cfg.IdleAfter))
	}
	if d.Replicas < o.Limits.Min {
		note(&d, o.Limits.Min, "MinReplicas", fmt.Sprintf("the lower bound is %d", o.Limits.Min))
	}
	if d.Replicas > o.Limits.Max {
		note(&d, o.Limits.Max, "MaxReplicas", fmt.Sprintf("the upper bound is %d", o.Limits.Max))
	}
	return d
}

// doubts names the first signal that the inner policy needs and that is not known well enough to scale down on, "" when there is
// none, and tells whether nothing at all is known of one of them (blind).
func (p *Policy) doubts(o algorithms.Observation) (doubt string, blind bool) {
	for _, n := range p.inner.Needs() {
		s, ok := o.Signal(n.Name, n.Window)
		if ok && s.Coverage >= FullCoverage {
			continue
		}
		if doubt == "" {
			doubt = fmt.Sprintf("%s over %s is known to %.0f %% only, its stalest reading %s old", n.Name, n.Window, 100*s.Coverage, s.Age.Round(time.Millisecond))
		}
		blind = blind || s.Coverage <= 0 || !algorithms.Finite(s.Value)
	}
	return doubt, blind
}

// idle tells whether demand was exactly zero over the whole idle time, and nothing waits.
func (p *Policy) idle(o algorithms.Observation) bool {
	s, ok := o.Signal(algorithms.Concurrency, p.cfg.IdleAfter)
	w, waitingKnown := o.Signal(algorithms.Waiting, algorithms.Instant)
	return ok && waitingKnown && s.Value == 0 && w.Value == 0 && s.Coverage >= FullCoverage
}

// trusted returns a copy in which whatever has some coverage counts as known: a lower bound of demand.
func trusted(in []algorithms.Signal) []algorithms.Signal {
	out := make([]algorithms.Signal, len(in))
	for i, s := range in {
		s.Known = s.Known || s.Coverage > 0
		out[i] = s
	}
	return out
}

// note replaces the count and says so.
func note(d *algorithms.Decision, n int, reason, why string) {
	if d.Message != "" {
		d.Message += "; "
	}
	d.Message += fmt.Sprintf("%s: %d", why, n)
	d.Replicas, d.Reason = n, reason
}

// Snapshot returns the inner policy's memory; guard has none of its own.
func (p *Policy) Snapshot() json.RawMessage { return p.inner.Snapshot() }

// Restore puts back a Snapshot.
func (p *Policy) Restore(raw json.RawMessage) error { return p.inner.Restore(raw) }
