package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/clientcmd"
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
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/internal/pki"
	"github.com/sluice-autoscaler/sluice/internal/pki/secrets"
	"github.com/sluice-autoscaler/sluice/internal/serve"
	"github.com/sluice-autoscaler/sluice/scaler"
	"github.com/sluice-autoscaler/sluice/scaler/activation"
	"github.com/sluice-autoscaler/sluice/scaler/actuate"
	"github.com/sluice-autoscaler/sluice/scaler/plugin"
)

// process is the assembled controller.
type process struct {
	options
	log     *slog.Logger
	cert    *secrets.Keeper
	adapter *adapter.Adapter
	manager manager.Manager
	// assigner and pokes belong to the scaler and are nil without it.
	assigner *activation.Assigner
	pokes    chan event.GenericEvent
}

// config loads the cluster's address and the controller's own namespace.
func config(o *options) (*rest.Config, error) {
	var (
		c   *rest.Config
		err error
	)
	if o.kubeconfig != "" {
		c, err = clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	} else {
		c, err = rest.InClusterConfig()
	}
	if err != nil {
		return nil, fmt.Errorf("load the cluster's address: %w (give --kubeconfig outside a cluster)", err)
	}
	c.QPS, c.Burst, c.UserAgent = o.qps, o.burst, "sluice-controller/"+version
	if o.namespace == "" {
		raw, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
		if err != nil {
			return nil, fmt.Errorf("find the controller's namespace: %w (give --namespace)", err)
		}
		o.namespace = strings.TrimSpace(string(raw))
	}
	return c, nil
}

// assemble makes all parts and starts none.
func assemble(ctx context.Context, o options, reg prometheus.Registerer, log *slog.Logger) (*process, error) {
	cfg, err := config(&o)
	if err != nil {
		return nil, err
	}
	kube, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	p := &process{options: o, log: log}
	co := secrets.Options{
		Kube: kube, Dynamic: dyn, Namespace: o.namespace, Issue: o.issueCertificates, Policy: pki.DefaultPolicy(), Log: log, Clock: time.Now,
	}
	if o.apiCustom {
		co.APIServices = append(co.APIServices, "v1beta1.custom.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io")
	}
	if o.apiExternal {
		co.APIServices = append(co.APIServices, "v1beta1.external.metrics.k8s.io")
	}
	if o.scaler {
		co.APIServices = append(co.APIServices, server.JournalVersion+"."+server.JournalGroup)
	}
	p.cert = secrets.New(co)
	if err := p.cert.Ensure(ctx); err != nil {
		return nil, err
	}
	ao := adapter.Options{
		Config: cfg, Log: log, Registerer: reg, Listen: o.apiListen, Certificate: p.cert,
		Interval: o.collectInterval, DefaultWindow: o.metricsWindow, Custom: o.apiCustom, External: o.apiExternal,
		GatewayNamespace: o.namespace, GatewayServiceAccount: o.gatewayServiceAccount, TLS: p.cert.ClientTLS, OnImpostor: p.onImpostor, OnReport: p.onReport,
	}
	if o.scaler {
		ao.Journal = p.journal
	}
	p.adapter, err = adapter.New(ao)
	if err != nil {
		return nil, fmt.Errorf("assemble the adapter: %w", err)
	}
	if o.scaler {
		if err := p.assembleScaler(cfg, kube, reg); err != nil {
			return nil, fmt.Errorf("assemble the scaler: %w", err)
		}
	}
	return p, nil
}

func (p *process) assembleScaler(cfg *rest.Config, kube kubernetes.Interface, reg prometheus.Registerer) error {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), discoveryv1.AddToScheme(scheme), autoscalingv2.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	lease, renew, retry := 8*time.Second, 5*time.Second, time.Second
	m, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
		LeaderElection: p.leaderElect, LeaderElectionID: "sluice-controller", LeaderElectionNamespace: p.namespace, LeaderElectionReleaseOnCancel: true,
		LeaseDuration: &lease, RenewDeadline: &renew, RetryPeriod: &retry,
		Cache: cache.Options{DefaultTransform: cache.TransformStripManagedFields()},
	})
	if err != nil {
		return err
	}
	resolver := scale.NewDiscoveryScaleKindResolver(kube.Discovery())
	scales, err := scale.NewForConfig(cfg, m.GetRESTMapper(), dynamic.LegacyAPIPathResolverFunc, resolver)
	if err != nil {
		return err
	}
	p.manager = m
	p.pokes = make(chan event.GenericEvent, 1024)
	p.assigner = activation.NewAssigner(gatewayClient(p.cert.ClientTLS), time.Now().UnixNano(), nil, p.log)
	timing := activation.DefaultTiming()
	timing.Grace = p.grace
	so := scaler.Options{
		Client: m.GetClient(), Observer: observer{p.adapter}, Actuator: actuate.New(scales, m.GetRESTMapper()), Assigner: p.assigner,
		Recorder: m.GetEventRecorder("sluice"), Log: p.log, Metrics: reg, Clock: time.Now,
		Tick: p.tick, Timing: timing, Ports: activation.DefaultPorts(),
		Policies: catalog.Default(plugin.Entry()),
	}
	if p.history.prometheus != "" {
		past, err := p.history.reader(p.log)
		if err != nil {
			return err
		}
		so.History = targetHistory{past}
	}
	r := scaler.New(so)
	err = ctrl.NewControllerManagedBy(m).Named("autoscaler").
		For(&v1alpha1.Autoscaler{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&discoveryv1.EndpointSlice{}, handler.EnqueueRequestsFromMapFunc(p.ofService)).
		Watches(&autoscalingv2.HorizontalPodAutoscaler{}, handler.EnqueueRequestsFromMapFunc(p.ofNamespace), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(source.Channel(p.pokes, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: 16,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](10*time.Millisecond, 5*time.Second),
		}).
		Complete(r)
	if err != nil {
		return err
	}
	return errors.Join(m.Add(manager.RunnableFunc(r.Run)), m.Add(manager.RunnableFunc(p.scale)))
}

// gatewayClient makes the client for pushes to gateways.
func gatewayClient(config func() *tls.Config) *http.Client {
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		c := config()
		if c == nil {
			return nil, errors.New("there is no certificate for gateways yet")
		}
		return (&tls.Dialer{Config: c}).DialContext(ctx, network, address)
	}
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialTLSContext: dial}}
}

// scale runs while this replica holds the lease: it pushes assignments once every Autoscaler has had a round.
func (p *process) scale(ctx context.Context) error {
	var all v1alpha1.AutoscalerList
	if err := p.manager.GetClient().List(ctx, &all); err != nil {
		return fmt.Errorf("list Autoscalers: %w", err)
	}
	keys := make([]string, 0, len(all.Items))
	for i := range all.Items {
		keys = append(keys, client.ObjectKeyFromObject(&all.Items[i]).String())
	}
	p.assigner.Observe(observer{p.adapter}.Gateways())
	p.assigner.Expect(keys)
	return p.assigner.Run(ctx)
}

// onReport hands a gateway's report on: to the assigner, and, when it tells of held requests, of a wake-up seen through or of a
// changed gateway, to the Autoscalers concerned, at once.
func (p *process) onReport(r adapter.GatewayReport) {
	if p.assigner == nil {
		return
	}
	p.assigner.Observe(observer{p.adapter}.Gateways())
	select {
	case <-p.manager.Elected():
	default:
		return
	}
	for _, s := range r.Urgent {
		for _, key := range p.named(context.Background(), s.Namespace, s.Name) {
			p.poke(key)
		}
	}
}

// onImpostor makes an event of a pod that only looks like a gateway.
func (p *process) onImpostor(pod *corev1.Pod) {
	if p.manager != nil {
		p.manager.GetEventRecorder("sluice").Eventf(pod, nil, corev1.EventTypeWarning, "GatewayImpostor", "Ignore",
			"it has the label and port of a Sluice gateway and is none: gateways are pods of ServiceAccount %s in namespace %s; it gets no connection and no traffic", p.gatewayServiceAccount, p.namespace)
	}
}

// journal answers the journal's API. No journal is kept yet.
func (p *process) journal(_, _ string, _ io.Writer) error { return server.ErrNoJournal }

// poke asks for a round of one Autoscaler; a full queue has a round of everything coming anyway, within a tick.
func (p *process) poke(key types.NamespacedName) {
	as := &v1alpha1.Autoscaler{}
	as.Namespace, as.Name = key.Namespace, key.Name
	select {
	case p.pokes <- event.GenericEvent{Object: as}:
	default:
	}
}

// named lists the Autoscalers of a Service, from the cache.
func (p *process) named(ctx context.Context, namespace, service string) []types.NamespacedName {
	var all v1alpha1.AutoscalerList
	if err := p.manager.GetClient().List(ctx, &all, client.InNamespace(namespace)); err != nil {
		p.log.WarnContext(ctx, "autoscalers not listed", slog.Any("error", err))
		return nil
	}
	var keys []types.NamespacedName
	for i := range all.Items {
		if ref := all.Items[i].Spec.ServiceRef; service == "" || ref != nil && ref.Name == service {
			keys = append(keys, client.ObjectKeyFromObject(&all.Items[i]))
		}
	}
	return keys
}

func (p *process) ofService(ctx context.Context, o client.Object) []reconcile.Request {
	return requests(p.named(ctx, o.GetNamespace(), o.GetLabels()[discoveryv1.LabelServiceName]))
}

func (p *process) ofNamespace(ctx context.Context, o client.Object) []reconcile.Request {
	return requests(p.named(ctx, o.GetNamespace(), ""))
}

func requests(keys []types.NamespacedName) []reconcile.Request {
	out := make([]reconcile.Request, 0, len(keys))
	for _, k := range keys {
		out = append(out, reconcile.Request{NamespacedName: k})
	}
	return out
}

// run starts everything and ends with the first part that fails, or with ctx.
func (p *process) run(ctx context.Context, metrics http.Handler) error {
	mux := http.NewServeMux()
	mux.Handle("/metrics", metrics)
	mux.Handle("/healthz", serve.Health())
	mux.Handle("/readyz", serve.Health(serve.Check{Name: "adapter", Probe: func(context.Context) error { return p.adapter.Ready() }}))
	web := &http.Server{Addr: p.metricsListen, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := web.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve metrics: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		return web.Shutdown(stop)
	})
	g.Go(func() error { return p.cert.Run(ctx) })
	g.Go(func() error { return p.adapter.Run(ctx) })
	if p.manager != nil {
		g.Go(func() error {
			if err := p.manager.Start(ctx); err != nil {
				return fmt.Errorf("run the scaler: %w", err)
			}
			return nil
		})
	}
	return g.Wait()
}

// observer adapts the adapter to scaler.Observer.
type observer struct{ *adapter.Adapter }

// Signals answers for selected pods.
func (o observer) Signals(now time.Time, namespace string, pods labels.Selector, services []string, needs []algorithms.Need, dst []algorithms.Signal) []algorithms.Signal {
	return o.SelectedSignals(now, namespace, pods, services, needs, dst)
}

// Pods lists a workload's pods.
func (o observer) Pods(namespace string, sel labels.Selector) []scaler.Pod {
	list := o.Adapter.Pods(namespace, sel)
	out := make([]scaler.Pod, 0, len(list))
	states := map[algorithms.PodState]scaler.PodState{
		algorithms.PodStarting: scaler.PodStarting, algorithms.PodReady: scaler.PodReady, algorithms.PodTerminating: scaler.PodTerminating,
	}
	for _, p := range list {
		out = append(out, scaler.Pod{
			Name: p.Name, IP: p.IP, State: states[p.State], Created: p.Created, Scheduled: p.Scheduled, Started: p.Started, Ready: p.Ready, Limit: p.Limit, Trouble: p.Trouble,
		})
	}
	return out
}

// Gateways lists the gateways.
func (o observer) Gateways() []activation.Gateway {
	list := o.Adapter.Gateways()
	out := make([]activation.Gateway, 0, len(list))
	for _, g := range list {
		out = append(out, activation.Gateway(g))
	}
	return out
}
