package store

import (
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/sluice-autoscaler/sluice/adapter/store/index"
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
)

// Binding says where a workload's demand is read.
type Binding struct {
	Namespace string
	// Selector selects its pods; nil selects none.
	Selector labels.Selector
	// Services are those of the namespace for which gateways may hold requests.
	Services []string
}

// same tells whether two bindings select the same. It allocates nothing.
func (b *Binding) same(c *Binding) bool {
	if b.Namespace != c.Namespace || !slices.Equal(b.Services, c.Services) {
		return false
	}
	mine, some := b.Selector.Requirements()
	others, any := c.Selector.Requirements()
	return some == any && slices.EqualFunc(mine, others, labels.Requirement.Equal)
}

// binding is a workload with its pods.
type binding struct {
	Binding
	// key is the label by which the namespace finds it; without one keyed is false.
	key   index.Pair
	keyed bool

	mu   sync.RWMutex
	pods []*podSource // by name
}

// add takes a pod that the binding selects. The namespace's lock is held.
func (b *binding) add(src *podSource) {
	src.members = append(src.members, b)
	b.mu.Lock()
	defer b.mu.Unlock()
	i, _ := slices.BinarySearchFunc(b.pods, src, comparePods)
	b.pods = slices.Insert(b.pods, i, src)
}

// remove takes a pod out. The namespace's lock is held, and the pod's name is what it was.
func (b *binding) remove(src *podSource) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i, ok := slices.BinarySearchFunc(b.pods, src, comparePods); ok {
		b.pods = slices.Delete(b.pods, i, i+1)
	}
}

// bind enters a binding and the pods that it selects.
func (n *namespace) bind(b *binding) {
	// A pod looks at the bindings of each of its labels. The pair that the fewest bindings have
	// tells workloads apart; of these, the one that the fewest pods have.
	for _, p := range index.Pairs(b.Selector) {
		bindings, best := len(n.byKey[p]), len(n.byKey[b.key])
		if !b.keyed || bindings < best || bindings == best && len(n.byLabel[p]) < len(n.byLabel[b.key]) {
			b.key, b.keyed = p, true
		}
	}
	if b.keyed {
		n.byKey[b.key] = append(n.byKey[b.key], b)
	} else {
		n.others = append(n.others, b)
	}
	b.pods = n.selected(b.Selector, nil)
	slices.SortFunc(b.pods, comparePods)
	for _, src := range b.pods {
		src.members = append(src.members, b)
	}
}

// unbind takes a binding out.
func (n *namespace) unbind(b *binding) {
	if b.keyed {
		index.Remove(n.byKey, b.key, b)
	} else {
		n.others = index.Without(n.others, b)
	}
	for _, src := range b.pods {
		src.members = index.Without(src.members, b)
	}
}

// Bind says where a workload's demand is read from now on. It does nothing when that has not
// changed, and costs little then. The Binding must not be changed any more.
func (s *Store) Bind(ref loop.Ref, b Binding) {
	if b.Selector == nil {
		b.Selector = labels.Nothing()
	}
	if old := s.binding(ref); old != nil && old.same(&b) {
		return
	}
	s.bindMu.Lock()
	defer s.bindMu.Unlock()
	next := &binding{Binding: b}
	ns := s.lockNamespace(b.Namespace)
	ns.bind(next)
	ns.mu.Unlock()
	s.replace(ref, next)
}

// Unbind drops a workload.
func (s *Store) Unbind(ref loop.Ref) {
	s.bindMu.Lock()
	defer s.bindMu.Unlock()
	s.replace(ref, nil)
}

// replace makes next the workload's binding, none when it is nil. bindMu is held.
func (s *Store) replace(ref loop.Ref, next *binding) {
	s.refMu.Lock()
	old := s.bindings[ref]
	if next != nil {
		s.bindings[ref] = next
	} else {
		delete(s.bindings, ref)
	}
	s.refMu.Unlock()
	if old != nil {
		ns := s.lockNamespace(old.Namespace)
		ns.unbind(old)
		ns.mu.Unlock()
	}
}

// binding returns a workload's binding, nil when it has none.
func (s *Store) binding(ref loop.Ref) *binding {
	s.refMu.RLock()
	defer s.refMu.RUnlock()
	return s.bindings[ref]
}

// Signals appends a signal for each need of a workload: what Workload answers for its binding.
// Needs that are no signal of ours are answered as unknown, and so is every need of a workload that
// is bound to nothing.
func (s *Store) Signals(now time.Time, ref loop.Ref, needs []algorithms.Need, dst []algorithms.Signal) []algorithms.Signal {
	b := s.binding(ref)
	if b == nil {
		for _, n := range needs {
			dst = append(dst, algorithms.Signal{Name: n.Name, Window: n.Window})
		}
		return dst
	}
	var few [4]sum
	sums := s.newSums(few[:0], now, needs)
	s.addGateways(sums, b.Namespace, b.Services)
	b.mu.RLock()
	for _, src := range b.pods {
		s.addPod(sums, src)
	}
	b.mu.RUnlock()
	return appendSignals(dst, sums)
}

// SelectedSignals appends a signal for each need: what Workload answers.
func (s *Store) SelectedSignals(now time.Time, namespace string, pods labels.Selector, services []string, needs []algorithms.Need, dst []algorithms.Signal) []algorithms.Signal {
	sums := s.newSums(nil, now, needs)
	s.addGateways(sums, namespace, services)
	for _, src := range s.selectPods(namespace, pods) {
		s.addPod(sums, src)
	}
	return appendSignals(dst, sums)
}

// Instances appends the workload's pods that exist and have not finished, by name.
func (s *Store) Instances(ref loop.Ref, dst []loop.Instance) []loop.Instance {
	b := s.binding(ref)
	if b == nil {
		return dst
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, src := range b.pods {
		src.mu.Lock()
		if src.deleted.IsZero() {
			dst = append(dst, src.instance())
		}
		src.mu.Unlock()
	}
	return dst
}

// instance describes a pod to the loop.
func (p *podSource) instance() loop.Instance {
	i := loop.Instance{
		ID: p.pod.Name, Address: p.pod.IP, State: p.pod.State,
		Created: p.pod.Created, Scheduled: p.pod.Scheduled, Started: p.pod.Started, Ready: p.pod.Ready,
		InFlight: -1, Limit: p.last.Limit, Trouble: p.pod.Trouble,
	}
	if !p.read.IsZero() && !p.read.Before(p.since) {
		i.InFlight = p.last.InFlight
	} else if f := p.feed(algorithms.Concurrency); f != nil && p.pod.MetricsPort == 0 && f.Missing == "" && f.HasInstant && !f.Read.Before(p.preset.Since) {
		i.InFlight = f.Instant
	}
	return i
}
