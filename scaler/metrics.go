package scaler

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-autoscaler/sluice/algorithms/loop"
)

// instruments are the scaler's own metrics. Series of a workload go with it.
type instruments struct {
	decisions *prometheus.CounterVec
	desired   *prometheus.GaugeVec
	round     prometheus.Histogram
	cold      *prometheus.HistogramVec
}

func newInstruments(reg prometheus.Registerer) *instruments {
	m := &instruments{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_scaler_decisions_total", Help: "Decisions by workload and reason.",
		}, []string{"namespace", "autoscaler", "reason"}),
		desired: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_scaler_desired_replicas", Help: "Replicas last decided.",
		}, []string{"namespace", "autoscaler"}),
		round: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sluice_scaler_round_duration_seconds", Help: "Time of one round: observe, decide, carry out.",
			NativeHistogramBucketFactor: 1.1, Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		cold: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sluice_scaler_cold_start_seconds", Help: "Time from the first held request to the end of each phase of a wake-up.",
			NativeHistogramBucketFactor: 1.1, Buckets: prometheus.ExponentialBuckets(0.005, 2, 14),
		}, []string{"namespace", "autoscaler", "phase"}),
	}
	reg.MustRegister(m.decisions, m.desired, m.round, m.cold)
	return m
}

func (m *instruments) decided(ref loop.Ref, r *loop.Record) {
	m.decisions.WithLabelValues(ref.Namespace, ref.Name, r.Reason).Inc()
	if r.Valid {
		m.desired.WithLabelValues(ref.Namespace, ref.Name).Set(float64(r.Desired))
	}
}

func (m *instruments) forget(ref loop.Ref) {
	l := prometheus.Labels{"namespace": ref.Namespace, "autoscaler": ref.Name}
	m.decisions.DeletePartialMatch(l)
	m.desired.DeletePartialMatch(l)
	m.cold.DeletePartialMatch(l)
}
