package path

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/scaler"
	"github.com/sluice-autoscaler/sluice/scaler/kube/path/slice"
	"github.com/sluice-autoscaler/sluice/wire"
)

// Options configure a Driver. Client, Owner, Log and Clock are needed.
type Options struct {
	// Client reads Services and EndpointSlices of all namespaces from one cache that has the
	// indexes of AddIndexes, and writes EndpointSlices.
	Client client.Client
	// Owner is this driver's name on the wire: a DNS label of at most 63 characters. It names a
	// role, so that whoever takes over pushes under the same name.
	Owner string
	// Epoch names this life of the owner and grows with each. Where Lease is given it replaces
	// Epoch.
	Epoch int64
	// Lease returns the epoch of the lease by which this process is the owner, and an error while
	// it holds none. It asks the API server. Nil means that nobody else is the owner.
	Lease func(ctx context.Context) (int64, error)
	// Range holds the numbers to give; the zero value means DefaultRange.
	Range Range
	// TLS returns what the next connection to a gateway is made with; nil from it means that there
	// is no certificate yet. A nil TLS means plain HTTP, for tests.
	TLS func() *tls.Config
	Log *slog.Logger
	// Clock tells the time.
	Clock func() time.Time
}

// Workload is what the driver needs to know of a workload that may sleep.
type Workload struct {
	// Service is the Service beside it, whose requests are held.
	Service string
	// Controller is the object that the slice belongs to, and is garbage collected with.
	Controller metav1.OwnerReference
	// Created is when that object was created. Of two workloads with one Service the older has it.
	Created time.Time
	// Hold bounds what each gateway holds; nil means the gateway's defaults.
	Hold *loop.Hold
}

// equal tells whether two workloads are the same.
func (w *Workload) equal(x *Workload) bool {
	return w.Service == x.Service && w.Controller.UID == x.Controller.UID && w.Controller.Name == x.Controller.Name &&
		w.Created.Equal(x.Created) && bounds(w.Hold) == bounds(x.Hold)
}

// bounds are a workload's bounds as an assignment has them.
func bounds(h *loop.Hold) wire.Assignment {
	var a wire.Assignment
	if h == nil {
		return a
	}
	if h.MaxRequests != nil {
		a.MaxHeld = *h.MaxRequests
	}
	if h.Timeout != nil {
		a.HoldSeconds = time.Duration(*h.Timeout).Seconds()
	}
	if h.PodConcurrency != nil {
		a.PodConcurrency = *h.PodConcurrency
	}
	return a
}

// Driver implements scaler.Path. It is safe for concurrent use with different Refs.
type Driver struct {
	Options
	gateways atomic.Pointer[[]wire.Gateway] // in order of their addresses
	pusher   *pusher

	mu        sync.Mutex
	workloads map[loop.Ref]*entry
	services  map[types.NamespacedName][]*entry // by age
	reserved  map[int]*entry
	fullUntil time.Time
	// numbers counts the numbers in use, by namespace and in all.
	numbers    map[string]int
	allNumbers int
}

var _ scaler.Path = (*Driver)(nil)

// entry is a registered workload. Its mutex is taken before the driver's.
type entry struct {
	ref loop.Ref
	// Guarded by Driver.mu: what is known of the workload, and the numbers that it has reserved.
	workload Workload
	reserved []int
	// numbers is how many of Driver.numbers are this workload's.
	numbers int

	mu sync.Mutex
	// service is the Service that the rest is about; left are those before, whose slices are to go.
	service string
	left    []string
	// written is the slice as it was last written, until the cache shows it; writtenAt is when.
	written   *discoveryv1.EndpointSlice
	writtenAt time.Time
	// assigned is what was last assigned.
	assigned []wire.Assignment
	// contested says since when a claim has waited for an unconfirmed one of another to go.
	contested map[int]time.Time
}

// New returns a Driver that pushes nothing before Run and Expect.
func New(o Options) *Driver {
	if o.Range == (Range{}) {
		o.Range = DefaultRange()
	}
	d := &Driver{
		Options: o, workloads: map[loop.Ref]*entry{}, services: map[types.NamespacedName][]*entry{}, reserved: map[int]*entry{},
		numbers: map[string]int{},
	}
	d.gateways.Store(&[]wire.Gateway{})
	d.pusher = newPusher(d)
	return d
}

// Register makes a workload known, or changes what is known of it. It is cheap when nothing
// changed.
func (d *Driver) Register(ref loop.Ref, w Workload) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.workloads[ref]
	switch {
	case e == nil:
		e = &entry{ref: ref}
		d.workloads[ref] = e
	case e.workload.equal(&w):
		return
	default:
		d.unclaim(e, e.workload.Service != w.Service)
	}
	e.workload = w
	d.claim(e)
}

// Forget takes a workload's ports away from the gateways. Its slice goes with its controller.
func (d *Driver) Forget(ref loop.Ref) {
	d.mu.Lock()
	if e := d.workloads[ref]; e != nil {
		delete(d.workloads, ref)
		d.unclaim(e, true)
	}
	d.mu.Unlock()
	d.pusher.settle(ref)
}

// claim and unclaim keep which workloads name a Service; d.mu is held.
func (d *Driver) claim(e *entry) {
	key := serviceOf(e.ref, e.workload.Service)
	list := append(d.services[key], e)
	slices.SortStableFunc(list, func(a, b *entry) int {
		return cmp.Or(a.workload.Created.Compare(b.workload.Created), strings.Compare(a.ref.Name, b.ref.Name),
			strings.Compare(string(a.workload.Controller.UID), string(b.workload.Controller.UID)))
	})
	d.services[key] = list
}

func (d *Driver) unclaim(e *entry, withdraw bool) {
	key := serviceOf(e.ref, e.workload.Service)
	d.services[key] = slices.DeleteFunc(d.services[key], func(x *entry) bool { return x == e })
	if len(d.services[key]) == 0 {
		delete(d.services, key)
	}
	if withdraw {
		d.free(e)
		d.count(e, 0)
		d.pusher.set(key, e.ref, nil)
	}
}

// free gives up the numbers that a workload has reserved; d.mu is held.
func (d *Driver) free(e *entry) {
	for _, n := range e.reserved {
		if d.reserved[n] == e {
			delete(d.reserved, n)
		}
	}
	e.reserved = nil
}

func serviceOf(ref loop.Ref, service string) types.NamespacedName {
	return types.NamespacedName{Namespace: ref.Namespace, Name: service}
}

// find returns a workload; the error says that an older one has its Service.
func (d *Driver) find(ref loop.Ref) (*entry, Workload, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.workloads[ref]
	if e == nil {
		return nil, Workload{}, nil
	}
	first := d.services[serviceOf(ref, e.workload.Service)][0]
	if first == e {
		return e, e.workload, nil
	}
	return e, e.workload, fmt.Errorf("service %s is held for %s %s already, which is older: %w", e.workload.Service,
		cmp.Or(first.workload.Controller.Kind, "workload"), cmp.Or(first.workload.Controller.Name, first.ref.Name), scaler.ErrForbidden)
}

// turn forgets what was about another Service; e.mu is held.
func (e *entry) turn(service string) {
	if e.service == service {
		return
	}
	if e.service != "" {
		e.left = append(e.left, e.service)
	}
	e.service, e.written, e.assigned, e.contested = service, nil, nil, nil
}

// view is what the cache shows of a workload's Service.
type view struct {
	svc *corev1.Service
	// slice is Sluice's slice as it is; nil when there is none. Seen says that the cache shows it
	// so.
	slice *discoveryv1.EndpointSlice
	seen  bool
	// ready counts the ready endpoints of the user's own slices.
	ready int
}

// look reads the cache. Nothing of it may be changed.
func (d *Driver) look(ctx context.Context, e *entry) (*view, error) {
	v := &view{svc: &corev1.Service{}, seen: true}
	key := serviceOf(e.ref, e.service)
	if err := d.Client.Get(ctx, key, v.svc, client.UnsafeDisableDeepCopy); err != nil {
		return nil, classify(fmt.Errorf("read Service %s: %w", key.Name, err))
	}
	var list discoveryv1.EndpointSliceList
	err := d.Client.List(ctx, &list, client.InNamespace(key.Namespace), client.MatchingFields{slice.ServiceIndex: key.Name}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, classify(fmt.Errorf("list slices of Service %s: %w", key.Name, err))
	}
	for i := range list.Items {
		s := &list.Items[i]
		if slice.IsOwn(s) {
			if s.Name == slice.Name(key.Name) {
				v.slice = s
			}
			continue
		}
		for j := range s.Endpoints {
			if r := s.Endpoints[j].Conditions.Ready; r == nil || *r {
				v.ready++
			}
		}
	}
	d.catchUp(e, v)
	return v, nil
}

// unseenFor is for how long a written slice that the cache does not show is believed to exist.
const unseenFor = 5 * time.Second

// catchUp puts the slice that was last written in the place of an older one of the cache.
func (d *Driver) catchUp(e *entry, v *view) {
	if e.written == nil {
		return
	}
	if v.slice == nil && d.Clock().Sub(e.writtenAt) < unseenFor || v.slice != nil && v.slice.UID == e.written.UID && revision(v.slice) < revision(e.written) {
		v.slice, v.seen = e.written, false
		return
	}
	e.written = nil
}

// revision is the place of an object's last write in the order of all. The API server promises that
// resource versions of one type can be compared.
func revision(s *discoveryv1.EndpointSlice) uint64 {
	n, err := strconv.ParseUint(s.ResourceVersion, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// See implements scaler.Path.
func (d *Driver) See(ctx context.Context, ref loop.Ref) (*loop.Path, error) {
	e, w, err := d.find(ref)
	if e == nil || err != nil {
		d.pusher.settle(ref)
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.turn(w.Service)
	v, err := d.look(ctx, e)
	if err != nil {
		if errors.Is(err, scaler.ErrNotFound) {
			d.pusher.settle(ref)
		}
		return nil, err
	}
	tcp := 0
	for i := range v.svc.Spec.Ports {
		if isTCP(&v.svc.Spec.Ports[i]) {
			tcp++
		}
	}
	if tcp == 0 || tcp > slice.MaxPorts {
		d.pusher.settle(ref)
		return nil, fmt.Errorf("service %s/%s has %s: nothing can be held for it: %w", v.svc.Namespace, v.svc.Name, portsFault(tcp), scaler.ErrForbidden)
	}
	listening, active, fault := d.listening(v)
	p := &loop.Path{In: in(v.slice, active), Ready: v.ready, Listening: len(listening), Fault: fault}
	for _, g := range *d.gateways.Load() {
		for _, r := range g.Ports(v.svc.Namespace, v.svc.Name) {
			if g.Connected { // what one that is gone said last waits no more
				p.Waiting += r.Waiting
			}
			if r.ColdStart != nil {
				p.ColdStarts = append(p.ColdStarts, coldStart(r.ColdStart))
			}
		}
	}
	return p, nil
}

func coldStart(c *wire.ColdStart) loop.ColdStart {
	at := func(ns int64) time.Time {
		if ns == 0 {
			return time.Time{}
		}
		return time.Unix(0, ns)
	}
	return loop.ColdStart{Detected: at(c.Detected), Answering: at(c.Answering), Released: at(c.Released), Address: c.Pod, Held: c.Held}
}

func portsFault(tcp int) string {
	if tcp == 0 {
		return "no TCP port"
	}
	return fmt.Sprintf("%d TCP ports, more than %d", tcp, slice.MaxPorts)
}

// in tells whether a slice names just the gateways that take connections, and at least one.
func in(s *discoveryv1.EndpointSlice, active []string) bool {
	return s != nil && len(active) > 0 && slices.EqualFunc(s.Endpoints, active, func(e discoveryv1.Endpoint, ip string) bool {
		return len(e.Addresses) == 1 && e.Addresses[0] == ip
	})
}

// listening returns the addresses of the gateways that have every number of the Service open, in
// order, those of them that take connections, since they know that they are to be in the path, and
// the reason why one is not open. Only active ones may be in the slice.
func (d *Driver) listening(v *view) (open, active []string, fault string) {
	for i := range v.svc.Spec.Ports {
		if p := &v.svc.Spec.Ports[i]; isTCP(p) {
			if _, ok := d.confirmed(v.slice, p.Name); !ok {
				return nil, nil, "the gateways' number for port " + strconv.Quote(p.Name) + " is not agreed yet"
			}
		}
	}
	gateways := *d.gateways.Load()
	for i := range gateways {
		g := &gateways[i]
		switch {
		case g.Leaving:
			fault = "gateway " + g.Name + " is leaving"
		case !g.Connected || g.Report == nil:
			fault = "gateway " + g.Name + " is not connected"
		default:
			why, takes := d.missing(v, g)
			if why != "" {
				fault = "gateway " + g.Name + ": " + why
				continue
			}
			open = append(open, g.IP)
			if takes {
				active = append(active, g.IP)
			}
		}
	}
	if len(gateways) == 0 {
		fault = "there is no gateway"
	}
	return open, active, fault
}

// missing says why a gateway does not have every number open, "" when it does. Active says that it
// takes connections on all of them.
func (d *Driver) missing(v *view, g *wire.Gateway) (why string, active bool) {
	active = true
	reports := g.Ports(v.svc.Namespace, v.svc.Name)
	for i := range v.svc.Spec.Ports {
		p := &v.svc.Spec.Ports[i]
		if !isTCP(p) {
			continue
		}
		number, _ := d.confirmed(v.slice, p.Name)
		r := slices.IndexFunc(reports, func(r wire.PortReport) bool { return r.PortName == p.Name })
		switch {
		case r < 0 || reports[r].Listen != number:
			for _, x := range g.Report.Refused {
				if x.Listen == number && x.Namespace == v.svc.Namespace && x.Service == v.svc.Name {
					return fmt.Sprintf("port %d is refused: %s", number, x.Error), false
				}
			}
			if fault, ok := d.pusher.faults.Load(g.Control); ok {
				return fmt.Sprintf("port %d is not assigned yet: %v", number, fault), false
			}
			return fmt.Sprintf("port %d is not assigned yet", number), false
		case !reports[r].Listening:
			return fmt.Sprintf("port %d is not open: %s", number, reports[r].Error), false
		}
		active = active && reports[r].InPath
	}
	return "", active
}

// Put implements scaler.Path. It writes the slice when that is not as it ought to be, and assigns
// the numbers that are confirmed.
func (d *Driver) Put(ctx context.Context, ref loop.Ref, want loop.PathState) error {
	e, w, err := d.find(ref)
	if e == nil || err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.turn(w.Service)
	v, err := d.look(ctx, e)
	if err != nil {
		return err
	}
	c, err := d.agree(ctx, e, v)
	if err != nil {
		return classify(err)
	}
	if v.seen && len(c.Claims) == 0 {
		d.mu.Lock()
		d.free(e)
		d.mu.Unlock()
	}
	if want.In {
		// The gateways are told first (assign, below) and are named once they take connections. A
		// slice that is to be in while none does stays as it is: pointing at nothing would not
		// help.
		_, c.IPs, _ = d.listening(v)
		c.Keep = len(c.IPs) == 0
	}
	if v.slice == nil || !c.Matches(v.slice, d.Owner, &w.Controller) {
		if err := d.write(ctx, e, v, c.Build(v.slice, v.svc, d.Owner, w.Controller)); err != nil {
			return err
		}
	}
	settled := len(c.Claims) == 0 || e.written != nil // a waiting claim may be an old cache's
	d.assign(e, w, &c, want)
	if settled {
		d.pusher.settle(ref)
	}
	return d.deleteLeft(ctx, e)
}

// write creates or updates the slice. It fails with a conflict if the slice is not what was seen.
func (d *Driver) write(ctx context.Context, e *entry, v *view, next *discoveryv1.EndpointSlice) error {
	var err error
	if v.slice == nil {
		err = d.Client.Create(ctx, next)
	} else {
		err = d.Client.Update(ctx, next)
	}
	if err != nil {
		if apierrors.IsNotFound(err) { // deleted meanwhile: what was written is gone
			e.written = nil
			return fmt.Errorf("write slice %s: %w: %w", next.Name, scaler.ErrConflict, err)
		}
		if apierrors.IsAlreadyExists(err) && d.foreign(ctx, next) {
			return fmt.Errorf("EndpointSlice %s exists and is not Sluice's: nothing can be held for Service %s until it is deleted: %w", next.Name, e.service, scaler.ErrForbidden)
		}
		return classify(fmt.Errorf("write slice %s: %w", next.Name, err))
	}
	e.written, e.writtenAt = next, d.Clock()
	return nil
}

// foreign tells whether there is a slice of that name which is not Sluice's slice of the Service.
func (d *Driver) foreign(ctx context.Context, next *discoveryv1.EndpointSlice) bool {
	var s discoveryv1.EndpointSlice
	if err := d.Client.Get(ctx, client.ObjectKeyFromObject(next), &s, client.UnsafeDisableDeepCopy); err != nil {
		return false
	}
	return !slice.IsOwn(&s) || s.Labels[discoveryv1.LabelServiceName] != next.Labels[discoveryv1.LabelServiceName]
}

// assign gives the gateways the confirmed numbers. A number that was assigned and has to be
// confirmed again, since somebody deleted the slice, stays meanwhile.
func (d *Driver) assign(e *entry, w Workload, c *slice.Content, want loop.PathState) {
	for _, again := range c.Claims {
		for _, was := range e.assigned {
			if was.PortName == again.Name && was.Listen == again.Number {
				c.Ports = append(c.Ports, was)
			}
		}
	}
	b := bounds(w.Hold)
	failure := FailureClass(want.Failure)
	for i := range c.Ports {
		p := &c.Ports[i]
		p.InPath, p.Failure = want.In, failure
		p.MaxHeld, p.HoldSeconds, p.PodConcurrency = b.MaxHeld, b.HoldSeconds, b.PodConcurrency
	}
	e.assigned = c.Ports
	key := serviceOf(e.ref, e.service)
	d.mu.Lock()
	if list := d.services[key]; len(list) > 0 && list[0] == e { // not forgotten meanwhile
		d.count(e, len(c.Ports)+len(c.Claims))
		d.pusher.set(key, e.ref, c.Ports)
	}
	d.mu.Unlock()
}

// deleteLeft deletes the slices of Services that the workload has no more.
func (d *Driver) deleteLeft(ctx context.Context, e *entry) error {
	for len(e.left) > 0 {
		key := serviceOf(e.ref, e.left[0])
		s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: e.ref.Namespace, Name: slice.Name(e.left[0])}}
		d.mu.Lock()
		others := len(d.services[key])
		d.mu.Unlock()
		if others == 0 {
			if err := client.IgnoreNotFound(d.Client.Delete(ctx, s)); err != nil {
				return classify(fmt.Errorf("delete slice %s: %w", s.Name, err))
			}
		}
		e.left = e.left[1:]
	}
	return nil
}

// classify wraps what the API server said in the error that a round knows.
func classify(err error) error {
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%w: %w", scaler.ErrNotFound, err)
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return fmt.Errorf("%w: %w", scaler.ErrConflict, err)
	case apierrors.IsTooManyRequests(err):
		return fmt.Errorf("%w: %w", scaler.ErrThrottled, err)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%w: %w", scaler.ErrForbidden, err)
	}
	return err
}

// Observe tells the driver which gateways there are and what they report. It takes the list over.
func (d *Driver) Observe(gateways []wire.Gateway) {
	slices.SortFunc(gateways, func(a, b wire.Gateway) int { return strings.Compare(a.IP, b.IP) })
	d.gateways.Store(&gateways)
	d.pusher.wake()
}

// Assigned tells whether a gateway was given a port that it reports: it is assigned by this
// process, or a slice of Sluice's has its number. A port without a number is one that was taken
// away and drains: what it holds is demand of a Service that is still known.
func (d *Driver) Assigned(p *wire.PortReport) bool {
	key := types.NamespacedName{Namespace: p.Namespace, Name: p.Service}
	same := func(name string, number int) bool { return name == p.PortName && (p.Listen == 0 || p.Listen == number) }
	if d.pusher.assigned(key, same) {
		return true
	}
	var s discoveryv1.EndpointSlice
	name := types.NamespacedName{Namespace: key.Namespace, Name: slice.Name(key.Name)}
	if err := d.Client.Get(context.Background(), name, &s, client.UnsafeDisableDeepCopy); err != nil || !slice.IsOwn(&s) {
		return false
	}
	return slices.ContainsFunc(s.Ports, func(x discoveryv1.EndpointPort) bool {
		return x.Port != nil && d.Range.has(int(*x.Port)) && same(slice.Deref(x.Name), int(*x.Port))
	})
}

// FailureClass names the class of a failure to start pods. Clients are answered with it: the
// failure itself names pods, images and registries, and is for those who may read the Autoscaler's
// status.
func FailureClass(failure string) string {
	if failure == "" {
		return ""
	}
	for _, class := range []struct {
		name    string
		reasons []string
	}{
		{"the image cannot be pulled", []string{"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}},
		{"the container crashes", []string{"CrashLoopBackOff"}},
		{"the container cannot be started", []string{"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}},
		{"pods cannot be created", []string{"FailedCreate"}},
	} {
		if slices.ContainsFunc(class.reasons, func(r string) bool { return strings.Contains(failure, r) }) {
			return class.name
		}
	}
	return "the cause is in the Autoscaler's status"
}
