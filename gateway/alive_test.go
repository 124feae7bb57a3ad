package gateway_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-autoscaler/sluice/gateway"
)

func TestAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := gateway.Default()
		cfg.Name, cfg.LameDuck = "gw", time.Hour
		gw := gateway.New(cfg, newFakeSource(), slog.New(slog.DiscardHandler))
		if err := gw.Alive(); err != nil {
			t.Errorf("new: Alive = %v, want nil", err)
		}
		time.Sleep(time.Minute)
		if err := gw.Alive(); err == nil {
			t.Error("a minute without a loop: Alive = nil, want an error")
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- gw.Run(ctx) }()
		time.Sleep(time.Hour)
		if err := gw.Alive(); err != nil {
			t.Errorf("after an hour: Alive = %v, want nil", err)
		}
		stop()
		time.Sleep(time.Hour / 2)
		if err := gw.Alive(); err != nil {
			t.Errorf("in the lame duck: Alive = %v, want nil", err)
		}
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
}
