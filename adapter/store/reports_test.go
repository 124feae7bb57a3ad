package store_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/wire"
)

// waiting asks what is held for Service web.
func waiting(s *store.Store, now time.Time) algorithms.Signal {
	return s.Signals(now, loop.Ref{Name: "web"}, []algorithms.Need{{Name: algorithms.Waiting, Window: time.Second}}, nil)[0]
}

// heldForWeb is a store with a gateway that holds three requests for Service web, as told each
// second for ten seconds.
func heldForWeb(o store.Options) (s *store.Store, tell func(second int)) {
	o.Interval = time.Second
	s = store.New(o)
	s.Bind(loop.Ref{Name: "web"}, store.Binding{Namespace: "ns", Services: []string{"web"}})
	s.SetGateway(epoch, store.GatewayPod{UID: "good", Name: "good", Running: true})
	tell = func(second int) {
		s.AddReport(at(float64(second)), "good", &wire.Report{StartTime: 1000, Monotonic: float64(second), Ports: []wire.PortReport{
			{Namespace: "ns", Service: "web", Waiting: 3, WaitingSeconds: 3 * float64(second)},
		}})
	}
	for i := range 10 {
		tell(i)
	}
	return s, tell
}

// TestSilentGatewayIsLeftOut adds a gateway that runs and never reports, and one that ceases to:
// what is held is unknown for a bounded time, then that of the others, and it is told of, once
// each.
func TestSilentGatewayIsLeftOut(t *testing.T) {
	t.Parallel()
	told := map[string]int{}
	s, tell := heldForWeb(store.Options{OnSilentGateway: func(g store.GatewayPod) { told[g.Name]++ }})
	s.SetGateway(at(10), store.GatewayPod{UID: "never", Name: "never", Running: true})
	s.SetGateway(at(0), store.GatewayPod{UID: "ceased", Name: "ceased", Running: true})
	s.AddReport(at(9), "ceased", &wire.Report{StartTime: 900, Monotonic: 100, Ports: []wire.PortReport{{Namespace: "ns", Service: "web", Waiting: 9}}})
	unknown := 0
	for second := 10; second < 120; second++ {
		tell(second)
		s.Sweep(at(float64(second)))
		v := waiting(s, at(float64(second)))
		if !v.Known {
			unknown++
		}
		if lost := 10 + store.GatewayLost.Seconds(); float64(second) > lost+1 && (!v.Known || v.Value != 3) {
			t.Fatalf("after %d s: %+v, want the 3 of the gateway that reports", second, v)
		}
	}
	if unknown < 10 || float64(unknown) > store.GatewayLost.Seconds()+1 {
		t.Errorf("unknown for %d s, want for some seconds and at most %v", unknown, store.GatewayLost)
	}
	if told["never"] != 1 || told["ceased"] != 1 || told["good"] != 0 {
		t.Errorf("told of %v, want each silent one once", told)
	}
	s.AddReport(at(121), "never", &wire.Report{StartTime: 1100, Monotonic: 1, Ports: []wire.PortReport{{Namespace: "ns", Service: "web", Waiting: 1, WaitingSeconds: 1}}})
	tell(121)
	now := s.Signals(at(121), loop.Ref{Name: "web"}, []algorithms.Need{{Name: algorithms.Waiting, Window: algorithms.Instant}}, nil)[0]
	if !now.Known || now.Value != 4 {
		t.Errorf("once it reports: %+v, want its request beside the others", now)
	}
}

// TestReportsSubtractNothing reports what cannot be true of the victim's Service by a second
// gateway: nothing of it is subtracted from what the first one holds.
func TestReportsSubtractNothing(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]wire.PortReport{
		"negative":          {Waiting: -3, WaitingSeconds: 1},
		"negative integral": {Waiting: 1, WaitingSeconds: -1e9},
		"no number":         {Waiting: 1, WaitingSeconds: math.NaN()},
		"no end":            {Waiting: 1, WaitingSeconds: math.Inf(1)},
		"absurd":            {Waiting: math.MaxInt, WaitingSeconds: 1},
	} {
		s, _ := heldForWeb(store.Options{})
		s.SetGateway(epoch, store.GatewayPod{UID: "bad", Name: "bad", Running: true})
		p.Namespace, p.Service = "ns", "web"
		for i := range 10 {
			s.AddReport(at(float64(i)), "bad", &wire.Report{StartTime: 1, Monotonic: float64(i), Ports: []wire.PortReport{p}})
		}
		if v := waiting(s, at(9)); !v.Known || v.Value != 3 {
			t.Errorf("%s: %+v, want the 3 that are held", name, v)
		}
	}
}

// TestReportedKeysAreBounded has a gateway report other Services each time, as many as a report can
// have: what is kept is bounded, a round does not wait for it, and what it goes on to report stays.
func TestReportedKeysAreBounded(t *testing.T) {
	t.Parallel()
	const perReport = 30_000
	s, tell := heldForWeb(store.Options{})
	s.SetGateway(epoch, store.GatewayPod{UID: "bad", Name: "bad", Running: true})
	longest := time.Duration(0)
	for i := range 3 {
		r := &wire.Report{StartTime: 1, Monotonic: float64(i), Ports: make([]wire.PortReport, 0, perReport)}
		for n := range perReport {
			r.Ports = append(r.Ports, wire.PortReport{Namespace: "attacker", Service: fmt.Sprintf("s-%d-%05d", i, n), Waiting: 1})
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.AddReport(at(float64(10+i)), "bad", r)
		}()
		for busy := true; busy; {
			select {
			case <-done:
				busy = false
			default:
			}
			began := time.Now()
			waiting(s, at(float64(10+i)))
			longest = max(longest, time.Since(began))
		}
		tell(10 + i)
		if n := s.Services("bad"); n > perReport+store.MaxServices {
			t.Fatalf("%d Services are kept after %d reports", n, i+1)
		}
	}
	if v := waiting(s, at(12)); !v.Known || v.Value != 3 {
		t.Errorf("%+v of the victim, want the 3 that are held", v)
	}
	if longest > 500*time.Millisecond {
		t.Errorf("a round waited %v for the reports' lock", longest)
	}
	s.DeleteGateway(at(20), "bad")
	s.Sweep(at(20).Add(2 * time.Hour))
	if n := s.Services("bad"); n != 0 {
		t.Errorf("%d Services are kept of a gateway that is gone", n)
	}
}

// FuzzReports puts reports of any content into the store, by a gateway to which nothing of the
// victim's was assigned (what it says of that is left out, as scrape does): what the victim's value
// is does not change, and no more is kept than was reported.
func FuzzReports(f *testing.F) {
	f.Add([]byte(`{"startTime":1,"monotonic":2,"ports":[{"namespace":"x","service":"y","waiting":-3,"waitingSeconds":1e308}]}`), uint8(3))
	f.Add([]byte(`{"startTime":-1e300,"monotonic":-5,"ports":[{"namespace":"x","service":"y","portName":"`+strings.Repeat("a", 300)+`"},{},{}]}`), uint8(200))
	f.Fuzz(func(t *testing.T, raw []byte, pace uint8) {
		var r wire.Report
		if len(raw) > 1<<16 || json.Unmarshal(raw, &r) != nil {
			t.Skip()
		}
		kept := r.Ports[:0]
		for _, p := range r.Ports {
			if p.Namespace != "ns" {
				kept = append(kept, p)
			}
		}
		r.Ports = kept
		s, tell := heldForWeb(store.Options{})
		s.SetGateway(epoch, store.GatewayPod{UID: "bad", Name: "bad", Running: true})
		for i := 10; i < 15; i++ {
			next := r
			next.Monotonic += float64(i * int(pace))
			s.AddReport(at(float64(i)), types.UID("bad"), &next)
			tell(i)
			if v := waiting(s, at(float64(i))); !v.Known || v.Value != 3 {
				t.Fatalf("the victim's value is %+v, want 3", v)
			}
			for _, g := range s.Gateways() {
				g.Waiting("ns", "web")
			}
		}
		if n := s.Services("bad"); n > len(r.Ports) {
			t.Fatalf("%d Services are kept of %d reported", n, len(r.Ports))
		}
	})
}
