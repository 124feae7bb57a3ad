package provider

import (
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/wire"
)

// Names of the metrics of requests, in both APIs.
const (
	// Concurrency is the mean number of requests in flight at the pods plus held at gateways.
	Concurrency = "request_concurrency"
	// Rate is requests answered per second.
	Rate = "request_rate"
	// Waiting is the mean number of requests held at gateways. Pods have no such metric: what waits
	// is not yet any pod's.
	Waiting = "request_waiting"
)

const (
	portName = wire.MetricsPortName
	remedy   = "add the Sluice sidecar to the pod template, or annotate it with sluice.dev/preset"
)

// The resources that have metrics of requests; never written.
//
//nolint:gochecknoglobals // a struct cannot be a constant
var (
	pods         = schema.GroupResource{Resource: "pods"}
	services     = schema.GroupResource{Resource: "services"}
	deployments  = schema.GroupResource{Group: appsv1.GroupName, Resource: "deployments"}
	statefulsets = schema.GroupResource{Group: appsv1.GroupName, Resource: "statefulsets"}
	replicasets  = schema.GroupResource{Group: appsv1.GroupName, Resource: "replicasets"}
)

// requestKinds are the kinds that have metrics of requests. They are in every cluster.
func requestKinds() []Kind {
	return []Kind{
		{Resource: pods, Version: corev1.SchemeGroupVersion, Kind: "Pod", Namespaced: true},
		{Resource: services, Version: corev1.SchemeGroupVersion, Kind: "Service", Key: "service", Namespaced: true},
		{Resource: deployments, Version: appsv1.SchemeGroupVersion, Kind: "Deployment", Key: "deployment", Namespaced: true},
		{Resource: statefulsets, Version: appsv1.SchemeGroupVersion, Kind: "StatefulSet", Key: "statefulset", Namespaced: true},
		{Resource: replicasets, Version: appsv1.SchemeGroupVersion, Kind: "ReplicaSet", Namespaced: true},
	}
}

// Reader answers with signals from memory. Implementations are safe for concurrent use and do no
// I/O.
type Reader interface {
	// Workload sums a signal (algorithms.Concurrency, Rate, Waiting or a preset's) over the
	// selected pods and what gateways hold for the Services.
	Workload(now time.Time, namespace string, pods labels.Selector, services []string, signal string, window time.Duration) store.Value
	// Pods gives a signal pod by pod, for every selected pod that takes requests. Known is false
	// where it has no value.
	Pods(now time.Time, namespace string, pods labels.Selector, signal string, window time.Duration) []store.PodValue
	// Pod gives a signal of one pod; ok is false when there is no such pod that takes requests.
	Pod(now time.Time, namespace, name, signal string, window time.Duration) (v store.PodValue, ok bool)
	// Ready says why nothing can be answered yet, nil once everything has been read once.
	Ready() error
}

// Target is an object whose pods' demand can be asked for.
type Target struct {
	// Name is the object's name.
	Name string
	// Pods selects its pods; Services are those whose held requests are its demand too.
	Pods     labels.Selector
	Services []string
	// Fault, when not empty, says why it cannot be measured and what to do, in words that follow
	// the object's name.
	Fault string
	// Workload is set for Deployments, StatefulSets and ReplicaSets.
	Workload *TargetWorkload
	// Untyped says that no pod template was found for it, so that only its pods can tell whether
	// they are measured.
	Untyped bool
}

// TargetWorkload is what presets have to know of a workload.
type TargetWorkload struct {
	// Kind is its kind, such as Deployment. Sidecar says that its pods have Sluice's, AtZero that
	// none are wanted.
	Kind            string
	Sidecar, AtZero bool
	// Annotations are those of it that presets read, NamespaceAnnotations those of its namespace.
	Annotations, NamespaceAnnotations map[string]string
}

// Presets answer for workloads without sidecars, whose requests something else counts. They answer
// from memory, and are safe for concurrent use.
type Presets interface {
	// Workload answers a signal; ok is false where the workload has no preset.
	Workload(now time.Time, namespace string, t Target, signal string, window time.Duration) (v store.Value, ok bool)
}

// Objects looks objects up in memory. Implementations are safe for concurrent use and do no I/O.
type Objects interface {
	// Get returns one object; ok is false when there is none of that name. The resource is one of
	// services, deployments.apps, statefulsets.apps and replicasets.apps.
	Get(resource schema.GroupResource, namespace, name string) (t Target, ok bool, err error)
	// List returns the objects of a namespace whose own labels match, ordered by name.
	List(resource schema.GroupResource, namespace string, selector labels.Selector) ([]Target, error)
	// Ready says why lookups cannot be answered yet, nil once they can.
	Ready() error
}

// RequestMetrics are the metrics of requests, of what the adapter reads and, where p is not nil, of
// presets that Prometheus answers. Signals are the others that presets give, under their names.
func RequestMetrics(r Reader, o Objects, p Presets, signals ...string) []Metric {
	source := &requests{reader: r, objects: o, presets: p}
	all := requestKinds()
	out := []Metric{
		{Name: Concurrency, Unit: "requests", Describes: all, External: true, Source: source, Signal: algorithms.Concurrency},
		{Name: Rate, Unit: "requests/s", Describes: all, External: true, Source: source, Signal: algorithms.Rate},
		{
			Name: Waiting, Unit: "requests", Describes: all[1:], External: true, Source: source, Signal: algorithms.Waiting,
			Absent: map[schema.GroupResource]string{pods: fmt.Sprintf("have no metric %s, since requests that wait at a gateway are "+
				"not yet any pod's; ask for that of the Service or the Deployment", Waiting)},
		},
	}
	for _, name := range signals {
		if name == algorithms.Concurrency || name == algorithms.Rate || name == Concurrency || name == Rate || name == Waiting {
			continue
		}
		out = append(out, Metric{Name: name, Unit: "as its preset says", Describes: all, External: true, Yields: true, Source: source, Signal: name})
	}
	return out
}

// requests is the Source of the metrics of requests.
type requests struct {
	reader  Reader
	objects Objects
	presets Presets
}

// Object answers for one object.
func (r *requests) Object(q Query, name string) (store.Value, error) {
	if q.Kind.Resource == pods {
		v, ok := r.reader.Pod(q.Now, q.Namespace, name, q.Metric.Signal, q.Window)
		if !ok {
			return store.Value{}, q.NotFound(name, "there is no such pod that takes requests and has a port named "+portName+" or a preset")
		}
		return v.Value, nil
	}
	t, ok, err := r.objects.Get(q.Kind.Resource, q.Namespace, name)
	if err != nil {
		return store.Value{}, apierrors.NewInternalError(fmt.Errorf("look up %s: %w", q.object(name), err))
	}
	if !ok {
		return store.Value{}, q.NotFound(name, "there is no such object")
	}
	return r.workload(q, t)
}

// Objects answers for each selected object.
func (r *requests) Objects(q Query, selector labels.Selector) ([]ObjectValue, error) {
	var out []ObjectValue
	if q.Kind.Resource == pods {
		for _, v := range r.reader.Pods(q.Now, q.Namespace, selector, q.Metric.Signal, q.Window) {
			out = append(out, ObjectValue{Name: v.Name, Value: v.Value})
		}
		if out == nil {
			return nil, q.NotFound("*", fmt.Sprintf("no pod that takes requests and has a port named %s or a preset matches %q", portName, selector))
		}
		return out, nil
	}
	targets, err := r.objects.List(q.Kind.Resource, q.Namespace, selector)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("list %s: %w", q.Kind.Resource, err))
	}
	for _, t := range targets {
		v, err := r.workload(q, t)
		out = append(out, ObjectValue{Name: t.Name, Value: v, Err: err})
	}
	return out, nil
}

// workload reads the sum over an object's pods and what gateways hold for it.
func (r *requests) workload(q Query, t Target) (store.Value, error) {
	if r.presets != nil && t.Workload != nil && !t.Workload.Sidecar {
		if v, ok := r.preset(q, t); ok {
			return v, nil
		}
	}
	if t.Fault != "" {
		return store.Value{}, q.NotFound(t.Name, t.Fault)
	}
	v := r.reader.Workload(q.Now, q.Namespace, t.Pods, t.Services, q.Metric.Signal, q.Window)
	if t.Untyped && len(r.reader.Pods(q.Now, q.Namespace, t.Pods, q.Metric.Signal, q.Window)) == 0 {
		// Nothing tells a workload at zero from one that is not measured at all, so that zero would
		// be a guess.
		return store.Value{}, q.NotFound(t.Name, "none of its pods has a container port named "+portName+" and no workload that is behind it is known; "+remedy)
	}
	return v, nil
}

// preset answers for a workload of which something else counts the requests; ok is false where
// nothing does. What gateways hold is demand too.
func (r *requests) preset(q Query, t Target) (store.Value, bool) {
	v, ok := r.presets.Workload(q.Now, q.Namespace, t, q.Metric.Signal, q.Window)
	if !ok || q.Metric.Signal == algorithms.Rate && !t.Workload.AtZero {
		return v, ok
	}
	if t.Workload.AtZero { // what is left of its pods' series is of the past
		return r.reader.Workload(q.Now, q.Namespace, t.Pods, t.Services, q.Metric.Signal, q.Window), true
	}
	held := r.reader.Workload(q.Now, q.Namespace, labels.Nothing(), t.Services, algorithms.Waiting, q.Window)
	if q.Metric.Signal == algorithms.Waiting || !held.Known && v.Known {
		return held, true
	}
	v.Value += held.Value
	return v, true
}

// Ready says why nothing can be answered yet: an object that is not listed yet would be taken for
// absent.
func (r *requests) Ready() error {
	return errors.Join(r.objects.Ready(), r.reader.Ready())
}
