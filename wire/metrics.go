// Package wire holds the names and formats that Sluice's parts share: metric names that sources
// expose and the collector reads, and the stream between gateways and the controller. It imports
// the standard library only.
package wire

// Metrics that a source of request concurrency (a sidecar) exposes on its metrics port. Counters
// restart at zero with the source; StartTime tells one life from the next.
const (
	// ConcurrencySeconds is the counter ∫ requests in flight dt, in request-seconds: queued at the
	// source and running. Its increase over an interval divided by the interval is the exact mean
	// concurrency of that interval.
	ConcurrencySeconds = "sluice_request_concurrency_seconds_total"
	// Requests is the counter of requests answered, by label LabelCode ("1xx" … "5xx").
	Requests = "sluice_requests_total"
	// InFlight is the gauge of requests in flight at the read, queued ones included.
	InFlight = "sluice_requests_in_flight"
	// Queued is the gauge of requests that wait at the source for a place under ConcurrencyLimit.
	Queued = "sluice_requests_queued"
	// ConcurrencyLimit is the gauge of the source's own limit in requests; 0 means none.
	ConcurrencyLimit = "sluice_concurrency_limit"
	// MonotonicSeconds is the gauge of the source's own monotonic clock at the read, in seconds
	// since the source started. ConcurrencySeconds was read at this very instant, so that a late
	// scrape shifts nothing.
	MonotonicSeconds = "sluice_monotonic_seconds"
	// StartTime is the gauge of the source's start in Unix seconds; a change means a new life and
	// reset counters.
	StartTime = "process_start_time_seconds"
)

// LabelCode is the label of Requests that holds the class of the status code.
const LabelCode = "code"

// Names by which the parts find one another in a cluster.
const (
	// Domain is the prefix of Sluice's labels and annotations and the managed-by value of its
	// EndpointSlices.
	Domain = "sluice.dev"
	// MetricsPortName is the name of the container port (of any container or native sidecar) on
	// which a pod exposes the metrics above. A pod that has such a port is collected.
	MetricsPortName = "sluice-metrics"
	// ControlPortName is the name of the gateway's container port that serves Assignments and
	// Reports.
	ControlPortName = "sluice-control"
	// GatewayLabel and GatewayValue select the gateway's pods.
	GatewayLabel = "app.kubernetes.io/component"
	// GatewayValue is the value of GatewayLabel on gateway pods.
	GatewayValue = "sluice-gateway"
)
