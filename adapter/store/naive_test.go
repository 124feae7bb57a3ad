package store_test

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/algorithms/window"
	"github.com/sluice-autoscaler/sluice/wire"
)

// naive keeps everything in lists, and looks at all of it for each answer.
type naive struct {
	interval, stale, gatewayStale time.Duration
	pods                          []*naivePod
	gateways                      []*naiveGateway
}

type naivePod struct {
	pod                  store.Pod
	series               window.Series
	last                 store.Sample
	read, since, deleted time.Time
}

type naivePort struct {
	namespace, service, name string
	series                   window.Series
	waiting                  float64
	held                     bool
}

type naiveGateway struct {
	uid                  types.UID
	running              bool
	report               *wire.Report
	ports                []*naivePort
	since, read, deleted time.Time
}

func expected(p *store.Pod) bool {
	return p.Running && (p.State == algorithms.PodReady || p.State == algorithms.PodStarting && !p.Ready.IsZero())
}

func (n *naive) find(uid types.UID) *naivePod {
	for _, p := range n.pods {
		if p.pod.UID == uid {
			return p
		}
	}
	return nil
}

func (n *naive) setPod(now time.Time, p store.Pod) {
	known := n.find(p.UID)
	if known == nil {
		known = &naivePod{}
		n.pods = append(n.pods, known)
	}
	for _, i := range []struct{ was, is *time.Time }{
		{&known.pod.Created, &p.Created}, {&known.pod.Scheduled, &p.Scheduled}, {&known.pod.Started, &p.Started}, {&known.pod.Ready, &p.Ready},
	} {
		if !i.was.IsZero() {
			*i.is = *i.was
		}
	}
	if expected(&p) && !expected(&known.pod) {
		known.since = now
	}
	known.pod, known.deleted = p, time.Time{}
}

func (n *naive) deletePod(now time.Time, uid types.UID) {
	p := n.find(uid)
	if p == nil {
		return
	}
	if p.read.IsZero() {
		n.pods = slices.DeleteFunc(n.pods, func(q *naivePod) bool { return q == p })
	} else if p.deleted.IsZero() {
		p.deleted = now
	}
}

func (n *naive) addSample(uid types.UID, s store.Sample) {
	if p := n.find(uid); p != nil && p.series.Add(s.Reading) {
		p.last, p.read = s, s.Reading.At
	}
}

func (n *naive) gateway(uid types.UID) *naiveGateway {
	for _, g := range n.gateways {
		if g.uid == uid {
			return g
		}
	}
	return nil
}

func (n *naive) setGateway(now time.Time, uid types.UID, running bool) {
	g := n.gateway(uid)
	if g == nil {
		g = &naiveGateway{uid: uid}
		n.gateways = append(n.gateways, g)
	}
	if running && !g.running {
		g.since = now
	}
	g.running, g.deleted = running, time.Time{}
}

func (n *naive) deleteGateway(now time.Time, uid types.UID) {
	if g := n.gateway(uid); g != nil && g.deleted.IsZero() {
		g.deleted, g.running = now, false
	}
}

func (n *naive) addReport(now time.Time, uid types.UID, r *wire.Report) {
	g := n.gateway(uid)
	if g == nil || !g.deleted.IsZero() {
		return
	}
	last := g.report
	g.report, g.read = r, now
	for _, p := range g.ports {
		p.held = false
	}
	for _, pr := range r.Ports {
		i := slices.IndexFunc(g.ports, func(p *naivePort) bool {
			return p.namespace == pr.Namespace && p.service == pr.Service && p.name == pr.PortName
		})
		if i < 0 {
			i = len(g.ports)
			g.ports = append(g.ports, &naivePort{namespace: pr.Namespace, service: pr.Service, name: pr.PortName})
			if last != nil && last.StartTime == r.StartTime && last.Monotonic < r.Monotonic {
				for _, mono := range []float64{max(0, last.Monotonic-window.Longest.Seconds()), last.Monotonic} {
					age := time.Duration((r.Monotonic - mono) * float64(time.Second))
					g.ports[i].series.Add(window.Reading{Life: r.StartTime, Mono: mono, At: now.Add(-age)})
				}
			}
		}
		g.ports[i].held, g.ports[i].waiting = true, float64(pr.Waiting)
		g.ports[i].series.Add(window.Reading{
			Life: r.StartTime, Mono: r.Monotonic, Sums: [window.Values]float64{pr.WaitingSeconds, float64(pr.Arrived)}, At: now,
		})
	}
	g.ports = slices.DeleteFunc(g.ports, func(p *naivePort) bool {
		at, known := p.series.Newest()
		return !p.held && (!known || now.Sub(at) > window.Longest)
	})
}

func (n *naive) sweep(now time.Time) {
	n.pods = slices.DeleteFunc(n.pods, func(p *naivePod) bool { return !p.deleted.IsZero() && now.Sub(p.deleted) > window.Longest })
	n.gateways = slices.DeleteFunc(n.gateways, func(g *naiveGateway) bool { return !g.deleted.IsZero() && now.Sub(g.deleted) > window.Longest })
}

func (n *naive) signal(now time.Time, b store.Binding, need algorithms.Need) algorithms.Signal {
	t := window.Total{Now: now, Width: need.Window}
	pods, gateways := 0, 0
	if need.Name != algorithms.Rate {
		gateways = n.addGateways(&t, b)
	}
	if need.Name != algorithms.Waiting {
		pods = n.addPods(&t, b, need)
	}
	s := algorithms.Signal{
		Name: need.Name, Window: need.Window, Value: t.Value(), Known: t.Known(), Age: t.Age(), Coverage: t.Coverage(), Source: "sidecar",
	}
	switch {
	case pods > 0 && gateways > 0:
		s.Source = "sidecar+gateway"
	case gateways > 0:
		s.Source = "gateway"
	}
	return s
}

func (g *naiveGateway) lost(now time.Time) bool {
	return now.Sub(g.since) > store.GatewayLost && now.Sub(g.read) > store.GatewayLost
}

func (n *naive) addGateways(t *window.Total, b store.Binding) (held int) {
	for _, g := range n.gateways {
		fresh := g.deleted.IsZero() && t.Now.Sub(g.read) <= n.gatewayStale
		there := g.deleted.IsZero() && (!g.running || !g.lost(t.Now))
		holds := false
		for _, p := range g.ports {
			if p.namespace == b.Namespace && slices.Contains(b.Services, p.service) {
				holds = holds || p.held && there
				t.Add(&p.series, 0, fresh && p.held, p.waiting)
			}
		}
		if holds {
			held++
			if g.running && !fresh {
				t.Miss(g.read, true)
			}
		}
	}
	if held > 0 {
		for _, g := range n.gateways {
			if g.running && g.report == nil && t.Now.Sub(g.since) > n.gatewayStale && !g.lost(t.Now) {
				held++
				t.Miss(g.since, false)
			}
		}
	}
	return held
}

func (n *naive) addPods(t *window.Total, b store.Binding, need algorithms.Need) (pods int) {
	k := 0
	if need.Name == algorithms.Rate {
		k = 1
	}
	for _, p := range n.pods {
		if p.pod.Namespace != b.Namespace || !b.Selector.Matches(p.pod.Labels) {
			continue
		}
		if !p.deleted.IsZero() {
			t.Add(&p.series, k, false, 0)
			continue
		}
		var missed time.Time
		switch {
		case !expected(&p.pod):
		case p.read.Before(p.since):
			if t.Now.Sub(p.since) > n.interval+time.Second {
				missed = p.since
			}
		case t.Now.Sub(p.read) > n.stale:
			missed = p.read
		}
		live := missed.IsZero() && !p.read.IsZero() && t.Now.Sub(p.read) <= n.stale
		if live || expected(&p.pod) {
			pods++
		}
		t.Add(&p.series, k, live, p.last.InFlight)
		if !missed.IsZero() {
			t.Miss(missed, !p.read.IsZero())
		}
	}
	return pods
}

func (n *naive) instances(b store.Binding) (out []loop.Instance) {
	pods := slices.Clone(n.pods)
	slices.SortFunc(pods, func(a, b *naivePod) int {
		return cmp.Or(strings.Compare(a.pod.Name, b.pod.Name), strings.Compare(string(a.pod.UID), string(b.pod.UID)))
	})
	for _, p := range pods {
		if p.pod.Namespace == b.Namespace && b.Selector.Matches(p.pod.Labels) && p.deleted.IsZero() {
			i := loop.Instance{
				ID: p.pod.Name, Address: p.pod.IP, State: p.pod.State, Created: p.pod.Created, Ready: p.pod.Ready, InFlight: -1, Limit: p.last.Limit,
			}
			if !p.read.IsZero() && !p.read.Before(p.since) {
				i.InFlight = p.last.InFlight
			}
			out = append(out, i)
		}
	}
	return out
}

// history plays random events to a Store and its naive twin.
type history struct {
	*rand.Rand
	now   time.Time
	store *store.Store
	naive *naive
	bound map[loop.Ref]store.Binding
	sums  map[string]float64
}

func (h *history) any(of ...string) string { return of[h.IntN(len(of))] }

func (h *history) namespace() string { return h.any("ns", "other") }

// name is of few, so that pods come again. A UID belongs to one namespace and name.
func (h *history) name() string { return fmt.Sprint("pod-", h.IntN(6)) }

func (h *history) selector() labels.Selector {
	text := h.any("app=a", "app=b", "app=a,tier=x", "tier=x", "app in (a,b)", "app in (b)", "app!=a", "tier", "!tier", "", "app=a,app!=a")
	sel, err := labels.Parse(text)
	if err != nil {
		panic(err)
	}
	return sel
}

func (h *history) setPod() {
	namespace, name := h.namespace(), h.name()
	p := store.Pod{
		Namespace: namespace, Name: name, UID: types.UID(fmt.Sprint(namespace, name, h.IntN(2))), IP: "198.18.0.1", MetricsPort: 1,
		Labels:  labels.Set{"app": h.any("a", "b", "c"), "name": name},
		State:   []algorithms.PodState{algorithms.PodReady, algorithms.PodReady, algorithms.PodStarting, algorithms.PodTerminating}[h.IntN(4)],
		Running: h.IntN(4) > 0, Created: h.now,
	}
	if h.IntN(2) == 0 {
		p.Labels["tier"] = h.any("x", "y")
	}
	if p.State == algorithms.PodReady {
		p.Ready = h.now
	}
	h.store.SetPod(h.now, p)
	h.naive.setPod(h.now, p)
}

func (h *history) pick() *naivePod {
	if len(h.naive.pods) == 0 {
		return nil
	}
	return h.naive.pods[h.IntN(len(h.naive.pods))]
}

func (h *history) addSample() {
	p := h.pick()
	if p == nil {
		return
	}
	id := "p" + string(p.pod.UID)
	h.sums[id] += h.Float64() * 3
	born := float64(epoch.Unix() - 50)
	if h.IntN(30) == 0 { // a restart
		h.sums["life"+id] = h.now.Sub(epoch).Seconds()
		h.sums[id] = 0
	}
	life := h.sums["life"+id]
	s := store.Sample{InFlight: float64(h.IntN(9)), Limit: float64(h.IntN(3)), Reading: window.Reading{
		Life: born + life, Mono: h.now.Sub(epoch).Seconds() + 50 - life, At: h.now, Sums: [window.Values]float64{h.sums[id], 2 * h.sums[id]},
	}}
	h.store.AddSample(p.pod.Namespace, p.pod.UID, s)
	h.naive.addSample(p.pod.UID, s)
}

func (h *history) addReport() {
	uid := types.UID(h.any("g1", "g2", "g3"))
	r := &wire.Report{StartTime: float64(epoch.Unix() - 100), Monotonic: h.now.Sub(epoch).Seconds() + 100}
	for range h.IntN(5) {
		p := wire.PortReport{Namespace: h.namespace(), Service: h.any("a", "b"), PortName: h.any("http", "grpc"), Waiting: h.IntN(4)}
		id := fmt.Sprint(uid, p.Namespace, p.Service, p.PortName)
		h.sums[id] += h.Float64()
		p.WaitingSeconds = h.sums[id]
		r.Ports = append(r.Ports, p)
	}
	h.store.AddReport(h.now, uid, r)
	h.naive.addReport(h.now, uid, r)
}

func (h *history) step() {
	switch n := h.IntN(100); {
	case n < 15:
		h.setPod()
	case n < 55:
		h.addSample()
	case n < 59:
		if p := h.pick(); p != nil {
			h.store.DeletePod(h.now, p.pod.Namespace, p.pod.UID)
			h.naive.deletePod(h.now, p.pod.UID)
		}
	case n < 72:
		h.addReport()
	case n < 75:
		uid, running := types.UID(h.any("g1", "g2", "g3")), h.IntN(4) > 0
		h.store.SetGateway(h.now, store.GatewayPod{UID: uid, Name: string(uid), Running: running})
		h.naive.setGateway(h.now, uid, running)
	case n < 76:
		uid := types.UID(h.any("g1", "g2", "g3"))
		h.store.DeleteGateway(h.now, uid)
		h.naive.deleteGateway(h.now, uid)
	case n < 82:
		ref := loop.Ref{Name: h.any("1", "2", "3", "4")}
		if h.IntN(5) == 0 {
			h.store.Unbind(ref)
			delete(h.bound, ref)
			return
		}
		b := store.Binding{Namespace: h.namespace(), Selector: h.selector(), Services: [][]string{nil, {"a"}, {"a", "b"}, {"b", "b"}}[h.IntN(4)]}
		h.store.Bind(ref, b)
		h.bound[ref] = b
	case n < 83:
		h.store.Sweep(h.now)
		h.naive.sweep(h.now)
	default:
		h.now = h.now.Add(time.Duration(h.IntN(2000)) * time.Millisecond)
		if h.IntN(100) == 0 {
			h.now = h.now.Add(time.Hour)
		}
	}
}

func (h *history) check(t *testing.T) {
	t.Helper()
	need := algorithms.Need{
		Name:   h.any(algorithms.Concurrency, algorithms.Rate, algorithms.Waiting),
		Window: []time.Duration{time.Second, 6 * time.Second, time.Minute, time.Hour}[h.IntN(4)],
	}
	if need.Name != algorithms.Rate && h.IntN(4) == 0 {
		need.Window = algorithms.Instant
	}
	near := gocmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(1, math.Abs(a)) })
	for ref, b := range h.bound {
		got := h.store.Signals(h.now, ref, []algorithms.Need{{Name: "none"}, need}, nil)
		if d := gocmp.Diff(h.naive.signal(h.now, b, need), got[1], near); d != "" || got[0].Known {
			t.Fatalf("Signals of %s %s %v (-want +got):\n%s", b.Namespace, b.Selector, b.Services, d)
		}
		selected := h.store.SelectedSignals(h.now, b.Namespace, b.Selector, b.Services, []algorithms.Need{need}, nil)
		if d := gocmp.Diff(got[1], selected[0], near); d != "" {
			t.Fatalf("by selector %s (-want +got):\n%s", b.Selector, d)
		}
		if d := gocmp.Diff(h.naive.instances(b), h.store.Instances(ref, nil)); d != "" {
			t.Fatalf("Instances of %s %s (-want +got):\n%s", b.Namespace, b.Selector, d)
		}
	}
}

// The indexes answer what a look at everything answers.
func TestIndexesAnswerAsNaiveLists(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			h := &history{
				Rand: rand.New(rand.NewPCG(seed, 1)), now: epoch, store: store.New(store.Options{Interval: time.Second}),
				naive: &naive{interval: time.Second, stale: 5 * time.Second, gatewayStale: 5 * time.Second},
				bound: map[loop.Ref]store.Binding{}, sums: map[string]float64{},
			}
			for range 500 {
				h.step()
				h.check(t)
			}
		})
	}
}

// What is bound to nothing is unknown, and has no instances.
func TestUnbound(t *testing.T) {
	t.Parallel()
	s := store.New(store.Options{Interval: time.Second})
	ref := loop.Ref{Name: "web"}
	got := s.Signals(epoch, ref, []algorithms.Need{{Name: algorithms.Concurrency, Window: time.Second}}, nil)
	want := []algorithms.Signal{{Name: algorithms.Concurrency, Window: time.Second}}
	if d := gocmp.Diff(want, got); d != "" || len(s.Instances(ref, nil)) != 0 {
		t.Errorf("Signals (-want +got):\n%s\nInstances = %v, want none", d, s.Instances(ref, nil))
	}
}
