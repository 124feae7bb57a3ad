package path_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-autoscaler/sluice/scaler/kube/path/slice"
)

var sliceResource = schema.GroupResource{Group: "discovery.k8s.io", Resource: "endpointslices"}

// api is an API server with Services and EndpointSlices: it orders all writes, and refuses those
// that are based on an old version.
type api struct {
	mu       sync.Mutex
	now      func() time.Time
	fault    func() error // asked after each write that was applied; may be nil
	revision int
	writes   int
	services map[types.NamespacedName]*corev1.Service
	head     map[types.NamespacedName]*discoveryv1.EndpointSlice
	log      []change
}

// change is one write; a nil slice is a deletion.
type change struct {
	key   types.NamespacedName
	slice *discoveryv1.EndpointSlice
}

func newAPI(now func() time.Time) *api {
	return &api{now: now, services: map[types.NamespacedName]*corev1.Service{}, head: map[types.NamespacedName]*discoveryv1.EndpointSlice{}}
}

func (a *api) addService(name string, ports ...string) {
	const namespace = "shop"
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	for i, p := range ports {
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: p, Port: int32(80 + i)})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.services[types.NamespacedName{Namespace: namespace, Name: name}] = svc
}

// put writes a slice as the API server does; a.mu is held.
func (a *api) put(s *discoveryv1.EndpointSlice) {
	a.revision++
	a.writes++
	s.ResourceVersion = fmt.Sprint(a.revision)
	key := client.ObjectKeyFromObject(s)
	a.head[key] = s.DeepCopy()
	a.log = append(a.log, change{key, a.head[key]})
}

func (a *api) remove(key types.NamespacedName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.head[key] != nil {
		a.revision++
		delete(a.head, key)
		a.log = append(a.log, change{key, nil})
	}
}

// cached is a client whose reads come from a cache that follows the log as far as the test lets it.
type cached struct {
	client.Client // nil: what is not written here is not used
	api           *api
	at            int // changes applied
	index         cache.Indexer
	live          bool // follows at once
}

func newCached(a *api, live bool) *cached {
	c := &cached{api: a, live: live}
	c.index = cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{
		slice.ServiceIndex: func(o any) ([]string, error) {
			s := o.(*discoveryv1.EndpointSlice)
			var keys []string
			for _, k := range slice.IndexService(s) {
				keys = append(keys, s.Namespace+"/"+k)
			}
			return keys, nil
		},
		slice.NumberIndex: func(o any) ([]string, error) { return slice.IndexNumber(o.(*discoveryv1.EndpointSlice)), nil },
	})
	return c
}

// follow applies up to n changes.
func (c *cached) follow(n int) {
	c.api.mu.Lock()
	defer c.api.mu.Unlock()
	for ; n > 0 && c.at < len(c.api.log); n-- {
		ch := c.api.log[c.at]
		c.at++
		if ch.slice != nil {
			_ = c.index.Update(ch.slice)
		} else if old, ok, _ := c.index.GetByKey(ch.key.String()); ok {
			_ = c.index.Delete(old)
		}
	}
}

func (c *cached) Get(_ context.Context, key client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	c.api.mu.Lock()
	defer c.api.mu.Unlock()
	if s, ok := o.(*discoveryv1.EndpointSlice); ok {
		if c.api.head[key] == nil {
			return apierrors.NewNotFound(sliceResource, key.Name)
		}
		*s = *c.api.head[key]
		return nil
	}
	svc := c.api.services[key]
	if svc == nil {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "services"}, key.Name)
	}
	*o.(*corev1.Service) = *svc
	return nil
}

func (c *cached) List(_ context.Context, l client.ObjectList, opts ...client.ListOption) error {
	if c.live {
		c.follow(1 << 30)
	}
	var o client.ListOptions
	o.ApplyOptions(opts)
	var found []any
	var err error
	switch {
	case o.FieldSelector == nil:
		found = c.index.List()
	case o.FieldSelector.Requirements()[0].Field == slice.ServiceIndex:
		found, err = c.index.ByIndex(slice.ServiceIndex, o.Namespace+"/"+o.FieldSelector.Requirements()[0].Value)
	default:
		found, err = c.index.ByIndex(slice.NumberIndex, o.FieldSelector.Requirements()[0].Value)
	}
	if err != nil {
		return err
	}
	list := l.(*discoveryv1.EndpointSliceList)
	list.Items = make([]discoveryv1.EndpointSlice, 0, len(found))
	for _, f := range found {
		s := f.(*discoveryv1.EndpointSlice)
		if o.LabelSelector == nil || o.LabelSelector.Matches(labelSet(s.Labels)) {
			list.Items = append(list.Items, *s)
		}
	}
	return nil
}

type labelSet map[string]string

func (l labelSet) Has(k string) bool              { _, ok := l[k]; return ok }
func (l labelSet) Get(k string) string            { return l[k] }
func (l labelSet) Lookup(k string) (string, bool) { v, ok := l[k]; return v, ok }

func (c *cached) Create(_ context.Context, o client.Object, _ ...client.CreateOption) error {
	c.api.mu.Lock()
	defer c.api.mu.Unlock()
	s := o.(*discoveryv1.EndpointSlice)
	if c.api.head[client.ObjectKeyFromObject(s)] != nil {
		return apierrors.NewAlreadyExists(sliceResource, s.Name)
	}
	s.CreationTimestamp = metav1.NewTime(c.api.now().Truncate(time.Second))
	s.UID = types.UID(fmt.Sprintf("%08x", uint32(c.api.revision)*2654435761)) // in no order
	c.api.put(s)
	return c.api.after()
}

func (c *cached) Update(_ context.Context, o client.Object, _ ...client.UpdateOption) error {
	c.api.mu.Lock()
	defer c.api.mu.Unlock()
	s := o.(*discoveryv1.EndpointSlice)
	head := c.api.head[client.ObjectKeyFromObject(s)]
	if head == nil {
		return apierrors.NewNotFound(sliceResource, s.Name)
	}
	if head.ResourceVersion != s.ResourceVersion || head.UID != s.UID {
		return apierrors.NewConflict(sliceResource, s.Name, fmt.Errorf("version %s is not %s", s.ResourceVersion, head.ResourceVersion))
	}
	c.api.put(s)
	return c.api.after()
}

func (a *api) after() error {
	if a.fault == nil {
		return nil
	}
	return a.fault()
}

func (c *cached) Delete(_ context.Context, o client.Object, _ ...client.DeleteOption) error {
	key := client.ObjectKeyFromObject(o)
	c.api.mu.Lock()
	known := c.api.head[key] != nil
	c.api.mu.Unlock()
	if !known {
		return apierrors.NewNotFound(sliceResource, key.Name)
	}
	c.api.remove(key)
	return nil
}

// twice names a number that two slices have confirmed, "" when none is.
func (a *api) twice() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	has := map[int32]string{}
	for key, s := range a.head {
		for _, p := range s.Ports {
			if other := has[*p.Port]; other != "" {
				return fmt.Sprintf("number %d is in the slices %s and %s", *p.Port, other, key)
			}
			has[*p.Port] = key.String()
		}
	}
	return ""
}

// confirmed tells whether a Service's slice has a number.
func (a *api) confirmed(service string, number int) bool {
	s := a.head[types.NamespacedName{Namespace: "shop", Name: slice.Name(service)}]
	return s != nil && slices.ContainsFunc(s.Ports, func(p discoveryv1.EndpointPort) bool { return int(*p.Port) == number })
}
