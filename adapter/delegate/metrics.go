package delegate

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// instruments are the metrics of delegation.
type instruments struct {
	requests      *prometheus.CounterVec
	duration      *prometheus.HistogramVec
	reloadSuccess prometheus.Gauge
	reloadTime    prometheus.Gauge
	collisions    prometheus.Gauge

	mu sync.RWMutex
	// names are the delegates that there are: a request that ends later makes no series.
	names map[string]bool
}

func newInstruments() *instruments {
	return &instruments{
		names: map[string]bool{},
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_adapter_delegate_requests_total",
			Help: "Requests to another provider by delegate, kind (custom, external, discovery) and result: ok, rejected (a status of its own), failed, not_sent (paused after failures, or too many at once).",
		}, []string{"delegate", "kind", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sluice_adapter_delegate_request_duration_seconds", Help: "Duration of requests to another provider, failed ones included.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"delegate"}),
		reloadSuccess: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_adapter_delegates_last_reload_success", Help: "1 if the delegates as the file has them now are in use, 0 if older ones are.",
		}),
		reloadTime: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_adapter_delegates_last_reload_success_timestamp_seconds", Help: "When delegates were last taken over.",
		}),
		collisions: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_adapter_delegate_collisions", Help: "Metrics that a delegate has and that somebody before it answers; the log names them.",
		}),
	}
}

// observe counts a request.
func (i *instruments) observe(delegate, kind, result string, d time.Duration) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	if !i.names[delegate] {
		return
	}
	i.requests.WithLabelValues(delegate, kind, result).Inc()
	if result != "not_sent" {
		i.duration.WithLabelValues(delegate).Observe(d.Seconds())
	}
}

// keep drops what belongs to delegates that are none any more.
func (i *instruments) keep(names map[string]bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for delegate := range i.names {
		if !names[delegate] {
			i.requests.DeletePartialMatch(prometheus.Labels{"delegate": delegate})
			i.duration.DeletePartialMatch(prometheus.Labels{"delegate": delegate})
		}
	}
	i.names = names
}

// state exposes how the delegates are that there are now.
type state struct {
	of                 *Delegates
	up, listed, listAt *prometheus.Desc
}

func newState(of *Delegates) *state {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"delegate"}, nil)
	}
	return &state{
		of:     of,
		up:     desc("sluice_adapter_delegate_up", "1 if the last request to the delegate was answered, 0 if it failed, was refused to Sluice, or none was made."),
		listed: desc("sluice_adapter_delegate_metrics", "Metrics that the delegate listed when it last did and that it is asked for."),
		listAt: desc("sluice_adapter_delegate_discovery_age_seconds", "Time since the delegate last listed its metrics; no series until it did."),
	}
}

// Describe implements prometheus.Collector.
func (s *state) Describe(ch chan<- *prometheus.Desc) { ch <- s.up; ch <- s.listed; ch <- s.listAt }

// Collect implements prometheus.Collector.
func (s *state) Collect(ch chan<- prometheus.Metric) {
	for _, p := range s.of.table.Load().providers {
		up := 0.0
		if p.Up() {
			up = 1
		}
		ch <- prometheus.MustNewConstMetric(s.up, prometheus.GaugeValue, up, p.Name())
		custom, external, at := p.Listed()
		ch <- prometheus.MustNewConstMetric(s.listed, prometheus.GaugeValue, float64(len(custom)+len(external)), p.Name())
		if !at.IsZero() {
			ch <- prometheus.MustNewConstMetric(s.listAt, prometheus.GaugeValue, s.of.opts.Clock().Sub(at).Seconds(), p.Name())
		}
	}
}
