package provider_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/sluice-autoscaler/sluice/adapter/provider"
	"github.com/sluice-autoscaler/sluice/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func meta(name string, owners ...metav1.OwnerReference) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{"of": name}, OwnerReferences: owners, Annotations: map[string]string{"long": "dropped"}}
}

func template(app string, measured bool) corev1.PodTemplateSpec {
	t := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app, "tier": "front"}}}
	t.Spec.Containers = []corev1.Container{{Name: "app", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}
	if measured { // a native sidecar is an init container
		t.Spec.InitContainers = []corev1.Container{{Name: "sluice", Ports: []corev1.ContainerPort{{Name: wire.MetricsPortName, ContainerPort: 9090}}}}
	}
	return t
}

func selector(app string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
}

func service(name string, sel map[string]string) *corev1.Service {
	return &corev1.Service{ObjectMeta: meta(name), Spec: corev1.ServiceSpec{Selector: sel}}
}

func deployment(name, app string, replicas int32, measured bool) *appsv1.Deployment {
	return &appsv1.Deployment{ObjectMeta: meta(name), Spec: appsv1.DeploymentSpec{Replicas: &replicas, Selector: selector(app), Template: template(app, measured)}}
}

func cluster() []runtime.Object {
	yes := true
	owner := metav1.OwnerReference{Kind: "Deployment", Name: "web", Controller: &yes}
	elsewhere := service("web-far", map[string]string{"app": "web"})
	elsewhere.Namespace = "other"
	return []runtime.Object{
		service("web", map[string]string{"app": "web"}),
		service("web-all", map[string]string{"tier": "front"}),
		service("half", map[string]string{"app": "half"}),
		service("off", map[string]string{"app": "off"}),
		service("bare", map[string]string{"app": "bare"}),
		service("external", nil),
		service("loose", map[string]string{"app": "loose"}),
		elsewhere,
		deployment("web", "web", 1, true),
		deployment("half-old", "half", 0, false),
		deployment("half-new", "half", 1, true),
		deployment("off", "off", 0, false),
		deployment("bare", "bare", 2, false),
		&appsv1.ReplicaSet{ObjectMeta: meta("web-old", owner), Spec: appsv1.ReplicaSetSpec{Selector: selector("web"), Template: template("web", false)}},
		&appsv1.StatefulSet{ObjectMeta: meta("db"), Spec: appsv1.StatefulSetSpec{
			Selector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "In", Values: []string{"db"}}}}, Template: template("db", true),
		}},
	}
}

func TestInformers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, err := provider.NewInformers(fake.NewClientset(cluster()...), slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := i.Ready(); err == nil || !strings.Contains(err.Error(), "services, deployments.apps, statefulsets.apps, replicasets.apps") {
			t.Errorf("before Run: %v, want what is missing", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- i.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		for range 100 {
			if i.Ready() == nil {
				break
			}
			synctest.Wait()
		}
		if err := i.Ready(); err != nil {
			t.Fatal(err)
		}

		statefulsets := schema.GroupResource{Group: "apps", Resource: "statefulsets"}
		replicasets := schema.GroupResource{Group: "apps", Resource: "replicasets"}
		for _, c := range []struct {
			resource schema.GroupResource
			name     string
			pods     string
			services []string
			fault    string
			untyped  bool
		}{
			{resource: deployments, name: "web", pods: "app=web", services: []string{"web", "web-all"}},
			{resource: statefulsets, name: "db", pods: "app in (db)", services: []string{"web-all"}},
			{resource: deployments, name: "bare", services: []string{"bare", "web-all"}, fault: "no container port named sluice-metrics; add the Sluice sidecar"},
			{resource: replicasets, name: "web-old", services: []string{"web", "web-all"}, fault: "no container port"},
			{resource: services, name: "web", pods: "app=web", services: []string{"web"}},
			// what lacks the sidecar has no pods
			{resource: services, name: "half", pods: "app=half", services: []string{"half"}},
			{resource: services, name: "off", pods: "app=off", services: []string{"off"}, fault: "deployments off"},
			{resource: services, name: "bare", pods: "app=bare", services: []string{"bare"}, fault: "deployments bare"},
			{resource: services, name: "web-all", pods: "tier=front", services: []string{"web-all"}, fault: "deployments bare"},
			{resource: services, name: "external", services: []string{"external"}, fault: "no spec.selector", untyped: true},
			{resource: services, name: "loose", pods: "app=loose", services: []string{"loose"}, untyped: true},
		} {
			got, ok, err := i.Get(c.resource, "shop", c.name)
			if err != nil || !ok {
				t.Errorf("Get(%s %s) = %v, %v", c.resource, c.name, ok, err)
				continue
			}
			if c.fault == "" && got.Fault != "" || !strings.Contains(got.Fault, c.fault) {
				t.Errorf("%s %s: fault %q, want %q", c.resource, c.name, got.Fault, c.fault)
			}
			if c.pods != "" && (got.Pods == nil || got.Pods.String() != c.pods) {
				t.Errorf("%s %s: pods %v, want %s", c.resource, c.name, got.Pods, c.pods)
			}
			if d := cmp.Diff(c.services, got.Services); d != "" || got.Untyped != c.untyped || got.Name != c.name {
				t.Errorf("%s %s: got %+v (services -want +got: %s)", c.resource, c.name, got, d)
			}
		}
		if _, ok, err := i.Get(deployments, "other", "web"); ok || err != nil {
			t.Errorf("found web in another namespace (%v)", err)
		}
		list, err := i.List(deployments, "shop", labels.SelectorFromSet(labels.Set{"of": "web"}))
		if err != nil || len(list) != 1 || list[0].Name != "web" {
			t.Errorf("List by the objects' own labels = %+v, %v; want web", list, err)
		}
		list, err = i.List(services, "shop", labels.Everything())
		if err != nil || len(list) != 7 || list[0].Name != "bare" || list[6].Name != "web-all" {
			t.Errorf("List = %+v, %v; want the namespace's 7 by name", list, err)
		}
		if _, _, err := i.Get(schema.GroupResource{Resource: "nodes"}, "shop", "n"); err == nil {
			t.Error("nodes are not watched, and yet no error")
		}
	})
}
