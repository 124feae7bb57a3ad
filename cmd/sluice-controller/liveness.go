package main

import (
	"context"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/sluice-autoscaler/sluice/internal/serve"
)

// roundsPeriod is the time between two probes of the scaler's rounds. A probe waits in the same
// queue for the same workers as every round, so it tells a hang from having nothing to do. Shorter
// notices a hang sooner; a queue that is longer than two periods at times would be taken for one.
const roundsPeriod = 10 * time.Second

// probeKey is the key of probes; no Autoscaler has an empty name.
var probeKey = types.NamespacedName{} //nolint:gochecknoglobals // a constant

// rounds is the scaler's rounds with probes among them. Its methods are safe for concurrent use.
type rounds struct {
	reconcile.Reconciler
	beat  *serve.Heartbeat
	clock func() time.Time
	// begun is set by the first probe that a worker took.
	begun atomic.Bool
}

func newRounds(r reconcile.Reconciler, clock func() time.Time) *rounds {
	return &rounds{Reconciler: r, clock: clock, beat: serve.NewHeartbeat("rounds", roundsPeriod, clock())}
}

// Reconcile takes a probe for a beat, and does a round of anything else.
func (r *rounds) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if req.NamespacedName == probeKey {
		r.begun.Store(true)
		r.beat.Beat(r.clock())
		return ctrl.Result{}, nil
	}
	return r.Reconciler.Reconcile(ctx, req)
}

// watch sends a probe each period until ctx ends. Before a worker took the first probe, watch beats
// by itself: waiting for the first lists is no hang, however long the API server takes to come.
func (r *rounds) watch(ctx context.Context, poke func(types.NamespacedName)) error {
	tick := time.NewTicker(roundsPeriod)
	defer tick.Stop()
	for {
		if !r.begun.Load() {
			r.beat.Beat(r.clock())
		}
		poke(probeKey)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
