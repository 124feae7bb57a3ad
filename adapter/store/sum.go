package store

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/sluice-autoscaler/sluice/adapter/store/index"
	"github.com/sluice-autoscaler/sluice/adapter/store/total"
	"github.com/sluice-autoscaler/sluice/algorithms"
)

// Value is one signal of a workload or a pod over a window.
type Value = total.Value

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
	t := [1]sum{{Explain: true}}
	s.begin(&t[0], now, algorithms.Need{Name: signal, Window: width})
	s.addGateways(t[:], namespace, services)
	if t[0].ReadsPods() {
		for _, src := range s.selectPods(namespace, pods) {
			s.addPod(t[:], src)
		}
	}
	return t[0].Answer()
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
	list := slices.Clone(ns.byLabel[index.Name(name)])
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
		ok, unread = ok && !src.pod.Young(now), false
	}
	src.mu.Unlock()
	if !ok {
		return v, false
	}
	t := [1]sum{{Explain: true}}
	s.begin(&t[0], now, algorithms.Need{Name: signal, Window: width})
	if t[0].ReadsPods() {
		s.addPod(t[:], src)
		t[0].Bad = t[0].Bad || unread
	} else {
		t[0].Bad = true
	}
	return PodValue{Name: name, Labels: set, Value: t[0].Answer()}, true
}

// sum adds the sources of one answer up.
type sum = total.Sum

// begin sets what is asked for.
func (s *Store) begin(t *sum, now time.Time, need algorithms.Need) {
	_, named := s.named[need.Name]
	t.Begin(now, need, named)
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
		dst = append(dst, sums[i].Signal())
	}
	return dst
}

// addPod adds a pod to the sums of which pods are sources.
func (s *Store) addPod(sums []sum, src *podSource) {
	src.mu.Lock()
	defer src.mu.Unlock()
	for i := range sums {
		t := &sums[i]
		if !t.ReadsPods() {
			continue
		}
		if src.byPreset(t.Need.Name) {
			s.addPreset(t, src)
			continue
		}
		k := concurrencySum
		if t.Need.Name == algorithms.Rate {
			k = rateSum
		}
		if !src.deleted.IsZero() {
			t.Add(&src.series, k, false, 0)
			continue
		}
		since := s.unreadSince(t.Now, src)
		live := since.IsZero() && !src.read.IsZero() && t.Now.Sub(src.read) <= s.opts.Stale
		if live || src.pod.Expected() {
			t.Pods++
			t.From("sidecar")
		}
		t.Add(&src.series, k, live, src.last.InFlight)
		if !since.IsZero() {
			t.MissSource("pod", src.pod.Name, src.failure(), since, !src.read.IsZero())
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
	case !src.pod.Expected():
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
