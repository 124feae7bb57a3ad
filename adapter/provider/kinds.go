package provider

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/wire"
)

const (
	portName = wire.MetricsPortName
	remedy   = "add the Sluice sidecar to the pod template"
)

// kind is a resource that has metrics. There is no mapper from discovery behind it: these kinds are in every cluster, and
// discovery would have to wait for this very API.
type kind struct {
	resource schema.GroupResource
	version  schema.GroupVersion
	kind     string
	// key is the external metrics' label that names an object of it, "" where there is none.
	key string
}

// The resources that have metrics; never written.
//
//nolint:gochecknoglobals // a struct cannot be a constant
var (
	pods         = schema.GroupResource{Resource: "pods"}
	services     = schema.GroupResource{Resource: "services"}
	deployments  = schema.GroupResource{Group: appsv1.GroupName, Resource: "deployments"}
	statefulsets = schema.GroupResource{Group: appsv1.GroupName, Resource: "statefulsets"}
	replicasets  = schema.GroupResource{Group: appsv1.GroupName, Resource: "replicasets"}
)

func kinds() []kind {
	return []kind{
		{pods, corev1.SchemeGroupVersion, "Pod", ""},
		{services, corev1.SchemeGroupVersion, "Service", "service"},
		{deployments, appsv1.SchemeGroupVersion, "Deployment", "deployment"},
		{statefulsets, appsv1.SchemeGroupVersion, "StatefulSet", "statefulset"},
		{replicasets, appsv1.SchemeGroupVersion, "ReplicaSet", ""},
	}
}

func kindOf(r schema.GroupResource) (kind, bool) {
	for _, k := range kinds() {
		if k.resource == r {
			return k, true
		}
	}
	return kind{}, false
}

func resourceNames() []string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.resource.String())
	}
	return names
}
