package path_test

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/scaler/kube/path"
	"github.com/sluice-autoscaler/sluice/wire"
)

// among returns a driver with n workloads in one namespace that two gateways listen for, and a
// round of one of them.
func among(tb testing.TB, n int) (round func()) {
	now := time.Unix(1_000_000, 0)
	a := newAPI(func() time.Time { return now })
	c := newCached(a, false)
	d := path.New(path.Options{
		Client: c, Owner: "controller", Epoch: 1, Log: slog.New(slog.DiscardHandler), Clock: func() time.Time { return now },
		Range: path.Range{From: 10000, To: 32768},
	})
	for i := range n {
		service := fmt.Sprint("s", i)
		a.addService(service, "http")
		d.Register(reference(service), workload(service, i))
	}
	for range 2 { // claim, confirm
		for i := range n {
			if err := d.Put(tb.Context(), reference(fmt.Sprint("s", i)), loop.PathState{}); err != nil {
				tb.Fatal(err)
			}
		}
		c.follow(1 << 30)
	}
	set, _ := d.Set()
	if len(set.Ports) != n {
		tb.Fatalf("%d ports are assigned, want %d", len(set.Ports), n)
	}
	r := &wire.Report{StartTime: 1}
	for _, p := range set.Ports {
		r.Ports = append(r.Ports, wire.PortReport{Namespace: p.Namespace, Service: p.Service, PortName: p.PortName, Listen: p.Listen, Listening: true})
	}
	var gateways []wire.Gateway
	for i := range 2 {
		gateways = append(gateways, wire.Gateway{Name: fmt.Sprint("gw", i), IP: fmt.Sprint("198.18.0.", i), Control: fmt.Sprint(i), Connected: true}.WithReport(r))
	}
	d.Observe(gateways)
	ref, w := reference("s7"), workload("s7", 7)
	return func() {
		d.Register(ref, w)
		p, err := d.See(tb.Context(), ref)
		if err != nil || p.Listening != 2 {
			tb.Fatalf("See = %+v, %v", p, err)
		}
		if err := d.Put(tb.Context(), ref, loop.PathState{}); err != nil {
			tb.Fatal(err)
		}
	}
}

// BenchmarkRound is Register, See and Put of one workload in which nothing changed.
func BenchmarkRound(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		b.Run(fmt.Sprint("among=", n), func(b *testing.B) {
			round := among(b, n)
			b.ReportAllocs()
			for b.Loop() {
				round()
			}
		})
	}
}

// TestRoundCostsWhatTheWorkloadCosts compares the bytes of a round among few and among many.
func TestRoundCostsWhatTheWorkloadCosts(t *testing.T) {
	cost := func(n int) float64 {
		round := among(t, n)
		const rounds = 200
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range rounds {
			round()
		}
		runtime.ReadMemStats(&after)
		return float64(after.TotalAlloc-before.TotalAlloc) / rounds
	}
	few, many := cost(100), cost(3_000)
	t.Logf("%.0f bytes among 100, %.0f among 3,000", few, many)
	if many > 1.5*few {
		t.Errorf("a round among 3,000 workloads takes %.0f bytes, and %.0f among 100: want at most 1.5 times", many, few)
	}
}
