package provider

import (
	"context"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
	metricsapi "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
)

// Union answers from a Provider, and from another source, whose list of metrics may change, for all
// that the Provider does not have. It is safe for concurrent use.
type Union struct {
	own  *Provider
	more metricsapi.MetricsProvider
}

var _ metricsapi.MetricsProvider = (*Union)(nil)

// NewUnion joins two. Of a metric that both have the Provider's is served.
func NewUnion(own *Provider, more metricsapi.MetricsProvider) *Union {
	return &Union{own: own, more: more}
}

// Serves reports whether the Provider has a metric itself: of a resource, or an external one if the
// resource is empty. What it says it has not, and why, counts.
func (p *Provider) Serves(r schema.GroupResource, metric string) bool {
	if r == (schema.GroupResource{}) {
		_, ok := p.metrics.external(metric)
		return ok
	}
	for i := range p.metrics {
		if m := &p.metrics[i]; m.Name == metric {
			if _, ok := m.kind(r); ok || m.Absent[r] != "" {
				return true
			}
		}
	}
	return false
}

// ListAllMetrics lists what the custom metrics API serves.
func (u *Union) ListAllMetrics() []metricsapi.CustomMetricInfo {
	all := u.own.ListAllMetrics()
	for _, m := range u.more.ListAllMetrics() {
		if !u.own.Serves(m.GroupResource, m.Metric) {
			all = append(all, m)
		}
	}
	return all
}

// ListAllExternalMetrics lists what the external metrics API serves.
func (u *Union) ListAllExternalMetrics() []metricsapi.ExternalMetricInfo {
	all := u.own.ListAllExternalMetrics()
	for _, m := range u.more.ListAllExternalMetrics() {
		if !u.own.Serves(schema.GroupResource{}, m.Metric) {
			all = append(all, m)
		}
	}
	return all
}

// GetMetricByName answers for one object.
func (u *Union) GetMetricByName(ctx context.Context, name types.NamespacedName, info metricsapi.CustomMetricInfo, selector labels.Selector) (*custom_metrics.MetricValue, error) {
	if u.own.Serves(info.GroupResource, info.Metric) {
		return u.own.GetMetricByName(ctx, name, info, selector)
	}
	return u.more.GetMetricByName(ctx, name, info, selector)
}

// GetMetricBySelector answers for the objects that are selected.
func (u *Union) GetMetricBySelector(ctx context.Context, namespace string, selector labels.Selector, info metricsapi.CustomMetricInfo, metricSelector labels.Selector) (*custom_metrics.MetricValueList, error) {
	if u.own.Serves(info.GroupResource, info.Metric) {
		return u.own.GetMetricBySelector(ctx, namespace, selector, info, metricSelector)
	}
	return u.more.GetMetricBySelector(ctx, namespace, selector, info, metricSelector)
}

// GetExternalMetric answers for a namespace.
func (u *Union) GetExternalMetric(ctx context.Context, namespace string, selector labels.Selector, info metricsapi.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error) {
	if u.own.Serves(schema.GroupResource{}, info.Metric) {
		return u.own.GetExternalMetric(ctx, namespace, selector, info)
	}
	return u.more.GetExternalMetric(ctx, namespace, selector, info)
}
