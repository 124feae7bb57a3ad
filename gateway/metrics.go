package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-autoscaler/sluice/gateway/hold"
	"github.com/sluice-autoscaler/sluice/wire"
)

// metrics exposes the gateway as a prometheus.Collector; labels are those of assigned workloads.
type metrics struct {
	gateway *Gateway
	byPort  []portMetric
	readers *prometheus.Desc
	hold    *prometheus.HistogramVec
	phase   *prometheus.HistogramVec
}

type portMetric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(wire.PortReport) float64
}

// Phases of a cold start as label values.
const (
	phaseAnswering = "detected_to_answering"
	phaseReleased  = "answering_to_released"
)

func newMetrics(g *Gateway) *metrics {
	labels := []string{"namespace", "service"}
	buckets := []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	port := func(name, help string, kind prometheus.ValueType, value func(wire.PortReport) float64) portMetric {
		return portMetric{prometheus.NewDesc("sluice_gateway_"+name, help, labels, nil), kind, value}
	}
	return &metrics{
		gateway: g,
		byPort: []portMetric{
			port("requests_held", "Requests held now.", prometheus.GaugeValue, func(p wire.PortReport) float64 { return float64(p.Waiting) }),
			port("requests_forwarding", "Requests in flight at pods through this gateway now.", prometheus.GaugeValue, func(p wire.PortReport) float64 { return float64(p.Forwarding) }),
			port("ready_pods", "Pods that this gateway would forward to now.", prometheus.GaugeValue, func(p wire.PortReport) float64 { return float64(p.ReadyPods) }),
			port("waiting_seconds_total", "Time integral of the requests held, in request-seconds.", prometheus.CounterValue, func(p wire.PortReport) float64 { return p.WaitingSeconds }),
			port("requests_arrived_total", "Requests that came in.", prometheus.CounterValue, func(p wire.PortReport) float64 { return float64(p.Arrived) }),
			port("requests_forwarded_total", "Requests handed to a pod.", prometheus.CounterValue, func(p wire.PortReport) float64 { return float64(p.Forwarded) }),
			port("requests_rejected_total", "Requests answered 503: too many held, or no pod can start.", prometheus.CounterValue, func(p wire.PortReport) float64 { return float64(p.Rejected) }),
			port("requests_expired_total", "Requests answered 504: held too long.", prometheus.CounterValue, func(p wire.PortReport) float64 { return float64(p.Expired) }),
			port("requests_canceled_total", "Requests whose client left while they were held.", prometheus.CounterValue, func(p wire.PortReport) float64 { return float64(p.Canceled) }),
		},
		readers: prometheus.NewDesc("sluice_gateway_report_readers", "Readers of the report stream now.", nil, nil),
		hold: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sluice_gateway_hold_duration_seconds", Help: "How long requests were held that a pod got in the end.", Buckets: buckets,
		}, labels),
		phase: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sluice_gateway_cold_start_phase_seconds", Help: "Phases of wake-ups as this gateway saw them.", Buckets: buckets,
		}, append(labels, "phase")),
	}
}

// Collector returns the gateway's own metrics.
func (g *Gateway) Collector() prometheus.Collector { return g.metrics }

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, p := range m.byPort {
		ch <- p.desc
	}
	ch <- m.readers
	m.hold.Describe(ch)
	m.phase.Describe(ch)
}

// Collect implements prometheus.Collector. The ports of one Service are one series.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	type service struct{ namespace, name string }
	ports := m.gateway.Report().Ports
	for _, p := range m.byPort {
		sums := map[service]float64{}
		for _, port := range ports {
			sums[service{port.Namespace, port.Service}] += p.value(port)
		}
		for s, v := range sums {
			ch <- prometheus.MustNewConstMetric(p.desc, p.kind, v, s.namespace, s.name)
		}
	}
	ch <- prometheus.MustNewConstMetric(m.readers, prometheus.GaugeValue, float64(m.gateway.readers.Count()))
	m.hold.Collect(ch)
	m.phase.Collect(ch)
}

// observers returns what a queue tells its holds and wake-ups to.
func (m *metrics) observers(t Target) (func(time.Duration), func(hold.ColdStart)) {
	held := m.hold.WithLabelValues(t.Namespace, t.Service)
	answering := m.phase.WithLabelValues(t.Namespace, t.Service, phaseAnswering)
	released := m.phase.WithLabelValues(t.Namespace, t.Service, phaseReleased)
	return func(d time.Duration) { held.Observe(d.Seconds()) }, func(c hold.ColdStart) {
		answering.Observe((c.Answering - c.Detected).Seconds())
		released.Observe((c.Released - c.Answering).Seconds())
	}
}

// drop forgets a Service's series unless another of its ports is still there.
func (m *metrics) drop(t Target, lanes map[Target]*slot) {
	for other := range lanes {
		if other.Namespace == t.Namespace && other.Service == t.Service {
			return
		}
	}
	m.hold.DeleteLabelValues(t.Namespace, t.Service)
	m.phase.DeletePartialMatch(prometheus.Labels{"namespace": t.Namespace, "service": t.Service})
}
