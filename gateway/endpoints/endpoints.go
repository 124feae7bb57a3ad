// Package endpoints watches the cluster's EndpointSlices and gives the gateway the endpoints behind
// each Service port. It ignores the slices that Sluice wrote itself: they name the gateway.
package endpoints

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/sluice-autoscaler/sluice/gateway"
	"github.com/sluice-autoscaler/sluice/gateway/hold"
	"github.com/sluice-autoscaler/sluice/wire"
)

// serviceIndex is the index of slices by namespace/service.
const serviceIndex = "service"

// Slices is a gateway.Source that watches all EndpointSlices. It is safe for concurrent use.
type Slices struct {
	informer cache.SharedIndexInformer
	factory  informers.SharedInformerFactory
	log      *slog.Logger

	mu   sync.Mutex
	subs map[string]map[*subscription]struct{} // by namespace/service
}

type subscription struct {
	target gateway.Target
	update func([]hold.Endpoint)

	mu       sync.Mutex // one update at a time, and none after cancel
	canceled bool
	// last is what update was last called with; nil before the first call. One change of the
	// cluster reaches notify more than once: an event is handled for the slice before and after,
	// and the store may be ahead of the events. The subscriber gets only what differs.
	last []hold.Endpoint
}

// New returns a source over client; it watches while Run runs.
func New(client kubernetes.Interface, log *slog.Logger) (*Slices, error) {
	selector := discovery.LabelServiceName + "," + discovery.LabelManagedBy + "!=" + wire.Domain
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = selector }),
		informers.WithTransform(trimSlice))
	s := &Slices{
		informer: factory.Discovery().V1().EndpointSlices().Informer(), factory: factory, log: log,
		subs: map[string]map[*subscription]struct{}{},
	}
	if err := s.informer.AddIndexers(cache.Indexers{serviceIndex: serviceKeys}); err != nil {
		return nil, fmt.Errorf("index endpoint slices: %w", err)
	}
	_, err := s.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: s.handleEvent,
		UpdateFunc: func(before, after any) {
			s.handleEvent(before) // its label may have moved to another Service
			s.handleEvent(after)
		},
		DeleteFunc: func(o any) {
			if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			s.handleEvent(o)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("watch endpoint slices: %w", err)
	}
	return s, nil
}

// Run watches until ctx ends.
func (s *Slices) Run(ctx context.Context) error {
	s.log.InfoContext(ctx, "watching endpoint slices")
	s.factory.Start(ctx.Done())
	<-ctx.Done()
	s.factory.Shutdown()
	return nil
}

// Synced implements gateway.Source.
func (s *Slices) Synced() bool { return s.informer.HasSynced() }

// Subscribe implements gateway.Source.
func (s *Slices) Subscribe(t gateway.Target, update func([]hold.Endpoint)) (cancel func()) {
	sub, key := &subscription{target: t, update: update}, t.Namespace+"/"+t.Service
	s.mu.Lock()
	if s.subs[key] == nil {
		s.subs[key] = map[*subscription]struct{}{}
	}
	s.subs[key][sub] = struct{}{}
	s.mu.Unlock()
	s.notify(key, sub)
	return func() {
		s.mu.Lock()
		delete(s.subs[key], sub)
		if len(s.subs[key]) == 0 {
			delete(s.subs, key)
		}
		s.mu.Unlock()
		sub.mu.Lock()
		sub.canceled = true
		sub.mu.Unlock()
	}
}

func (s *Slices) handleEvent(o any) {
	keys, err := serviceKeys(o)
	if err != nil {
		s.log.Error("unexpected object", slog.Any("error", err))
		return
	}
	for _, key := range keys {
		s.mu.Lock()
		subs := make([]*subscription, 0, len(s.subs[key]))
		for sub := range s.subs[key] {
			subs = append(subs, sub)
		}
		s.mu.Unlock()
		for _, sub := range subs {
			s.notify(key, sub)
		}
	}
}

// notify reads the store under the subscription's lock, so that an older view never overtakes a
// newer one.
func (s *Slices) notify(key string, sub *subscription) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if sub.canceled {
		return
	}
	objects, err := s.informer.GetIndexer().ByIndex(serviceIndex, key)
	if err != nil {
		s.log.Error("read endpoint slices", slog.String("service", key), slog.Any("error", err))
		return
	}
	all := make([]*discovery.EndpointSlice, 0, len(objects))
	for _, o := range objects {
		if slice, ok := o.(*discovery.EndpointSlice); ok {
			all = append(all, slice)
		}
	}
	next := Of(all, sub.target.PortName)
	if sub.last != nil && slices.Equal(sub.last, next) {
		return
	}
	sub.last = next
	sub.update(slices.Clone(next)) // the subscriber may keep or change it
}

// Of returns the endpoints of a Service's slices for its port of that name, sorted by address. Each
// address is in the result once: an endpoint that moves between slices may be in two, and the
// better of its states counts.
func Of(all []*discovery.EndpointSlice, portName string) []hold.Endpoint {
	found := map[string]hold.Endpoint{}
	for _, slice := range all {
		if slice.AddressType == discovery.AddressTypeFQDN || slice.Labels[discovery.LabelManagedBy] == wire.Domain {
			continue
		}
		for _, p := range slice.Ports {
			name := ""
			if p.Name != nil {
				name = *p.Name
			}
			if p.Port == nil || *p.Port < 1 || *p.Port > maxPort || name != portName {
				continue
			}
			port := strconv.Itoa(int(*p.Port))
			for _, e := range slice.Endpoints {
				if len(e.Addresses) == 0 || !believable(e.Addresses[0]) {
					continue
				}
				next := endpoint(e.Conditions)
				next.Address = net.JoinHostPort(e.Addresses[0], port)
				if old, ok := found[next.Address]; !ok || preferred(next, old) {
					found[next.Address] = next
				}
			}
		}
	}
	eps := make([]hold.Endpoint, 0, len(found))
	for _, e := range found {
		eps = append(eps, e)
	}
	slices.SortFunc(eps, func(a, b hold.Endpoint) int { return strings.Compare(a.Address, b.Address) })
	return eps
}

// maxPort is the greatest number of a TCP port.
const maxPort = 65535

// believable tells whether an address may be a pod's. The API server takes no other; but what is
// dialled is not left to it alone, since a namespace's users may write slices.
func believable(address string) bool {
	a, err := netip.ParseAddr(address)
	return err == nil && !a.IsUnspecified() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsMulticast() && a.Zone() == ""
}

// endpoint reads the conditions as the API defines them: an unknown ready is true, an unknown
// serving is ready.
func endpoint(c discovery.EndpointConditions) hold.Endpoint {
	e := hold.Endpoint{Ready: c.Ready == nil || *c.Ready, Terminating: c.Terminating != nil && *c.Terminating}
	e.Serving = e.Ready
	if c.Serving != nil {
		e.Serving = *c.Serving
	}
	return e
}

// preferred reports whether a takes requests better than b.
func preferred(a, b hold.Endpoint) bool {
	rank := func(e hold.Endpoint) int {
		switch {
		case e.Ready && !e.Terminating:
			return 3
		case !e.Terminating:
			return 2
		case e.Serving:
			return 1
		}
		return 0
	}
	return rank(a) > rank(b)
}

func serviceKeys(o any) ([]string, error) {
	slice, ok := o.(*discovery.EndpointSlice)
	if !ok {
		return nil, fmt.Errorf("index %T: want an EndpointSlice", o)
	}
	service := slice.Labels[discovery.LabelServiceName]
	// The list asks for the others only; a label may still change under a watch.
	if service == "" || labels.Set(slice.Labels).Get(discovery.LabelManagedBy) == wire.Domain {
		return nil, nil
	}
	return []string{slice.Namespace + "/" + service}, nil
}

// trimSlice drops the fields that nothing reads, which are most of a slice's size.
func trimSlice(o any) (any, error) {
	slice, ok := o.(*discovery.EndpointSlice)
	if !ok {
		return o, nil
	}
	slice.ManagedFields, slice.Annotations = nil, nil
	for i := range slice.Endpoints {
		e := &slice.Endpoints[i]
		e.TargetRef, e.NodeName, e.Zone, e.Hints, e.Hostname, e.DeprecatedTopology = nil, nil, nil, nil, nil, nil
	}
	return slice, nil
}
