package sidecar_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/sluice-autoscaler/sluice/sidecar"
	"github.com/sluice-autoscaler/sluice/wire"
)

// TestGRPCReadiness follows the app's gRPC health on both ports.
func TestGRPCReadiness(t *testing.T) {
	service := health.NewServer()
	service.SetServingStatus("shop.Cart", healthpb.HealthCheckResponse_NOT_SERVING)
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, service)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Errorf("app: %v", err)
		}
	}()
	r := start(t, l.Addr().String(), func(c *sidecar.Config) { c.AppReadyGRPC, c.AppReadyGRPCService = true, "shop.Cart" })
	paths := []string{"metrics:/readyz", "/.well-known/sluice/ready"}
	is := func(code int, text string) {
		t.Helper()
		for _, path := range paths {
			eventually(t, func() error { // a good answer is believed for a moment
				if resp, body := r.get(path); resp.StatusCode != code || !strings.Contains(body, text) && path == paths[0] {
					return fmt.Errorf("%s = %d %q, want %d %q", path, resp.StatusCode, body, code, text)
				}
				return nil
			})
		}
	}
	is(http.StatusServiceUnavailable, `app: gRPC health of service "shop.Cart": it is NOT_SERVING`)
	service.SetServingStatus("shop.Cart", healthpb.HealthCheckResponse_SERVING)
	is(http.StatusOK, "")
	service.Shutdown()
	is(http.StatusServiceUnavailable, "NOT_SERVING")
	if got := r.metric(wire.ConcurrencySeconds); got != 0 {
		t.Errorf("%v request-seconds of probes were counted", got)
	}
}
