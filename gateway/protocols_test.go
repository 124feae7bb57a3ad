package gateway_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/sluice-autoscaler/sluice/wire"
)

func grpcClient(t *testing.T, url string, opts ...grpc.DialOption) healthpb.HealthClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(url, "http://"), append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return healthpb.NewHealthClient(conn)
}

func TestGRPC(t *testing.T) {
	type outcome struct {
		status healthpb.HealthCheckResponse_ServingStatus
		err    error
	}
	check := func(ctx context.Context, c healthpb.HealthClient) outcome {
		r, err := c.Check(ctx, &healthpb.HealthCheckRequest{Service: "shop"})
		return outcome{r.GetStatus(), err}
	}

	t.Run("held and released to a server of HTTP/2 only", func(t *testing.T) {
		b := start(t, nil)
		url := b.assign(assignment(nil))
		c := grpcClient(t, url)
		wait := async(func() outcome { return check(t.Context(), c) })
		b.untilWaiting(1)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv, h := grpc.NewServer(), health.NewServer()
		h.SetServingStatus("shop", healthpb.HealthCheckResponse_NOT_SERVING)
		healthpb.RegisterHealthServer(srv, h)
		go func() { _ = srv.Serve(l) }()
		defer srv.Stop()
		b.source.set(web, starting(l.Addr().String()))
		if o := wait(); o.err != nil || o.status != healthpb.HealthCheckResponse_NOT_SERVING {
			t.Errorf("Check() = %v, %v, want the server's NOT_SERVING", o.status, o.err)
		}
		// A status in the trailers comes through as well.
		if _, err := c.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "unknown"}); status.Code(err) != codes.NotFound {
			t.Errorf("Check(unknown) = %v, want NotFound", err)
		}
	})
	t.Run("expired", func(t *testing.T) {
		b := start(t, nil)
		c := grpcClient(t, b.assign(assignment(func(a *wire.Assignment) { a.HoldSeconds = 0.02 })))
		if o := check(t.Context(), c); status.Code(o.err) != codes.DeadlineExceeded || !strings.Contains(o.err.Error(), "20ms") {
			t.Errorf("Check() = %v, want DeadlineExceeded by the gateway", o.err)
		}
	})
	t.Run("cannot start", func(t *testing.T) {
		b := start(t, nil)
		c := grpcClient(t, b.assign(assignment(func(a *wire.Assignment) { a.Failure = "quota 100% used" })))
		if o := check(t.Context(), c); status.Code(o.err) != codes.Unavailable || !strings.Contains(o.err.Error(), "quota 100% used") {
			t.Errorf("Check() = %v, want Unavailable with the cause", o.err)
		}
	})
	t.Run("health check at zero", func(t *testing.T) {
		b := start(t, nil)
		c := grpcClient(t, b.assign(assignment(nil)), grpc.WithUserAgent("kube-probe/1.37"))
		if o := check(t.Context(), c); o.err != nil || o.status != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("Check() = %v, %v, want SERVING by the gateway", o.status, o.err)
		}
	})
	t.Run("client leaves", func(t *testing.T) {
		b := start(t, nil)
		c := grpcClient(t, b.assign(assignment(nil)))
		ctx, cancel := context.WithCancel(t.Context())
		wait := async(func() outcome { return check(ctx, c) })
		b.untilWaiting(1)
		cancel()
		wait()
		if p := b.untilWaiting(0); p.Canceled != 1 {
			t.Errorf("report = %+v, want 1 canceled", p)
		}
	})
}

func TestUpgradeHeld(t *testing.T) {
	b := start(t, nil)
	url := b.assign(assignment(nil))
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	b.untilWaiting(1)
	p := newPod(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" {
			http.Error(w, "no upgrade", http.StatusBadRequest)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.Close() }()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(c, rw)
	})
	b.source.set(web, starting(p.address()))
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade = %v, %v, want 101", res, err)
	}
	_ = res.Body.Close()
	if _, err := io.WriteString(conn, "echo\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := r.ReadString('\n'); line != "echo\n" || err != nil {
		t.Errorf("echo = %q, %v", line, err)
	}
	if f := b.gw.Report().Ports[0].Forwarding; f != 1 {
		t.Errorf("forwarding = %d while the connection is open, want 1", f)
	}
	_ = conn.Close()
	b.until("the place free", func(r wire.Report) bool { return r.Ports[0].Forwarding == 0 })
}

// echo serves TCP: it answers what it got when the client has ended its direction.
func echo(t *testing.T) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(c)
			_, _ = c.Write(b)
			_ = c.Close()
		}
	}()
	return l
}

func TestTCP(t *testing.T) {
	tcp := func(a *wire.Assignment) { a.Protocol = "tcp" }
	dial := func(t *testing.T, url string) *net.TCPConn {
		c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c.(*net.TCPConn)
	}
	// More than is read while the connection is held.
	payload := strings.Repeat("0123456789abcdef", 4<<10)

	t.Run("held and forwarded", func(t *testing.T) {
		b := start(t, nil)
		c := dial(t, b.assign(assignment(tcp)))
		b.untilWaiting(1) // on accept: a server may be the one to speak first
		sent := async(func() error {
			_, err := io.WriteString(c, payload)
			_ = c.CloseWrite()
			return err
		})
		b.source.set(web, starting(echo(t).Addr().String()))
		got, err := io.ReadAll(c)
		if err := sent(); err != nil {
			t.Fatal(err)
		}
		if string(got) != payload || err != nil {
			t.Errorf("echo of %d bytes, %v, want the %d sent", len(got), err, len(payload))
		}
	})
	t.Run("half closed while held", func(t *testing.T) {
		b := start(t, nil)
		c := dial(t, b.assign(assignment(tcp)))
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Fatal(err)
		}
		_ = c.CloseWrite()
		b.untilWaiting(1)
		b.source.set(web, starting(echo(t).Addr().String()))
		if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
			t.Errorf("echo = %q, %v, want hello", got, err)
		}
	})
	t.Run("client leaves", func(t *testing.T) {
		b := start(t, nil)
		c := dial(t, b.assign(assignment(tcp)))
		b.untilWaiting(1)
		_ = c.Close()
		if p := b.untilWaiting(0); p.Canceled != 1 {
			t.Errorf("report = %+v, want 1 canceled", p)
		}
	})
	t.Run("full", func(t *testing.T) {
		b := start(t, nil)
		url := b.assign(assignment(func(a *wire.Assignment) { a.Protocol, a.MaxHeld = "tcp", 1 }))
		dial(t, url)
		b.untilWaiting(1)
		c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			return // cut so soon that the dial noticed
		}
		defer func() { _ = c.Close() }()
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("second connection got an answer, want it cut")
		}
	})
}
