// Package adapter reads what sidecars and gateways say, keeps it in windows, answers the scaler by
// call, and serves the same numbers to HPAs as custom.metrics.k8s.io and external.metrics.k8s.io.
//
// It joins four rooms: discover (which pods and gateways there are), scrape (what they say), store
// (their windows, by workload) and provider (the metrics APIs); server is the API server.
package adapter

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	metricsapi "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/sluice-autoscaler/sluice/adapter/delegate"
	"github.com/sluice-autoscaler/sluice/adapter/delegate/remote"
	"github.com/sluice-autoscaler/sluice/adapter/discover"
	"github.com/sluice-autoscaler/sluice/adapter/fetch"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/cluster"
	querypreset "github.com/sluice-autoscaler/sluice/adapter/fetch/preset"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/signal"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/source"
	"github.com/sluice-autoscaler/sluice/adapter/provider"
	"github.com/sluice-autoscaler/sluice/adapter/scrape"
	"github.com/sluice-autoscaler/sluice/adapter/scrape/preset"
	"github.com/sluice-autoscaler/sluice/adapter/server"
	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/internal/serve"
	"github.com/sluice-autoscaler/sluice/wire"
)

// Options configure an Adapter. Config, Log, Registerer, GatewayNamespace, GatewayServiceAccount
// and, where an API is served, Listen and Certificate are needed.
type Options struct {
	// Config is the cluster's address.
	Config *rest.Config
	Log    *slog.Logger
	// Registerer takes the metrics sluice_adapter_….
	Registerer prometheus.Registerer
	// Listen is the address of the APIs ("host:port"), served with Certificate, which may change at
	// any time.
	Listen      string
	Certificate dynamiccertificates.CertKeyContentProvider
	// Interval is how often each pod is read, 1 s–60 s. Lower follows demand sooner, at one small
	// request per pod and interval.
	Interval time.Duration
	// IdleInterval is how often a pod is read of which nothing has changed for ten reads; 0 means
	// Interval, the least that is allowed, and 60 s are the most. Longer costs fewer reads of idle
	// pods; what changes at one is seen later by that, and a pod that cannot be read is missed
	// after three times as long.
	IdleInterval time.Duration
	// DefaultWindow is the time over which served metrics are means when a request names none,
	// 1 s–1 h. Lower follows demand sooner, higher is calmer; 15 s is an HPA's own period.
	DefaultWindow time.Duration
	// Presets say how pods without a sidecar are read; nil: not at all.
	Presets *preset.Set
	// Custom and External say which metrics APIs to serve.
	Custom, External bool
	// Prometheus, when given, serves metrics of rules besides, where an API is served.
	Prometheus *PrometheusOptions
	// Delegates, when given, pass requests on to other providers, where an API is served.
	Delegates *DelegateOptions
	// Registration says what is watched of the APIServices.
	Registration server.RegistrationOptions
	// Journal, when given, answers the API of explain.sluice.dev; see server.Options.
	Journal server.Journal
	// GatewayNamespace and GatewayServiceAccount are those of the gateways' pods; see
	// discover.Options.
	GatewayNamespace, GatewayServiceAccount string
	// OnImpostor, when given, is told once of each pod that only looks like a gateway. It must
	// return within milliseconds.
	OnImpostor func(pod *corev1.Pod)
	// TLS is how gateways are spoken to; see scrape.Options. Nil means plain HTTP.
	TLS func() *tls.Config
	// Assigned, when given, says whether a gateway was given a port that it reports; see
	// scrape.Options.
	Assigned func(gateway string, p *wire.PortReport) bool
	// Metrics, when given, answers /metrics of the APIs' server, to who may get that path.
	Metrics http.Handler
	// OnSilentGateway, when given, is told once of each gateway that runs and does not report; see
	// store.Options.
	OnSilentGateway func(g GatewayPod)
	// OnReport, when given, is called with each gateway report at once. It must return within
	// milliseconds.
	OnReport func(GatewayReport)
}

// PrometheusOptions say which rules are served, and from where.
type PrometheusOptions struct {
	Config source.Config
	// Rules is the file of rules.
	Rules string
	// Resource serves metrics.k8s.io from its resourceRules.
	Resource bool
}

// DelegateOptions say which other providers there are.
type DelegateOptions struct {
	// File is the file of delegates.
	File string
	// Namespace and ServiceAccount are of what Sluice is to them; without a ServiceAccount each
	// needs an identity in the file.
	Namespace, ServiceAccount string
}

// Binding says where a workload's demand is read.
type Binding = store.Binding

// Pod is a pod as it was last seen.
type Pod = store.Pod

// GatewayPod is a gateway's pod as it was last seen.
type GatewayPod = store.GatewayPod

// GatewayReport is news of one gateway: a report, or (Gateway.Connected false) the end of its
// stream.
type GatewayReport struct {
	Gateway wire.Gateway
	// Urgent names the Services of which it says something that somebody waits for: requests are
	// held, a port opened, closed or failed, pods began or ceased to take requests, a wake-up went
	// on.
	Urgent []types.NamespacedName
}

// stale is the age beyond which a pod that is expected to report is missed.
func (o *Options) stale() time.Duration {
	return max(3*o.Interval, 3*o.IdleInterval, 5*time.Second)
}

// signals names what presets give.
func (o *Options) signals() []string {
	if o.Presets == nil {
		return nil
	}
	return o.Presets.Signals()
}

// serves says that an API is served.
func (o *Options) serves() bool {
	return o.Custom || o.External || o.Journal != nil || o.Metrics != nil
}

// Validate reports every fault.
func (o *Options) Validate() error {
	var errs []error
	if o.Config == nil || o.Log == nil || o.Registerer == nil {
		errs = append(errs, errors.New("config, log and registerer are needed"))
	}
	if o.Interval < time.Second || o.Interval > time.Minute {
		errs = append(errs, fmt.Errorf("interval = %v: want 1s–1m", o.Interval))
	}
	if o.IdleInterval != 0 && (o.IdleInterval < o.Interval || o.IdleInterval > time.Minute) {
		errs = append(errs, fmt.Errorf("idle interval = %v: want 0s, or the interval (%v) to 1m", o.IdleInterval, o.Interval))
	}
	if o.DefaultWindow < time.Second || o.DefaultWindow > time.Hour {
		errs = append(errs, fmt.Errorf("default window = %v: want 1s–1h", o.DefaultWindow))
	}
	if o.GatewayNamespace == "" || o.GatewayServiceAccount == "" {
		errs = append(errs, errors.New("the gateways' namespace and ServiceAccount are needed"))
	}
	if o.serves() {
		if _, _, err := net.SplitHostPort(o.Listen); err != nil {
			errs = append(errs, fmt.Errorf("listen = %q: want host:port, such as :6443", o.Listen))
		}
		if o.Certificate == nil {
			errs = append(errs, errors.New("a certificate is needed to serve the metrics APIs"))
		}
	}
	return errors.Join(errs...)
}

// Adapter is the whole of it. Its methods are safe for concurrent use; Run runs once.
type Adapter struct {
	opts       Options
	store      *store.Store
	scraper    *scrape.Scraper
	discoverer *discover.Discoverer
	heartbeat  *serve.Heartbeat
	factory    informers.SharedInformerFactory
	// objects and provider are nil when no metrics API is served, server when no API is.
	objects  *provider.Informers
	provider *provider.Provider
	server   *server.Server
	// engine and signals are nil without rules, presets besides where no metrics API is served,
	// delegates without other providers.
	engine  *fetch.Engine
	signals *signal.Signals
	presets *querypreset.Set
	// named are the signals that presets of pods give.
	named     []string
	delegates *delegate.Delegates
	// changes is sent to when metrics of either have changed; changing are what it gathers.
	changes  chan struct{}
	changing []<-chan struct{}
}

// New returns an Adapter that has not started.
func New(o Options) (*Adapter, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(o.Config)
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	a := &Adapter{
		opts:      o,
		named:     o.signals(),
		store:     store.New(store.Options{Interval: o.Interval, Stale: o.stale(), Signals: o.signals(), OnSilentGateway: o.OnSilentGateway}),
		heartbeat: serve.NewHeartbeat("adapter", store.SweepPeriod, time.Now()),
		factory:   informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(discover.Strip)),
		changes:   make(chan struct{}, 1),
	}
	a.scraper, err = scrape.New(scrape.Options{
		Store: a.store, Log: o.Log, Registerer: o.Registerer, Presets: o.Presets, Interval: o.Interval, IdleInterval: o.IdleInterval,
		Stale: o.stale(), TLS: o.TLS, Assigned: o.Assigned, OnReport: a.onReport,
	})
	if err != nil {
		return nil, err
	}
	if o.serves() {
		if err := a.serve(client); err != nil {
			return nil, err
		}
	}
	do := discover.Options{
		Pods: a.factory.Core().V1().Pods().Informer(), Sink: a.scraper, Presets: o.Presets, Log: o.Log,
		GatewayNamespace: o.GatewayNamespace, GatewayServiceAccount: o.GatewayServiceAccount, OnImpostor: o.OnImpostor,
	}
	if a.objects != nil {
		do.PresetOf = a.objects.PresetOf
	}
	if a.discoverer, err = discover.New(do); err != nil {
		return nil, err
	}
	return a, nil
}

// serve makes what serves the APIs.
func (a *Adapter) serve(client kubernetes.Interface) error {
	o := server.Options{
		Config: a.opts.Config, Listen: a.opts.Listen, Certificate: a.opts.Certificate, Log: a.opts.Log, Journal: a.opts.Journal, Metrics: a.opts.Metrics,
		Registerer: a.opts.Registerer, Registration: a.opts.Registration, Changes: a.changes,
	}
	var err error
	if a.opts.Custom || a.opts.External {
		var annotations []string
		var presets provider.Presets
		if a.opts.Prometheus != nil {
			if a.presets, err = querypreset.New(a.opts.Prometheus.Config.Presets); err != nil {
				return err
			}
			annotations, presets = []string{querypreset.Annotation, querypreset.MetricAnnotation}, presetValues{a}
		}
		if a.objects, err = provider.NewInformers(client, a.opts.Log, a.opts.Presets, annotations...); err != nil {
			return err
		}
		a.provider, err = provider.New(provider.Options{
			Metrics: provider.RequestMetrics(a.store, a.objects, presets, a.opts.signals()...), DefaultWindow: a.opts.DefaultWindow,
		})
		if err != nil {
			return err
		}
		o.Ready = a.provider.Ready
		var served metricsapi.MetricsProvider = a.provider
		if a.opts.Prometheus != nil {
			if err := a.fetch(client); err != nil {
				return err
			}
			served, a.changing = provider.NewUnion(a.provider, a.engine), append(a.changing, a.engine.Changes())
			o.Explain = a.explain
			if a.opts.Prometheus.Resource {
				o.Resource = a.engine
			}
			o.Ready = func() error { return errors.Join(a.provider.Ready(), a.engine.Ready()) }
		}
		if a.opts.Delegates != nil {
			if err := a.delegate(client); err != nil {
				return err
			}
			served, a.changing = provider.NewUnion(a.provider, a.delegates), append(a.changing, a.delegates.Changes())
			o.Explain, o.Filter = a.explain, remote.KeepPath
		}
		if a.opts.Custom {
			o.Custom = served
		}
		if a.opts.External {
			o.External = served
		}
	}
	a.server, err = server.New(o)
	return err
}

// fetch makes the engine of rules.
func (a *Adapter) fetch(client kubernetes.Interface) error {
	objects, err := metadata.NewForConfig(a.opts.Config)
	if err != nil {
		return fmt.Errorf("reach the cluster: %w", err)
	}
	hpas := a.factory.Autoscaling().V2().HorizontalPodAutoscalers()
	hpas.Informer()
	a.engine, err = fetch.New(fetch.Options{
		Config: a.opts.Prometheus.Config, Rules: a.opts.Prometheus.Rules, Log: a.opts.Log, Registerer: a.opts.Registerer,
		Mapper:  cluster.NewMapper(client.Discovery()),
		Objects: cluster.NewObjects(a.factory.Core().V1().Pods().Informer(), objects),
		Demand: func() []*autoscalingv2.HorizontalPodAutoscaler {
			all, err := hpas.Lister().List(labels.Everything())
			if err != nil {
				return nil // the lister reads memory and does not fail
			}
			return all
		},
		Reserved: a.provider.Serves,
	})
	if err != nil {
		return err
	}
	a.signals, err = signal.New(signal.Options{
		Config: a.opts.Prometheus.Config, Rules: a.engine, Pods: a.podNames, Choose: a.choose, Elsewhere: a.byPods, Observe: a.engine.Observe,
		Log: a.opts.Log, Registerer: a.opts.Registerer,
	})
	return err
}

func (a *Adapter) onReport(g wire.Gateway, urgent []types.NamespacedName) {
	if a.opts.OnReport != nil {
		a.opts.OnReport(GatewayReport{Gateway: g, Urgent: urgent})
	}
}

// Run works until ctx ends or a part fails, and returns when all that it started has ended.
func (a *Adapter) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if a.objects != nil {
		err := a.objects.OnPreset(func(namespace string, pods labels.Selector) { a.discoverer.Refresh(ctx, namespace, pods) })
		if err != nil {
			return fmt.Errorf("watch workloads: %w", err)
		}
	}
	defer a.factory.Shutdown()
	a.factory.StartWithContext(ctx)
	g.Go(func() error { return a.store.Run(ctx, a.heartbeat.Beat) })
	g.Go(func() error { return a.scraper.Run(ctx) })
	g.Go(func() error { return a.discoverer.Run(ctx) })
	if a.objects != nil {
		g.Go(func() error { return a.objects.Run(ctx) })
	}
	if a.engine != nil {
		g.Go(func() error { return a.engine.Run(ctx) })
		g.Go(func() error { return a.signals.Run(ctx) })
	}
	if a.delegates != nil {
		g.Go(func() error { return a.delegates.Run(ctx) })
	}
	for _, c := range a.changing {
		g.Go(func() error { return a.gather(ctx, c) })
	}
	if a.server != nil {
		g.Go(func() error { return a.server.Run(ctx) })
	}
	return g.Wait()
}

// Alive says why the adapter hangs; nil while its loop turns. It asks nobody else.
func (a *Adapter) Alive() error { return a.heartbeat.Alive(time.Now()) }

// Ready says why nothing can be answered yet; nil once everything has been listed and every pod has
// been read, or has failed to be, and from then on.
func (a *Adapter) Ready() error {
	var errs []error
	if a.provider != nil {
		errs = append(errs, a.provider.Ready())
	} else {
		errs = append(errs, a.store.Ready())
	}
	if a.engine != nil {
		errs = append(errs, a.engine.Ready())
	}
	if a.server != nil {
		errs = append(errs, a.server.Ready())
	}
	return errors.Join(errs...)
}

// SourcesHealthy says what is wrong with the sources of rules, and with the rules' file; nil for
// nothing.
func (a *Adapter) SourcesHealthy() error {
	if a.engine == nil {
		return nil
	}
	return a.engine.Healthy()
}

// DelegatesHealthy says what is wrong with other providers, and with their file; nil for nothing.
func (a *Adapter) DelegatesHealthy() error {
	if a.delegates == nil {
		return nil
	}
	return a.delegates.Healthy()
}

// Registered names the APIServices that are missing of the APIs that are served, and those that
// somebody else has written to.
func (a *Adapter) Registered() error {
	if a.server == nil {
		return nil
	}
	return a.server.Registered()
}

// Bind says where a workload's demand is read from now on. It does nothing when that has not
// changed, and costs little then.
func (a *Adapter) Bind(ref loop.Ref, b Binding) { a.store.Bind(ref, b) }

// Unbind drops a workload.
func (a *Adapter) Unbind(ref loop.Ref) {
	a.store.Unbind(ref)
	if a.signals != nil {
		a.signals.Forget(ref)
	}
}

// Instances appends the workload's pods that exist and have not finished, by name.
func (a *Adapter) Instances(ref loop.Ref, dst []loop.Instance) []loop.Instance {
	return a.store.Instances(ref, dst)
}

// SelectedSignals appends a signal for each need of the selected pods and of what gateways hold for
// the Services. Signals answers the same for a workload that is bound, at less cost.
func (a *Adapter) SelectedSignals(now time.Time, namespace string, pods labels.Selector, services []string, needs []algorithms.Need, dst []algorithms.Signal) []algorithms.Signal {
	return a.store.SelectedSignals(now, namespace, pods, services, needs, dst)
}

// Pods lists the selected pods of a namespace that are not finished, by name.
func (a *Adapter) Pods(namespace string, selector labels.Selector) []Pod {
	return a.store.List(namespace, selector)
}

// Gateways lists the gateways, by name.
func (a *Adapter) Gateways() []wire.Gateway { return a.store.Gateways() }
