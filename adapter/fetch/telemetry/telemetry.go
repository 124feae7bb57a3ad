// Package telemetry has the metrics of what makes rules answer.
package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Instruments are the metrics that are counted where things happen. They are safe for concurrent
// use.
type Instruments struct {
	Requests      *prometheus.CounterVec
	Duration      *prometheus.HistogramVec
	Answers       *prometheus.CounterVec
	ReloadSuccess prometheus.Gauge
	ReloadTime    prometheus.Gauge
	ListErrors    prometheus.Counter
}

// New returns Instruments that are not registered.
func New() Instruments {
	return Instruments{
		Requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_adapter_prometheus_requests_total",
			Help: "Requests to Prometheus by source, kind (query, names, labels) and result: ok, rejected (the query's fault), failed, not_sent (paused after failures).",
		}, []string{"source", "kind", "result"}),
		Duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sluice_adapter_prometheus_request_duration_seconds", Help: "Duration of requests to Prometheus, failed ones included.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"source"}),
		Answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_adapter_rules_answers_total",
			Help: "Answers to readers of metrics of rules by API (custom, external, resource) and result: ok, held (a value from before), or the status of the error.",
		}, []string{"api", "result"}),
		ReloadSuccess: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_adapter_rules_last_reload_success", Help: "1 if the rules as the file has them now are in use, 0 if older ones are.",
		}),
		ReloadTime: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_adapter_rules_last_reload_success_timestamp_seconds", Help: "When rules were last taken over.",
		}),
		ListErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_adapter_rules_list_errors_total", Help: "Lists of series names that failed.",
		}),
	}
}

// All are the metrics, to be registered.
func (i *Instruments) All() []prometheus.Collector {
	return []prometheus.Collector{i.Requests, i.Duration, i.Answers, i.ReloadSuccess, i.ReloadTime, i.ListErrors}
}

// Observe returns what is told of each request to a source.
func (i *Instruments) Observe(source string) func(kind, result string, d time.Duration) {
	return func(kind, result string, d time.Duration) {
		i.Requests.WithLabelValues(source, kind, result).Inc()
		if result != "not_sent" {
			i.Duration.WithLabelValues(source).Observe(d.Seconds())
		}
	}
}
