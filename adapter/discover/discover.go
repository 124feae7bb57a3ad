// Package discover says which pods and gateways there are. It follows one informer of all pods and
// tells a Sink what changes.
//
// A gateway is a pod of one ServiceAccount in one namespace. A pod elsewhere that looks like one is
// an impostor: it is told of once, and is never taken for a gateway.
package discover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/sluice-autoscaler/sluice/adapter/scrape/preset"
	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/wire"
)

// Sink takes what changes. Its methods are called by one goroutine, with the instant at which the
// change was seen. Work that they begin ends with ctx.
type Sink interface {
	// SetPod takes the state of a pod that has not finished; DeletePod that it is gone.
	SetPod(ctx context.Context, now time.Time, p store.Pod)
	DeletePod(now time.Time, namespace string, uid types.UID)
	// SetGateway takes the state of a gateway; DeleteGateway that it is gone. Gateways are pods, of
	// which SetPod and DeletePod tell as well.
	SetGateway(ctx context.Context, now time.Time, g store.GatewayPod)
	DeleteGateway(now time.Time, uid types.UID)
	// Synced says that everything that there is has been told.
	Synced()
}

// Options configure a Discoverer. All but Presets, PresetOf and OnImpostor are needed.
type Options struct {
	// Pods is the informer of all pods; Strip may be its transform. Whoever made it runs it.
	Pods cache.SharedIndexInformer
	// Presets say how pods without a sidecar are read; nil: not at all.
	Presets *preset.Set
	// PresetOf, when given, is the value of the annotation of the workload that a pod is of; ok is
	// false when it has none. Refresh is to be called when that changes. It must return within
	// microseconds.
	PresetOf func(pod *corev1.Pod) (name string, ok bool)
	Sink     Sink
	Log      *slog.Logger
	// GatewayNamespace and GatewayServiceAccount are those of the gateways' pods. A pod elsewhere,
	// or of another ServiceAccount, is no gateway, whatever its labels and ports say.
	GatewayNamespace, GatewayServiceAccount string
	// OnImpostor is told of each pod that has the gateways' label and port and is none, once in the
	// pod's life. The pod is not to be changed. It must return within milliseconds.
	OnImpostor func(pod *corev1.Pod)
}

// Validate reports every fault.
func (o *Options) Validate() error {
	var errs []error
	if o.Pods == nil || o.Sink == nil || o.Log == nil {
		errs = append(errs, errors.New("pods, sink and log are needed"))
	}
	if o.GatewayNamespace == "" || o.GatewayServiceAccount == "" {
		errs = append(errs, errors.New("the gateways' namespace and ServiceAccount are needed: they tell gateways from pods that look like one"))
	}
	return errors.Join(errs...)
}

// Discoverer follows the pods. It runs once.
type Discoverer struct {
	Options

	mu sync.Mutex // the informer calls handlers one at a time; it makes no promise of it
	// gateways are the pods that were told as gateways, impostors those of which OnImpostor knows.
	gateways, impostors map[types.UID]struct{}
}

// New returns a Discoverer that has not started.
func New(o Options) (*Discoverer, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("discover pods: %w", err)
	}
	if o.OnImpostor == nil {
		o.OnImpostor = func(*corev1.Pod) {}
	}
	return &Discoverer{Options: o, gateways: map[types.UID]struct{}{}, impostors: map[types.UID]struct{}{}}, nil
}

// Run tells the Sink of all pods until ctx ends.
func (d *Discoverer) Run(ctx context.Context) error {
	reg, err := d.Pods.AddEventHandler(cache.ResourceEventHandlerDetailedFuncs{
		AddFunc:    func(obj any, initial bool) { d.set(ctx, podOf(obj), initial) },
		UpdateFunc: func(_, obj any) { d.set(ctx, podOf(obj), false) },
		DeleteFunc: func(obj any) { d.remove(ctx, podOf(obj)) },
	})
	if err != nil {
		return fmt.Errorf("watch pods: %w", err)
	}
	defer d.Pods.RemoveEventHandler(reg) //nolint:errcheck // a handler that is gone is what is wanted
	if cache.WaitForCacheSync(ctx.Done(), reg.HasSynced) {
		d.Sink.Synced()
	}
	<-ctx.Done()
	return nil
}

// Refresh tells the Sink again of a namespace's pods that are selected, since how they are read may
// have changed.
func (d *Discoverer) Refresh(ctx context.Context, namespace string, selector labels.Selector) {
	_ = cache.ListAllByNamespace(d.Pods.GetIndexer(), namespace, selector, func(o any) { d.set(ctx, podOf(o), false) })
}

// set takes a pod's new state.
func (d *Discoverer) set(ctx context.Context, pod *corev1.Pod, initial bool) {
	if pod == nil || ctx.Err() != nil {
		return
	}
	if finished(pod) {
		d.remove(ctx, pod)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	p := describe(pod, now, initial)
	p.Endpoint = d.endpoint(pod)
	d.Sink.SetPod(ctx, now, p)
	d.setGateway(ctx, now, pod)
}

// setGateway takes a pod's new state if it is a gateway, or looks like one.
func (d *Discoverer) setGateway(ctx context.Context, now time.Time, pod *corev1.Pod) {
	number, container := port(pod, wire.ControlPortName)
	if pod.Labels[wire.GatewayLabel] != wire.GatewayValue || number == 0 {
		return
	}
	if pod.Namespace != d.GatewayNamespace || pod.Spec.ServiceAccountName != d.GatewayServiceAccount {
		if _, told := d.impostors[pod.UID]; !told {
			d.impostors[pod.UID] = struct{}{}
			d.Log.WarnContext(ctx, "pod looks like a gateway and is none", slog.String("namespace", pod.Namespace),
				slog.String("pod", pod.Name), slog.String("service_account", pod.Spec.ServiceAccountName))
			d.OnImpostor(pod)
		}
		return
	}
	if pod.Status.PodIP == "" {
		return
	}
	d.gateways[pod.UID] = struct{}{}
	d.Sink.SetGateway(ctx, now, store.GatewayPod{
		UID: pod.UID, Name: pod.Name, IP: pod.Status.PodIP, Control: net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(number)),
		Running: running(pod, container) && pod.DeletionTimestamp == nil,
	})
}

// remove takes that a pod is gone or has finished.
func (d *Discoverer) remove(ctx context.Context, pod *corev1.Pod) {
	if pod == nil || ctx.Err() != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	d.Sink.DeletePod(now, pod.Namespace, pod.UID)
	delete(d.impostors, pod.UID)
	if _, ok := d.gateways[pod.UID]; ok {
		delete(d.gateways, pod.UID)
		d.Sink.DeleteGateway(now, pod.UID)
	}
}
