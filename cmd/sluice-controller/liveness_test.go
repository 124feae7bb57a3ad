package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// workers is a queue with one worker that does rounds until ctx ends.
func workers(ctx context.Context, r *rounds) (poke func(types.NamespacedName)) {
	queue := make(chan types.NamespacedName, 100)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case key := <-queue:
				_, _ = r.Reconcile(ctx, ctrl.Request{NamespacedName: key})
			}
		}
	}()
	return func(key types.NamespacedName) { queue <- key }
}

func TestRoundsAlive(t *testing.T) {
	web := types.NamespacedName{Namespace: "shop", Name: "web"}
	cases := []struct {
		name string
		// listed says that the first lists are over, so that workers take keys.
		listed bool
		hang   bool
		alive  bool
	}{
		{name: "nothing to do", listed: true, alive: true},
		{name: "waiting for the API server", alive: true},
		{name: "a round hangs", listed: true, hang: true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				var seen []types.NamespacedName
				r := newRounds(reconcile.Func(func(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
					seen = append(seen, req.NamespacedName)
					<-ctx.Done()
					return ctrl.Result{}, nil
				}), time.Now)
				poke := func(types.NamespacedName) {}
				if c.listed {
					poke = workers(ctx, r)
				}
				done := make(chan error, 1)
				go func() { done <- r.watch(ctx, poke) }()
				time.Sleep(time.Hour)
				if err := r.beat.Alive(time.Now()); err != nil {
					t.Fatalf("alive after an hour = %v, want nil", err)
				}
				if c.hang {
					poke(web)
				}
				time.Sleep(3 * roundsPeriod)
				if err := r.beat.Alive(time.Now()); (err == nil) != c.alive {
					t.Errorf("alive = %v, want nil: %v", err, c.alive)
				}
				synctest.Wait()
				if want := c.hang; (len(seen) == 1) != want {
					t.Errorf("rounds of %v, want one of %v: %v", seen, web, want)
				}
				stop()
				if err := <-done; err != nil {
					t.Errorf("watch = %v, want nil", err)
				}
			})
		})
	}
}
