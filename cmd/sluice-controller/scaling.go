package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/scale"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"

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
	"github.com/sluice-autoscaler/sluice/scaler/kube/lead"
	"github.com/sluice-autoscaler/sluice/scaler/kube/path"
	"github.com/sluice-autoscaler/sluice/scaler/kube/queue"
	"github.com/sluice-autoscaler/sluice/scaler/kube/servers"
	"github.com/sluice-autoscaler/sluice/scaler/plugin"
	"github.com/sluice-autoscaler/sluice/wire"
)

// pathOwner is the controller's name on the wire. Whoever holds the lease pushes under it.
const pathOwner = "controller"

// timing is the loop's, with the flags over it.
func (o *options) timing() loop.Timing {
	t := loop.DefaultTiming()
	t.Tick, t.Settle, t.Grace = o.tick, o.tick, o.grace
	return t
}

// assembleScaler makes the scaler's parts: ports, rounds and what drives them.
func (p *process) assembleScaler(ctx context.Context, cfg *rest.Config, client kubernetes.Interface, reg prometheus.Registerer) error {
	if p.leader = lead.Always(time.Now().UnixNano()); p.leaderElect {
		lease, err := lead.NewLease(cfg, p.namespace, kube.LeaseName, identity())
		if err != nil {
			return err
		}
		p.leader = lead.New(lease, p.log)
	}
	cfg = rest.CopyConfig(cfg)
	cfg.Wrap(p.leader.Fence) // nothing is written outside a term
	cfg.Wrap(queue.Transport)
	m, err := kube.NewManager(ctx, cfg, kube.ManagerOptions{Namespaces: p.namespaces})
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
		Client: m.GetClient(), Owner: pathOwner, Lease: p.epoch, TLS: p.cert.ClientTLS, Log: p.log, Clock: time.Now,
	})
	targets := kube.NewTargets(m.GetClient(), scales, m.GetRESTMapper(), bindings{p.adapter})
	o := scaler.Options{
		Target: targets, Source: p.adapter, Path: p.path, Sink: p.records, CatalogOf: p.policies(m),
		Timing: p.timing(), BlindUntil: p.api.BlindUntil, Clock: time.Now, Log: p.log, Metrics: reg,
	}
	if p.history.prometheus != "" {
		past, err := p.history.reader(p.log)
		if err != nil {
			return err
		}
		o.History = targetHistory{past, targets}
	}
	s := scaler.New(o)
	r := kube.New(kube.Options{
		Client: m.GetClient(), Scaler: s, Targets: targets, Register: kube.RegisterPath(p.path), Declare: p.declare, Forget: p.path.Forget, Settle: p.path.Settle,
		Journal: p.records, Recorder: m.GetEventRecorder("sluice"), Log: p.log, Clock: time.Now,
		Leader: p.leader, MaxPerNamespace: p.maxPerNamespace,
	})
	p.rounds = newRounds(r, time.Now)
	return errors.Join(
		r.Drive(m, p.rounds, p.pokes),
		m.Add(manager.RunnableFunc(s.RunHistory)),
		m.Add(manager.RunnableFunc(p.runPath)),
	)
}

// epoch is that of the term in which this replica is the owner of its assignments.
func (p *process) epoch(context.Context) (int64, error) {
	t, ok := p.leader.Term()
	if !ok {
		return 0, lead.ErrNotLeading
	}
	return t.Epoch, nil
}

// identity names this replica in the lease; a restart in the same pod is another one.
func identity() string {
	host, err := os.Hostname()
	if err != nil {
		host = name
	}
	return host + "_" + string(uuid.NewUUID())
}

// policies returns the catalog of each workload: which policy servers it may ask depends on its
// namespace.
func (p *process) policies(m manager.Manager) func(loop.Ref) loop.Catalog {
	found := servers.Servers{Cached: m.GetClient(), Direct: m.GetAPIReader()}
	broker := plugin.NewBroker(plugin.BrokerOptions{
		Hosts: p.grpcHosts, Services: found, Secrets: found, Log: p.log, Clock: time.Now,
		Poke: func(ref loop.Ref) { p.poke(types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}) },
	})
	return func(ref loop.Ref) loop.Catalog { return catalog.Default(broker.Entry(ref)) }
}

// bindings tells the adapter which pods a workload has.
type bindings struct{ *adapter.Adapter }

// Bind implements kube.Selectors.
func (b bindings) Bind(ref loop.Ref, namespace string, pods labels.Selector, services []string) {
	b.Adapter.Bind(ref, adapter.Binding{Namespace: namespace, Selector: pods, Services: services})
}

// declare tells the adapter which object a workload is, and of its own queries.
func (p *process) declare(ref, object loop.Ref, spec *loop.Spec) {
	kind, group, _ := strings.Cut(object.Kind, ".")
	w := adapter.Workload{Namespace: object.Namespace, Kind: schema.GroupKind{Group: group, Kind: kind}, Name: object.Name}
	for i := range spec.Signals {
		q := spec.Signals[i].Prometheus
		if q == nil {
			continue
		}
		of := adapter.Query{Signal: spec.Signals[i].Name, PromQL: q.Query, Source: q.Source}
		if q.MaxAge != nil {
			of.MaxAge = time.Duration(*q.MaxAge)
		}
		if q.Interval != nil {
			of.Interval = time.Duration(*q.Interval)
		}
		w.Queries = append(w.Queries, of)
	}
	p.adapter.Declare(ref, w)
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

// runPath pushes assignments in each term, once every Autoscaler has had a round. Rounds of
// workloads for which requests wait come first.
func (p *process) runPath(ctx context.Context) error {
	return p.leader.Each(ctx, func(ctx context.Context, _ lead.Term) error {
		var all v1alpha1.AutoscalerList
		for p.manager.GetClient().List(ctx, &all, client.UnsafeDisableDeepCopy) != nil {
			select { // the cache is not there yet
			case <-ctx.Done():
				return nil
			case <-time.After(startRetry):
			}
		}
		refs := make([]loop.Ref, 0, len(all.Items))
		for i := range all.Items {
			refs = append(refs, kube.Ref(client.ObjectKeyFromObject(&all.Items[i])))
		}
		p.observeGateways()
		p.path.Expect(refs)
		for _, g := range p.adapter.Gateways() {
			p.pokeWaiting(ctx, &g)
		}
		defer p.path.Reset() // another may lead until the next term
		return p.path.Run(ctx)
	})
}

// pokeWaiting asks for rounds of the workloads for which a gateway holds requests.
func (p *process) pokeWaiting(ctx context.Context, g *wire.Gateway) {
	if g.Report == nil {
		return
	}
	services := map[types.NamespacedName]struct{}{}
	for i := range g.Report.Ports {
		if r := &g.Report.Ports[i]; r.Waiting > 0 {
			services[types.NamespacedName{Namespace: r.Namespace, Name: r.Service}] = struct{}{}
		}
	}
	for s := range services {
		p.pokeService(ctx, s)
	}
}

// onReport hands a gateway's report on: to the path driver, and, when it tells of held requests, of
// a wake-up seen through or of a changed gateway, to the Autoscalers concerned, at once.
func (p *process) onReport(r adapter.GatewayReport) {
	if p.path == nil {
		return
	}
	p.observeGateways()
	if _, ok := p.leader.Term(); !ok {
		return
	}
	for _, s := range r.Urgent {
		p.pokeService(context.Background(), s)
	}
}

// pokeService asks for rounds of the Autoscalers of a Service.
func (p *process) pokeService(ctx context.Context, s types.NamespacedName) {
	keys, err := kube.OfService(ctx, p.manager.GetClient(), s.Namespace, s.Name)
	if err != nil {
		p.log.WarnContext(ctx, "autoscalers of a gateway's report not found", slog.Any("error", err))
	}
	for _, key := range keys {
		p.poke(key)
	}
}

// assigned tells whether a gateway was given a port that it reports. Without the scaler nothing is
// known of that, and every port counts.
func (p *process) assigned(_ string, port *wire.PortReport) bool {
	return p.path == nil || p.path.Assigned(port)
}

// observeGateways tells the path driver of the gateways as they are now. One at a time: an older
// view must not overtake a newer one.
func (p *process) observeGateways() {
	p.observing.Lock()
	defer p.observing.Unlock()
	p.path.Observe(p.adapter.Gateways())
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

// journal writes what is kept of an Autoscaler's rounds, as JSON. Only the replica that scales has
// it.
func (p *process) journal(namespace, name string, w io.Writer) error {
	if _, ok := p.leader.Term(); !ok {
		return server.ErrNotLeader
	}
	entries, ok := p.records.Read(kube.Ref(types.NamespacedName{Namespace: namespace, Name: name}))
	if !ok {
		return server.ErrNoJournal
	}
	return json.NewEncoder(w).Encode(scaler.WorkloadJournal{Namespace: namespace, Name: name, Entries: entries})
}
