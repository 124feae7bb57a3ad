// Package server runs the aggregated API server: custom.metrics.k8s.io in v1beta1 and v1beta2 and
// external.metrics.k8s.io in v1beta1, as JSON and protobuf, and explain.sluice.dev, all behind the
// cluster's own authentication and authorization.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/endpoints"
	"k8s.io/apiserver/pkg/endpoints/discovery"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/server/healthz"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	openapicommon "k8s.io/kube-openapi/pkg/common"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/apiserver"
	generatedcore "sigs.k8s.io/custom-metrics-apiserver/pkg/generated/openapi/core"
	generatedcustom "sigs.k8s.io/custom-metrics-apiserver/pkg/generated/openapi/custommetrics"
	generatedexternal "sigs.k8s.io/custom-metrics-apiserver/pkg/generated/openapi/externalmetrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
)

// name names the server in openapi documents and logs.
const name = "sluice-adapter"

// Options say what is served and how.
type Options struct {
	// Config reaches the cluster's API server, which is asked who a caller is and what it may do.
	// It needs the right to create TokenReviews and SubjectAccessReviews and to read the ConfigMap
	// extension-apiserver-authentication in kube-system.
	Config *rest.Config
	// Listen is the host:port to serve on; an empty host means every address. Listener, when set,
	// is served on instead.
	Listen   string
	Listener net.Listener
	// Certificate is the serving certificate. It may change at any time; its listeners are told.
	Certificate dynamiccertificates.CertKeyContentProvider
	// Custom and External answer the APIs; one that is nil is not served.
	Custom   provider.CustomMetricsProvider
	External provider.ExternalMetricsProvider
	// Resource answers metrics.k8s.io; nil means that it is not served.
	Resource Resource
	// Changes is received from when the lists of metrics have changed; nil means that they do not.
	Changes <-chan struct{}
	// Journal answers the API of explain.sluice.dev; nil means that it is not served.
	Journal Journal
	// Explain, when given, explains metrics besides the journal.
	Explain ExplainMetric
	// Filter, when given, wraps what answers requests that were authorized.
	Filter func(http.Handler) http.Handler
	// Registration says what is watched of the APIServices besides whether they exist.
	Registration RegistrationOptions
	// Metrics answers /metrics to who may get that path. Nil means that the library's own metrics
	// are served there.
	Metrics http.Handler
	// Ready gates /readyz; nil gates nothing.
	Ready func() error
	Log   *slog.Logger
	// Registerer takes the server's own metrics, sluice_adapter_…; nil takes none.
	Registerer prometheus.Registerer
}

// Validate names every fault of the options.
func (o Options) Validate() error {
	var errs []error
	if o.Config == nil {
		errs = append(errs, errors.New("config is missing"))
	}
	if o.Listener == nil {
		if _, _, err := net.SplitHostPort(o.Listen); err != nil {
			errs = append(errs, fmt.Errorf("listen = %q: want host:port: %w", o.Listen, err))
		}
	}
	if o.Certificate == nil {
		errs = append(errs, errors.New("certificate is missing"))
	}
	if o.Custom == nil && o.External == nil && o.Journal == nil && o.Metrics == nil {
		errs = append(errs, errors.New("custom, external, journal and metrics are all missing: there is nothing to serve"))
	}
	if o.Log == nil {
		errs = append(errs, errors.New("log is missing"))
	}
	return errors.Join(errs...)
}

// Server is the API server.
type Server struct {
	options      Options
	registration *registration
	// rediscover writes the discovery documents again; prepare sets it.
	rediscover func() error
	// identified says why users cannot be told yet; nil until it serves.
	identified atomic.Pointer[func() error]
}

// New makes a Server and starts nothing.
func New(o Options) (*Server, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("make the metrics API server: %w", err)
	}
	r, err := newRegistration(o.apiServices(), o.Registration, o.Log, o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("make the metrics API server: %w", err)
	}
	return &Server{options: o, registration: r}, nil
}

// Registered names the APIServices of what is served that do not exist, so that nobody is answered,
// and those that somebody else has written to.
// It is safe for concurrent use.
func (s *Server) Registered() error { return s.registration.fault() }

// Ready says why requests are refused whatever the metrics are: it does not serve yet, or has not
// read who the aggregation layer is. It is safe for concurrent use.
func (s *Server) Ready() error {
	identified := s.identified.Load()
	if identified == nil {
		return errors.New("the metrics APIs are not served yet")
	}
	return (*identified)()
}

// Run serves until ctx ends, then answers what it has begun and returns. It is called once.
//
// The cluster's API server need not be reachable when it starts: until it is, callers are refused
// and /readyz fails.
func (s *Server) Run(ctx context.Context) error {
	listener := s.options.Listener
	if listener == nil {
		var err error
		if listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", s.options.Listen); err != nil {
			return fmt.Errorf("listen for the metrics APIs: %w", err)
		}
	}
	defer listener.Close() //nolint:errcheck // the server has closed it already, unless it never started
	prepared, err := s.prepare(listener)
	if err != nil {
		return fmt.Errorf("prepare the metrics API server: %w", err)
	}
	s.options.Log.InfoContext(ctx, "serving metrics apis", slog.String("address", listener.Addr().String()),
		slog.Bool("custom", s.options.Custom != nil), slog.Bool("external", s.options.External != nil), slog.Bool("journal", s.options.Journal != nil))
	ctx, cancel := context.WithCancel(ctx)
	var following sync.WaitGroup
	following.Go(func() { s.registration.run(ctx) })
	following.Go(func() { s.followChanges(ctx) })
	err = prepared(ctx)
	cancel()
	following.Wait()
	if err != nil {
		return fmt.Errorf("serve the metrics APIs: %w", err)
	}
	return nil
}

// followChanges keeps the discovery documents up to date until ctx ends.
func (s *Server) followChanges(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.options.Changes:
		}
		if err := s.rediscover(); err != nil {
			s.options.Log.ErrorContext(ctx, "discovery not updated", slog.Any("error", err))
		}
	}
}

// prepare sets by code what such a server's flags otherwise set. It does no I/O.
func (s *Server) prepare(listener net.Listener) (run func(context.Context) error, err error) {
	o := s.options
	client, err := reviewer(o.Config)
	if err != nil {
		return nil, err
	}
	s.registration.client = client.Discovery().RESTClient()
	if s.registration.watcher, err = watcher(o.Config); err != nil {
		return nil, err
	}
	config := genericapiserver.NewConfig(apiserver.Codecs)
	config.ExternalAddress = listener.Addr().String()
	config.BuildHandlerChainFunc = func(h http.Handler, c *genericapiserver.Config) http.Handler {
		h = checkSelectors(h)
		if o.Filter != nil {
			h = o.Filter(h)
		}
		return genericapiserver.DefaultBuildHandlerChain(h, c)
	}
	config.EnableProfiling, config.EnableMetrics = false, o.Metrics == nil
	// The default checks also watch klog, with a goroutine that nothing ends, though nothing here
	// depends on klog.
	config.HealthzChecks, config.LivezChecks, config.ReadyzChecks = ping(), ping(), ping()
	config.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(o.definitions, openapinamer.NewDefinitionNamer(apiserver.Scheme))
	config.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(o.definitions, openapinamer.NewDefinitionNamer(apiserver.Scheme))
	config.OpenAPIConfig.Info.Title, config.OpenAPIV3Config.Info.Title = name, name
	config.OpenAPIConfig.Info.Version, config.OpenAPIV3Config.Info.Version = "v1", "v1"

	serving := genericoptions.NewSecureServingOptions()
	serving.Listener, serving.ServerCert.GeneratedCert = listener, o.Certificate
	if err := serving.WithLoopback().ApplyTo(&config.SecureServing, &config.LoopbackClientConfig); err != nil {
		return nil, fmt.Errorf("set up TLS: %w", err)
	}
	identified, err := authenticate(config, client)
	if err != nil {
		return nil, fmt.Errorf("set up authentication: %w", err)
	}
	s.identified.Store(&identified)
	if err := authorize(config, client); err != nil {
		return nil, fmt.Errorf("set up authorization: %w", err)
	}
	complete := (&apiserver.Config{GenericConfig: config}).Complete(nil)
	server, err := complete.New(name, o.Custom, o.External)
	if err != nil {
		return nil, err
	}
	generic := server.GenericAPIServer
	if err := o.discover(generic, true); err != nil {
		return nil, fmt.Errorf("set up discovery: %w", err)
	}
	s.rediscover = func() error { return o.discover(generic, false) }
	if o.Resource != nil {
		if err := serveResource(generic, o.Resource); err != nil {
			return nil, fmt.Errorf("set up metrics.k8s.io: %w", err)
		}
	}
	if o.Journal != nil {
		if err := serveJournal(generic, o.Journal, o.Explain); err != nil {
			return nil, fmt.Errorf("set up the journal's API: %w", err)
		}
	}
	if o.Metrics != nil {
		generic.Handler.NonGoRestfulMux.Handle("/metrics", o.Metrics)
	}
	checks := []healthz.HealthChecker{healthz.NamedCheck("authentication-config", func(*http.Request) error { return identified() })}
	if o.Ready != nil {
		checks = append(checks, healthz.NamedCheck("metrics", func(*http.Request) error { return o.Ready() }))
	}
	if err := generic.AddReadyzChecks(checks...); err != nil {
		return nil, fmt.Errorf("set up readyz: %w", err)
	}
	return generic.PrepareRun().RunWithContext, nil
}

func ping() []healthz.HealthChecker { return []healthz.HealthChecker{healthz.PingHealthz} }

// reviewer is a client whose own rate limit does not make callers wait.
func reviewer(c *rest.Config) (kubernetes.Interface, error) {
	c = rest.CopyConfig(c)
	c.QPS, c.Burst, c.Timeout = 200, 400, reviewTimeout
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("make a client for reviews: %w", err)
	}
	return client, nil
}

// watcher is a client whose requests may last.
func watcher(c *rest.Config) (rest.Interface, error) {
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("make a client for watches: %w", err)
	}
	return client.Discovery().RESTClient(), nil
}

// discover writes the groups into the discovery documents with all their versions and resources.
// The library would name only the first version there, and none in the aggregated document, which
// is the one that the cluster's API server merges. The groups' own documents, which are made per
// request, change by themselves; groups says to add them.
func (o Options) discover(server *genericapiserver.GenericAPIServer, groups bool) error {
	add := func(group string, lister discovery.APIResourceLister) error {
		legacy := metav1.APIGroup{Name: group}
		for _, gv := range apiserver.Scheme.PrioritizedVersionsForGroup(group) {
			legacy.Versions = append(legacy.Versions, metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: gv.Version})
			resources, err := endpoints.ConvertGroupVersionIntoToDiscovery(lister.ListAPIResources())
			if err != nil {
				return fmt.Errorf("list the resources of %s: %w", gv, err)
			}
			server.AggregatedDiscoveryGroupManager.AddGroupVersion(group, apidiscoveryv2.APIVersionDiscovery{
				Version: gv.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent, Resources: resources,
			})
		}
		slices.SortFunc(legacy.Versions, func(a, b metav1.GroupVersionForDiscovery) int {
			return version.CompareKubeAwareVersionStrings(b.Version, a.Version)
		})
		legacy.PreferredVersion = legacy.Versions[0]
		if groups {
			server.DiscoveryGroupManager.AddGroup(legacy)
		}
		return nil
	}
	var errs []error
	if o.Custom != nil {
		errs = append(errs, add(custom_metrics.GroupName, provider.NewCustomMetricResourceLister(o.Custom)))
	}
	if o.External != nil {
		errs = append(errs, add(external_metrics.GroupName, provider.NewExternalMetricResourceLister(o.External)))
	}
	return errors.Join(errs...)
}

// definitions are the openapi definitions of what is served.
func (o Options) definitions(ref openapicommon.ReferenceCallback) map[string]openapicommon.OpenAPIDefinition {
	all := generatedcore.GetOpenAPIDefinitions(ref)
	if o.Custom != nil {
		maps.Copy(all, generatedcustom.GetOpenAPIDefinitions(ref))
	}
	if o.External != nil {
		maps.Copy(all, generatedexternal.GetOpenAPIDefinitions(ref))
	}
	return all
}
