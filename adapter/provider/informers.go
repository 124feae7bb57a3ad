package provider

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/sluice-autoscaler/sluice/adapter/scrape/preset"
)

// Informers is the Objects of a cluster: watches on Services, Deployments, StatefulSets and
// ReplicaSets of all namespaces, of which only what lookups need is kept. Indexes find what belongs
// to an object, so that a lookup does not look at the whole namespace. It is safe for concurrent
// use.
type Informers struct {
	factory informers.SharedInformerFactory
	watches []watch
	log     *slog.Logger
	// presets say which pods without a sidecar are read; nil: none.
	presets *preset.Set
	// spaces are the namespaces, nil where their annotations do not matter.
	spaces cache.SharedIndexInformer
	// annotations are those that are kept besides.
	annotations []string
}

type watch struct {
	resource schema.GroupResource
	informer cache.SharedIndexInformer
}

var _ Objects = (*Informers)(nil)

// NewInformers makes the watches and starts none. Presets, when given, say which pods without a
// sidecar are read. Of annotations those given are kept, and where there are some the namespaces
// are watched as well.
func NewInformers(client kubernetes.Interface, log *slog.Logger, presets *preset.Set, annotations ...string) (*Informers, error) {
	i := &Informers{log: log, presets: presets, annotations: annotations}
	i.factory = informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(i.strip))
	apps := i.factory.Apps().V1()
	i.watches = []watch{
		{services, i.factory.Core().V1().Services().Informer()},
		{deployments, apps.Deployments().Informer()},
		{statefulsets, apps.StatefulSets().Informer()},
		{replicasets, apps.ReplicaSets().Informer()},
	}
	if len(annotations) > 0 {
		i.spaces = i.factory.Core().V1().Namespaces().Informer()
	}
	for n, w := range i.watches {
		index := cache.Indexers{templateIndex: templateLabels}
		if n == 0 {
			index = cache.Indexers{selectorIndex: selectorLabel}
		}
		if err := w.informer.AddIndexers(index); err != nil {
			return nil, fmt.Errorf("watch %s: %w", w.resource, err)
		}
		err := w.informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, _ *cache.Reflector, err error) {
			if ctx.Err() == nil {
				log.WarnContext(ctx, "watch interrupted, will retry", slog.String("resource", w.resource.String()), slog.Any("error", err))
			}
		})
		if err != nil {
			return nil, fmt.Errorf("watch %s: %w", w.resource, err)
		}
	}
	return i, nil
}

// Run watches until ctx ends, and returns once all watches have ended.
func (i *Informers) Run(ctx context.Context) error {
	i.factory.StartWithContext(ctx)
	<-ctx.Done()
	i.factory.Shutdown()
	return nil
}

// Ready names the resources that have not been listed yet.
func (i *Informers) Ready() error {
	var missing []string
	for _, w := range i.watches {
		if !w.informer.HasSynced() {
			missing = append(missing, w.resource.String())
		}
	}
	if i.spaces != nil && !i.spaces.HasSynced() {
		missing = append(missing, "namespaces")
	}
	if missing != nil {
		return fmt.Errorf("not listed yet: %s", strings.Join(missing, ", "))
	}
	return nil
}

// Get returns one object.
func (i *Informers) Get(resource schema.GroupResource, namespace, name string) (Target, bool, error) {
	w, err := i.watch(resource)
	if err != nil {
		return Target{}, false, err
	}
	o, ok, err := w.informer.GetIndexer().GetByKey(namespace + "/" + name)
	if err != nil || !ok {
		return Target{}, false, err
	}
	return i.target(o), true, nil
}

// List returns the selected objects of a namespace, ordered by name.
func (i *Informers) List(resource schema.GroupResource, namespace string, selector labels.Selector) ([]Target, error) {
	w, err := i.watch(resource)
	if err != nil {
		return nil, err
	}
	var out []Target
	err = cache.ListAllByNamespace(w.informer.GetIndexer(), namespace, selector, func(o any) { out = append(out, i.target(o)) })
	slices.SortFunc(out, func(a, b Target) int { return strings.Compare(a.Name, b.Name) })
	return out, err
}

func (i *Informers) watch(resource schema.GroupResource) (watch, error) {
	for _, w := range i.watches {
		if w.resource == resource {
			return w, nil
		}
	}
	return watch{}, fmt.Errorf("%s are not watched", resource)
}

func (i *Informers) target(o any) Target {
	if s, ok := o.(*corev1.Service); ok {
		return i.service(s)
	}
	w, _ := workloadOf(o)
	t := Target{Name: w.meta.Name, Pods: labels.Nothing(), Workload: &TargetWorkload{
		Kind: w.kind, Sidecar: i.measured(w), AtZero: w.replicas != nil && *w.replicas == 0,
		Annotations: w.meta.Annotations, NamespaceAnnotations: i.annotationsOf(w.meta.Namespace),
	}}
	switch selector, err := metav1.LabelSelectorAsSelector(w.selector); {
	case w.selector == nil || len(w.selector.MatchLabels)+len(w.selector.MatchExpressions) == 0:
		t.Fault = "its spec.selector selects no pods"
	case err != nil:
		t.Fault = fmt.Sprintf("its spec.selector cannot be read: %v", err)
	default:
		if t.Pods = selector; !t.Workload.Sidecar {
			t.Fault = "its pod template has no container port named " + portName + "; " + remedy
		}
	}
	for _, key := range labelKeys(w.meta.Namespace, w.template.Labels) {
		found, _ := i.watches[0].informer.GetIndexer().ByIndex(selectorIndex, key)
		for _, o := range found {
			if s, ok := o.(*corev1.Service); ok && selects(s.Spec.Selector, w.template.Labels) {
				t.Services = append(t.Services, s.Name)
			}
		}
	}
	slices.Sort(t.Services)
	return t
}

// annotationsOf are those of a namespace.
func (i *Informers) annotationsOf(namespace string) map[string]string {
	if i.spaces == nil {
		return nil
	}
	o, _, _ := i.spaces.GetIndexer().GetByKey(namespace)
	if ns, ok := o.(*corev1.Namespace); ok {
		return ns.Annotations
	}
	return nil
}

// service looks behind a Service: if any workload that it selects has no sidecar, its sum would
// lack that one's share.
func (i *Informers) service(s *corev1.Service) Target {
	t := Target{Name: s.Name, Services: []string{s.Name}, Pods: labels.SelectorFromSet(s.Spec.Selector), Untyped: true}
	if len(s.Spec.Selector) == 0 {
		t.Fault = "it has no spec.selector, so that its pods are not known; ask for the metric of the workload"
		return t
	}
	var (
		without              []string
		measured, unmeasured bool // at all; and running
	)
	key, _ := selectorLabel(s)
	for _, w := range i.watches[1:] {
		found, _ := w.informer.GetIndexer().ByIndex(templateIndex, key[0])
		for _, o := range found {
			l, ok := workloadOf(o)
			// A Deployment speaks for its ReplicaSets, of which the old ones no longer matter.
			if !ok || metav1.GetControllerOfNoCopy(l.meta) != nil || !selects(s.Spec.Selector, l.template.Labels) {
				continue
			}
			t.Untyped = false
			if i.measured(l) {
				measured = true
				continue
			}
			without = append(without, w.resource.Resource+" "+l.meta.Name)
			unmeasured = unmeasured || l.replicas == nil || *l.replicas > 0
		}
	}
	if unmeasured || !measured && len(without) > 0 {
		slices.Sort(without)
		t.Fault = fmt.Sprintf("the pod template of %s, which is behind it, has no container port named %s; %s", strings.Join(without, " and of "), portName, remedy)
	}
	return t
}

// workload is what the kinds of workloads have in common.
type workload struct {
	kind     string
	meta     *metav1.ObjectMeta
	replicas *int32
	selector *metav1.LabelSelector
	template *corev1.PodTemplateSpec
}

func workloadOf(o any) (workload, bool) {
	switch o := o.(type) {
	case *appsv1.Deployment:
		return workload{"Deployment", &o.ObjectMeta, o.Spec.Replicas, o.Spec.Selector, &o.Spec.Template}, true
	case *appsv1.StatefulSet:
		return workload{"StatefulSet", &o.ObjectMeta, o.Spec.Replicas, o.Spec.Selector, &o.Spec.Template}, true
	case *appsv1.ReplicaSet:
		return workload{"ReplicaSet", &o.ObjectMeta, o.Spec.Replicas, o.Spec.Selector, &o.Spec.Template}, true
	}
	return workload{meta: &metav1.ObjectMeta{}, template: &corev1.PodTemplateSpec{}}, false
}

// Names of the indexes: Services by one label of their selectors, workloads by each label of their
// pods.
const (
	selectorIndex = "selector"
	templateIndex = "template"
)

// selectorLabel indexes a Service by the last of its selector's labels, in the order of keys.
// Common ones, such as app.kubernetes.io/part-of, sort before many others; any would do.
func selectorLabel(o any) ([]string, error) {
	s, ok := o.(*corev1.Service)
	if !ok || len(s.Spec.Selector) == 0 {
		return nil, nil
	}
	key := slices.Max(slices.Collect(maps.Keys(s.Spec.Selector)))
	return []string{labelKey(s.Namespace, key, s.Spec.Selector[key])}, nil
}

// templateLabels indexes a workload by all labels of its pods.
func templateLabels(o any) ([]string, error) {
	w, _ := workloadOf(o)
	return labelKeys(w.meta.Namespace, w.template.Labels), nil
}

func labelKeys(namespace string, set map[string]string) []string {
	keys := make([]string, 0, len(set))
	for k, v := range set {
		keys = append(keys, labelKey(namespace, k, v))
	}
	return keys
}

func labelKey(namespace, key, value string) string { return namespace + "/" + key + "=" + value }

// selects is a Service's rule: every label given, and none given selects nothing.
func selects(selector, of map[string]string) bool {
	for k, v := range selector {
		if got, ok := of[k]; !ok || got != v {
			return false
		}
	}
	return len(selector) > 0
}

// measured says that a workload's pods have a sidecar, or are read by a preset.
func (i *Informers) measured(w workload) bool {
	if hasPort(w.template) {
		return true
	}
	if i.presets == nil {
		return false
	}
	name, ok := w.template.Annotations[preset.Annotation]
	if !ok {
		name, ok = i.presetOf(w)
	}
	if ok {
		return name != "" // the pods say if there is no such preset
	}
	return i.presets.Selecting(w.template.Labels) != nil
}

func hasPort(t *corev1.PodTemplateSpec) bool {
	of := func(c corev1.Container) bool {
		return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == portName })
	}
	return slices.ContainsFunc(t.Spec.Containers, of) || slices.ContainsFunc(t.Spec.InitContainers, of)
}

// strip keeps of an object what lookups read, since every one of the cluster is held.
func (i *Informers) strip(o any) (any, error) {
	switch o := o.(type) {
	case *corev1.Namespace:
		return &corev1.Namespace{ObjectMeta: i.bare(o.ObjectMeta)}, nil
	case *corev1.Service:
		return &corev1.Service{ObjectMeta: i.bare(o.ObjectMeta), Spec: corev1.ServiceSpec{Selector: o.Spec.Selector}}, nil
	case *appsv1.Deployment:
		return &appsv1.Deployment{ObjectMeta: i.bare(o.ObjectMeta), Spec: appsv1.DeploymentSpec{
			Replicas: o.Spec.Replicas, Selector: o.Spec.Selector, Template: bareTemplate(o.Spec.Template),
		}}, nil
	case *appsv1.StatefulSet:
		return &appsv1.StatefulSet{ObjectMeta: i.bare(o.ObjectMeta), Spec: appsv1.StatefulSetSpec{
			Replicas: o.Spec.Replicas, Selector: o.Spec.Selector, Template: bareTemplate(o.Spec.Template),
		}}, nil
	case *appsv1.ReplicaSet:
		return &appsv1.ReplicaSet{ObjectMeta: i.bare(o.ObjectMeta), Spec: appsv1.ReplicaSetSpec{
			Replicas: o.Spec.Replicas, Selector: o.Spec.Selector, Template: bareTemplate(o.Spec.Template),
		}}, nil
	}
	return o, nil
}

func (i *Informers) bare(m metav1.ObjectMeta) metav1.ObjectMeta {
	out := metav1.ObjectMeta{
		Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion,
		Labels: m.Labels, OwnerReferences: m.OwnerReferences, Annotations: presetAnnotation(m.Annotations),
	}
	for _, key := range i.annotations {
		if v, ok := m.Annotations[key]; ok {
			if out.Annotations == nil {
				out.Annotations = map[string]string{}
			}
			out.Annotations[key] = v
		}
	}
	return out
}

func bareTemplate(t corev1.PodTemplateSpec) corev1.PodTemplateSpec {
	out := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: t.Labels}}
	out.Annotations = presetAnnotation(t.Annotations)
	if hasPort(&t) {
		out.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: portName}}}}
	}
	return out
}
