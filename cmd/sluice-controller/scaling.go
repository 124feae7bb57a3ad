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
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
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
	"github.com/sluice-autoscaler/sluice/scaler/kube/path"
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
	m, err := kube.NewManager(ctx, cfg, kube.ManagerOptions{LeaderElection: p.leaderElect, Namespace: p.namespace})
	if err != nil {
		return err
	}
	resolver := scale.NewDiscoveryScaleKindResolver(client.Discovery())
	scales, err := scale.NewForConfig(cfg, m.GetRESTMapper(), dynamic.LegacyAPIPathResolverFunc, resolver)
	if err != nil {
		return err
	}
	p.manager, p.pokes, p.records = m, make(chan event.GenericEvent, 1024), scaler.NewJournal()
	po := path.Options{
		Client: m.GetClient(), Owner: pathOwner, Epoch: time.Now().UnixNano(), TLS: p.cert.ClientTLS, Log: p.log, Clock: time.Now,
	}
	if p.leaderElect {
		po.Epoch, po.Lease = 0, leaseEpoch(client, p.namespace)
	}
	p.path = path.New(po)
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
	r := kube.New(kube.Options{
		Client: m.GetClient(), Scaler: s, Targets: targets, Register: kube.RegisterPath(p.path), Forget: p.path.Forget, Settle: p.path.Settle,
		Journal: p.records, Recorder: m.GetEventRecorder("sluice"), Log: p.log, Clock: time.Now,
	})
	p.rounds = newRounds(r, time.Now)
	return errors.Join(
		r.Drive(m, p.rounds, p.pokes),
		m.Add(manager.RunnableFunc(s.RunHistory)),
		m.Add(manager.RunnableFunc(p.runPath)),
	)
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
	p.observeGateways()
	p.path.Expect(refs)
	return p.path.Run(ctx)
}

// onReport hands a gateway's report on: to the path driver, and, when it tells of held requests, of
// a wake-up seen through or of a changed gateway, to the Autoscalers concerned, at once.
func (p *process) onReport(r adapter.GatewayReport) {
	if p.path == nil {
		return
	}
	p.observeGateways()
	select {
	case <-p.manager.Elected():
	default:
		return
	}
	for _, s := range r.Urgent {
		keys, err := kube.OfService(context.Background(), p.manager.GetClient(), s.Namespace, s.Name)
		if err != nil {
			p.log.Warn("autoscalers of a gateway's report not found", slog.Any("error", err))
		}
		for _, key := range keys {
			p.poke(key)
		}
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
	select {
	case <-p.manager.Elected():
	default:
		return server.ErrNotLeader
	}
	entries, ok := p.records.Read(kube.Ref(types.NamespacedName{Namespace: namespace, Name: name}))
	if !ok {
		return server.ErrNoJournal
	}
	return json.NewEncoder(w).Encode(scaler.WorkloadJournal{Namespace: namespace, Name: name, Entries: entries})
}
