package proxy_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
)

// TestConnectionsOfTheAppAge has an app that ends its connections all the time, by GOAWAY in two steps; no call fails.
func TestConnectionsOfTheAppAge(t *testing.T) {
	server := grpc.NewServer(grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 20 * time.Millisecond, MaxConnectionAgeGrace: patience}))
	healthpb.RegisterHealthServer(server, health.NewServer())
	l := listen(t)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Errorf("app: %v", err)
		}
	})
	p := proxyTo(t, l.Addr().String(), func(s *settings) { s.limit, s.queue = 3, 10 })
	end := time.Now().Add(time.Second)
	var calls atomic.Int64
	var wg sync.WaitGroup
	for range 3 {
		conn, err := grpc.NewClient("passthrough:///"+p.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		client := healthpb.NewHealthClient(conn)
		for range 2 {
			wg.Go(func() {
				for time.Now().Before(end) {
					if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
						t.Errorf("after %d calls: %v", calls.Load(), err)
						return
					}
					calls.Add(1)
				}
			})
		}
	}
	wg.Wait()
	if calls.Load() < 100 {
		t.Errorf("%d calls only", calls.Load())
	}
}
