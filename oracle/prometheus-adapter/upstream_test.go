package adapter_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	pmodel "github.com/prometheus/common/model"
	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
	"github.com/sluice-autoscaler/sluice/adapter/rules/mapping"
	"github.com/sluice-autoscaler/sluice/adapter/rules/ruletest"
	"github.com/sluice-autoscaler/sluice/prom/promql"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/klog/v2"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
	"k8s.io/metrics/pkg/apis/metrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
	"sigs.k8s.io/metrics-server/pkg/api"
	prom "sigs.k8s.io/prometheus-adapter/pkg/client"
	upstream "sigs.k8s.io/prometheus-adapter/pkg/config"
	custom "sigs.k8s.io/prometheus-adapter/pkg/custom-provider"
	external "sigs.k8s.io/prometheus-adapter/pkg/external-provider"
	"sigs.k8s.io/prometheus-adapter/pkg/naming"
	"sigs.k8s.io/prometheus-adapter/pkg/resourceprovider"
)

func TestMain(m *testing.M) {
	klog.SetLogger(logr.Discard())
	utilruntime.ErrorHandlers = nil // a failed listing is seen by the fake Prometheus
	m.Run()
}

// prometheus is a fake Prometheus for v0.12.0.
type prometheus struct {
	prom.Client
	series []map[string]string
	null   bool

	request *ruletest.Request
	asked   chan string
}

// Series lists what selectors match, by Prometheus' own parser.
func (p *prometheus) Series(_ context.Context, _ pmodel.Interval, selectors ...prom.Selector) ([]prom.Series, error) {
	selector, err := promql.ParseSelector(string(selectors[0]))
	if err != nil {
		return nil, fmt.Errorf("bad_data: %w", err)
	}
	if p.null {
		return nil, nil
	}
	all := []prom.Series{}
	for _, s := range p.series {
		if !selector.Matches(s) {
			continue
		}
		one := prom.Series{Name: s["__name__"], Labels: pmodel.LabelSet{}}
		for k, v := range s {
			if k != "__name__" {
				one.Labels[pmodel.LabelName(k)] = pmodel.LabelValue(v)
			}
		}
		all = append(all, one)
	}
	return all, nil
}

// Query answers as the request says, if the query is one.
func (p *prometheus) Query(_ context.Context, _ pmodel.Time, query prom.Selector) (prom.QueryResult, error) {
	p.asked <- string(query)
	if _, err := promql.Parse(string(query)); err != nil {
		return prom.QueryResult{}, err
	}
	if s := p.request.ScalarAnswer; s != nil {
		v, err := strconv.ParseFloat(*s, 64)
		return prom.QueryResult{Type: pmodel.ValScalar, Scalar: &pmodel.Scalar{Value: pmodel.SampleValue(v)}}, err
	}
	vector := pmodel.Vector{}
	for _, s := range p.request.Answer {
		v, err := strconv.ParseFloat(s.Value, 64)
		if err != nil {
			return prom.QueryResult{}, err
		}
		one := &pmodel.Sample{Metric: pmodel.Metric{}, Value: pmodel.SampleValue(v)}
		for k, v := range s.Labels {
			one.Metric[pmodel.LabelName(k)] = pmodel.LabelValue(v)
		}
		vector = append(vector, one)
	}
	return prom.QueryResult{Type: pmodel.ValVector, Vector: &vector}, nil
}

// objects is a cluster that lists the objects of the request.
type objects struct {
	dynamic.Interface
	dynamic.NamespaceableResourceInterface
	names []string
}

func (o *objects) Resource(schema.GroupVersionResource) dynamic.NamespaceableResourceInterface {
	return o
}
func (o *objects) Namespace(string) dynamic.ResourceInterface { return o }

func (o *objects) List(context.Context, metav1.ListOptions) (*unstructured.UnstructuredList, error) {
	list := &unstructured.UnstructuredList{}
	for _, n := range o.names {
		u := unstructured.Unstructured{Object: map[string]any{}}
		u.SetName(n)
		list.Items = append(list.Items, u)
	}
	return list, nil
}

// theirs runs a case through v0.12.0's own packages.
func theirs(t *testing.T, c *ruletest.Case, resources []mapping.Resource) *ruletest.Outcome {
	t.Helper()
	out := &ruletest.Outcome{ID: c.ID}
	synctest.Test(t, func(t *testing.T) {
		u := upstreamRun{t: t, c: c, out: out, mapper: mapping.New(resources), cluster: &objects{}}
		u.run()
	})
	return out
}

type upstreamRun struct {
	t       *testing.T
	c       *ruletest.Case
	out     *ruletest.Outcome
	mapper  meta.RESTMapper
	cluster *objects
	prom    *prometheus
}

func (u *upstreamRun) run() {
	p := &prometheus{null: u.c.SeriesAnswerIsNull, asked: make(chan string, 100)}
	u.prom = p
	for _, text := range u.c.Series {
		s, err := promql.ParseSeries(text)
		if err != nil {
			u.t.Fatal(err)
		}
		p.series = append(p.series, s)
	}
	cfg, err := upstream.FromYAML([]byte(u.c.Config))
	var rules, externals []naming.MetricNamer
	if err == nil {
		rules, err = naming.NamersFromConfig(cfg.Rules, u.mapper)
	}
	if err == nil {
		externals, err = naming.NamersFromConfig(cfg.ExternalRules, u.mapper)
	}
	var figures api.MetricsGetter
	if err == nil && cfg.ResourceRules != nil {
		figures, err = resourceprovider.NewProvider(p, u.mapper, cfg.ResourceRules)
	}
	if err != nil {
		u.out.Startup = "fails: " + err.Error()
		for range u.c.Requests {
			u.out.Requests = append(u.out.Requests, ruletest.RequestOutcome{Error: "the adapter did not start"})
		}
		return
	}
	u.out.Startup = "ok"
	for _, r := range slices.Concat(cfg.Rules, cfg.ExternalRules) {
		if _, err := promql.ParseSelector(r.SeriesQuery); err != nil && u.out.RelistError == "" {
			u.out.RelistError = fmt.Sprintf("series query %q: bad_data: %v", r.SeriesQuery, err)
		} else if p.null && u.out.RelistError == "" {
			u.out.RelistError = fmt.Sprintf("unable to update list of all metrics: no metrics retrieved for query %q", r.SeriesQuery)
		}
	}
	stop := make(chan struct{})
	byObject, list := custom.NewPrometheusProvider(u.mapper, u.cluster, p, rules, time.Hour, time.Hour)
	list.RunUntil(stop)
	byName, list := external.NewExternalPrometheusProvider(p, externals, time.Hour, time.Hour)
	list.RunUntil(stop)
	synctest.Wait()
	close(stop)
	synctest.Wait()
	for _, m := range byObject.ListAllMetrics() {
		scope := "root"
		if m.Namespaced {
			scope = "namespaced"
		}
		u.out.CustomMetrics = append(u.out.CustomMetrics, fmt.Sprintf("%s/%s (%s)", m.GroupResource, m.Metric, scope))
	}
	for _, m := range byName.ListAllExternalMetrics() {
		u.out.ExternalMetrics = append(u.out.ExternalMetrics, m.Metric)
	}
	slices.Sort(u.out.CustomMetrics)
	slices.Sort(u.out.ExternalMetrics)
	for i := range u.c.Requests {
		u.request(&u.c.Requests[i], byObject, byName, figures)
	}
}

// request makes one request.
func (u *upstreamRun) request(q *ruletest.Request, byObject provider.CustomMetricsProvider, byName provider.ExternalMetricsProvider, figures api.MetricsGetter) {
	var out ruletest.RequestOutcome
	defer func() {
		for len(u.prom.asked) > 0 {
			out.PromQL = append(out.PromQL, <-u.prom.asked)
		}
		if q.API == "resource" {
			slices.Sort(out.PromQL)
		}
		u.out.Requests = append(u.out.Requests, out)
	}()
	u.prom.request, u.cluster.names = q, q.Objects
	selector, err := labels.Parse(q.MetricSelector)
	if err != nil {
		out.Error = err.Error()
		return
	}
	ctx := u.t.Context()
	switch q.API {
	case "external":
		var list *external_metrics.ExternalMetricValueList
		if list, err = byName.GetExternalMetric(ctx, q.Namespace, selector, provider.ExternalMetricInfo{Metric: q.Metric}); err == nil {
			for _, v := range list.Items {
				out.Values = append(out.Values, fmt.Sprintf("%s = %s", answer.Text(v.MetricLabels), v.Value.String()))
			}
			if len(list.Items) == 0 {
				out.Values = []string{"(empty list)"}
			}
		}
	case "resource":
		out.Values, err = u.usage(q, figures)
	default:
		info := provider.CustomMetricInfo{GroupResource: schema.ParseGroupResource(q.Resource), Namespaced: q.Namespace != "", Metric: q.Metric}
		if q.Name != "*" {
			var v *custom_metrics.MetricValue
			if v, err = byObject.GetMetricByName(ctx, types.NamespacedName{Namespace: q.Namespace, Name: q.Name}, info, selector); err == nil {
				out.Values = []string{valueText(v)}
			}
			break
		}
		var list *custom_metrics.MetricValueList
		if list, err = byObject.GetMetricBySelector(ctx, q.Namespace, labels.Everything(), info, selector); err == nil {
			for i := range list.Items {
				out.Values = append(out.Values, valueText(&list.Items[i]))
			}
			if len(list.Items) == 0 {
				out.Values = []string{"(empty list)"}
			}
		}
	}
	if err == nil {
		out.Status = 200
		return
	}
	out.Status, out.Error = 500, err.Error()
	if s, ok := errors.AsType[*apierrors.StatusError](err); ok {
		out.Status = int(s.Status().Code)
	}
}

func valueText(v *custom_metrics.MetricValue) string {
	return fmt.Sprintf("%s %s/%s = %s", v.DescribedObject.Kind, v.DescribedObject.Namespace, v.DescribedObject.Name, v.Value.String())
}

// usage asks for figures of pods or nodes.
func (u *upstreamRun) usage(q *ruletest.Request, figures api.MetricsGetter) ([]string, error) {
	var values []string
	if figures == nil {
		return nil, apierrors.NewGenericServerResponse(404, "", schema.GroupResource{}, "", "", 0, false)
	}
	names := q.Objects
	if q.Name != "" && q.Name != "*" {
		names = []string{q.Name}
	}
	text := func(name string, usage corev1.ResourceList, window time.Duration) {
		values = append(values, fmt.Sprintf("%s cpu=%s memory=%s window=%s", name, usage.Cpu(), usage.Memory(), window))
	}
	if q.Resource == "nodes" {
		var all []*corev1.Node
		for _, n := range names {
			all = append(all, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n}})
		}
		list, err := figures.GetNodeMetrics(all...)
		for _, m := range list {
			text(m.Name, m.Usage, m.Window.Duration)
		}
		return values, err
	}
	var all []*metav1.PartialObjectMetadata
	for _, n := range names {
		all = append(all, &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: q.Namespace, Name: n}})
	}
	list, err := figures.GetPodMetrics(all...)
	for _, m := range list {
		slices.SortFunc(m.Containers, func(a, b metrics.ContainerMetrics) int { return strings.Compare(a.Name, b.Name) })
		for _, c := range m.Containers {
			text(m.Name+"/"+c.Name, c.Usage, m.Window.Duration)
		}
	}
	return values, err
}

// finite reports whether a value is a number that a quantity can be.
func finite(text string) bool {
	v, err := strconv.ParseFloat(text, 64)
	return err == nil && !math.IsNaN(v) && math.Abs(v*1000) < math.MaxInt64
}
