package store_test

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/window"
)

// presetPods is a store with ready pods that a preset reads, and the instant at which they became
// so.
func presetPods(names ...string) (*store.Store, time.Time) {
	s := store.New(store.Options{Interval: time.Second, Signals: []string{"queue", "duration", algorithms.Concurrency}})
	now := time.Unix(1_800_000_000, 0)
	for _, name := range names {
		s.SetPod(now, store.Pod{
			Namespace: "ns", Name: name, UID: types.UID(name), Labels: labels.Set{"app": "web"}, IP: "198.18.0.1", State: algorithms.PodReady,
			Running: true, Ready: now, Endpoint: &store.Endpoint{Preset: "vllm", Running: true},
		})
	}
	return s, now
}

// put gives a pod's signal a reading.
func put(s *store.Store, at time.Time, born time.Time, pod, signal string, ratio bool, sums ...float64) {
	r := window.Reading{Life: float64(born.Unix()), Mono: at.Sub(born).Seconds(), At: at, Unborn: true}
	copy(r.Sums[:], sums)
	s.AddSignals("ns", types.UID(pod), at, []store.SignalSample{{
		Signal: signal, Source: "vllm (sampled)", Reading: r, Ratio: ratio, Instant: sums[0], HasInstant: !ratio,
	}})
}

func TestSignalsOfPresets(t *testing.T) {
	t.Parallel()
	s, begin := presetPods("a", "b")
	all := labels.Everything()
	ask := func(now time.Time, signal string, w time.Duration) store.Value {
		return s.Workload(now, "ns", all, nil, signal, w)
	}

	// Nothing was read, and not for longer than an interval: nothing is known, nothing is missed.
	for k := range 11 {
		at := begin.Add(time.Duration(k) * time.Second)
		put(s, at, begin, "a", "queue", false, 3*float64(k))
		put(s, at, begin, "b", "queue", false, 4*float64(k))
		// 0.5 s each, 20 a second
		put(s, at, begin, "a", "duration", true, 10*float64(k), 20*float64(k))
		// 3 s each, 10 a second
		put(s, at, begin, "b", "duration", true, 30*float64(k), 10*float64(k))
	}
	now := begin.Add(10 * time.Second)
	if v := ask(now, "queue", 5*time.Second); !v.Known || v.Value != 7 || v.Source != "vllm (sampled)" || v.Sources != 2 || v.Coverage != 1 {
		t.Errorf("queue = %+v, want 7 of two pods", v)
	}
	if v := ask(now, "duration", 5*time.Second); !v.Known || v.Value != 40.0/30 {
		t.Errorf("duration = %+v, want the mean of all requests, 4/3 s", v)
	}
	if v := ask(now, "duration", algorithms.Instant); v.Known {
		t.Errorf("duration of an instant = %+v, want none", v)
	}
	if v := ask(now, "queue", algorithms.Instant); !v.Known || v.Value != 70 {
		t.Errorf("queue of the instant = %+v, want 70", v)
	}
	if v := ask(now, "other", time.Second); v.Known {
		t.Errorf("a signal that no preset gives = %+v", v)
	}
	if v := ask(now, algorithms.Concurrency, 5*time.Second); v.Known || !strings.Contains(v.Missing, "its preset vllm gives no such signal") {
		t.Errorf("concurrency = %+v, want it missed", v)
	}
	if v := s.Workload(now, "ns", labels.Nothing(), nil, "queue", time.Second); !v.Known || v.Value != 0 {
		t.Errorf("queue of no pods = %+v, want 0", v)
	}

	// A pod that is not heard of any more is missed after the stale bound, with the cause.
	s.SetPresetFailure("ns", "b", "connection refused")
	for k := 11; k < 20; k++ {
		put(s, begin.Add(time.Duration(k)*time.Second), begin, "a", "queue", false, 3*float64(k))
	}
	now = begin.Add(19 * time.Second)
	if v := ask(now, "queue", 5*time.Second); v.Known || !strings.Contains(v.Missing, "pod b not read since") || !strings.Contains(v.Missing, "connection refused") {
		t.Errorf("queue = %+v, want pod b missed", v)
	}
	if v, ok := s.Pod(now, "ns", "a", "queue", 5*time.Second); !ok || !v.Known || v.Value.Value != 3 {
		t.Errorf("queue of a = %+v, want 3", v)
	}
	// Nothing was counted: a quotient by zero is not known.
	for k := 20; k < 30; k++ {
		put(s, begin.Add(time.Duration(k)*time.Second), begin, "a", "duration", true, 190, 380)
	}
	if v, ok := s.Pod(begin.Add(29*time.Second), "ns", "a", "duration", 5*time.Second); !ok || v.Known || !strings.Contains(v.Missing, "nothing was counted") {
		t.Errorf("duration without requests = %+v", v)
	}
}

// TestMixedSources adds pods with sidecars and pods that a preset reads.
func TestMixedSources(t *testing.T) {
	t.Parallel()
	s, begin := presetPods("a")
	s.SetPod(begin, store.Pod{
		Namespace: "ns", Name: "s", UID: "s", IP: "198.18.0.2", MetricsPort: 9096, State: algorithms.PodReady, Running: true, Ready: begin,
		Endpoint: &store.Endpoint{Preset: "vllm", Running: true},
	})
	for k := range 6 {
		at := begin.Add(time.Duration(k) * time.Second)
		put(s, at, begin, "a", algorithms.Concurrency, false, 5*float64(k))
		put(s, at, begin, "s", algorithms.Concurrency, false, 100*float64(k)) // the sidecar's wins
		s.AddSample("ns", "s", store.Sample{
			Reading:  window.Reading{Life: float64(begin.Unix()), Mono: float64(k), Sums: [window.Values]float64{2 * float64(k), 7 * float64(k)}, At: at},
			InFlight: 2,
		})
	}
	v := s.Workload(begin.Add(5*time.Second), "ns", labels.Everything(), nil, algorithms.Concurrency, 5*time.Second)
	if !v.Known || v.Value < 6.99 || v.Value > 7.01 || v.Source != "vllm (sampled)+sidecar" {
		t.Errorf("concurrency = %+v, want 5 of the preset and 2 of the sidecar", v)
	}
}

// TestYoungPods do not count before their preset's age.
func TestYoungPods(t *testing.T) {
	t.Parallel()
	s := store.New(store.Options{Interval: time.Second, Signals: []string{"queue"}})
	now := time.Unix(1_800_000_000, 0)
	s.SetPod(now, store.Pod{
		Namespace: "ns", Name: "a", UID: "a", IP: "198.18.0.1", State: algorithms.PodReady, Running: true, Ready: now,
		Endpoint: &store.Endpoint{Preset: "x", Running: true, MinReadyAge: 30 * time.Second},
	})
	if s.Synced(); s.Ready() == nil {
		t.Error("ready, though a pod was not read")
	}
	if v := s.Workload(now.Add(29*time.Second), "ns", labels.Everything(), nil, "queue", time.Second); !v.Known || v.Sources != 0 {
		t.Errorf("queue = %+v, want it known without the young pod", v)
	}
	if _, ok := s.Pod(now.Add(29*time.Second), "ns", "a", "queue", time.Second); ok {
		t.Error("a young pod has a value of its own")
	}
	if v := s.Workload(now.Add(31*time.Second), "ns", labels.Everything(), nil, "queue", time.Second); v.Known {
		t.Errorf("queue = %+v, want the pod missed that was never read", v)
	}
	s.SetPresetFailure("ns", "a", "refused")
	if err := s.Ready(); err != nil {
		t.Errorf("Ready = %v, though the pod was tried", err)
	}
}
