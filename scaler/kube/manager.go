package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/scaler/kube/lead"
	"github.com/sluice-autoscaler/sluice/scaler/kube/path"
	"github.com/sluice-autoscaler/sluice/scaler/kube/path/slice"
	"github.com/sluice-autoscaler/sluice/scaler/kube/queue"
)

const (
	// LeaseName is the lease by which one replica scales.
	LeaseName = "sluice-controller"
	// roundTimeout bounds one round, so that a worker comes back from an API server that hangs.
	roundTimeout = 10 * time.Second
	// syncPatience is how long the first lists may take: as long as the API server takes to come.
	syncPatience = 365 * 24 * time.Hour
	// listRetry is when Autoscalers are listed again after a fault at the beginning of a term.
	listRetry = time.Second
)

// ManagerOptions configure a manager.
type ManagerOptions struct {
	// Namespaces are those whose Autoscalers are driven; none means all.
	Namespaces []string
}

// NewManager makes the manager of rounds: a cache with the indexes that rounds need, and a client.
// It has no election: see package lead.
func NewManager(ctx context.Context, cfg *rest.Config, o ManagerOptions) (manager.Manager, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), appsv1.AddToScheme(scheme), discoveryv1.AddToScheme(scheme),
		autoscalingv2.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	target := cache.ByObject{Transform: StripTarget}
	var namespaces map[string]cache.Config // nil means all
	for _, ns := range o.Namespaces {
		if namespaces == nil {
			namespaces = map[string]cache.Config{}
		}
		namespaces[ns] = cache.Config{}
	}
	m, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
		Cache: cache.Options{
			DefaultTransform:  cache.TransformStripManagedFields(),
			DefaultNamespaces: namespaces,
			ByObject:          map[client.Object]cache.ByObject{&appsv1.Deployment{}: target, &appsv1.StatefulSet{}: target, &appsv1.ReplicaSet{}: target},
		},
	})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(Index(ctx, m.GetFieldIndexer()), slice.AddIndexes(ctx, m.GetFieldIndexer())); err != nil {
		return nil, err
	}
	// What the first round of a kind reads is there before: no worker waits for a list.
	for _, o := range []client.Object{&appsv1.Deployment{}, &appsv1.StatefulSet{}, &appsv1.ReplicaSet{}, &corev1.Service{}} {
		if _, err := m.GetCache().GetInformer(ctx, o, cache.BlockUntilSynced(false)); err != nil {
			return nil, fmt.Errorf("watch %T: %w", o, err)
		}
	}
	return m, nil
}

// Drive has the manager do rounds: of an Autoscaler whose spec, slices or rivals change, of those
// that pokes name, of all when a term begins, and when one is due. Rounds is the Reconciler, or
// what stands around it. A poke of a name says that somebody waits for the round; the key without a
// name is passed on like any other.
func (r *Reconciler) Drive(m manager.Manager, rounds reconcile.Reconciler, pokes chan event.GenericEvent) error {
	changed := builder.WithPredicates(predicate.GenerationChangedPredicate{}, r.noteChange())
	r.noting.Store(true)
	return ctrl.NewControllerManagedBy(m).Named("autoscaler").
		For(&v1alpha1.Autoscaler{}, changed).
		Watches(&discoveryv1.EndpointSlice{}, handler.EnqueueRequestsFromMapFunc(r.ofSlice)).
		Watches(&autoscalingv2.HorizontalPodAutoscaler{}, handler.EnqueueRequestsFromMapFunc(r.ofHPA), changed).
		WatchesRawSource(source.Channel(pokes, handler.Funcs{GenericFunc: enqueuePoke})).
		WatchesRawSource(source.Func(func(ctx context.Context, q workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			go r.enqueueTerms(ctx, q)
			return nil
		})).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: queue.Workers, CacheSyncTimeout: syncPatience, ReconciliationTimeout: roundTimeout,
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](10*time.Millisecond, 5*time.Second),
			NewQueue: func(_ string, l workqueue.TypedRateLimiter[reconcile.Request]) workqueue.TypedRateLimitingInterface[reconcile.Request] {
				q := queue.New(l)
				r.queue.Store(q)
				return q
			},
		}).
		Complete(rounds)
}

// noteChange is a predicate that lets everything pass, and counts it: what other Autoscalers and
// HPAs were found in the cache is to be looked for again. It is asked before the event asks for
// rounds.
func (r *Reconciler) noteChange() predicate.Predicate {
	return predicate.NewPredicateFuncs(func(client.Object) bool {
		r.changes.Add(1)
		return true
	})
}

// enqueuePoke queues what a poke names before all that nobody waits for.
func enqueuePoke(_ context.Context, e event.GenericEvent, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	key := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(e.Object)}
	if lanes, ok := q.(priorityqueue.PriorityQueue[reconcile.Request]); ok && key.Name != "" {
		lanes.AddWithOpts(priorityqueue.AddOpts{Priority: new(queue.Urgent)}, key)
		return
	}
	q.Add(key)
}

// enqueueTerms asks for a round of every Autoscaler whenever a term begins.
func (r *Reconciler) enqueueTerms(ctx context.Context, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	_ = r.Leader.Each(ctx, func(ctx context.Context, _ lead.Term) error {
		for {
			keys, err := find(ctx, r.Client, "", nil)
			if err == nil {
				for _, key := range keys {
					q.Add(reconcile.Request{NamespacedName: key})
				}
				return nil
			}
			r.Log.WarnContext(ctx, "autoscalers not listed, will retry", slog.Any("error", err))
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(listRetry):
			}
		}
	})
}

// OfService finds the Autoscalers of a Service.
func OfService(ctx context.Context, cached client.Reader, namespace, service string) ([]types.NamespacedName, error) {
	return find(ctx, cached, namespace, client.MatchingFields{ByService: service})
}

// find finds Autoscalers by an index of the cache; by nil finds all.
func find(ctx context.Context, cached client.Reader, namespace string, by client.MatchingFields) ([]types.NamespacedName, error) {
	var all v1alpha1.AutoscalerList
	options := []client.ListOption{client.InNamespace(namespace), client.UnsafeDisableDeepCopy}
	if by != nil {
		options = append(options, by)
	}
	if err := cached.List(ctx, &all, options...); err != nil {
		return nil, fmt.Errorf("find Autoscalers by %v: %w", by, err)
	}
	out := make([]types.NamespacedName, 0, len(all.Items))
	for i := range all.Items {
		out = append(out, client.ObjectKeyFromObject(&all.Items[i]))
	}
	return out, nil
}

func (r *Reconciler) requests(ctx context.Context, namespace string, by client.MatchingFields) []reconcile.Request {
	keys, err := find(ctx, r.Client, namespace, by)
	if err != nil {
		r.Log.WarnContext(ctx, "autoscalers of an event not found", slog.Any("error", err))
	}
	out := make([]reconcile.Request, 0, len(keys))
	for _, k := range keys {
		out = append(out, reconcile.Request{NamespacedName: k})
	}
	return out
}

// ofSlice finds the Autoscalers of a slice's Service.
func (r *Reconciler) ofSlice(ctx context.Context, o client.Object) []reconcile.Request {
	return r.requests(ctx, o.GetNamespace(), client.MatchingFields{ByService: o.GetLabels()[discoveryv1.LabelServiceName]})
}

// ofHPA finds the Autoscalers that scale what an HPA scales.
func (r *Reconciler) ofHPA(ctx context.Context, o client.Object) []reconcile.Request {
	var all []reconcile.Request
	for _, key := range TargetOfHPA(o) {
		all = append(all, r.requests(ctx, o.GetNamespace(), client.MatchingFields{ByTarget: key})...)
	}
	return all
}

// RegisterPath returns an Options.Register that tells a path driver of Autoscalers.
func RegisterPath(d *path.Driver) func(*v1alpha1.Autoscaler, *loop.Spec) {
	return func(as *v1alpha1.Autoscaler, spec *loop.Spec) {
		d.Register(Ref(client.ObjectKeyFromObject(as)), path.Workload{
			Service: spec.ServiceRef.Name, Created: as.CreationTimestamp.Time, Hold: spec.Hold,
			Controller: controllerRef(as),
		})
	}
}

// controllerRef names the Autoscaler as the owner of its slice. It does not block the owner's
// deletion: that would need a right to the owner's finalizers on some clusters, and the slice goes
// either way.
func controllerRef(as *v1alpha1.Autoscaler) metav1.OwnerReference {
	ref := metav1.NewControllerRef(as, v1alpha1.GroupVersion().WithKind("Autoscaler"))
	ref.BlockOwnerDeletion = nil
	return *ref
}
