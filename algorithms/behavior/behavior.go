// Package behavior holds a count of pods back as spec.behavior of a Kubernetes
// HorizontalPodAutoscaler (autoscaling/v2) does: stabilization windows, then rate limits, in this
// order, with the field names and defaults of the HPA. The source is k8s.io/kubernetes,
// pkg/controller/podautoscaler/horizontal.go; the test module oracle/hpa runs both side by side.
//
// Stabilization: the answer is moved from the current count no further than the least
// recommendation of the scaleUp window and no less far than the largest of the scaleDown window;
// recommendations are recorded as they come in, before all limits.
//
// Rates: with start = current − added + removed within a policy's period, Pods allow start ± value,
// Percent allow ceil(start × (1 + value/100)) up and trunc(start × (1 − value/100)) down;
// selectPolicy takes the largest change (Max), the smallest (Min) or none (Disabled).
//
// An HPA without spec.behavior at all follows older rules, which NewOlder has: the largest
// recommendation of the last 300 s, that instant included, and at most max(2 × start, 4) pods. The
// HPA takes the current count for start, since it decides once in 15 s. Here start is the count 15
// s ago, current − added + removed within that time, so that deciding more often is no faster. At
// decisions 15 s apart or more the two are equal.
package behavior

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

// Rules are the two directions; nil means the HPA's defaults.
type Rules struct {
	ScaleUp   *Direction `json:"scaleUp,omitempty"`
	ScaleDown *Direction `json:"scaleDown,omitempty"`
}

// Direction holds the rules of one direction. Fields left out have the HPA's defaults.
type Direction struct {
	// StabilizationWindowSeconds is how far back recommendations are looked at, 0–3600; 0 up and
	// 300 down by default.
	StabilizationWindowSeconds *int `json:"stabilizationWindowSeconds,omitempty"`
	// SelectPolicy is Max (default), Min or Disabled.
	SelectPolicy string `json:"selectPolicy,omitempty"`
	// Policies bound the change; by default 100 percent or 4 pods in 15 s up, and 100 percent in
	// 15 s down.
	Policies []Policy `json:"policies,omitempty"`
	// Tolerance is the share of deviation from the target that changes nothing, ≥ 0; it is for
	// policies that compare with a target.
	Tolerance *algorithms.Quantity `json:"tolerance,omitempty"`
}

// Policy bounds the change within a period.
type Policy struct {
	// Type is Pods or Percent.
	Type string `json:"type"`
	// Value is the change allowed, in pods or percent, > 0.
	Value int `json:"value"`
	// PeriodSeconds is the period that it is for, 1–1800.
	PeriodSeconds int `json:"periodSeconds"`
}

// The names that the HPA's fields take.
const (
	Max      = "Max"
	Min      = "Min"
	Disabled = "Disabled"
	Pods     = "Pods"
	Percent  = "Percent"
)

// Validate reports every fault.
func (r Rules) Validate() error {
	var errs []error
	for _, d := range []struct {
		name  string
		rules *Direction
	}{{"scaleUp", r.ScaleUp}, {"scaleDown", r.ScaleDown}} {
		if d.rules == nil {
			continue
		}
		if w := d.rules.StabilizationWindowSeconds; w != nil && (*w < 0 || *w > 3600) {
			errs = append(errs, fmt.Errorf("behavior.%s.stabilizationWindowSeconds = %d: want 0–3600 (seconds)", d.name, *w))
		}
		switch d.rules.SelectPolicy {
		case "", Max, Min, Disabled:
		default:
			errs = append(errs, fmt.Errorf("behavior.%s.selectPolicy = %q: want Max, Min or Disabled", d.name, d.rules.SelectPolicy))
		}
		if d.rules.Policies != nil && len(d.rules.Policies) == 0 {
			errs = append(errs, fmt.Errorf("behavior.%s.policies is empty: leave it out or name one", d.name))
		}
		for i, p := range d.rules.Policies {
			at := fmt.Sprintf("behavior.%s.policies[%d]", d.name, i)
			if p.Type != Pods && p.Type != Percent {
				errs = append(errs, fmt.Errorf("%s.type = %q: want Pods or Percent", at, p.Type))
			}
			if p.Value < 1 || p.Value > math.MaxInt32 {
				errs = append(errs, fmt.Errorf("%s.value = %d: want a whole number > 0", at, p.Value))
			}
			if p.PeriodSeconds < 1 || p.PeriodSeconds > 1800 {
				errs = append(errs, fmt.Errorf("%s.periodSeconds = %d: want 1–1800 (seconds)", at, p.PeriodSeconds))
			}
		}
		if t := d.rules.Tolerance; t != nil && t.Milli() < 0 {
			errs = append(errs, fmt.Errorf("behavior.%s.tolerance = %s: want a number ≥ 0", d.name, t))
		}
	}
	return errors.Join(errs...)
}

// Tolerances are the tolerances down and up, of which those left out are def.
func (r *Rules) Tolerances(def float64) (down, up float64) {
	down, up = def, def
	if r == nil {
		return down, up
	}
	if r.ScaleDown != nil && r.ScaleDown.Tolerance != nil {
		down = r.ScaleDown.Tolerance.Float()
	}
	if r.ScaleUp != nil && r.ScaleUp.Tolerance != nil {
		up = r.ScaleUp.Tolerance.Float()
	}
	return down, up
}

// direction is a Direction with defaults filled in.
type direction struct {
	up       bool
	window   time.Duration
	policies []Policy
	choose   string
	longest  time.Duration
}

func resolve(d *Direction, up bool) direction {
	r := direction{up: up, choose: Max, policies: []Policy{{Percent, 100, 15}}}
	if up {
		r.policies = append(r.policies, Policy{Pods, 4, 15})
	} else {
		r.window = 300 * time.Second
	}
	if d != nil {
		if d.StabilizationWindowSeconds != nil {
			r.window = time.Duration(*d.StabilizationWindowSeconds) * time.Second
		}
		if d.SelectPolicy != "" {
			r.choose = d.SelectPolicy
		}
		if d.Policies != nil {
			r.policies = d.Policies
		}
	}
	for _, p := range r.policies {
		r.longest = max(r.longest, time.Duration(p.PeriodSeconds)*time.Second)
	}
	return r
}

// Limiter applies Rules over time. It is not safe for concurrent use.
type Limiter struct {
	up, down direction
	older    bool
	state    state
}

// state is the memory, as it is serialized.
type state struct {
	Version int  `json:"version"`
	Started bool `json:"started"`
	// Least are the recommendations of the scaleUp window that no later one undercuts, Largest
	// those of the scaleDown window that no later one reaches; oldest first.
	Least   []algorithms.Count `json:"least,omitempty"`
	Largest []algorithms.Count `json:"largest,omitempty"`
	// Added and Removed are the changes made.
	Added   []change `json:"added,omitempty"`
	Removed []change `json:"removed,omitempty"`
	// Pending is the last answer, which counts as made when the next current count shows it.
	Pending *pending `json:"pending,omitempty"`
}

type change struct {
	At   time.Time `json:"at"`
	Pods int       `json:"pods"`
	// Spent says that the change was older than every period of its own direction once: its place
	// is taken by a later one.
	Spent bool `json:"spent,omitempty"`
}

type pending struct {
	At   time.Time `json:"at"`
	From int       `json:"from"`
	To   int       `json:"to"`
}

// New returns a Limiter of validated Rules.
func New(r Rules) (*Limiter, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return &Limiter{up: resolve(r.ScaleUp, true), down: resolve(r.ScaleDown, false), state: state{Version: 1}}, nil
}

// olderPeriod is how often the HPA decides, and so the period of its older rules' rate.
const olderPeriod = 15 * time.Second

// NewOlder returns a Limiter with the rules of an HPA without spec.behavior.
func NewOlder() *Limiter { return NewOlderOver(300 * time.Second) }

// NewOlderOver is NewOlder with another window for the largest recommendation, the controller's
// --horizontal-pod-autoscaler-downscale-stabilization.
func NewOlderOver(window time.Duration) *Limiter {
	down := resolve(nil, false)
	down.window, down.longest = window, olderPeriod
	return &Limiter{up: direction{up: true, longest: olderPeriod}, down: down, older: true, state: state{Version: 1}}
}

// Observe tells the current count before Apply. The last answer, if it is what the count now is, is
// taken as made.
func (l *Limiter) Observe(now time.Time, current int) {
	s := &l.state
	if p := s.Pending; p != nil && p.To == current && p.From != p.To {
		if p.To > p.From {
			s.Added = record(s.Added, p.At, p.To-p.From, l.up.longest)
		} else {
			s.Removed = record(s.Removed, p.At, p.From-p.To, l.down.longest)
		}
		p.From = p.To
	}
	if !s.Started {
		s.Started = true
		s.recommend(now, current, l.up.window, l.down.window)
	}
}

// Answered tells what was answered in the end, at now and for the current count.
func (l *Limiter) Answered(now time.Time, current, n int) {
	if l.state.Pending == nil {
		l.state.Pending = &pending{}
	}
	*l.state.Pending = pending{At: now, From: current, To: n}
}

// Past is what bears upon an answer of what was before.
type Past struct {
	// Least is the least recommendation of the scaleUp window, Largest the largest one of the
	// scaleDown window; nil where there is none.
	Least, Largest *int
	// Changed is how many pods were added and removed within the period that ends now; nil stands
	// for what the Limiter remembers.
	Changed func(period time.Duration) (added, removed int)
	// Bound, of a past whose changes are unknown, is the lowest or the highest count that any
	// changes lead to.
	Bound Bound
}

// Bound says which of the counts is wanted that unknown changes can lead to.
type Bound int

// The bounds; the zero value takes the changes as known.
const (
	Known Bound = iota
	Lowest
	Highest
)

// Outcome is a count after each of the rules, and the HPA's word for the one that changed it, ""
// where none did.
type Outcome struct {
	Stabilized   int
	StabilizedBy string
	Limited      int
	LimitedBy    string
}

// Windows are how long recommendations up and down are looked back at, and Longest is the longest
// period of the rates.
func (l *Limiter) Windows() (up, down, longest time.Duration) {
	return l.up.window, l.down.window, max(l.up.longest, l.down.longest)
}

// Older tells whether the rules are those of an HPA without spec.behavior.
func (l *Limiter) Older() bool { return l.older }

// Apply stabilizes desired, bounds it by rates and by lo and hi, and records it. Reason is the
// HPA's word for what held it back, "" for nothing.
func (l *Limiter) Apply(now time.Time, current, desired, lo, hi int) (n int, reason string) {
	s := &l.state
	var past Past
	down := l.down.window
	if l.older {
		down++ // the older rule has the instant itself
	}
	if s.Least = fresh(s.Least, now, l.up.window); len(s.Least) > 0 {
		past.Least = &s.Least[0].Pods
	}
	if s.Largest = fresh(s.Largest, now, down); len(s.Largest) > 0 {
		past.Largest = &s.Largest[0].Pods
	}
	o := l.Step(now, past, current, desired, lo, hi)
	s.recommend(now, desired, l.up.window, l.down.window)
	if o.LimitedBy != "" {
		return o.Limited, o.LimitedBy
	}
	return o.Limited, o.StabilizedBy
}

// Step is what the rules make of a count, given a past. It changes nothing in the Limiter.
func (l *Limiter) Step(now time.Time, past Past, current, desired, lo, hi int) Outcome {
	if l.older {
		return l.stepOlder(now, past, current, desired, lo, hi)
	}
	least, largest := desired, desired
	if past.Least != nil {
		least = min(least, *past.Least)
	}
	if past.Largest != nil {
		largest = max(largest, *past.Largest)
	}
	n := min(max(current, least), largest)
	o := Outcome{Stabilized: n, Limited: n}
	if n != desired {
		if o.StabilizedBy = "ScaleDownStabilized"; desired >= current {
			o.StabilizedBy = "ScaleUpStabilized"
		}
	}
	switch {
	case n > current:
		limit := max(current, l.limit(now, &l.up, past, current))
		if hi <= limit {
			if n > hi {
				o.Limited, o.LimitedBy = hi, "TooManyReplicas"
			}
		} else if n > limit {
			o.Limited, o.LimitedBy = limit, "ScaleUpLimit"
		}
	case n < current:
		limit := min(current, l.limit(now, &l.down, past, current))
		if lo >= limit {
			if n < lo {
				o.Limited, o.LimitedBy = lo, "TooFewReplicas"
			}
		} else if n < limit {
			o.Limited, o.LimitedBy = limit, "ScaleDownLimit"
		}
	}
	return o
}

// stepOlder is Step by the older rules.
func (l *Limiter) stepOlder(now time.Time, past Past, current, desired, lo, hi int) Outcome {
	o := Outcome{Stabilized: desired}
	if past.Largest != nil && *past.Largest > desired {
		o.Stabilized, o.StabilizedBy = *past.Largest, "ScaleDownStabilized"
	}
	n := o.Stabilized
	o.Limited = n
	added, removed := l.changed(now, past, olderPeriod)
	limit := max(2*(current-added+removed), 4, current)
	switch {
	case n < lo:
		o.Limited, o.LimitedBy = lo, "TooFewReplicas"
	case hi <= limit && n > hi:
		o.Limited, o.LimitedBy = hi, "TooManyReplicas"
	case hi > limit && n > limit:
		o.Limited, o.LimitedBy = limit, "ScaleUpLimit"
	}
	return o
}

// limit is how far the rates let the count go.
func (l *Limiter) limit(now time.Time, d *direction, past Past, current int) int {
	if d.choose == Disabled {
		return current
	}
	if past.Bound != Known {
		if d.up != (past.Bound == Highest) {
			return current
		}
		if d.up {
			return math.MaxInt32
		}
		return 0
	}
	best := 0
	for i, p := range d.policies {
		added, removed := l.changed(now, past, time.Duration(p.PeriodSeconds)*time.Second)
		start := current - added + removed
		var n int
		switch {
		case p.Type == Pods && d.up:
			n = start + p.Value
		case p.Type == Pods:
			n = start - p.Value
		case d.up:
			n = int(math.Ceil(float64(start) * (1 + float64(p.Value)/100)))
		default:
			n = int(float64(start) * (1 - float64(p.Value)/100))
		}
		switch larger := d.up == (d.choose == Max); {
		case i == 0:
			best = n
		case larger:
			best = max(best, n)
		default:
			best = min(best, n)
		}
	}
	return best
}

// changed is how many pods were added and removed within the period.
func (l *Limiter) changed(now time.Time, past Past, period time.Duration) (added, removed int) {
	if past.Changed != nil {
		return past.Changed(period)
	}
	return within(l.state.Added, now, period), within(l.state.Removed, now, period)
}

// within sums the changes younger than the period.
func within(changes []change, now time.Time, period time.Duration) int {
	n := 0
	for i := range changes {
		if now.Sub(changes[i].At) < period {
			n += changes[i].Pods
		}
	}
	return n
}

// record adds a change. Of those that are older than the longest period of their own direction one
// gives its place to it, as in the HPA: the others still count in the other direction, whose
// periods may be longer.
func record(changes []change, at time.Time, pods int, longest time.Duration) []change {
	place := -1
	for i := range changes {
		changes[i].Spent = changes[i].Spent || at.Sub(changes[i].At) > longest
		if changes[i].Spent {
			place = i
		}
	}
	if place < 0 {
		return append(changes, change{At: at, Pods: pods})
	}
	changes[place] = change{At: at, Pods: pods}
	return changes
}

// recommend records a recommendation in both windows.
func (s *state) recommend(now time.Time, n int, up, down time.Duration) {
	if up > 0 {
		for len(s.Least) > 0 && s.Least[len(s.Least)-1].Pods >= n {
			s.Least = s.Least[:len(s.Least)-1]
		}
		s.Least = append(s.Least, algorithms.Count{At: now, Pods: n})
	}
	if down > 0 {
		for len(s.Largest) > 0 && s.Largest[len(s.Largest)-1].Pods <= n {
			s.Largest = s.Largest[:len(s.Largest)-1]
		}
		s.Largest = append(s.Largest, algorithms.Count{At: now, Pods: n})
	}
}

// fresh drops what has left the window.
func fresh(c []algorithms.Count, now time.Time, window time.Duration) []algorithms.Count {
	old := 0
	for old < len(c) && now.Sub(c[old].At) >= window {
		old++
	}
	if old == 0 {
		return c
	}
	return c[:copy(c, c[old:])]
}

// Snapshot returns the memory.
func (l *Limiter) Snapshot() json.RawMessage {
	b, err := json.Marshal(l.state)
	if err != nil { // times and ints always marshal
		return nil
	}
	return b
}

// Restore puts back a Snapshot.
func (l *Limiter) Restore(raw json.RawMessage) error {
	var s state
	if err := algorithms.Strict(raw, &s); err != nil {
		return fmt.Errorf("read behavior snapshot: %w", err)
	}
	if s.Version != 1 {
		return fmt.Errorf("behavior snapshot has version %d: want 1", s.Version)
	}
	l.state = s
	return nil
}
