// Package adapter collects what sidecars and gateways say, keeps it in windows, answers the scaler by call, and serves the same
// numbers to HPAs as custom.metrics.k8s.io and external.metrics.k8s.io.
package adapter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sluice-autoscaler/sluice/adapter/collect"
	"github.com/sluice-autoscaler/sluice/adapter/provider"
	"github.com/sluice-autoscaler/sluice/adapter/server"
	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/internal/serve"
)

// Options configure an Adapter. Config, Log, Registerer and, where an API is served, Listen and Certificate are needed.
type Options struct {
	// Config is the cluster's address.
	Config *rest.Config
	Log    *slog.Logger
	// Registerer takes the metrics sluice_adapter_….
	Registerer prometheus.Registerer
	// Listen is the address of the metrics APIs ("host:port"), served with Certificate, which may change at any time.
	Listen      string
	Certificate dynamiccertificates.CertKeyContentProvider
	// Interval is how often each pod is read, 1 s–60 s. Lower follows demand sooner, at one small request per pod and interval.
	Interval time.Duration
	// DefaultWindow is the time over which served metrics are means when a request names none, 1 s–1 h. Lower follows demand
	// sooner, higher is calmer; 15 s is an HPA's own period.
	DefaultWindow time.Duration
	// Custom and External say which APIs to serve.
	Custom, External bool
	// OnReport, when given, is called with each gateway report at once. It must return within milliseconds.
	OnReport func(GatewayReport)
	// TokenFile, when not empty, holds the bearer token for gateways.
	TokenFile string
}

// Pod is a pod as it was last seen.
type Pod = store.Pod

// Gateway is a gateway as it was last heard of.
type Gateway = store.Gateway

// GatewayReport is news of one gateway: a report, or (Gateway.Connected false) the end of its stream.
type GatewayReport struct {
	Gateway Gateway
	// Urgent names the Services of which it says something that somebody waits for: requests are held, a port opened, closed or
	// failed, pods began or ceased to take requests, a wake-up went on.
	Urgent []types.NamespacedName
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
	if o.DefaultWindow < time.Second || o.DefaultWindow > time.Hour {
		errs = append(errs, fmt.Errorf("default window = %v: want 1s–1h", o.DefaultWindow))
	}
	if o.Custom || o.External {
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
	opts      Options
	store     *store.Store
	collector *collect.Collector
	heartbeat *serve.Heartbeat
	factory   informers.SharedInformerFactory
	// objects, provider and server are nil when no API is served.
	objects  *provider.Informers
	provider *provider.Provider
	server   *server.Server
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
		store:     store.New(store.Options{Interval: o.Interval}),
		heartbeat: serve.NewHeartbeat("adapter", collect.HeartbeatPeriod, time.Now()),
		factory:   informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(collect.Strip)),
	}
	a.collector, err = collect.New(collect.Options{
		Pods: a.factory.Core().V1().Pods().Informer(), Store: a.store, Log: o.Log, Registerer: o.Registerer, Interval: o.Interval,
		TokenFile: o.TokenFile, Heartbeat: a.heartbeat, OnReport: a.onReport,
	})
	if err != nil {
		return nil, err
	}
	if o.Custom || o.External {
		if err := a.serve(client); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// serve makes what serves the metrics APIs.
func (a *Adapter) serve(client kubernetes.Interface) error {
	var err error
	if a.objects, err = provider.NewInformers(client, a.opts.Log); err != nil {
		return err
	}
	a.provider, err = provider.New(provider.Options{Reader: a.store, Objects: a.objects, DefaultWindow: a.opts.DefaultWindow})
	if err != nil {
		return err
	}
	o := server.Options{
		Config: a.opts.Config, Listen: a.opts.Listen, Certificate: a.opts.Certificate, Ready: a.provider.Ready, Log: a.opts.Log,
	}
	if a.opts.Custom {
		o.Custom = a.provider
	}
	if a.opts.External {
		o.External = a.provider
	}
	a.server, err = server.New(o)
	return err
}

func (a *Adapter) onReport(g store.Gateway, urgent []types.NamespacedName) {
	if a.opts.OnReport != nil {
		a.opts.OnReport(GatewayReport{Gateway: g, Urgent: urgent})
	}
}

// Run works until ctx ends or a part fails, and returns when all that it started has ended.
func (a *Adapter) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	defer a.factory.Shutdown()
	a.factory.StartWithContext(ctx)
	g.Go(func() error { return a.collector.Run(ctx) })
	if a.server != nil {
		g.Go(func() error { return a.objects.Run(ctx) })
		g.Go(func() error { return a.server.Run(ctx) })
	}
	return g.Wait()
}

// Alive says why the adapter is hung; nil while its loop turns. It asks nobody else.
func (a *Adapter) Alive() error { return a.heartbeat.Alive(time.Now()) }

// Ready says why nothing can be answered yet; nil once everything has been listed and every pod has been read, or has failed to be,
// and from then on.
func (a *Adapter) Ready() error {
	if a.provider == nil {
		return a.store.Ready()
	}
	return errors.Join(a.provider.Ready(), a.server.Ready())
}

// Signals appends a signal for each need of the selected pods and of what gateways hold for the Services; see store.Store.Workload.
func (a *Adapter) Signals(now time.Time, namespace string, pods labels.Selector, services []string, needs []algorithms.Need, dst []algorithms.Signal) []algorithms.Signal {
	return a.store.Signals(now, namespace, pods, services, needs, dst)
}

// Pods lists the selected pods of a namespace that are not finished, by name.
func (a *Adapter) Pods(namespace string, selector labels.Selector) []Pod {
	return a.store.List(namespace, selector)
}

// Gateways lists the gateways, by name.
func (a *Adapter) Gateways() []Gateway { return a.store.Gateways() }
