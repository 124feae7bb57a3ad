package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/scale"
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

	"github.com/sluice-autoscaler/sluice/adapter"
	"github.com/sluice-autoscaler/sluice/adapter/server"
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/prom"
	"github.com/sluice-autoscaler/sluice/scaler"
	"github.com/sluice-autoscaler/sluice/scaler/history"
	"github.com/sluice-autoscaler/sluice/scaler/kube"
	"github.com/sluice-autoscaler/sluice/scaler/kube/path"
	"github.com/sluice-autoscaler/sluice/scaler/plugin"
)

// pathOwner is the controller's name on the wire. Whoever holds the lease pushes under it.
const pathOwner = "controller"

// concurrentRounds is how many Autoscalers have a round at once.
const concurrentRounds = 16

// timing is the loop's, with the flags over it.
func (o *options) timing() loop.Timing {
	t := loop.DefaultTiming()
	t.Tick, t.Settle, t.Grace = o.tick, o.tick, o.grace
	return t
}

// newManager makes what caches, elects and drives rounds.
func (p *process) newManager(ctx context.Context, cfg *rest.Config) (manager.Manager, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), appsv1.AddToScheme(scheme), discoveryv1.AddToScheme(scheme),
		autoscalingv2.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	lease, renew, retry := 8*time.Second, 5*time.Second, time.Second
	target := cache.ByObject{Transform: kube.StripTarget}
	m, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
		LeaderElection: p.leaderElect, LeaderElectionID: "sluice-controller", LeaderElectionNamespace: p.namespace, LeaderElectionReleaseOnCancel: true,
		LeaseDuration: &lease, RenewDeadline: &renew, RetryPeriod: &retry,
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject:         map[client.Object]cache.ByObject{&appsv1.Deployment{}: target, &appsv1.StatefulSet{}: target, &appsv1.ReplicaSet{}: target},
		},
	})
	if err != nil {
		return nil, err
	}
	return m, errors.Join(kube.Index(ctx, m.GetFieldIndexer()), path.AddIndexes(ctx, m.GetFieldIndexer()))
}

// assembleScaler makes the scaler's parts: ports, rounds and what drives them.
func (p *process) assembleScaler(ctx context.Context, cfg *rest.Config, client kubernetes.Interface, reg prometheus.Registerer) error {
	m, err := p.newManager(ctx, cfg)
	if err != nil {
		return err
	}
	resolver := scale.NewDiscoveryScaleKindResolver(client.Discovery())
	scales, err := scale.NewForConfig(cfg, m.GetRESTMapper(), dynamic.LegacyAPIPathResolverFunc, resolver)
	if err != nil {
		return err
	}
	p.manager, p.pokes, p.records = m, make(chan event.GenericEvent, 1024), scaler.NewJournal()
	p.path = path.New(path.Options{
		Client: m.GetClient(), Owner: pathOwner, Epoch: time.Now().UnixNano(), Log: p.log, Clock: time.Now,
	})
	targets := kube.NewTargets(m.GetClient(), scales, m.GetRESTMapper(), bindings{p.adapter})
	o := scaler.Options{
		Target: targets, Source: p.adapter, Path: p.path, Sink: p.records, Catalog: catalog.Default(plugin.Entry()),
		Timing: p.timing(), Clock: time.Now, Log: p.log, Metrics: reg,
	}
	if p.history.prometheus != "" {
		past, err := p.history.reader(p.log)
		if err != nil {
			return err
		}
		o.History = targetHistory{past, targets}
	}
	s := scaler.New(o)
	p.rounds = newRounds(kube.New(kube.Options{
		Client: m.GetClient(), Scaler: s, Targets: targets, Register: p.register, Forget: p.path.Forget, Settle: p.path.Settle,
		Journal: p.records, Recorder: m.GetEventRecorder("sluice"), Log: p.log, Clock: time.Now,
	}), time.Now)
	err = ctrl.NewControllerManagedBy(m).Named("autoscaler").
		For(&v1alpha1.Autoscaler{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&discoveryv1.EndpointSlice{}, handler.EnqueueRequestsFromMapFunc(p.ofSlice)).
		Watches(&autoscalingv2.HorizontalPodAutoscaler{}, handler.EnqueueRequestsFromMapFunc(p.ofHPA), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(source.Channel(p.pokes, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: concurrentRounds,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](10*time.Millisecond, 5*time.Second),
		}).
		Complete(p.rounds)
	if err != nil {
		return err
	}
	return errors.Join(m.Add(manager.RunnableFunc(s.RunHistory)), m.Add(manager.RunnableFunc(p.runPath)))
}

// bindings tells the adapter which pods a workload has.
type bindings struct{ *adapter.Adapter }

// Bind implements kube.Selectors.
func (b bindings) Bind(ref loop.Ref, namespace string, pods labels.Selector, services []string) {
	b.Adapter.Bind(ref, adapter.Binding{Namespace: namespace, Selector: pods, Services: services})
}

// targetHistory reads the past of the objects that Autoscalers scale. It is a scaler.History.
type targetHistory struct {
	past    *history.Reader
	targets *kube.Targets
}

// Fetch implements scaler.History.
func (h targetHistory) Fetch(ctx context.Context, ref loop.Ref, signals []string, until time.Time) ([]algorithms.Sample, error) {
	object := h.targets.Of(ref)
	return h.past.Fetch(ctx, prom.Workload{Namespace: object.Namespace, Kind: kube.KindOf(object), Name: object.Name}, signals, until)
}

// register tells the path driver of an Autoscaler that names a Service.
func (p *process) register(as *v1alpha1.Autoscaler, spec *loop.Spec) {
	p.path.Register(kube.Ref(client.ObjectKeyFromObject(as)), path.Workload{
		Service: spec.ServiceRef.Name, Created: as.CreationTimestamp.Time, Hold: spec.Hold,
		Controller: *metav1.NewControllerRef(as, v1alpha1.GroupVersion().WithKind("Autoscaler")),
	})
}

// runPath runs while this replica holds the lease: it pushes assignments once every Autoscaler has
// had a round.
func (p *process) runPath(ctx context.Context) error {
	var all v1alpha1.AutoscalerList
	if err := p.manager.GetClient().List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list Autoscalers: %w", err)
	}
	refs := make([]loop.Ref, 0, len(all.Items))
	for i := range all.Items {
		refs = append(refs, kube.Ref(client.ObjectKeyFromObject(&all.Items[i])))
	}
	p.path.Observe(p.adapter.Gateways())
	p.path.Expect(refs)
	return p.path.Run(ctx)
}

// onReport hands a gateway's report on: to the path driver, and, when it tells of held requests, of a
// wake-up seen through or of a changed gateway, to the Autoscalers concerned, at once.
func (p *process) onReport(r adapter.GatewayReport) {
	if p.path == nil {
		return
	}
	p.path.Observe(p.adapter.Gateways())
	select {
	case <-p.manager.Elected():
	default:
		return
	}
	for _, s := range r.Urgent {
		for _, r := range p.find(context.Background(), s.Namespace, client.MatchingFields{kube.ByService: s.Name}) {
			p.poke(r.NamespacedName)
		}
	}
}

// poke asks for a round of one Autoscaler; a full queue has a round of everything coming anyway,
// within a tick.
func (p *process) poke(key types.NamespacedName) {
	as := &v1alpha1.Autoscaler{}
	as.Namespace, as.Name = key.Namespace, key.Name
	select {
	case p.pokes <- event.GenericEvent{Object: as}:
	default:
	}
}

// find lists Autoscalers by an index of the cache.
func (p *process) find(ctx context.Context, namespace string, by client.MatchingFields) []reconcile.Request {
	var all v1alpha1.AutoscalerList
	if err := p.manager.GetClient().List(ctx, &all, client.InNamespace(namespace), by, client.UnsafeDisableDeepCopy); err != nil {
		p.log.WarnContext(ctx, "autoscalers not found", slog.Any("error", err))
		return nil
	}
	out := make([]reconcile.Request, 0, len(all.Items))
	for i := range all.Items {
		out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&all.Items[i])})
	}
	return out
}

// ofSlice finds the Autoscalers of a slice's Service.
func (p *process) ofSlice(ctx context.Context, o client.Object) []reconcile.Request {
	return p.find(ctx, o.GetNamespace(), client.MatchingFields{kube.ByService: o.GetLabels()[discoveryv1.LabelServiceName]})
}

// ofHPA finds the Autoscalers that scale what an HPA scales.
func (p *process) ofHPA(ctx context.Context, o client.Object) []reconcile.Request {
	var all []reconcile.Request
	for _, key := range kube.TargetOfHPA(o) {
		all = append(all, p.find(ctx, o.GetNamespace(), client.MatchingFields{kube.ByTarget: key})...)
	}
	return all
}

// journal writes what is kept of an Autoscaler's rounds, as JSON. Only the replica that scales has it.
func (p *process) journal(namespace, name string, w io.Writer) error {
	select {
	case <-p.manager.Elected():
	default:
		return server.ErrNotLeader
	}
	entries, ok := p.records.Read(kube.Ref(types.NamespacedName{Namespace: namespace, Name: name}))
	if !ok {
		return server.ErrNoJournal
	}
	return json.NewEncoder(w).Encode(kube.Journal{Namespace: namespace, Name: name, Entries: entries})
}
