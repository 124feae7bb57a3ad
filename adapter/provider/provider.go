// Package provider answers the custom and external metrics APIs from a table of metrics, each of
// which has a source that answers from memory. No request causes a call to the API server, to a pod
// or to Prometheus.
//
// Unknown is an error, never a zero: a HorizontalPodAutoscaler changes nothing on an error, and
// scales in on a zero.
package provider

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
	metricsapi "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/sluice-autoscaler/sluice/adapter/store"
)

// Bounds of the window that a request may ask for.
const (
	MinWindow = time.Second
	MaxWindow = time.Hour
)

// Options say what a Provider answers from.
type Options struct {
	// Metrics are what is served; at least one. Of one resource no two have the same name, and no
	// two external ones have.
	Metrics []Metric
	// DefaultWindow is the time over which values are means when a request names none: 1 s to 1 h
	// in whole seconds. A longer one is steadier and later; the controller's default of 15 s is one
	// period of a HorizontalPodAutoscaler.
	DefaultWindow time.Duration
	// Clock tells the time; nil means time.Now.
	Clock func() time.Time
}

// Validate names every fault of the options.
func (o Options) Validate() error {
	var errs []error
	if len(o.Metrics) == 0 {
		errs = append(errs, errors.New("metrics are missing"))
	}
	served := map[string]bool{}
	serve := func(of, name string) {
		if served[of+" "+name] {
			errs = append(errs, fmt.Errorf("metric %s of %s is there twice", name, of))
		}
		served[of+" "+name] = true
	}
	for i := range o.Metrics {
		m := &o.Metrics[i]
		if m.Name == "" || m.Source == nil {
			errs = append(errs, fmt.Errorf("metrics[%d] (%q) has no name or no source", i, m.Name))
		}
		for _, k := range m.Describes {
			serve(k.Resource.String(), m.Name)
		}
		if m.External {
			serve("the external API", m.Name)
		}
	}
	if err := checkWindow(o.DefaultWindow); err != nil {
		errs = append(errs, fmt.Errorf("default window %w", err))
	}
	return errors.Join(errs...)
}

// Provider serves both metrics APIs. It is safe for concurrent use.
type Provider struct {
	metrics metrics
	sources []Source
	window  time.Duration
	clock   func() time.Time
}

var _ metricsapi.MetricsProvider = (*Provider)(nil)

// New makes a Provider.
func New(o Options) (*Provider, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("make the metrics provider: %w", err)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	p := &Provider{metrics: o.Metrics, window: o.DefaultWindow, clock: o.Clock}
	p.sources = p.metrics.sources()
	return p, nil
}

// Ready says which sources cannot answer yet, nil once all can.
func (p *Provider) Ready() error {
	var errs []error
	for _, s := range p.sources {
		errs = append(errs, s.Ready())
	}
	return errors.Join(errs...)
}

// ListAllMetrics lists what the custom metrics API serves, resource by resource. The list never
// changes, so that discovery stays small and stable.
func (p *Provider) ListAllMetrics() []metricsapi.CustomMetricInfo {
	var all []metricsapi.CustomMetricInfo
	for _, k := range p.metrics.kinds() {
		for i := range p.metrics {
			if k, ok := p.metrics[i].kind(k.Resource); ok {
				all = append(all, metricsapi.CustomMetricInfo{GroupResource: k.Resource, Namespaced: k.Namespaced, Metric: p.metrics[i].Name})
			}
		}
	}
	return all
}

// ListAllExternalMetrics lists what the external metrics API serves.
func (p *Provider) ListAllExternalMetrics() []metricsapi.ExternalMetricInfo {
	var all []metricsapi.ExternalMetricInfo
	for i := range p.metrics {
		if p.metrics[i].External {
			all = append(all, metricsapi.ExternalMetricInfo{Metric: p.metrics[i].Name})
		}
	}
	return all
}

// GetMetricByName answers for one object.
func (p *Provider) GetMetricByName(_ context.Context, name types.NamespacedName, info metricsapi.CustomMetricInfo, selector labels.Selector) (*custom_metrics.MetricValue, error) {
	q, err := p.query(name.Namespace, info, selector)
	if err != nil {
		return nil, err
	}
	v, err := q.Metric.Source.Object(q, name.Name)
	if err != nil {
		return nil, err
	}
	return q.item(name.Name, v)
}

// GetMetricBySelector answers for every selected object that has a value. An answer without any
// would tell a HorizontalPodAutoscaler nothing but that it is empty; an error says why.
func (p *Provider) GetMetricBySelector(_ context.Context, namespace string, selector labels.Selector, info metricsapi.CustomMetricInfo, metricSelector labels.Selector) (*custom_metrics.MetricValueList, error) {
	q, err := p.query(namespace, info, metricSelector)
	if err != nil {
		return nil, err
	}
	values, err := q.Metric.Source.Objects(q, selector)
	if err != nil {
		return nil, err
	}
	list := &custom_metrics.MetricValueList{}
	var first error
	for _, v := range values {
		var item *custom_metrics.MetricValue
		err := v.Err
		if err == nil {
			item, err = q.item(v.Name, v.Value)
		}
		switch {
		case err == nil:
			list.Items = append(list.Items, *item)
		case first == nil:
			first = err
		}
	}
	switch {
	case len(list.Items) > 0:
		return list, nil
	case first != nil:
		return nil, first
	}
	return nil, q.NotFound("*", fmt.Sprintf("none matches %q", selector))
}

// GetExternalMetric answers for the object that the selector names, as deployment=NAME does,
// optionally with window=30s.
func (p *Provider) GetExternalMetric(_ context.Context, namespace string, selector labels.Selector, info metricsapi.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error) {
	m, ok := p.metrics.external(info.Metric)
	if !ok {
		return nil, notFound("there is no external metric %s; there are %s", info.Metric, p.metrics.names(func(m *Metric) bool { return m.External }))
	}
	keys := m.keys()
	wants, err := pairs(selector, append(keys, windowKey)...)
	if err != nil {
		return nil, err
	}
	q := Query{Metric: m, Namespace: namespace, Now: p.clock()}
	if q.Window, err = p.windowOf(wants); err != nil {
		return nil, err
	}
	if q.Kind, err = m.keyed(wants, selector); err != nil {
		return nil, err
	}
	if err := q.ready(); err != nil {
		return nil, err
	}
	name := wants[q.Kind.Key]
	v, err := m.Source.Object(q, name)
	if err != nil {
		return nil, err
	}
	quantity, err := q.quantity(name, v)
	if err != nil {
		return nil, err
	}
	return &external_metrics.ExternalMetricValueList{Items: []external_metrics.ExternalMetricValue{{
		MetricName: info.Metric, MetricLabels: map[string]string{q.Kind.Key: name},
		Timestamp: q.timestamp(v), WindowSeconds: windowSeconds(v), Value: quantity,
	}}}, nil
}

// query checks a request of the custom metrics API.
func (p *Provider) query(namespace string, info metricsapi.CustomMetricInfo, selector labels.Selector) (Query, error) {
	m, kind, ok := p.metrics.describing(info.GroupResource, info.Metric)
	if !ok {
		return Query{}, p.metrics.absence(info.GroupResource, info.Metric)
	}
	q := Query{Metric: m, Kind: kind, Namespace: namespace}
	if kind.Namespaced && namespace == "" {
		return q, notFound("%s are asked for within a namespace", info.GroupResource)
	}
	wants, err := pairs(selector, windowKey)
	if err != nil {
		return q, err
	}
	if q.Window, err = p.windowOf(wants); err != nil {
		return q, err
	}
	if wants[windowKey] != "" {
		q.echo = &metav1.LabelSelector{MatchLabels: map[string]string{windowKey: wants[windowKey]}}
	}
	q.Now = p.clock()
	return q, q.ready()
}

// ready refuses answers from a source that is not filled yet.
func (q Query) ready() error {
	if err := q.Metric.Source.Ready(); err != nil {
		return apierrors.NewServiceUnavailable(fmt.Sprintf("%s is not known yet: %s", q.Metric.Name, oneLine(err)))
	}
	return nil
}

// item turns a value into one of the custom metrics API.
func (q Query) item(name string, v store.Value) (*custom_metrics.MetricValue, error) {
	quantity, err := q.quantity(name, v)
	if err != nil {
		return nil, err
	}
	return &custom_metrics.MetricValue{
		DescribedObject: custom_metrics.ObjectReference{
			APIVersion: q.Kind.Version.String(), Kind: q.Kind.Kind, Namespace: q.Namespace, Name: name,
		},
		Metric:    custom_metrics.MetricIdentifier{Name: q.Metric.Name, Selector: q.echo},
		Timestamp: q.timestamp(v), WindowSeconds: windowSeconds(v), Value: quantity,
	}, nil
}

// quantity rounds a value to the nearest thousandth. What is no finite number ≥ 0 is unknown.
func (q Query) quantity(name string, v store.Value) (resource.Quantity, error) {
	if !v.Known {
		why := v.Missing
		if why == "" {
			why = "there is no reading of it"
		}
		return resource.Quantity{}, q.Unknown(name, why)
	}
	milli := math.Round(v.Value * 1000)
	if !(milli >= 0 && milli < math.MaxInt64) { // false for NaN
		return resource.Quantity{}, q.Unknown(name, fmt.Sprintf("its reading %v is no amount", v.Value))
	}
	return *resource.NewMilliQuantity(int64(milli), resource.DecimalSI), nil
}

// timestamp is the instant of the newest reading; where nothing had to be read (a zero at zero
// pods) it is now.
func (q Query) timestamp(v store.Value) metav1.Time {
	if v.At.IsZero() {
		return metav1.NewTime(q.Now)
	}
	return metav1.NewTime(v.At)
}

// windowSeconds is nil for an instant's value.
func windowSeconds(v store.Value) *int64 {
	if v.Window <= 0 {
		return nil
	}
	s := int64(math.Round(v.Window.Seconds()))
	return &s
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
