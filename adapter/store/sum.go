package store

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/window"
)

// Value is one signal of a workload or a pod over a window.
type Value struct {
	// Value is the total, in the signal's unit; meaningless unless Known.
	Value float64
	// Known is false when the value must not be acted on; Missing then says in a few words what is
	// missing, for people.
	Known   bool
	Missing string
	// At is the instant of the newest reading behind it; Age how old the stalest source's newest
	// reading is.
	At  time.Time
	Age time.Duration
	// Coverage is the share of expected sources × window time that reported, 0–1.
	Coverage float64
	// Window is the time over which Value is the mean.
	Window time.Duration
	// Source names where it came from.
	Source string
	// Sources is how many sources (pods, gateways) it was expected from.
	Sources int
}

// PodValue is a Value of one pod.
type PodValue struct {
	Name   string
	Labels labels.Set
	Value
}

// Workload answers a signal: the concurrency of the selected pods and what gateways hold for the
// Services, the rate of the pods, or what gateways hold. The value is the sum of the sources'
// means. A source that is gone (its pod was deleted) contributes nothing from then on, one that was
// born within the window nothing before. A pod that was ready and whose container runs, or a
// gateway that holds for one of the Services, makes the value unknown when it was not heard of for
// longer than the stale bound; so does a window of which less than half is known. Value and
// Coverage are then those of the others.
func (s *Store) Workload(now time.Time, namespace string, pods labels.Selector, services []string, signal string, width time.Duration) Value {
	t := [1]sum{{explain: true}}
	s.begin(&t[0], now, algorithms.Need{Name: signal, Window: width})
	s.addGateways(t[:], namespace, services)
	if t[0].readsPods() {
		for _, src := range s.selectPods(namespace, pods) {
			s.addPod(t[:], src)
		}
	}
	return t[0].answer()
}

// Pods answers a signal pod by pod, by name, for every selected pod that is ready.
func (s *Store) Pods(now time.Time, namespace string, pods labels.Selector, signal string, width time.Duration) []PodValue {
	var out []PodValue
	for _, src := range s.selectPods(namespace, pods) {
		if v, ok := s.podValue(now, src, signal, width); ok {
			out = append(out, v)
		}
	}
	return out
}

// Pod answers a signal of one pod; ok is false when there is no such pod that is ready.
func (s *Store) Pod(now time.Time, namespace, name, signal string, width time.Duration) (v PodValue, ok bool) {
	ns := s.findNamespace(namespace)
	if ns == nil {
		return v, false
	}
	ns.mu.RLock()
	list := slices.Clone(ns.byLabel[nameKey(name)])
	ns.mu.RUnlock()
	for _, src := range list {
		if v, ok = s.podValue(now, src, signal, width); ok {
			return v, true
		}
	}
	return v, false
}

// podValue answers a signal of one pod; ok is false unless it is ready.
func (s *Store) podValue(now time.Time, src *podSource, signal string, width time.Duration) (v PodValue, ok bool) {
	src.mu.Lock()
	name, set := src.pod.Name, src.pod.Labels
	ok, unread := src.deleted.IsZero() && src.pod.State == algorithms.PodReady, src.read.IsZero()
	if src.byPreset(signal) {
		ok, unread = ok && !src.pod.young(now), false
	}
	src.mu.Unlock()
	if !ok {
		return v, false
	}
	t := [1]sum{{explain: true}}
	s.begin(&t[0], now, algorithms.Need{Name: signal, Window: width})
	if t[0].readsPods() {
		s.addPod(t[:], src)
		t[0].bad = t[0].bad || unread
	} else {
		t[0].bad = true
	}
	return PodValue{Name: name, Labels: set, Value: t[0].answer()}, true
}

// named is how many missing sources are named in words.
const named = 3

// missing is a source that is needed and does not report.
type missing struct {
	what, cause string
	since       time.Time
}

// sum adds the sources of one answer up.
type sum struct {
	window.Total
	need           algorithms.Need
	pods, gateways int
	// sources are where pods' values come from, joined by +; "" is sidecars.
	sources string
	// ratio says that the signal is the quotient of Total and per.
	ratio bool
	per   window.Total
	// named says that presets give a signal of the name; bad that the signal does not exist.
	named   bool
	bad     bool
	explain bool
	missing []missing
}

// begin sets what is asked for.
func (s *Store) begin(t *sum, now time.Time, need algorithms.Need) {
	t.Now, t.Width, t.need = now, need.Window, need
	_, t.named = s.named[need.Name]
	t.bad = !t.valid()
}

// from notes where a pod's value comes from.
func (t *sum) from(source string) {
	switch {
	case source == "" || t.sources == source:
	case t.sources == "":
		t.sources = source
	case !slices.Contains(strings.Split(t.sources, "+"), source):
		t.sources += "+" + source
	}
}

// value is the sum of the sources' means, or their quotient.
func (t *sum) value() float64 {
	if !t.ratio {
		return t.Value()
	}
	if t.per.Value() > 0 {
		return t.Value() / t.per.Value()
	}
	return 0 // unknown
}

// newSums appends an empty sum for each need.
func (s *Store) newSums(dst []sum, now time.Time, needs []algorithms.Need) []sum {
	for i := range needs {
		dst = append(dst, sum{})
		s.begin(&dst[i], now, needs[i])
	}
	return dst
}

func appendSignals(dst []algorithms.Signal, sums []sum) []algorithms.Signal {
	for i := range sums {
		t := &sums[i]
		dst = append(dst, algorithms.Signal{
			Name: t.need.Name, Window: t.need.Window, Value: t.value(), Known: t.known(), Age: t.Age(),
			Coverage: t.coverage(), Source: t.source(),
		})
	}
	return dst
}

func (t *sum) valid() bool {
	switch t.need.Name {
	case algorithms.Concurrency, algorithms.Waiting:
		return t.need.Window >= 0 && t.need.Window <= window.Longest
	case algorithms.Rate: // has no instant
		return t.need.Window > 0 && t.need.Window <= window.Longest
	}
	return t.named && t.need.Window >= 0 && t.need.Window <= window.Longest
}

// readsPods says that pods are sources of the signal, readsGateways that gateways are.
func (t *sum) readsPods() bool { return !t.bad && t.need.Name != algorithms.Waiting }
func (t *sum) readsGateways() bool {
	return !t.bad && (t.need.Name == algorithms.Concurrency || t.need.Name == algorithms.Waiting)
}

func (t *sum) known() bool {
	return !t.bad && t.Known() && (!t.ratio || t.per.Value() > 0)
}

func (t *sum) coverage() float64 {
	if t.bad {
		return 0
	}
	return t.Coverage()
}

func (t *sum) source() string {
	pods := cmp.Or(t.sources, "sidecar")
	switch {
	case t.pods > 0 && t.gateways > 0 && pods == "sidecar":
		return "sidecar+gateway" // costs no allocation
	case t.pods > 0 && t.gateways > 0:
		return pods + "+gateway"
	case t.gateways > 0:
		return "gateway"
	}
	return pods
}

func (t *sum) answer() Value {
	v := Value{
		Value: t.value(), Known: t.known(), At: t.Newest(), Age: t.Age(), Coverage: t.coverage(), Window: t.need.Window,
		Source: t.source(), Sources: t.pods + t.gateways,
	}
	if v.At.IsZero() && v.Known {
		v.At = t.Now // that there is nothing to read is what is known now
	}
	if !v.Known {
		v.Missing = t.words()
	}
	return v
}

// words says what is missing, in words that stay the same while it does, so that a cluster's events
// of them are one.
func (t *sum) words() string {
	if len(t.missing) == 0 {
		switch {
		case t.bad:
			return "no readings"
		case t.ratio && t.Known():
			return fmt.Sprintf("nothing was counted in the last %v", t.need.Window)
		}
		return fmt.Sprintf("less than half of the last %v is known", t.need.Window)
	}
	slices.SortFunc(t.missing, func(a, b missing) int {
		return cmp.Or(a.since.Compare(b.since), strings.Compare(a.what, b.what))
	})
	var parts []string
	for _, m := range t.missing[:min(named, len(t.missing))] {
		parts = append(parts, fmt.Sprintf("%s not read since %s (%s)", m.what, m.since.UTC().Format(time.RFC3339), m.cause))
	}
	if more := len(t.missing) - named; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, ", ")
}

// miss takes a source that is needed and was not heard of since an instant; counted says that Add
// took it too.
func (t *sum) miss(kind, name, cause string, since time.Time, counted bool) {
	t.Miss(since, counted)
	if t.explain {
		t.missing = append(t.missing, missing{what: kind + " " + name, cause: cause, since: since})
	}
}

// addPod adds a pod to the sums of which pods are sources.
func (s *Store) addPod(sums []sum, src *podSource) {
	src.mu.Lock()
	defer src.mu.Unlock()
	for i := range sums {
		t := &sums[i]
		if !t.readsPods() {
			continue
		}
		if src.byPreset(t.need.Name) {
			s.addPreset(t, src)
			continue
		}
		k := concurrencySum
		if t.need.Name == algorithms.Rate {
			k = rateSum
		}
		if !src.deleted.IsZero() {
			t.Add(&src.series, k, false, 0)
			continue
		}
		since := s.unreadSince(t.Now, src)
		live := since.IsZero() && !src.read.IsZero() && t.Now.Sub(src.read) <= s.opts.Stale
		if live || src.pod.expected() {
			t.pods++
			t.from("sidecar")
		}
		t.Add(&src.series, k, live, src.last.InFlight)
		if !since.IsZero() {
			t.miss("pod", src.pod.Name, src.failure(), since, !src.read.IsZero())
		}
	}
}

// failure says why a pod is not read.
func (p *podSource) failure() string {
	switch {
	case p.pod.MetricsPort == 0:
		return "it has no port named sluice-metrics and no preset: add the sidecar, or annotate the pod template with sluice.dev/preset"
	case p.cause != "":
		return p.cause
	}
	return "no answer"
}

// unreadSince returns since when a pod is missed, the zero time when it is not.
func (s *Store) unreadSince(now time.Time, src *podSource) time.Time {
	switch {
	case !src.pod.expected():
	case src.read.Before(src.since):
		// not read since it became ready, or since its container came back
		if now.Sub(src.since) > s.opts.Interval+grace {
			return src.since
		}
	case now.Sub(src.read) > s.opts.Stale:
		return src.read
	}
	return time.Time{}
}
