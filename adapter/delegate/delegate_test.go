package delegate_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
	metricsapi "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/sluice-autoscaler/sluice/adapter/delegate"
	"github.com/sluice-autoscaler/sluice/adapter/delegate/remote"
)

func TestMain(m *testing.M) {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // the library's
	goleak.VerifyTestMain(m)
}

// other is a provider as its documentation describes it, and keeps what it was asked.
type other struct {
	*httptest.Server
	mu    sync.Mutex
	asked []*http.Request
	// answer answers what is no discovery; lists are the names of both lists, custom first.
	answer http.HandlerFunc
	lists  [2][]string
	// version is that of custom.metrics.k8s.io; down refuses discovery.
	version string
	down    bool
}

func newOther(t *testing.T, answer http.HandlerFunc) *other {
	t.Helper()
	o := &other{answer: answer, version: "v1beta2"}
	o.Server = httptest.NewUnstartedServer(o)
	o.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	o.StartTLS()
	t.Cleanup(func() {
		o.CloseClientConnections()
		o.Close()
	})
	return o
}

func (o *other) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	lists, version, down, answer := o.lists, o.version, o.down, o.answer
	discovery := map[string][]string{"/apis/custom.metrics.k8s.io/" + version: lists[0], "/apis/external.metrics.k8s.io/v1beta1": lists[1]}
	names, listed := discovery[r.URL.Path]
	isList := listed || strings.Count(r.URL.Path, "/") == 3
	if !isList {
		o.asked = append(o.asked, r)
	}
	o.mu.Unlock()
	switch {
	case isList && down:
		http.Error(w, "down", http.StatusInternalServerError)
	case listed:
		var items []string
		for _, n := range names {
			items = append(items, fmt.Sprintf(`{"name":%q,"singularName":"","namespaced":true,"kind":"MetricValueList","verbs":["get"]}`, n))
		}
		fmt.Fprintf(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"x","resources":[%s]}`, strings.Join(items, ","))
	case isList:
		http.NotFound(w, r)
	default:
		answer(w, r)
	}
}

func (o *other) set(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

// last is the last request.
func (o *other) last(t *testing.T) *http.Request {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.asked) == 0 {
		t.Fatal("it was not asked")
	}
	return o.asked[len(o.asked)-1]
}

// yaml is the delegate in a file, with indented lines more.
func (o *other) yaml(name, more string) string {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.Certificate().Raw})
	return fmt.Sprintf("- name: %s\n  url: %s\n  serverName: example.com\n  ca:\n    inline: |\n%s\n  apis: [custom, external]\n%s\n", name, o.URL,
		"      "+strings.ReplaceAll(strings.TrimSpace(string(ca)), "\n", "\n      "), more)
}

// none has no metric, and rules have the metric "ruled".
type none struct{ metricsapi.MetricsProvider }

var errNobody = apierrors.NewNotFound(schema.GroupResource{}, "nobody's")

func (none) GetMetricByName(context.Context, types.NamespacedName, metricsapi.CustomMetricInfo, labels.Selector) (*custom_metrics.MetricValue, error) {
	return nil, errNobody
}

func (none) GetExternalMetric(context.Context, string, labels.Selector, metricsapi.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error) {
	return nil, errNobody
}

type rules struct {
	none
	unknown error
}

func (rules) ListAllMetrics() []metricsapi.CustomMetricInfo { return nil }
func (rules) ListAllExternalMetrics() []metricsapi.ExternalMetricInfo {
	return []metricsapi.ExternalMetricInfo{{Metric: "ruled"}}
}

func (r rules) Makes(_ schema.GroupResource, _, metric string) (bool, error) {
	return metric == "ruled" && r.unknown == nil, r.unknown
}

func (rules) GetExternalMetric(context.Context, string, labels.Selector, metricsapi.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error) {
	return &external_metrics.ExternalMetricValueList{Items: []external_metrics.ExternalMetricValue{{MetricName: "ruled"}}}, nil
}

// started are running Delegates.
type started struct {
	*delegate.Delegates
	file string
	reg  *prometheus.Registry
	log  *logged
}

// logged keeps what is logged.
type logged struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

func (l *logged) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.String()
}

func start(t *testing.T, file string, changes ...func(*delegate.Options)) *started {
	t.Helper()
	s := &started{file: filepath.Join(t.TempDir(), "delegates.yaml"), reg: prometheus.NewRegistry(), log: &logged{}}
	s.write(t, file)
	o := delegate.Options{
		File: s.file, Else: none{}, Log: slog.New(slog.NewTextHandler(s.log, nil)), Registerer: s.reg, UserAgent: "sluice-test",
		FilePeriod: 20 * time.Millisecond, DiscoverPeriod: 20 * time.Millisecond,
		Token: func(context.Context) (string, time.Time, error) { return "own-token", time.Now().Add(time.Hour), nil },
	}
	for _, change := range changes {
		change(&o)
	}
	var err error
	if s.Delegates, err = delegate.New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	s.until(t, "the file is read", func() bool { return s.gauge("sluice_adapter_delegates_last_reload_success", "") == 1 })
	return s
}

func (s *started) write(t *testing.T, file string) {
	t.Helper()
	next := s.file + ".next"
	if err := os.WriteFile(next, []byte("delegates:\n"+file), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, s.file); err != nil {
		t.Fatal(err)
	}
}

func (s *started) until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s\n%s", what, s.log.text())
		}
	}
}

// gauge is a metric's value, -1 for none; a label's value tells series apart.
func (s *started) gauge(name, label string) float64 {
	families, err := s.reg.Gather()
	if err != nil {
		return -1
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if label == "" || slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetValue() == label }) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return -1
}

func parsed(t *testing.T, text string) labels.Selector {
	t.Helper()
	s, err := labels.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func external(metric, value string, at time.Time) string {
	return fmt.Sprintf(`{"kind":"ExternalMetricValueList","apiVersion":"external.metrics.k8s.io/v1beta1","metadata":{},"items":[{"metricName":%q,"metricLabels":{"a":"b"},"timestamp":%q,"window":60,"value":%s}]}`,
		metric, at.UTC().Format(time.RFC3339), value)
}

// Two ScaledObjects of one namespace have metrics of one name; the key of their selector tells them
// from others'. The request says who Sluice is, and the answer passes as it is.
func TestSelectorKey(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	keda := newOther(t, func(w http.ResponseWriter, r *http.Request) {
		value := map[string]string{"scaledobject.keda.sh/name=web": `"123457m"`, "scaledobject.keda.sh/name=mail": `"42"`}[r.URL.Query().Get("labelSelector")]
		_, _ = io.WriteString(w, external("s0-prometheus", value, now))
	})
	s := start(t, keda.yaml("keda", "  match: [{selectorKey: scaledobject.keda.sh/name}]"))
	for name, want := range map[string]string{"web": "123457m", "mail": "42"} {
		list, err := s.GetExternalMetric(t.Context(), "shop", parsed(t, "scaledobject.keda.sh/name="+name), metricsapi.ExternalMetricInfo{Metric: "s0-prometheus"})
		if err != nil || len(list.Items) != 1 {
			t.Fatalf("%s: %+v, %v", name, list, err)
		}
		v := list.Items[0]
		if v.Value.String() != want || v.MetricName != "s0-prometheus" || v.MetricLabels["a"] != "b" || *v.WindowSeconds != 60 || !v.Timestamp.Time.Equal(now) {
			t.Errorf("%s is %+v, want %s", name, v, want)
		}
	}
	if r := keda.last(t); r.Header.Get("Authorization") != "Bearer own-token" || r.Header.Get("User-Agent") != "sluice-test" || r.Header.Get("X-Remote-User") != "" {
		t.Errorf("it was asked with %v", r.Header)
	}
	if _, err := s.GetExternalMetric(t.Context(), "shop", parsed(t, "app=web"), metricsapi.ExternalMetricInfo{Metric: "s0-prometheus"}); !errors.Is(err, errNobody) {
		t.Errorf("without the key: %v", err)
	}
	if up := s.gauge("sluice_adapter_delegate_up", "keda"); up != 1 {
		t.Errorf("up = %v", up)
	}
}

// A name is asked for with the escapes that it came with.
func TestPath(t *testing.T) {
	t.Parallel()
	dd := newOther(t, func(w http.ResponseWriter, r *http.Request) {
		_, metric := filepath.Split(r.URL.Path)
		_, _ = io.WriteString(w, external(metric, `"1"`, time.Now()))
	})
	s := start(t, dd.yaml("datadog", `  match: [{metricPattern: 'datadogmetric@[a-z0-9-]+:[a-z0-9-]+', ignoreCase: true}, {metricPattern: '.*[|].*'}]`))
	sluice := httptest.NewServer(remote.KeepPath(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parts := strings.Split(r.URL.Path, "/")
		if _, err := s.GetExternalMetric(r.Context(), parts[5], labels.Everything(), metricsapi.ExternalMetricInfo{Metric: parts[6]}); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})))
	defer sluice.Close()
	for _, name := range []string{
		"datadogmetric@prod:api-rps", "datadogmetric%40prod:api-rps", "datadogmetric@prod%3Aapi-rps", "datadogmetric%40prod%3aapi-rps", "DatadogMetric@Prod:api", "s0|a", "s0%7Ca", "a%25|b%20c%2b",
	} {
		path := "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/" + name
		// A raw request: a client would write the path anew.
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", sluice.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: sluice\r\nConnection: close\r\n\r\n", path)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		_ = conn.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
			continue
		}
		if got := dd.last(t).RequestURI; got != path {
			t.Errorf("%s was asked for as %s", path, got)
		}
	}
}

// Custom metrics are asked for in the version that the provider has, of one object and of many.
func TestCustom(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v1beta1", "v1beta2"} {
		p := newOther(t, func(w http.ResponseWriter, r *http.Request) {
			named, window := `"metric":{"name":"rps"}`, "windowSeconds"
			if version == "v1beta1" {
				named, window = `"metricName":"rps"`, "window"
			}
			item := func(name string) string {
				return fmt.Sprintf(`{"describedObject":{"kind":"X","namespace":%q,"name":%q,"apiVersion":"v1"},%s,"timestamp":%q,%q:30,"value":"1500m"}`, "", name, named, time.Now().UTC().Format(time.RFC3339), window)
			}
			items := item("web-1")
			switch {
			case strings.Contains(r.URL.Path, "/*/"):
				items += "," + item("web-2")
			case strings.Contains(r.URL.Path, "/metrics/"):
				items = item("shop")
			}
			fmt.Fprintf(w, `{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/%s","metadata":{},"items":[%s]}`, version, items)
		})
		p.version, p.lists = version, [2][]string{{"pods/rps", "ingresses.networking.k8s.io/rps", "bad", "pods/other"}, nil}
		s := start(t, p.yaml("zalando", "  match: [{metric: rps}]"))
		s.until(t, "discovery", func() bool { return len(s.ListAllMetrics()) == 2 })
		pods := metricsapi.CustomMetricInfo{GroupResource: schema.GroupResource{Resource: "pods"}, Namespaced: true, Metric: "rps"}
		list, err := s.GetMetricBySelector(t.Context(), "shop", parsed(t, "app=web"), pods, parsed(t, "backend=blue"))
		if err != nil || len(list.Items) != 2 || list.Items[1].DescribedObject.Name != "web-2" || list.Items[1].Value.MilliValue() != 1500 || *list.Items[1].WindowSeconds != 30 || list.Items[1].Metric.Name != "rps" {
			t.Fatalf("%s: %+v, %v", version, list, err)
		}
		prefix := "/apis/custom.metrics.k8s.io/" + version
		if got := p.last(t).RequestURI; got != prefix+"/namespaces/shop/pods/%2A/rps?labelSelector=app%3Dweb&metricLabelSelector=backend%3Dblue" && got != prefix+"/namespaces/shop/pods/*/rps?labelSelector=app%3Dweb&metricLabelSelector=backend%3Dblue" {
			t.Errorf("asked for %s", got)
		}
		for _, test := range []struct {
			resource, namespace, name, want string
		}{
			{"pods", "shop", "web-1", "/namespaces/shop/pods/web-1/rps"},
			{"ingresses.networking.k8s.io", "shop", "web-1", "/namespaces/shop/ingresses.networking.k8s.io/web-1/rps"},
			{"nodes", "", "web-1", "/nodes/web-1/rps"},
			{"namespaces", "", "shop", "/namespaces/shop/metrics/rps"},
		} {
			info := metricsapi.CustomMetricInfo{GroupResource: schema.ParseGroupResource(test.resource), Namespaced: test.namespace != "", Metric: "rps"}
			v, err := s.GetMetricByName(t.Context(), types.NamespacedName{Namespace: test.namespace, Name: test.name}, info, labels.Everything())
			if err != nil || v.Value.MilliValue() != 1500 {
				t.Errorf("%s: %+v, %v", test.want, v, err)
			}
			if got := p.last(t).RequestURI; got != prefix+test.want {
				t.Errorf("asked for %s, want %s", got, test.want)
			}
		}
		for _, bad := range []string{"..", ".", "a/b", "", "a\nb", strings.Repeat("x", 2000)} {
			_, err := s.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: bad}, pods, labels.Everything())
			if !apierrors.IsBadRequest(err) {
				t.Errorf("the object %.10q: %v", bad, err)
			}
		}
	}
}

// What is no good answer is an error that names the provider, and never a number.
func TestAnswers(t *testing.T) {
	t.Parallel()
	ok := func(value string) string { return external("m", value, time.Now()) }
	status := func(code int, message string) string {
		return fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":%q,"reason":"X","code":%d}`, message, code)
	}
	for _, test := range []struct {
		name   string
		code   int
		header [2]string
		body   string
		want   int
		says   string
	}{
		{name: "null", body: ok("null"), want: 502, says: "has no value"},
		{name: "no value", body: strings.Replace(ok("1"), `"value":1`, `"v":1`, 1), want: 502, says: "has no value"},
		{name: "NaN", body: ok(`"NaN"`), want: 502, says: "quantities must match"},
		{name: "infinite", body: ok(`"+Inf"`), want: 502, says: "quantities must match"},
		{name: "an exponent that takes a minute to parse", body: ok(`"9e-999999999"`), want: 502, says: "exponent"},
		{name: "an exponent that is too large", body: ok(`"9e999999999999"`), want: 502, says: "exponent"},
		{name: "an endless value", body: ok(`"` + strings.Repeat("9", 100) + `"`), want: 502, says: "100 characters"},
		{name: "truncated", body: ok("1")[:100], want: 502, says: "unexpected EOF"},
		{name: "empty", body: "", want: 502, says: "EOF"},
		{name: "nothing", body: "{}", want: 502, says: "want an ExternalMetricValueList"},
		{name: "two documents", body: ok("1") + ok("2"), want: 502, says: "more behind"},
		{name: "another kind", body: strings.Replace(ok("1"), "ExternalMetricValueList", "PodList", 1), want: 502, says: `"PodList"`},
		{name: "another metric", body: external("n", "1", time.Now()), want: 502, says: `of metric "n"`},
		{name: "HTML", body: "<html>sign in</html>", want: 502, says: "invalid character"},
		{name: "too large", body: strings.Repeat(" ", 9<<20), want: 502, says: "larger than"},
		{name: "compressed", header: [2]string{"Content-Encoding", "gzip"}, body: ok("1"), want: 502, says: "status 200"},
		{name: "redirected", code: 302, header: [2]string{"Location", "https://elsewhere/"}, want: 502, says: "status 302"},
		{name: "no content", code: 204, want: 502, says: "status 204"},
		{name: "stale", body: external("m", "1", time.Now().Add(-5*time.Minute)), want: 503, says: "s old: want less than 5m0s (maxAge)"},
		{name: "400", code: 400, body: status(400, "bad selector"), want: 400, says: "bad selector"},
		{name: "401", code: 401, body: status(401, "Unauthorized"), want: 401, says: "does not take Sluice's own identity"},
		{name: "403", code: 403, body: status(403, "no"), want: 403, says: "does not allow Sluice's own identity"},
		{name: "404", code: 404, body: status(404, "no matching metrics found for s0"), want: 404, says: "no matching metrics found for s0"},
		{name: "404 of somebody else", code: 404, body: "404 page not found", want: 404, says: "page not found"},
		{name: "429", code: 429, header: [2]string{"Retry-After", "7"}, body: status(429, "slow down"), want: 429, says: "slow down"},
		{name: "500", code: 500, body: strings.Replace(status(500, "scaler broken"), "broken", `\u0000broken\n`, 1), want: 500, says: "scaler  broken"},
		{name: "503 without words", code: 503, want: 503, says: "Service Unavailable"},
		{name: "a status that contradicts itself", code: 500, body: status(200, "fine"), want: 500, says: "fine"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := newOther(t, func(w http.ResponseWriter, _ *http.Request) {
				if test.header[0] != "" {
					w.Header().Set(test.header[0], test.header[1])
				}
				if test.code != 0 {
					w.WriteHeader(test.code)
				}
				_, _ = io.WriteString(w, test.body)
			})
			s := start(t, p.yaml("prov", "  match: [{metric: m}]"))
			list, err := s.GetExternalMetric(t.Context(), "shop", labels.Everything(), metricsapi.ExternalMetricInfo{Metric: "m"})
			if list != nil {
				t.Fatalf("it answers %+v", list)
			}
			e, ok := errors.AsType[*apierrors.StatusError](err)
			if !ok || int(e.ErrStatus.Code) != test.want || !strings.HasPrefix(err.Error(), "delegate prov: ") || !strings.Contains(err.Error(), test.says) || e.ErrStatus.Status != metav1.StatusFailure {
				t.Errorf("the error is %+v, want status %d and %q", e, test.want, test.says)
			}
			if test.code == 429 && (e.ErrStatus.Details == nil || e.ErrStatus.Details.RetryAfterSeconds != 7) {
				t.Errorf("retry after %+v", e.ErrStatus.Details)
			}
		})
	}
}

// Answers about objects are of those that were asked for.
func TestCustomAnswers(t *testing.T) {
	t.Parallel()
	item := func(ns, name, metric string, at time.Time) string {
		return fmt.Sprintf(`{"describedObject":{"kind":"Pod","namespace":%q,"name":%q,"apiVersion":"/v1"},"metric":{"name":%q},"timestamp":%q,"value":"1"}`, ns, name, metric, at.UTC().Format(time.RFC3339))
	}
	now, old := time.Now(), time.Now().Add(-time.Hour)
	for _, test := range []struct {
		name, object string
		items        []string
		want         int
		says         string
	}{
		{name: "good", object: "a", items: []string{item("shop", "a", "m", now)}, want: 1},
		{name: "none", object: "a", says: "has 0 values"},
		{name: "two", object: "a", items: []string{item("shop", "a", "m", now), item("shop", "b", "m", now)}, says: "has 2 values"},
		{name: "another", object: "a", items: []string{item("shop", "b", "m", now)}, says: `is of "b"`},
		{name: "another namespace", object: "a", items: []string{item("bank", "a", "m", now)}, says: `is of namespace "bank"`},
		{name: "another namespace of many", object: "*", items: []string{item("shop", "a", "m", now), item("bank", "b", "m", now)}, says: `is of namespace "bank"`},
		{name: "twice", object: "*", items: []string{item("shop", "a", "m", now), item("shop", "a", "m", now)}, says: "second value"},
		{name: "another metric", object: "a", items: []string{item("shop", "a", "n", now)}, says: `of metric "n"`},
		{name: "stale", object: "a", items: []string{item("shop", "a", "m", old)}, says: "old: want less than 5m0s"},
		{name: "one of two stale", object: "*", items: []string{item("shop", "a", "m", now), item("shop", "b", "m", old)}, want: 1},
		{name: "all stale", object: "*", items: []string{item("shop", "b", "m", old)}, says: "old"},
	} {
		p := newOther(t, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta2","items":[%s]}`, strings.Join(test.items, ","))
		})
		s := start(t, p.yaml("prov", "  match: [{metric: m}]"))
		info := metricsapi.CustomMetricInfo{GroupResource: schema.GroupResource{Resource: "pods"}, Namespaced: true, Metric: "m"}
		n, err := 0, error(nil)
		if test.object == "*" {
			var list *custom_metrics.MetricValueList
			if list, err = s.GetMetricBySelector(t.Context(), "shop", labels.Everything(), info, labels.Everything()); err == nil {
				n = len(list.Items)
			}
		} else if _, err = s.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: test.object}, info, labels.Everything()); err == nil {
			n = 1
		}
		if n != test.want || (err != nil) != (test.says != "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %d values, %v", test.name, n, err)
		}
	}
}

// A provider that hangs takes its own requests, bounded in number and time, and nobody else's. Once
// it has failed often it is not asked for a while.
func TestHangingProvider(t *testing.T) {
	t.Parallel()
	hang := newOther(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	hang.set(func() { hang.lists[1] = []string{"slow"} })
	good := newOther(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, external("fast", "1", time.Now()))
	})
	s := start(t, hang.yaml("hang", "  timeout: 100ms\n  maxConcurrent: 2\n  match: [{metric: slow}]")+good.yaml("good", "  match: [{rest: true}]"),
		func(o *delegate.Options) { o.DiscoverPeriod = time.Hour })
	get := func(metric string) error {
		_, err := s.GetExternalMetric(t.Context(), "shop", labels.Everything(), metricsapi.ExternalMetricInfo{Metric: metric})
		return err
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	said := map[string]int{}
	for range 12 {
		group.Go(func() {
			err := get("slow")
			if err == nil {
				t.Error("it answers")
				return
			}
			if !strings.Contains(err.Error(), "delegate hang: ") {
				t.Errorf("the error does not name it: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, cause := range []string{"no answer within", "as many wait", "none ended in time", "not asked until"} {
				if strings.Contains(err.Error(), cause) {
					said[cause]++
				}
			}
		})
	}
	if err := get("fast"); err != nil {
		t.Errorf("the other provider: %v", err)
	}
	group.Wait()
	if said["as many wait"] == 0 || said["no answer within"] == 0 {
		t.Errorf("the causes are %v", said)
	}
	s.until(t, "it is not asked any more", func() bool { return strings.Contains(get("slow").Error(), "not asked until") })
	if err := s.Healthy(); err == nil || !strings.Contains(err.Error(), "delegate hang") || strings.Contains(err.Error(), "delegate good") {
		t.Errorf("health is %v", err)
	}
	if s.gauge("sluice_adapter_delegate_up", "hang") != 0 || s.gauge("sluice_adapter_delegate_up", "good") != 1 {
		t.Error("up is wrong")
	}
	if s.gauge("sluice_adapter_delegate_requests_total", "not_sent") < 1 {
		t.Error("what was not sent is not counted")
	}
}

// One metric that fails, such as a scaler of KEDA, does not stop the others.
func TestOneMetricFails(t *testing.T) {
	t.Parallel()
	keda := newOther(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/bad") {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"Internal error occurred: unable to get external metric","code":500}`)
			return
		}
		_, _ = io.WriteString(w, external("good", "1", time.Now()))
	})
	s := start(t, keda.yaml("keda", "  match: [{rest: true}]"))
	for i := range 20 {
		if _, err := s.GetExternalMetric(t.Context(), "shop", labels.Everything(), metricsapi.ExternalMetricInfo{Metric: "bad"}); !apierrors.IsInternalError(err) && !strings.Contains(err.Error(), "unable to get external metric") {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if _, err := s.GetExternalMetric(t.Context(), "shop", labels.Everything(), metricsapi.ExternalMetricInfo{Metric: "good"}); err != nil {
		t.Errorf("the other metric: %v", err)
	}
}

// Rules come first, then delegates in their order; while it is not known what rules make, nobody
// takes the rest.
func TestOrder(t *testing.T) {
	t.Parallel()
	serve := func(value string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, metric := filepath.Split(r.URL.Path)
			_, _ = io.WriteString(w, external(metric, value, time.Now()))
		}
	}
	first, second := newOther(t, serve("1")), newOther(t, serve("2"))
	first.lists[1], second.lists[1] = []string{"both"}, []string{"both", "ruled", "own"}
	both := first.yaml("first", "  match: [{metric: both}, {metric: ruled}]") + second.yaml("second", "  match: [{metric: both}, {rest: true}]")
	s := start(t, both, func(o *delegate.Options) {
		o.Rules = rules{}
		o.Reserved = func(r schema.GroupResource, metric string) bool { return r.Empty() && metric == "own" }
	})
	for metric, want := range map[string]string{"both": "1", "other": "2"} {
		list, err := s.GetExternalMetric(t.Context(), "shop", labels.Everything(), metricsapi.ExternalMetricInfo{Metric: metric})
		if err != nil || list.Items[0].Value.String() != want {
			t.Errorf("%s is %+v, %v, want %s", metric, list, err, want)
		}
	}
	if list, err := s.GetExternalMetric(t.Context(), "shop", labels.Everything(), metricsapi.ExternalMetricInfo{Metric: "ruled"}); err != nil || !list.Items[0].Value.IsZero() {
		t.Errorf("the rule's metric is %+v, %v", list, err)
	}
	s.until(t, "discovery", func() bool { return len(s.ListAllExternalMetrics()) == 3 })
	for _, want := range []string{
		`metric=both answered_by="delegate first" not_by="delegate second"`, `metric=ruled answered_by=rules not_by="delegate first"`,
		`metric=own answered_by="Sluice itself" not_by="delegate second"`,
	} {
		s.until(t, "logged "+want, func() bool { return strings.Contains(s.log.text(), want) })
	}
	if s.gauge("sluice_adapter_delegate_collisions", "") < 3 {
		t.Error("collisions are not counted")
	}

	s = start(t, both, func(o *delegate.Options) { o.Rules = rules{unknown: errors.New("not listed yet")} })
	if _, err := s.GetExternalMetric(t.Context(), "shop", labels.Everything(), metricsapi.ExternalMetricInfo{Metric: "other"}); !apierrors.IsServiceUnavailable(err) || !strings.Contains(err.Error(), "not listed yet") {
		t.Errorf("the rest while rules are not known: %v", err)
	}
	if _, err := s.GetExternalMetric(t.Context(), "shop", labels.Everything(), metricsapi.ExternalMetricInfo{Metric: "both"}); err != nil {
		t.Errorf("what is named: %v", err)
	}
}

// A file that cannot be used changes nothing; one that can is taken over at once, and what it
// leaves as it was goes on. Lists are kept when a provider fails.
func TestReload(t *testing.T) {
	t.Parallel()
	p := newOther(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, external("a", "1", time.Now())) })
	p.lists[1] = []string{"a", "b"}
	a := p.yaml("one", "  match: [{metric: a}]")
	s := start(t, a)
	get := func() error {
		_, err := s.GetExternalMetric(t.Context(), "shop", labels.Everything(), metricsapi.ExternalMetricInfo{Metric: "a"})
		return err
	}
	listed := func(want ...string) func() bool {
		return func() bool {
			var got []string
			for _, m := range s.ListAllExternalMetrics() {
				got = append(got, m.Metric)
			}
			return slices.Equal(got, want)
		}
	}
	s.until(t, "discovery", listed("a"))
	if err := get(); err != nil {
		t.Fatal(err)
	}
	s.write(t, "- name: two\n  colour: red\n")
	s.until(t, "the fault is seen", func() bool { return s.gauge("sluice_adapter_delegates_last_reload_success", "") == 0 })
	if err := get(); err != nil || s.Healthy() == nil || !strings.Contains(s.Healthy().Error(), "colour") {
		t.Errorf("after the fault: %v, health %v", err, s.Healthy())
	}
	p.set(func() { p.down = true })
	s.write(t, a+p.yaml("two", "  match: [{metric: b}]"))
	s.until(t, "it is taken over", func() bool { return s.gauge("sluice_adapter_delegate_metrics", "two") == 0 })
	s.until(t, "the failure is seen", func() bool { return strings.Contains(s.log.text(), "metrics of a delegate not listed") })
	if !listed("a")() || get() != nil {
		t.Errorf("what was known is %v, %v", s.ListAllExternalMetrics(), get())
	}
	if age := s.gauge("sluice_adapter_delegate_discovery_age_seconds", "one"); age <= 0 {
		t.Errorf("the age is %v", age)
	}
	p.set(func() { p.down = false })
	s.until(t, "it is listed again", listed("a", "b"))
	s.write(t, p.yaml("two", "  match: [{metric: b}]"))
	s.until(t, "the first is gone", listed("b"))
	s.until(t, "its metrics are gone", func() bool {
		return s.gauge("sluice_adapter_delegate_requests_total", "one") == -1 && s.gauge("sluice_adapter_delegate_up", "one") == -1
	})
	if err := get(); !errors.Is(err, errNobody) {
		t.Errorf("what is nobody's now: %v", err)
	}
}

// A provider whose certificate is another's is not asked, unless the file says that whoever answers
// is believed; an identity may be a file, which is read again, or nothing.
func TestTrust(t *testing.T) {
	t.Parallel()
	p := newOther(t, nil)
	p.answer = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, external("a", "1", time.Now())) }
	get := func(s *started) error {
		_, err := s.GetExternalMetric(t.Context(), "shop", labels.Everything(), metricsapi.ExternalMetricInfo{Metric: "a"})
		return err
	}
	good := p.yaml("one", "  match: [{metric: a}]")
	if err := get(start(t, strings.Replace(good, "serverName: example.com", "serverName: example.org", 1))); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("another name: %v", err)
	}
	wrong := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(wrong, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	inline := good[strings.Index(good, "  ca:"):strings.Index(good, "  apis:")]
	if err := get(start(t, strings.Replace(good, inline, "  ca: {file: "+wrong+"}\n", 1))); err == nil || !strings.Contains(err.Error(), "want certificates in PEM") {
		t.Errorf("no authority: %v", err)
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("from-a-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := get(start(t, strings.Replace(good, inline, "  ca: {insecureSkipTLSVerify: true}\n  identity: {bearerTokenFile: "+token+"}\n", 1))); err != nil {
		t.Errorf("whoever answers: %v", err)
	}
	if got := p.last(t).Header.Get("Authorization"); got != "Bearer from-a-file" {
		t.Errorf("the identity is %q", got)
	}
	if err := get(start(t, strings.Replace(good, inline, inline+"  identity: {none: true}\n", 1))); err != nil {
		t.Error(err)
	}
	if got := p.last(t).Header.Get("Authorization"); got != "" {
		t.Errorf("the identity is %q", got)
	}
	if err := get(start(t, good, func(o *delegate.Options) { o.Token = nil })); err == nil || !strings.Contains(err.Error(), "--delegate-service-account") {
		t.Errorf("without an identity: %v", err)
	}
}
