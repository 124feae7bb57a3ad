package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	fakediscovery "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sluice-autoscaler/sluice/adapter/fetch/cluster"
)

func object(kind, namespace, name string, set map[string]string) *metav1.PartialObjectMetadata {
	o := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: set}}
	o.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: kind})
	return o
}

// Pods come from the informer; other objects are listed at the API server, once for a while.
func TestObjects(t *testing.T) {
	t.Parallel()
	web := map[string]string{"app": "web"}
	factory := informers.NewSharedInformerFactory(fake.NewClientset(
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "b", Labels: web}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "a", Labels: web}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "c", Labels: web}},
	), 0)
	pods := factory.Core().V1().Pods().Informer()
	scheme := runtime.NewScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	client := metadatafake.NewSimpleMetadataClient(scheme, object("Service", "shop", "web", web), object("Service", "shop", "db", nil))
	lists := 0
	client.PrependReactor("list", "services", func(clienttesting.Action) (bool, runtime.Object, error) {
		lists++
		return false, nil, nil
	})
	o := cluster.NewObjects(pods, client)
	of, selector := corev1.SchemeGroupVersion.WithResource, labels.SelectorFromSet(web)
	if _, err := o.Names(t.Context(), of("pods"), "shop", selector); err == nil {
		t.Error("pods that are not listed yet are an answer")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer factory.Shutdown()
	defer cancel()
	factory.StartWithContext(ctx)
	factory.WaitForCacheSyncWithContext(ctx)
	if got, err := o.Names(ctx, of("pods"), "shop", selector); err != nil || !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("the pods are %v, %v", got, err)
	}
	if got, err := o.Pods(selector); err != nil || len(got) != 2 || !slices.Equal(got["shop"], []string{"a", "b"}) || !slices.Equal(got["other"], []string{"c"}) {
		t.Errorf("all pods are %v, %v", got, err)
	}
	for range 3 {
		if got, err := o.Names(ctx, of("services"), "shop", selector); err != nil || !slices.Equal(got, []string{"web"}) {
			t.Errorf("the services are %v, %v", got, err)
		}
	}
	if lists != 1 {
		t.Errorf("services were listed %d times, want once", lists)
	}
	client.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("forbidden") })
	if got, err := o.Names(ctx, of("nodes"), "", selector); err == nil {
		t.Errorf("nodes that may not be listed are %v", got)
	}
}

// The index finds the pods that a look at each finds, whatever the selector.
func TestPodsOfSelectors(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(14, 1))
	word := func() string { return []string{"a", "b", "c"}[random.IntN(3)] }
	var all []runtime.Object
	for i := range 60 {
		set := map[string]string{}
		for range random.IntN(3) {
			set[word()] = word()
		}
		all = append(all, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: word(), Name: fmt.Sprintf("p%02d", i), Labels: set}})
	}
	factory := informers.NewSharedInformerFactory(fake.NewClientset(all...), 0)
	o := cluster.NewObjects(factory.Core().V1().Pods().Informer(), nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer factory.Shutdown()
	defer cancel()
	factory.StartWithContext(ctx)
	factory.WaitForCacheSyncWithContext(ctx)
	found := 0
	for range 500 {
		var terms []string
		for range random.IntN(3) {
			k, v := word(), word()
			terms = append(terms, []string{k + "=" + v, k + "!=" + v, k + " in (" + v + ")", k + " in (a," + v + ")", k + " notin (" + v + ")", k, "!" + k}[random.IntN(7)])
		}
		text := strings.Join(terms, ",")
		selector, err := labels.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		namespace := word()
		got, err := o.Names(ctx, corev1.SchemeGroupVersion.WithResource("pods"), namespace, selector)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, p := range all {
			if p := p.(*corev1.Pod); p.Namespace == namespace && selector.Matches(labels.Set(p.Labels)) {
				want = append(want, p.Name)
			}
		}
		found += len(want)
		if !slices.Equal(got, want) {
			t.Errorf("%q selects %v in %s, want %v", text, got, namespace, want)
		}
	}
	if found == 0 {
		t.Error("no selector selected anything")
	}
}

// The mapping follows what the cluster has, without the metrics APIs' own resources.
func TestMapper(t *testing.T) {
	t.Parallel()
	client := &fakediscovery.FakeDiscovery{Fake: &clienttesting.Fake{}}
	core := &metav1.APIResourceList{GroupVersion: "v1", APIResources: []metav1.APIResource{{Name: "pods", SingularName: "pod", Kind: "Pod", Namespaced: true}}}
	metrics := &metav1.APIResourceList{GroupVersion: "external.metrics.k8s.io/v1beta1", APIResources: []metav1.APIResource{{Name: "queues", Kind: "ExternalMetricValueList", Namespaced: true}}}
	client.Resources = []*metav1.APIResourceList{core, metrics}
	m := cluster.NewMapper(client)
	if m.Get() != nil {
		t.Error("something is known at first")
	}
	if changed, err := m.Refresh(); err != nil || !changed {
		t.Fatalf("Refresh = %v, %v", changed, err)
	}
	if got, err := m.Get().ResourceFor(schema.GroupVersionResource{Resource: "pod"}); err != nil || got.Resource != "pods" {
		t.Errorf("pod is %v, %v", got, err)
	}
	if got, err := m.Get().ResourceFor(schema.GroupVersionResource{Resource: "queues"}); err == nil {
		t.Errorf("an external metric is the resource %v", got)
	}
	if changed, err := m.Refresh(); err != nil || changed {
		t.Errorf("Refresh without a change = %v, %v", changed, err)
	}
	client.Resources = append(client.Resources, &metav1.APIResourceList{
		GroupVersion: "sqs.aws/v1", APIResources: []metav1.APIResource{{Name: "queues", SingularName: "queue", Kind: "Queue", Namespaced: true}},
	})
	if changed, err := m.Refresh(); err != nil || !changed {
		t.Errorf("Refresh with a CRD = %v, %v", changed, err)
	}
	if got, err := m.Get().ResourceFor(schema.GroupVersionResource{Group: "sqs.aws", Resource: "queue"}); err != nil || got.Resource != "queues" {
		t.Errorf("queue is %v, %v", got, err)
	}
}
