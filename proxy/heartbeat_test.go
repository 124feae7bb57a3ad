package proxy_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-autoscaler/sluice/internal/serve"
	"github.com/sluice-autoscaler/sluice/proxy"
	"github.com/sluice-autoscaler/sluice/proxy/request"
)

// TestHeartbeat has the loop that looks after connections hang, and expects that it shows.
func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const period = 10 * time.Second
		start := time.Now()
		released := make(chan struct{})
		s := &proxy.Server{
			App: "127.0.0.1:8080", Heartbeat: serve.NewHeartbeat("connections", period, start),
			Rules: &request.Rules{Now: func() time.Duration {
				now := time.Since(start)
				if now > time.Minute {
					<-released
				}
				return now
			}},
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.Look(ctx)
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := s.Heartbeat.Alive(time.Now()); err != nil {
			t.Errorf("the loop turns, and Alive = %v", err)
		}
		time.Sleep(2*period + time.Second)
		if err := s.Heartbeat.Alive(time.Now()); err == nil {
			t.Error("the loop hangs, and Alive = nil")
		}
		close(released)
		stop()
		<-ended
	})
}
