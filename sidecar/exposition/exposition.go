// Package exposition puts a sidecar's state on /metrics, in the formats of Prometheus.
package exposition

import (
	"log/slog"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sluice-autoscaler/sluice/proxy/inflight"
	"github.com/sluice-autoscaler/sluice/proxy/request"
	"github.com/sluice-autoscaler/sluice/wire"
)

// Options are what Metrics reads at each scrape. All functions are called by many goroutines at once.
type Options struct {
	// Start is when this source began its life, by the wall clock.
	Start time.Time
	// Now is the time since Start on the monotonic clock that InFlight's instants are of.
	Now func() time.Duration
	// InFlight is the integral to expose.
	InFlight *inflight.Counter
	// Queued is the number of requests that wait for a place; Limit the number of places, 0 for none.
	Queued, Limit func() int
	// Draining says whether the source has begun to drain.
	Draining func() bool
	// Version is the program's version.
	Version string
}

// Metrics counts what requests do and collects it with the integral. New makes it; it is safe for concurrent use.
type Metrics struct {
	opts               Options
	classes            [5]atomic.Uint64 // by code/100 − 1
	uncounted          atomic.Uint64
	refused            [request.Reasons]atomic.Uint64
	duration, overhead prometheus.Histogram
	descs              descs
}

type descs struct {
	concurrency, requests, inFlight, queued, limit, monotonic, start, uncounted, refused, draining, build *prometheus.Desc
}

// New returns the metrics of one source.
func New(opts Options) *Metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	native := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: buckets,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 120, NativeHistogramMinResetDuration: time.Hour,
		})
	}
	return &Metrics{
		opts: opts,
		duration: native("sluice_sidecar_request_duration_seconds",
			"Time from a request's arrival to the end of its answer, waiting for a place included.",
			[]float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}),
		overhead: native("sluice_sidecar_overhead_seconds",
			"Time that the sidecar itself added before the app was asked and after its answer began, waiting for a place excluded.",
			[]float64{.00001, .000025, .00005, .0001, .00025, .0005, .001, .0025, .005, .01}),
		descs: descs{
			concurrency: desc(wire.ConcurrencySeconds, "Time integral of the requests in flight, queued ones included, in request-seconds."),
			requests:    desc(wire.Requests, "Requests that have ended, by class of the status code.", wire.LabelCode),
			inFlight:    desc(wire.InFlight, "Requests in flight, queued ones included."),
			queued:      desc(wire.Queued, "Requests that wait for a place under the concurrency limit."),
			limit:       desc(wire.ConcurrencyLimit, "Requests that may run at once; 0 means no limit."),
			monotonic:   desc(wire.MonotonicSeconds, "Monotonic time since the start at which the concurrency integral was read, in seconds."),
			start:       desc(wire.StartTime, "Start time of the process since unix epoch in seconds."),
			uncounted:   desc("sluice_sidecar_uncounted_requests_total", "Requests of health checks and scrapers, passed on but not counted as demand."),
			refused:     desc("sluice_sidecar_refused_requests_total", "Requests that the sidecar answered or gave up itself, by reason; those it could not read count nowhere else.", "reason"),
			draining:    desc("sluice_sidecar_draining", "1 once the sidecar has begun to drain, else 0."),
			build:       desc("sluice_sidecar_build_info", "Always 1; the labels tell what was built.", "version", "goversion"),
		},
	}
}

// Finished counts a request that has ended with the status code, after took, of which overhead was the sidecar's.
func (m *Metrics) Finished(code int, took, overhead time.Duration) {
	m.classes[min(max(code/100, 1), len(m.classes))-1].Add(1)
	m.duration.Observe(took.Seconds())
	if overhead >= 0 {
		m.overhead.Observe(overhead.Seconds())
	}
}

// Refused counts a request that the sidecar answered itself.
func (m *Metrics) Refused(r request.Reason) { m.refused[r].Add(1) }

// Ignored counts a request that is no demand.
func (m *Metrics) Ignored() { m.uncounted.Add(1) }

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector. The integral and the monotonic time it gives are of the same instant.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	r := m.opts.InFlight.Read(m.opts.Now())
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	d := &m.descs
	counter(d.concurrency, r.Seconds)
	gauge(d.monotonic, r.Now.Seconds())
	gauge(d.inFlight, float64(r.InFlight))
	gauge(d.queued, float64(m.opts.Queued()))
	gauge(d.limit, float64(m.opts.Limit()))
	gauge(d.start, float64(m.opts.Start.UnixMilli())/1e3)
	for i, class := range [...]string{"1xx", "2xx", "3xx", "4xx", "5xx"} {
		counter(d.requests, float64(m.classes[i].Load()), class)
	}
	counter(d.uncounted, float64(m.uncounted.Load()))
	for i := range m.refused {
		counter(d.refused, float64(m.refused[i].Load()), request.Reason(i).String())
	}
	draining := 0.0
	if m.opts.Draining() {
		draining = 1
	}
	gauge(d.draining, draining)
	gauge(d.build, 1, m.opts.Version, runtime.Version())
	m.duration.Collect(ch)
	m.overhead.Collect(ch)
}

// Handler serves the metrics as text, OpenMetrics or protobuf, as the client asks, from a registry that holds nothing
// else. A scrape that cannot be answered whole is logged.
func (m *Metrics) Handler(log *slog.Logger) (http.Handler, error) {
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(m); err != nil {
		return nil, err
	}
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		EnableOpenMetrics: true,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}), nil
}
