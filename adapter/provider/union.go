package provider

import (
	"context"
	"slices"

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

// NewUnion joins two. Of a metric that both have the Provider's is served, unless it yields.
func NewUnion(own *Provider, more metricsapi.MetricsProvider) *Union {
	return &Union{own: own, more: more}
}

// Serves reports whether the Provider has a metric itself that does not yield: of a resource, or an
// external one if the resource is empty. What it says it has not, and why, counts.
func (p *Provider) Serves(r schema.GroupResource, metric string) bool {
	m := p.find(r, metric)
	return m != nil && !m.Yields
}

func (p *Provider) find(r schema.GroupResource, metric string) *Metric {
	for i := range p.metrics {
		m := &p.metrics[i]
		if _, ok := m.kind(r); m.Name == metric && (ok || m.Absent[r] != "" || m.External && r.Empty()) {
			return m
		}
	}
	return nil
}

// serves reports whether the Provider's metric is served: another's is where it yields to one.
func (u *Union) serves(r schema.GroupResource, metric string) bool {
	m := u.own.find(r, metric)
	if m == nil || !m.Yields {
		return m != nil
	}
	if r.Empty() {
		return !slices.ContainsFunc(u.more.ListAllExternalMetrics(), func(i metricsapi.ExternalMetricInfo) bool { return i.Metric == metric })
	}
	return !slices.ContainsFunc(u.more.ListAllMetrics(), func(i metricsapi.CustomMetricInfo) bool {
		return i.Metric == metric && i.GroupResource == r
	})
}

// ListAllMetrics lists what the custom metrics API serves.
func (u *Union) ListAllMetrics() []metricsapi.CustomMetricInfo {
	all := u.own.ListAllMetrics()
	for _, m := range u.more.ListAllMetrics() {
		if u.own.find(m.GroupResource, m.Metric) == nil {
			all = append(all, m)
		}
	}
	return all
}

// ListAllExternalMetrics lists what the external metrics API serves.
func (u *Union) ListAllExternalMetrics() []metricsapi.ExternalMetricInfo {
	all := u.own.ListAllExternalMetrics()
	for _, m := range u.more.ListAllExternalMetrics() {
		if u.own.find(schema.GroupResource{}, m.Metric) == nil {
			all = append(all, m)
		}
	}
	return all
}

// GetMetricByName answers for one object.
func (u *Union) GetMetricByName(ctx context.Context, name types.NamespacedName, info metricsapi.CustomMetricInfo, selector labels.Selector) (*custom_metrics.MetricValue, error) {
	if u.serves(info.GroupResource, info.Metric) {
		return u.own.GetMetricByName(ctx, name, info, selector)
	}
	return u.more.GetMetricByName(ctx, name, info, selector)
}

// GetMetricBySelector answers for the objects that are selected.
func (u *Union) GetMetricBySelector(ctx context.Context, namespace string, selector labels.Selector, info metricsapi.CustomMetricInfo, metricSelector labels.Selector) (*custom_metrics.MetricValueList, error) {
	if u.serves(info.GroupResource, info.Metric) {
		return u.own.GetMetricBySelector(ctx, namespace, selector, info, metricSelector)
	}
	return u.more.GetMetricBySelector(ctx, namespace, selector, info, metricSelector)
}

// GetExternalMetric answers for a namespace.
func (u *Union) GetExternalMetric(ctx context.Context, namespace string, selector labels.Selector, info metricsapi.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error) {
	if u.serves(schema.GroupResource{}, info.Metric) {
		return u.own.GetExternalMetric(ctx, namespace, selector, info)
	}
	return u.more.GetExternalMetric(ctx, namespace, selector, info)
}
