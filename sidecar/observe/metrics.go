package observe

import "github.com/prometheus/client_golang/prometheus"

// collector exposes what the observer thinks of its own figures.
type collector struct {
	read                                         func() state
	connections, coverage, errorRatio, uncertain *prometheus.Desc
	samples, failures, interval                  *prometheus.Desc
}

func newCollector(read func() state) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &collector{
		read:        read,
		connections: desc("sluice_observe_connections", "Connections to the app at the last sample, by what is made of them. Streaming and opaque ones (HTTP/2, WebSocket, other protocols) cannot be read well.", "kind"),
		coverage:    desc("sluice_observe_coverage_ratio", "Share of the connections that carry one HTTP/1 request after another and can be read; 1 without any."),
		errorRatio:  desc("sluice_observe_error_ratio", "Estimated relative error of the concurrency integral over the last half minute. What opaque connections hide is not in it: see the coverage."),
		uncertain:   desc("sluice_observe_uncertain_seconds_total", "Part of the concurrency integral that is a guess, in request-seconds."),
		samples:     desc("sluice_observe_samples_total", "Samples of the kernel's view taken."),
		failures:    desc("sluice_observe_sample_failures_total", "Samples that could not be taken; while they cannot, the integral and its time stand still."),
		interval:    desc("sluice_observe_interval_seconds", "Mean time between two samples, as load and the CPU bound have it now."),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.read()
	put := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	for k, n := range s.stats.Connections {
		put(c.connections, prometheus.GaugeValue, float64(n), Kind(k).String())
	}
	put(c.coverage, prometheus.GaugeValue, s.stats.Coverage)
	put(c.errorRatio, prometheus.GaugeValue, s.stats.Error)
	put(c.uncertain, prometheus.CounterValue, s.stats.Uncertain)
	put(c.samples, prometheus.CounterValue, float64(s.samples))
	put(c.failures, prometheus.CounterValue, float64(s.failures))
	put(c.interval, prometheus.GaugeValue, s.interval.Seconds())
}
