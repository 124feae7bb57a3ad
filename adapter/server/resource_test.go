package server_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned"
	metricsapi "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/sluice-autoscaler/sluice/adapter/server"
)

// usage has one pod and one node.
type usage struct{}

func (usage) figures() corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m"), corev1.ResourceMemory: resource.MustParse("64Mi")}
}

func (u usage) PodMetrics(_ context.Context, namespace string, selector labels.Selector) ([]metricsv1beta1.PodMetrics, error) {
	if namespace == "broken" {
		return nil, apierrors.NewServiceUnavailable("not known now")
	}
	if !selector.Matches(labels.Set{"app": "web"}) {
		return nil, nil
	}
	return []metricsv1beta1.PodMetrics{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-1"}, Containers: []metricsv1beta1.ContainerMetrics{{Name: "app", Usage: u.figures()}},
	}}, nil
}

func (u usage) PodMetric(ctx context.Context, namespace, name string) (*metricsv1beta1.PodMetrics, error) {
	all, err := u.PodMetrics(ctx, namespace, labels.Everything())
	if err != nil || name != "web-1" {
		return nil, apierrors.NewNotFound(schema.GroupResource{Group: "metrics.k8s.io", Resource: "pods"}, name)
	}
	return &all[0], nil
}

func (u usage) NodeMetrics(context.Context, labels.Selector) ([]metricsv1beta1.NodeMetrics, error) {
	return []metricsv1beta1.NodeMetrics{{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Usage: u.figures()}}, nil
}

func (u usage) NodeMetric(context.Context, string) (*metricsv1beta1.NodeMetrics, error) {
	return &metricsv1beta1.NodeMetrics{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Usage: u.figures()}, nil
}

// TestResource reads metrics.k8s.io with the client that HorizontalPodAutoscalers have, as JSON and
// as protobuf.
func TestResource(t *testing.T) {
	w := start(t, func(o *server.Options) { o.Resource = usage{} })
	for _, accept := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		config := *w.serving
		config.AcceptContentTypes, config.ContentType = accept, accept
		client, err := metricsclient.NewForConfig(&config)
		if err != nil {
			t.Fatal(err)
		}
		api := client.MetricsV1beta1()
		for _, namespace := range []string{"shop", ""} {
			pods, err := api.PodMetricses(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
			if err != nil || len(pods.Items) != 1 || pods.Items[0].Containers[0].Usage.Memory().String() != "64Mi" {
				t.Errorf("%s: the pods of %q are %+v, %v", accept, namespace, pods, err)
			}
		}
		if pods, err := api.PodMetricses("shop").List(t.Context(), metav1.ListOptions{LabelSelector: "app=other"}); err != nil || len(pods.Items) != 0 {
			t.Errorf("%s: other pods are %+v, %v", accept, pods, err)
		}
		if pod, err := api.PodMetricses("shop").Get(t.Context(), "web-1", metav1.GetOptions{}); err != nil || pod.Name != "web-1" {
			t.Errorf("%s: the pod is %+v, %v", accept, pod, err)
		}
		if _, err := api.PodMetricses("shop").Get(t.Context(), "none", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("%s: a pod that is not there: %v", accept, err)
		}
		if _, err := api.PodMetricses("broken").List(t.Context(), metav1.ListOptions{}); !apierrors.IsServiceUnavailable(err) {
			t.Errorf("%s: what is not known: %v", accept, err)
		}
		if nodes, err := api.NodeMetricses().List(t.Context(), metav1.ListOptions{}); err != nil || len(nodes.Items) != 1 || nodes.Items[0].Usage.Cpu().String() != "250m" {
			t.Errorf("%s: the nodes are %+v, %v", accept, nodes, err)
		}
		if node, err := api.NodeMetricses().Get(t.Context(), "n1", metav1.GetOptions{}); err != nil || node.Name != "n1" {
			t.Errorf("%s: the node is %+v, %v", accept, node, err)
		}
	}
	viewer := http.Header{"Authorization": {"Bearer viewer"}}
	for path, want := range map[string]int{
		"/pods?labelSelector=((": 400, "/namespaces/shop/pods/web-1/log": 404, "/services": 404, "": 200,
	} {
		if code, body := w.get(t, w.plain, "/apis/metrics.k8s.io/v1beta1"+path, viewer); code != want {
			t.Errorf("GET %s = %d %s, want %d", path, code, body, want)
		}
	}
	if code, _ := w.get(t, w.plain, "/apis/metrics.k8s.io/v1beta1/nodes", nil); code != http.StatusForbidden {
		t.Errorf("nobody gets %d, want 403", code)
	}
}

// TestExplain asks for an explanation of a metric, which is a right of its own.
func TestExplain(t *testing.T) {
	w := start(t, func(o *server.Options) {
		o.Explain = func(_ context.Context, q server.MetricQuestion) (any, error) {
			return map[string]string{"said": fmt.Sprintf("%s %s/%s %s %s", q.Resource, q.Namespace, q.Object, q.Metric, q.Selector)}, nil
		}
	})
	const root = "/apis/explain.sluice.dev/v1alpha1/namespaces/shop/"
	viewer := http.Header{"Authorization": {"Bearer viewer"}}
	for path, want := range map[string]string{
		"metrics/jobs?resource=pods&object=web-1&selector=code%3D200": `{"said":"pods shop/web-1 jobs code=200"}`,
		"metrics/jobs":             `{"said":" shop/ jobs "}`,
		"metrics/jobs?selector=((": "want a label selector",
		"metrics":                  "there is namespaces/NAMESPACE/metrics/NAME",
		"autoscalers/web/journal":  `"of"`,
		"metrics/jobs/journal":     "there is namespaces/NAMESPACE/metrics/NAME",
	} {
		if code, body := w.get(t, w.plain, root+path, viewer); !strings.Contains(body, want) {
			t.Errorf("GET %s = %d %s, want %s", path, code, body, want)
		}
	}
	if code, _ := w.get(t, w.plain, root+"metrics/jobs", nil); code != http.StatusForbidden {
		t.Errorf("nobody gets %d, want 403", code)
	}
	if got := w.reviews.of("system:anonymous"); len(got) != 1 || got[0].Resource != "metrics" || got[0].Name != "jobs" || got[0].Verb != "get" {
		t.Errorf("the cluster was asked %+v", got)
	}
}

// names is a provider whose list of metrics grows.
type names struct {
	metricsapi.MetricsProvider
	mu  sync.Mutex
	all []metricsapi.CustomMetricInfo
}

func (n *names) ListAllMetrics() []metricsapi.CustomMetricInfo {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.all
}

// TestChanges: a metric that comes later is in both discovery documents.
func TestChanges(t *testing.T) {
	changes := make(chan struct{}, 1)
	n := &names{}
	w := start(t, func(o *server.Options) { o.Custom, o.External, o.Changes = n, nil, changes })
	viewer := http.Header{"Authorization": {"Bearer viewer"}}
	aggregated := http.Header{"Authorization": {"Bearer viewer"}, "Accept": {"application/json;v=v2;g=apidiscovery.k8s.io;as=APIGroupDiscoveryList"}}
	if _, body := w.get(t, w.plain, "/apis", aggregated); strings.Contains(body, "pods/jobs") {
		t.Fatalf("it is there before: %s", body)
	}
	n.mu.Lock()
	n.all = []metricsapi.CustomMetricInfo{{GroupResource: schema.GroupResource{Resource: "pods"}, Namespaced: true, Metric: "jobs"}}
	n.mu.Unlock()
	changes <- struct{}{}
	w.until(t, "in the aggregated document", func() bool {
		_, body := w.get(t, w.plain, "/apis", aggregated)
		return strings.Contains(body, `"jobs"`) || strings.Contains(body, "pods/jobs")
	})
	if _, body := w.get(t, w.plain, "/apis/custom.metrics.k8s.io/v1beta2", viewer); !strings.Contains(body, "pods/jobs") {
		t.Errorf("the group's own document is %s", body)
	}
}
