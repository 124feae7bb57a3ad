//go:build e2e

package e2e_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/testbed/kit"
	"github.com/sluice-autoscaler/sluice/testbed/promises"
)

// robustLoad is a workload of the robustness test and how many clients its load has at most.
type robustLoad struct {
	ns      string
	clients int
	ms      int
	always  bool // it is never idle
	load    *load
}

// TestRobustness does random faults, one after the other, under random traffic, records all, and
// holds the record against the promises. Random is what is done, when and for how long, by a seed
// that is printed; how the machine takes it differs from run to run. It runs for
// -robustness. It is not parallel: it kills what others need.
func TestRobustness(t *testing.T) {
	if *robustnessTime == 0 {
		t.Skip("left out by -robustness 0")
	}
	seed := *robustnessSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)

	if err := cluster.Install(t.Context(), 2*time.Minute, "--set", "controller.replicas=2"); err != nil {
		t.Fatal(err)
	}
	defer func() { // the defaults again, for the tests after this one
		if err := cluster.Install(t.Context(), 3*time.Minute); err != nil {
			t.Error(err)
		}
	}()
	loads := []*robustLoad{
		{ns: "robust-steady", clients: loadClients, ms: 400, always: true},
		{ns: "robust-bursts", clients: loadClients, ms: 200},
		{ns: "robust-sparse", clients: 3, ms: 50},
	}
	var workloads []promises.Workload
	urls := map[string]string{}
	for _, l := range loads {
		urls[l.ns] = web(t, l.ns)
		apply(t, l.ns, "autoscaler.yaml", quick()...)
		w := promises.Workload{Name: l.ns, Max: 10}
		if l.clients < 5 { // of more, means of pods that are seconds old are rough while the load changes
			w.Needed = 1
		}
		workloads = append(workloads, w)
	}
	for _, l := range loads {
		answers(t, urls[l.ns])
	}
	rec := newRecorder(workloads...)
	for _, l := range loads {
		l.load = rec.load(t.Context(), l.ns, urls[l.ns], l.clients, l.ms)
	}
	ctx, cancel := context.WithTimeout(t.Context(), *robustnessTime)
	defer cancel()
	var traffic sync.WaitGroup
	traffic.Go(func() { vary(ctx, rand.New(rand.NewPCG(seed, 1)), loads) })
	injectAll(ctx, t, rec, rand.New(rand.NewPCG(seed, 2)))
	cancel()
	traffic.Wait()
	for _, l := range loads {
		l.load.stop() // each waits for its answers
	}
	for _, l := range loads {
		asleep(t, l.ns)
	}
	h, err := rec.history(record)
	if err != nil {
		t.Fatal(err)
	}
	if all := verify(t, h); len(all) > 0 {
		t.Logf("the same faults again: make robustness ROBUSTNESS_FLAGS='-seed %d'", seed)
	}
	lost := 0
	for _, r := range h.Requests {
		if r.Failure != "" {
			lost++
		}
	}
	t.Logf("%d requests, %d of them lost as faults allow; %d writes, %d faults", len(h.Requests), lost, len(h.Writes), len(h.Faults))
}

// vary changes how many requests are in flight, until ctx ends.
func vary(ctx context.Context, rng *rand.Rand, loads []*robustLoad) {
	for _, l := range loads {
		if l.always {
			l.load.set(l.clients)
		}
	}
	for ctx.Err() == nil {
		l := loads[rng.IntN(len(loads))]
		switch {
		case l.always:
			l.load.set(1 + rng.IntN(l.clients))
		case rng.IntN(2) == 0:
			l.load.set(0)
		default:
			l.load.set(1 + rng.IntN(l.clients))
		}
		sleep(ctx, 500*time.Millisecond+time.Duration(rng.Int64N(int64(2*time.Second))))
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// injectAll does one fault after the other until ctx ends. The last one is undone, too.
func injectAll(ctx context.Context, t *testing.T, rec *recorder, rng *rand.Rand) {
	for {
		sleep(ctx, 500*time.Millisecond+time.Duration(rng.Int64N(int64(2*time.Second))))
		seconds, choice := 2+rng.IntN(8), rng.IntN(8)
		if ctx.Err() != nil {
			return
		}
		all := []injection{
			killController(), killGateway(""), freezeController(seconds), halt(promises.APIServerStopped, "kube-apiserver", seconds),
			halt(promises.EtcdStopped, "etcd", seconds), cutFromAPI(seconds), cutFromGateways(seconds), cutFromSidecars(seconds),
		}
		in := all[choice]
		// What one fault leaves behind is over before the next: the promises are about one at a time.
		if !whole(ctx) {
			continue
		}
		began := rec.now()
		if err := in.begin(t.Context()); err != nil {
			t.Fatalf("%s: %v", in.kind, err)
		}
		sleep(ctx, time.Duration(in.seconds)*time.Second)
		if err := in.end(t.Context()); err != nil {
			t.Fatalf("end of %s: %v", in.kind, err)
		}
		rec.fault(promises.Fault{Kind: in.kind, Begin: began, End: rec.now()})
		t.Logf("%8.3f s  %s, until %.3f s", began.Seconds(), in.kind, rec.now().Seconds())
	}
}

// whole tells whether all of Sluice's processes run, are ready and led.
func whole(ctx context.Context) bool {
	for _, selector := range []string{kit.ControllerSelector, kit.GatewaySelector} {
		pods, err := cluster.Pods(ctx, kit.Namespace, selector)
		if err != nil || len(pods) < 2 {
			return false
		}
		for _, p := range pods {
			for _, c := range p.Status.ContainerStatuses {
				if !c.Ready {
					return false
				}
			}
		}
	}
	pid, _ := leader(ctx)
	return pid != 0
}
