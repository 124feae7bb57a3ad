// Package provider answers the custom and external metrics APIs from what the adapter holds in memory. No request causes a
// call to the API server, to a pod or to Prometheus.
//
// Unknown is an error, never a zero: a HorizontalPodAutoscaler changes nothing on an error, and scales in on a zero.
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
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
	metrics "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/sluice-autoscaler/sluice/adapter/reading"
	"github.com/sluice-autoscaler/sluice/algorithms"
)

// Names of the metrics that are served, in both APIs.
const (
	// Concurrency is the mean number of requests in flight at the pods plus held at gateways.
	Concurrency = "request_concurrency"
	// Rate is requests answered per second.
	Rate = "request_rate"
	// Waiting is the mean number of requests held at gateways. Pods have no such metric: what waits is not yet any pod's.
	Waiting = "request_waiting"
)

// Bounds of the window that a request may ask for.
const (
	MinWindow = time.Second
	MaxWindow = time.Hour
)

// Target is an object whose pods' demand can be asked for.
type Target struct {
	// Name is the object's name.
	Name string
	// Pods selects its pods; Services are those whose held requests are its demand too.
	Pods     labels.Selector
	Services []string
	// Fault, when not empty, says why it cannot be measured and what to do, in words that follow the object's name.
	Fault string
	// Untyped says that no pod template was found for it, so that only its pods can tell whether they are measured.
	Untyped bool
}

// Objects looks objects up in memory. Implementations are safe for concurrent use and do no I/O.
type Objects interface {
	// Get returns one object; ok is false when there is none of that name. The resource is one of services,
	// deployments.apps, statefulsets.apps and replicasets.apps.
	Get(resource schema.GroupResource, namespace, name string) (t Target, ok bool, err error)
	// List returns the objects of a namespace whose own labels match, ordered by name.
	List(resource schema.GroupResource, namespace string, selector labels.Selector) ([]Target, error)
	// Ready says why lookups cannot be answered yet, nil once they can.
	Ready() error
}

// Options say what a Provider answers from.
type Options struct {
	Reader  reading.Reader
	Objects Objects
	// DefaultWindow is the time over which values are means when a request names none: 1 s to 1 h in whole seconds. A
	// longer one is steadier and later; the controller's default of 15 s is one period of a HorizontalPodAutoscaler.
	DefaultWindow time.Duration
	// Clock tells the time; nil means time.Now.
	Clock func() time.Time
}

// Validate names every fault of the options.
func (o Options) Validate() error {
	var errs []error
	if o.Reader == nil {
		errs = append(errs, errors.New("reader is missing"))
	}
	if o.Objects == nil {
		errs = append(errs, errors.New("objects are missing"))
	}
	if err := checkWindow(o.DefaultWindow); err != nil {
		errs = append(errs, fmt.Errorf("default window %w", err))
	}
	return errors.Join(errs...)
}

// Provider serves both metrics APIs. It is safe for concurrent use.
type Provider struct {
	reader  reading.Reader
	objects Objects
	window  time.Duration
	clock   func() time.Time
}

var _ metrics.MetricsProvider = (*Provider)(nil)

// New makes a Provider.
func New(o Options) (*Provider, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("make the metrics provider: %w", err)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &Provider{reader: o.Reader, objects: o.Objects, window: o.DefaultWindow, clock: o.Clock}, nil
}

// Ready says why nothing can be answered yet, nil once everything has been listed and read once.
func (p *Provider) Ready() error {
	return errors.Join(p.objects.Ready(), p.reader.Ready())
}

// ListAllMetrics lists what the custom metrics API serves. The list never changes, so discovery stays small and stable.
func (p *Provider) ListAllMetrics() []metrics.CustomMetricInfo {
	var all []metrics.CustomMetricInfo
	for _, k := range kinds() {
		for _, m := range metricNames() {
			if k.resource == pods && m == Waiting {
				continue
			}
			all = append(all, metrics.CustomMetricInfo{GroupResource: k.resource, Namespaced: true, Metric: m})
		}
	}
	return all
}

// ListAllExternalMetrics lists what the external metrics API serves.
func (p *Provider) ListAllExternalMetrics() []metrics.ExternalMetricInfo {
	var all []metrics.ExternalMetricInfo
	for _, m := range metricNames() {
		all = append(all, metrics.ExternalMetricInfo{Metric: m})
	}
	return all
}

// GetMetricByName answers for one object.
func (p *Provider) GetMetricByName(_ context.Context, name types.NamespacedName, info metrics.CustomMetricInfo, selector labels.Selector) (*custom_metrics.MetricValue, error) {
	q, err := p.custom(name.Namespace, info, selector)
	if err != nil {
		return nil, err
	}
	if q.kind.resource == pods {
		for _, v := range p.reader.Pods(q.now, q.namespace, labels.Everything(), q.signal, q.window) {
			if v.Name == name.Name {
				return q.value(v.Name, v.Value)
			}
		}
		return nil, q.notFound(name.Name, "there is no such pod that takes requests and has a port named "+portName)
	}
	t, ok, err := p.objects.Get(q.kind.resource, q.namespace, name.Name)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("look up %s: %w", q.object(name.Name), err))
	}
	if !ok {
		return nil, q.notFound(name.Name, "there is no such object")
	}
	v, err := p.workload(q, t)
	if err != nil {
		return nil, err
	}
	return q.value(t.Name, v)
}

// GetMetricBySelector answers for every selected object that has a value. An answer without any would tell a
// HorizontalPodAutoscaler nothing but that it is empty; an error says why.
func (p *Provider) GetMetricBySelector(_ context.Context, namespace string, selector labels.Selector, info metrics.CustomMetricInfo, metricSelector labels.Selector) (*custom_metrics.MetricValueList, error) {
	q, err := p.custom(namespace, info, metricSelector)
	if err != nil {
		return nil, err
	}
	list := &custom_metrics.MetricValueList{}
	var first error
	add := func(v *custom_metrics.MetricValue, err error) {
		if err == nil {
			list.Items = append(list.Items, *v)
		} else if first == nil {
			first = err
		}
	}
	if q.kind.resource == pods {
		for _, v := range p.reader.Pods(q.now, namespace, selector, q.signal, q.window) {
			add(q.value(v.Name, v.Value))
		}
	} else {
		targets, err := p.objects.List(q.kind.resource, namespace, selector)
		if err != nil {
			return nil, apierrors.NewInternalError(fmt.Errorf("list %s: %w", q.kind.resource, err))
		}
		for _, t := range targets {
			v, err := p.workload(q, t)
			if err != nil {
				add(nil, err)
				continue
			}
			add(q.value(t.Name, v))
		}
	}
	if len(list.Items) > 0 {
		return list, nil
	}
	if first != nil {
		return nil, first
	}
	why := fmt.Sprintf("none matches %q", selector)
	if q.kind.resource == pods {
		why = fmt.Sprintf("no pod that takes requests and has a port named %s matches %q", portName, selector)
	}
	return nil, q.notFound("*", why)
}

// GetExternalMetric answers for the workload that the selector names: deployment=NAME, service=NAME or statefulset=NAME, and
// optionally window=30s.
func (p *Provider) GetExternalMetric(_ context.Context, namespace string, selector labels.Selector, info metrics.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error) {
	signal, ok := signalOf(info.Metric)
	if !ok {
		return nil, notFound("there is no external metric %s; there are %s", info.Metric, strings.Join(metricNames(), ", "))
	}
	wants, err := pairs(selector, "deployment", "service", "statefulset", windowKey)
	if err != nil {
		return nil, err
	}
	window, err := p.windowOf(wants)
	if err != nil {
		return nil, err
	}
	q := query{metric: info.Metric, signal: signal, namespace: namespace, window: window, now: p.clock()}
	var key string
	for _, k := range kinds() {
		if k.key == "" || wants[k.key] == "" {
			continue
		}
		if key != "" {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("labelSelector %q names two workloads; give one of deployment, service and statefulset", selector))
		}
		key, q.kind = k.key, k
	}
	if key == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("labelSelector %q names no workload; give deployment=NAME, service=NAME or statefulset=NAME", selector))
	}
	if err := p.settled(q); err != nil {
		return nil, err
	}
	name := wants[key]
	t, ok, err := p.objects.Get(q.kind.resource, namespace, name)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("look up %s: %w", q.object(name), err))
	}
	if !ok {
		return nil, q.notFound(name, "there is no such object")
	}
	v, err := p.workload(q, t)
	if err != nil {
		return nil, err
	}
	quantity, err := q.quantity(name, v)
	if err != nil {
		return nil, err
	}
	return &external_metrics.ExternalMetricValueList{Items: []external_metrics.ExternalMetricValue{{
		MetricName: info.Metric, MetricLabels: map[string]string{key: name},
		Timestamp: q.timestamp(v), WindowSeconds: windowSeconds(v), Value: quantity,
	}}}, nil
}

// custom checks a request of the custom metrics API.
func (p *Provider) custom(namespace string, info metrics.CustomMetricInfo, selector labels.Selector) (query, error) {
	q := query{metric: info.Metric, namespace: namespace}
	var ok bool
	if q.kind, ok = kindOf(info.GroupResource); !ok {
		return q, notFound("%s have no metric %s here; those that have are %s", info.GroupResource, info.Metric, strings.Join(resourceNames(), ", "))
	}
	if q.signal, ok = signalOf(info.Metric); !ok {
		return q, notFound("there is no metric %s for %s; there are %s", info.Metric, info.GroupResource, strings.Join(metricNames(), ", "))
	}
	if q.kind.resource == pods && info.Metric == Waiting {
		return q, notFound("pods have no metric %s, since requests that wait at a gateway are not yet any pod's; ask for that of the Service or the Deployment", Waiting)
	}
	if namespace == "" {
		return q, notFound("%s are asked for within a namespace", info.GroupResource)
	}
	wants, err := pairs(selector, windowKey)
	if err != nil {
		return q, err
	}
	if q.window, err = p.windowOf(wants); err != nil {
		return q, err
	}
	if wants[windowKey] != "" {
		q.echo = &metav1.LabelSelector{MatchLabels: map[string]string{windowKey: wants[windowKey]}}
	}
	q.now = p.clock()
	return q, p.settled(q)
}

// settled refuses answers from a memory that is not filled yet: an object that is not listed yet would be taken for absent.
func (p *Provider) settled(q query) error {
	if err := p.Ready(); err != nil {
		return apierrors.NewServiceUnavailable(fmt.Sprintf("%s is not known yet: %s", q.metric, oneLine(err)))
	}
	return nil
}

// workload reads the sum over an object's pods and what gateways hold for it.
func (p *Provider) workload(q query, t Target) (reading.Value, error) {
	if t.Fault != "" {
		return reading.Value{}, q.notFound(t.Name, t.Fault)
	}
	v := p.reader.Workload(q.now, q.namespace, t.Pods, t.Services, q.signal, q.window)
	if t.Untyped && len(p.reader.Pods(q.now, q.namespace, t.Pods, q.signal, q.window)) == 0 {
		// Nothing tells a workload at zero from one that is not measured at all, so that zero would be a guess.
		return reading.Value{}, q.notFound(t.Name, "none of its pods has a container port named "+portName+" and no workload that is behind it is known; "+remedy)
	}
	return v, nil
}

// query is one checked request.
type query struct {
	metric, signal string
	kind           kind
	namespace      string
	window         time.Duration
	echo           *metav1.LabelSelector
	now            time.Time
}

func (q query) object(name string) string {
	return fmt.Sprintf("%s %s/%s", q.kind.resource, q.namespace, name)
}

func (q query) notFound(name, why string) error {
	return notFound("%s of %s: %s", q.metric, q.object(name), why)
}

func (q query) unknown(name, why string) error {
	return apierrors.NewServiceUnavailable(fmt.Sprintf("%s of %s over %s is unknown: %s", q.metric, q.object(name), q.window, why))
}

// value turns a reading into an item of the custom metrics API.
func (q query) value(name string, v reading.Value) (*custom_metrics.MetricValue, error) {
	quantity, err := q.quantity(name, v)
	if err != nil {
		return nil, err
	}
	return &custom_metrics.MetricValue{
		DescribedObject: custom_metrics.ObjectReference{
			APIVersion: q.kind.version.String(), Kind: q.kind.kind, Namespace: q.namespace, Name: name,
		},
		Metric:    custom_metrics.MetricIdentifier{Name: q.metric, Selector: q.echo},
		Timestamp: q.timestamp(v), WindowSeconds: windowSeconds(v), Value: quantity,
	}, nil
}

// quantity rounds a reading to the nearest thousandth. What is no finite number ≥ 0 is unknown.
func (q query) quantity(name string, v reading.Value) (resource.Quantity, error) {
	if !v.Known {
		why := v.Missing
		if why == "" {
			why = "there is no reading of it"
		}
		return resource.Quantity{}, q.unknown(name, why)
	}
	milli := math.Round(v.Value * 1000)
	if !(milli >= 0 && milli < math.MaxInt64) { // false for NaN
		return resource.Quantity{}, q.unknown(name, fmt.Sprintf("its reading %v is no amount", v.Value))
	}
	return *resource.NewMilliQuantity(int64(milli), resource.DecimalSI), nil
}

// timestamp is the instant of the newest reading; where nothing had to be read (a zero at zero pods) it is now.
func (q query) timestamp(v reading.Value) metav1.Time {
	if v.At.IsZero() {
		return metav1.NewTime(q.now)
	}
	return metav1.NewTime(v.At)
}

// windowSeconds is nil for an instant's value.
func windowSeconds(v reading.Value) *int64 {
	if v.Window <= 0 {
		return nil
	}
	s := int64(math.Round(v.Window.Seconds()))
	return &s
}

func notFound(format string, args ...any) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: 404, Reason: metav1.StatusReasonNotFound, Message: fmt.Sprintf(format, args...),
	}}
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func metricNames() []string { return []string{Concurrency, Rate, Waiting} }

func signalOf(metric string) (signal string, ok bool) {
	switch metric {
	case Concurrency:
		return algorithms.Concurrency, true
	case Rate:
		return algorithms.Rate, true
	case Waiting:
		return algorithms.Waiting, true
	}
	return "", false
}
