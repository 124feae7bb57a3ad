package gateway_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
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
		for range 200 { // a server says it in its headers alone, which a flush must not tear
			if _, err := c.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "unknown"}); status.Code(err) != codes.NotFound {
				t.Fatalf("Check(unknown) = %v, want NotFound", err)
			}
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

// A pod that does not say ready yet is used as soon as what answers there is an app.
func TestProbe(t *testing.T) {
	tests := map[string]struct {
		answer func(w http.ResponseWriter, ready bool)
		first  bool // is used although ready is false
	}{
		"sidecar whose app is not up": {answer: func(w http.ResponseWriter, ready bool) {
			if !ready {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}},
		"app without the path": {answer: func(w http.ResponseWriter, _ bool) { w.WriteHeader(http.StatusNotFound) }, first: true},
		"proxy that hangs up": {answer: func(w http.ResponseWriter, ready bool) {
			if !ready {
				panic(http.ErrAbortHandler)
			}
		}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			b := start(t, nil)
			url := b.assign(assignment(nil))
			var ready atomic.Bool
			probes := make(chan string, 1000)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/.well-known/sluice/ready" {
					probes <- r.UserAgent()
					tc.answer(w, ready.Load())
				}
			}))
			defer srv.Close()
			b.source.set(web, starting(srv.Listener.Addr().String()))
			c := client(t)
			wait := async(func() reply { return get(t.Context(), c, url) })
			if agent := <-probes; !strings.HasPrefix(agent, "sluice-probe") {
				t.Errorf("probe's User-Agent = %q", agent)
			}
			if !tc.first {
				for range 3 { // it goes on, and is not content
					<-probes
				}
				if r := b.gw.Report().Ports[0]; r.Waiting != 1 || r.ReadyPods != 0 {
					t.Errorf("report = %+v, want 1 waiting and no pod", r)
				}
				ready.Store(true)
			}
			if r := wait(); r.code != 200 {
				t.Errorf("answer = %+v, want 200", r)
			}
		})
	}
}

// What a request carries reaches the pod unchanged, and the answer the client.
func TestPassesOn(t *testing.T) {
	b := start(t, nil)
	url := b.assign(assignment(nil))
	p := newPod(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Host", r.Host)
		w.Header().Set("X-Uri", r.RequestURI)
		w.Header().Set("X-For", r.Header.Get("X-Forwarded-For"))
		w.Header().Set("X-Proto", r.Header.Get("X-Forwarded-Proto"))
		w.Header().Set("X-Trailer", r.Trailer.Get("Sum"))
		w.Header().Set("Trailer", "Late")
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write(body)
		w.Header().Set("Late", "yes")
	})
	b.source.set(web, up(p.address()))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"//a%2Fb/;x?q=1;2&%zz", io.MultiReader(strings.NewReader("streamed")))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "shop.example"
	req.Header.Set("X-Forwarded-For", "192.0.2.1")
	req.Header.Set("X-Forwarded-Proto", "https")
	req.Trailer = http.Header{"Sum": {"42"}}
	res, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{"body": string(body), "late": res.Trailer.Get("Late")}
	for _, k := range []string{"X-Host", "X-Uri", "X-For", "X-Proto", "X-Trailer"} {
		got[k] = res.Header.Get(k)
	}
	want := map[string]string{
		"body": "streamed", "late": "yes", "X-Host": "shop.example", "X-Uri": "//a%2Fb/;x?q=1;2&%zz",
		"X-For": "192.0.2.1, 127.0.0.1", "X-Proto": "https", "X-Trailer": "42",
	}
	if diff := cmp.Diff(want, got); diff != "" || res.StatusCode != http.StatusTeapot {
		t.Errorf("status %d (-want +got):\n%s", res.StatusCode, diff)
	}
}

// A pod that breaks off after it may have seen the request is not asked again, nor is another.
func TestNothingElseIsRetried(t *testing.T) {
	b := start(t, nil)
	url := b.assign(assignment(nil))
	p := newPod(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	b.source.set(web, up(p.address()))
	res, err := client(t).Post(url, "text/plain", strings.NewReader("once"))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusBadGateway || p.served.Load() != 1 {
		t.Errorf("status %d after %d attempts, want 502 after 1", res.StatusCode, p.served.Load())
	}
}

func TestRemovedPortAnswersHeldGRPC(t *testing.T) {
	b := start(t, nil)
	c := grpcClient(t, b.assign(assignment(nil)))
	wait := async(func() error {
		_, err := c.Check(t.Context(), &healthpb.HealthCheckRequest{})
		return err
	})
	b.untilWaiting(1)
	b.assign()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	healthpb.RegisterHealthServer(srv, health.NewServer())
	go func() { _ = srv.Serve(l) }()
	defer srv.Stop()
	b.source.set(web, starting(l.Addr().String()))
	if err := wait(); err != nil {
		t.Errorf("Check() = %v, want the server's answer", err)
	}
	b.until("the port gone", func(r wire.Report) bool { return len(r.Ports) == 0 })
}
