package path

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-autoscaler/sluice/scaler/kube/path/slice"
	"github.com/sluice-autoscaler/sluice/wire"
)

// Range is the half-open range of numbers that are given to Service ports.
type Range struct{ From, To int }

// DefaultRange is 10000–32767: below the ports that Linux gives to outgoing connections.
func DefaultRange() Range { return Range{From: 10000, To: 32768} }

// has tells whether a number is of the range.
func (r Range) has(n int) bool { return n >= r.From && n < r.To }

const (
	// yieldAfter is for how long the older of two unconfirmed claims waits for the other to yield.
	yieldAfter = 2 * time.Second
	// exhaustedFor is for how long nothing is searched after no number was left.
	exhaustedFor = 5 * time.Second
	// NamespaceFloor is how many numbers each namespace may always have. Beyond it a namespace may
	// have as many as are left, so that none uses up what others need.
	NamespaceFloor = 100
)

// agree finds the number of each TCP port of a Service: confirmed ones for the slice's ports, and
// claims. It reads the cache and writes nothing.
func (d *Driver) agree(ctx context.Context, e *entry, v *view) (slice.Content, error) {
	var c slice.Content
	taken := d.taken(v)
	for i := range v.svc.Spec.Ports {
		p := &v.svc.Spec.Ports[i]
		if !isTCP(p) {
			continue
		}
		number, sure, err := d.number(ctx, e, v, p.Name, taken)
		if err != nil {
			return c, err
		}
		taken[number] = p.Name
		if sure {
			c.Ports = append(c.Ports, wire.Assignment{
				Namespace: v.svc.Namespace, Service: v.svc.Name, PortName: p.Name, Listen: number, Protocol: slice.Protocol(slice.Deref(p.AppProtocol), p.Name),
			})
		} else {
			c.Claims = append(c.Claims, slice.Claim{Name: p.Name, Number: number})
		}
	}
	return c, nil
}

// taken returns the numbers that the slice has or claims for the Service's ports, each for the
// first port that names it. What is out of range is not believed.
func (d *Driver) taken(v *view) map[int]string {
	out := make(map[int]string, len(v.svc.Spec.Ports))
	for _, find := range []func(*discoveryv1.EndpointSlice, string) (int, bool){slice.Confirmed, slice.Claimed} {
		for i := range v.svc.Spec.Ports {
			p := &v.svc.Spec.Ports[i]
			if n, ok := find(v.slice, p.Name); ok && isTCP(p) && d.Range.has(n) && !held(out, n) {
				out[n] = p.Name
			}
		}
	}
	return out
}

// confirmed is the same, for a number that is of the driver's range. Another is not believed:
// whoever may write slices has put it there.
func (d *Driver) confirmed(s *discoveryv1.EndpointSlice, name string) (int, bool) {
	n, ok := slice.Confirmed(s, name)
	return n, ok && d.Range.has(n)
}

func held(taken map[int]string, n int) bool { _, ok := taken[n]; return ok }

func holds(taken map[int]string, n int, name string) bool {
	holder, ok := taken[n]
	return ok && holder == name
}

// number finds the number of one Service port; sure says that it is confirmed, or may be now.
func (d *Driver) number(ctx context.Context, e *entry, v *view, name string, taken map[int]string) (number int, sure bool, err error) {
	if n, ok := d.confirmed(v.slice, name); ok && holds(taken, n, name) {
		if !v.seen {
			return n, true, nil
		}
		rival, err := d.rival(ctx, v.slice, n)
		if err != nil {
			return 0, false, err
		}
		if rival == nil || !slice.Has(rival, n) || older(v.slice, rival) {
			return n, true, nil
		}
		n, err = d.choose(ctx, e, v, name, taken)
		return n, false, err
	}
	if n, ok := slice.Claimed(v.slice, name); ok && holds(taken, n, name) {
		if !v.seen {
			return n, false, nil
		}
		rival, err := d.rival(ctx, v.slice, n)
		switch {
		case err != nil:
			return 0, false, err
		case rival == nil:
			delete(e.contested, n)
			return n, true, nil
		case !slice.Has(rival, n) && older(v.slice, rival) && !e.waited(n, d.Clock()):
			return n, false, nil
		}
	}
	n, err := d.choose(ctx, e, v, name, taken)
	return n, false, err
}

// waited tells whether a contested claim has waited long enough for the other to yield.
func (e *entry) waited(n int, now time.Time) bool {
	since, ok := e.contested[n]
	if !ok {
		if e.contested == nil {
			e.contested = map[int]time.Time{}
		}
		e.contested[n] = now
		return false
	}
	return now.Sub(since) >= yieldAfter
}

// rival returns another slice that has or claims a number, nil when none does. One that has it goes
// before one that claims it, and the older before the younger.
func (d *Driver) rival(ctx context.Context, own *discoveryv1.EndpointSlice, number int) (*discoveryv1.EndpointSlice, error) {
	var list discoveryv1.EndpointSliceList
	if err := d.Client.List(ctx, &list, client.MatchingFields{slice.NumberIndex: strconv.Itoa(number)}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("find who has port %d: %w", number, err)
	}
	var found *discoveryv1.EndpointSlice
	for i := range list.Items {
		s := &list.Items[i]
		if own != nil && s.Namespace == own.Namespace && s.Name == own.Name {
			continue
		}
		if found == nil || slice.Has(s, number) && !slice.Has(found, number) || slice.Has(s, number) == slice.Has(found, number) && older(s, found) {
			found = s
		}
	}
	return found, nil
}

// older orders slices: the one created first, then by UID.
func older(a, b *discoveryv1.EndpointSlice) bool {
	if at, bt := a.CreationTimestamp.Time, b.CreationTimestamp.Time; !at.Equal(bt) {
		return at.Before(bt)
	}
	return a.UID < b.UID
}

// choose returns a number that nobody has or claims, as far as the cache and this process know. It
// is the one under which the gateways know the Service port, when that is free: a slice that was
// lost gets its numbers back.
func (d *Driver) choose(ctx context.Context, e *entry, v *view, name string, taken map[int]string) (int, error) {
	now := d.Clock()
	if err := d.fairShare(e, len(taken)+1); err != nil {
		return 0, err
	}
	full := fmt.Errorf("no gateway port is left in %d–%d: widen the range", d.Range.From, d.Range.To-1)
	if d.exhausted(now) {
		return 0, full
	}
	h := fnv.New64a()
	h.Write([]byte(v.svc.Namespace + "/" + v.svc.Name + "/" + name))
	sum, n := h.Sum64(), uint64(d.Range.To-d.Range.From)
	step := 1 + (sum>>32)%n
	for gcd(step, n) != 1 { // so that every number has its turn
		step++
	}
	number := d.known(v.svc, name)
	for i := range n + 1 {
		if i > 0 {
			number = d.Range.From + int((sum%n+i*step)%n)
		}
		if !d.Range.has(number) || held(taken, number) || !d.reserve(number, e) {
			continue
		}
		rival, err := d.rival(ctx, v.slice, number)
		if err == nil && rival == nil {
			return number, nil
		}
		d.release(number, e)
		if err != nil {
			return 0, err
		}
	}
	d.mu.Lock()
	d.fullUntil = now.Add(exhaustedFor)
	d.mu.Unlock()
	return 0, full
}

// known returns the number under which a gateway knows a Service port of this owner, 0 when none
// does.
func (d *Driver) known(svc *corev1.Service, name string) int {
	gateways := *d.gateways.Load()
	for i := range gateways {
		for _, r := range gateways[i].Ports(svc.Namespace, svc.Name) {
			if r.PortName == name && r.Owner == d.Owner {
				return r.Listen
			}
		}
	}
	return 0
}

// count notes how many numbers a workload has; d.mu is held.
func (d *Driver) count(e *entry, n int) {
	more := n - e.numbers
	e.numbers = n
	d.allNumbers += more
	if d.numbers[e.ref.Namespace] += more; d.numbers[e.ref.Namespace] == 0 {
		delete(d.numbers, e.ref.Namespace)
	}
}

// fairShare says why a workload's namespace may not have one of the numbers left, so that the
// workload would have n.
func (d *Driver) fairShare(e *entry, n int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	more := n - e.numbers
	own, left := d.numbers[e.ref.Namespace]+more, d.Range.To-d.Range.From-d.allNumbers-more
	if more <= 0 || own <= NamespaceFloor || own <= left {
		return nil
	}
	return fmt.Errorf("namespace %s has %d of the gateways' ports, and %d are left for all: it may have no more (%d, or as many as are left)",
		e.ref.Namespace, own-more, left+more, NamespaceFloor)
}

func (d *Driver) exhausted(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return now.Before(d.fullUntil)
}

// reserve keeps other rounds of this process from choosing a number that the cache does not show
// yet.
func (d *Driver) reserve(number int, e *entry) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if holder := d.reserved[number]; holder != nil && holder != e {
		return false
	}
	if d.reserved[number] == nil {
		d.reserved[number], e.reserved = e, append(e.reserved, number)
	}
	return true
}

func (d *Driver) release(number int, e *entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reserved[number] == e {
		delete(d.reserved, number)
		if i := slices.Index(e.reserved, number); i >= 0 {
			e.reserved = slices.Delete(e.reserved, i, i+1)
		}
	}
}

func isTCP(p *corev1.ServicePort) bool { return p.Protocol == corev1.ProtocolTCP || p.Protocol == "" }

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
