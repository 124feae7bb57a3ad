package store_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/internal/serve"
)

// The store's loop turns though nothing ever comes: that an API server is away is no fault of this
// process.
func TestHeartbeatWithoutPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		beat := serve.NewHeartbeat("adapter", store.SweepPeriod, time.Now())
		s := store.New(store.Options{Interval: time.Second})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx, beat.Beat) }()
		time.Sleep(time.Hour)
		if err := beat.Alive(time.Now()); err != nil {
			t.Errorf("after an hour: %v, want nil", err)
		}
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
}
