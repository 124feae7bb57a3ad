package fetch

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
	metricsapi "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
)

var _ metricsapi.MetricsProvider = (*Engine)(nil)

// ListAllMetrics lists the custom metrics of rules.
func (e *Engine) ListAllMetrics() []metricsapi.CustomMetricInfo {
	st := e.state.Load()
	if st == nil {
		return nil
	}
	all := make([]metricsapi.CustomMetricInfo, len(st.custom))
	for i, m := range st.custom {
		all[i] = metricsapi.CustomMetricInfo{GroupResource: m.GroupResource, Namespaced: m.Namespaced, Metric: m.Metric}
	}
	return all
}

// ListAllExternalMetrics lists the external metrics of rules.
func (e *Engine) ListAllExternalMetrics() []metricsapi.ExternalMetricInfo {
	st := e.state.Load()
	if st == nil {
		return nil
	}
	all := make([]metricsapi.ExternalMetricInfo, len(st.external))
	for i, name := range st.external {
		all[i] = metricsapi.ExternalMetricInfo{Metric: name}
	}
	return all
}

// GetMetricByName answers for one object.
func (e *Engine) GetMetricByName(ctx context.Context, name types.NamespacedName, info metricsapi.CustomMetricInfo, selector labels.Selector) (*custom_metrics.MetricValue, error) {
	q := &question{
		resource: info.GroupResource, namespaced: name.Namespace != "", namespace: name.Namespace, names: []string{name.Name}, metric: info.Metric, selector: selector,
	}
	list, err := e.custom(ctx, q)
	if err != nil {
		return nil, err
	}
	if len(list.Items) == 0 {
		return nil, status(answer.NotFound(q.resource, q.metric, name.Name, ""))
	}
	return &list.Items[0], nil
}

// GetMetricBySelector answers for the objects whose own labels match.
func (e *Engine) GetMetricBySelector(ctx context.Context, namespace string, selector labels.Selector, info metricsapi.CustomMetricInfo, metricSelector labels.Selector) (*custom_metrics.MetricValueList, error) {
	q := &question{
		resource: info.GroupResource, namespaced: namespace != "", namespace: namespace, list: true, metric: info.Metric, selector: metricSelector,
	}
	st := e.state.Load()
	if st == nil {
		return nil, e.count("custom", status(answer.Unknown(q.metric, q.resource.String(), "the metrics of rules are not listed yet")))
	}
	if _, err := st.plan(q, e.opts.Clock()); err != nil {
		return nil, e.count("custom", status(err))
	}
	gvr, err := st.mapper.ResourceFor(info.GroupResource.WithVersion(""))
	if err == nil {
		q.names, err = e.opts.Objects.Names(ctx, gvr, namespace, selector)
	}
	if err != nil {
		return nil, e.count("custom", status(&answer.Error{
			Status: http.StatusInternalServerError, Message: "Internal error occurred: unable to list matching resources", Cause: err.Error(),
		}))
	}
	return e.custom(ctx, q)
}

// custom answers a question about objects.
func (e *Engine) custom(ctx context.Context, q *question) (*custom_metrics.MetricValueList, error) {
	a, err := e.answer(ctx, q)
	if err != nil {
		return nil, e.count("custom", status(err))
	}
	e.countValues("custom", a)
	kind, err := e.state.Load().mapper.KindFor(a.plan.metric.Resource.WithVersion(""))
	if err != nil {
		return nil, status(answer.Broken(err.Error()))
	}
	var echo *metav1.LabelSelector
	if q.selector != nil && !q.selector.Empty() {
		if echo, err = metav1.ParseToLabelSelector(q.selector.String()); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	}
	list := &custom_metrics.MetricValueList{}
	for _, v := range a.values {
		list.Items = append(list.Items, custom_metrics.MetricValue{
			DescribedObject: custom_metrics.ObjectReference{
				APIVersion: kind.GroupVersion().String(), Kind: kind.Kind, Namespace: q.namespace, Name: v.Name,
			},
			Metric: custom_metrics.MetricIdentifier{Name: q.metric, Selector: echo}, Timestamp: a.timestamp(v), WindowSeconds: a.window(), Value: v.Quantity,
		})
	}
	return list, nil
}

// GetExternalMetric answers for a namespace.
func (e *Engine) GetExternalMetric(ctx context.Context, namespace string, selector labels.Selector, info metricsapi.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error) {
	a, err := e.answer(ctx, &question{external: true, namespace: namespace, metric: info.Metric, selector: selector})
	if err != nil {
		return nil, e.count("external", status(err))
	}
	e.countValues("external", a)
	list := &external_metrics.ExternalMetricValueList{}
	for _, v := range a.values {
		list.Items = append(list.Items, external_metrics.ExternalMetricValue{
			MetricName: info.Metric, MetricLabels: v.Labels, Timestamp: a.timestamp(v), WindowSeconds: a.window(), Value: v.Quantity,
		})
	}
	return list, nil
}

// timestamp is that of the sample; a value that stands for none has the time of the question to
// Prometheus.
func (a *answered) timestamp(v answer.Value) metav1.Time {
	if v.Time.IsZero() {
		return metav1.NewTime(a.at)
	}
	return metav1.NewTime(v.Time)
}

// window is the longest time over which the query reads samples, nil for an instant.
func (a *answered) window() *int64 {
	if a.query.Parsed == nil {
		return nil
	}
	w := a.query.Parsed.Window()
	if w <= 0 {
		return nil
	}
	s := int64(math.Ceil(w.Seconds()))
	return &s
}

// status is an error as the metrics APIs give it.
func status(err error) error {
	e, ok := errors.AsType[*answer.Error](err)
	if !ok {
		return apierrors.NewInternalError(err)
	}
	reason := metav1.StatusReasonInternalError
	switch e.Status {
	case http.StatusBadRequest:
		reason = metav1.StatusReasonBadRequest
	case http.StatusNotFound:
		reason = metav1.StatusReasonNotFound
	case http.StatusServiceUnavailable:
		reason = metav1.StatusReasonServiceUnavailable
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: int32(e.Status), Reason: reason, Message: e.Error(), //nolint:gosec // a status of HTTP
	}}
}

// count counts an answer that is an error.
func (e *Engine) count(api string, err error) error {
	var s apierrors.APIStatus
	code := http.StatusInternalServerError
	if errors.As(err, &s) {
		code = int(s.Status().Code)
	}
	e.metrics.Answers.WithLabelValues(api, strconv.Itoa(code)).Inc()
	return err
}

func (e *Engine) countValues(api string, a answered) {
	result := "ok"
	if a.held {
		result = "held"
	}
	e.metrics.Answers.WithLabelValues(api, result).Inc()
}

// Question is what Explain explains.
type Question struct {
	// External asks for an external metric. Else Resource and Name tell the object; Name may be
	// empty, for what is asked before an object is known.
	External  bool
	Resource  schema.GroupResource
	Namespace string
	Name      string
	Metric    string
	Selector  labels.Selector
}

// Explanation says how a question is answered, and why there is no answer.
type Explanation struct {
	Metric string `json:"metric"`
	// Delegate is another provider that answers; Query is then the path that it is asked.
	Delegate string `json:"delegate,omitempty"`
	// Rule is the rule's place in the file, Series the series that it reads.
	Rule   string `json:"rule,omitempty"`
	Series string `json:"series,omitempty"`
	Source string `json:"source,omitempty"`
	// Query is what Prometheus is asked. Grouped says that it serves all objects; Ungrouped says
	// why none does.
	Query     string `json:"query,omitempty"`
	Grouped   bool   `json:"grouped"`
	Ungrouped string `json:"ungrouped,omitempty"`
	// Asked is when Prometheus was last asked, AgeSeconds how long ago, TookSeconds how long it
	// needed.
	Asked       *time.Time `json:"asked,omitempty"`
	AgeSeconds  float64    `json:"ageSeconds,omitempty"`
	TookSeconds float64    `json:"tookSeconds,omitempty"`
	// Samples are some of those of the object, SampleCount how many there are.
	Samples     []ExplainedSample `json:"samples,omitempty"`
	SampleCount int               `json:"sampleCount"`
	// Values is the answer to a reader; Error is why there is none, with the status of HTTP. Held
	// says that the values are from before.
	Values []string `json:"values,omitempty"`
	Held   bool     `json:"held,omitempty"`
	Status int      `json:"status"`
	Error  string   `json:"error,omitempty"`
}

// ExplainedSample is a sample of Prometheus.
type ExplainedSample struct {
	Labels string    `json:"labels"`
	Value  string    `json:"value"`
	Time   time.Time `json:"time"`
}

// maxExplained bounds the samples of an explanation.
const maxExplained = 20

// Explain answers a question, and says how.
func (e *Engine) Explain(ctx context.Context, question Question) Explanation {
	out := Explanation{Metric: question.Metric, Status: http.StatusOK}
	q := question.internal()
	a, err := e.answer(ctx, q)
	if st := e.state.Load(); st != nil && a.plan == nil {
		a.plan, _ = st.plan(q, e.opts.Clock())
	}
	if a.plan != nil {
		out.Rule, out.Series = a.plan.metric.Rule.Field, a.plan.metric.Series
		out.Grouped, out.Ungrouped = a.plan.grouped, a.plan.why
		query := a.query
		if query.PromQL == "" {
			query = a.plan.group
		}
		out.Query, out.Source = query.PromQL, query.Source
		if f, known := e.memory.Peek(a.plan.key(query, false)); known && !f.At.IsZero() {
			at := f.At
			out.Asked, out.AgeSeconds, out.TookSeconds = &at, e.opts.Clock().Sub(at).Seconds(), f.Took.Seconds()
			label := "" // a grouped query's samples of other objects are not the caller's
			if !question.External && !f.Result.Scalar {
				label, _ = a.plan.metric.Rule.Label(a.plan.metric.Resource.GroupResource)
			}
			for _, s := range f.Result.Samples {
				if label != "" && s.Labels[label] != question.Name {
					continue
				}
				if out.SampleCount++; out.SampleCount > maxExplained {
					continue
				}
				out.Samples = append(out.Samples, ExplainedSample{Labels: answer.Text(s.Labels), Value: strconv.FormatFloat(s.Value, 'g', -1, 64), Time: s.Time})
			}
		}
	}
	if err != nil {
		out.Status, out.Error = http.StatusInternalServerError, err.Error()
		if refused, ok := errors.AsType[*answer.Error](err); ok {
			out.Status = refused.Status
		}
		return out
	}
	out.Held = a.held
	for _, v := range a.values {
		name := v.Name
		if question.External {
			name = answer.Text(v.Labels)
		}
		out.Values = append(out.Values, name+" = "+v.String())
	}
	return out
}

func (q *Question) internal() *question {
	in := &question{
		external: q.External, resource: q.Resource, namespace: q.Namespace, namespaced: q.Namespace != "", metric: q.Metric, selector: q.Selector,
	}
	if !q.External && q.Name != "" {
		in.names = []string{q.Name}
	}
	// Of namespaces the caller is told of the one that it may read.
	if r := in.resource; r.Group == "" && (r.Resource == "namespaces" || r.Resource == "namespace") {
		in.namespace, in.namespaced, in.names = "", false, []string{q.Namespace}
	}
	return in
}

// Makes reports whether a rule answers for a metric, an external one if the resource is empty. One
// that it makes and that cannot be read counts. An error means that rules were not listed yet.
func (e *Engine) Makes(resource schema.GroupResource, namespace, metric string) (bool, error) {
	st := e.state.Load()
	if st == nil {
		return false, errors.New("the metrics of rules are not listed yet")
	}
	if resource.Empty() {
		m, _ := st.registry.ExternalMetric(namespace, metric) // the error is for readers
		return m != nil, nil
	}
	for _, namespaced := range []bool{true, false} {
		if m, _ := st.registry.Describes(resource, namespaced, metric); m != nil {
			return true, nil
		}
	}
	return false, nil
}
