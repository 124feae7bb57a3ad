// Package keda decides like KEDA 2.21: an operator that checks every pollingInterval whether the
// workload is active and moves it between zero (or idle) and its minimum, and an HPA that moves it
// between the minimum and the maximum.
//
//	active      some trigger's value > its activationThreshold, or it is in fallback
//	            (with a formula: no trigger in error, and the formula's value > activationTarget)
//	operator, at a poll:
//	  active    at 0 replicas (or below minReplicaCount in idle mode): to max(1, minReplicaCount)
//	  inactive  with minReplicaCount 0 or in idle mode: to 0 once cooldownPeriod has passed since it was
//	            last active, or initialCooldownPeriod since the first decision when it never was; below
//	            minReplicaCount: to minReplicaCount
//	  in error  inactive and without a value for some trigger: nothing, so that zero is never reached on
//	            missing data; but as inactive where the fallback has 0 replicas
//	HPA, at every decision above 0 replicas: package hpa, a metric of type External per trigger or one
//	            for the formula, bounds max(1, minReplicaCount) and maxReplicaCount, spec.behavior or,
//	            without it, the HPA's older rules, as KEDA's own HPAs
//	fallback    a trigger whose value was unknown at more than failureThreshold looks in a row has the
//	            value that makes the HPA answer the fallback's replicas, and is active. Each poll is a
//	            look, and each round of the HPA; where the count can go neither to zero nor to idle, a
//	            poll takes what the HPA saw
//	values      are written with three decimals, and none below zero; the values of formulas and of
//	            fallbacks are cut to thousandths
//
// As in KEDA the cooldown counts for the last step to zero only, from any count, and times of
// activity are whole seconds. One quirk of KEDA is kept: while some trigger is in error, being
// active does not renew the time of last activity.
//
// Differences: fallback's behavior "scalingModifiers" and the formula's ?? and count() are refused,
// and idleReplicaCount must be 0, the only value that KEDA documents as working. NaN is an unknown
// value, not zero, and so is a formula that fails or is not finite. Asked more often than every 15
// s and without a SyncPeriod, the HPA looks more often than in KEDA, and counts failures faster.
//
// Source: github.com/kedacore/keda v2.21.0, pkg/scaling/scale_handler.go, pkg/scaling/executor,
// pkg/scaling/modifiers and pkg/fallback. The test module oracle/keda runs both side by side.
package keda

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/behavior"
	"github.com/sluice-autoscaler/sluice/algorithms/hpa"
	"github.com/sluice-autoscaler/sluice/algorithms/memory"
	"github.com/sluice-autoscaler/sluice/algorithms/params"
)

// Trigger is a signal that is compared.
type Trigger struct {
	// Name is the trigger's name in formulas; empty takes the signal's.
	Name string `json:"name,omitempty"`
	// Signal and Window name what is measured, a total over the workload; Window is 0s (a reading)
	// to 1h.
	Signal string              `json:"signal"`
	Window algorithms.Duration `json:"window"`
	// Threshold is the target, > 0, in the signal's unit: per pod for AverageValue.
	Threshold float64 `json:"threshold"`
	// ActivationThreshold is what the value must exceed to be active, ≥ 0.
	ActivationThreshold float64 `json:"activationThreshold,omitempty"`
	// MetricType is AverageValue (also when empty) or Value.
	MetricType string `json:"metricType,omitempty"`
}

// Behaviors of a fallback, as KEDA names them.
const (
	Static                  = "static"
	CurrentReplicas         = "currentReplicas"
	CurrentReplicasIfHigher = "currentReplicasIfHigher"
	CurrentReplicasIfLower  = "currentReplicasIfLower"
)

// Fallback says what to do on unknown triggers.
type Fallback struct {
	// FailureThreshold is how many failures in a row are tolerated, ≥ 0: one more and the fallback
	// holds.
	FailureThreshold int `json:"failureThreshold"`
	// Replicas is the count, 0–1,000,000 pods.
	Replicas int `json:"replicas"`
	// Behavior is static (also when empty), currentReplicas, currentReplicasIfHigher or
	// currentReplicasIfLower.
	Behavior string `json:"behavior,omitempty"`
}

// Modifiers combine triggers into one metric.
type Modifiers struct {
	// Formula is arithmetic over the triggers' names; empty compares each trigger for itself.
	Formula string `json:"formula,omitempty"`
	// Target is the formula's target, > 0, ActivationTarget what it must exceed to be active, ≥ 0.
	Target           float64 `json:"target,omitempty"`
	ActivationTarget float64 `json:"activationTarget,omitempty"`
	// MetricType is AverageValue (also when empty) or Value.
	MetricType string `json:"metricType,omitempty"`
}

// HPAConfig is advanced.horizontalPodAutoscalerConfig.
type HPAConfig struct {
	// Behavior is the HPA's spec.behavior; null means its older rules: the largest answer of 300 s,
	// at most max(2 × current, 4) pods.
	Behavior *behavior.Rules `json:"behavior,omitempty"`
}

// Advanced holds what KEDA has under spec.advanced.
type Advanced struct {
	HorizontalPodAutoscalerConfig HPAConfig `json:"horizontalPodAutoscalerConfig"`
	ScalingModifiers              Modifiers `json:"scalingModifiers"`
}

// Config holds the parameters: the fields of a ScaledObject's spec.
type Config struct {
	// Triggers are what is compared; none means the mean concurrency of a minute with a threshold
	// of Target.
	Triggers []Trigger `json:"triggers,omitempty"`
	// Target is what a pod should carry, in requests; used only without Triggers.
	Target float64 `json:"target"`
	// PollingInterval is the time between two looks at activation, in seconds. Longer wakes later.
	PollingInterval int `json:"pollingInterval"`
	// CooldownPeriod and InitialCooldownPeriod are in seconds. Longer keeps pods, shorter makes
	// cold starts.
	CooldownPeriod        int `json:"cooldownPeriod"`
	InitialCooldownPeriod int `json:"initialCooldownPeriod"`
	// MinReplicaCount and MaxReplicaCount are the bounds, in pods.
	MinReplicaCount int `json:"minReplicaCount"`
	MaxReplicaCount int `json:"maxReplicaCount"`
	// SyncPeriod is the least time between two rounds of the HPA; 0s is every decision. KEDA's own
	// HPAs have the controller's 15s.
	SyncPeriod algorithms.Duration `json:"syncPeriod"`
	// IdleReplicaCount is null or 0: the count while nothing is active, though MinReplicaCount is
	// more.
	IdleReplicaCount *int      `json:"idleReplicaCount,omitempty"`
	Fallback         *Fallback `json:"fallback,omitempty"`
	Advanced         Advanced  `json:"advanced"`
}

// Default returns KEDA's defaults; Target is the caller's.
func Default() Config {
	return Config{Target: 70, PollingInterval: 30, CooldownPeriod: 300, MaxReplicaCount: 100}
}

// Formula answers for the triggers' values, in their order.
type Formula func(values []float64) (float64, error)

// Compile makes a Formula of an expression over the names.
type Compile func(expression string, names []string) (Formula, error)

// day and most bound times and counts.
const (
	day  = 86400
	most = 1_000_000
	// maxTriggers bounds the triggers.
	maxTriggers = 50
	// maxThreshold bounds targets and thresholds.
	maxThreshold = 1e12
	// composite is the name of the formula's metric, as KEDA calls it.
	composite = "composite-metric"
)

// Params describes the parameters.
func Params() params.List[Config] {
	seconds := params.Between(0, day)
	return params.List[Config]{
		params.Other[Config]("triggers", "1–50 of {name, signal, window, threshold, activationThreshold, metricType}", "concurrency at target", "what is compared; the largest proposal wins"),
		params.Of("target", params.Above(0).UpTo(maxThreshold), "requests per pod", "what one pod should carry",
			func(c *Config) *float64 { return &c.Target }).After(params.SignalTarget).Search("20%..110%"),
		params.Of("pollingInterval", params.Between(1, day), "seconds", "time between looks at activation",
			func(c *Config) *int { return &c.PollingInterval }).Search("1..60:log"),
		params.Of("cooldownPeriod", seconds, "seconds", "time without activity before zero",
			func(c *Config) *int { return &c.CooldownPeriod }).Search("0|15|30|60|120|300|600|1200"),
		params.Of("initialCooldownPeriod", seconds, "seconds", "the same before the first activity",
			func(c *Config) *int { return &c.InitialCooldownPeriod }),
		params.Of("minReplicaCount", params.Between(0, most), "pods", "lower bound",
			func(c *Config) *int { return &c.MinReplicaCount }).Also("at most maxReplicaCount", func(c *Config) bool { return c.MinReplicaCount <= c.MaxReplicaCount }),
		params.Of("maxReplicaCount", params.Between(1, most), "pods", "upper bound",
			func(c *Config) *int { return &c.MaxReplicaCount }),
		params.Of("syncPeriod", params.Spans(0, time.Hour), "", "least time between two rounds of the HPA; 0s: every decision",
			func(c *Config) *algorithms.Duration { return &c.SyncPeriod }),
		params.Optional("idleReplicaCount", params.Between(0, 0), "the only count that works", "pods while nothing is active, though minReplicaCount is more",
			func(c *Config) *int { return c.IdleReplicaCount }),
		params.Other[Config]("fallback", "{failureThreshold, replicas, behavior}", "none", "what to do on unknown triggers"),
		params.Other[Config]("advanced", "{horizontalPodAutoscalerConfig: {behavior}, scalingModifiers: {formula, target, activationTarget, metricType}}", "the HPA's", "behavior and formula"),
	}
}

// Validate reports every fault but those of the formula, which New finds.
func (c Config) Validate() error {
	errs := []error{Params().Check(&c)}
	bad := func(ok bool, name string, value any, want string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s = %v: want %s", name, value, want))
		}
	}
	goal := func(v float64) bool { return v > 0 && v <= maxThreshold }
	metricType := func(s string) bool { return s == "" || s == hpa.AverageValue || s == hpa.Value }
	if len(c.Triggers) > maxTriggers {
		return fmt.Errorf("triggers = %d: want at most %d", len(c.Triggers), maxTriggers)
	}
	seen := map[string]bool{}
	for i, t := range c.Triggers {
		at := fmt.Sprintf("triggers[%d].", i)
		bad(t.Signal != "", at+"signal", `""`, "the name of a signal")
		bad(t.Window >= 0 && time.Duration(t.Window) <= time.Hour, at+"window", time.Duration(t.Window), "0s–1h")
		bad(goal(t.Threshold) || c.Advanced.ScalingModifiers.Formula != "" && t.Threshold == 0, at+"threshold", t.Threshold, "a number > 0 and ≤ 1e12")
		bad(t.ActivationThreshold >= 0 && algorithms.Finite(t.ActivationThreshold), at+"activationThreshold", t.ActivationThreshold, "a number ≥ 0")
		bad(metricType(t.MetricType), at+"metricType", t.MetricType, "AverageValue or Value")
		bad(!seen[t.name()], at+"name", t.name(), "a name of its own")
		seen[t.name()] = true
	}
	if c.IdleReplicaCount != nil {
		bad(c.MinReplicaCount > 0, "idleReplicaCount", 0, "minReplicaCount ≥ 1 beside it")
	}
	if f := c.Fallback; f != nil {
		bad(f.FailureThreshold >= 0 && f.FailureThreshold <= most, "fallback.failureThreshold", f.FailureThreshold, "0–1000000 (failures in a row)")
		bad(f.Replicas >= 0 && f.Replicas <= most, "fallback.replicas", f.Replicas, "0–1000000 (pods)")
		switch f.Behavior {
		case "", Static, CurrentReplicas, CurrentReplicasIfHigher, CurrentReplicasIfLower:
		default:
			bad(false, "fallback.behavior", f.Behavior, "static, currentReplicas, currentReplicasIfHigher or currentReplicasIfLower")
		}
	}
	if m := c.Advanced.ScalingModifiers; m.Formula != "" {
		bad(goal(m.Target), "advanced.scalingModifiers.target", m.Target, "a number > 0 and ≤ 1e12")
		bad(m.ActivationTarget >= 0 && algorithms.Finite(m.ActivationTarget), "advanced.scalingModifiers.activationTarget", m.ActivationTarget, "a number ≥ 0")
		bad(metricType(m.MetricType), "advanced.scalingModifiers.metricType", m.MetricType, "AverageValue or Value")
		bad(len(c.Triggers) > 0, "triggers", 0, "the triggers that the formula names")
	} else {
		bad(m == Modifiers{}, "advanced.scalingModifiers.formula", `""`, "a formula beside target, activationTarget and metricType")
	}
	if b := c.Advanced.HorizontalPodAutoscalerConfig.Behavior; b != nil {
		errs = append(errs, b.Validate())
	}
	return errors.Join(errs...)
}

func (t Trigger) name() string {
	if t.Name != "" {
		return t.Name
	}
	return t.Signal
}

// Policy decides as the package says. It is not safe for concurrent use.
type Policy struct {
	cfg     Config
	formula Formula
	hpa     *hpa.Policy
	state   state
	// keys are the names under which the HPA sees the triggers, so that two triggers of one signal
	// stay apart.
	keys []string
	// goals and kinds are, trigger by trigger, the target and the metric type by which a fallback
	// is sized; fallsBack is false where KEDA takes no fallback.
	goals     []float64
	kinds     []string
	fallsBack bool
	// lo and hi are the HPA's bounds.
	lo, hi int
	// seen is the latest look of this decision; values and signals are its buffers.
	seen    reading
	values  []float64
	signals []algorithms.Signal
}

type state struct {
	// Since is the first decision; Polled the last poll; Active the last time of activity.
	Since  time.Time `json:"since,omitzero"`
	Polled time.Time `json:"polled,omitzero"`
	Active time.Time `json:"active,omitzero"`
	// Failures counts, trigger by trigger, the looks in a row without a value.
	Failures []int `json:"failures"`
	// Observed is the HPA's latest look, nil unless that gave a count.
	Observed *reading `json:"observed,omitempty"`
	// Pace is the HPA's, where there is a SyncPeriod.
	Pace algorithms.Pace `json:"pace,omitzero"`
	// HPA is its memory, in snapshots only.
	HPA json.RawMessage `json:"hpa,omitempty"`
}

const version = 2

// New returns a policy with a validated Config. compile makes the formula; it may be nil when there
// is none.
func New(c Config, compile Compile) (*Policy, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if len(c.Triggers) == 0 {
		c.Triggers = []Trigger{{Signal: algorithms.Concurrency, Window: algorithms.Duration(time.Minute), Threshold: c.Target}}
	}
	p := &Policy{cfg: c, state: state{Failures: make([]int, len(c.Triggers))}}
	m := c.Advanced.ScalingModifiers
	// With a formula KEDA falls back only where the target is a whole number.
	p.fallsBack = m.Formula == "" || m.Target == math.Trunc(m.Target)
	for i, t := range c.Triggers {
		p.keys = append(p.keys, "s"+strconv.Itoa(i)+"-"+t.name()) // KEDA's form
		goal, kind := written(t.Threshold), t.MetricType
		if m.Formula != "" {
			goal, kind = m.Target, m.MetricType
		}
		p.goals, p.kinds = append(p.goals, goal), append(p.kinds, kind)
	}
	h := hpa.Default()
	lo, hi := max(1, c.MinReplicaCount), c.MaxReplicaCount
	p.lo, p.hi = lo, hi
	h.MinReplicas, h.MaxReplicas = &lo, &hi
	h.Behavior = c.Advanced.HorizontalPodAutoscalerConfig.Behavior
	if m.Formula != "" {
		names := make([]string, 0, len(c.Triggers))
		for _, t := range c.Triggers {
			names = append(names, t.name())
		}
		if compile == nil {
			return nil, errors.New("advanced.scalingModifiers.formula: there is nothing here to compile it")
		}
		var err error
		if p.formula, err = compile(m.Formula, names); err != nil {
			return nil, fmt.Errorf("advanced.scalingModifiers.%w", err)
		}
		metric, err := external(composite, 0, m.Target, m.MetricType)
		if err != nil {
			return nil, err
		}
		h.Metrics = append(h.Metrics, metric)
	} else {
		for i, t := range c.Triggers {
			metric, err := external(p.keys[i], 0, t.Threshold, t.MetricType)
			if err != nil {
				return nil, err
			}
			h.Metrics = append(h.Metrics, metric)
		}
	}
	var err error
	if p.hpa, err = hpa.New(h); err != nil {
		return nil, fmt.Errorf("the HPA: %w", err)
	}
	return p, nil
}

func external(name string, window algorithms.Duration, goal float64, metricType string) (hpa.Metric, error) {
	// Quantities count in thousandths, rounded up: a smaller goal is the same and has too many
	// digits.
	q, err := algorithms.ParseQuantity(strconv.FormatFloat(max(goal, 1e-3), 'f', -1, 64))
	if err != nil {
		return hpa.Metric{}, fmt.Errorf("threshold: %w", err)
	}
	t := hpa.Target{Type: hpa.AverageValue, AverageValue: &q}
	if metricType == hpa.Value {
		t = hpa.Target{Type: hpa.Value, Value: &q}
	}
	return hpa.Metric{Type: hpa.External, Window: &window, External: &hpa.ExternalMetric{Metric: hpa.Identifier{Name: name}, Target: t}}, nil
}

// Needs names the triggers' signals.
func (p *Policy) Needs() []algorithms.Need {
	needs := make([]algorithms.Need, 0, len(p.cfg.Triggers))
	for _, t := range p.cfg.Triggers {
		needs = append(needs, algorithms.Need{Name: t.Signal, Window: time.Duration(t.Window)})
	}
	return needs
}

// Decide answers one observation. Above zero it is a round of the HPA, once in SyncPeriod; the
// operator polls at its own interval.
func (p *Policy) Decide(o algorithms.Observation) algorithms.Decision {
	s, cur := &p.state, o.Replicas.Current
	if s.Since.IsZero() {
		s.Since = wholeSeconds(o.Now)
	}
	p.seen = reading{}
	d := algorithms.Decision{Replicas: cur, Valid: true, Reason: "WaitingForPoll"}
	operator := false
	if s.Polled.IsZero() || o.Now.Sub(s.Polled) >= time.Duration(p.cfg.PollingInterval)*time.Second {
		s.Polled = o.Now
		if p.seen = (reading{}); p.ownPolls() || s.Observed == nil {
			p.observe(&o)
		} else {
			p.seen = *s.Observed
		}
		d.Replicas, d.Reason, operator = p.poll(o.Now, cur)
		if !operator && cur == 0 && p.seen.Failed && !p.seen.Active {
			d.Valid, d.Reason = false, "NoData"
		}
	}
	next := s.Polled.Add(time.Duration(p.cfg.PollingInterval) * time.Second).Sub(o.Now)
	var inner algorithms.Decision
	who := "operator: "
	if cur == 0 && !operator {
		s.Observed = nil // the HPA is switched off at zero
	}
	if !operator && cur > 0 {
		if inBounds := cur >= p.lo && cur <= p.hi; !inBounds {
			inner = p.hpa.Decide(o) // puts the count right, whatever is measured
		} else if s.Pace.Due(o.Now, time.Duration(p.cfg.SyncPeriod)) {
			p.observe(&o)
			ask := o
			ask.Signals, ask.Scratch = p.signals, nil
			inner = p.hpa.Decide(ask)
			s.Observed = nil
			if seen := p.seen; inner.Valid {
				s.Observed = &seen
			}
		} else {
			inner = algorithms.WaitForSync(&o, s.Pace.Next)
			next = min(next, inner.Next)
		}
		who = "HPA: " + inner.Message + ": "
		d.Valid, d.Reason = inner.Valid, inner.Reason
		if d.Valid {
			d.Replicas = inner.Replicas
		}
	}
	if o.Limits.Max > 0 {
		d.Replicas = min(d.Replicas, o.Limits.Max)
	}
	d.Next = max(next, time.Second)
	if o.Quiet {
		return d
	}
	outcome := fmt.Sprintf("%s gives %d pods", d.Reason, d.Replicas)
	if !d.Valid {
		outcome = d.Reason + ", nothing changes"
	}
	looked := "not looked at"
	if p.seen.Looked {
		looked = fmt.Sprintf("active %t, in error %t", p.seen.Active, p.seen.Failed)
	}
	d.Message = fmt.Sprintf("%s; %s%s", looked, who, outcome)
	d.Terms = append(o.Scratch[:0], algorithms.Term{Name: "active", Value: boolToFloat(p.seen.Active)}, algorithms.Term{Name: "inError", Value: boolToFloat(p.seen.Failed)})
	if !s.Active.IsZero() {
		d.Terms = append(d.Terms, algorithms.Term{Name: "idleSeconds", Value: o.Now.Sub(s.Active).Seconds()})
	}
	d.Terms = append(d.Terms, inner.Terms...)
	return d
}

func boolToFloat(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// wholeSeconds is an instant as Kubernetes writes it into an object.
func wholeSeconds(t time.Time) time.Time { return t.Truncate(time.Second) }

// reading is what one look at the triggers gave.
type reading struct {
	// Looked says that there was a look; Active that some trigger is active or in fallback; Failed
	// that some trigger has no value, not even of the fallback.
	Looked bool `json:"looked"`
	Active bool `json:"active"`
	Failed bool `json:"failed"`
}

// ownPolls tells whether the operator looks by itself at a poll. Where it can neither go to zero
// nor to idle, it takes what the HPA saw, as long as that has numbers.
func (p *Policy) ownPolls() bool {
	return p.cfg.MinReplicaCount == 0 || p.cfg.IdleReplicaCount != nil || p.formula != nil
}

// observe looks at the triggers, counts failures, applies the fallback, and sets p.signals for the
// HPA. KEDA's operator and its metrics server each do so, and each counts.
func (p *Policy) observe(o *algorithms.Observation) {
	c, s := &p.cfg, &p.state
	p.values, p.signals = p.values[:0], p.signals[:0]
	p.seen = reading{Looked: true}
	fellBack := -1
	for i := range c.Triggers {
		t := &c.Triggers[i]
		sig := algorithms.Signal{Name: p.keys[i], Coverage: 1}
		active := false
		if raw, ok := measured(o, t); ok {
			sig.Value, sig.Known = written(raw), true
			s.Failures[i] = 0
			active = raw > t.ActivationThreshold
		} else {
			s.Failures[i] = min(s.Failures[i]+1, most)
			if f := c.Fallback; f != nil && p.fallsBack && s.Failures[i] > f.FailureThreshold {
				sig.Value, sig.Known = fallbackValue(f, p.goals[i], p.kinds[i], o)
			}
			if active = sig.Known; active {
				fellBack = i
			} else {
				p.seen.Failed = true
			}
		}
		p.seen.Active = p.seen.Active || active
		p.values = append(p.values, sig.Value)
		p.signals = append(p.signals, sig)
	}
	if p.formula != nil {
		p.compose(fellBack)
	}
}

// compose replaces the triggers' signals by the formula's. One trigger in fallback stands for the
// whole formula; while another one fails nothing is active.
func (p *Policy) compose(fellBack int) {
	sig := algorithms.Signal{Name: composite, Coverage: 1}
	switch {
	case fellBack >= 0:
		sig.Value, sig.Known = p.values[fellBack], true
	case !p.seen.Failed:
		if v, err := p.formula(p.values); err == nil && algorithms.Finite(v) {
			sig.Value, sig.Known = thousandths(math.Trunc(v*1000)), true
		} else {
			p.seen.Failed = true
		}
	}
	p.seen.Active = !p.seen.Failed && sig.Value > p.cfg.Advanced.ScalingModifiers.ActivationTarget
	p.signals = append(p.signals[:0], sig)
}

// measured is a trigger's value as it was read. Below zero it is a value: KEDA takes it for zero.
func measured(o *algorithms.Observation, t *Trigger) (float64, bool) {
	for i := range o.Signals {
		if s := &o.Signals[i]; s.Window == time.Duration(t.Window) && s.Name == t.Signal {
			return s.Value, s.Known && algorithms.Finite(s.Value)
		}
	}
	return 0, false
}

// written is a value as KEDA writes it: none below zero, three decimals.
func written(v float64) float64 {
	if v <= 0 {
		return 0
	}
	if v > maxThreshold {
		return v // has no thousandths that matter
	}
	var b [40]byte
	rounded, err := strconv.ParseFloat(string(strconv.AppendFloat(b[:0], v, 'f', 3, 64)), 64)
	if err != nil {
		return v
	}
	return thousandths(math.Round(rounded * 1000))
}

// thousandths is a count of them as a number, with the last digits that Kubernetes' quantities
// have: formulas see them.
func thousandths(n float64) float64 { return n * 1e-3 }

// fallbackValue is the value that makes the HPA answer the fallback's count, cut to thousandths.
func fallbackValue(f *Fallback, goal float64, kind string, o *algorithms.Observation) (float64, bool) {
	n := f.Replicas
	switch f.Behavior {
	case CurrentReplicas:
		n = o.Replicas.Current
	case CurrentReplicasIfHigher:
		n = max(o.Replicas.Current, f.Replicas)
	case CurrentReplicasIfLower:
		n = min(o.Replicas.Current, f.Replicas)
	}
	replicas := float64(n)
	if kind == hpa.Value {
		ready, _ := hpa.ReadyPods(o)
		if ready < 1 {
			return 0, false
		}
		replicas /= float64(ready)
	}
	return thousandths(math.Trunc(goal * 1000 * replicas)), true
}

// poll is the operator's poll; acts tells whether it sets the count itself rather than leave it to
// the HPA.
func (p *Policy) poll(now time.Time, cur int) (n int, reason string, acts bool) {
	c, s := &p.cfg, &p.state
	idle, lo := c.IdleReplicaCount != nil, c.MinReplicaCount
	if p.seen.Active {
		switch {
		case cur == 0 || idle && cur < lo:
			s.Active = wholeSeconds(now)
			return max(1, lo), "Activated", true
		case !p.seen.Failed:
			s.Active = wholeSeconds(now)
		}
		return cur, "Active", false
	}
	switch {
	case p.seen.Failed && (c.Fallback == nil || c.Fallback.Replicas != 0):
		return cur, "TriggerError", false
	case cur > 0 && (idle || lo == 0):
		since, wait := s.Active, c.CooldownPeriod
		if since.IsZero() {
			since, wait = s.Since, c.InitialCooldownPeriod
		}
		if since.Add(time.Duration(wait) * time.Second).Before(now) {
			return 0, "Deactivated", true
		}
		return cur, "CoolingDown", false
	case !idle && cur < lo:
		return lo, "MinReplicaCount", true
	}
	return cur, "Inactive", false
}

// YieldLimits takes away the HPA's stock limits, for a caller that bounds the answers by rules of
// its own.
func (p *Policy) YieldLimits() { p.hpa.YieldLimits() }

// Snapshot returns the memory.
func (p *Policy) Snapshot() json.RawMessage {
	s := p.state
	s.HPA = p.hpa.Snapshot()
	return memory.Save("keda", version, s)
}

// Restore puts back a Snapshot of a policy with as many triggers.
func (p *Policy) Restore(raw json.RawMessage) error {
	s, err := memory.Load[state]("keda", version, raw)
	if err != nil {
		return err
	}
	if len(s.Failures) != len(p.cfg.Triggers) {
		return fmt.Errorf("keda snapshot has %d triggers: want %d", len(s.Failures), len(p.cfg.Triggers))
	}
	if err := p.hpa.Restore(s.HPA); err != nil {
		return fmt.Errorf("read keda snapshot: %w", err)
	}
	s.HPA = nil
	p.state = s
	return nil
}
