package scrape

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/adapter/scrape/filter"
	"github.com/sluice-autoscaler/sluice/adapter/scrape/preset"
	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/algorithms"
)

// endpoint is a pod that a preset reads.
type endpoint struct {
	preset       *preset.Preset
	url          string
	namespace    string
	uid          types.UID
	signalSource map[preset.Kind]string

	mu    sync.Mutex
	track preset.Track
	// born is the instant before which the pod contributed nothing.
	born time.Time
	// started is since when its container runs.
	started time.Time
	// last are the values of the last reading.
	last []preset.Value
	// text says not to ask for protobuf, in which its answer was too large.
	text bool
}

// setEndpoint takes a pod's new state as far as presets go. mu is held.
func (s *Scraper) setEndpoint(ctx context.Context, p *store.Pod) {
	e := p.Endpoint
	if e == nil || e.Fault != "" || p.IP == "" || s.Presets == nil || s.Presets.Get(e.Preset) == nil {
		s.end(s.endpoints, p.UID)
		if e != nil && e.Fault != "" {
			s.Store.SetPresetFailure(p.Namespace, p.UID, e.Fault)
		}
		return
	}
	url := e.Scheme + "://" + e.Address + e.Path
	t := s.endpoints[p.UID]
	if t == nil || t.address != url || t.endpoint.preset.Name != e.Preset {
		s.end(s.endpoints, p.UID)
		t = &target{address: url, endpoint: s.newEndpoint(p, url), poke: make(chan struct{}, 1)}
		s.endpoints[p.UID] = t
		j := s.readEndpoint(t.endpoint)
		s.begin(ctx, t, func(ctx context.Context) { s.repeat(ctx, t, j) })
	}
	t.endpoint.follow(p)
	t.follow(p.State, e.Running)
}

func (s *Scraper) newEndpoint(p *store.Pod, url string) *endpoint {
	e := &endpoint{preset: s.Presets.Get(p.Endpoint.Preset), url: url, namespace: p.Namespace, uid: p.UID, signalSource: map[preset.Kind]string{}}
	for _, kind := range []preset.Kind{preset.Gauge, preset.Counter, preset.Integral, preset.Durations} {
		e.signalSource[kind] = fmt.Sprintf("%s (%s)", e.preset.Name, kind.Quality())
	}
	return e
}

// follow takes what the pod's state tells of its counters.
func (e *endpoint) follow(p *store.Pod) {
	e.mu.Lock()
	defer e.mu.Unlock()
	// A pod that takes requests through Services has none before it is ready.
	e.born = p.Started
	if !p.Ready.IsZero() {
		e.born = p.Ready
	}
	started := p.Endpoint.Started
	if !started.IsZero() {
		if !e.started.IsZero() && !started.Equal(e.started) {
			e.track.Restart()
		}
		e.started = started
	}
}

// readEndpoint is the job of a pod that a preset reads.
func (s *Scraper) readEndpoint(e *endpoint) job {
	return job{
		namespace: e.namespace, address: e.url, uid: e.uid,
		read: func(ctx context.Context) (bool, error) { return s.readPreset(ctx, e) },
		fail: func(cause string) { s.Store.SetPresetFailure(e.namespace, e.uid, cause) },
		count: func(result string, took time.Duration) {
			s.metrics.duration.Observe(took.Seconds())
			s.metrics.presetReads.WithLabelValues(e.preset.Name, result).Inc()
		},
	}
}

// samplesError is an answer that has none of what the preset reads.
type samplesError string

func (e samplesError) Error() string { return string(e) }

// readPreset reads a pod once, and tells whether anything has changed.
func (s *Scraper) readPreset(ctx context.Context, e *endpoint) (moved bool, err error) {
	e.mu.Lock()
	text := e.text
	e.mu.Unlock()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url, nil)
	if err != nil {
		return false, fmt.Errorf("address %s: %w", e.url, err)
	}
	req.Header.Set("Accept", e.preset.Accept(text))
	req.Header.Set("User-Agent", "sluice-adapter")
	res, err := s.http.Do(req)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", e.url, err)
	}
	defer res.Body.Close() //nolint:errcheck // a read body: nothing is lost
	at := time.Now()
	if res.StatusCode != http.StatusOK {
		return false, fmt.Errorf("read %s: %w", e.url, statusError(res.StatusCode))
	}
	reading, err := e.preset.Read(ctx, res.Header, res.Body, at)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		// In protobuf a histogram is one message with all its buckets.
		e.text = e.text || errors.Is(err, filter.ErrKept)
		return false, fmt.Errorf("read %s: %w", e.url, err)
	}
	if ctx.Err() != nil {
		return false, ctx.Err() // the pod's next reader may have begun
	}
	moved = !slices.Equal(reading.Values, e.last)
	e.last = reading.Values
	return moved, s.keep(e, at, reading)
}

// keep puts a reading into the store. e's lock is held.
func (s *Scraper) keep(e *endpoint, at time.Time, reading preset.Reading) error {
	points := e.track.Add(at, reading, e.born, s.Stale)
	samples := make([]store.SignalSample, 0, len(points))
	missing := ""
	some := false
	for i := range points {
		p := &points[i]
		some = some || p.Missing == ""
		if missing == "" {
			missing = p.Missing
		}
		samples = append(samples, store.SignalSample{
			Signal: p.Signal, Source: e.signalSource[p.Kind], Missing: p.Missing, Reading: p.Reading, Ratio: p.Ratio,
			Instant: p.Instant, HasInstant: p.HasInstant,
		})
	}
	if !s.Store.AddSignals(e.namespace, e.uid, at, samples) {
		return errOrder
	}
	if !some {
		return samplesError(missing)
	}
	return nil
}

// follow takes a pod's state, and asks for a read at once where it tells of news.
func (t *target) follow(state algorithms.PodState, runs bool) {
	ready, terminating := state == algorithms.PodReady, state == algorithms.PodTerminating
	if ready && !t.ready || terminating && !t.terminating || runs && !t.running {
		t.wake()
	}
	t.ready, t.terminating, t.running = ready, terminating, runs
}
