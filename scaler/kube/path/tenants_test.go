package path_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/scaler"
	"github.com/sluice-autoscaler/sluice/scaler/kube/path"
	"github.com/sluice-autoscaler/sluice/scaler/kube/path/slice"
	"github.com/sluice-autoscaler/sluice/wire"
)

// TestNamespaceTakesNoMoreThanIsLeft has one namespace ask for all numbers: it gets half of them
// and is told why it gets no more, and another one still gets its own.
func TestNamespaceTakesNoMoreThanIsLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *path.Options) { o.Range = path.Range{From: 10000, To: 10400} })
	ask := func(namespace, service string) error {
		key := types.NamespacedName{Namespace: namespace, Name: service}
		w.api.mu.Lock()
		w.api.services[key] = &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: service}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
		}
		w.api.mu.Unlock()
		ref := reference(service)
		ref.Namespace = namespace
		w.driver.Register(ref, workload(service, 0))
		return w.driver.Put(t.Context(), ref, loop.PathState{})
	}
	given := 0
	var refused error
	for i := range 400 {
		if err := ask("attacker", fmt.Sprint("s", i)); err == nil {
			given++
		} else {
			refused = err
		}
	}
	if given != 200 || refused == nil || !strings.Contains(refused.Error(), "namespace attacker has 200 of the gateways' ports, and 200 are left") {
		t.Errorf("the attacker got %d of 400 numbers, then %v: want half and the reason", given, refused)
	}
	for i := range path.NamespaceFloor {
		if err := ask("victim", fmt.Sprint("s", i)); err != nil {
			t.Fatalf("number %d of the victim: %v", i, err)
		}
	}
}

// TestServiceWithTooManyPorts names more than a slice can have.
func TestServiceWithTooManyPorts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var names []string
	for i := range slice.MaxPorts + 1 {
		names = append(names, fmt.Sprint("p", i))
	}
	w.api.addService("web", names...)
	w.driver.Register(reference("web"), workload("web", 0))
	if _, err := w.driver.See(t.Context(), reference("web")); !errors.Is(err, scaler.ErrForbidden) || !strings.Contains(err.Error(), "101 TCP ports") {
		t.Errorf("See = %v, want ErrForbidden that counts the ports", err)
	}
}

// TestOneWriterPerSlice does rounds of two workloads of one Service: the slice settles, and nobody
// writes it again.
func TestOneWriterPerSlice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.api.addService("web", "http")
	for name, age := range map[string]int{"old": 10, "young": 0} {
		x := workload("web", age)
		x.Controller.Name, x.Controller.UID = name, types.UID(name)
		w.driver.Register(reference(name), x)
	}
	for range 5 {
		_ = w.put("young", loop.PathState{In: true})
		_ = w.put("old", loop.PathState{})
	}
	before := w.api.writes
	for range 200 {
		if err := w.put("young", loop.PathState{In: true}); !errors.Is(err, scaler.ErrForbidden) {
			t.Fatalf("Put of the younger = %v, want ErrForbidden", err)
		}
		if err := w.put("old", loop.PathState{}); err != nil {
			t.Fatal(err)
		}
	}
	set, _ := w.driver.Set()
	if n := w.api.writes - before; n != 0 || len(set.Ports) != 1 {
		t.Errorf("%d writes of a slice that two name, %+v assigned; want none, and one port", n, set.Ports)
	}
}

// TestForeignSlice has a slice of Sluice's name that is not Sluice's: the round says what to do,
// and is no conflict that is tried again at once.
func TestForeignSlice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.api.addService("web", "http")
	w.api.mu.Lock()
	w.api.put(&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: slice.Name("web")}})
	w.api.mu.Unlock()
	w.driver.Register(reference("web"), workload("web", 0))
	if err := w.put("web", loop.PathState{}); !errors.Is(err, scaler.ErrForbidden) || errors.Is(err, scaler.ErrConflict) || !strings.Contains(err.Error(), "until it is deleted") {
		t.Errorf("Put = %v, want ErrForbidden with the remedy", err)
	}
	w.api.remove(types.NamespacedName{Namespace: "shop", Name: slice.Name("web")})
	if len(w.agreed("web")) != 1 {
		t.Error("no number once it is deleted")
	}
}

// TestAssigned asks about what gateways report: only what was given to them counts.
func TestAssigned(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.api.addService("web", "http")
	w.driver.Register(reference("web"), workload("web", 0))
	number := w.agreed("web")[0].Listen
	standby := path.New(w.driver.Options) // has assigned nothing, and sees the slices
	for name, tc := range map[string]struct {
		p    wire.PortReport
		want bool
	}{
		"given":             {wire.PortReport{Namespace: "shop", Service: "web", PortName: "http", Listen: number}, true},
		"drains":            {wire.PortReport{Namespace: "shop", Service: "web", PortName: "http"}, true},
		"another number":    {wire.PortReport{Namespace: "shop", Service: "web", PortName: "http", Listen: number + 1}, false},
		"another port":      {wire.PortReport{Namespace: "shop", Service: "web", PortName: "admin", Listen: number}, false},
		"another Service":   {wire.PortReport{Namespace: "shop", Service: "api", PortName: "http", Listen: number}, false},
		"another namespace": {wire.PortReport{Namespace: "victim", Service: "web", PortName: "http", Listen: number}, false},
	} {
		if got := w.driver.Assigned(&tc.p); got != tc.want {
			t.Errorf("%s: %v to the leader, want %v", name, got, tc.want)
		}
		if got := standby.Assigned(&tc.p); got != tc.want {
			t.Errorf("%s: %v to a standby, want %v", name, got, tc.want)
		}
	}
}

func TestFailureClass(t *testing.T) {
	t.Parallel()
	for failure, want := range map[string]string{
		"": "",
		"pod web-7d9: ImagePullBackOff: container app: registry.example/secret/app:v1 not found": "the image cannot be pulled",
		"pod web-7d9: CrashLoopBackOff: container app: back-off 10s":                             "the container crashes",
		"pod web-7d9: CreateContainerConfigError: secret \"db\" not found":                       "the container cannot be started",
		"pod web-7d9: something new about registry.example":                                      "the cause is in the Autoscaler's status",
		strings.Repeat("x", 1<<20):                                                               "the cause is in the Autoscaler's status",
	} {
		if got := path.FailureClass(failure); got != want {
			t.Errorf("FailureClass(%.80q) = %q, want %q", failure, got, want)
		}
	}
}

// TestStandbyBornFirstTakesOver runs a controller that was born before the leader. While it holds
// no lease it pushes nothing; when it does, it pushes with the lease's epoch, which is greater than
// the leader's, whenever it was born. An epoch over its own is outranked only while it holds the
// lease, and one that none can follow is said.
func TestStandbyBornFirstTakesOver(t *testing.T) {
	t.Parallel()
	got := make(chan wire.Assignments, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var a wire.Assignments
		if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
			t.Errorf("decode: %v", err)
		}
		got <- a
	}))
	defer srv.Close()
	const leader = 1_790_000_000_000_000_000
	var holds atomic.Bool
	asked := make(chan struct{}, 1)
	w := newWorld(t, func(o *path.Options) {
		o.Epoch = 0
		o.Lease = func(context.Context) (int64, error) {
			select {
			case asked <- struct{}{}:
			default:
			}
			if !holds.Load() {
				return 0, errors.New("the lease is held by another")
			}
			return leader + 1, nil
		}
	})
	w.api.addService("web", "http")
	w.driver.Register(reference("web"), workload("web", 0))
	w.agreed("web")
	observe := func(epoch int64, generation uint64) {
		g := wire.Gateway{Name: "gw", IP: "198.18.0.1", Control: strings.TrimPrefix(srv.URL, "http://"), Connected: true}
		w.driver.Observe([]wire.Gateway{g.WithReport(&wire.Report{StartTime: 1, Owners: []wire.OwnerReport{{Owner: "controller", Epoch: epoch, Generation: generation}}})})
	}
	observe(leader, 500)
	w.driver.Expect(nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.driver.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	for range 3 { // it tries, and pushes nothing
		<-asked
	}
	if len(got) != 0 {
		t.Fatalf("pushed %+v without the lease", <-got)
	}
	holds.Store(true)
	next := func() wire.Assignments {
		t.Helper()
		select {
		case a := <-got:
			return a
		case <-time.After(20 * time.Second):
			t.Fatal("nothing is pushed")
			return wire.Assignments{}
		}
	}
	if a := next(); a.Epoch != leader+1 || len(a.Ports) != 1 {
		t.Fatalf("pushed %+v, want the lease's epoch", a)
	}
	observe(leader+5, 1) // as of a lease before this one, which was made with a clock ahead
	if a := next(); a.Epoch != leader+6 {
		t.Errorf("pushed epoch %d over %d, want one more", a.Epoch, leader+5)
	}
	observe(leader+6, math.MaxUint64) // an absurd generation must not shut it out either
	if a := next(); a.Epoch != leader+7 {
		t.Errorf("pushed epoch %d over an absurd generation, want %d", a.Epoch, leader+7)
	}
	holds.Store(false)
	for len(asked) > 0 {
		<-asked
	}
	observe(leader+100, 1)
	<-asked // it asks before it outranks
	holds.Store(true)
	observe(math.MaxInt64, 1)
	for {
		p := w.see()
		if strings.Contains(p.Fault, "another controller") {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("See = %+v, want the push that is refused named", p)
		}
	}
	for len(got) > 0 {
		if a := <-got; a.Epoch <= 0 {
			t.Errorf("pushed epoch %d", a.Epoch)
		}
	}
}

// FuzzSlices has a tenant write anything into the slice of its own Service, between rounds: nothing
// breaks, its numbers are of the range, and those of an older Service of another stay.
func FuzzSlices(f *testing.F) {
	f.Add("http=10001,http=10001,x=99999", int32(10001), "http", "a")
	f.Add(strings.Repeat("a=10000,", 500), int32(-1), "", "sluice.dev")
	f.Add("=,==,http=", int32(math.MaxInt32), "http", "198.18.0.1")
	f.Fuzz(func(t *testing.T, claims string, number int32, name, text string) {
		w := newWorld(t, func(o *path.Options) { o.Range = path.Range{From: 10000, To: 10008} })
		for i, service := range []string{"victim", "attacker"} {
			w.api.addService(service, "http")
			w.now = w.now.Add(time.Duration(i) * time.Minute)
			w.driver.Register(reference(service), workload(service, 0))
			w.agreed(service)
		}
		was := w.agreed("victim")[0].Listen
		for range 3 {
			w.api.mu.Lock()
			s := w.api.head[types.NamespacedName{Namespace: "shop", Name: slice.Name("attacker")}].DeepCopy()
			s.Annotations = map[string]string{"sluice.dev/claimed-ports": claims, text: text}
			s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &name, Port: &number}, discoveryv1.EndpointPort{}, discoveryv1.EndpointPort{Port: new(int32(was))})
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{}, discoveryv1.Endpoint{Addresses: []string{text}})
			w.api.put(s)
			w.api.mu.Unlock()
			for range 4 {
				for _, service := range []string{"attacker", "victim"} {
					if _, err := w.driver.See(t.Context(), reference(service)); err != nil {
						t.Fatalf("See(%s): %v", service, err)
					}
					if err := w.put(service, loop.PathState{In: true}); err != nil && service == "victim" {
						t.Fatalf("Put of the victim: %v", err)
					}
				}
			}
			set, _ := w.driver.Set()
			seen := map[int]string{}
			for _, p := range set.Ports {
				if p.Listen < 10000 || p.Listen >= 10008 || seen[p.Listen] != "" {
					t.Fatalf("assigned %+v: out of range or twice", set.Ports)
				}
				seen[p.Listen] = p.Service
			}
			if seen[was] != "victim" {
				t.Fatalf("number %d of the victim is %q's: %+v", was, seen[was], set.Ports)
			}
		}
	})
}
