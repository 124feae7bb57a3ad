package provider_test

import (
	"context"
	"log/slog"
	"runtime"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
	metricsapi "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/sluice-autoscaler/sluice/adapter/provider"
	"github.com/sluice-autoscaler/sluice/adapter/scrape/preset"
)

// rules is another source of metrics that has pods/queue alone.
type rules struct{ asked []string }

func (r *rules) ListAllMetrics() []metricsapi.CustomMetricInfo {
	return []metricsapi.CustomMetricInfo{{GroupResource: podResource, Metric: "queue", Namespaced: true}}
}

func (r *rules) ListAllExternalMetrics() []metricsapi.ExternalMetricInfo { return nil }

func (r *rules) GetMetricByName(_ context.Context, n types.NamespacedName, i metricsapi.CustomMetricInfo, _ labels.Selector) (*custom_metrics.MetricValue, error) {
	r.asked = append(r.asked, i.Metric+" of "+n.Name)
	return &custom_metrics.MetricValue{}, nil
}

func (r *rules) GetMetricBySelector(context.Context, string, labels.Selector, metricsapi.CustomMetricInfo, labels.Selector) (*custom_metrics.MetricValueList, error) {
	return nil, nil //nolint:nilnil // not asked
}

func (r *rules) GetExternalMetric(context.Context, string, labels.Selector, metricsapi.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error) {
	return nil, nil //nolint:nilnil // not asked
}

// TestRulesWinOverPresets: a rule of a signal's name is served in its place, of its own resource.
func TestRulesWinOverPresets(t *testing.T) {
	t.Parallel()
	m, s := fixture()
	p, err := provider.New(provider.Options{Metrics: provider.RequestMetrics(m, s, nil, "concurrency", "kv_cache", "queue"), DefaultWindow: 15 * time.Second, Clock: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	more := &rules{}
	u := provider.NewUnion(p, more)
	count := map[string]int{}
	for _, i := range u.ListAllMetrics() {
		count[i.GroupResource.String()+"/"+i.Metric]++
	}
	for name, want := range map[string]int{"pods/queue": 1, "pods/kv_cache": 1, "deployments.apps/queue": 1, "pods/concurrency": 0, "pods/request_concurrency": 1} {
		if count[name] != want {
			t.Errorf("%s is listed %d times, want %d", name, count[name], want)
		}
	}
	if p.Serves(podResource, "queue") || !p.Serves(podResource, provider.Concurrency) {
		t.Error("want request_concurrency reserved, and queue not")
	}
	get := func(r schema.GroupResource, name, metric string) {
		t.Helper()
		info := metricsapi.CustomMetricInfo{GroupResource: r, Metric: metric, Namespaced: true}
		if _, err := u.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: name}, info, labels.Everything()); err != nil {
			t.Errorf("%s of %s: %v", metric, name, err)
		}
	}
	get(podResource, "web-1", "queue")
	get(podResource, "web-1", "kv_cache")
	get(deployments, "web", "queue")
	if len(more.asked) != 1 || more.asked[0] != "queue of web-1" {
		t.Errorf("the rules were asked for %v, want for queue of web-1 alone", more.asked)
	}
}

// TestPresetOfWorkload: the annotation of a Deployment counts for its pods, from when it appears.
func TestPresetOfWorkload(t *testing.T) {
	t.Parallel()
	owner := func(kind, name string) []metav1.OwnerReference {
		return []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: name, Controller: new(true)}}
	}
	meta := func(name string, owners []metav1.OwnerReference) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{"app": "web"}, OwnerReferences: owners}
	}
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}}
	d := &appsv1.Deployment{ObjectMeta: meta("web", nil), Spec: appsv1.DeploymentSpec{Selector: selector, Template: template}}
	rs := &appsv1.ReplicaSet{ObjectMeta: meta("web-1", owner("Deployment", "web")), Spec: appsv1.ReplicaSetSpec{Selector: selector, Template: template}}
	pod := &corev1.Pod{ObjectMeta: meta("web-1-a", owner("ReplicaSet", "web-1"))}
	client := fake.NewClientset(d, rs)
	set, err := preset.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	i, err := provider.NewInformers(client, slog.New(slog.DiscardHandler), set)
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 10)
	if err := i.OnPreset(func(namespace string, pods labels.Selector) { told <- namespace + " " + pods.String() }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	deadline := time.Now().Add(20 * time.Second)
	for i.Ready() != nil && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if name, ok := i.PresetOf(pod); ok {
		t.Errorf("PresetOf = %q before there is an annotation", name)
	}
	if target, _, _ := i.Get(deployments, "shop", "web"); target.Fault == "" {
		t.Error("a Deployment without sidecar and preset has no fault")
	}
	d = d.DeepCopy()
	d.Annotations = map[string]string{preset.Annotation: "vllm"}
	if _, err := client.AppsV1().Deployments("shop").Update(t.Context(), d, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-told:
		if got != "shop app=web" {
			t.Errorf("told of %q, want of the Deployment's pods", got)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("not told of the annotation")
	}
	if name, ok := i.PresetOf(pod); !ok || name != "vllm" {
		t.Errorf("PresetOf = %q, %v, want vllm", name, ok)
	}
	for _, r := range []schema.GroupResource{deployments, {Group: "apps", Resource: "replicasets"}} {
		name := map[string]string{"deployments": "web", "replicasets": "web-1"}[r.Resource]
		if target, ok, _ := i.Get(r, "shop", name); !ok || target.Fault != "" {
			t.Errorf("%s = %+v: want it measured", r, target)
		}
	}
}
