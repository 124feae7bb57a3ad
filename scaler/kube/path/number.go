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
)

// agree finds the number of each TCP port of a Service: confirmed ones for the slice's ports, and
// claims. It reads the cache and writes nothing.
func (d *Driver) agree(ctx context.Context, e *entry, v *view) (content, error) {
	var c content
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
			c.ports = append(c.ports, wire.Assignment{
				Namespace: v.svc.Namespace, Service: v.svc.Name, PortName: p.Name, Listen: number, Protocol: protocol(deref(p.AppProtocol), p.Name),
			})
		} else {
			c.claims = append(c.claims, claim{p.Name, number})
		}
	}
	return c, nil
}

// taken returns the numbers that the slice has or claims for the Service's ports, each for the
// first port that names it. What is out of range is not believed.
func (d *Driver) taken(v *view) map[int]string {
	out := make(map[int]string, len(v.svc.Spec.Ports))
	for _, find := range []func(*discoveryv1.EndpointSlice, string) (int, bool){confirmed, claimed} {
		for i := range v.svc.Spec.Ports {
			p := &v.svc.Spec.Ports[i]
			if n, ok := find(v.slice, p.Name); ok && isTCP(p) && d.Range.has(n) && !held(out, n) {
				out[n] = p.Name
			}
		}
	}
	return out
}

func held(taken map[int]string, n int) bool { _, ok := taken[n]; return ok }

func holds(taken map[int]string, n int, name string) bool {
	holder, ok := taken[n]
	return ok && holder == name
}

// number finds the number of one Service port; sure says that it is confirmed, or may be now.
func (d *Driver) number(ctx context.Context, e *entry, v *view, name string, taken map[int]string) (number int, sure bool, err error) {
	if n, ok := confirmed(v.slice, name); ok && holds(taken, n, name) {
		if !v.seen {
			return n, true, nil
		}
		rival, err := d.rival(ctx, v.slice, n)
		if err != nil {
			return 0, false, err
		}
		if rival == nil || !has(rival, n) || older(v.slice, rival) {
			return n, true, nil
		}
		n, err = d.choose(ctx, e, v, name, taken)
		return n, false, err
	}
	if n, ok := claimed(v.slice, name); ok && holds(taken, n, name) {
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
		case !has(rival, n) && older(v.slice, rival) && !e.waited(n, d.Clock()):
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
	if err := d.Client.List(ctx, &list, client.MatchingFields{NumberIndex: strconv.Itoa(number)}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("find who has port %d: %w", number, err)
	}
	var found *discoveryv1.EndpointSlice
	for i := range list.Items {
		s := &list.Items[i]
		if own != nil && s.Namespace == own.Namespace && s.Name == own.Name {
			continue
		}
		if found == nil || has(s, number) && !has(found, number) || has(s, number) == has(found, number) && older(s, found) {
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
