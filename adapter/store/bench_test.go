package store_test

import (
	"fmt"
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

// crowd is n pods of workloads of ten, in one namespace or a namespace for each workload, that have
// been read for two minutes, and a gateway that holds for all. It returns the workloads.
func crowd(s *store.Store, n int, apart bool) []loop.Ref {
	r := &wire.Report{Gateway: "g", StartTime: float64(epoch.Unix()) - 1000, Monotonic: 1120}
	var refs []loop.Ref
	for i := 0; i < n; i += 10 {
		app, namespace := fmt.Sprint("app", i), "ns"
		if apart {
			namespace = app
		}
		for j := range 10 {
			name := fmt.Sprint(app, "-", j)
			p := pod(name, algorithms.PodReady)
			p.Namespace, p.Labels = namespace, labels.Set{"app": app, "part-of": "shop", "pod-name": name}
			s.SetPod(epoch, p)
			for k := 1.0; k <= 120; k++ {
				s.AddSample(namespace, types.UID(name), store.Sample{
					Reading:  window.Reading{Life: float64(epoch.Unix()) - 1000, Mono: 1000 + k, Sums: [window.Values]float64{3 * k, k}, At: at(k)},
					InFlight: 3,
				})
			}
		}
		ref := loop.Ref{Driver: "kubernetes", Kind: "Deployment.apps", Namespace: namespace, Name: app}
		s.Bind(ref, store.Binding{
			Namespace: namespace, Selector: labels.SelectorFromSet(labels.Set{"app": app, "part-of": "shop"}), Services: []string{app},
		})
		refs = append(refs, ref)
		r.Ports = append(r.Ports, wire.PortReport{Namespace: namespace, Service: app, PortName: "http"})
	}
	s.SetGateway(epoch, store.GatewayPod{UID: "g", Name: "g", Running: true})
	s.AddReport(at(120), "g", r)
	return refs
}

// BenchmarkSignals reads one workload of ten pods among many.
func BenchmarkSignals(b *testing.B) {
	needs := []algorithms.Need{{Name: algorithms.Concurrency, Window: time.Minute}, {Name: algorithms.Concurrency, Window: 6 * time.Second}}
	for _, apart := range []bool{false, true} {
		for _, n := range []int{100, 1000, 10_000} {
			namespaces := 1
			if apart {
				namespaces = n / 10
			}
			b.Run(fmt.Sprintf("pods=%d/namespaces=%d", n, namespaces), func(b *testing.B) {
				s := store.New(store.Options{Interval: time.Second})
				refs := crowd(s, n, apart)
				var dst []algorithms.Signal
				b.ReportAllocs()
				for b.Loop() {
					dst = s.Signals(at(120), refs[0], needs, dst[:0])
				}
				if !dst[0].Known || dst[0].Value < 29.9 {
					b.Fatalf("Signals = %+v, want 30 requests", dst)
				}
			})
		}
	}
}

// BenchmarkAddReport takes a report of many ports of which nothing has changed.
func BenchmarkAddReport(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("ports=%d", n), func(b *testing.B) {
			s := store.New(store.Options{Interval: time.Second})
			s.SetGateway(epoch, store.GatewayPod{UID: "g", Name: "g", Running: true})
			r := wire.Report{StartTime: 1000, Monotonic: 1}
			for i := range n {
				r.Ports = append(r.Ports, wire.PortReport{Namespace: "ns", Service: fmt.Sprintf("s%05d", i), PortName: "http"})
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				next := r
				next.Monotonic += float64(i)
				s.AddReport(at(float64(i)), "g", &next)
			}
		})
	}
}

// BenchmarkSetPod takes an event of one pod among many.
func BenchmarkSetPod(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("pods=%d", n), func(b *testing.B) {
			s := store.New(store.Options{Interval: time.Second})
			crowd(s, n, false)
			p := pod("app0-0", algorithms.PodReady)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				p.Labels = labels.Set{"app": "app0", "part-of": "shop", "pod-name": "app0-0", "turn": fmt.Sprint(i % 2)}
				s.SetPod(epoch, p)
			}
		})
	}
}

// Reading a workload allocates nothing, and does not grow with what else there is.
func TestSignalsAllocateNothing(t *testing.T) {
	s := store.New(store.Options{Interval: time.Second})
	refs := crowd(s, 100, false)
	needs := []algorithms.Need{{Name: algorithms.Concurrency, Window: time.Minute}, {Name: algorithms.Waiting}, {Name: algorithms.Rate, Window: time.Second}}
	dst := make([]algorithms.Signal, 0, len(needs))
	instances := make([]loop.Instance, 0, 10)
	b := store.Binding{Namespace: "ns", Selector: labels.SelectorFromSet(labels.Set{"app": "app0", "part-of": "shop"}), Services: []string{"app0"}}
	if n := testing.AllocsPerRun(100, func() {
		s.Bind(refs[0], b)
		dst = s.Signals(at(120), refs[0], needs, dst[:0])
		instances = s.Instances(refs[0], instances[:0])
	}); n != 0 {
		t.Errorf("a round allocates %v times, want none", n)
	}
	if len(instances) != 10 {
		t.Errorf("%d instances, want 10", len(instances))
	}
}
