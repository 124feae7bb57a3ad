package collect_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/sluice-autoscaler/sluice/adapter/collect"
	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/internal/serve"
)

// The collector's loop turns though no list of pods ever comes: that is the API server's fault.
func TestHeartbeatWithoutPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		beat := serve.NewHeartbeat("adapter", collect.HeartbeatPeriod, time.Now())
		c, err := collect.New(collect.Options{
			Pods:  informers.NewSharedInformerFactory(fake.NewClientset(), 0).Core().V1().Pods().Informer(), // never started
			Store: store.New(store.Options{Interval: time.Second}), Log: slog.New(slog.DiscardHandler),
			Registerer: prometheus.NewRegistry(), Interval: time.Second, Heartbeat: beat,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
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
