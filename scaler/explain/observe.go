package explain

import (
	"strconv"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
)

// Observe is what an Autoscaler's status says at an instant, as far as a status goes: replicas
// and the demand of the last decision, as a reading without a window. It has no other signals and
// windows, no ages and no coverage, and does not say when it was measured.
func Observe(as *v1alpha1.Autoscaler, now time.Time) algorithms.Observation {
	st := &as.Status
	current, ready := int(max(0, st.CurrentReplicas)), int(max(0, st.ReadyReplicas))
	o := algorithms.Observation{
		Now:      now,
		Replicas: algorithms.Replicas{Current: current, Ready: ready, Starting: max(0, current-ready)},
		Limits:   algorithms.Limits{Max: int(as.Spec.MaxReplicas)},
	}
	if as.Spec.MinReplicas != nil {
		o.Limits.Min = int(*as.Spec.MinReplicas)
	}
	o.Limits.Max = max(o.Limits.Max, o.Limits.Min, 1)
	s := algorithms.Signal{Name: algorithms.Concurrency, Window: algorithms.Instant, Source: "status"}
	if v, err := strconv.ParseFloat(st.Concurrency, 64); err == nil && algorithms.Finite(v) && v >= 0 {
		s.Value, s.Known, s.Coverage = v, true, 1
	}
	o.Signals = []algorithms.Signal{s}
	return o
}
