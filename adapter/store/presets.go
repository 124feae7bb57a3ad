package store

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/adapter/store/feed"
	"github.com/sluice-autoscaler/sluice/algorithms"
)

// SignalSample is what one reading by a preset says of one signal.
type SignalSample = feed.Sample

// setPreset takes a pod's state, in which it is read by a preset. The pod's lock is held, and p.pod
// is its state before.
func (p *podSource) setPreset(now time.Time, pod *Pod) {
	if p.preset == nil {
		p.preset = &feed.Feeds{Since: now}
		return
	}
	if pod.ExpectedByPreset() && !p.pod.ExpectedByPreset() {
		p.preset.Since = now
	}
}

// unreadByPreset says that a preset is to read it and was not even tried.
func (p *podSource) unreadByPreset() bool {
	e := p.pod.Endpoint
	return e != nil && e.Fault == "" && p.pod.ExpectedByPreset() && (p.preset == nil || p.preset.Read.IsZero() && p.preset.Cause == "")
}

// feed returns a pod's signal of its preset, nil when there is none.
func (p *podSource) feed(signal string) *feed.Feed {
	if p.preset == nil {
		return nil
	}
	return p.preset.Find(signal)
}

// byPreset says that a signal of the pod is what a preset reads: a sidecar's wins.
func (p *podSource) byPreset(signal string) bool {
	if signal == algorithms.Concurrency || signal == algorithms.Rate {
		return p.pod.MetricsPort == 0 && p.pod.Endpoint != nil
	}
	return true
}

// AddSignals takes what a preset has read of a pod at an instant. It tells whether all was used.
func (s *Store) AddSignals(namespace string, uid types.UID, at time.Time, samples []SignalSample) bool {
	src := s.findPod(namespace, uid)
	if src == nil {
		return false
	}
	src.mu.Lock()
	defer src.mu.Unlock()
	if src.preset == nil {
		src.preset = &feed.Feeds{Since: at}
	}
	return src.preset.Add(at, samples)
}

// SetPresetFailure notes why a preset could not read a pod.
func (s *Store) SetPresetFailure(namespace string, uid types.UID, cause string) {
	src := s.findPod(namespace, uid)
	if src == nil {
		return
	}
	src.mu.Lock()
	defer src.mu.Unlock()
	if src.preset == nil {
		src.preset = &feed.Feeds{}
	}
	src.preset.Cause = cause
}

// none is the feed of a pod that has none of a signal; never written.
//
//nolint:gochecknoglobals // an empty series, so that reading costs no allocation
var none feed.Feed

// addPreset adds a signal of a pod that a preset reads. The pod's lock is held.
func (s *Store) addPreset(t *sum, src *podSource) {
	f := src.feed(t.Need.Name)
	if f == nil {
		f = &none
	}
	if f != &none {
		t.SetRatio(f.Ratio)
	}
	if !src.deleted.IsZero() {
		t.AddSeries(&f.Series, false, f.Instant)
		return
	}
	if src.pod.Young(t.Now) {
		return
	}
	since := s.unheard(t.Now, src, f)
	live := since.IsZero() && !f.Read.IsZero() && t.Now.Sub(f.Read) <= s.opts.Stale
	expected := src.pod.ExpectedByPreset()
	if live || expected {
		t.Pods++
		t.From(f.Source)
	}
	if live && t.Width == 0 && !f.HasInstant {
		live, since = false, t.Now
	}
	t.AddSeries(&f.Series, live, f.Instant)
	if !since.IsZero() {
		t.MissSource("pod", src.pod.Name, src.presetFailure(f), since, !f.Read.IsZero())
	}
}

// unheard returns since when a signal of a pod is missed, the zero time when it is not.
func (s *Store) unheard(now time.Time, src *podSource, f *feed.Feed) time.Time {
	var since time.Time
	if src.preset != nil {
		since = src.preset.Since
	}
	switch {
	case !src.pod.ExpectedByPreset():
	case f.Read.IsZero() || f.Read.Before(since):
		if src.pod.Endpoint == nil || src.pod.Endpoint.Fault != "" || now.Sub(since) > s.opts.Interval+grace || f.Missing != "" {
			return firstKnown(since, src.pod.Ready)
		}
	case now.Sub(f.Read) > s.opts.Stale:
		return f.Read
	}
	return time.Time{}
}

// firstKnown returns the first of two instants that is known.
func firstKnown(a, b time.Time) time.Time {
	if a.IsZero() {
		return b
	}
	return a
}

// presetFailure says why a signal of a pod is not known.
func (p *podSource) presetFailure(f *feed.Feed) string {
	e := p.pod.Endpoint
	switch {
	case e == nil:
		return "no preset reads it: annotate the pod template with sluice.dev/preset"
	case e.Fault != "":
		return e.Fault
	case p.preset != nil && p.preset.Cause != "":
		return p.preset.Cause
	case f.Missing != "":
		return f.Missing
	case p.preset != nil && !p.preset.Read.IsZero() && f == &none:
		return "its preset " + e.Preset + " gives no such signal"
	}
	return "no answer"
}
