package delegate_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/cmd"
	metricsapi "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/sluice-autoscaler/sluice/adapter/delegate"
)

// stock answers as KEDA's provider and prometheus-adapter's do.
type stock struct{ at time.Time }

func (stock) ListAllMetrics() []metricsapi.CustomMetricInfo {
	return []metricsapi.CustomMetricInfo{{GroupResource: schema.GroupResource{Resource: "pods"}, Namespaced: true, Metric: "rps"}}
}

func (stock) ListAllExternalMetrics() []metricsapi.ExternalMetricInfo {
	return []metricsapi.ExternalMetricInfo{{Metric: "s0-prometheus"}}
}

func (s stock) GetMetricByName(_ context.Context, name types.NamespacedName, info metricsapi.CustomMetricInfo, _ labels.Selector) (*custom_metrics.MetricValue, error) {
	window := int64(30)
	return &custom_metrics.MetricValue{
		DescribedObject: custom_metrics.ObjectReference{Kind: "Pod", APIVersion: "/v1", Namespace: name.Namespace, Name: name.Name},
		Metric:          custom_metrics.MetricIdentifier{Name: info.Metric}, Timestamp: metav1.NewTime(s.at), WindowSeconds: &window, Value: resource.MustParse("1500m"),
	}, nil
}

func (s stock) GetMetricBySelector(ctx context.Context, namespace string, selector labels.Selector, info metricsapi.CustomMetricInfo, metrics labels.Selector) (*custom_metrics.MetricValueList, error) {
	if selector.String() != "app=web" || metrics.String() != "backend in (blue,green)" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the selectors are %q and %q", selector, metrics))
	}
	list := &custom_metrics.MetricValueList{}
	for _, name := range []string{"web-1", "web-2"} {
		v, _ := s.GetMetricByName(ctx, types.NamespacedName{Namespace: namespace, Name: name}, info, metrics)
		list.Items = append(list.Items, *v)
	}
	return list, nil
}

func (s stock) GetExternalMetric(_ context.Context, namespace string, selector labels.Selector, info metricsapi.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error) {
	if _, ok := selector.RequiresExactMatch("scaledobject.keda.sh/name"); info.Metric == "s0-prometheus" && !ok {
		return nil, errors.New("scaledObject name is not specified")
	}
	return &external_metrics.ExternalMetricValueList{Items: []external_metrics.ExternalMetricValue{
		{MetricName: info.Metric, MetricLabels: map[string]string{"namespace": namespace}, Timestamp: metav1.NewTime(s.at), Value: resource.MustParse("12345678901234567890")},
	}}, nil
}

// reviewed is as much of a cluster as such a provider asks: a token is its user's name, and only
// sluice-delegate may read.
type reviewed struct {
	mu    sync.Mutex
	asked []authorizationv1.ResourceAttributes
}

func (c *reviewed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case strings.HasSuffix(r.URL.Path, "/tokenreviews"):
		var review authenticationv1.TokenReview
		_ = json.NewDecoder(r.Body).Decode(&review)
		review.Status.Authenticated, review.Status.User.Username = review.Spec.Token != "nobody", review.Spec.Token
		_ = json.NewEncoder(w).Encode(review)
	case strings.HasSuffix(r.URL.Path, "/subjectaccessreviews"):
		var review authorizationv1.SubjectAccessReview
		_ = json.NewDecoder(r.Body).Decode(&review)
		if a := review.Spec.ResourceAttributes; a != nil {
			c.mu.Lock()
			c.asked = append(c.asked, *a)
			c.mu.Unlock()
		}
		review.Status.Allowed = review.Spec.User == "sluice-delegate"
		_ = json.NewEncoder(w).Encode(review)
	default:
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`))
	}
}

// startStock runs a provider as they are built: on the library, with its flags. It returns a file
// of one delegate without its match.
func startStock(t *testing.T, c *reviewed, at time.Time) string {
	t.Helper()
	cluster := httptest.NewTLSServer(c)
	t.Cleanup(func() {
		cluster.CloseClientConnections()
		cluster.Close()
	})
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cluster.Certificate().Raw})
	dir := t.TempDir()
	caFile, kubeconfig := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "kubeconfig")
	for name, text := range map[string]string{caFile: string(ca), kubeconfig: fmt.Sprintf(
		"apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{name: a, cluster: {server: %q, certificate-authority: %q}}]\ncontexts: [{name: a, context: {cluster: a}}]\n", cluster.URL, caFile)} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &cmd.AdapterBase{Name: "stock", FlagSet: pflag.NewFlagSet("stock", pflag.ContinueOnError)}
	a.InstallFlags()
	err = a.Flags().Parse([]string{
		"--lister-kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--authentication-skip-lookup", "--cert-dir=",
	})
	if err != nil {
		t.Fatal(err)
	}
	a.SecureServing.Listener = listener
	a.WithCustomMetrics(stock{at})
	a.WithExternalMetrics(stock{at})
	config, err := a.Config()
	if err != nil {
		t.Fatal(err)
	}
	// The default checks watch klog, with a goroutine that nothing ends.
	config.GenericConfig.HealthzChecks, config.GenericConfig.LivezChecks, config.GenericConfig.ReadyzChecks = nil, nil, nil
	config.GenericConfig.BuildHandlerChainFunc = genericapiserver.DefaultBuildHandlerChain
	server, err := a.Server()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.GenericAPIServer.PrepareRun().RunWithContext(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the provider: %v", err)
		}
	})
	return fmt.Sprintf("- name: stock\n  url: https://%s\n  ca: {insecureSkipTLSVerify: true}\n  apis: [custom, external]\n", listener.Addr())
}

// TestStockProvider asks a provider that stands on the library that KEDA, kube-metrics-adapter and
// prometheus-adapter stand on: it believes Sluice by its token, has the cluster say what that may
// read, and its answers pass as they are.
func TestStockProvider(t *testing.T) {
	at := time.Now().Add(-time.Minute).Truncate(time.Second)
	cluster := &reviewed{}
	file := startStock(t, cluster, at)
	s := start(t, file+"  match: [{rest: true}]", func(o *delegate.Options) {
		o.Token = func(context.Context) (string, time.Time, error) {
			return "sluice-delegate", time.Now().Add(time.Hour), nil
		}
	})
	s.until(t, "discovery", func() bool { return len(s.ListAllMetrics()) == 1 && len(s.ListAllExternalMetrics()) == 1 })
	pods := metricsapi.CustomMetricInfo{GroupResource: schema.GroupResource{Resource: "pods"}, Namespaced: true, Metric: "rps"}
	list, err := s.GetMetricBySelector(t.Context(), "shop", parsed(t, "app=web"), pods, parsed(t, "backend in (green,blue)"))
	if err != nil || len(list.Items) != 2 {
		t.Fatalf("many are %+v, %v", list, err)
	}
	one, err := s.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: "web-1"}, pods, labels.Everything())
	if err != nil || one.Value.String() != "1500m" || *one.WindowSeconds != 30 || !one.Timestamp.Time.Equal(at) || one.DescribedObject.Name != "web-1" || one.Metric.Name != "rps" {
		t.Errorf("one is %+v, %v", one, err)
	}
	for _, name := range []string{"s0-prometheus", "datadogmetric@prod:api-rps", "a|b c%d"} {
		v, err := s.GetExternalMetric(t.Context(), "shop", parsed(t, "scaledobject.keda.sh/name=web"), metricsapi.ExternalMetricInfo{Metric: name})
		if err != nil || v.Items[0].MetricName != name || v.Items[0].Value.String() != "12345678901234567890" || v.Items[0].MetricLabels["namespace"] != "shop" {
			t.Errorf("%s is %+v, %v", name, v, err)
		}
	}
	_, err = s.GetExternalMetric(t.Context(), "shop", labels.Everything(), metricsapi.ExternalMetricInfo{Metric: "s0-prometheus"})
	if !apierrors.IsInternalError(err) && (err == nil || !strings.Contains(err.Error(), "scaledObject name is not specified")) {
		t.Errorf("its own error is %v", err)
	}
	cluster.mu.Lock()
	asked := fmt.Sprintf("%+v", cluster.asked)
	cluster.mu.Unlock()
	for _, want := range []string{"Namespace:shop Verb:list Group:external.metrics.k8s.io Version:v1beta1 Resource:datadogmetric@prod:api-rps", "Group:custom.metrics.k8s.io Version:v1beta2 Resource:pods Subresource:rps Name:web-1"} {
		if !strings.Contains(asked, want) {
			t.Errorf("it had reviewed %s, want %s", asked, want)
		}
	}
	for name, code := range map[string]int32{"nobody": http.StatusUnauthorized, "somebody": http.StatusForbidden} {
		other := start(t, file+"  match: [{rest: true}]", func(o *delegate.Options) {
			o.Token = func(context.Context) (string, time.Time, error) { return name, time.Now().Add(time.Hour), nil }
		})
		_, err := other.GetExternalMetric(t.Context(), "shop", parsed(t, "scaledobject.keda.sh/name=web"), metricsapi.ExternalMetricInfo{Metric: "s0-prometheus"})
		if e, ok := errors.AsType[*apierrors.StatusError](err); !ok || e.ErrStatus.Code != code || !strings.Contains(err.Error(), "Sluice's own identity") {
			t.Errorf("as %s: %v", name, err)
		}
	}
}
