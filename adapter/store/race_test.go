package store_test

import (
	"fmt"
	"sync"
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

// Writers and readers of the same pods, gateways and workloads at once, for the race detector. What
// a workload answers stays within what was ever written.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	const rounds, pods = 300, 5
	s := store.New(store.Options{Interval: time.Second})
	ref := loop.Ref{Name: "web"}
	web := labels.SelectorFromSet(labels.Set{"app": "web"})
	var wg sync.WaitGroup
	each := func(work func(i int)) {
		wg.Go(func() {
			for i := range rounds {
				work(i)
			}
		})
	}
	for n := range pods {
		name := fmt.Sprint("pod-", n)
		each(func(i int) {
			p := pod(name, algorithms.PodReady)
			p.Labels = labels.Set{"app": []string{"web", "other"}[i/10%2]}
			s.SetPod(at(float64(i)), p)
			if i%50 == 49 {
				s.DeletePod(at(float64(i)), "ns", p.UID)
			}
		})
		each(func(i int) {
			s.AddSample("ns", types.UID(name), store.Sample{InFlight: 3, Reading: window.Reading{
				Life: 1000, Mono: float64(1000 + i), At: at(float64(i)), Sums: [window.Values]float64{float64(3 * i)},
			}})
			s.SetFailure("ns", types.UID(name), "refused")
		})
	}
	for _, name := range []types.UID{"g1", "g2"} {
		each(func(i int) {
			s.SetGateway(at(float64(i)), store.GatewayPod{UID: name, Name: string(name), Running: true})
			r := &wire.Report{StartTime: 1000, Monotonic: float64(1000 + i)}
			for port := range i % 7 {
				r.Ports = append(r.Ports, wire.PortReport{Namespace: "ns", Service: fmt.Sprint("s", port), Waiting: 1, WaitingSeconds: float64(i)})
			}
			s.AddReport(at(float64(i)), name, r)
			if i%100 == 99 {
				s.DeleteGateway(at(float64(i)), name)
			}
		})
	}
	each(func(i int) {
		s.Bind(ref, store.Binding{Namespace: "ns", Selector: web, Services: []string{fmt.Sprint("s", i%3)}})
		if i%10 == 9 {
			s.Unbind(ref)
		}
	})
	each(func(i int) { s.Sweep(at(float64(i))) })
	needs := []algorithms.Need{{Name: algorithms.Concurrency}, {Name: algorithms.Waiting}}
	for range 2 {
		each(func(i int) {
			got := s.Signals(at(float64(i)), ref, needs, nil)
			if got[0].Value > 3*pods+2 || got[1].Value > 2 {
				t.Errorf("Signals = %+v, want at most %d and 2", got, 3*pods+2)
			}
			if n := len(s.Instances(ref, nil)); n > pods {
				t.Errorf("%d instances, want at most %d", n, pods)
			}
			s.Workload(at(float64(i)), "ns", web, []string{"s1"}, algorithms.Concurrency, time.Minute)
			s.Pods(at(float64(i)), "ns", web, algorithms.Rate, time.Minute)
			s.Pod(at(float64(i)), "ns", "pod-1", algorithms.Rate, time.Minute)
			_, _, _ = s.Gateways(), s.List("ns", web), s.Ready()
			s.Size()
		})
	}
	wg.Wait()
	// When all is quiet, the index is what a look at the labels says.
	s.Bind(ref, store.Binding{Namespace: "ns", Selector: web})
	if a, b := len(s.Instances(ref, nil)), len(s.List("ns", web)); a != b {
		t.Errorf("%d instances by Ref, %d by selector", a, b)
	}
}
