package scrape_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	metricsapi "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/sluice-autoscaler/sluice/adapter/provider"
	"github.com/sluice-autoscaler/sluice/adapter/scrape"
	"github.com/sluice-autoscaler/sluice/adapter/scrape/preset"
	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
)

// engine answers like a program that a preset reads.
type engine struct {
	*httptest.Server
	answer atomic.Pointer[http.HandlerFunc]
	reads  atomic.Int64
}

func newEngine(t *testing.T, answer http.HandlerFunc) *engine {
	t.Helper()
	e := &engine{}
	e.answer.Store(&answer)
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.reads.Add(1)
		(*e.answer.Load())(w, r)
	}))
	t.Cleanup(e.Close)
	return e
}

func text(format string, args ...any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprintf(w, format, args...)
	}
}

// annotated is a ready pod without a sidecar, whose app listens at a server.
func annotated(t *testing.T, name, server string, annotations map[string]string) *corev1.Pod {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	now := metav1.NewTime(time.Now().Add(-time.Minute))
	var number int32
	if _, err := fmt.Sscan(u.Port(), &number); err != nil {
		t.Fatal(err)
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: name, UID: types.UID(name), Labels: map[string]string{"app": "web"}, CreationTimestamp: now, Annotations: annotations,
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Ports: []corev1.ContainerPort{{Name: "engine", ContainerPort: number}}}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: u.Hostname(),
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now}},
			ContainerStatuses: []corev1.ContainerStatus{
				{Name: "app", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}},
			},
		},
	}
}

func presets(t *testing.T, file string) *preset.Set {
	t.Helper()
	s, err := preset.New([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// nothing is an Objects without objects.
type nothing struct{}

func (nothing) Get(schema.GroupResource, string, string) (provider.Target, bool, error) {
	return provider.Target{}, false, nil
}

func (nothing) List(schema.GroupResource, string, labels.Selector) ([]provider.Target, error) {
	return nil, nil
}
func (nothing) Ready() error { return nil }

var vllmText = `# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 8.0
vllm:num_requests_waiting{engine="0",model_name="m"} %v
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5
`

// TestPresetEndToEnd goes from an HTTP answer to what HPAs and the scaler read.
func TestPresetEndToEnd(t *testing.T) {
	t.Parallel()
	e := newEngine(t, text(vllmText, 3.0))
	set := presets(t, "")
	port := map[string]string{preset.Annotation: "vllm", preset.PortAnnotation: "engine"}
	c := newClusterWith(t, scrape.Options{Presets: set}, nil, annotated(t, "a", e.URL, port), annotated(t, "b", e.URL, port))

	ref := loop.Ref{Namespace: "ns", Name: "web"}
	c.store.Bind(ref, store.Binding{Namespace: "ns", Selector: labels.SelectorFromSet(labels.Set{"app": "web"})})
	needs := []algorithms.Need{
		{Name: "queue", Window: algorithms.Instant},
		{Name: "queue", Window: 2 * time.Second},
		{Name: algorithms.Concurrency, Window: 2 * time.Second},
		{Name: "kv_cache", Window: 2 * time.Second},
	}
	want := []float64{6, 6, 22, 1}
	var got []algorithms.Signal
	eventually(t, "the scaler's signals", func() bool {
		got = c.store.Signals(time.Now(), ref, needs, nil)
		for i := range got {
			if !got[i].Known || math.Abs(got[i].Value-want[i]) > 1e-6 || got[i].Coverage < 0.5 {
				return false
			}
		}
		return true
	})
	for i := range got {
		if got[i].Source != "vllm (sampled)" || got[i].Age < 0 || got[i].Age > 3*time.Second {
			t.Errorf("signal %s = %+v: want source and age", got[i].Name, got[i])
		}
	}
	if n := c.store.Instances(ref, nil)[0].InFlight; n != 11 {
		t.Errorf("in flight at a pod = %v, want 11", n)
	}

	p, err := provider.New(provider.Options{Metrics: provider.RequestMetrics(c.store, nothing{}, nil, set.Signals()...), DefaultWindow: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	pods := schema.GroupResource{Resource: "pods"}
	eventually(t, "the queue of a pod", func() bool {
		info := metricsapi.CustomMetricInfo{GroupResource: pods, Metric: "queue", Namespaced: true}
		v, err := p.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "ns", Name: "a"}, info, labels.Everything())
		return err == nil && v.Value.MilliValue() == 3000 && v.WindowSeconds != nil && *v.WindowSeconds == 2
	})
	eventually(t, "request_concurrency of both pods", func() bool {
		info := metricsapi.CustomMetricInfo{GroupResource: pods, Metric: "request_concurrency", Namespaced: true}
		list, err := p.GetMetricBySelector(t.Context(), "ns", labels.Everything(), info, labels.Everything())
		return err == nil && len(list.Items) == 2 && list.Items[0].Value.MilliValue() == 11000 && list.Items[1].Value.MilliValue() == 11000
	})

	// What the answer no longer has is unknown, not zero.
	gone := text("vllm:num_requests_running 8\n")
	e.answer.Store(&gone)
	missing := func(signal, words string) func() bool {
		return func() bool {
			v := c.store.Workload(time.Now(), "ns", labels.Everything(), nil, signal, 2*time.Second)
			return !v.Known && strings.Contains(v.Missing, words)
		}
	}
	eventually(t, "a sample that is missing", missing("queue", "no sample of vllm:num_requests_waiting"))
	if c.store.Workload(time.Now(), "ns", labels.Everything(), nil, "nosuch", time.Second).Known {
		t.Error("a signal that no preset gives is known")
	}
	refuse := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	e.answer.Store(&refuse)
	eventually(t, "an answer that is none", missing("kv_cache", "it answers status 401"))
	if n, err := testutil.GatherAndCount(c.reg, "sluice_adapter_preset_reads_total"); err != nil || n < 2 {
		t.Errorf("sluice_adapter_preset_reads_total has %d series, %v: want those of ok and of status", n, err)
	}
}

// TestZalandoPodsJSON is a HorizontalPodAutoscaler of kube-metrics-adapter with json-path
// annotations: the preset says the same.
func TestZalandoPodsJSON(t *testing.T) {
	t.Parallel()
	e := newEngine(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"http_server": {"rps": %d, "path": %q}}`, 1000, r.URL.Path)
	})
	set := presets(t, `
presets:
- name: rps
  selector: app=web
  port: engine
  path: /metrics
  minPodReadyAge: 30s
  signals:
    requests-per-second: {gauge: "$.http_server.rps"}
`)
	young := annotated(t, "young", e.URL, nil)
	young.Status.Conditions[0].LastTransitionTime = metav1.Now()
	none := annotated(t, "none", e.URL, map[string]string{preset.Annotation: ""})
	c := newClusterWith(t, scrape.Options{Presets: set}, nil, annotated(t, "old", e.URL, nil), young, none)
	p, err := provider.New(provider.Options{Metrics: provider.RequestMetrics(c.store, nothing{}, nil, set.Signals()...), DefaultWindow: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	info := metricsapi.CustomMetricInfo{GroupResource: schema.GroupResource{Resource: "pods"}, Metric: "requests-per-second", Namespaced: true}
	eventually(t, "the metric", func() bool {
		list, err := p.GetMetricBySelector(t.Context(), "ns", labels.Everything(), info, labels.Everything())
		return err == nil && len(list.Items) == 1 && list.Items[0].DescribedObject.Name == "old" && list.Items[0].Value.String() == "1k"
	})
	// The young pod does not count, and does not make the sum unknown. That of the pod that wants
	// no preset is not known.
	selector := labels.SelectorFromSet(labels.Set{"app": "web"})
	v := c.store.Workload(time.Now(), "ns", selector, nil, "requests-per-second", 2*time.Second)
	if v.Known || !strings.Contains(v.Missing, "pod none") || strings.Contains(v.Missing, "young") {
		t.Errorf("sum = %+v: want it unknown for pod none alone", v)
	}
}

// TestSidecarWins reads a pod by both: its sidecar gives concurrency, the preset what it has
// besides.
func TestSidecarWins(t *testing.T) {
	t.Parallel()
	side := newSidecar(t, 2)
	e := newEngine(t, text(vllmText, 3.0))
	pod := annotated(t, "a", e.URL, map[string]string{preset.Annotation: "vllm", preset.PortAnnotation: "engine"})
	u, _ := url.Parse(side.URL)
	var number int32
	_, _ = fmt.Sscan(u.Port(), &number)
	pod.Spec.Containers[0].Ports = append(pod.Spec.Containers[0].Ports, corev1.ContainerPort{Name: "sluice-metrics", ContainerPort: number})
	c := newClusterWith(t, scrape.Options{Presets: presets(t, "")}, nil, pod)
	eventually(t, "both", func() bool {
		now := time.Now()
		conc := c.store.Workload(now, "ns", labels.Everything(), nil, algorithms.Concurrency, time.Second)
		queue := c.store.Workload(now, "ns", labels.Everything(), nil, "queue", time.Second)
		return conc.Known && math.Abs(conc.Value-2) < 0.1 && conc.Source == "sidecar" && queue.Known && queue.Value == 3
	})
}

// TestFaultsOfEndpoints says what is wrong with a pod's annotations.
func TestFaultsOfEndpoints(t *testing.T) {
	t.Parallel()
	e := newEngine(t, text("x 1\n"))
	c := newClusterWith(t, scrape.Options{Presets: presets(t, "")}, nil,
		annotated(t, "a", e.URL, map[string]string{preset.Annotation: "vlm"}),
		annotated(t, "b", e.URL, map[string]string{preset.Annotation: "istio", preset.PortAnnotation: "nosuch"}),
		annotated(t, "c", e.URL, map[string]string{preset.Annotation: "istio", preset.PathAnnotation: "no path"}),
		annotated(t, "d", e.URL, map[string]string{preset.Annotation: "triton", preset.PortAnnotation: "engine"}),
		annotated(t, "e", e.URL, nil),
	)
	want := map[string]string{
		"a": "there is no such preset; there are app-gauge",
		"b": "no container port named nosuch",
		"c": "want a path such as /metrics",
		"d": "no sample of nv_inference",
		"e": "annotate it|annotate the pod template",
	}
	for name, words := range want {
		eventually(t, name, func() bool {
			v, ok := c.store.Pod(time.Now(), "ns", name, "queue", time.Second)
			for w := range strings.SplitSeq(words, "|") {
				if ok && !v.Known && strings.Contains(v.Missing, w) {
					return true
				}
			}
			return false
		})
	}
}

// TestIdlePodsAreReadLessOften counts reads of a pod of which nothing changes, then something does.
func TestIdlePodsAreReadLessOften(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, err := scrape.New(scrape.Options{
			Store: store.New(store.Options{Interval: time.Second}), Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
			Interval: time.Second, IdleInterval: 5 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var reads atomic.Int64
		var moved atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Repeat(ctx, func() (bool, error) { reads.Add(1); return moved.Load(), nil })
		}()
		count := func(d time.Duration) int64 {
			before := reads.Load()
			time.Sleep(d)
			synctest.Wait()
			return reads.Load() - before
		}
		if n := count(10 * time.Second); n < 9 || n > 12 {
			t.Errorf("%d reads in the first 10 s, want one each second", n)
		}
		count(10 * time.Second)
		if n := count(50 * time.Second); n < 9 || n > 11 {
			t.Errorf("%d reads of an idle pod in 50 s, want one each 5 s", n)
		}
		moved.Store(true)
		count(6 * time.Second)
		if n := count(10 * time.Second); n < 9 || n > 11 {
			t.Errorf("%d reads in 10 s of a pod that moves, want one each second", n)
		}
		cancel()
		<-done
	})
	for _, idle := range []time.Duration{time.Millisecond, time.Hour} {
		_, err := scrape.New(scrape.Options{
			Store: store.New(store.Options{Interval: time.Second}), Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
			Interval: time.Second, IdleInterval: idle,
		})
		if err == nil || !strings.Contains(err.Error(), "idle interval = ") {
			t.Errorf("New with an idle interval of %v: %v", idle, err)
		}
	}
}

// TestEndpointsAreBounded reads pods that answer slowly, endlessly, or compressed. Endless answers
// take the CPU that other tests need.
func TestEndpointsAreBounded(t *testing.T) {
	endless := newEngine(t, func(w http.ResponseWriter, r *http.Request) {
		line := []byte(strings.Repeat("other 1\n", 8192))
		for r.Context().Err() == nil {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	})
	slow := newEngine(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	zeros := []byte(bomb(t))
	packed := newEngine(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(zeros)
	})
	labelled := newEngine(t, text("vllm:num_requests_waiting{%s} 1\n", manyLabels(10_000)))
	port := map[string]string{preset.Annotation: "vllm", preset.PortAnnotation: "engine"}
	c := newClusterWith(t, scrape.Options{Presets: presets(t, "")}, nil, annotated(t, "endless", endless.URL, port),
		annotated(t, "slow", slow.URL, port), annotated(t, "packed", packed.URL, port), annotated(t, "labelled", labelled.URL, port))
	for name, words := range map[string]string{
		"endless": "larger than 8388608 bytes|no answer in time", "slow": "no answer in time", "packed": "cannot be read", "labelled": "or 128 labels",
	} {
		eventually(t, name, func() bool {
			v, ok := c.store.Pod(time.Now(), "ns", name, "queue", time.Second)
			return ok && !v.Known && slices.ContainsFunc(strings.Split(words, "|"), func(w string) bool { return strings.Contains(v.Missing, w) })
		})
	}
	if n := testutil.CollectAndCount(c.reg, "sluice_adapter_preset_reads_total"); n < 3 {
		t.Errorf("sluice_adapter_preset_reads_total has %d series, want those of too_large, timeout and other", n)
	}
}
