package provider_test

import (
	"errors"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	metricsapi "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/sluice-autoscaler/sluice/adapter/provider"
	"github.com/sluice-autoscaler/sluice/adapter/store"
)

var (
	now         = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	read        = now.Add(-2 * time.Second)
	deployments = schema.GroupResource{Group: "apps", Resource: "deployments"}
	services    = schema.GroupResource{Resource: "services"}
	podResource = schema.GroupResource{Resource: "pods"}
)

// memory is a Reader that answers from maps and notes what it was asked for.
type memory struct {
	workloads map[string]store.Value // by pod selector
	pods      []store.PodValue
	unready   error
	asked     []string
}

func (m *memory) Workload(_ time.Time, namespace string, pods labels.Selector, services []string, signal string, window time.Duration) store.Value {
	m.asked = append(m.asked, strings.Join([]string{namespace, pods.String(), strings.Join(services, "+"), signal, window.String()}, " "))
	v := m.workloads[pods.String()]
	v.Window = window
	return v
}

func (m *memory) Pods(_ time.Time, _ string, pods labels.Selector, _ string, window time.Duration) []store.PodValue {
	var out []store.PodValue
	for _, p := range m.pods {
		if pods.Matches(p.Labels) {
			p.Window = window
			out = append(out, p)
		}
	}
	return out
}

func (m *memory) Pod(now time.Time, namespace, name, signal string, window time.Duration) (store.PodValue, bool) {
	for _, v := range m.Pods(now, namespace, labels.Everything(), signal, window) {
		if v.Name == name {
			return v, true
		}
	}
	return store.PodValue{}, false
}

func (m *memory) Ready() error { return m.unready }

// shelf is an Objects of targets by resource.
type shelf struct {
	targets map[schema.GroupResource][]provider.Target
	unready error
}

func (s *shelf) Get(resource schema.GroupResource, namespace, name string) (provider.Target, bool, error) {
	if namespace == "shop" {
		for _, t := range s.targets[resource] {
			if t.Name == name {
				return t, true, nil
			}
		}
	}
	return provider.Target{}, false, nil
}

func (s *shelf) List(resource schema.GroupResource, namespace string, _ labels.Selector) ([]provider.Target, error) {
	if namespace != "shop" {
		return nil, nil
	}
	return s.targets[resource], nil
}

func (s *shelf) Ready() error { return s.unready }

func app(name string) labels.Selector { return labels.SelectorFromSet(labels.Set{"app": name}) }

func fixture() (*memory, *shelf) {
	m := &memory{workloads: map[string]store.Value{
		"app=web":     {Value: 7.2345, Known: true, At: read},
		"app=idle":    {Value: 0, Known: true}, // no pods: nothing had to be read
		"app=lost":    {Value: 3, Missing: "pod lost-1 has not been read for 9s"},
		"app=nan":     {Value: math.NaN(), Known: true, At: read},
		"app=inf":     {Value: math.Inf(1), Known: true, At: read},
		"app=below":   {Value: -1, Known: true, At: read},
		"app=dust":    {Value: -1e-12, Known: true, At: read},
		"app=big":     {Value: 9.3e15, Known: true, At: read},
		"app=half":    {Value: 0.0005, Known: true, At: read},
		"app=untyped": {Value: 0, Known: true},
	}, pods: []store.PodValue{
		{Name: "web-1", Labels: labels.Set{"app": "web"}, Value: store.Value{Value: 1.5, Known: true, At: read}},
		{Name: "web-2", Labels: labels.Set{"app": "web"}, Value: store.Value{Missing: "refused"}},
		{Name: "lost-1", Labels: labels.Set{"app": "lost"}, Value: store.Value{Missing: "not read for 9s"}},
	}}
	var ds []provider.Target
	for _, n := range []string{"big", "below", "dust", "half", "idle", "inf", "lost", "nan", "web"} {
		ds = append(ds, provider.Target{Name: n, Pods: app(n), Services: []string{n}})
	}
	ds = append(ds, provider.Target{Name: "bare", Fault: "its pod template has no port"})
	return m, &shelf{targets: map[schema.GroupResource][]provider.Target{
		deployments: ds,
		services:    {{Name: "web", Pods: app("web"), Services: []string{"web"}}, {Name: "untyped", Pods: app("untyped"), Untyped: true}},
	}}
}

func newProvider(t *testing.T, m *memory, s *shelf) *provider.Provider {
	t.Helper()
	p, err := provider.New(provider.Options{Metrics: provider.RequestMetrics(m, s, nil), DefaultWindow: 15 * time.Second, Clock: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func parse(t *testing.T, s string) labels.Selector {
	t.Helper()
	sel, err := labels.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return sel
}

// status checks an error's code and that its message has all the words.
func status(t *testing.T, what string, err error, code int32, words ...string) {
	t.Helper()
	s, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		t.Errorf("%s: error %v, want a status %d", what, err, code)
		return
	}
	if s.Status().Code != code {
		t.Errorf("%s: code %d, want %d (%v)", what, s.Status().Code, code, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: %q does not say %q", what, err, w)
		}
	}
}

func TestOneObject(t *testing.T) {
	for _, c := range []struct {
		name     string
		resource schema.GroupResource
		object   string
		metric   string
		selector string
		// either
		value string
		at    time.Time
		// or
		code  int32
		words []string
	}{
		{name: "sum", resource: deployments, object: "web", value: "7235m", at: read},
		{name: "explicit zero", resource: deployments, object: "idle", value: "0", at: now},
		{name: "half a thousandth rounds up", resource: deployments, object: "half", value: "1m", at: read},
		{name: "dust below zero", resource: deployments, object: "dust", value: "0", at: read},
		{name: "service", resource: services, object: "web", value: "7235m", at: read},
		{name: "pod", resource: podResource, object: "web-1", value: "1500m", at: read},
		{name: "unknown", resource: deployments, object: "lost", code: 503, words: []string{"deployments.apps shop/lost", "over 15s", "pod lost-1 has not been read for 9s"}},
		{name: "not a number", resource: deployments, object: "nan", code: 503, words: []string{"NaN"}},
		{name: "infinite", resource: deployments, object: "inf", code: 503, words: []string{"Inf"}},
		{name: "negative", resource: deployments, object: "below", code: 503, words: []string{"-1"}},
		{name: "beyond a quantity", resource: deployments, object: "big", code: 503},
		{name: "no such object", resource: deployments, object: "ghost", code: 404, words: []string{"deployments.apps shop/ghost", "no such object"}},
		{name: "not measured", resource: deployments, object: "bare", code: 404, words: []string{"shop/bare", "its pod template has no port"}},
		{name: "service that none is known behind", resource: services, object: "untyped", code: 404, words: []string{"sluice-metrics", "add the Sluice sidecar"}},
		{name: "unread pod", resource: podResource, object: "web-2", code: 503, words: []string{"refused"}},
		{name: "no such pod", resource: podResource, object: "web-3", code: 404},
		{name: "waiting of a pod", resource: podResource, object: "web-1", metric: provider.Waiting, code: 404, words: []string{"Deployment"}},
		{name: "other metric", resource: deployments, object: "web", metric: "cpu", code: 404, words: []string{"request_concurrency, request_rate, request_waiting"}},
		{name: "namespace", resource: schema.GroupResource{Resource: "namespaces"}, object: "shop", code: 404, words: []string{"namespaces", "deployments.apps"}},
		{name: "other group's deployments", resource: schema.GroupResource{Group: "extensions", Resource: "deployments"}, object: "web", code: 404},
		{name: "bad selector", resource: deployments, object: "web", selector: "tenant=a", code: 400, words: []string{"tenant", "window"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, s := fixture()
			metric := c.metric
			if metric == "" {
				metric = provider.Concurrency
			}
			got, err := newProvider(t, m, s).GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: c.object},
				metricsapi.CustomMetricInfo{GroupResource: c.resource, Namespaced: true, Metric: metric}, parse(t, c.selector))
			if c.code != 0 {
				status(t, c.name, err, c.code, c.words...)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Value.String() != c.value || !got.Timestamp.Time.Equal(c.at) || got.WindowSeconds == nil || *got.WindowSeconds != 15 || got.DescribedObject.Name != c.object {
				t.Errorf("got %+v, want value %s at %v over 15 s", got, c.value, c.at)
			}
		})
	}
}

func TestWindow(t *testing.T) {
	for _, c := range []struct {
		selector string
		want     time.Duration // 0: refused
	}{
		{"", 15 * time.Second},
		{"window=1s", time.Second},
		{"window=1m30s", 90 * time.Second},
		{"window==1h", time.Hour},
		{"window in (30s)", 30 * time.Second},
		{"window=1h1s", 0},
		{"window=999ms", 0},
		{"window=1.5s", 0},
		{"window=0s", 0},
		{"window=30", 0},
		{"window=", 0},
		{"window", 0},
		{"!window", 0},
		{"window!=30s", 0},
		{"window in (30s,60s)", 0},
		{"window=30s,window=60s", 0},
	} {
		t.Run(c.selector, func(t *testing.T) {
			m, s := fixture()
			p := newProvider(t, m, s)
			got, err := p.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: "web"},
				metricsapi.CustomMetricInfo{GroupResource: deployments, Namespaced: true, Metric: provider.Rate}, parse(t, c.selector))
			if c.want == 0 {
				status(t, c.selector, err, 400, "window", "30s")
				if m.asked != nil {
					t.Errorf("asked %v in spite of the bad window", m.asked)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if want := []string{"shop app=web web rate " + c.want.String()}; !cmp.Equal(m.asked, want) {
				t.Errorf("asked %v, want %v", m.asked, want)
			}
			if *got.WindowSeconds != int64(c.want.Seconds()) {
				t.Errorf("windowSeconds %d, want %v", *got.WindowSeconds, c.want)
			}
			if told := c.selector != ""; told != (got.Metric.Selector != nil) {
				t.Errorf("metric.selector %v for %q", got.Metric.Selector, c.selector)
			}
		})
	}
}

func TestSelected(t *testing.T) {
	m, s := fixture()
	p := newProvider(t, m, s)
	get := func(r schema.GroupResource, selector string) ([]string, error) {
		list, err := p.GetMetricBySelector(t.Context(), "shop", parse(t, selector), metricsapi.CustomMetricInfo{GroupResource: r, Namespaced: true, Metric: provider.Concurrency}, labels.Everything())
		if err != nil {
			return nil, err
		}
		var got []string
		for _, i := range list.Items {
			got = append(got, i.DescribedObject.Name+"="+i.Value.String())
		}
		return got, nil
	}
	got, err := get(podResource, "app=web")
	if err != nil || !cmp.Equal(got, []string{"web-1=1500m"}) {
		t.Errorf("pods: %v, %v; want the one that has been read", got, err)
	}
	got, err = get(deployments, "")
	if err != nil || !cmp.Equal(got, []string{"dust=0", "half=1m", "idle=0", "web=7235m"}) {
		t.Errorf("deployments: %v, %v; want those that are known", got, err)
	}
	_, err = get(podResource, "app=lost")
	status(t, "only unread pods", err, 503, "not read for 9s")
	_, err = get(podResource, "app=ghost")
	status(t, "no pods", err, 404, "app=ghost", "sluice-metrics")
	_, err = get(schema.GroupResource{Group: "apps", Resource: "statefulsets"}, "app=web")
	status(t, "no statefulsets", err, 404, "app=web")
}

func TestExternal(t *testing.T) {
	for _, c := range []struct {
		selector, metric string
		value            string
		asked            string
		code             int32
		words            []string
	}{
		{selector: "deployment=web", metric: provider.Concurrency, value: "7235m", asked: "shop app=web web concurrency 15s"},
		{selector: "service=web,window=1m", metric: provider.Waiting, value: "7235m", asked: "shop app=web web waiting 1m0s"},
		{selector: "deployment=idle", metric: provider.Rate, value: "0", asked: "shop app=idle idle rate 15s"},
		{selector: "deployment=lost", metric: provider.Rate, code: 503, words: []string{"lost-1"}},
		{selector: "deployment=ghost", metric: provider.Rate, code: 404, words: []string{"shop/ghost"}},
		{selector: "deployment=bare", metric: provider.Rate, code: 404},
		{selector: "", metric: provider.Rate, code: 400, words: []string{"deployment=NAME"}},
		{selector: "window=30s", metric: provider.Rate, code: 400, words: []string{"deployment=NAME"}},
		{selector: "deployment=web,service=web", metric: provider.Rate, code: 400, words: []string{"two"}},
		{selector: "app=web", metric: provider.Rate, code: 400, words: []string{"app", "deployment, service, statefulset, window"}},
		{selector: "deployment in (web,idle)", metric: provider.Rate, code: 400},
		{selector: "deployment=web,window=2h", metric: provider.Rate, code: 400, words: []string{"2h", "1h"}},
		{selector: "deployment=web", metric: "queue_length", code: 404, words: []string{provider.Concurrency}},
	} {
		t.Run(c.selector+" "+c.metric, func(t *testing.T) {
			m, s := fixture()
			got, err := newProvider(t, m, s).GetExternalMetric(t.Context(), "shop", parse(t, c.selector), metricsapi.ExternalMetricInfo{Metric: c.metric})
			if c.code != 0 {
				status(t, c.selector, err, c.code, c.words...)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			// A HorizontalPodAutoscaler adds all items up, so there must be one.
			if len(got.Items) != 1 || got.Items[0].Value.String() != c.value || got.Items[0].MetricName != c.metric {
				t.Errorf("got %+v, want one item of %s", got.Items, c.value)
			}
			if want := []string{c.asked}; !cmp.Equal(m.asked, want) {
				t.Errorf("asked %v, want %v", m.asked, want)
			}
		})
	}
}

// Before everything is listed and read, an object that is not known yet must not be taken for one
// that does not exist.
func TestNotReady(t *testing.T) {
	for name, spoil := range map[string]func(*memory, *shelf){
		"objects": func(_ *memory, s *shelf) { s.unready = errors.New("not listed yet: services") },
		"reader":  func(m *memory, _ *shelf) { m.unready = errors.New("2 pods not read yet") },
	} {
		t.Run(name, func(t *testing.T) {
			m, s := fixture()
			spoil(m, s)
			p := newProvider(t, m, s)
			if p.Ready() == nil {
				t.Error("ready")
			}
			info := metricsapi.CustomMetricInfo{GroupResource: deployments, Namespaced: true, Metric: provider.Rate}
			_, err := p.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: "ghost"}, info, labels.Everything())
			status(t, "by name", err, http.StatusServiceUnavailable, "not")
			_, err = p.GetMetricBySelector(t.Context(), "shop", labels.Everything(), info, labels.Everything())
			status(t, "by selector", err, http.StatusServiceUnavailable, "not")
			_, err = p.GetExternalMetric(t.Context(), "shop", parse(t, "deployment=ghost"), metricsapi.ExternalMetricInfo{Metric: provider.Rate})
			status(t, "external", err, http.StatusServiceUnavailable, "not")
		})
	}
}

// What discovery lists is what can be asked for.
func TestListed(t *testing.T) {
	m, s := fixture()
	p := newProvider(t, m, s)
	all := p.ListAllMetrics()
	if len(all) != 14 {
		t.Errorf("%d custom metrics, want 3 each of 4 kinds and 2 of pods", len(all))
	}
	for _, info := range all {
		_, err := p.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: "ghost"}, info, labels.Everything())
		status(t, info.String(), err, 404, "no such")
	}
	if got := len(p.ListAllExternalMetrics()); got != 3 {
		t.Errorf("%d external metrics, want 3", got)
	}
}

func TestOptions(t *testing.T) {
	_, err := provider.New(provider.Options{DefaultWindow: time.Millisecond})
	for _, w := range []string{"metrics are missing", "default window = 1ms"} {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("error %v does not name %q", err, w)
		}
	}
}

// fixed is a Source with one value for all objects, and readiness of its own.
type fixed struct {
	value   float64
	unready error
}

func (f *fixed) Object(q provider.Query, name string) (store.Value, error) {
	if name == "ghost" {
		return store.Value{}, q.NotFound(name, "there is no such ingress")
	}
	return store.Value{Value: f.value, Known: true, At: read, Window: q.Window}, nil
}

func (f *fixed) Objects(q provider.Query, _ labels.Selector) ([]provider.ObjectValue, error) {
	v, err := f.Object(q, "public")
	return []provider.ObjectValue{{Name: "ghost", Err: q.NotFound("ghost", "there is no such ingress")}, {Name: "public", Value: v}}, err
}

func (f *fixed) Ready() error { return f.unready }

// The table says what is served: a metric of another source, of another kind and without a
// namespace is listed and answered, and a source that is not ready makes only its own metrics
// unknown.
func TestMetricsAreATable(t *testing.T) {
	m, s := fixture()
	ingresses := provider.Kind{
		Resource: schema.GroupResource{Group: "networking.k8s.io", Resource: "ingresses"},
		Version:  schema.GroupVersion{Group: "networking.k8s.io", Version: "v1"}, Kind: "Ingress", Key: "ingress", Namespaced: true,
	}
	nodes := provider.Kind{Resource: schema.GroupResource{Resource: "nodes"}, Version: schema.GroupVersion{Version: "v1"}, Kind: "Node"}
	source := &fixed{value: 2.5}
	p, err := provider.New(provider.Options{
		Metrics: append(provider.RequestMetrics(m, s, nil), provider.Metric{
			Name: "hits", Unit: "hits/s", Describes: []provider.Kind{ingresses, nodes}, External: true, Source: source, Signal: "hits",
		}),
		DefaultWindow: 15 * time.Second, Clock: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, i := range p.ListAllMetrics() {
		if i.Metric == "hits" {
			listed = append(listed, i.String())
		}
	}
	if d := cmp.Diff([]string{"ingresses.networking.k8s.io/hits(namespaced)", "nodes/hits"}, listed); d != "" {
		t.Errorf("listed (-want +got):\n%s", d)
	}
	if got := len(p.ListAllExternalMetrics()); got != 4 {
		t.Errorf("%d external metrics, want 4", got)
	}
	hits := func(k provider.Kind) metricsapi.CustomMetricInfo {
		return metricsapi.CustomMetricInfo{GroupResource: k.Resource, Namespaced: k.Namespaced, Metric: "hits"}
	}
	one, err := p.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: "public"}, hits(ingresses), labels.Everything())
	if err != nil || one.Value.String() != "2500m" || one.DescribedObject.Kind != "Ingress" || one.DescribedObject.APIVersion != "networking.k8s.io/v1" {
		t.Errorf("of an ingress: %+v, %v", one, err)
	}
	one, err = p.GetMetricByName(t.Context(), types.NamespacedName{Name: "n1"}, hits(nodes), labels.Everything())
	if err != nil || one.DescribedObject.Namespace != "" || one.DescribedObject.Name != "n1" {
		t.Errorf("of a node: %+v, %v", one, err)
	}
	many, err := p.GetMetricBySelector(t.Context(), "shop", labels.Everything(), hits(ingresses), labels.Everything())
	if err != nil || len(many.Items) != 1 || many.Items[0].DescribedObject.Name != "public" {
		t.Errorf("of ingresses: %+v, %v; want the one that exists", many, err)
	}
	sum, err := p.GetExternalMetric(t.Context(), "shop", parse(t, "ingress=public"), metricsapi.ExternalMetricInfo{Metric: "hits"})
	if err != nil || len(sum.Items) != 1 || sum.Items[0].MetricLabels["ingress"] != "public" {
		t.Errorf("external: %+v, %v", sum, err)
	}
	_, err = p.GetExternalMetric(t.Context(), "shop", parse(t, "deployment=web"), metricsapi.ExternalMetricInfo{Metric: "hits"})
	status(t, "a key of another metric", err, 400, "deployment", "ingress, window")
	_, err = p.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: "web"},
		metricsapi.CustomMetricInfo{GroupResource: deployments, Namespaced: true, Metric: "hits"}, labels.Everything())
	status(t, "of a deployment", err, 404, "hits", "request_concurrency, request_rate, request_waiting")

	source.unready = errors.New("the server is away")
	_, err = p.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: "public"}, hits(ingresses), labels.Everything())
	status(t, "its own source is away", err, 503, "the server is away")
	if _, err := p.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: "web"},
		metricsapi.CustomMetricInfo{GroupResource: deployments, Namespaced: true, Metric: provider.Rate}, labels.Everything()); err != nil {
		t.Errorf("another source is away: %v", err)
	}

	_, err = provider.New(provider.Options{Metrics: append(provider.RequestMetrics(m, s, nil), provider.RequestMetrics(m, s, nil)[0], provider.Metric{Name: "x"}), DefaultWindow: time.Second})
	for _, want := range []string{"request_concurrency of pods is there twice", "request_concurrency of the external API is there twice", `("x") has no name or no source`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want it to tell of %q", err, want)
		}
	}
}
