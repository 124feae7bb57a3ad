package store_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/algorithms/window"
	"github.com/sluice-autoscaler/sluice/wire"
)

const minute = time.Minute

var epoch = time.Unix(1_800_000_000, 0)

func at(s float64) time.Time { return epoch.Add(time.Duration(s * float64(time.Second))) }

// world is a store whose pods and gateways are told second by second.
type world struct {
	*store.Store
	sums map[string]float64
}

func newWorld(interval time.Duration) *world {
	return &world{Store: store.New(store.Options{Interval: interval}), sums: map[string]float64{}}
}

func pod(name string, state algorithms.PodState) store.Pod {
	p := store.Pod{
		Namespace: "ns", Name: name, UID: types.UID(name), Labels: labels.Set{"app": "web"}, IP: "198.18.0.1", MetricsPort: 9095,
		State: state, Running: true, Created: epoch,
	}
	if state == algorithms.PodReady {
		p.Ready = epoch
	}
	return p
}

// read gives a pod, born at a second, one reading: n requests in flight since the reading before.
func (w *world) read(name string, born, from, to, n float64) {
	w.sums[name] += (to - from) * n
	w.AddSample("ns", types.UID(name), store.Sample{
		Reading:  window.Reading{Life: float64(epoch.Unix()) + born, Mono: to - born, Sums: [window.Values]float64{w.sums[name], 2 * w.sums[name]}, At: at(to)},
		InFlight: n,
	})
}

// flow reads a pod each second of a time in which n requests are in flight.
func (w *world) flow(name string, born, from, to, n float64) {
	for s := from; s < to; s++ {
		w.read(name, born, s, s+1, n)
	}
}

func (w *world) report(second, waiting, integral float64, services ...string) {
	const name = "g"
	r := &wire.Report{Gateway: name, StartTime: float64(epoch.Unix()) - 1000, Monotonic: 1000 + second}
	for _, s := range services {
		r.Ports = append(r.Ports, wire.PortReport{Namespace: "ns", Service: s, PortName: "http", Waiting: int(waiting), WaitingSeconds: integral})
	}
	w.AddReport(at(second), types.UID(name), r)
}

func (w *world) gateway() {
	const name = "g"
	w.SetGateway(epoch, store.GatewayPod{UID: types.UID(name), Name: name, IP: "198.18.0.9", Control: "198.18.0.9:8013", Running: true})
}

func TestWorkload(t *testing.T) {
	t.Parallel()
	type want struct {
		value    float64
		known    bool
		coverage float64
		missing  string
		source   string
	}
	tests := []struct {
		name     string
		interval time.Duration
		signal   string
		instant  bool
		now      float64
		world    func(w *world)
		want     want
	}{
		{
			name: "zero pods, no gateways: an explicit zero", now: 30,
			world: func(*world) {},
			want:  want{known: true, coverage: 1, source: "sidecar"},
		},
		{
			name: "the sum of pods' means", now: 60,
			world: func(w *world) {
				w.SetPod(epoch, pod("a", algorithms.PodReady))
				w.SetPod(epoch, pod("b", algorithms.PodReady))
				w.flow("a", -1000, 0, 60, 3)
				w.flow("b", -1000, 0, 60, 4)
			},
			want: want{value: 7, known: true, coverage: 1, source: "sidecar"},
		},
		{
			name: "rate", signal: algorithms.Rate, now: 60,
			world: func(w *world) {
				w.SetPod(epoch, pod("a", algorithms.PodReady))
				w.flow("a", -1000, 0, 60, 3)
			},
			want: want{value: 6, known: true, coverage: 1, source: "sidecar"},
		},
		{
			name: "an instant is the gauges' sum", instant: true, now: 60.5,
			world: func(w *world) {
				w.SetPod(epoch, pod("a", algorithms.PodReady))
				w.SetPod(epoch, pod("b", algorithms.PodReady))
				w.flow("a", -1000, 50, 60, 3)
				w.flow("b", -1000, 50, 60, 9)
			},
			want: want{value: 12, known: true, coverage: 1, source: "sidecar"},
		},
		{
			name: "a slow interval does not thin the mean out", interval: 15 * time.Second, now: 74,
			world: func(w *world) {
				w.SetPod(epoch, pod("a", algorithms.PodReady))
				for s := 0.0; s < 60; s += 15 {
					w.read("a", -1000, s, s+15, 7)
				}
			},
			want: want{value: 7, known: true, coverage: 1, source: "sidecar"},
		},
		{
			name: "a pod born within the window served nothing before", now: 60,
			world: func(w *world) {
				w.SetPod(at(50), pod("a", algorithms.PodReady))
				w.flow("a", 50, 50, 60, 6)
			},
			want: want{value: 4, known: true, coverage: 1, source: "sidecar"},
		},
		{
			name: "a deleted pod's share of the window stays, and is not missing", now: 60,
			world: func(w *world) {
				w.SetPod(epoch, pod("a", algorithms.PodReady))
				w.flow("a", -1000, 0, 50, 6)
				w.DeletePod(at(50), "ns", "a")
			},
			want: want{value: 2, known: true, coverage: 1, source: "sidecar"},
		},
		{
			name: "and has left the window later", now: 66,
			world: func(w *world) {
				w.SetPod(epoch, pod("a", algorithms.PodReady))
				w.flow("a", -1000, 0, 50, 6)
				w.DeletePod(at(50), "ns", "a")
			},
			want: want{known: true, coverage: 1, source: "sidecar"},
		},
		{
			name: "a pod that stopped answering makes it unknown", now: 60,
			world: func(w *world) {
				w.SetPod(epoch, pod("a", algorithms.PodReady))
				w.SetPod(epoch, pod("b", algorithms.PodReady))
				w.flow("a", -1000, 0, 60, 3)
				w.flow("b", -1000, 0, 54, 5)
				w.SetFailure("ns", "b", "connection refused")
			},
			want: want{value: 6, coverage: 0.8, missing: "pod b not read since 2027-01-15T08:00:54Z (connection refused)", source: "sidecar"},
		},
		{
			name: "so does one whose readiness failed with it, since it may serve on", now: 60,
			world: func(w *world) {
				w.SetPod(epoch, pod("a", algorithms.PodReady))
				w.flow("a", -1000, 0, 50, 5)
				w.SetPod(at(51), pod("a", algorithms.PodStarting))
			},
			want: want{value: 5. / 3, coverage: 1. / 3, missing: "pod a not read since 2027-01-15T08:00:50Z", source: "sidecar"},
		},
		{
			name: "but not one whose container ended", now: 60,
			world: func(w *world) {
				w.SetPod(epoch, pod("a", algorithms.PodReady))
				w.flow("a", -1000, 0, 50, 6)
				p := pod("a", algorithms.PodStarting)
				p.Running = false
				w.SetPod(at(51), p)
			},
			want: want{value: 2, known: true, coverage: 1, source: "sidecar"},
		},
		{
			name: "a terminating pod counts while it answers", now: 60,
			world: func(w *world) {
				w.SetPod(epoch, pod("a", algorithms.PodTerminating))
				w.flow("a", -1000, 0, 60, 6)
			},
			want: want{value: 6, known: true, coverage: 1, source: "sidecar"},
		},
		{
			name: "and is not missed when it ceases", now: 60,
			world: func(w *world) {
				w.SetPod(epoch, pod("a", algorithms.PodTerminating))
				w.flow("a", -1000, 0, 50, 6)
			},
			want: want{value: 2, known: true, coverage: 1, source: "sidecar"},
		},
		{
			name: "a pod that just became ready has a moment to be read", now: 60,
			world: func(w *world) { w.SetPod(at(58.5), pod("a", algorithms.PodReady)) },
			want:  want{known: true, coverage: 1, source: "sidecar"},
		},
		{
			name: "and no longer", now: 60,
			world: func(w *world) { w.SetPod(at(57.5), pod("a", algorithms.PodReady)) },
			want:  want{missing: "pod a not read since 2027-01-15T08:00:57Z (no answer)", source: "sidecar"},
		},
		{
			name: "a pod without the port says what to do", now: 60,
			world: func(w *world) {
				p := pod("a", algorithms.PodReady)
				p.MetricsPort = 0
				w.SetPod(at(0), p)
			},
			want: want{missing: "add the sidecar", source: "sidecar"},
		},
		{
			name: "a starting pod is not missed", now: 60,
			world: func(w *world) { w.SetPod(at(0), pod("a", algorithms.PodStarting)) },
			want:  want{known: true, coverage: 1, source: "sidecar"},
		},
		{
			name: "after the collector's restart too little of the window is known", now: 60,
			world: func(w *world) {
				w.SetPod(epoch, pod("a", algorithms.PodReady))
				w.flow("a", -1000, 55, 60, 6)
			},
			want: want{value: 6, coverage: 4. / 15, missing: "less than half of the last 15s is known", source: "sidecar"},
		},
		{
			name: "until half of it is", now: 60,
			world: func(w *world) {
				w.SetPod(epoch, pod("a", algorithms.PodReady))
				w.flow("a", -1000, 51, 60, 6)
			},
			want: want{value: 6, known: true, coverage: 8. / 15, source: "sidecar"},
		},
		{
			name: "zero pods and a gateway that holds", now: 60,
			world: func(w *world) {
				w.gateway()
				for s := 0.0; s <= 60; s++ {
					w.report(s, 2, 2*s, "web")
				}
			},
			want: want{value: 2, known: true, coverage: 1, source: "gateway"},
		},
		{
			name: "a port that was just assigned held nothing before", now: 60,
			world: func(w *world) {
				w.gateway()
				for s := 40.0; s <= 55; s++ {
					w.report(s, 0, 0)
				}
				for s := 56.0; s <= 60; s++ {
					w.report(s, 3, 3*(s-55), "web")
				}
			},
			want: want{value: 1, known: true, coverage: 1, source: "gateway"},
		},
		{
			name: "pods and gateways together", now: 60,
			world: func(w *world) {
				w.gateway()
				w.SetPod(epoch, pod("a", algorithms.PodReady))
				w.flow("a", -1000, 0, 60, 5)
				for s := 0.0; s <= 60; s++ {
					w.report(s, 2, 2*s, "web", "other")
				}
			},
			want: want{value: 7, known: true, coverage: 1, source: "sidecar+gateway"},
		},
		{
			name: "waiting leaves the pods out", signal: algorithms.Waiting, now: 60,
			world: func(w *world) {
				w.gateway()
				w.SetPod(epoch, pod("a", algorithms.PodReady))
				for s := 0.0; s <= 60; s++ {
					w.report(s, 2, 2*s, "web")
				}
			},
			want: want{value: 2, known: true, coverage: 1, source: "gateway"},
		},
		{
			name: "a silent gateway that holds makes it unknown", now: 60,
			world: func(w *world) {
				w.gateway()
				for s := 0.0; s <= 54; s++ {
					w.report(s, 0, 0, "web")
				}
			},
			want: want{coverage: 0.6, missing: "gateway g not read since 2027-01-15T08:00:54Z (no report)", source: "gateway"},
		},
		{
			name: "one that holds for others does not", now: 60,
			world: func(w *world) {
				w.gateway()
				for s := 0.0; s <= 54; s++ {
					w.report(s, 0, 0, "other")
				}
			},
			want: want{known: true, coverage: 1, source: "sidecar"},
		},
		{
			name: "a gateway that was deleted holds nothing", now: 60,
			world: func(w *world) {
				w.gateway()
				for s := 0.0; s <= 54; s++ {
					w.report(s, 0, 0, "web")
				}
				w.DeleteGateway(at(55), "g")
			},
			want: want{known: true, coverage: 1, source: "sidecar"},
		},
		{
			name: "a signal that is none", signal: "temperature", now: 60,
			world: func(*world) {},
			want:  want{missing: "no readings", source: "sidecar"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.interval == 0 {
				tt.interval = time.Second
			}
			if tt.signal == "" {
				tt.signal = algorithms.Concurrency
			}
			width := 15 * time.Second
			if tt.instant {
				width = algorithms.Instant
			}
			w := newWorld(tt.interval)
			tt.world(w)
			sel := labels.SelectorFromSet(labels.Set{"app": "web"})
			got := w.Workload(at(tt.now), "ns", sel, []string{"web"}, tt.signal, width)
			if math.Abs(got.Value-tt.want.value) > 0.02 || got.Known != tt.want.known || math.Abs(got.Coverage-tt.want.coverage) > 0.02 ||
				!strings.Contains(got.Missing, tt.want.missing) || got.Missing != "" && tt.want.missing == "" || got.Source != tt.want.source {
				t.Errorf("Workload = %+v, want %+v", got, tt.want)
			}
			need := []algorithms.Need{{Name: tt.signal, Window: width}}
			ref := loop.Ref{Kind: "Deployment.apps", Namespace: "ns", Name: "web"}
			w.Bind(ref, store.Binding{Namespace: "ns", Selector: sel, Services: []string{"web"}})
			sig := w.Signals(at(tt.now), ref, need, nil)[0]
			if sig.Value != got.Value || sig.Known != got.Known || sig.Coverage != got.Coverage || sig.Age != got.Age || sig.Source != got.Source {
				t.Errorf("Signals = %+v, Workload = %+v: want the same", sig, got)
			}
		})
	}
}

func TestPods(t *testing.T) {
	t.Parallel()
	w := newWorld(time.Second)
	for _, name := range []string{"b", "a", "unread"} {
		w.SetPod(epoch, pod(name, algorithms.PodReady))
	}
	w.SetPod(epoch, pod("starting", algorithms.PodStarting))
	w.flow("a", -1000, 0, 60, 3)
	w.flow("b", -1000, 0, 60, 4)
	got := w.Pods(at(60), "ns", labels.Everything(), algorithms.Concurrency, 15*time.Second)
	var text []string
	for _, v := range got {
		text = append(text, fmt.Sprintf("%s %.1f %v", v.Name, v.Value.Value, v.Known))
	}
	if want := "a 3.0 true, b 4.0 true, unread 0.0 false"; strings.Join(text, ", ") != want {
		t.Errorf("Pods = %s, want %s", strings.Join(text, ", "), want)
	}
}

func TestReady(t *testing.T) {
	t.Parallel()
	w := newWorld(time.Second)
	if w.Ready() == nil {
		t.Error("ready before the pods were listed")
	}
	w.SetPod(epoch, pod("a", algorithms.PodReady))
	w.SetPod(epoch, pod("b", algorithms.PodReady))
	w.Synced()
	w.flow("a", -1000, 0, 1, 1)
	if err := w.Ready(); err == nil || !strings.Contains(err.Error(), "ns/b") {
		t.Errorf("Ready = %v: want it to name ns/b", err)
	}
	w.SetFailure("ns", "b", "connection refused")
	if err := w.Ready(); err != nil {
		t.Errorf("Ready = %v: a pod that cannot be read must not hold everything up", err)
	}
	w.SetPod(epoch, pod("c", algorithms.PodReady))
	if err := w.Ready(); err != nil {
		t.Errorf("Ready = %v: a new pod must not make it unready", err)
	}
}

func TestSweep(t *testing.T) {
	t.Parallel()
	w := newWorld(time.Second)
	w.SetPod(epoch, pod("a", algorithms.PodReady))
	w.flow("a", -1000, 0, 5, 1)
	w.DeletePod(at(5), "ns", "a")
	w.gateway()
	w.DeleteGateway(at(5), "g")
	if w.Sweep(at(1000)); len(w.List("ns", labels.Everything())) != 0 {
		t.Error("a deleted pod is listed")
	}
	if _, n := w.Size(); n != 2 {
		t.Errorf("%d memories are kept within the longest window, want 2", n)
	}
	w.Sweep(at(5).Add(window.Longest + minute))
	if _, n := w.Size(); n != 0 {
		t.Errorf("%d memories are kept beyond the longest window, want none", n)
	}
}
