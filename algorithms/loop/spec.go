package loop

import (
	"encoding/json"
	"errors"
	"fmt"
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
	// Signals are what the policy looks at, each with its target. Today there is one: concurrency.
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
	Name   string `json:"name"`
	Target Target `json:"target"`
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

// TargetPerPod is the concurrency signal's target with its default, in requests.
func (s *Spec) TargetPerPod() float64 {
	for i := range s.Signals {
		if s.Signals[i].Name == algorithms.Concurrency {
			return s.Signals[i].Target.AverageValue.Float()
		}
	}
	return DefaultTarget
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
	c.IdleAfter, c.Target, c.Behavior = s.IdleAfter(), s.TargetPerPod(), s.Behavior
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
	if s.MinReplicas == 0 && s.ServiceRef == nil {
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
			errs = append(errs, fmt.Errorf("spec.signals[%d].target.averageValue = %v: want a quantity > 0 (requests per pod)", i, t))
		}
		if s.Signals[i].Name != algorithms.Concurrency {
			errs = append(errs, fmt.Errorf("spec.signals[%d].name = %q: want concurrency, the only signal so far", i, s.Signals[i].Name))
		}
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
