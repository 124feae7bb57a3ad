package kube

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/scale"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/scaler"
)

// Driver is the name of this driver in a loop.Ref.
const Driver = "kubernetes"

// TargetRef is the neutral name of a scale target: its kind is Kind.group.
func TargetRef(namespace string, ref autoscalingv2.CrossVersionObjectReference) loop.Ref {
	kind := ref.Kind
	if group, _, ok := strings.Cut(ref.APIVersion, "/"); ok {
		kind += "." + group
	}
	return loop.Ref{Driver: Driver, Namespace: namespace, Kind: kind, Name: ref.Name}
}

// KindOf is the kind of a neutral name without its group.
func KindOf(ref loop.Ref) string { return groupKind(ref.Kind).Kind }

// groupKind reads the kind of a neutral name.
func groupKind(kind string) schema.GroupKind {
	k, group, _ := strings.Cut(kind, ".")
	return schema.GroupKind{Group: group, Kind: k}
}

// Selectors is told which pods a workload has. It is called in rounds and must be cheap.
type Selectors interface {
	Bind(ref loop.Ref, namespace string, pods labels.Selector, services []string)
	Unbind(ref loop.Ref)
}

const (
	// scaleEvery is how often the scale of a kind that is not watched is read. Its rounds in
	// between go by the last answer.
	scaleEvery = 5 * time.Second
	// scaleBelieved is how old that answer may be where a namespace has more such targets than may
	// be read; beyond it nothing is known.
	scaleBelieved = time.Minute
	// scaleReads and scaleBurst bound how many of them are read for one namespace, a second and at
	// once.
	scaleReads, scaleBurst = 5, 20
)

// Targets reads and writes the scale of any object that has one. Deployments, StatefulSets and
// ReplicaSets are read from a cache, other kinds from the API server, seldom. It is a scaler.Target
// and safe for concurrent use.
type Targets struct {
	cached    client.Reader
	scales    scale.ScalesGetter
	mapper    meta.RESTMapper
	selectors Selectors
	buffers   map[string]*sync.Pool

	mu      sync.Mutex
	targets map[loop.Ref]*target
	// reads bound the reads of scales, by namespace.
	reads map[string]*rate.Limiter
}

// target is what is known of one registered workload's target. A round uses it alone.
type target struct {
	ref     loop.Ref
	service []string
	// version and replicas are those of the last write: until the cache has it, the cache is
	// behind.
	version  uint64
	replicas int
	// selector is the text of the bound selector.
	selector string
	bound    bool
	// scale is the last answer of a kind that is not watched.
	scale scaleAnswer
}

// scaleAnswer is what the API server said of a scale, or the fault instead.
type scaleAnswer struct {
	at       time.Time
	replicas int
	selector string
	err      error
}

// NewTargets returns Targets over a cached reader and a client of scales. Selectors may be nil.
func NewTargets(cached client.Reader, scales scale.ScalesGetter, mapper meta.RESTMapper, s Selectors) *Targets {
	return &Targets{cached: cached, scales: scales, mapper: mapper, selectors: s, buffers: newBuffers(), targets: map[loop.Ref]*target{}, reads: map[string]*rate.Limiter{}}
}

// Register says that ref scales another object than the one it names, and which Service holds its
// requests, "" for none. It does nothing when that is known.
func (t *Targets) Register(ref, object loop.Ref, service string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var services []string
	if service != "" {
		services = []string{service}
	}
	if at := t.targets[ref]; at != nil && at.ref == object && len(at.service) == len(services) && (service == "" || at.service[0] == service) {
		return
	}
	t.targets[ref] = &target{ref: object, service: services}
}

// Forget drops what is known of ref.
func (t *Targets) Forget(ref loop.Ref) {
	t.mu.Lock()
	delete(t.targets, ref)
	t.mu.Unlock()
	if t.selectors != nil {
		t.selectors.Unbind(ref)
	}
}

// Of is the object that ref scales: the registered one, else the one that it names.
func (t *Targets) Of(ref loop.Ref) loop.Ref { return t.of(ref).ref }

func (t *Targets) of(ref loop.Ref) *target {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.targets[ref]
	if at == nil {
		at = &target{ref: ref}
		t.targets[ref] = at
	}
	return at
}

// Get reads the target's scale.
func (t *Targets) Get(ctx context.Context, ref loop.Ref) (scaler.State, error) {
	at := t.of(ref)
	n, selector, trouble, err := t.read(ctx, at)
	if err != nil {
		return scaler.State{}, err
	}
	if t.selectors != nil && (!at.bound || at.selector != selector) {
		sel, err := labels.Parse(selector)
		if err != nil {
			return scaler.State{}, fmt.Errorf("read the selector of %s: %w", at.ref, err)
		}
		if selector == "" {
			sel = labels.Nothing()
		}
		t.selectors.Bind(ref, at.ref.Namespace, sel, at.service)
		at.selector, at.bound = selector, true
	}
	return scaler.State{Replicas: n, Trouble: trouble}, nil
}

// read gives the count that was last asked for, the text of the pods' selector, and why pods cannot
// be created.
func (t *Targets) read(ctx context.Context, at *target) (n int, selectorText, trouble string, err error) {
	buffer := t.buffers[at.ref.Kind]
	if buffer == nil {
		n, selectorText, err = t.readScale(ctx, at)
		return n, selectorText, "", err
	}
	object, _ := buffer.Get().(client.Object)
	defer buffer.Put(object)
	err = t.cached.Get(ctx, types.NamespacedName{Namespace: at.ref.Namespace, Name: at.ref.Name}, object, client.UnsafeDisableDeepCopy)
	if err != nil {
		return 0, "", "", fmt.Errorf("read %s: %w", at.ref, translate(err))
	}
	replicas, selector := scaleOf(object)
	n = 1 // the API's default
	if replicas != nil {
		n = int(*replicas)
	}
	if at.version > 0 {
		if version(object.GetResourceVersion()) < at.version {
			n = at.replicas
		} else {
			at.version = 0
		}
	}
	return n, at.text(selector), createTrouble(object), nil
}

// text is the selector in words. Of the one that is bound already it spares the work.
func (at *target) text(s *metav1.LabelSelector) string {
	if s == nil {
		return ""
	}
	if len(s.MatchExpressions) == 0 && len(s.MatchLabels) == 1 { // by far the most, and hot
		for k, v := range s.MatchLabels {
			if at.bound && len(at.selector) == len(k)+1+len(v) && at.selector[:len(k)] == k && at.selector[len(k)+1:] == v {
				return at.selector
			}
			return k + "=" + v
		}
	}
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return "" // the API server accepts none such
	}
	return sel.String()
}

// newBuffers are for the objects into which targets are read from the cache, by the million, of
// each kind that the cache has.
func newBuffers() map[string]*sync.Pool {
	return map[string]*sync.Pool{
		"Deployment.apps":  {New: func() any { return &appsv1.Deployment{} }},
		"StatefulSet.apps": {New: func() any { return &appsv1.StatefulSet{} }},
		"ReplicaSet.apps":  {New: func() any { return &appsv1.ReplicaSet{} }},
	}
}

// scaleOf is the count and the selector in the spec of such an object.
func scaleOf(object client.Object) (*int32, *metav1.LabelSelector) {
	switch o := object.(type) {
	case *appsv1.Deployment:
		return o.Spec.Replicas, o.Spec.Selector
	case *appsv1.StatefulSet:
		return o.Spec.Replicas, o.Spec.Selector
	case *appsv1.ReplicaSet:
		return o.Spec.Replicas, o.Spec.Selector
	}
	return nil, nil
}

// createTrouble says why pods of an object cannot be created (quota, admission), "" when nothing is
// known against it.
func createTrouble(o client.Object) string {
	switch o := o.(type) {
	case *appsv1.Deployment:
		for i := range o.Status.Conditions {
			if c := &o.Status.Conditions[i]; c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
				return c.Reason + ": " + c.Message
			}
		}
	case *appsv1.ReplicaSet:
		for i := range o.Status.Conditions {
			if c := &o.Status.Conditions[i]; c.Type == appsv1.ReplicaSetReplicaFailure && c.Status == corev1.ConditionTrue {
				return c.Reason + ": " + c.Message
			}
		}
	}
	return ""
}

// StripTarget is a transform for a cache of Deployments, StatefulSets and ReplicaSets: it keeps
// what scaling needs, so that a cluster's workloads fit in little memory.
func StripTarget(o any) (any, error) {
	lean := func(m *metav1.ObjectMeta) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion, Generation: m.Generation}
	}
	switch o := o.(type) {
	case *appsv1.Deployment:
		next := &appsv1.Deployment{ObjectMeta: lean(&o.ObjectMeta), Spec: appsv1.DeploymentSpec{Replicas: o.Spec.Replicas, Selector: o.Spec.Selector}}
		for _, c := range o.Status.Conditions {
			if c.Type == appsv1.DeploymentReplicaFailure {
				next.Status.Conditions = append(next.Status.Conditions, c)
			}
		}
		return next, nil
	case *appsv1.StatefulSet:
		return &appsv1.StatefulSet{ObjectMeta: lean(&o.ObjectMeta), Spec: appsv1.StatefulSetSpec{Replicas: o.Spec.Replicas, Selector: o.Spec.Selector}}, nil
	case *appsv1.ReplicaSet:
		next := &appsv1.ReplicaSet{ObjectMeta: lean(&o.ObjectMeta), Spec: appsv1.ReplicaSetSpec{Replicas: o.Spec.Replicas, Selector: o.Spec.Selector}}
		next.Status.Conditions = o.Status.Conditions // of one type
		return next, nil
	}
	return o, nil
}

// readScale gives the scale of any kind: what the API server said lately, or what it says now. A
// namespace that has more such targets than may be read goes by older answers.
func (t *Targets) readScale(ctx context.Context, at *target) (int, string, error) {
	now := time.Now()
	age := now.Sub(at.scale.at)
	if at.scale.at.IsZero() || age >= scaleEvery {
		switch {
		case t.mayRead(at.ref.Namespace):
			n, selector, err := t.askScale(ctx, at)
			if err != nil && !errors.Is(err, scaler.ErrNotFound) && !errors.Is(err, scaler.ErrForbidden) {
				return n, selector, err // of the API server, not of the target
			}
			at.scale = scaleAnswer{now, n, selector, err}
		case at.scale.at.IsZero() || age >= scaleBelieved:
			return 0, "", fmt.Errorf("read the scale of %s: namespace %s has more targets of kinds that are not watched than can be read: %w",
				at.ref, at.ref.Namespace, scaler.ErrThrottled)
		}
	}
	return at.scale.replicas, at.scale.selector, at.scale.err
}

// mayRead takes one of a namespace's reads.
func (t *Targets) mayRead(namespace string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.reads[namespace]
	if l == nil {
		l = rate.NewLimiter(scaleReads, scaleBurst)
		t.reads[namespace] = l
	}
	return l.Allow()
}

// askScale asks the API server for the scale of any kind.
func (t *Targets) askScale(ctx context.Context, at *target) (int, string, error) {
	r, err := t.resource(at.ref)
	if err != nil {
		return 0, "", err
	}
	sc, err := t.scales.Scales(at.ref.Namespace).Get(ctx, r.GroupResource(), at.ref.Name, metav1.GetOptions{})
	if err != nil {
		return 0, "", fmt.Errorf("read the scale of %s: %w", at.ref, translate(err))
	}
	return int(sc.Spec.Replicas), sc.Status.Selector, nil
}

// Set writes the target's replicas. Deployments do not let one choose who goes first.
func (t *Targets) Set(ctx context.Context, ref loop.Ref, n int, _ []string) error {
	at := t.of(ref)
	r, err := t.resource(at.ref)
	if err != nil {
		return err
	}
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n)
	var sc *autoscalingv1.Scale
	sc, err = t.scales.Scales(at.ref.Namespace).Patch(ctx, r, at.ref.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("set %s to %d replicas: %w", at.ref, n, translate(err))
	}
	at.version, at.replicas = version(sc.ResourceVersion), n
	if at.scale.err == nil {
		at.scale.replicas = n
	}
	return nil
}

func (t *Targets) resource(ref loop.Ref) (schema.GroupVersionResource, error) {
	m, err := t.mapper.RESTMapping(groupKind(ref.Kind))
	if err != nil {
		return schema.GroupVersionResource{}, fmt.Errorf("find the resource of %s: %w", ref, translate(err))
	}
	return m.Resource, nil
}

// version reads a resource version, which Kubernetes lets one compare as a number within a
// resource; 0 where it is none.
func version(s string) uint64 {
	v, _ := strconv.ParseUint(s, 10, 64)
	return v
}

// translate marks a fault of the API server as one of the scaler's kinds.
func translate(err error) error {
	switch {
	case apierrors.IsNotFound(err), meta.IsNoMatchError(err):
		return marked{err, scaler.ErrNotFound}
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return marked{err, scaler.ErrConflict}
	case apierrors.IsTooManyRequests(err), apierrors.IsServerTimeout(err):
		return marked{err, scaler.ErrThrottled}
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return marked{err, scaler.ErrForbidden}
	}
	return err
}

// marked is an error with a kind that its text does not repeat.
type marked struct {
	error
	kind error
}

// Unwrap returns the error and its kind.
func (m marked) Unwrap() []error { return []error{m.error, m.kind} }
