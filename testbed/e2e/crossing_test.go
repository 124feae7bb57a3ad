//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// TestZeroCrossing takes five workloads through ten cycles 0 → 1 → 0 each. In each cycle requests
// arrive while it sleeps, while it wakes, when it is awake, and at a moment of the way to sleep
// that differs from cycle to cycle: idle, with the gateway just in the path, with the last pod just
// told to go. Every one must be answered 200.
func TestZeroCrossing(t *testing.T) {
	t.Parallel()
	const workloads, cycles = 5, 10
	var sent atomic.Int64
	var all sync.WaitGroup
	for i := range workloads {
		ns := fmt.Sprintf("crossing-%d", i)
		url := web(t, ns)
		apply(t, ns, "autoscaler.yaml",
			"name: kpa\n    parameters: {stableWindow: 12s, panicWindowPercentage: 25}", "name: target\n    parameters: {window: 1s, stabilizationWindow: 0s}",
			"after: 12s", "after: 1s")
		all.Go(func() {
			if err := cross(t.Context(), ns, url, cycles, rand.New(rand.NewPCG(uint64(i), 1)), &sent); err != nil {
				t.Errorf("%s: %v", ns, err)
			}
		})
	}
	all.Wait()
	t.Logf("%d requests over %d cycles, all answered 200", sent.Load(), workloads*cycles)
}

// cross runs the cycles of one workload.
func cross(ctx context.Context, ns, url string, cycles int, rng *rand.Rand, sent *atomic.Int64) error {
	once, keep := fresh(), &http.Client{Transport: &http.Transport{}}
	defer keep.CloseIdleConnections()
	ask := func(phase string, c *http.Client, query string) error {
		sent.Add(1)
		if err := get(ctx, c, url+query); err != nil {
			return fmt.Errorf("request while %s: %w", phase, err)
		}
		return nil
	}
	for cycle := range cycles {
		phase := []string{"draining", "asleep", "going to sleep"}[cycle%3]
		if phase == "going to sleep" {
			if err := phaseIs(ctx, ns, "GoingToSleep", "Asleep"); err != nil {
				return fmt.Errorf("cycle %d: %w", cycle, err)
			}
			if err := ask(phase, once, "/?ms=50"); err != nil {
				return fmt.Errorf("cycle %d: %w", cycle, err)
			}
		}
		want := func(spec, ready int32) bool { return spec == 0 }
		if phase == "asleep" {
			want = func(spec, ready int32) bool { return spec == 0 && ready == 0 }
		}
		if err := cluster.WaitReplicas(ctx, 60*time.Second, ns, "web", "no replicas", want); err != nil {
			return fmt.Errorf("cycle %d: %w", cycle, err)
		}
		var g errgroup.Group
		for i := range 4 { // the first wakes it, the others come while it wakes
			client, pause := once, time.Duration(i)*time.Duration(rng.IntN(150))*time.Millisecond
			if i%2 == 1 {
				client = keep
			}
			g.Go(func() error {
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
				return ask(phase+" or waking", client, "/?ms=100")
			})
		}
		if err := g.Wait(); err != nil {
			return fmt.Errorf("cycle %d: %w", cycle, err)
		}
		for range 3 {
			if err := ask("awake", keep, "/"); err != nil {
				return fmt.Errorf("cycle %d: %w", cycle, err)
			}
		}
	}
	return nil
}

// phaseIs waits until the Autoscaler is in one of the phases.
func phaseIs(ctx context.Context, ns string, phases ...string) error {
	deadline := time.Now().Add(60 * time.Second)
	for {
		as, err := cluster.Autoscaler(ctx, ns, "web")
		if err != nil {
			return err
		}
		if slices.Contains(phases, as.Status.Phase) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("phase is %s, want one of %v", as.Status.Phase, phases)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
