package mapping_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/rules/mapping"
)

func TestResolve(t *testing.T) {
	all := mapping.Kubernetes()
	for _, word := range mapping.Sets() {
		more, err := mapping.Custom(word)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, more...)
	}
	m := mapping.New(all)
	for _, c := range []struct {
		group, resource, want, kind string
		scope                       meta.RESTScopeName
	}{
		{"", "pod", "pods", "Pod", meta.RESTScopeNameNamespace},
		{"", "pods", "pods", "Pod", meta.RESTScopeNameNamespace},
		{"", "namespace", "namespaces", "Namespace", meta.RESTScopeNameRoot},
		{"", "ingress", "ingresses.networking.k8s.io", "Ingress", meta.RESTScopeNameNamespace},
		{"networking", "ingress", "ingresses.networking.k8s.io", "Ingress", meta.RESTScopeNameNamespace},
		{"", "networkpolicy", "networkpolicies.networking.k8s.io", "NetworkPolicy", meta.RESTScopeNameNamespace},
		{"", "service", "services", "Service", meta.RESTScopeNameNamespace},
		{"serving.knative.dev", "service", "services.serving.knative.dev", "Service", meta.RESTScopeNameNamespace},
		{"", "endpoints", "endpoints", "Endpoints", meta.RESTScopeNameNamespace},
		{"", "event", "events", "Event", meta.RESTScopeNameNamespace},
		{"", "storageclass", "storageclasses.storage.k8s.io", "StorageClass", meta.RESTScopeNameRoot},
		{"", "horizontalpodautoscaler", "horizontalpodautoscalers.autoscaling", "HorizontalPodAutoscaler", meta.RESTScopeNameNamespace},
		{"", "tenant", "tenants.tenancy.example.org", "Tenant", meta.RESTScopeNameRoot},
		{"", "gateway", "gateways.gateway.networking.k8s.io", "Gateway", meta.RESTScopeNameNamespace},
	} {
		gvr, err := m.ResourceFor(schema.GroupVersionResource{Group: c.group, Resource: c.resource})
		if err != nil {
			t.Errorf("ResourceFor(%s.%s): %v", c.resource, c.group, err)
			continue
		}
		gvk, err := m.KindFor(gvr)
		if err != nil {
			t.Fatal(err)
		}
		to, err := m.RESTMapping(gvk.GroupKind(), gvk.Version)
		if err != nil {
			t.Fatal(err)
		}
		if got := gvr.GroupResource().String(); got != c.want || gvk.Kind != c.kind || to.Scope.Name() != c.scope {
			t.Errorf("%s.%s is %s, %s, %s; want %s, %s, %s", c.resource, c.group, got, gvk.Kind, to.Scope.Name(), c.want, c.kind, c.scope)
		}
	}
	for _, name := range []string{"endpoint", "container", "queue"} {
		if got, err := m.ResourceFor(schema.GroupVersionResource{Resource: name}); err == nil {
			t.Errorf("ResourceFor(%s) = %v, want none", name, got)
		}
	}
	_, err := m.ResourceFor(schema.GroupVersionResource{Group: "sqs.aws", Resource: "queue"})
	if err == nil || err.Error() != "no matches for sqs.aws/, Resource=queue" {
		t.Errorf("the error is %v", err)
	}
}
