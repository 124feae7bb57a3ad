package store

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/adapter/store/feed"
	"github.com/sluice-autoscaler/sluice/adapter/store/index"
	"github.com/sluice-autoscaler/sluice/adapter/store/podstate"
	"github.com/sluice-autoscaler/sluice/algorithms/window"
)

// Pod is a pod as the informer last showed it.
type Pod = podstate.Pod

// Endpoint is where a preset reads a pod.
type Endpoint = podstate.Endpoint

// Sample is one reading of a pod's sidecar.
type Sample struct {
	// Reading holds as sums the concurrency integral, in request-seconds, and the number of
	// requests answered.
	Reading window.Reading
	// InFlight, Queued and Limit are the gauges of that instant, in requests.
	InFlight, Queued, Limit float64
}

// podSource is a pod with its readings.
type podSource struct {
	// mu guards what follows. pod is written with the namespace's lock held as well, so that either
	// lock is enough to read it.
	mu     sync.Mutex
	pod    Pod
	series window.Series
	last   Sample
	// read is the receipt of the newest good reading; since is when the pod last began to be
	// expected.
	read, since, deleted time.Time
	// cause is the last failure's, "" after a success.
	cause string
	// preset is what a preset reads of it; nil until it was read, or failed to be.
	preset *feed.Feeds

	// members are the bindings that select the pod. The namespace's lock guards them.
	members []*binding
}

func (p *podSource) deletedAt() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.deleted
}

// set takes a pod's state as seen at now.
func (p *podSource) set(now time.Time, pod Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	keepFirst := func(known time.Time, told *time.Time) {
		if !known.IsZero() {
			*told = known
		}
	}
	keepFirst(p.pod.Created, &pod.Created)
	keepFirst(p.pod.Scheduled, &pod.Scheduled)
	keepFirst(p.pod.Started, &pod.Started)
	keepFirst(p.pod.Ready, &pod.Ready)
	if pod.Expected() && !p.pod.Expected() {
		p.since = now
	}
	if pod.Endpoint != nil {
		p.setPreset(now, &pod)
	}
	p.pod, p.deleted = pod, time.Time{}
}

// namespace holds the pods of a namespace, those that windows still reach included, and the
// bindings that may select them.
type namespace struct {
	mu      sync.RWMutex
	pods    map[types.UID]*podSource
	deleted map[types.UID]*podSource
	// byLabel finds pods by each of their labels and by their name.
	byLabel map[index.Pair][]*podSource
	// byKey finds bindings by one pair that their pods must have; others have no such pair.
	byKey  map[index.Pair][]*binding
	others []*binding
	// removed says that the store no longer knows of it.
	removed bool
}

func newNamespace() *namespace {
	return &namespace{
		pods: map[types.UID]*podSource{}, deleted: map[types.UID]*podSource{},
		byLabel: map[index.Pair][]*podSource{}, byKey: map[index.Pair][]*binding{},
	}
}

func (n *namespace) empty() bool { return len(n.pods)+len(n.byKey)+len(n.others) == 0 }

// index adds a pod under its labels and to the bindings that select it.
func (n *namespace) index(src *podSource) {
	n.byLabel[index.Name(src.pod.Name)] = append(n.byLabel[index.Name(src.pod.Name)], src)
	enter := func(candidates []*binding) {
		for _, b := range candidates {
			if b.Selector.Matches(src.pod.Labels) {
				b.add(src)
			}
		}
	}
	for k, v := range src.pod.Labels {
		pair := index.Pair{Key: k, Value: v}
		n.byLabel[pair] = append(n.byLabel[pair], src)
		enter(n.byKey[pair])
	}
	enter(n.others)
}

// unindex takes a pod out again.
func (n *namespace) unindex(src *podSource) {
	index.Remove(n.byLabel, index.Name(src.pod.Name), src)
	for k, v := range src.pod.Labels {
		index.Remove(n.byLabel, index.Pair{Key: k, Value: v}, src)
	}
	for _, b := range src.members {
		b.remove(src)
	}
	src.members = nil
}

// drop takes a pod and its readings away.
func (n *namespace) drop(src *podSource) {
	n.unindex(src)
	delete(n.pods, src.pod.UID)
	delete(n.deleted, src.pod.UID)
}

// unread returns a pod that is expected to be read and was not even tried.
func (n *namespace) unread() (pod Pod, ok bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for _, src := range n.pods {
		src.mu.Lock()
		ok = src.deleted.IsZero() && src.pod.IP != "" && (src.pod.MetricsPort != 0 && src.pod.Expected() &&
			src.read.IsZero() && src.cause == "" || src.unreadByPreset())
		pod = src.pod
		src.mu.Unlock()
		if ok {
			return pod, true
		}
	}
	return Pod{}, false
}

// selected appends the pods that a selector selects, those included that windows still reach. It
// looks at those only that have the rarest of the labels which the selector demands.
func (n *namespace) selected(selector labels.Selector, dst []*podSource) []*podSource {
	demanded := index.Pairs(selector)
	if len(demanded) == 0 {
		for _, src := range n.pods {
			if selector.Matches(src.pod.Labels) {
				dst = append(dst, src)
			}
		}
		return dst
	}
	rarest := n.byLabel[demanded[0]]
	for _, p := range demanded[1:] {
		if other := n.byLabel[p]; len(other) < len(rarest) {
			rarest = other
		}
	}
	for _, src := range rarest {
		if selector.Matches(src.pod.Labels) {
			dst = append(dst, src)
		}
	}
	return dst
}

// selectPods returns the pods of a namespace that a selector selects, by name.
func (s *Store) selectPods(name string, selector labels.Selector) []*podSource {
	ns := s.findNamespace(name)
	if ns == nil {
		return nil
	}
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	list := ns.selected(selector, nil)
	slices.SortFunc(list, comparePods)
	return list
}

// comparePods orders pods by name. Of several of one name all but one are deleted.
func comparePods(a, b *podSource) int {
	if c := strings.Compare(a.pod.Name, b.pod.Name); c != 0 {
		return c
	}
	return strings.Compare(string(a.pod.UID), string(b.pod.UID))
}

// findPod returns a pod, nil when there is none.
func (s *Store) findPod(namespace string, uid types.UID) *podSource {
	ns := s.findNamespace(namespace)
	if ns == nil {
		return nil
	}
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	return ns.pods[uid]
}

// SetPod takes a pod's state as seen at now. The instants of the pod that are already known are
// kept.
func (s *Store) SetPod(now time.Time, p Pod) {
	ns := s.lockNamespace(p.Namespace)
	defer ns.mu.Unlock()
	src := ns.pods[p.UID]
	if src != nil && src.pod.Name == p.Name && maps.Equal(src.pod.Labels, p.Labels) {
		src.set(now, p)
		delete(ns.deleted, p.UID)
		return
	}
	if src == nil {
		src = &podSource{}
		ns.pods[p.UID] = src
	} else {
		ns.unindex(src)
	}
	src.set(now, p)
	delete(ns.deleted, p.UID)
	ns.index(src)
}

// DeletePod takes a pod away at now. What it served stays in the windows that reach back to it.
func (s *Store) DeletePod(now time.Time, namespace string, uid types.UID) {
	ns := s.findNamespace(namespace)
	if ns == nil {
		return
	}
	ns.mu.Lock()
	defer ns.mu.Unlock()
	src := ns.pods[uid]
	if src == nil {
		return
	}
	src.mu.Lock()
	never := src.read.IsZero() && (src.preset == nil || src.preset.Read.IsZero())
	if src.deleted.IsZero() {
		src.deleted = now
	}
	src.mu.Unlock()
	if never {
		ns.drop(src)
		return
	}
	ns.deleted[uid] = src
}

// AddSample takes a reading of a pod. It tells whether it was used.
func (s *Store) AddSample(namespace string, uid types.UID, sample Sample) bool {
	src := s.findPod(namespace, uid)
	if src == nil {
		return false
	}
	src.mu.Lock()
	defer src.mu.Unlock()
	if !src.series.Add(sample.Reading) {
		return false
	}
	src.last, src.read, src.cause = sample, sample.Reading.At, ""
	return true
}

// SetFailure notes why a pod could not be read.
func (s *Store) SetFailure(namespace string, uid types.UID, cause string) {
	if src := s.findPod(namespace, uid); src != nil {
		src.mu.Lock()
		src.cause = cause
		src.mu.Unlock()
	}
}

// List returns the selected pods of a namespace that exist and have not finished, by name.
func (s *Store) List(namespace string, selector labels.Selector) []Pod {
	var out []Pod
	for _, src := range s.selectPods(namespace, selector) {
		src.mu.Lock()
		if src.deleted.IsZero() {
			p := src.pod
			p.Limit = src.last.Limit
			out = append(out, p)
		}
		src.mu.Unlock()
	}
	return out
}
