package fetch

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// register makes the metrics known.
func (e *Engine) register(r prometheus.Registerer) error {
	gauge := func(name, help string, v func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(v()) })
	}
	all := append(e.metrics.All(),
		gauge("sluice_adapter_rules_metrics", "Metrics that rules make of the series that there are.", func() int {
			if st := e.state.Load(); st != nil {
				return len(st.custom) + len(st.external)
			}
			return 0
		}),
		gauge("sluice_adapter_rules_failing", "Rules that make no metrics, or fewer than they should.", func() int {
			if st := e.state.Load(); st != nil {
				return len(st.registry.Errors())
			}
			return 0
		}),
		gauge("sluice_adapter_rules_queries", "Queries that are repeated.", e.memory.Size),
	)
	for _, s := range e.sources {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sluice_adapter_prometheus_up", Help: "1 if the last request to the source succeeded, 0 if it failed or none was made.",
			ConstLabels: prometheus.Labels{"source": s.Name},
		}, func() float64 {
			if h := s.Health(); h.Failures > 0 || h.Success.IsZero() {
				return 0
			}
			return 1
		}))
	}
	for _, c := range all {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// Observe returns what is told of each request to a source.
func (e *Engine) Observe(source string) func(kind, result string, d time.Duration) {
	return e.metrics.Observe(source)
}
