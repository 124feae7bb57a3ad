package fetch_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	kuberuntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	metricsapi "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/sluice-autoscaler/sluice/adapter/fetch"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/cluster"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/source"
	"github.com/sluice-autoscaler/sluice/adapter/rules/mapping"
	"github.com/sluice-autoscaler/sluice/internal/promtest"
)

// BenchmarkRead is a GET of the metric of a workload of ten pods, among ever more workloads of the
// namespace, with ten metrics fetched. heap-MiB is what all of it has in memory.
func BenchmarkRead(b *testing.B) {
	for _, workloads := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("pods=%d", 10*workloads), func(b *testing.B) { benchmarkRead(b, workloads) })
	}
}

func benchmarkRead(b *testing.B, workloads int) {
	const each, names = 10, 10
	var pods []kuberuntime.Object
	var samples []string
	for i := range workloads * each {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("web-%d-%d", i/each, i%each), Labels: map[string]string{"app": fmt.Sprintf("web-%d", i/each)}}}
		pods = append(pods, p)
		samples = append(samples, promtest.Sample(fmt.Sprintf("pod=%q", p.Name), "12.5"))
	}
	body, metrics := promtest.Vector(samples...), make([]string, names)
	for i := range metrics {
		metrics[i] = fmt.Sprintf("jobs_%d", i)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/query":
			_, _ = w.Write([]byte(body))
		case "/api/v1/labels":
			fmt.Fprint(w, `{"status":"success","data":["namespace","pod"]}`)
		default:
			fmt.Fprintf(w, `{"status":"success","data":["%s"]}`, strings.Join(metrics, `","`))
		}
	}))
	defer server.Close()
	factory := informers.NewSharedInformerFactory(fake.NewClientset(pods...), 0)
	o := fetch.Options{
		Config: source.Default(), Rules: filepath.Join(b.TempDir(), "config.yaml"), Mapper: fixed{mapping.New(mapping.Kubernetes())},
		Objects: cluster.NewObjects(factory.Core().V1().Pods().Informer(), nil), Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	}
	o.Config.Sources = []source.Prometheus{{URL: server.URL}}
	rule := "rules:\n- {seriesQuery: '{pod!=\"\"}', resources: {template: <<.Resource>>}, metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'}\n"
	if err := os.WriteFile(o.Rules, []byte(rule), 0o600); err != nil {
		b.Fatal(err)
	}
	e, err := fetch.New(o)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	factory.StartWithContext(ctx)
	factory.WaitForCacheSyncWithContext(ctx)
	go func() { done <- e.Run(ctx) }()
	defer func() {
		cancel()
		factory.Shutdown()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}()
	for deadline := time.Now().Add(20 * time.Second); len(e.ListAllMetrics()) == 0 && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	selector := labels.SelectorFromSet(labels.Set{"app": "web-0"})
	read := func(metric string) {
		list, err := e.GetMetricBySelector(ctx, "shop", selector, metricsapi.CustomMetricInfo{GroupResource: schema.GroupResource{Resource: "pods"}, Namespaced: true, Metric: metric}, labels.Everything())
		if err != nil || len(list.Items) != each {
			b.Fatalf("%d values of %s, %v", len(list.Items), metric, err)
		}
	}
	for _, m := range metrics {
		read(m)
	}
	var heap runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&heap)
	i := 0
	for b.Loop() {
		i++
		read(metrics[i%names])
	}
	b.ReportMetric(float64(heap.HeapAlloc)/(1<<20), "heap-MiB")
}
