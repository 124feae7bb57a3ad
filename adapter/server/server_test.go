package server_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	cmv1beta1 "k8s.io/metrics/pkg/apis/custom_metrics/v1beta1"
	cmv1beta2 "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	cmclient "k8s.io/metrics/pkg/client/custom_metrics"
	emclient "k8s.io/metrics/pkg/client/external_metrics"

	"github.com/sluice-autoscaler/sluice/adapter/provider"
	"github.com/sluice-autoscaler/sluice/adapter/server"
	"github.com/sluice-autoscaler/sluice/adapter/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var read = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// memory knows the pods of app=web.
type memory struct{}

func (memory) Workload(_ time.Time, _ string, pods labels.Selector, _ []string, _ string, window time.Duration) store.Value {
	if !pods.Matches(labels.Set{"app": "web"}) {
		return store.Value{Missing: "pod lost-1 has not been read for 9s"}
	}
	return store.Value{Value: 7.25, Known: true, At: read, Window: window}
}

func (memory) Pods(_ time.Time, _ string, pods labels.Selector, _ string, window time.Duration) []store.PodValue {
	if !pods.Matches(labels.Set{"app": "web"}) {
		return nil
	}
	return []store.PodValue{
		{Name: "web-1", Value: store.Value{Value: 3, Known: true, At: read, Window: window}},
		{Name: "web-2", Value: store.Value{Value: 4.25, Known: true, At: read, Window: window}},
	}
}

func (m memory) Pod(now time.Time, namespace, name, signal string, window time.Duration) (store.PodValue, bool) {
	for _, v := range m.Pods(now, namespace, labels.Everything(), signal, window) {
		if v.Name == name {
			return v, true
		}
	}
	return store.PodValue{}, false
}

func (memory) Ready() error { return nil }

// shelf knows the Deployments web and lost.
type shelf struct{}

func (shelf) Get(_ schema.GroupResource, _, name string) (provider.Target, bool, error) {
	return provider.Target{Name: name, Pods: labels.SelectorFromSet(labels.Set{"app": name})}, name == "web" || name == "lost", nil
}

func (s shelf) List(r schema.GroupResource, namespace string, _ labels.Selector) ([]provider.Target, error) {
	t, _, err := s.Get(r, namespace, "web")
	return []provider.Target{t}, err
}

func (shelf) Ready() error { return nil }

// world is a running server and who can reach it.
type world struct {
	server            *server.Server
	address           string
	ca, users, proxy  *authority
	cert              *changing
	unready           atomic.Pointer[error]
	reviews           reviews
	gone              atomic.Pointer[string] // an APIService that is not there
	metrics           *prometheus.Registry
	stop              func() error
	serving           *rest.Config
	frontProxy, plain *http.Client
}

func start(t *testing.T, changes ...func(*server.Options)) *world {
	t.Helper()
	w := &world{ca: newAuthority(t, "serving"), users: newAuthority(t, "users"), proxy: newAuthority(t, "proxy"), cert: &changing{}, metrics: prometheus.NewRegistry()}
	w.cert.set(w.ca.issue(t, "sluice-adapter", x509.ExtKeyUsageServerAuth))
	p, err := provider.New(provider.Options{Metrics: provider.RequestMetrics(memory{}, shelf{}, nil), DefaultWindow: 15 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := server.Options{
		Config: newCluster(t, w.users, w.proxy, w.reviews.add, func(name string) bool { n := w.gone.Load(); return n != nil && *n == name }), Listener: listener, Certificate: w.cert, Custom: p, External: p, Journal: journal, Metrics: http.HandlerFunc(exposeSome), Log: slog.New(slog.DiscardHandler), Registerer: w.metrics,
		Ready: func() error {
			if err := w.unready.Load(); err != nil {
				return *err
			}
			return nil
		},
	}
	for _, change := range changes {
		change(&o)
	}
	s, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if s.Ready() == nil {
		t.Error("ready before it serves")
	}
	w.server = s
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	w.stop = func() error {
		cancel()
		return <-done
	}
	w.address = listener.Addr().String()
	w.serving = &rest.Config{Host: "https://" + w.address, BearerToken: "viewer", TLSClientConfig: rest.TLSClientConfig{CAData: w.ca.pem}}
	client := func(certificates ...tls.Certificate) *http.Client {
		roots := x509.NewCertPool()
		roots.AddCert(w.ca.cert)
		return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certificates, MinVersion: tls.VersionTLS12}}}
	}
	pair, err := tls.X509KeyPair(w.proxy.issue(t, "front-proxy", x509.ExtKeyUsageClientAuth))
	if err != nil {
		t.Fatal(err)
	}
	w.frontProxy, w.plain = client(pair), client()
	t.Cleanup(func() {
		w.frontProxy.CloseIdleConnections()
		w.plain.CloseIdleConnections()
		if err := w.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	w.until(t, "ready", func() bool {
		code, _ := w.get(t, w.plain, "/readyz", nil)
		return code == http.StatusOK
	})
	return w
}

// exposeSome are metrics.
func exposeSome(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "sluice_some 1\n") }

// until asks again until it is so; the test's own deadline bounds it.
func (w *world) until(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for !so() {
		select {
		case <-deadline:
			t.Fatalf("not %s within 30 s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (w *world) get(t *testing.T, c *http.Client, path string, header http.Header) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+w.address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(r.Header, header)
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestServer(t *testing.T) {
	w := start(t)
	viewer := http.Header{"Authorization": {"Bearer viewer"}}

	t.Run("JSON", func(t *testing.T) {
		for _, c := range []struct{ path, want string }{
			{
				"/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/deployments.apps/web/request_concurrency?metricLabelSelector=window%3D30s",
				`{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta2","metadata":{},"items":[{"describedObject":{"kind":"Deployment","namespace":"shop","name":"web","apiVersion":"apps/v1"},"metric":{"name":"request_concurrency","selector":{"matchLabels":{"window":"30s"}}},"timestamp":"2026-11-23T12:00:00Z","windowSeconds":30,"value":"7250m"}]}`,
			},
			{
				"/apis/custom.metrics.k8s.io/v1beta1/namespaces/shop/pods/*/request_rate?labelSelector=app%3Dweb",
				`{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta1","metadata":{},"items":[{"describedObject":{"kind":"Pod","namespace":"shop","name":"web-1","apiVersion":"v1"},"metricName":"request_rate","timestamp":"2026-11-23T12:00:00Z","window":15,"value":"3","selector":null},{"describedObject":{"kind":"Pod","namespace":"shop","name":"web-2","apiVersion":"v1"},"metricName":"request_rate","timestamp":"2026-11-23T12:00:00Z","window":15,"value":"4250m","selector":null}]}`,
			},
			{
				"/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/request_waiting?labelSelector=deployment%3Dweb",
				`{"kind":"ExternalMetricValueList","apiVersion":"external.metrics.k8s.io/v1beta1","metadata":{},"items":[{"metricName":"request_waiting","metricLabels":{"deployment":"web"},"timestamp":"2026-11-23T12:00:00Z","window":15,"value":"7250m"}]}`,
			},
		} {
			code, body := w.get(t, w.plain, c.path, viewer)
			if d := cmp.Diff(c.want, strings.TrimSpace(body)); code != http.StatusOK || d != "" {
				t.Errorf("GET %s: %d (-want +got):\n%s", c.path, code, d)
			}
		}
	})

	t.Run("statuses", func(t *testing.T) {
		for path, want := range map[string]int{
			"/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/deployments.apps/lost/request_rate":                                503,
			"/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/deployments.apps/ghost/request_rate":                               404,
			"/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/metrics/request_rate":                                              404,
			"/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/deployments.apps/web/request_rate?metricLabelSelector=window%3D2h": 400,
			"/apis/custom.metrics.k8s.io/v1beta2/nodes/n1/request_rate":                                                             404,
			"/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/request_rate?labelSelector=app%3Dweb":                            400,
			"/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/request_rate?labelSelector=%3D%3D%21":                            400,
			"/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/deployments.apps/web/request_rate?metricLabelSelector=%3D%3D%21":   400,
			"/apis/custom.metrics.k8s.io/v1beta1/namespaces/shop/pods/*/request_rate?metricLabelSelector=window":                    400,
			"/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/*/request_rate?labelSelector=%3D%3D%21":                       400,
			"/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/queue_length?labelSelector=deployment%3Dweb":                     404,
			"/openapi/v2": 200,
			"/openapi/v3/apis/custom.metrics.k8s.io/v1beta2":   200,
			"/openapi/v3/apis/external.metrics.k8s.io/v1beta1": 200,
			"/debug/pprof/": 404,
		} {
			if code, body := w.get(t, w.plain, path, viewer); code != want {
				t.Errorf("GET %s = %d, want %d: %s", path, code, want, body)
			}
		}
	})

	t.Run("users", func(t *testing.T) {
		const path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/deployments.apps/web/request_rate"
		for _, c := range []struct {
			name   string
			client *http.Client
			header http.Header
			want   int
		}{
			{"passed on by the front proxy", w.frontProxy, http.Header{"X-Remote-User": {hpa}}, 200},
			{"passed on, without the right", w.frontProxy, http.Header{"X-Remote-User": {"eve"}}, 403},
			{"headers without the front proxy's certificate", w.plain, http.Header{"X-Remote-User": {hpa}}, 403},
			{"token", w.plain, viewer, 200},
			{"token without the right", w.plain, http.Header{"Authorization": {"Bearer eve"}}, 403},
			{"bad token", w.plain, http.Header{"Authorization": {"Bearer bad"}}, 401},
			{"nobody", w.plain, nil, 403},
		} {
			if code, body := w.get(t, c.client, path, c.header); code != c.want {
				t.Errorf("%s: %d, want %d: %s", c.name, code, c.want, body)
			}
		}
	})

	t.Run("metrics", func(t *testing.T) {
		for _, c := range []struct {
			name   string
			header http.Header
			want   int
		}{
			{"a scraper", viewer, 200},
			{"a tenant", http.Header{"Authorization": {"Bearer eve"}}, 403},
			{"bad token", http.Header{"Authorization": {"Bearer bad"}}, 401},
			{"nobody", nil, 403},
		} {
			code, body := w.get(t, w.plain, "/metrics", c.header)
			if code != c.want || (body == "sluice_some 1\n") != (c.want == 200) {
				t.Errorf("%s: %d, want %d: %s", c.name, code, c.want, body)
			}
		}
		if got := w.reviews.paths("eve"); !slices.Contains(got, "get /metrics") {
			t.Errorf("reviews of paths are %q, want one of get /metrics", got)
		}
	})

	t.Run("clients of the HorizontalPodAutoscaler", func(t *testing.T) {
		mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{appsv1.SchemeGroupVersion, corev1.SchemeGroupVersion})
		mapper.Add(appsv1.SchemeGroupVersion.WithKind("Deployment"), meta.RESTScopeNamespace)
		mapper.Add(corev1.SchemeGroupVersion.WithKind("Pod"), meta.RESTScopeNamespace)
		for _, contentType := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
			config := rest.CopyConfig(w.serving)
			config.ContentType, config.AcceptContentTypes = contentType, contentType
			for _, version := range []schema.GroupVersion{cmv1beta1.SchemeGroupVersion, cmv1beta2.SchemeGroupVersion} {
				c, err := cmclient.NewForVersionForConfig(config, mapper, version)
				if err != nil {
					t.Fatal(err)
				}
				one, err := c.NamespacedMetrics("shop").GetForObject(schema.GroupKind{Group: "apps", Kind: "Deployment"}, "web", provider.Concurrency, labels.Everything())
				if err != nil || one.Value.String() != "7250m" || one.DescribedObject.Kind != "Deployment" || !one.Timestamp.Time.Equal(read) {
					t.Errorf("%s as %s: %+v, %v", version, contentType, one, err)
				}
				many, err := c.NamespacedMetrics("shop").GetForObjects(schema.GroupKind{Kind: "Pod"}, labels.SelectorFromSet(labels.Set{"app": "web"}), provider.Rate, labels.Everything())
				if err != nil || len(many.Items) != 2 {
					t.Errorf("%s as %s: %+v, %v; want 2 pods", version, contentType, many, err)
				}
				_, err = c.NamespacedMetrics("shop").GetForObject(schema.GroupKind{Group: "apps", Kind: "Deployment"}, "lost", provider.Rate, labels.Everything())
				if !apierrors.IsServiceUnavailable(err) || !strings.Contains(err.Error(), "lost-1") {
					t.Errorf("%s as %s: unknown told as %v", version, contentType, err)
				}
			}
			e, err := emclient.NewForConfig(config)
			if err != nil {
				t.Fatal(err)
			}
			sum, err := e.NamespacedMetrics("shop").List(provider.Concurrency, labels.SelectorFromSet(labels.Set{"deployment": "web"}))
			if err != nil || len(sum.Items) != 1 || sum.Items[0].Value.String() != "7250m" {
				t.Errorf("external as %s: %+v, %v", contentType, sum, err)
			}
		}
	})

	t.Run("discovery", func(t *testing.T) {
		c, err := discovery.NewDiscoveryClientForConfig(w.serving)
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]discovery.DiscoveryInterface{"aggregated": c, "legacy": c.WithLegacy()} {
			groups, resources, err := c.ServerGroupsAndResources()
			if err != nil {
				t.Fatal(err)
			}
			got := map[string][]string{}
			for _, g := range groups {
				for _, v := range g.Versions {
					got[g.Name] = append(got[g.Name], v.Version)
				}
			}
			want := map[string][]string{
				"custom.metrics.k8s.io": {"v1beta2", "v1beta1"}, "external.metrics.k8s.io": {"v1beta1"}, "explain.sluice.dev": {"v1alpha1"},
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s groups (-want +got):\n%s", name, d)
			}
			count := map[string]int{}
			for _, l := range resources {
				for _, r := range l.APIResources {
					if r.Name == "deployments.apps/request_concurrency" || r.Name == "request_concurrency" {
						count[l.GroupVersion]++
					}
				}
			}
			if d := cmp.Diff(map[string]int{"custom.metrics.k8s.io/v1beta1": 1, "custom.metrics.k8s.io/v1beta2": 1, "external.metrics.k8s.io/v1beta1": 1}, count); d != "" {
				t.Errorf("%s resources (-want +got):\n%s", name, d)
			}
		}
	})

	t.Run("readiness", func(t *testing.T) {
		if err := w.server.Ready(); err != nil {
			t.Errorf("Ready: %v", err)
		}
		fault := errors.New("2 pods not read yet")
		w.unready.Store(&fault)
		if code, body := w.get(t, w.plain, "/readyz", nil); code != http.StatusInternalServerError || !strings.Contains(body, "[-]metrics") {
			t.Errorf("readyz = %d %s", code, body)
		}
		if code, _ := w.get(t, w.plain, "/livez", nil); code != http.StatusOK {
			t.Errorf("livez = %d while not ready; it must not restart what only waits", code)
		}
		w.unready.Store(nil)
		if code, _ := w.get(t, w.plain, "/readyz", nil); code != http.StatusOK {
			t.Errorf("readyz = %d", code)
		}
	})

	t.Run("renewed certificate", func(t *testing.T) {
		before := serial(t, w.address, w.ca)
		w.cert.set(w.ca.issue(t, "sluice-adapter", x509.ExtKeyUsageServerAuth))
		w.until(t, "serving the new certificate", func() bool { return serial(t, w.address, w.ca) != before })
	})
}

func TestOptions(t *testing.T) {
	_, err := server.New(server.Options{Listen: "6443"})
	for _, want := range []string{"config is missing", `listen = "6443"`, "certificate is missing", "nothing to serve", "log is missing"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %q", err, want)
		}
	}
}

// TestMissingAPIService deletes an APIService. That is told within seconds, and told off when it is
// there again; the server is ready all the while.
func TestMissingAPIService(t *testing.T) {
	w := start(t)
	const name = "v1beta2.custom.metrics.k8s.io"
	expect := func(exists float64, fault string) {
		t.Helper()
		w.until(t, fmt.Sprintf("told %q", fault), func() bool {
			err := w.server.Registered()
			if (err == nil) != (fault == "") || err != nil && err.Error() != fault {
				return false
			}
			families, gatherErr := w.metrics.Gather()
			if gatherErr != nil || len(families) != 1 || len(families[0].GetMetric()) != 4 {
				return false
			}
			for _, m := range families[0].GetMetric() {
				if m.GetLabel()[0].GetValue() == name && m.GetGauge().GetValue() != exists {
					return false
				}
			}
			return true
		})
		if code, body := w.get(t, w.plain, "/readyz", nil); code != http.StatusOK {
			t.Errorf("readyz = %d %s", code, body)
		}
	}
	expect(1, "")
	gone := name
	w.gone.Store(&gone)
	expect(0, "missing: APIService "+name)
	w.gone.Store(nil)
	expect(1, "")
}
