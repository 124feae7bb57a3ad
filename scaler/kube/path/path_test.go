package path_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/scaler"
	"github.com/sluice-autoscaler/sluice/scaler/kube/path"
	"github.com/sluice-autoscaler/sluice/scaler/kube/path/slice"
	"github.com/sluice-autoscaler/sluice/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is one driver over a cache that follows at once.
type world struct {
	t      *testing.T
	now    time.Time
	api    *api
	driver *path.Driver
}

func newWorld(t *testing.T, change func(*path.Options)) *world {
	t.Helper()
	w := &world{t: t, now: time.Unix(1_000_000, 0)}
	w.api = newAPI(func() time.Time { return w.now })
	o := path.Options{
		Client: newCached(w.api, true), Owner: "controller", Epoch: 42, Log: slog.New(slog.DiscardHandler), Clock: func() time.Time { return w.now },
	}
	if change != nil {
		change(&o)
	}
	w.driver = path.New(o)
	return w
}

func workload(service string, age int) path.Workload {
	return path.Workload{
		Service: service, Controller: metav1.OwnerReference{Kind: "Autoscaler", Name: service, UID: types.UID(service)}, Created: time.Unix(int64(1000-age), 0),
	}
}

func (w *world) put(service string, want loop.PathState) error {
	return w.driver.Put(w.t.Context(), reference(service), want)
}

func (w *world) see() *loop.Path {
	const service = "web"
	w.t.Helper()
	p, err := w.driver.See(w.t.Context(), reference(service))
	if err != nil {
		w.t.Fatalf("See(%s): %v", service, err)
	}
	return p
}

// agreed puts until the Service's numbers are agreed, and returns them.
func (w *world) agreed(service string) []wire.Assignment {
	w.t.Helper()
	for range 5 {
		if err := w.put(service, loop.PathState{}); err != nil {
			w.t.Fatalf("Put(%s): %v", service, err)
		}
	}
	set, _ := w.driver.Set()
	var mine []wire.Assignment
	for _, p := range set.Ports {
		if p.Service == service {
			mine = append(mine, p)
		}
	}
	return mine
}

func (w *world) slice(service string) *discoveryv1.EndpointSlice {
	w.api.mu.Lock()
	defer w.api.mu.Unlock()
	return w.api.head[types.NamespacedName{Namespace: "shop", Name: slice.Name(service)}]
}

// listen shows the driver gateways that listen for what is assigned.
func (w *world) listen(names ...string) {
	set, _ := w.driver.Set()
	r := &wire.Report{StartTime: 1}
	for _, a := range set.Ports {
		r.Ports = append(r.Ports, wire.PortReport{Namespace: a.Namespace, Service: a.Service, PortName: a.PortName, Owner: "controller", Listen: a.Listen, Listening: true, InPath: a.InPath, Waiting: 2})
	}
	var gateways []wire.Gateway
	for _, n := range names {
		gateways = append(gateways, wire.Gateway{Name: n, IP: "198.18.0." + strings.TrimPrefix(n, "gw"), Control: n, Connected: true}.WithReport(r))
	}
	w.driver.Observe(gateways)
}

// TestInAndOut takes a Service into the gateways' path and out again, and writes only when
// something changes.
func TestInAndOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.api.addService("web", "http", "tcp-raw")
	seconds := algorithms.Duration(30 * time.Second)
	registered := workload("web", 0)
	registered.Hold = &loop.Hold{MaxRequests: new(7), Timeout: &seconds, PodConcurrency: new(3)}
	w.driver.Register(reference("web"), registered)
	if p := w.see(); p.In || p.Listening != 0 || !strings.Contains(p.Fault, "not agreed") {
		t.Errorf("See before the first Put = %+v, want the reason why nobody listens", p)
	}
	ports := w.agreed("web")
	if len(ports) != 2 || ports[0].Protocol != "http" || ports[1].Protocol != "tcp" || ports[0].MaxHeld != 7 || ports[0].HoldSeconds != 30 || ports[0].PodConcurrency != 3 {
		t.Fatalf("assigned %+v, want http and tcp with the workload's bounds", ports)
	}
	w.listen("gw2", "gw1")
	if p := w.see(); p.In || p.Listening != 2 || p.Waiting != 8 || p.Fault != "" {
		t.Errorf("See = %+v, want 2 that listen, 8 waiting, not in", p)
	}
	before := w.api.writes
	for i := range 3 {
		if err := w.put("web", loop.PathState{In: true, Failure: "pod web-1: ImagePullBackOff: registry.example/secret"}); err != nil {
			t.Fatal(err)
		}
		if s := w.slice("web"); i == 0 && len(s.Endpoints) != 0 {
			t.Errorf("slice %+v names gateways that take no connections yet", s)
		}
		w.listen("gw2", "gw1") // they have been told
	}
	if n := w.api.writes - before; n != 1 {
		t.Errorf("%d writes to put the gateways in, want 1", n)
	}
	if p := w.see(); !p.In {
		t.Errorf("See = %+v, want it in", p)
	}
	if s := w.slice("web"); len(s.Endpoints) != 2 || s.Endpoints[0].Addresses[0] != "198.18.0.1" || s.OwnerReferences[0].Name != "web" {
		t.Errorf("slice %+v, want both gateways and its owner", s)
	}
	if set, _ := w.driver.Set(); !set.Ports[0].InPath || set.Ports[0].Failure != "the image cannot be pulled" {
		t.Errorf("assigned %+v, want it in the path with the failure's class", set.Ports)
	}
	// Nobody listens: the slice stays, since pointing at nothing would not help.
	w.driver.Observe(nil)
	if err := w.put("web", loop.PathState{In: true}); err != nil || len(w.slice("web").Endpoints) != 2 {
		t.Errorf("Put without gateways = %v, leaves %d endpoints, want 2", err, len(w.slice("web").Endpoints))
	}
	if p := w.see(); p.In || p.Fault != "there is no gateway" {
		t.Errorf("See without gateways = %+v", p)
	}
	if err := w.put("web", loop.PathState{}); err != nil || len(w.slice("web").Endpoints) != 0 {
		t.Errorf("Put out = %v, leaves %d endpoints, want none", err, len(w.slice("web").Endpoints))
	}
}

// TestNumbersStay restarts the driver: the numbers are those of the slices, and one that is out of
// range is not believed.
func TestNumbersStay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.api.addService("web", "http")
	w.driver.Register(reference("web"), workload("web", 0))
	first := w.agreed("web")[0].Listen
	w.driver = path.New(w.driver.Options)
	w.driver.Register(reference("web"), workload("web", 0))
	if again := w.agreed("web")[0].Listen; again != first {
		t.Errorf("number %d after a restart, want %d", again, first)
	}
	w.api.mu.Lock()
	bad := w.slice2("web")
	bad.Ports[0].Port = new(int32(80))
	w.api.put(bad)
	w.api.mu.Unlock()
	if got := w.agreed("web")[0].Listen; got == 80 {
		t.Error("a number out of range was believed")
	}
}

func (w *world) slice2(service string) *discoveryv1.EndpointSlice {
	return w.api.head[types.NamespacedName{Namespace: "shop", Name: slice.Name(service)}].DeepCopy()
}

// TestRangeIsUsedUp gives every number of a range, and then says what to do.
func TestRangeIsUsedUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *path.Options) { o.Range = path.Range{From: 20000, To: 20012} })
	seen := map[int]bool{}
	for i := range 12 {
		service := fmt.Sprint("s", i)
		w.api.addService(service, "http")
		w.driver.Register(reference(service), workload(service, 0))
		p := w.agreed(service)[0].Listen
		if seen[p] || p < 20000 || p >= 20012 {
			t.Fatalf("number %d of %s is taken or out of range", p, service)
		}
		seen[p] = true
	}
	w.api.addService("more", "http")
	w.driver.Register(reference("more"), workload("more", 0))
	if err := w.put("more", loop.PathState{}); err == nil || !strings.Contains(err.Error(), "widen the range") {
		t.Errorf("Put with a used up range = %v, want the remedy", err)
	}
}

// TestOneOwnerPerService lets two workloads name one Service.
func TestOneOwnerPerService(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.api.addService("web", "http")
	young, old := reference("young"), reference("old")
	w.driver.Register(young, path.Workload{Service: "web", Controller: metav1.OwnerReference{Kind: "Autoscaler", Name: "young", UID: "1"}, Created: time.Unix(20, 0)})
	if _, err := w.driver.See(t.Context(), young); err != nil {
		t.Fatalf("See while alone: %v", err)
	}
	w.driver.Register(old, path.Workload{Service: "web", Controller: metav1.OwnerReference{Kind: "Autoscaler", Name: "old", UID: "2"}, Created: time.Unix(10, 0)})
	_, err := w.driver.See(t.Context(), young)
	if !errors.Is(err, scaler.ErrForbidden) || !strings.Contains(err.Error(), "Autoscaler old") {
		t.Errorf("See of the younger = %v, want ErrForbidden that names the older", err)
	}
	if _, err := w.driver.See(t.Context(), old); err != nil {
		t.Errorf("See of the older: %v", err)
	}
	w.driver.Forget(old)
	if _, err := w.driver.See(t.Context(), young); err != nil {
		t.Errorf("See of the younger once it is alone: %v", err)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if p, err := w.driver.See(t.Context(), reference("unknown")); p != nil || err != nil {
		t.Errorf("See of what is not registered = %v, %v, want none", p, err)
	}
	w.driver.Register(reference("web"), workload("web", 0))
	if _, err := w.driver.See(t.Context(), reference("web")); !errors.Is(err, scaler.ErrNotFound) {
		t.Errorf("See without the Service = %v, want ErrNotFound", err)
	}
	w.api.addService("web")
	w.api.services[types.NamespacedName{Namespace: "shop", Name: "web"}].Spec.Ports = []corev1.ServicePort{{Name: "dns", Protocol: corev1.ProtocolUDP}}
	if _, err := w.driver.See(t.Context(), reference("web")); !errors.Is(err, scaler.ErrForbidden) || !strings.Contains(err.Error(), "no TCP port") {
		t.Errorf("See without a TCP port = %v, want ErrForbidden", err)
	}
}

// TestServiceChanges takes a workload to another Service: the first one's slice and ports go.
func TestServiceChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.api.addService("web", "http")
	w.api.addService("api", "http")
	w.driver.Register(reference("web"), workload("web", 0))
	w.agreed("web")
	w.driver.Register(reference("web"), workload("api", 0))
	for range 3 {
		if err := w.put("web", loop.PathState{}); err != nil {
			t.Fatal(err)
		}
	}
	set, _ := w.driver.Set()
	if w.slice("web") != nil || w.slice("api") == nil || len(set.Ports) != 1 || set.Ports[0].Service != "api" {
		t.Errorf("slice of web %v, of api %v, assigned %+v; want api alone", w.slice("web"), w.slice("api"), set.Ports)
	}
	w.driver.Forget(reference("web"))
	if set, _ := w.driver.Set(); len(set.Ports) != 0 {
		t.Errorf("assigned %+v after Forget, want nothing", set.Ports)
	}
}

func TestSliceNamesAreValid(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 253)
	for _, name := range []string{"web", long} {
		if got := slice.Name(name); len(got) > 253 {
			t.Errorf("SliceName of %d characters has %d, want at most 253", len(name), len(got))
		}
	}
	if slice.Name(long) == slice.Name(long[:252]+"b") {
		t.Error("two long names give one slice name")
	}
}

func TestListening(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.api.addService("web", "http")
	w.driver.Register(reference("web"), workload("web", 0))
	number := w.agreed("web")[0].Listen
	port := wire.PortReport{Namespace: "shop", Service: "web", PortName: "http", Listen: number, Listening: true}
	closed, moved := port, port
	closed.Listening, closed.Error = false, "in use"
	moved.Listen++
	refused := &wire.Report{Refused: []wire.RefusedPort{{Namespace: "shop", Service: "web", Listen: number, Error: "owner b has it"}}}
	report := func(p wire.PortReport) *wire.Report { return &wire.Report{Ports: []wire.PortReport{p}} }
	for _, tc := range []struct {
		g     wire.Gateway
		fault string
	}{
		{wire.Gateway{Name: "good", IP: "1", Connected: true}.WithReport(report(port)), ""},
		{wire.Gateway{Name: "leaving", IP: "1", Connected: true, Leaving: true}.WithReport(report(port)), "is leaving"},
		{wire.Gateway{Name: "silent", IP: "1"}.WithReport(report(port)), "is not connected"},
		{wire.Gateway{Name: "closed", IP: "1", Connected: true}.WithReport(report(closed)), "is not open: in use"},
		{wire.Gateway{Name: "behind", IP: "1", Connected: true}.WithReport(report(moved)), "is not assigned yet"},
		{wire.Gateway{Name: "refusing", IP: "1", Connected: true}.WithReport(refused), "is refused: owner b has it"},
	} {
		w.driver.Observe([]wire.Gateway{tc.g})
		p := w.see()
		if listens := tc.fault == ""; (p.Listening == 1) != listens || !strings.Contains(p.Fault, tc.fault) || listens && p.Fault != "" {
			t.Errorf("%s: %+v, want listening %v, fault %q", tc.g.Name, p, listens, tc.fault)
		}
	}
}

// TestRunPushesWholeSets starts over two known workloads: nothing is pushed before both had a
// round, then everything at once, again on a change, again to a gateway that started anew, and with
// a greater epoch where a gateway knows one.
func TestRunPushesWholeSets(t *testing.T) {
	t.Parallel()
	got := make(chan wire.Assignments, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var a wire.Assignments
		if err := json.NewDecoder(r.Body).Decode(&a); err != nil || r.Method != http.MethodPut || r.URL.Path != wire.OwnerPath("controller") {
			t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
		}
		got <- a
		rw.WriteHeader(http.StatusNoContent)
	}))
	defer srv.Close()
	w := newWorld(t, nil)
	w.api.addService("web", "http")
	w.api.addService("api", "http")
	observe := func(start float64, epoch int64, gen uint64) {
		g := wire.Gateway{Name: "gw", IP: "198.18.0.1", Control: strings.TrimPrefix(srv.URL, "http://"), Connected: true}
		w.driver.Observe([]wire.Gateway{g.WithReport(&wire.Report{StartTime: start, Owners: []wire.OwnerReport{{Owner: "controller", Epoch: epoch, Generation: gen}}})})
	}
	observe(1, 0, 0)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	w.driver.Register(reference("web"), workload("web", 0))
	w.driver.Register(reference("api"), workload("api", 0))
	w.agreed("web")
	w.driver.Expect([]loop.Ref{reference("web"), reference("api")})
	go func() { done <- w.driver.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	next := func(what string) wire.Assignments {
		t.Helper()
		select {
		case x := <-got:
			return x
		case <-time.After(10 * time.Second):
			t.Fatalf("nothing was pushed: want %s", what)
			return wire.Assignments{}
		}
	}
	if err := w.put("api", loop.PathState{}); err != nil { // claims
		t.Fatal(err)
	}
	first := next("the set, once both had a round")
	for len(first.Ports) < 2 {
		if err := w.put("api", loop.PathState{}); err != nil {
			t.Fatal(err)
		}
		observe(1, first.Epoch, first.Generation)
		first = next("both Services")
	}
	if first.Epoch != 42 {
		t.Fatalf("push of epoch %d, want 42", first.Epoch)
	}
	observe(1, 42, first.Generation)
	w.driver.Forget(reference("api"))
	second := next("one Service")
	if len(second.Ports) != 1 || second.Ports[0].Service != "web" || second.Generation <= first.Generation {
		t.Fatalf("second push %+v, want web alone in a newer generation than %d", second, first.Generation)
	}
	observe(2, 0, 0) // another life: it knows nothing
	if third := next("the set again"); len(third.Ports) != 1 {
		t.Fatalf("push to a restarted gateway %+v, want web", third)
	}
	observe(2, 99, 1) // of a life of ours whose clock was ahead
	if fourth := next("a greater epoch"); fourth.Epoch != 100 || len(fourth.Ports) != 1 {
		t.Fatalf("push over epoch 99 %+v, want epoch 100", fourth)
	}
}

// TestRunRecallsSlices starts anew over two Services of which one never has a round, as when it
// cannot be read: after a while its port is pushed as its slice remembers it, so that its listener
// stays.
func TestRunRecallsSlices(t *testing.T) {
	t.Parallel()
	got := make(chan wire.Assignments, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var a wire.Assignments
		if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
			t.Errorf("decode: %v", err)
		}
		got <- a
	}))
	defer srv.Close()
	w := newWorld(t, nil)
	numbers := map[string]int{}
	for _, s := range []string{"web", "api"} {
		w.api.addService(s, "http")
		w.driver.Register(reference(s), workload(s, 0))
		numbers[s] = w.agreed(s)[0].Listen
	}
	var late atomic.Int64
	o := w.driver.Options
	o.Clock = func() time.Time { return time.Unix(2_000_000+late.Load(), 0) }
	w.driver = path.New(o)
	w.driver.Register(reference("web"), workload("web", 0))
	w.agreed("web")
	w.driver.Expect([]loop.Ref{reference("web"), reference("api")})
	w.driver.Observe([]wire.Gateway{wire.Gateway{
		Name: "gw", IP: "198.18.0.1", Control: strings.TrimPrefix(srv.URL, "http://"), Connected: true,
	}.WithReport(&wire.Report{StartTime: 1})})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.driver.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	for i := int64(1); ; i++ {
		select {
		case a := <-got:
			for _, p := range a.Ports {
				if p.Listen != numbers[p.Service] || p.Protocol != "http" {
					t.Errorf("pushed %+v, want number %d", p, numbers[p.Service])
				}
			}
			if len(a.Ports) != 2 {
				t.Errorf("pushed %+v, want both Services", a.Ports)
			}
			return
		case <-time.After(50 * time.Millisecond):
			late.Store(i)
		}
		if i > 400 {
			t.Fatal("nothing was pushed")
		}
	}
}
