package appcheck_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-autoscaler/sluice/sidecar/appcheck"
)

// serveGRPC runs the real gRPC server, which register completes, on a network and returns its
// address.
func serveGRPC(t *testing.T, network string, register func(*grpc.Server), opts ...grpc.ServerOption) string {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "app.sock")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(opts...)
	register(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Errorf("app: %v", err)
		}
	})
	return l.Addr().String()
}

func TestGRPC(t *testing.T) {
	service := health.NewServer()
	service.SetServingStatus("shop.Cart", healthpb.HealthCheckResponse_SERVING)
	service.SetServingStatus("shop.Pay", healthpb.HealthCheckResponse_NOT_SERVING)
	service.SetServingStatus("shop.New", healthpb.HealthCheckResponse_UNKNOWN)
	service.SetServingStatus("größe/ä", healthpb.HealthCheckResponse_SERVING)
	for _, network := range []string{"tcp", "unix"} {
		app := serveGRPC(t, network, func(s *grpc.Server) { healthpb.RegisterHealthServer(s, service) })
		for name, want := range map[string]string{
			"":          "",
			"shop.Cart": "",
			"größe/ä":   "",
			"shop.Pay":  `gRPC health of service "shop.Pay": it is NOT_SERVING, want SERVING`,
			"shop.New":  `gRPC health of service "shop.New": it is UNKNOWN, want SERVING`,
			"nobody":    `gRPC health of service "nobody": NOT_FOUND: the app's health service does not know it; set its status in the app, or change --app-ready-grpc-service`,
		} {
			t.Run(network+"/"+name, func(t *testing.T) {
				err := appcheck.GRPC(network, app, name, time.Minute).Check(t.Context())
				if got := text(err); got != want {
					t.Errorf("Check = %q, want %q", got, want)
				}
			})
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestGRPCFollowsTheApp asks the same Checker while the app's status changes. A good answer is
// believed for a while, so the way down is waited for.
func TestGRPCFollowsTheApp(t *testing.T) {
	service := health.NewServer()
	service.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	app := serveGRPC(t, "tcp", func(s *grpc.Server) { healthpb.RegisterHealthServer(s, service) })
	c := appcheck.GRPC("tcp", app, "", time.Minute)
	if err := c.Check(t.Context()); err == nil {
		t.Error("Check = nil while NOT_SERVING")
	}
	service.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	if err := c.Check(t.Context()); err != nil {
		t.Errorf("Check = %v while SERVING", err)
	}
	service.Shutdown()
	deadline := time.Now().Add(20 * time.Second)
	for c.Check(t.Context()) == nil {
		if time.Now().After(deadline) {
			t.Fatal("Check = nil long after the app's shutdown")
		}
	}
}

func TestGRPCWithoutHealth(t *testing.T) {
	app := serveGRPC(t, "tcp", func(*grpc.Server) {})
	err := appcheck.GRPC("tcp", app, "", time.Minute).Check(t.Context())
	if got, want := text(err), "UNIMPLEMENTED: the app has no grpc.health.v1.Health; register it in the app, or use --app-ready-path"; !strings.Contains(got, want) {
		t.Errorf("Check = %q, want %q", got, want)
	}
}

// TestGRPCStatus has the app answer with an error of its own, whose text holds what a header
// cannot.
func TestGRPCStatus(t *testing.T) {
	app := serveGRPC(t, "tcp", func(s *grpc.Server) { healthpb.RegisterHealthServer(s, health.NewServer()) },
		grpc.UnaryInterceptor(func(_ context.Context, _ any, info *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
			if info.FullMethod != "/grpc.health.v1.Health/Check" {
				t.Errorf("asked for %s", info.FullMethod)
			}
			return nil, status.Error(codes.Unavailable, "wärmt auf: 50 %\n")
		}))
	err := appcheck.GRPC("tcp", app, "", time.Minute).Check(t.Context())
	if got, want := text(err), "gRPC health of service \"\": grpc-status 14: wärmt auf: 50 %\n"; got != want {
		t.Errorf("Check = %q, want %q", got, want)
	}
}

// TestGRPCTimeout has an app that never answers. It learns by when.
func TestGRPCTimeout(t *testing.T) {
	deadline := make(chan bool, 1)
	app := serveGRPC(t, "tcp", func(s *grpc.Server) { healthpb.RegisterHealthServer(s, health.NewServer()) },
		grpc.UnaryInterceptor(func(ctx context.Context, _ any, _ *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
			_, ok := ctx.Deadline()
			deadline <- ok
			<-ctx.Done()
			return nil, ctx.Err()
		}))
	if err := appcheck.GRPC("tcp", app, "", 50*time.Millisecond).Check(t.Context()); !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(text(err), "grpc-status 4") {
		t.Errorf("Check = %v, want %v", err, context.DeadlineExceeded)
	}
	if !<-deadline {
		t.Error("the app was not told the deadline")
	}
}

// TestGRPCOfOthers asks what speaks no gRPC, or speaks it badly.
func TestGRPCOfOthers(t *testing.T) {
	answer := func(status string, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc+proto")
			w.Header().Set("Trailer", "Grpc-Status")
			_, _ = io.WriteString(w, body)
			if status != "" {
				w.Header().Set("Grpc-Status", status)
			}
		}
	}
	const good = "\x00\x00\x00\x00\x02\x08\x01"
	cases := []struct {
		name string
		h2c  bool
		app  http.HandlerFunc
		want string // "" for nil
	}{
		{"good", true, answer("0", good), ""},
		{"unknown fields before and behind", true, answer("0", "\x00\x00\x00\x00\x09\x12\x01x\x08\x01\x18\x05\x22\x00"), ""},
		{"HTTP/1.1 only", false, answer("0", good), "want gRPC over HTTP/2 without TLS on this port"},
		{"a website", true, http.NotFound, "answered 404 with content type"},
		{"another type", true, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, good) }, `answered 200 with content type "application/octet-stream"`},
		{"no status", true, answer("", good), "without a grpc-status"},
		{"no message", true, answer("0", ""), "unexpected EOF"},
		{"an empty message is UNKNOWN", true, answer("0", "\x00\x00\x00\x00\x00"), "it is UNKNOWN, want SERVING"},
		{"a status to come", true, answer("0", "\x00\x00\x00\x00\x02\x08\x07"), "it is 7, want SERVING"},
		{"a compressed message", true, answer("0", "\x01\x00\x00\x00\x02\x08\x01"), "compressed"},
		{"a cut message", true, answer("0", "\x00\x00\x00\x00\x09\x08\x01"), "a message of 9 bytes in 2"},
		{"a field that is none", true, answer("0", "\x00\x00\x00\x00\x01\x08"), "read the answer"},
		{"a hang-up", true, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "stream error"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			app := httptest.NewUnstartedServer(c.app)
			app.Config.Protocols = new(http.Protocols)
			app.Config.Protocols.SetHTTP1(true)
			app.Config.Protocols.SetUnencryptedHTTP2(c.h2c)
			app.Start()
			defer app.Close()
			err := appcheck.GRPC("tcp", app.Listener.Addr().String(), "", time.Minute).Check(t.Context())
			if got := text(err); (c.want == "") != (err == nil) || !strings.Contains(got, c.want) {
				t.Errorf("Check = %q, want %q", got, c.want)
			}
		})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := appcheck.GRPC("tcp", l.Addr().String(), "", time.Minute).Check(t.Context()); !strings.Contains(text(err), "connection refused") {
		t.Errorf("Check of a closed port = %v", err)
	}
}

// FuzzHealthAnswer compares the decoder with protobuf's own: what both take, they read alike.
func FuzzHealthAnswer(f *testing.F) {
	for _, s := range []string{"", "\x08\x01", "\x08\x02", "\x12\x01x\x08\x01", "\x08\x01\x08\x02", "\x0a\x01\x01", "\x08\x80\x80\x80\x80\x10", "\x0b\x0c"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, m []byte) {
		p := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))) //nolint:gosec // short
		got, err := appcheck.ReadStatus(append(p, m...))
		var want healthpb.HealthCheckResponse
		if wantErr := proto.Unmarshal(m, &want); (err == nil) != (wantErr == nil) {
			t.Fatalf("%x: %v, protobuf says %v", m, err, wantErr)
		} else if err == nil && int32(got) != int32(want.GetStatus()) { //nolint:gosec // enums are cut to 32 bits
			t.Fatalf("%x: status %d, protobuf says %d", m, got, want.GetStatus())
		}
	})
}
