package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/sluice-autoscaler/sluice/adapter"
	"github.com/sluice-autoscaler/sluice/adapter/server"
	"github.com/sluice-autoscaler/sluice/adapter/server/ownership"
	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/internal/cli"
	"github.com/sluice-autoscaler/sluice/internal/patience"
	"github.com/sluice-autoscaler/sluice/internal/pki"
	"github.com/sluice-autoscaler/sluice/internal/pki/secrets"
	"github.com/sluice-autoscaler/sluice/internal/serve"
	"github.com/sluice-autoscaler/sluice/scaler"
	"github.com/sluice-autoscaler/sluice/scaler/kube/lead"
	"github.com/sluice-autoscaler/sluice/scaler/kube/path"
)

// process is the assembled controller.
type process struct {
	options
	// api waits for the API server, and knows of its outages.
	api     *patience.Patience
	log     *slog.Logger
	kube    kubernetes.Interface
	telling errgroup.Group
	cert    *secrets.Keeper
	adapter *adapter.Adapter
	manager manager.Manager
	leader  *lead.Leader
	// path, records, pokes and rounds belong to the scaler and are nil without it.
	path      *path.Driver
	observing sync.Mutex
	records   *scaler.Journal
	pokes     chan event.GenericEvent
	rounds    *rounds
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
	c.QPS, c.Burst, c.UserAgent = o.qps, o.burst, name+"/"+cli.Version()
	c.Dial = dialAPI
	if o.namespace == "" {
		raw, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
		if err != nil {
			return nil, fmt.Errorf("find the controller's namespace: %w (give --namespace)", err)
		}
		o.namespace = strings.TrimSpace(string(raw))
	}
	return c, nil
}

// assemble makes all parts and starts none. It asks the API server, and may be tried again. The
// APIs' server serves the metrics.
func assemble(ctx context.Context, cfg *rest.Config, o options, api *patience.Patience, reg prometheus.Registerer, metrics http.Handler, log *slog.Logger) (*process, error) {
	kube, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	p := &process{options: o, api: api, log: log, kube: kube}
	p.telling.SetLimit(tellAtOnce)
	co := secrets.Options{
		Kube: kube, Dynamic: dyn, Namespace: o.namespace, Issue: o.issueCertificates, Policy: pki.DefaultPolicy(), Log: log, Clock: time.Now,
	}
	if o.apiCustom {
		co.APIServices = append(co.APIServices, "v1beta1.custom.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io")
	}
	if o.apiExternal {
		co.APIServices = append(co.APIServices, "v1beta1.external.metrics.k8s.io")
	}
	if o.prometheus.resource {
		co.APIServices = append(co.APIServices, "v1beta1.metrics.k8s.io")
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
		Interval: o.collectInterval, IdleInterval: o.idleInterval, Presets: o.presets, DefaultWindow: o.metricsWindow, Custom: o.apiCustom, External: o.apiExternal, Metrics: metrics,
		GatewayNamespace: o.namespace, GatewayServiceAccount: o.gatewayServiceAccount, TLS: p.cert.ClientTLS, OnImpostor: p.onImpostor, OnReport: p.onReport, Assigned: p.assigned,
		OnSilentGateway: p.onSilentGateway, Delegates: o.delegates.options(o.namespace),
		Registration: server.RegistrationOptions{
			Owner:     ownership.Owner{Namespace: o.namespace, Service: "sluice-adapter", CA: p.cert.CA, Managers: []string{name}},
			OnForeign: p.onForeign,
		},
	}
	if ao.Prometheus, err = o.prometheus.options(); err != nil {
		return nil, err
	}
	if o.scaler {
		ao.Journal = p.journal
	}
	p.adapter, err = adapter.New(ao)
	if err != nil {
		return nil, fmt.Errorf("assemble the adapter: %w", err)
	}
	if o.scaler {
		if err := p.assembleScaler(ctx, cfg, kube, reg); err != nil {
			return nil, fmt.Errorf("assemble the scaler: %w", err)
		}
	}
	return p, nil
}

// onImpostor makes an event of a pod that only looks like a gateway.
func (p *process) onImpostor(pod *corev1.Pod) {
	p.tellOnce(pod, "GatewayImpostor", "Ignore",
		"it has the label and port of a Sluice gateway and is none: gateways are pods of ServiceAccount %s in namespace %s; it gets no connection and no traffic", p.gatewayServiceAccount, p.namespace)
}

// onSilentGateway makes an event of a gateway that runs and does not report.
func (p *process) onSilentGateway(g adapter.GatewayPod) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: g.Name, UID: g.UID}}
	p.tellOnce(pod, "GatewaySilent", "LeaveOut",
		"it runs and has not reported for %v: what it holds counts as nothing, and no slice names it", store.GatewayLost)
}

// tellOnce records a warning about a pod that all replicas see, from whichever is first.
func (p *process) tellOnce(pod *corev1.Pod, reason, action, note string, args ...any) {
	p.tell(corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}, string(pod.UID), reason, action, fmt.Sprintf(note, args...))
}

// onForeign makes an event of a write by somebody else to an APIService, and has the authority
// written again. Of one writer and field there is one event, which the cluster keeps for an hour.
func (p *process) onForeign(w server.ForeignWrite) {
	if w.Field == ownership.FieldCABundle {
		p.cert.Announce()
	}
	of := corev1.ObjectReference{APIVersion: "apiregistration.k8s.io/v1", Kind: "APIService", Name: w.APIService, UID: types.UID(w.UID)}
	which := sha256.Sum256([]byte(w.UID + "\x00" + w.Field + "\x00" + w.Manager))
	p.tell(of, hex.EncodeToString(which[:10]), "APIServiceForeignWrite", "Report", w.String())
}

// tell records a warning once, whichever replica is first: the event's name is the same for all. It
// does not wait.
func (p *process) tell(of corev1.ObjectReference, id, reason, action, note string) {
	namespace := of.Namespace
	if namespace == "" { // where Kubernetes keeps events about objects of no namespace
		namespace = metav1.NamespaceDefault
	}
	e := &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "sluice-" + strings.ToLower(reason) + "-" + id},
		EventTime:  metav1.NowMicro(), ReportingController: "sluice", ReportingInstance: name, Type: corev1.EventTypeWarning,
		Reason: reason, Action: action, Note: note[:min(len(note), maxNote)], Regarding: of,
	}
	object := slog.String("object", strings.ToLower(of.Kind)+" "+of.Namespace+"/"+of.Name)
	told := p.telling.TryGo(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), tellTimeout)
		defer cancel()
		_, err := p.kube.EventsV1().Events(namespace).Create(ctx, e, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			p.log.WarnContext(ctx, "event not recorded", slog.String("reason", reason), object, slog.Any("error", err))
		}
		return nil
	})
	if !told {
		p.log.Warn("event not recorded: too many at once", slog.String("reason", reason), object)
	}
}

const (
	// tellTimeout bounds the writing of one event, tellAtOnce how many are written at once.
	tellTimeout, tellAtOnce = 10 * time.Second, 16
	// maxNote bounds an event's text, as the API server does.
	maxNote = 1024
)

// alive and ready are the checks of the process.
func (p *process) alive() []serve.Check {
	alive := []serve.Check{{Name: "adapter", Probe: func(context.Context) error { return p.adapter.Alive() }}}
	if p.rounds != nil {
		alive = append(alive, p.rounds.beat.Check(time.Now))
	}
	return alive
}

func (p *process) ready() []serve.Check {
	return []serve.Check{
		{Name: "adapter", Probe: func(context.Context) error { return p.adapter.Ready() }},
		// A missing APIService does not make the replica unready: it scales, and is to answer as
		// soon as the APIService is there again.
		{Name: "prometheus", Warning: true, Probe: func(context.Context) error { return p.adapter.SourcesHealthy() }},
		{Name: "delegates", Warning: true, Probe: func(context.Context) error { return p.adapter.DelegatesHealthy() }},
		{Name: "apiservices", Warning: true, Probe: func(context.Context) error { return p.adapter.Registered() }},
	}
}

// run starts everything and ends with the first part that fails, or with ctx. An API server that
// goes away is no failure of any part.
func (p *process) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.cert.Run(ctx) })
	g.Go(func() error { return p.adapter.Run(ctx) })
	if p.manager == nil {
		return g.Wait()
	}
	g.Go(func() error { return p.rounds.watch(ctx, p.poke) })
	// The lease is given up once the rounds have ended.
	elect, resign := context.WithCancel(context.WithoutCancel(ctx))
	defer resign()
	g.Go(func() error { return p.leader.Run(elect) })
	g.Go(func() error {
		defer resign()
		if err := p.manager.Start(ctx); err != nil {
			return fmt.Errorf("run the scaler: %w", err)
		}
		return nil
	})
	return g.Wait()
}
