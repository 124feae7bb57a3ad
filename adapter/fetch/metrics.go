package fetch

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// instruments are the metrics of the engine.
type instruments struct {
	requests      *prometheus.CounterVec
	duration      *prometheus.HistogramVec
	answers       *prometheus.CounterVec
	reloadSuccess prometheus.Gauge
	reloadTime    prometheus.Gauge
	listErrors    prometheus.Counter
}

func newInstruments() instruments {
	return instruments{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_adapter_prometheus_requests_total",
			Help: "Requests to Prometheus by source, kind (query, names, labels) and result: ok, rejected (the query's fault), failed, not_sent (paused after failures).",
		}, []string{"source", "kind", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sluice_adapter_prometheus_request_duration_seconds", Help: "Duration of requests to Prometheus, failed ones included.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"source"}),
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_adapter_rules_answers_total",
			Help: "Answers to readers of metrics of rules by API (custom, external, resource) and result: ok, held (a value from before), or the status of the error.",
		}, []string{"api", "result"}),
		reloadSuccess: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_adapter_rules_last_reload_success", Help: "1 if the rules as the file has them now are in use, 0 if older ones are.",
		}),
		reloadTime: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_adapter_rules_last_reload_success_timestamp_seconds", Help: "When rules were last taken over.",
		}),
		listErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_adapter_rules_list_errors_total", Help: "Lists of series names that failed.",
		}),
	}
}

// register makes the metrics known.
func (e *Engine) register(r prometheus.Registerer) error {
	gauge := func(name, help string, v func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(v()) })
	}
	all := []prometheus.Collector{
		e.metrics.requests, e.metrics.duration, e.metrics.answers, e.metrics.reloadSuccess, e.metrics.reloadTime, e.metrics.listErrors,
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
	}
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
	return func(kind, result string, d time.Duration) {
		e.metrics.requests.WithLabelValues(source, kind, result).Inc()
		if result != "not_sent" {
			e.metrics.duration.WithLabelValues(source).Observe(d.Seconds())
		}
	}
}
