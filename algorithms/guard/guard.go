// Package guard wraps a policy with the rules that hold whatever the policy says: bounds, no
// scaling down on what is unknown, sleep only after an idle time that was really seen, a wake-up
// that is sized by what is waiting, the HPA's behavior (package behavior), a fallback when nothing
// is known for long, and containment of a policy that panics or answers nonsense.
//
// The rules in their order:
//
//	contained   a panic, a count below 0 or over 1,000,000, or a term that is no number: the answer counts as unknown
//	wake        requests wait and no pod is ready: at least waiting / target pods, at least the current count
//	unknown     hold; after Hold, and if there is a Fallback, the larger of it and the current count
//	partial     a needed signal is not known well enough: hold, unless the answer is more pods
//	behavior    stabilization windows, then rate limits
//	idle        0 only after IdleAfter without any demand, seen with full coverage
//	bounds      minimum, then maximum; they hold in every case, but 0 pods of which nothing is known stay asleep
package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/behavior"
)

// FullCoverage is the share of sources × time that must have reported for a value to count as known
// when going down.
const FullCoverage = 0.9

// most bounds what counts as sense.
const most = 1_000_000

// Config holds the parameters.
type Config struct {
	// IdleAfter is how long demand must have been exactly zero before 0 replicas are allowed,
	// 1s–1h.
	IdleAfter time.Duration
	// Idle are the signals that are zero while there is no demand; nil means concurrency alone.
	Idle []string
	// Target is the concurrency per pod, > 0, by which a wake-up from zero is sized; 0 means: one
	// pod.
	Target float64
	// Min and Max are bounds that take the place of Observation.Limits; nil leaves those.
	Min, Max *int
	// Behavior holds the HPA's stabilization windows and rates; nil means neither. A tolerance in
	// it is compared with the change of the count, since guard knows no target: 5 pods stay 5
	// though 6 are asked for when scaleUp's is 0.2.
	Behavior *behavior.Rules
	// Hold is how long nothing changes when the policy cannot tell, 0–24h, before Fallback counts.
	// Without a Fallback it has no end.
	Hold time.Duration
	// Fallback is the least count once Hold has passed, nil for none. It never takes pods away:
	// nothing is known then.
	Fallback *int
}

// Default returns an idle time of a minute and a hold of ten, without behavior and fallback.
func Default() Config { return Config{IdleAfter: time.Minute, Hold: 10 * time.Minute} }

// parameters is the JSON form of a Config, with the names of the Autoscaler's spec.
type parameters struct {
	Target        *float64        `json:"target"`
	MinReplicas   *int            `json:"minReplicas"`
	MaxReplicas   *int            `json:"maxReplicas"`
	Behavior      *behavior.Rules `json:"behavior"`
	ScaleToZero   *scaleToZero    `json:"scaleToZero"`
	OnMissingData *onMissingData  `json:"onMissingData"`
}

type scaleToZero struct {
	After algorithms.Duration `json:"after"`
}

type onMissingData struct {
	Hold     *algorithms.Duration `json:"hold"`
	Replicas *int                 `json:"replicas"`
}

// Parse reads JSON parameters over a Config that holds the defaults:
//
//	{"minReplicas": 0, "maxReplicas": 50, "target": 10, "behavior": {…}, "scaleToZero": {"after": "60s"},
//	 "onMissingData": {"hold": "10m", "replicas": 3}}
func Parse(c Config, raw json.RawMessage) (Config, error) {
	var p parameters
	if err := algorithms.Strict(raw, &p); err != nil {
		return c, fmt.Errorf("guard: %w (parameters: minReplicas, maxReplicas, target, behavior, scaleToZero, onMissingData)", err)
	}
	if p.Target != nil {
		c.Target = *p.Target
	}
	if p.MinReplicas != nil {
		c.Min = p.MinReplicas
	}
	if p.MaxReplicas != nil {
		c.Max = p.MaxReplicas
	}
	if p.Behavior != nil {
		c.Behavior = p.Behavior
	}
	if p.ScaleToZero != nil {
		c.IdleAfter = time.Duration(p.ScaleToZero.After)
	}
	if m := p.OnMissingData; m != nil {
		if m.Hold != nil {
			c.Hold = time.Duration(*m.Hold)
		}
		c.Fallback = m.Replicas
	}
	return c, c.Validate()
}

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	if c.IdleAfter < time.Second || c.IdleAfter > time.Hour {
		errs = append(errs, fmt.Errorf("scaleToZero.after = %v: want 1s–1h", c.IdleAfter))
	}
	if !algorithms.Finite(c.Target) || c.Target < 0 {
		errs = append(errs, fmt.Errorf("target = %v: want a finite number ≥ 0 (requests per pod)", c.Target))
	}
	if c.Min != nil && (*c.Min < 0 || *c.Min > most) {
		errs = append(errs, fmt.Errorf("minReplicas = %d: want 0–%d", *c.Min, most))
	}
	if c.Max != nil && (*c.Max < 1 || *c.Max > most || c.Min != nil && *c.Max < *c.Min) {
		errs = append(errs, fmt.Errorf("maxReplicas = %d: want 1–%d and no less than minReplicas", *c.Max, most))
	}
	if c.Behavior != nil {
		errs = append(errs, c.Behavior.Validate())
	}
	if c.Hold < 0 || c.Hold > 24*time.Hour {
		errs = append(errs, fmt.Errorf("onMissingData.hold = %v: want 0s–24h", c.Hold))
	}
	if c.Fallback != nil && (*c.Fallback < 0 || *c.Fallback > most) {
		errs = append(errs, fmt.Errorf("onMissingData.replicas = %d: want 0–%d", *c.Fallback, most))
	}
	return errors.Join(errs...)
}

// stockLimits is a policy that is limited as its vendor's without spec.behavior. Where the guard
// has a behavior, that takes the place of those limits: they must not hold twice.
type stockLimits interface{ YieldLimits() }

// Policy is a guarded policy. It is not safe for concurrent use.
type Policy struct {
	cfg   Config
	inner algorithms.Policy
	// needs are the inner policy's.
	needs   []algorithms.Need
	limiter *behavior.Limiter // nil without Behavior
	// down and up are the tolerances of Behavior, 0 where it names none.
	down, up float64
	// unknownSince is since when the policy could not tell; the zero time when it can.
	unknownSince time.Time
	buffer       []algorithms.Signal
}

// New wraps inner; the Config is validated.
func New(c Config, inner algorithms.Policy) (*Policy, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Idle == nil {
		c.Idle = []string{algorithms.Concurrency}
	}
	p := &Policy{cfg: c, inner: inner, needs: inner.Needs()}
	if c.Behavior != nil {
		if l, ok := inner.(stockLimits); ok {
			l.YieldLimits()
		}
		var err error
		if p.limiter, err = behavior.New(*c.Behavior); err != nil {
			return nil, err
		}
		p.down, p.up = c.Behavior.Tolerances(0)
	}
	return p, nil
}

// Needs adds the idle time and what waits to the inner policy's needs.
func (p *Policy) Needs() []algorithms.Need {
	needs := append([]algorithms.Need(nil), p.needs...)
	for _, name := range p.cfg.Idle {
		needs = append(needs, algorithms.Need{Name: name, Window: p.cfg.IdleAfter})
	}
	return append(needs, algorithms.Need{Name: algorithms.Waiting, Window: algorithms.Instant})
}

// Decide asks the inner policy and applies the rules.
func (p *Policy) Decide(o algorithms.Observation) algorithms.Decision {
	cur := o.Replicas.Current
	if p.cfg.Min != nil {
		o.Limits.Min = *p.cfg.Min
	}
	if p.cfg.Max != nil {
		o.Limits.Max = *p.cfg.Max
	}
	if p.limiter != nil {
		p.limiter.Observe(o.Now, cur)
	}
	partial, blind, doubted := p.doubts(&o)
	asked := o
	if partial {
		p.buffer = trusted(o.Signals, p.buffer[:0])
		asked.Signals = p.buffer
	}
	d := p.ask(asked)
	if !o.Quiet && d.Valid {
		d.Terms = append(d.Terms, algorithms.Term{Name: "policyReplicas", Value: float64(d.Replicas)})
	}

	wake, waiting := p.wake(&o)
	woken := wake > 0 && (!d.Valid || d.Replicas < wake)
	switch {
	case woken:
		from := answered(&d)
		d.Valid, d.Replicas = true, wake
		if clamp(&o, &d, "Wake", from) {
			say(&d, fmt.Sprintf("%.0f requests wait and no pod is ready", waiting))
		}
	case !d.Valid:
		d.Message += p.missing(&o)
		return p.hold(&o, d)
	case partial && d.Replicas <= cur:
		d.Valid, d.Reason = false, "PartialData"
		if blind {
			d.Reason = "NoData"
		}
		if !o.Quiet {
			d.Clamps = append(d.Clamps, algorithms.Clamp{Rule: d.Reason, From: d.Replicas, To: cur})
			what := "a needed signal is missing"
			if doubted >= 0 {
				sig := &o.Signals[doubted]
				what = fmt.Sprintf("%s over %s is known to %.0f %% only, its stalest reading %s old", sig.Name, sig.Window, 100*sig.Coverage, sig.Age.Round(time.Millisecond))
			}
			d.Message = what + p.missing(&o) + ": holding, since down is not allowed on that (" + d.Message + ")"
		}
		if blind {
			return p.hold(&o, d)
		}
		p.unknownSince = time.Time{}
		return p.bounded(&o, d)
	}
	p.unknownSince = time.Time{}
	if p.limiter != nil && !woken {
		p.behave(&o, &d)
		if from := d.Replicas; from < wake { // behavior bounds no wake-up: it would have no end
			d.Replicas = wake
			if clamp(&o, &d, "Wake", from) {
				say(&d, fmt.Sprintf("%.0f requests wait and no pod is ready", waiting))
			}
		}
	}
	if d.Replicas < 1 && o.Limits.Min == 0 && cur > 0 && !p.idle(&o) {
		from := d.Replicas
		d.Replicas = 1
		if clamp(&o, &d, "NotIdleYet", from) {
			say(&d, fmt.Sprintf("demand has not been zero for %s", p.cfg.IdleAfter))
		}
	}
	bound(&o, &d)
	if p.limiter != nil {
		p.limiter.Answered(o.Now, cur, d.Replicas)
	}
	return d
}

// ask has the inner policy decide, and contains what it should not do.
func (p *Policy) ask(o algorithms.Observation) (d algorithms.Decision) {
	defer func() {
		if r := recover(); r != nil {
			d = algorithms.Decision{Reason: "PolicyPanic", Message: fmt.Sprintf("the policy panicked: %v", r)}
		}
	}()
	d = p.inner.Decide(o)
	fault := ""
	if d.Valid && (d.Replicas < 0 || d.Replicas > most) {
		fault = fmt.Sprintf("%d replicas", d.Replicas)
	}
	for i := range d.Terms {
		if t := &d.Terms[i]; fault == "" && !algorithms.Finite(t.Value) {
			fault = fmt.Sprintf("%s = %v", t.Name, t.Value)
		}
	}
	if fault != "" {
		return algorithms.Decision{Reason: "PolicyNonsense", Message: "the policy answers nonsense: " + fault}
	}
	d.Next = max(0, d.Next)
	return d
}

// wake is the least count while requests wait and no pod is ready, 0 when there is no such need.
func (p *Policy) wake(o *algorithms.Observation) (n int, waiting float64) {
	i := o.Index(algorithms.Waiting, algorithms.Instant)
	if o.Replicas.Ready > 0 || i < 0 || o.Signals[i].Value <= 0 {
		return 0, 0
	}
	waiting = o.Signals[i].Value
	// means over windows lag behind a wake-up: nothing is taken back while it goes on
	n = max(1, o.Replicas.Current)
	if p.cfg.Target > 0 {
		n = max(n, algorithms.Pods(math.Ceil(waiting/p.cfg.Target)))
	}
	return n, waiting
}

// hold answers when nothing is known: nothing changes, until the hold time has passed and there is
// a fallback.
func (p *Policy) hold(o *algorithms.Observation, d algorithms.Decision) algorithms.Decision {
	if p.unknownSince.IsZero() || o.Now.Before(p.unknownSince) {
		p.unknownSince = o.Now
	}
	d.Valid = false
	if d.Reason == "" {
		d.Reason = "NoData"
	}
	if p.cfg.Fallback == nil {
		return p.bounded(o, d)
	}
	left := p.cfg.Hold - o.Now.Sub(p.unknownSince)
	if left > 0 {
		if d.Next == 0 || left < d.Next {
			d.Next = left
		}
		return p.bounded(o, d)
	}
	from := answered(&d)
	d.Valid, d.Replicas = true, max(o.Replicas.Current, *p.cfg.Fallback)
	if clamp(o, &d, "Fallback", from) {
		say(&d, fmt.Sprintf("unknown for %s, and the fallback is %d", o.Now.Sub(p.unknownSince), *p.cfg.Fallback))
	}
	bound(o, &d)
	if p.limiter != nil {
		p.limiter.Answered(o.Now, o.Replicas.Current, d.Replicas)
	}
	return d
}

// bounded is a hold, unless the current count is out of bounds: that is put right whatever is known
// of demand, as the HPA does. A count of 0 is asleep, not too small.
func (p *Policy) bounded(o *algorithms.Observation, d algorithms.Decision) algorithms.Decision {
	cur := o.Replicas.Current
	if cur == 0 || cur >= o.Limits.Min && cur <= o.Limits.Max {
		return d
	}
	d.Valid, d.Replicas = true, cur
	bound(o, &d)
	if p.limiter != nil {
		p.limiter.Answered(o.Now, cur, d.Replicas)
	}
	return d
}

// behave applies the HPA's behavior. A current count that is out of bounds is put right before
// anything else, as there.
func (p *Policy) behave(o *algorithms.Observation, d *algorithms.Decision) {
	cur, lo, hi := o.Replicas.Current, o.Limits.Min, o.Limits.Max
	switch {
	case cur > hi:
		d.Replicas = hi
		return
	case cur > 0 && cur < lo:
		d.Replicas = lo
		return
	}
	if n := float64(d.Replicas) / float64(cur); d.Replicas != cur && n >= 1-p.down && n <= 1+p.up {
		from := d.Replicas
		d.Replicas = cur
		if clamp(o, d, "WithinTolerance", from) {
			say(d, "the change is within the tolerance of behavior")
		}
	}
	n, why := p.limiter.Apply(o.Now, cur, d.Replicas, lo, hi)
	if n == d.Replicas {
		return
	}
	if why == "TooManyReplicas" || why == "TooFewReplicas" {
		return // the bounds say so themselves, in Sluice's words
	}
	from := d.Replicas
	d.Replicas = n
	if clamp(o, d, why, from) {
		say(d, map[string]string{
			"ScaleUpStabilized": "the least recommendation of the scaleUp window holds", "ScaleDownStabilized": "the largest recommendation of the scaleDown window holds",
			"ScaleUpLimit": "faster than the scaleUp policies allow", "ScaleDownLimit": "faster than the scaleDown policies allow",
		}[why])
	}
}

// bound keeps the count within the limits.
func bound(o *algorithms.Observation, d *algorithms.Decision) {
	if d.Replicas < o.Limits.Min {
		from := d.Replicas
		d.Replicas = o.Limits.Min
		if clamp(o, d, "MinReplicas", from) {
			say(d, fmt.Sprintf("the lower bound is %d", o.Limits.Min))
		}
	}
	if d.Replicas > o.Limits.Max {
		from := d.Replicas
		d.Replicas = o.Limits.Max
		if clamp(o, d, "MaxReplicas", from) {
			say(d, fmt.Sprintf("the upper bound is %d", o.Limits.Max))
		}
	}
}

// doubts tells whether some signal that the inner policy needs is not known well enough to scale
// down on (partial), and whether nothing at all is known of one of them (blind); first is the place
// of the first such signal, −1 when it is not there. Readings of single pods are the policy's own
// matter.
func (p *Policy) doubts(o *algorithms.Observation) (partial, blind bool, first int) {
	first = -1
	for i := range p.needs {
		n := &p.needs[i]
		if n.PerPod && o.Pods != nil {
			continue
		}
		best := -1
		for j := range o.Signals {
			s := &o.Signals[j]
			if s.Name != n.Name {
				continue
			}
			if s.Window == n.Window {
				best = j
				break
			}
			// a need of the instant is served by the shortest window where there is no reading
			if n.Window == algorithms.Instant && (best < 0 || s.Window < o.Signals[best].Window) {
				best = j
			}
		}
		if best < 0 {
			return true, true, first
		}
		if s := &o.Signals[best]; !s.Usable() || s.Coverage < FullCoverage {
			if !partial {
				partial, first = true, best
			}
			blind = blind || s.Coverage <= 0 || s.Known && !s.Usable() || !algorithms.Finite(s.Value)
		}
	}
	return partial, blind, first
}

// missing says in parentheses why a needed signal is not known, in its source's words; "" where
// that has none.
func (p *Policy) missing(o *algorithms.Observation) string {
	for i := 0; i < len(p.needs) && !o.Quiet; i++ {
		for j := range o.Signals {
			if s := &o.Signals[j]; s.Name == p.needs[i].Name && !s.Known && s.Missing != "" {
				return " (" + s.Name + ": " + s.Missing + ")"
			}
		}
	}
	return ""
}

// idle tells whether demand was exactly zero over the whole idle time, and nothing waits.
func (p *Policy) idle(o *algorithms.Observation) bool {
	if w := o.Index(algorithms.Waiting, algorithms.Instant); w < 0 || o.Signals[w].Value != 0 {
		return false
	}
	for _, name := range p.cfg.Idle {
		if s := o.Index(name, p.cfg.IdleAfter); s < 0 || o.Signals[s].Value != 0 || o.Signals[s].Coverage < FullCoverage {
			return false
		}
	}
	return true
}

// trusted appends a copy in which whatever has some coverage counts as known: a lower bound of
// demand.
func trusted(in, out []algorithms.Signal) []algorithms.Signal {
	for _, s := range in {
		s.Known = s.Known || s.Coverage > 0
		out = append(out, s)
	}
	return out
}

// answered is the count of a decision, -1 when it has none.
func answered(d *algorithms.Decision) int {
	if !d.Valid {
		return -1
	}
	return d.Replicas
}

// clamp makes rule the reason of a count that was from before. It tells whether words are wanted.
func clamp(o *algorithms.Observation, d *algorithms.Decision, rule string, from int) bool {
	d.Reason = rule
	if o.Quiet {
		return false
	}
	if from != d.Replicas {
		d.Clamps = append(d.Clamps, algorithms.Clamp{Rule: rule, From: from, To: d.Replicas})
	}
	return true
}

// say adds to the message why the count is what it is now.
func say(d *algorithms.Decision, why string) {
	if d.Message != "" {
		d.Message += "; "
	}
	d.Message += fmt.Sprintf("%s: %d", why, d.Replicas)
}

// Learns names the signals that the inner policy learns from a past, none if it learns from none.
func (p *Policy) Learns() []string {
	if l, ok := p.inner.(algorithms.Learner); ok {
		return l.Learns()
	}
	return nil
}

// Learn hands a past on to the inner policy, if that learns from one.
func (p *Policy) Learn(history []algorithms.Sample) error {
	if l, ok := p.inner.(algorithms.Learner); ok {
		return l.Learn(history)
	}
	return nil
}

// snapshot is the memory, as it is serialized.
type snapshot struct {
	Version      int             `json:"version"`
	UnknownSince time.Time       `json:"unknownSince,omitzero"`
	Behavior     json.RawMessage `json:"behavior,omitempty"`
	Policy       json.RawMessage `json:"policy"`
}

// Snapshot returns guard's memory and the inner policy's.
func (p *Policy) Snapshot() json.RawMessage {
	s := snapshot{Version: 1, UnknownSince: p.unknownSince, Policy: p.inner.Snapshot()}
	if p.limiter != nil {
		s.Behavior = p.limiter.Snapshot()
	}
	b, err := json.Marshal(s)
	if err != nil { // only if the inner policy's is no JSON
		return nil
	}
	return b
}

// Restore puts back a Snapshot. What a change of parameters has taken away is left out.
func (p *Policy) Restore(raw json.RawMessage) error { return p.restore(raw, p.inner.Restore) }

// RestoreRules puts back guard's own part of a Snapshot, the windows and rates of behavior above
// all, and leaves the inner policy as it is.
func (p *Policy) RestoreRules(raw json.RawMessage) error {
	return p.restore(raw, func(json.RawMessage) error { return nil })
}

func (p *Policy) restore(raw json.RawMessage, inner func(json.RawMessage) error) error {
	var s snapshot
	if err := algorithms.Strict(raw, &s); err != nil {
		return fmt.Errorf("read guard snapshot: %w", err)
	}
	if s.Version != 1 {
		return fmt.Errorf("guard snapshot has version %d: want 1", s.Version)
	}
	restore := p.limiter != nil && s.Behavior != nil
	var before json.RawMessage
	if restore {
		before = p.limiter.Snapshot()
		if err := p.limiter.Restore(s.Behavior); err != nil {
			return err
		}
	}
	if err := inner(s.Policy); err != nil {
		if restore {
			err = errors.Join(err, p.limiter.Restore(before))
		}
		return err
	}
	p.unknownSince = s.UnknownSince
	return nil
}
