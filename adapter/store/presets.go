package store

import (
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/window"
)

// SignalSample is what one reading by a preset says of one signal.
type SignalSample struct {
	// Signal is its name, Source where it comes from and how good it is, for people.
	Signal, Source string
	// Missing says what the answer lacks, "" for nothing; what follows has no meaning otherwise.
	Missing string
	// Reading holds as the first sum the signal's integral or count. With Ratio the signal is the
	// increase of the first sum divided by that of the second.
	Reading window.Reading
	Ratio   bool
	// Instant is the value of that instant, where HasInstant says that there is one.
	Instant    float64
	HasInstant bool
}

// presetSource is what a preset reads of a pod. The pod's lock guards it.
type presetSource struct {
	feeds []*feed // by name
	// read is the receipt of the newest answer; since is when the pod last began to be expected.
	read, since time.Time
	// cause is the last failure's, "" after an answer.
	cause string
}

// feed is one signal of a pod.
type feed struct {
	signal, source string
	ratio          bool
	series         window.Series
	instant        float64
	hasInstant     bool
	// read is the receipt of its newest value; missing says what the newest answer lacked of it.
	read    time.Time
	missing string
}

// setPreset takes a pod's state, in which it is read by a preset. The pod's lock is held, and p.pod
// is its state before.
func (p *podSource) setPreset(now time.Time, pod *Pod) {
	if p.preset == nil {
		p.preset = &presetSource{since: now}
		return
	}
	if pod.expectedByPreset() && !p.pod.expectedByPreset() {
		p.preset.since = now
	}
}

// unreadByPreset says that a preset is to read it and was not even tried.
func (p *podSource) unreadByPreset() bool {
	e := p.pod.Endpoint
	return e != nil && e.Fault == "" && p.pod.expectedByPreset() && (p.preset == nil || p.preset.read.IsZero() && p.preset.cause == "")
}

func (p *presetSource) find(signal string) (int, bool) {
	return slices.BinarySearchFunc(p.feeds, signal, func(f *feed, s string) int { return strings.Compare(f.signal, s) })
}

// feed returns a pod's signal of its preset, nil when there is none.
func (p *podSource) feed(signal string) *feed {
	if p.preset == nil {
		return nil
	}
	if i, ok := p.preset.find(signal); ok {
		return p.preset.feeds[i]
	}
	return nil
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
		src.preset = &presetSource{since: at}
	}
	src.preset.read, src.preset.cause = at, ""
	all := true
	for i := range samples {
		all = src.preset.add(&samples[i]) && all
	}
	return all
}

func (p *presetSource) add(s *SignalSample) bool {
	i, ok := p.find(s.Signal)
	if !ok {
		p.feeds = slices.Insert(p.feeds, i, &feed{signal: s.Signal})
	}
	f := p.feeds[i]
	f.source, f.ratio, f.missing = s.Source, s.Ratio, s.Missing
	if s.Missing != "" {
		return true
	}
	if !f.series.Add(s.Reading) {
		return false
	}
	f.instant, f.hasInstant, f.read = s.Instant, s.HasInstant, s.Reading.At
	return true
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
		src.preset = &presetSource{}
	}
	src.preset.cause = cause
}

// none is the feed of a pod that has none of a signal; never written.
//
//nolint:gochecknoglobals // an empty series, so that reading costs no allocation
var none feed

// addPreset adds a signal of a pod that a preset reads. The pod's lock is held.
func (s *Store) addPreset(t *sum, src *podSource) {
	f := src.feed(t.need.Name)
	if f == nil {
		f = &none
	}
	if f != &none && f.ratio != t.ratio {
		t.bad = t.bad || t.sources != "" // a mean of quotients and of others is none
		t.ratio = f.ratio
	}
	if !src.deleted.IsZero() {
		t.addFeed(f, false)
		return
	}
	if src.pod.young(t.Now) {
		return
	}
	since := s.unheard(t.Now, src, f)
	live := since.IsZero() && !f.read.IsZero() && t.Now.Sub(f.read) <= s.opts.Stale
	expected := src.pod.expectedByPreset()
	if live || expected {
		t.pods++
		t.from(f.source)
	}
	if live && t.Width == 0 && !f.hasInstant {
		live, since = false, t.Now
	}
	t.addFeed(f, live)
	if !since.IsZero() {
		t.miss("pod", src.pod.Name, src.presetFailure(f), since, !f.read.IsZero())
	}
}

// addFeed adds a signal's series.
func (t *sum) addFeed(f *feed, live bool) {
	t.Add(&f.series, 0, live, f.instant)
	if t.ratio {
		t.per.Now, t.per.Width = t.Now, t.Width
		t.per.Add(&f.series, 1, live, 0)
	}
}

// unheard returns since when a signal of a pod is missed, the zero time when it is not.
func (s *Store) unheard(now time.Time, src *podSource, f *feed) time.Time {
	var since time.Time
	if src.preset != nil {
		since = src.preset.since
	}
	switch {
	case !src.pod.expectedByPreset():
	case f.read.IsZero() || f.read.Before(since):
		if src.pod.Endpoint == nil || src.pod.Endpoint.Fault != "" || now.Sub(since) > s.opts.Interval+grace || f.missing != "" {
			return firstKnown(since, src.pod.Ready)
		}
	case now.Sub(f.read) > s.opts.Stale:
		return f.read
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
func (p *podSource) presetFailure(f *feed) string {
	e := p.pod.Endpoint
	switch {
	case e == nil:
		return "no preset reads it: annotate the pod template with sluice.dev/preset"
	case e.Fault != "":
		return e.Fault
	case p.preset != nil && p.preset.cause != "":
		return p.preset.cause
	case f.missing != "":
		return f.missing
	case p.preset != nil && !p.preset.read.IsZero() && f == &none:
		return "its preset " + e.Preset + " gives no such signal"
	}
	return "no answer"
}
