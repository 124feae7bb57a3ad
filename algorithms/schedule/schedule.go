// Package schedule answers by the clock: each rule holds from its start to its end (both cron
// expressions) or for a duration after its start, in a time zone and by wall clock. Where several
// hold, the largest count wins; where none does, the default. It covers KEDA's cron scaler and
// AWS's scheduled actions, and is a floor when it runs beside another policy.
//
// Clock changes: see package cron. A start and an end that the same gap skips cancel out.
package schedule

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // time zones must not depend on what the machine has installed

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/memory"
	"github.com/sluice-autoscaler/sluice/algorithms/params"
	"github.com/sluice-autoscaler/sluice/algorithms/schedule/cron"
)

// Rule is a recurring stretch of time with a count.
type Rule struct {
	// Name is for people; it may be empty.
	Name string `json:"name,omitempty"`
	// Start is a cron expression of five fields.
	Start string `json:"start"`
	// End is a cron expression; exactly one of End and Duration is given.
	End string `json:"end,omitempty"`
	// Duration is how long the rule holds after its start, 1m–8784h.
	Duration algorithms.Duration `json:"duration,omitempty"`
	// Replicas is the count while it holds, 0–1,000,000 pods.
	Replicas int `json:"replicas"`
}

// Config holds the parameters.
type Config struct {
	// TimeZone is an IANA name, such as Europe/Berlin.
	TimeZone string `json:"timeZone"`
	// Rules are the stretches of time, at most 100.
	Rules []Rule `json:"rules"`
	// DefaultReplicas is the count while no rule holds, in pods.
	DefaultReplicas int `json:"defaultReplicas"`
	// LeadTime is by how much rules start early, so that pods are ready in time. More
	// costs pods.
	LeadTime algorithms.Duration `json:"leadTime"`
}

// Default returns no rules and one pod, in UTC.
func Default() Config { return Config{TimeZone: "UTC", DefaultReplicas: 1} }

// Params describes the parameters.
func Params() params.List[Config] {
	return params.List[Config]{
		params.Other[Config]("timeZone", "an IANA name", "UTC", "whose wall clock"),
		params.Other[Config]("rules", "up to 100 of {name, start, end or duration, replicas}", "none", "cron start and end; the largest that holds wins"),
		params.Of("defaultReplicas", counts(), "pods", "the count while no rule holds",
			func(c *Config) *int { return &c.DefaultReplicas }),
		params.Of("leadTime", params.Spans(0, time.Hour), "", "how much earlier rules start",
			func(c *Config) *algorithms.Duration { return &c.LeadTime }),
	}
}

// counts is the range of pod counts.
func counts() params.Range { return params.Between(0, 1_000_000) }

// Validate reports every fault.
func (c Config) Validate() error {
	_, err := c.compile()
	return err
}

type rule struct {
	Rule
	start, end cron.Schedule
}

type compiled struct {
	loc   *time.Location
	rules []rule
}

func (c Config) compile() (compiled, error) {
	errs := []error{Params().Check(&c)}
	var out compiled
	loc, err := time.LoadLocation(c.TimeZone)
	// "" would be UTC and Local the machine's: neither is what a reader sees
	if err != nil || c.TimeZone == "" || c.TimeZone == "Local" {
		errs = append(errs, fmt.Errorf("timeZone = %q: want an IANA name, such as UTC or Europe/Berlin", c.TimeZone))
	}
	out.loc = loc
	if len(c.Rules) > 100 {
		errs = append(errs, fmt.Errorf("rules: %d of them: want at most 100", len(c.Rules)))
	}
	for i, r := range c.Rules {
		at := fmt.Sprintf("rules[%d]", i)
		if !counts().Holds(float64(r.Replicas)) {
			errs = append(errs, fmt.Errorf("%s.replicas = %d: want 0–1000000 (pods)", at, r.Replicas))
		}
		cr := rule{Rule: r}
		if cr.start, err = cron.Parse(r.Start); err != nil {
			errs = append(errs, fmt.Errorf("%s.start: %w", at, err))
		}
		if (r.End == "") == (r.Duration == 0) {
			errs = append(errs, fmt.Errorf("%s: want exactly one of end and duration", at))
		}
		if r.End != "" {
			if cr.end, err = cron.Parse(r.End); err != nil {
				errs = append(errs, fmt.Errorf("%s.end: %w", at, err))
			}
		}
		if d := time.Duration(r.Duration); d != 0 && (d < time.Minute || d > 366*24*time.Hour) {
			errs = append(errs, fmt.Errorf("%s.duration = %v: want 1m–8784h", at, d))
		}
		out.rules = append(out.rules, cr)
	}
	return out, errors.Join(errs...)
}

// Policy decides as the package says. It has no memory, but keeps the answer until it can change;
// it is not safe for concurrent use.
type Policy struct {
	cfg Config
	compiled
	// holds is the rule that decides in [from, until); until is zero when it never changes.
	from, until time.Time
	holds       int
}

// New returns a policy with a validated Config.
func New(c Config) (*Policy, error) {
	done, err := c.compile()
	if err != nil {
		return nil, err
	}
	return &Policy{cfg: c, compiled: done}, nil
}

// Needs is empty: the answer depends on the clock alone.
func (p *Policy) Needs() []algorithms.Need { return nil }

// holdsAt tells whether the rule holds at t, and the next instant at which that may change.
func (r *rule) holdsAt(t time.Time, lead time.Duration) (holds bool, next time.Time) {
	ahead := t.Add(lead)
	begin, begun := r.start.Prev(ahead)
	if n, ok := r.start.Next(ahead); ok {
		next = n.Add(-lead)
	}
	var end time.Time
	if r.Duration > 0 {
		if end = begin.Add(time.Duration(r.Duration)); begun && end.After(t) {
			holds = true
			next = earliest(next, end)
		}
		return holds, next
	}
	end, ended := r.end.Prev(t)
	holds = begun && (!ended || begin.After(end))
	if n, ok := r.end.Next(t); ok {
		next = earliest(next, n)
	}
	return holds, next
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// none is the index that stands for the default.
const none = -1

// lookUp finds the rule that decides at t and until when.
func (p *Policy) lookUp(t time.Time) {
	p.from, p.until, p.holds = t, time.Time{}, none
	for i := range p.rules {
		holds, next := p.rules[i].holdsAt(t, time.Duration(p.cfg.LeadTime))
		if !next.IsZero() {
			p.until = earliest(p.until, next)
		}
		if holds && (p.holds == none || p.rules[i].Replicas > p.rules[p.holds].Replicas) {
			p.holds = i
		}
	}
}

// Decide answers one observation. Decision.Next is when the answer can change.
func (p *Policy) Decide(o algorithms.Observation) algorithms.Decision {
	t := o.Now.In(p.loc)
	if p.from.IsZero() || t.Before(p.from) || !p.until.IsZero() && !t.Before(p.until) {
		p.lookUp(t)
	}
	d := algorithms.Decision{Replicas: p.cfg.DefaultReplicas, Valid: true, Reason: "Default"}
	if !p.until.IsZero() {
		d.Next = p.until.Sub(t)
	}
	if p.holds != none {
		d.Replicas, d.Reason = p.rules[p.holds].Replicas, "Scheduled"
	}
	asked := d.Replicas
	if o.Limits.Max > 0 {
		d.Replicas = min(d.Replicas, o.Limits.Max)
	}
	if !o.Quiet {
		who := "no rule holds"
		if p.holds != none {
			r := p.rules[p.holds]
			who = "rule " + strings.TrimSpace(fmt.Sprintf("%s %q", r.Name, r.Start)) + " holds"
		}
		d.Message = fmt.Sprintf("at %s %s: %d pods", t.Format("Mon 15:04 MST"), who, d.Replicas)
		d.Terms = append(o.Scratch[:0],
			algorithms.Term{Name: "scheduled", Value: float64(asked)},
			algorithms.Term{Name: "rule", Value: float64(p.holds)},
			algorithms.Term{Name: "secondsToNext", Value: d.Next.Seconds()})
	}
	return d
}

// Snapshot returns an empty memory.
func (p *Policy) Snapshot() json.RawMessage { return memory.Save("schedule", 1, struct{}{}) }

// Restore checks that it is one of Snapshot's.
func (p *Policy) Restore(raw json.RawMessage) error {
	_, err := memory.Load[struct{}]("schedule", 1, raw)
	return err
}
