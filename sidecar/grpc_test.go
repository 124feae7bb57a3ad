package sidecar_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

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

// caller returns a gRPC client of the sidecar.
func (r *running) caller(t *testing.T) healthpb.HealthClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+r.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return healthpb.NewHealthClient(conn)
}

// TestGRPCRefusals has the sidecar answer gRPC callers in the app's place: by a status that they
// understand, with its text and reason, counted as what it is.
func TestGRPCRefusals(t *testing.T) {
	hold := func(t *testing.T) string {
		return serveApp(t, func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() })
	}
	cases := []struct {
		name   string
		app    func(*testing.T) string
		edit   func(*sidecar.Config)
		busy   int // calls that run before
		code   codes.Code
		text   string
		reason string
	}{
		{name: "no app", app: closedPort, code: codes.Unavailable, text: "the app accepts no connection", reason: "app-unreachable"},
		{name: "a broken app", app: func(t *testing.T) string {
			return rawApp(t, func(c net.Conn) {
				_, _ = bufio.NewReader(c).Peek(1)
				_, _ = io.WriteString(c, "this is no HTTP/2, and nothing else\r\n")
			})
		}, code: codes.Unavailable, text: "the app closed the connection or broke the protocol", reason: "app-error"},
		{
			name: "a full queue", app: hold, edit: func(c *sidecar.Config) { c.ConcurrencyLimit, c.QueueLimit = 1, 0 }, busy: 1,
			code: codes.Unavailable, text: "too many requests are waiting for the app", reason: "queue-full",
		},
		{
			name: "a long queue", app: hold, edit: func(c *sidecar.Config) { c.ConcurrencyLimit, c.QueueTimeout = 1, time.Millisecond }, busy: 1,
			code: codes.Unavailable, text: "the app was busy for too long", reason: "queue-timeout",
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, c.app(t), c.edit)
			client := r.caller(t)
			for range c.busy {
				if _, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
					t.Fatal(err)
				}
			}
			r.wait(float64(c.busy), wire.InFlight)
			var header, trailer metadata.MD
			_, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.Header(&header), grpc.Trailer(&trailer))
			got := status.Convert(err)
			if got.Code() != c.code || got.Message() != c.text {
				t.Errorf("Check = %v, want %v %q", err, c.code, c.text)
			}
			if reasons := metadata.Join(header, trailer).Get("sluice-reason"); len(reasons) != 1 || reasons[0] != c.reason {
				t.Errorf("reasons %q, want %q", reasons, c.reason)
			}
			r.wait(1, "sluice_sidecar_refused_requests_total", "reason", c.reason)
			r.wait(1, wire.Requests, "code", "5xx")
		})
	}
}
