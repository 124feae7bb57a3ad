// Package mapping is a REST mapping without a cluster: the resources of Kubernetes 1.37 and custom
// ones. Rules are tested and checked with it. In a cluster the API server's own mapping takes its
// place; both are a meta.RESTMapper, and resolve names alike.
package mapping

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Resource is a kind of object.
type Resource struct {
	Group, Version string
	// Name and Singular are the plural and the singular in URLs and labels.
	Name, Singular string
	Kind           string
	// Root says that its objects are in no namespace.
	Root bool
}

// row is a line of the table: kinds of one group version. A kind ends in "!" where its objects are
// in no namespace, and names its plural after a colon where that is not the rule.
type row struct{ group, version, kinds string }

// kubernetes is what an API server of Kubernetes 1.37 has, in the order of its discovery.
var kubernetes = []row{ //nolint:gochecknoglobals // a constant table
	{"", "v1", "Binding ComponentStatus! ConfigMap Endpoints:endpoints Event LimitRange Namespace! Node! PersistentVolume! PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount"},
	{"apiregistration.k8s.io", "v1", "APIService!"},
	{"apps", "v1", "ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet"},
	{"events.k8s.io", "v1", "Event"},
	{"authentication.k8s.io", "v1", "SelfSubjectReview! TokenReview!"},
	{"authorization.k8s.io", "v1", "LocalSubjectAccessReview SelfSubjectAccessReview! SelfSubjectRulesReview! SubjectAccessReview!"},
	{"autoscaling", "v2", "HorizontalPodAutoscaler"},
	{"batch", "v1", "CronJob Job"},
	{"certificates.k8s.io", "v1", "CertificateSigningRequest!"},
	{"networking.k8s.io", "v1", "Ingress IngressClass! IPAddress! NetworkPolicy ServiceCIDR!"},
	{"policy", "v1", "PodDisruptionBudget"},
	{"rbac.authorization.k8s.io", "v1", "ClusterRole! ClusterRoleBinding! Role RoleBinding"},
	{"storage.k8s.io", "v1", "CSIDriver! CSINode! CSIStorageCapacity:csistoragecapacities StorageClass! VolumeAttachment! VolumeAttributesClass!"},
	{"admissionregistration.k8s.io", "v1", "MutatingAdmissionPolicy! MutatingAdmissionPolicyBinding! MutatingWebhookConfiguration! ValidatingAdmissionPolicy! ValidatingAdmissionPolicyBinding! ValidatingWebhookConfiguration!"},
	{"apiextensions.k8s.io", "v1", "CustomResourceDefinition!"},
	{"scheduling.k8s.io", "v1", "PriorityClass!"},
	{"coordination.k8s.io", "v1", "Lease"},
	{"node.k8s.io", "v1", "RuntimeClass!"},
	{"discovery.k8s.io", "v1", "EndpointSlice"},
	{"flowcontrol.apiserver.k8s.io", "v1", "FlowSchema! PriorityLevelConfiguration!"},
	{"resource.k8s.io", "v1", "DeviceClass! ResourceClaim ResourceClaimTemplate ResourceSlice!"},
}

// sets are custom resources that test files name by a word.
var sets = map[string][]row{ //nolint:gochecknoglobals // a constant table
	"tenants": {{"tenancy.example.org", "v1", "Tenant!"}},
	"knative": {{"serving.knative.dev", "v1", "Configuration Revision Route Service"}},
	// Gateway is not by the rule: its plural is gateways.
	"httproutes":  {{"gateway.networking.k8s.io", "v1", "Gateway:gateways HTTPRoute"}},
	"istioconfig": {{"config.istio.io", "v1alpha2", "Instance:instances"}},
}

// Sets lists the words that Custom knows.
func Sets() []string { return slices.Sorted(maps.Keys(sets)) }

// Kubernetes lists the resources of Kubernetes 1.37.
func Kubernetes() []Resource { return resources(kubernetes) }

// Custom lists the custom resources that a word stands for.
func Custom(word string) ([]Resource, error) {
	rows, ok := sets[word]
	if !ok {
		return nil, fmt.Errorf("extraResources: %q is unknown; known are %s, or a resource with group, version, resource, singular, kind and namespaced",
			word, strings.Join(Sets(), ", "))
	}
	return resources(rows), nil
}

func resources(rows []row) []Resource {
	var all []Resource
	for _, r := range rows {
		for kind := range strings.FieldsSeq(r.kinds) {
			kind, root := strings.CutSuffix(kind, "!")
			kind, plural, irregular := strings.Cut(kind, ":")
			singular := strings.ToLower(kind)
			if !irregular {
				plural = pluralOf(singular)
			}
			all = append(all, Resource{Group: r.group, Version: r.version, Name: plural, Singular: singular, Kind: kind, Root: root})
		}
	}
	return all
}

// pluralOf makes a plural as Kubernetes names its own resources.
func pluralOf(singular string) string {
	switch {
	case strings.HasSuffix(singular, "s"):
		return singular + "es"
	case strings.HasSuffix(singular, "y") && !strings.HasSuffix(singular, "ey"):
		return strings.TrimSuffix(singular, "y") + "ies"
	}
	return singular + "s"
}

// Validate names every fault of a resource.
func (r Resource) Validate() error {
	var errs []error
	for _, f := range []struct{ name, value string }{{"version", r.Version}, {"resource", r.Name}, {"kind", r.Kind}} {
		if f.value == "" {
			errs = append(errs, fmt.Errorf("%s is missing", f.name))
		}
	}
	return errors.Join(errs...)
}

// New makes the mapping of resources. Of several groups with a resource of one name the first in
// the list is preferred, as in the API server's discovery.
func New(all []Resource) meta.RESTMapper {
	var groups []schema.GroupVersion
	mappers := map[schema.GroupVersion]*meta.DefaultRESTMapper{}
	for _, r := range all {
		gv := schema.GroupVersion{Group: r.Group, Version: r.Version}
		m, ok := mappers[gv]
		if !ok {
			m = meta.NewDefaultRESTMapper([]schema.GroupVersion{gv})
			mappers[gv] = m
			groups = append(groups, gv)
		}
		scope := meta.RESTScopeNamespace
		if r.Root {
			scope = meta.RESTScopeRoot
		}
		singular := r.Singular
		if singular == "" {
			singular = strings.ToLower(r.Kind)
		}
		m.AddSpecific(gv.WithKind(r.Kind), gv.WithResource(r.Name), gv.WithResource(singular), scope)
	}
	var multi meta.MultiRESTMapper
	p := meta.PriorityRESTMapper{}
	for _, gv := range groups {
		multi = append(multi, mappers[gv])
		p.ResourcePriority = append(p.ResourcePriority, gv.WithResource(meta.AnyResource))
		p.KindPriority = append(p.KindPriority, gv.WithKind(meta.AnyKind))
	}
	for _, gv := range groups {
		p.ResourcePriority = append(p.ResourcePriority, schema.GroupVersionResource{Group: gv.Group, Version: meta.AnyVersion, Resource: meta.AnyResource})
		p.KindPriority = append(p.KindPriority, schema.GroupVersionKind{Group: gv.Group, Version: meta.AnyVersion, Kind: meta.AnyKind})
	}
	p.Delegate = multi
	return p
}
