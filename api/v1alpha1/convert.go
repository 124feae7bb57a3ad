package v1alpha1

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/behavior"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
)

// Loop converts the spec to the loop's, which has the same field paths. An error names every field
// that cannot be converted; whether the values make sense is for loop.Spec.Validate.
func (s *AutoscalerSpec) Loop() (loop.Spec, error) {
	var errs []error
	out := loop.Spec{
		MinReplicas: s.Min(), MaxReplicas: int(s.MaxReplicas), Mode: loop.Mode(s.Mode),
		Policy: loop.Policy{Name: s.Policy.Name},
	}
	if s.ServiceRef != nil {
		out.ServiceRef = &loop.ServiceRef{Name: s.ServiceRef.Name}
	}
	for i := range s.Signals {
		q, err := algorithms.ParseQuantity(s.Signals[i].Target.AverageValue.String())
		if err != nil {
			errs = append(errs, fmt.Errorf("spec.signals[%d].target.averageValue: %w", i, err))
		}
		out.Signals = append(out.Signals, loop.Signal{Name: s.Signals[i].Name, Target: loop.Target{AverageValue: q}, Prometheus: s.Signals[i].Prometheus.query()})
	}
	if s.Policy.Parameters != nil {
		out.Policy.Parameters = s.Policy.Parameters.Raw
	}
	if s.Behavior != nil { // the same fields, by their JSON
		out.Behavior = &behavior.Rules{}
		raw, err := json.Marshal(s.Behavior)
		if err == nil {
			err = algorithms.Strict(raw, out.Behavior)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("spec.behavior: %w", err))
		}
	}
	if m := s.OnMissingData; m != nil {
		out.OnMissingData = &loop.MissingData{Replicas: number(m.Replicas)}
		if m.Hold != nil {
			out.OnMissingData.Hold = new(algorithms.Duration(m.Hold.Duration))
		}
	}
	if z := s.ScaleToZero; z != nil && z.After != nil {
		out.ScaleToZero = &loop.ScaleToZero{After: new(algorithms.Duration(z.After.Duration))}
	}
	if h := s.Hold; h != nil {
		out.Hold = &loop.Hold{MaxRequests: number(h.MaxRequests), PodConcurrency: number(h.PodConcurrency)}
		if h.Timeout != nil {
			out.Hold.Timeout = new(algorithms.Duration(h.Timeout.Duration))
		}
	}
	if s.ScaleTargetRef.Kind == "" || s.ScaleTargetRef.Name == "" {
		errs = append(errs, fmt.Errorf("spec.scaleTargetRef = %s/%s: want kind and name of a workload with a scale subresource", s.ScaleTargetRef.Kind, s.ScaleTargetRef.Name))
	}
	return out, errors.Join(errs...)
}

// query is the loop's form of it.
func (p *PrometheusSpec) query() *loop.PrometheusQuery {
	if p == nil {
		return nil
	}
	return &loop.PrometheusQuery{Query: p.Query, Source: p.Source, MaxAge: duration(p.MaxAge), Interval: duration(p.Interval)}
}

func duration(d *metav1.Duration) *algorithms.Duration {
	if d == nil {
		return nil
	}
	return new(algorithms.Duration(d.Duration))
}

func number(n *int32) *int {
	if n == nil {
		return nil
	}
	return new(int(*n))
}

// Validate reports every fault of the spec but the policy's own parameters, which the catalog
// tells. Each names the field, its value and the remedy.
func (s *AutoscalerSpec) Validate() error {
	l, err := s.Loop()
	return errors.Join(err, l.Validate())
}

// Min is minReplicas with its default.
func (s *AutoscalerSpec) Min() int {
	if s.MinReplicas == nil {
		return 0
	}
	return int(*s.MinReplicas)
}

// IdleAfter is scaleToZero.after with its default.
func (s *AutoscalerSpec) IdleAfter() time.Duration {
	l, _ := s.Loop() // a field that cannot be converted is left out
	return l.IdleAfter()
}

// SignalName is the name of the signal that the policy looks at, with its default.
func (s *AutoscalerSpec) SignalName() string {
	l, _ := s.Loop() // a field that cannot be converted is left out
	return l.SignalName()
}

// TargetPerPod is the signal's target with its default, in the signal's unit.
func (s *AutoscalerSpec) TargetPerPod() float64 {
	l, _ := s.Loop() // a field that cannot be converted is left out
	return l.TargetPerPod()
}
