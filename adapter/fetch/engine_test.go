package fetch_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	metricsapi "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/sluice-autoscaler/sluice/adapter/fetch"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/source"
	"github.com/sluice-autoscaler/sluice/internal/promtest"
)

const rulesText = `
rules:
- seriesQuery: '{namespace!="",__name__!~"^kube_.*"}'
  resources: {template: "<<.Resource>>"}
  name: {matches: "^(.*)_total$", as: "${1}_per_second"}
  metricsQuery: 'sum(rate(<<.Series>>{<<.LabelMatchers>>}[2m])) by (<<.GroupBy>>)'
externalRules:
- seriesQuery: '{__name__="queue_depth"}'
  resources: {namespaced: false}
  metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (queue)'
`

func series(pairs ...string) map[string]string {
	s := map[string]string{}
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		s[k] = v
	}
	return s
}

func jobsAndQueue() []map[string]string {
	return []map[string]string{
		series("__name__=jobs_total", "namespace=shop", "pod=a", "code=200"), series("__name__=jobs_total", "namespace=shop", "pod=b"),
		series("__name__=queue_depth", "queue=mail"),
	}
}

var (
	pods = schema.GroupResource{Resource: "pods"}
	jobs = metricsapi.CustomMetricInfo{GroupResource: pods, Namespaced: true, Metric: "jobs_per_second"}
)

func code(err error) int {
	var s apierrors.APIStatus
	if errors.As(err, &s) {
		return int(s.Status().Code)
	}
	return 0
}

// A pod metric is grouped: one query serves every selector and every pod, and what a
// HorizontalPodAutoscaler names is fetched before anybody asks.
func TestServe(t *testing.T) {
	t.Parallel()
	f := newFake(t, jobsAndQueue()...)
	f.Answer = func(w http.ResponseWriter, query string) {
		if strings.Contains(query, "queue_depth") {
			fmt.Fprint(w, promtest.Vector(promtest.Sample(`queue="mail"`, "7.5")))
			return
		}
		fmt.Fprint(w, promtest.Vector(promtest.Sample(`pod="a"`, "0.25"), promtest.Sample(`pod="b"`, "1e17"), promtest.Sample(`pod="c"`, "9")))
	}
	hpa := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
	hpa.Spec.Metrics = []autoscalingv2.MetricSpec{
		{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "jobs_per_second"}}},
		{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "queue_depth"}}},
	}
	list := &podList{names: []string{"a", "b"}}
	e := start(t, setup{
		rules: strings.Replace(rulesText, "  name:", "  onInf: max\n  name:", 1), sources: []source.Prometheus{{Name: "main", URL: f.URL}}, pods: list,
		demand: func() []*autoscalingv2.HorizontalPodAutoscaler { return []*autoscalingv2.HorizontalPodAutoscaler{hpa} },
	})
	const grouped, depth = `sum(rate(jobs_total{namespace="shop",pod!=""}[2m])) by (pod)`, `sum(queue_depth{}) by (queue)`
	eventually(t, "both queries are asked ahead", func() error {
		if q := f.Queries(); q[grouped] == 0 || q[depth] == 0 {
			return fmt.Errorf("there are %v", q)
		}
		return nil
	})
	got, err := e.GetMetricBySelector(t.Context(), "shop", labels.Everything(), jobs, labels.Everything())
	if err != nil || len(got.Items) != 2 || got.Items[0].Value.String() != "250m" || got.Items[0].DescribedObject.Name != "a" || got.Items[0].DescribedObject.Kind != "Pod" {
		t.Fatalf("the pods have %+v, %v", got, err)
	}
	if w := got.Items[0].WindowSeconds; w == nil || *w != 120 {
		t.Errorf("the window is %v, want 120 s", w)
	}
	if at := got.Items[0].Timestamp; at.Nanosecond() != 250e6 {
		t.Errorf("the timestamp is %v, want the sample's", at)
	}
	if v := got.Items[1].Value; v.Value() < 1e15 {
		t.Errorf("1e17 is %s, want the largest quantity", v.String())
	}
	one, err := e.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: "c"}, jobs, labels.Everything())
	if err != nil || one.Value.String() != "9" {
		t.Errorf("pod c has %+v, %v", one, err)
	}
	_, err = e.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: "none"}, jobs, labels.Everything())
	if code(err) != http.StatusNotFound || !strings.HasPrefix(err.Error(), "the server could not find the metric jobs_per_second for pods none") {
		t.Errorf("a pod without samples: %v", err)
	}
	ext, err := e.GetExternalMetric(t.Context(), "any", labels.Everything(), metricsapi.ExternalMetricInfo{Metric: "queue_depth"})
	if err != nil || len(ext.Items) != 1 || ext.Items[0].Value.String() != "7500m" || ext.Items[0].MetricLabels["queue"] != "mail" {
		t.Errorf("the queue has %+v, %v", ext, err)
	}
	if q := f.Queries(); len(q) != 2 {
		t.Errorf("Prometheus was asked %v, want two queries", q)
	}
	if all := e.ListAllMetrics(); len(all) != 2 || all[1] != jobs {
		t.Errorf("discovery lists %v", all)
	}
	if all := e.ListAllExternalMetrics(); len(all) != 1 || all[0].Metric != "queue_depth" {
		t.Errorf("discovery lists %v", all)
	}
	if code(func() error {
		_, err := e.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: "a"}, metricsapi.CustomMetricInfo{GroupResource: pods, Metric: "none"}, nil)
		return err
	}()) != http.StatusNotFound {
		t.Error("a metric that no rule makes is not 404")
	}
}

// The outage matrix: whatever Prometheus does, a reader gets an error and never a number.
func TestOutages(t *testing.T) {
	t.Parallel()
	pod := func(value string) string { return promtest.Sample(`pod="a"`, value) }
	write := func(text string) func(http.ResponseWriter, string) {
		return func(w http.ResponseWriter, _ string) { fmt.Fprint(w, text) }
	}
	status := func(code int, text string) func(http.ResponseWriter, string) {
		return func(w http.ResponseWriter, _ string) { w.WriteHeader(code); fmt.Fprint(w, text) }
	}
	for name, c := range map[string]struct {
		answer  func(http.ResponseWriter, string)
		status  int
		message string
	}{
		"empty":     {write(promtest.Vector()), 404, "Prometheus has no sample"},
		"null":      {write(`{"status":"success","data":{"resultType":"vector","result":null}}`), 404, "Prometheus has no sample"},
		"nan":       {write(promtest.Vector(pod("NaN"))), 503, "NaN"},
		"inf":       {write(promtest.Vector(pod("+Inf"))), 503, "+Inf"},
		"minus inf": {write(promtest.Vector(pod("-Inf"))), 503, "-Inf"},
		"huge":      {write(promtest.Vector(pod("1e17"))), 503, "too large for a quantity"},
		"stale":     {write(promtest.Vector(promtest.SampleAt(time.Now().Add(-5*time.Minute), `pod="a"`, "1"))), 503, "it answers for 5m"},
		"truncated": {write(promtest.Vector(pod("1"))[:40]), 503, "read the answer"},
		"cut short": {func(w http.ResponseWriter, _ string) {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, promtest.Vector(pod("1")))
		}, 503, "unexpected EOF"},
		"html":         {write("<html>login</html>"), 503, "read the answer"},
		"401":          {status(401, "no token"), 503, "status 401: no token"},
		"503":          {status(503, "down"), 503, "status 503: down"},
		"timeout":      {status(503, `{"status":"error","errorType":"timeout","error":"query timed out"}`), 503, "query timed out"},
		"redirect":     {status(302, ""), 503, "status 302"},
		"refused":      {status(400, `{"status":"error","errorType":"bad_data","error":"no"}`), 500, "bad_data: no"},
		"hanging":      {nil, 503, "no answer within 300ms"},
		"partial":      {write(strings.Replace(promtest.Vector(pod("1")), "{", `{"warnings":["store down"],`, 1)), 503, "store down"},
		"duplicates":   {write(promtest.Vector(promtest.Sample(`pod="a",x="1"`, "1"), promtest.Sample(`pod="a",x="2"`, "2"))), 500, "2 samples"},
		"other labels": {write(promtest.Vector(promtest.Sample(`instance="a"`, "1"))), 404, "no label pod"},
		"matrix":       {write(`{"status":"success","data":{"resultType":"matrix","result":[]}}`), 503, "want a vector"},
		"too large":    {write(promtest.Vector(pod("1")) + strings.Repeat(" ", 33<<20)), 500, "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, jobsAndQueue()...)
			f.Answer = c.answer
			timeout := 20 * time.Second // others are not to run into it on a busy machine
			if name == "hanging" {
				f.Answer, timeout = func(http.ResponseWriter, string) { f.Hang() }, 300*time.Millisecond
			}
			e := start(t, setup{
				rules: rulesText, sources: []source.Prometheus{{URL: f.URL, Timeout: model.Duration(timeout)}}, pods: &podList{names: []string{"a"}},
			})
			if name == "too large" {
				e = start(t, setup{rules: rulesText, sources: []source.Prometheus{{URL: f.URL}}})
			}
			for range 2 { // the second answer is from memory
				got, err := e.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: "a"}, jobs, labels.Everything())
				if err == nil || code(err) != c.status || !strings.Contains(err.Error(), c.message) {
					t.Errorf("it answers %+v, %v (%d), want %d with %q", got, err, code(err), c.status, c.message)
				}
			}
		})
	}
}

// A list, and an external metric, of which nothing is known is an error with its cause: an empty
// answer tells nobody why.
func TestNothingKnown(t *testing.T) {
	t.Parallel()
	huge, none := promtest.Vector(promtest.Sample(`pod="a"`, "1e17"), promtest.Sample(`pod="b"`, "2")), promtest.Vector()
	for name, c := range map[string]struct {
		answer, onInf string
		pods          string // values, or a part of the error
		external      string
	}{
		"empty":           {none, "", "Prometheus has no sample", "Prometheus has no sample"},
		"one too large":   {huge, "", "b=2", "too large for a quantity"},
		"the largest":     {huge, "  onInf: max\n", "a=9223372036854775807m b=2", "9223372036854775807m 2"},
		"all too large":   {promtest.Vector(promtest.Sample(`pod="b"`, "-1e17")), "", "too large for a quantity", "too large for a quantity"},
		"of nobody asked": {promtest.Vector(promtest.Sample(`pod="x"`, "1")), "", "Prometheus has no sample", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, jobsAndQueue()...)
			f.Answer = func(w http.ResponseWriter, _ string) { fmt.Fprint(w, c.answer) }
			e := start(t, setup{
				rules: strings.ReplaceAll(rulesText, "  metricsQuery", c.onInf+"  metricsQuery"), sources: []source.Prometheus{{URL: f.URL}}, pods: &podList{names: []string{"a", "b"}},
			})
			got := []string{}
			list, err := e.GetMetricBySelector(t.Context(), "shop", labels.Everything(), jobs, labels.Everything())
			if err == nil {
				for _, v := range list.Items {
					got = append(got, v.DescribedObject.Name+"="+v.Value.String())
				}
			}
			if text := strings.Join(got, " "); err == nil && text != c.pods || err != nil && (code(err) != 503 || !strings.Contains(err.Error(), c.pods)) {
				t.Errorf("the pods have %s, %v, want %s", text, err, c.pods)
			}
			got = nil
			ext, err := e.GetExternalMetric(t.Context(), "shop", labels.Everything(), metricsapi.ExternalMetricInfo{Metric: "queue_depth"})
			if err == nil {
				for _, v := range ext.Items {
					got = append(got, v.Value.String())
				}
			}
			if text := strings.Join(got, " "); err == nil && text != c.external || err != nil && (code(err) != 503 || !strings.Contains(err.Error(), c.external)) {
				t.Errorf("the queue has %s, %v, want %s", text, err, c.external)
			}
		})
	}
}

// An unknown value after a known one is unknown at once; with hold the known one stands in.
func TestHoldAndRecovery(t *testing.T) {
	t.Parallel()
	f := newFake(t, jobsAndQueue()...)
	good := func(w http.ResponseWriter, _ string) { fmt.Fprint(w, promtest.Vector(promtest.Sample(`pod="a"`, "3"))) }
	f.Answer = good
	hold := strings.Replace(rulesText, "  name:", "  hold: 1h\n  name:", 1)
	source := []source.Prometheus{{URL: f.URL}}
	strict, lenient := start(t, setup{rules: rulesText, sources: source}), start(t, setup{rules: hold, sources: source})
	ask := func(e running) (string, error) {
		v, err := e.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: "a"}, jobs, nil)
		if err != nil {
			return "", err
		}
		return v.Value.String(), nil
	}
	for _, e := range []running{strict, lenient} {
		if v, err := ask(e); v != "3" || err != nil {
			t.Fatalf("it answers %s, %v", v, err)
		}
	}
	f.Set(func() { f.Answer = func(w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusBadGateway) } })
	eventually(t, "the value is unknown", func() error {
		if v, err := ask(strict); code(err) != http.StatusServiceUnavailable {
			return fmt.Errorf("it answers %s, %w", v, err)
		}
		return nil
	})
	if v, err := ask(lenient); v != "3" || err != nil {
		t.Errorf("with hold it answers %s, %v", v, err)
	}
	if err := strict.Healthy(); err == nil || !strings.Contains(err.Error(), "status 502") {
		t.Errorf("the source is healthy: %v", err)
	}
	eventually(t, "requests pause", func() error {
		if n := strict.metricValue(t, "sluice_adapter_prometheus_requests_total"); n == 0 {
			return errors.New("none was counted")
		}
		if _, err := ask(strict); err == nil || !strings.Contains(err.Error(), "failures in a row") {
			return fmt.Errorf("the error is %w", err)
		}
		return nil
	})
	f.Set(func() { f.Answer = good })
	eventually(t, "the value is known again", func() error { _, err := ask(strict); return err })
}

// A file that cannot be used changes nothing, and one that can is taken over, also through a
// symbolic link as a mounted ConfigMap has it.
func TestReload(t *testing.T) {
	t.Parallel()
	f := newFake(t, jobsAndQueue()...)
	dir := t.TempDir()
	write := func(version, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, version, "config.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		next := filepath.Join(dir, "next")
		if err := os.Symlink(filepath.Join(version, "config.yaml"), next); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(dir, "config.yaml")); err != nil {
			t.Fatal(err)
		}
	}
	write("1", rulesText)
	e := start(t, setup{sources: []source.Prometheus{{URL: f.URL}}, change: func(o *fetch.Options) { o.Rules = filepath.Join(dir, "config.yaml") }})
	names := func() string {
		var all []string
		for _, m := range e.ListAllMetrics() {
			all = append(all, m.String())
		}
		return strings.Join(append(all, fmt.Sprint(e.ListAllExternalMetrics())), " ")
	}
	before := names()
	if !strings.Contains(before, "jobs_per_second") || e.metricValue(t, "sluice_adapter_rules_last_reload_success") != 1 {
		t.Fatalf("there are %s", before)
	}
	write("2", "rules: [{seriesQuery: up, metricsQuery: '<<'}]")
	eventually(t, "the fault shows", func() error {
		if e.metricValue(t, "sluice_adapter_rules_last_reload_success") != 0 {
			return errors.New("it does not")
		}
		return nil
	})
	if err := e.Healthy(); err == nil || !strings.Contains(err.Error(), "rules[0].metricsQuery") {
		t.Errorf("the fault is %v", err)
	}
	if got := names(); got != before {
		t.Errorf("a broken file left %s", got)
	}
	write("3", strings.ReplaceAll(rulesText, "_per_second", "_rate"))
	eventually(t, "the new rules are in use", func() error {
		if got := names(); !strings.Contains(got, "jobs_rate") || strings.Contains(got, "per_second") {
			return errors.New(got)
		}
		return nil
	})
	select {
	case <-e.Changes():
	default:
		t.Error("discovery was not told")
	}
}

// Names stay while they cannot be listed, and a rule that fails harms no other.
func TestNames(t *testing.T) {
	t.Parallel()
	f := newFake(t, jobsAndQueue()...)
	other := newFake(t)
	other.Fault = func(w http.ResponseWriter) bool { w.WriteHeader(http.StatusInternalServerError); return true }
	e := start(t, setup{
		rules: rulesText + `
- {seriesQuery: up, source: other, resources: {namespaced: false}, metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>})'}
- {seriesQuery: up, source: none, resources: {namespaced: false}, metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>})'}
`,
		sources: []source.Prometheus{{Name: "main", URL: f.URL}, {Name: "other", URL: other.URL}},
	})
	if e.metricValue(t, "sluice_adapter_rules_failing") != 2 || len(e.ListAllMetrics()) != 2 || len(e.ListAllExternalMetrics()) != 1 {
		t.Errorf("there are %v and %v, and %v rules fail", e.ListAllMetrics(), e.ListAllExternalMetrics(), e.metricValue(t, "sluice_adapter_rules_failing"))
	}
	_, err := e.GetExternalMetric(t.Context(), "shop", nil, metricsapi.ExternalMetricInfo{Metric: "up"})
	if code(err) != http.StatusNotFound || !strings.Contains(err.Error(), "externalRules[1] makes none: list the series of up") {
		t.Errorf("a metric of a rule that fails: %v", err)
	}
}

// A query that cannot be grouped is asked for those who are asked for; several Prometheis are asked
// as rules say; maxAge bounds what a selector finds.
func TestUngrouped(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	other := newFake(t, jobsAndQueue()...)
	var times atomic.Int64
	times.Store(time.Now().Add(-time.Minute).Unix())
	other.Answer = func(w http.ResponseWriter, query string) {
		value := "1"
		if strings.Contains(query, "timestamp") {
			value = strconv.FormatInt(times.Load(), 10)
		}
		fmt.Fprint(w, promtest.Vector(promtest.Sample(`pod="a"`, value)))
	}
	list := &podList{names: []string{"a", "b"}}
	e := start(t, setup{
		rules: `
rules:
- seriesQuery: jobs_total
  source: other
  maxAge: 90s
  resources: {template: "<<.Resource>>"}
  metricsQuery: 'topk(1, <<.Series>>{<<.LabelMatchers>>})'
`,
		sources: []source.Prometheus{{Name: "main", URL: f.URL}, {Name: "other", URL: other.URL, Headers: map[string]string{"X-Scope-OrgID": "shop"}}}, pods: list,
	})
	info := metricsapi.CustomMetricInfo{GroupResource: pods, Metric: "jobs_total"}
	if got, err := e.GetMetricBySelector(t.Context(), "shop", labels.Everything(), info, labels.Everything()); err != nil || len(got.Items) != 1 {
		t.Fatalf("it answers %v, %v", got, err)
	}
	if got, err := e.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: "a"}, info, labels.Everything()); err != nil {
		t.Fatalf("it answers %v, %v", got, err)
	}
	if got, err := e.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: "a"}, info, nil); err != nil || got.Timestamp.Unix() != times.Load() {
		t.Errorf("the timestamp is of %v, %v, want %d", got, err, times.Load())
	}
	want := []string{`topk(1, jobs_total{namespace="shop",pod="a"})`, `topk(1, jobs_total{namespace="shop",pod=~"a|b"})`}
	for _, q := range want {
		if other.Queries()[q] == 0 {
			t.Errorf("%s was not asked, but %v", q, other.Queries())
		}
	}
	if len(f.Queries()) != 0 {
		t.Errorf("the first source was asked %v", f.Queries())
	}
	x := e.Explain(t.Context(), fetch.Question{Resource: pods, Namespace: "shop", Name: "a", Metric: "jobs_total", Selector: labels.Everything()})
	if x.Rule != "rules[0]" || x.Grouped || x.Ungrouped == "" || x.Query != want[0] || x.SampleCount != 1 || !slices.Equal(x.Values, []string{"a = 1"}) || x.Status != 200 {
		t.Errorf("the explanation is %+v", x)
	}
	times.Store(time.Now().Add(-2 * time.Minute).Unix())
	eventually(t, "the sample is too old", func() error {
		_, err := e.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: "a"}, info, nil)
		if code(err) != http.StatusServiceUnavailable || !strings.Contains(err.Error(), "maxAge is 1m30s") {
			return fmt.Errorf("the error is %w", err)
		}
		return nil
	})
}

// resourceRules answer for pods and nodes; what is unknown is an error, and a pod without samples
// is none.
func TestResource(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.Answer = func(w http.ResponseWriter, query string) {
		switch {
		case strings.Contains(query, "node_memory"):
			fmt.Fprint(w, promtest.Vector(promtest.Sample(`node="n1"`, "1048576")))
		case strings.Contains(query, "node_cpu"):
			fmt.Fprint(w, promtest.Vector(promtest.Sample(`node="n1"`, "2.5")))
		case strings.Contains(query, "memory"):
			fmt.Fprint(w, promtest.Vector(promtest.Sample(`pod="a",container="app"`, "1024"), promtest.Sample(`pod="b",container="app"`, "NaN")))
		default:
			fmt.Fprint(w, promtest.Vector(promtest.Sample(`pod="a",container="app"`, "0.25"), promtest.Sample(`pod="b",container="app"`, "1")))
		}
	}
	list := &podList{names: []string{"a", "b"}}
	const part = `containerQuery: 'sum(%[1]s{<<.LabelMatchers>>}) by (<<.GroupBy>>)', nodeQuery: 'sum(node_%[1]s{<<.LabelMatchers>>}) by (<<.GroupBy>>)', resources: {template: <<.Resource>>}, containerLabel: container`
	e := start(t, setup{
		rules:   "rules: []\nresourceRules: {window: 1m, cpu: {" + fmt.Sprintf(part, "cpu") + "}, memory: {" + fmt.Sprintf(part, "memory") + "}}\n",
		sources: []source.Prometheus{{URL: f.URL}}, pods: list,
	})
	for _, namespace := range []string{"shop", ""} {
		all, err := e.PodMetrics(t.Context(), namespace, labels.Everything())
		if err != nil || len(all) != 1 || all[0].Name != "a" || all[0].Namespace != "shop" || all[0].Window.Duration != time.Minute {
			t.Fatalf("the pods of %q use %+v, %v", namespace, all, err)
		}
		if c := all[0].Containers; len(c) != 1 || c[0].Name != "app" || c[0].Usage.Cpu().String() != "250m" || c[0].Usage.Memory().String() != "1Ki" {
			t.Errorf("the containers use %+v", c)
		}
	}
	if _, err := e.PodMetric(t.Context(), "shop", "b"); code(err) != http.StatusNotFound {
		t.Errorf("a pod of which NaN is known: %v", err)
	}
	list.set("b", "c")
	if all, err := e.PodMetrics(t.Context(), "shop", labels.Everything()); code(err) != http.StatusServiceUnavailable || !strings.Contains(err.Error(), "of no pod a number of both") {
		t.Errorf("pods of which nothing is known: %+v, %v", all, err)
	}
	if all, err := e.PodMetrics(t.Context(), "", labels.Everything()); err != nil || len(all) != 0 {
		t.Errorf("all pods, of one namespace nothing is known: %+v, %v", all, err)
	}
	n, err := e.NodeMetric(t.Context(), "n1")
	if err != nil || n.Usage.Cpu().String() != "2500m" || n.Usage.Memory().String() != "1Mi" {
		t.Errorf("the node uses %+v, %v", n, err)
	}
	f.Set(func() {
		f.Fault = func(w http.ResponseWriter) bool { w.WriteHeader(http.StatusServiceUnavailable); return true }
	})
	if all, err := e.PodMetrics(t.Context(), "other", labels.Everything()); code(err) != http.StatusServiceUnavailable {
		t.Errorf("without Prometheus: %+v, %v", all, err)
	}
}

// A Prometheus that hangs does not keep the process from being ready for long, and its metrics are
// unknown.
func TestHangingAtStart(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.Fault = func(http.ResponseWriter) bool { f.Hang(); return true }
	began := time.Now()
	e := start(t, setup{rules: rulesText, sources: []source.Prometheus{{URL: f.URL, Timeout: model.Duration(time.Minute)}}})
	if took := time.Since(began); took > 18*time.Second {
		t.Errorf("it is ready after %v", took)
	}
	_, err := e.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: "a"}, jobs, nil)
	if code(err) != http.StatusServiceUnavailable || !strings.Contains(err.Error(), "not listed yet") {
		t.Errorf("a metric: %v", err)
	}
	if len(e.ListAllMetrics()) != 0 {
		t.Errorf("there are %v", e.ListAllMetrics())
	}
}
