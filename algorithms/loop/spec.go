package loop

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/behavior"
	"github.com/sluice-autoscaler/sluice/algorithms/guard"
)

// Defaults of fields that are left out of a Spec.
const (
	// DefaultPolicy is the policy of a Spec that names none.
	DefaultPolicy = "kpa"
	// DefaultTarget is the concurrency per instance, in requests: Knative's 100 × 0.7.
	DefaultTarget = 70.0
)

// Mode says what becomes of decisions.
type Mode string

const (
	// ModeApply scales the target. It is the default.
	ModeApply Mode = "Apply"
	// ModeDryRun records decisions and touches nothing.
	ModeDryRun Mode = "DryRun"
)

// Spec says how a workload is scaled. Its field paths are those of an Autoscaler's spec, and so are
// those in its errors. The zero value of an optional field means its default.
type Spec struct {
	// ServiceRef names what requests arrive at while no instance is ready. Without it nothing is
	// held, and MinReplicas must be at least 1.
	ServiceRef *ServiceRef `json:"serviceRef,omitempty"`
	// MinReplicas is the lower bound, 0–1,000,000; 0 lets the workload sleep. MaxReplicas is the
	// upper bound, at least 1.
	MinReplicas int `json:"minReplicas,omitempty"`
	MaxReplicas int `json:"maxReplicas"`
	// Signals are what the policy looks at, each with its target. Today there is one at most;
	// without one it is concurrency.
	Signals []Signal `json:"signals,omitempty"`
	// Policy turns signals into replicas; kpa by default.
	Policy Policy `json:"policy,omitzero"`
	// Behavior bounds how fast and how far a decision may go, with HPA v2's fields and meaning.
	Behavior *behavior.Rules `json:"behavior,omitempty"`
	// OnMissingData says what happens while signals are unknown.
	OnMissingData *MissingData `json:"onMissingData,omitempty"`
	// ScaleToZero says when an idle workload sleeps.
	ScaleToZero *ScaleToZero `json:"scaleToZero,omitempty"`
	// Hold bounds what each gateway holds.
	Hold *Hold `json:"hold,omitempty"`
	// Mode is Apply or DryRun.
	Mode Mode `json:"mode,omitempty"`
}

// ServiceRef names a Service beside the workload.
type ServiceRef struct {
	Name string `json:"name"`
}

// Signal is one signal and what one instance should carry of it.
type Signal struct {
	// Name is a signal of requests (concurrency, rate, waiting), or another that a source knows,
	// such as a metric of a rule.
	Name   string `json:"name"`
	Target Target `json:"target"`
	// Prometheus, when given, is the query that makes the signal.
	Prometheus *PrometheusQuery `json:"prometheus,omitempty"`
}

// PrometheusQuery is a query of a workload's own. The zero value of an optional field means its
// default.
type PrometheusQuery struct {
	// Query is PromQL that gives one number.
	Query string `json:"query"`
	// Source names the Prometheus, "" is the first.
	Source string `json:"source,omitempty"`
	// MaxAge makes older samples unknown, 1s–1h; 2m by default.
	MaxAge *algorithms.Duration `json:"maxAge,omitempty"`
	// Interval is the time between two queries, 5s–5m; the source's by default.
	Interval *algorithms.Duration `json:"interval,omitempty"`
}

// Target is what one instance should carry of a signal, in the signal's unit, > 0.
type Target struct {
	AverageValue algorithms.Quantity `json:"averageValue"`
}

// Policy names a policy of the catalog and its parameters.
type Policy struct {
	Name       string          `json:"name,omitempty"`
	Parameters json.RawMessage `json:"parameters,omitempty"`
}

// MissingData says what happens while signals are unknown. Nothing is ever scaled down on that.
type MissingData struct {
	// Hold is how long replicas stay as they are, 0s–24h; 10m by default.
	Hold *algorithms.Duration `json:"hold,omitempty"`
	// Replicas is the least count from then on; nil means that the hold has no end.
	Replicas *int `json:"replicas,omitempty"`
}

// ScaleToZero says when an idle workload sleeps.
type ScaleToZero struct {
	// After is how long demand must have been zero, 1s–1h; 1m by default.
	After *algorithms.Duration `json:"after,omitempty"`
}

// Hold bounds what each gateway holds; nil fields mean the gateway's own defaults.
type Hold struct {
	// MaxRequests is how many requests may wait at once on each port, at least 1.
	MaxRequests *int `json:"maxRequests,omitempty"`
	// Timeout is how long a request may wait, 1s–1h.
	Timeout *algorithms.Duration `json:"timeout,omitempty"`
	// PodConcurrency is how many requests a gateway keeps in flight per instance, at least 1.
	PodConcurrency *int `json:"podConcurrency,omitempty"`
}

// SignalName is the name of the signal that the policy looks at, with its default.
func (s *Spec) SignalName() string {
	if len(s.Signals) == 0 {
		return algorithms.Concurrency
	}
	return s.Signals[0].Name
}

// TargetPerPod is the signal's target with its default, in the signal's unit.
func (s *Spec) TargetPerPod() float64 {
	if len(s.Signals) == 0 {
		return DefaultTarget
	}
	return s.Signals[0].Target.AverageValue.Float()
}

// ofRequests reports whether a signal counts requests.
func ofRequests(name string) bool {
	return name == algorithms.Concurrency || name == algorithms.Rate || name == algorithms.Waiting
}

// idle are the signals that are zero while the workload is idle. A rate of zero does not say that
// no request is in flight; a queue says nothing of the requests of the Service.
func (s *Spec) idle() []string {
	name := s.SignalName()
	switch {
	case ofRequests(name):
		return []string{algorithms.Concurrency}
	case s.ServiceRef != nil:
		return []string{name, algorithms.Concurrency}
	}
	return []string{name}
}

// IdleAfter is ScaleToZero.After with its default.
func (s *Spec) IdleAfter() time.Duration {
	if s.ScaleToZero == nil || s.ScaleToZero.After == nil {
		return guard.Default().IdleAfter
	}
	return time.Duration(*s.ScaleToZero.After)
}

// PolicyName is the policy's name with its default.
func (s *Spec) PolicyName() string {
	if s.Policy.Name == "" {
		return DefaultPolicy
	}
	return s.Policy.Name
}

// guard is the Spec's part that holds for every policy.
func (s *Spec) guard() guard.Config {
	c := guard.Default()
	c.IdleAfter, c.Behavior, c.Idle = s.IdleAfter(), s.Behavior, s.idle()
	if s.SignalName() == algorithms.Concurrency { // requests that wait are sized by no other target
		c.Target = s.TargetPerPod()
	}
	if m := s.OnMissingData; m != nil {
		if m.Hold != nil {
			c.Hold = time.Duration(*m.Hold)
		}
		c.Fallback = m.Replicas
	}
	return c
}

// Validate reports every fault of the Spec but the policy's own, which New tells. Each names the
// field, its value and the remedy.
func (s *Spec) Validate() error {
	var errs []error
	if s.MaxReplicas < 1 || s.MaxReplicas > maxReplicas || s.MinReplicas < 0 || s.MinReplicas > s.MaxReplicas {
		errs = append(errs, fmt.Errorf("spec.minReplicas = %d, spec.maxReplicas = %d: want 0 ≤ min ≤ max and 1 ≤ max ≤ %d",
			s.MinReplicas, s.MaxReplicas, maxReplicas))
	}
	if s.MinReplicas == 0 && s.ServiceRef == nil && ofRequests(s.SignalName()) {
		errs = append(errs, errors.New("spec.serviceRef is missing while spec.minReplicas is 0: name the Service whose requests wake the workload, or set minReplicas to 1 or more"))
	}
	if s.ServiceRef != nil && s.ServiceRef.Name == "" {
		errs = append(errs, errors.New(`spec.serviceRef.name = "": want the name of a Service`))
	}
	if len(s.Signals) > 1 {
		errs = append(errs, fmt.Errorf("spec.signals has %d entries: want one at most, so far", len(s.Signals)))
	}
	for i := range s.Signals {
		if t := s.Signals[i].Target.AverageValue.Float(); t <= 0 {
			errs = append(errs, fmt.Errorf("spec.signals[%d].target.averageValue = %v: want a quantity > 0 (of the signal, per pod)", i, t))
		}
		errs = append(errs, s.Signals[i].validate(fmt.Sprintf("spec.signals[%d]", i)))
	}
	errs = append(errs, s.Hold.validate())
	if s.Mode != "" && s.Mode != ModeApply && s.Mode != ModeDryRun {
		errs = append(errs, fmt.Errorf("spec.mode = %q: want Apply or DryRun", s.Mode))
	}
	return errors.Join(append(errs, underSpec(s.guard().Validate())...)...)
}

// underSpec puts "spec." before each of the joined errors, whose fields are relative to it.
func underSpec(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{fmt.Errorf("spec.%w", err)}
	}
	var errs []error
	for _, e := range joined.Unwrap() {
		errs = append(errs, underSpec(e)...)
	}
	return errs
}

// Bounds of signals.
const (
	// maxSignalName bounds a signal's name, maxQuery a query, in bytes.
	maxSignalName, maxQuery = 253, 4096
	// leastInterval and mostInterval bound PrometheusQuery.Interval, mostAge bounds MaxAge.
	leastInterval, mostInterval, mostAge = 5 * time.Second, 5 * time.Minute, time.Hour
)

// signalName reports whether a text can name a signal: what can name a metric of the metrics APIs.
func signalName(name string) bool {
	if name == "" || len(name) > maxSignalName {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_':
		case i > 0 && (c >= '0' && c <= '9' || c == ':' || c == '-' || c == '.'):
		default:
			return false
		}
	}
	return true
}

func (s *Signal) validate(field string) error {
	var errs []error
	if !signalName(s.Name) {
		errs = append(errs, fmt.Errorf("%s.name = %q: want concurrency, rate, waiting or the name of a metric: a letter or _, then letters, digits and _:-. (at most %d)", field, s.Name, maxSignalName))
	}
	q := s.Prometheus
	if q == nil {
		return errors.Join(errs...)
	}
	field += ".prometheus"
	if ofRequests(s.Name) {
		errs = append(errs, fmt.Errorf("%s is given for the signal %s, which is measured: want another name", field, s.Name))
	}
	if strings.TrimSpace(q.Query) == "" || len(q.Query) > maxQuery {
		errs = append(errs, fmt.Errorf("%s.query has %d bytes: want PromQL of 1–%d", field, len(q.Query), maxQuery))
	}
	if q.MaxAge != nil && (time.Duration(*q.MaxAge) < time.Second || time.Duration(*q.MaxAge) > mostAge) {
		errs = append(errs, fmt.Errorf("%s.maxAge = %s: want 1s–1h", field, time.Duration(*q.MaxAge)))
	}
	if q.Interval != nil && (time.Duration(*q.Interval) < leastInterval || time.Duration(*q.Interval) > mostInterval) {
		errs = append(errs, fmt.Errorf("%s.interval = %s: want 5s–5m", field, time.Duration(*q.Interval)))
	}
	return errors.Join(errs...)
}

func (h *Hold) validate() error {
	if h == nil {
		return nil
	}
	var errs []error
	if h.MaxRequests != nil && *h.MaxRequests < 1 {
		errs = append(errs, fmt.Errorf("spec.hold.maxRequests = %d: want ≥ 1", *h.MaxRequests))
	}
	if h.Timeout != nil && (time.Duration(*h.Timeout) < time.Second || time.Duration(*h.Timeout) > time.Hour) {
		errs = append(errs, fmt.Errorf("spec.hold.timeout = %s: want 1s–1h", time.Duration(*h.Timeout)))
	}
	if h.PodConcurrency != nil && *h.PodConcurrency < 1 {
		errs = append(errs, fmt.Errorf("spec.hold.podConcurrency = %d: want ≥ 1", *h.PodConcurrency))
	}
	return errors.Join(errs...)
}

// maxReplicas bounds what counts as sense.
const maxReplicas = 1_000_000
