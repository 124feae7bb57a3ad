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
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/scaler/kube/path"
	"github.com/sluice-autoscaler/sluice/scaler/kube/path/slice"
)

const (
	// leaseDuration, renewDeadline and retryPeriod are those of the leader's lease.
	leaseDuration, renewDeadline, retryPeriod = 8 * time.Second, 5 * time.Second, time.Second
	// LeaseName is the lease by which one replica scales.
	LeaseName = "sluice-controller"
	// concurrentRounds is how many Autoscalers have a round at once.
	concurrentRounds = 16
)

// ManagerOptions configure a manager.
type ManagerOptions struct {
	// LeaderElection lets several replicas run, of which one scales; its lease is in Namespace.
	LeaderElection bool
	Namespace      string
}

// NewManager makes the manager of rounds: a cache with the indexes that rounds need, an election, a
// client.
func NewManager(ctx context.Context, cfg *rest.Config, o ManagerOptions) (manager.Manager, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), appsv1.AddToScheme(scheme), discoveryv1.AddToScheme(scheme),
		autoscalingv2.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	lease, renew, retry := leaseDuration, renewDeadline, retryPeriod
	target := cache.ByObject{Transform: StripTarget}
	m, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
		LeaderElection: o.LeaderElection, LeaderElectionID: LeaseName, LeaderElectionNamespace: o.Namespace, LeaderElectionReleaseOnCancel: true,
		LeaseDuration: &lease, RenewDeadline: &renew, RetryPeriod: &retry,
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject:         map[client.Object]cache.ByObject{&appsv1.Deployment{}: target, &appsv1.StatefulSet{}: target, &appsv1.ReplicaSet{}: target},
		},
	})
	if err != nil {
		return nil, err
	}
	return m, errors.Join(Index(ctx, m.GetFieldIndexer()), slice.AddIndexes(ctx, m.GetFieldIndexer()))
}

// Drive has the manager do rounds: of an Autoscaler whose spec, slices or rivals change, of those
// that pokes name, and when one is due. Rounds is the Reconciler, or what stands around it.
func (r *Reconciler) Drive(m manager.Manager, rounds reconcile.Reconciler, pokes chan event.GenericEvent) error {
	changed := builder.WithPredicates(predicate.GenerationChangedPredicate{})
	return ctrl.NewControllerManagedBy(m).Named("autoscaler").
		For(&v1alpha1.Autoscaler{}, changed).
		Watches(&discoveryv1.EndpointSlice{}, handler.EnqueueRequestsFromMapFunc(r.ofSlice)).
		Watches(&autoscalingv2.HorizontalPodAutoscaler{}, handler.EnqueueRequestsFromMapFunc(r.ofHPA), changed).
		WatchesRawSource(source.Channel(pokes, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: concurrentRounds,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](10*time.Millisecond, 5*time.Second),
		}).
		Complete(rounds)
}

// OfService finds the Autoscalers of a Service.
func OfService(ctx context.Context, cached client.Reader, namespace, service string) ([]types.NamespacedName, error) {
	return find(ctx, cached, namespace, client.MatchingFields{ByService: service})
}

// find finds Autoscalers by an index of the cache.
func find(ctx context.Context, cached client.Reader, namespace string, by client.MatchingFields) ([]types.NamespacedName, error) {
	var all v1alpha1.AutoscalerList
	if err := cached.List(ctx, &all, client.InNamespace(namespace), by, client.UnsafeDisableDeepCopy); err != nil {
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
			Controller: *metav1.NewControllerRef(as, v1alpha1.GroupVersion().WithKind("Autoscaler")),
		})
	}
}
