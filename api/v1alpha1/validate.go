package v1alpha1

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/behavior"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/guard"
)

// Defaults of fields that are left out.
const (
	// DefaultPolicy is the policy of an Autoscaler that names none.
	DefaultPolicy = "kpa"
	// DefaultTarget is the concurrency per pod, in requests, of an Autoscaler that names no signal: Knative's 100 × 0.7.
	DefaultTarget = 70.0
	// DefaultIdleAfter is how long demand must be zero before a workload sleeps.
	DefaultIdleAfter = time.Minute
	// DefaultHold is how long nothing changes on unknown signals before onMissingData.replicas counts.
	DefaultHold = 10 * time.Minute
)

// Min is minReplicas with its default.
func (s *AutoscalerSpec) Min() int {
	if s.MinReplicas == nil {
		return 0
	}
	return int(*s.MinReplicas)
}

// IdleAfter is scaleToZero.after with its default.
func (s *AutoscalerSpec) IdleAfter() time.Duration {
	if s.ScaleToZero == nil || s.ScaleToZero.After == nil {
		return DefaultIdleAfter
	}
	return s.ScaleToZero.After.Duration
}

// TargetPerPod is the concurrency signal's target with its default, in requests.
func (s *AutoscalerSpec) TargetPerPod() float64 {
	for i := range s.Signals {
		if s.Signals[i].Name == algorithms.Concurrency {
			return s.Signals[i].Target.AverageValue.AsApproximateFloat64()
		}
	}
	return DefaultTarget
}

// NewPolicy makes the guarded policy that the spec describes. Closer releases what the policy
// holds and must be called after its last use. An error that is catalog.ErrTemporary may pass.
func (s *AutoscalerSpec) NewPolicy(policies catalog.Catalog) (p *guard.Policy, closer func(), err error) {
	name := s.Policy.Name
	if name == "" {
		name = DefaultPolicy
	}
	var params json.RawMessage
	if s.Policy.Parameters != nil {
		params = s.Policy.Parameters.Raw
	}
	inner, err := policies.New(name, s.TargetPerPod(), params)
	if err != nil {
		return nil, nil, fmt.Errorf("spec.policy: %w", err)
	}
	closer = func() {}
	if c, ok := inner.(io.Closer); ok {
		closer = func() { _ = c.Close() } // a connection that is not needed any more: nobody could act on the fault
	}
	c, err := s.guard()
	if err == nil {
		p, err = guard.New(c, inner)
	}
	if err != nil {
		closer()
		return nil, nil, fmt.Errorf("spec: %w", err)
	}
	return p, closer, nil
}

// guard is the spec's part that holds for every policy.
func (s *AutoscalerSpec) guard() (guard.Config, error) {
	c := guard.Config{IdleAfter: s.IdleAfter(), Target: s.TargetPerPod(), Hold: DefaultHold}
	if s.Behavior != nil { // the same fields, by their JSON
		raw, err := json.Marshal(s.Behavior)
		if err != nil {
			return c, fmt.Errorf("behavior: %w", err)
		}
		c.Behavior = &behavior.Rules{}
		if err := algorithms.Strict(raw, c.Behavior); err != nil {
			return c, fmt.Errorf("behavior: %w", err)
		}
	}
	if m := s.OnMissingData; m != nil {
		if m.Hold != nil {
			c.Hold = m.Hold.Duration
		}
		if m.Replicas != nil {
			c.Fallback = new(int(*m.Replicas))
		}
	}
	return c, nil
}

// Validate reports every fault of the spec but the policy's, which NewPolicy tells, naming field, value and remedy.
func (s *AutoscalerSpec) Validate() error {
	var errs []error
	if s.ScaleTargetRef.Kind == "" || s.ScaleTargetRef.Name == "" {
		errs = append(errs, fmt.Errorf("spec.scaleTargetRef = %s/%s: want kind and name of a workload with a scale subresource", s.ScaleTargetRef.Kind, s.ScaleTargetRef.Name))
	}
	if s.MaxReplicas < 1 || s.Min() > int(s.MaxReplicas) || s.Min() < 0 {
		errs = append(errs, fmt.Errorf("spec.minReplicas = %d, spec.maxReplicas = %d: want 0 ≤ min ≤ max and max ≥ 1", s.Min(), s.MaxReplicas))
	}
	if s.Min() == 0 && s.ServiceRef == nil {
		errs = append(errs, errors.New("spec.serviceRef is missing while spec.minReplicas is 0: name the Service whose requests wake the workload, or set minReplicas to 1 or more"))
	}
	for i := range s.Signals {
		if t := s.Signals[i].Target.AverageValue.AsApproximateFloat64(); t <= 0 {
			errs = append(errs, fmt.Errorf("spec.signals[%d].target.averageValue = %v: want a quantity > 0 (requests per pod)", i, t))
		}
		if s.Signals[i].Name != algorithms.Concurrency {
			errs = append(errs, fmt.Errorf("spec.signals[%d].name = %q: want concurrency, the only signal so far", i, s.Signals[i].Name))
		}
	}
	if h := s.Hold; h != nil && h.Timeout != nil && (h.Timeout.Duration < time.Second || h.Timeout.Duration > time.Hour) {
		errs = append(errs, fmt.Errorf("spec.hold.timeout = %s: want 1s–1h", h.Timeout.Duration))
	}
	if s.Mode != "" && s.Mode != ModeApply && s.Mode != ModeDryRun {
		errs = append(errs, fmt.Errorf("spec.mode = %q: want Apply or DryRun", s.Mode))
	}
	return errors.Join(errs...)
}
