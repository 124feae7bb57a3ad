package sidecar_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/sidecar"
	"github.com/sluice-autoscaler/sluice/wire"
)

// long is a lame duck that a test ends by no wait of its own: it only has to outlast what the test
// does meanwhile.
const long = 2 * time.Second

func TestDrainOnRequest(t *testing.T) {
	release := make(chan struct{})
	app := serveApp(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/hold" {
			<-release
		}
		_, _ = io.WriteString(w, "ok")
	})
	r := start(t, app, func(c *sidecar.Config) { c.LameDuck = long })

	// Three connections: two idle, one with a request running.
	ask := func(c net.Conn, path string) {
		t.Helper()
		if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	idle, idleIn := r.dial()
	silent, silentIn := r.dial()
	busy, busyIn := r.dial()
	for conn, in := range map[net.Conn]*bufio.Reader{idle: idleIn, silent: silentIn} {
		ask(conn, "/")
		expectAnswer(t, in, false)
	}
	ask(busy, "/hold")
	r.wait(1, wire.InFlight)

	drained := make(chan string, 2)
	for range 2 { // asked twice, it happens once
		go func() {
			resp, err := http.Get("http://" + r.metrics + "/drain")
			if err != nil {
				drained <- err.Error()
				return
			}
			defer func() { _ = resp.Body.Close() }()
			b, _ := io.ReadAll(resp.Body)
			drained <- string(b)
		}()
	}
	r.wait(1, "sluice_sidecar_draining")
	began := time.Now()
	for _, path := range []string{"metrics:/readyz", "/.well-known/sluice/ready"} {
		if resp, _ := r.get(path); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s while draining = %d, want 503", path, resp.StatusCode)
		}
	}
	// An idle connection was not cut: its next request is answered, and is its last. So are new
	// connections.
	ask(idle, "/")
	expectAnswer(t, idleIn, true)
	expectEnd(t, idleIn)
	fresh, freshIn := r.dial()
	ask(fresh, "/")
	expectAnswer(t, freshIn, true)

	// The silent one is closed when the lame duck is over, and not before.
	expectEnd(t, silentIn)
	if took := time.Since(began); took < long/2 {
		t.Errorf("an idle connection was cut %v after the begin, the lame duck is %v", took, long)
	}
	select {
	case got := <-drained:
		t.Errorf("/drain returned %q with a request running", got)
	default:
	}
	// Late requests are served all the same.
	late, lateIn := r.dial()
	ask(late, "/")
	expectAnswer(t, lateIn, true)

	close(release)
	expectAnswer(t, busyIn, true)
	for range 2 {
		if got := <-drained; got != "drained\n" {
			t.Errorf("/drain = %q", got)
		}
	}
	// ... even when the drain is over, as long as the process lives.
	late, lateIn = r.dial()
	ask(late, "/")
	expectAnswer(t, lateIn, true)
	// SIGTERM then ends it at once: the cleanup of start expects a good end.
	r.stop()
	began = time.Now()
	err := <-r.ended
	if took := time.Since(began); err != nil || took >= long {
		t.Errorf("Run = %v, %v after its context's end; want nil without another lame duck", err, took)
	}
	r.ended <- err
}

// TestDrainIsUndone drains a sidecar that nobody tells to end. It is ready again after a while,
// keeps connections, and drains once more when it is told to end.
func TestDrainIsUndone(t *testing.T) {
	app := serveApp(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	r := start(t, app, func(c *sidecar.Config) { c.LameDuck, c.DrainUndo = 10*time.Millisecond, 300*time.Millisecond })
	for range 2 {
		if resp, body := r.get("metrics:/drain"); resp.StatusCode != http.StatusOK {
			t.Fatalf("/drain = %d %q", resp.StatusCode, body)
		}
		if resp, _ := r.get("metrics:/readyz"); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("/readyz when drained = %d, want 503", resp.StatusCode)
		}
		r.wait(0, "sluice_sidecar_draining")
		for _, path := range []string{"metrics:/readyz", "metrics:/healthz", "/.well-known/sluice/ready"} {
			if resp, body := r.get(path); resp.StatusCode != http.StatusOK {
				t.Errorf("%s when the drain was undone = %d %q, want 200", path, resp.StatusCode, body)
			}
		}
		conn, in := r.dial()
		for range 3 {
			_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			expectAnswer(t, in, false)
		}
	}
	r.stop()
	if err := <-r.ended; err != nil {
		t.Errorf("Run = %v", err)
	}
	r.ended <- nil
}

func expectAnswer(t *testing.T, in *bufio.Reader, wantClose bool) {
	t.Helper()
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || string(body) != "ok" || resp.Close != wantClose {
		t.Errorf("answer %d %q, close %v, %v; want 200 ok, close %v", resp.StatusCode, body, resp.Close, err, wantClose)
	}
}

func expectEnd(t *testing.T, in io.Reader) {
	t.Helper()
	if _, err := in.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read = %v, want EOF", err)
	}
}

func TestDrainOnStopWaits(t *testing.T) {
	release := make(chan struct{})
	app := serveApp(t, func(w http.ResponseWriter, _ *http.Request) {
		<-release
		_, _ = io.WriteString(w, "ok")
	})
	r := start(t, app, nil)
	conn, in := r.dial()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	r.wait(1, wire.InFlight)
	r.stop()
	r.wait(1, "sluice_sidecar_draining") // metrics stay up while it drains
	close(release)
	expectAnswer(t, in, true)
}

func TestDrainLimit(t *testing.T) {
	release := make(chan struct{})
	app := serveApp(t, func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	r := start(t, app, func(c *sidecar.Config) { c.Drain = 10 * time.Millisecond })
	conn, in := r.dial()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	r.wait(1, wire.InFlight)
	resp, body := r.get("metrics:/drain")
	if resp.StatusCode != http.StatusGatewayTimeout || !strings.Contains(body, "1 requests still run") {
		t.Errorf("/drain past the limit = %d %q", resp.StatusCode, body)
	}
	r.stop()
	if err := <-r.ended; err != nil {
		t.Errorf("Run = %v", err)
	}
	r.ended <- nil
	if _, err := in.ReadByte(); err == nil {
		t.Error("an answer came")
	}
}

func TestUpgradedConnectionIsDrainedThenCut(t *testing.T) {
	app := serveApp(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(conn, rw)
	})
	r := start(t, app, func(c *sidecar.Config) { c.Drain = 300 * time.Millisecond })
	conn, in := r.dial()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("answer %d", resp.StatusCode)
	}
	began := time.Now()
	r.stop()
	r.wait(1, "sluice_sidecar_draining")
	_, _ = io.WriteString(conn, "x")
	if b, err := in.ReadByte(); err != nil || b != 'x' {
		t.Errorf("while draining read %q, %v", b, err)
	}
	expectEnd(t, in)
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("cut after %v, before the limit", took)
	}
}

// TestLameDuckTooShort: connections that come until its end say that the cluster learns too slowly
// for it.
func TestLameDuckTooShort(t *testing.T) {
	for _, test := range []struct {
		name   string
		coming bool
	}{{"none come", false}, {"they come until its end", true}} {
		t.Run(test.name, func(t *testing.T) {
			app := serveApp(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
			var log lines
			r := startLogging(t, app, slog.NewTextHandler(&log, nil), func(c *sidecar.Config) { c.LameDuck = 400 * time.Millisecond })
			drained := make(chan error, 1)
			go func() {
				resp, err := r.client.Get("http://" + r.metrics + "/drain")
				if err == nil {
					err = resp.Body.Close()
				}
				drained <- err
			}()
			for {
				if test.coming {
					if nc, err := net.Dial("tcp", r.addr); err == nil {
						_ = nc.Close()
					}
				}
				select {
				case err := <-drained:
					if err != nil {
						t.Fatal(err)
					}
					if got := strings.Contains(log.String(), "--lame-duck"); got != test.coming {
						t.Errorf("the log asks for a longer lame duck: %v, want %v: %s", got, test.coming, log.String())
					}
					return
				case <-time.After(5 * time.Millisecond):
				}
			}
		})
	}
}

// lines is a log that is safe for concurrent use.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestGoAway reads the frames of an HTTP/2 connection through a drain.
func TestGoAway(t *testing.T) {
	release := make(chan struct{})
	app := serveApp(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/hold" {
			<-release
		}
		_, _ = io.WriteString(w, "ok")
	})
	r := start(t, app, func(c *sidecar.Config) { c.LameDuck = 10 * time.Millisecond })
	conns := make([]*http.ClientConn, 2)
	transport := &http.Transport{Protocols: protocols(false, true)}
	for i := range conns {
		cc, err := transport.NewClientConn(t.Context(), "http", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = cc
		t.Cleanup(func() { _ = cc.Close() })
	}
	get := func(cc *http.ClientConn, path string) string {
		resp, err := cc.RoundTrip(r.request(http.MethodGet, path, nil))
		if err != nil {
			return err.Error()
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	idle, busy := conns[0], conns[1]
	if got := get(idle, "/"); got != "ok" {
		t.Fatalf("answer %q", got)
	}
	held := make(chan string, 1)
	go func() { held <- get(busy, "/hold") }()
	r.wait(1, wire.InFlight)
	r.stop()
	// Both learn that they are to open no more streams here, and what runs ends well.
	for name, cc := range map[string]*http.ClientConn{"idle": idle, "busy": busy} {
		eventually(t, func() error {
			if cc.Available() > 0 {
				return errors.New("no GOAWAY on the " + name + " connection")
			}
			return nil
		})
	}
	close(release)
	if got := <-held; got != "ok" {
		t.Errorf("the running stream got %q", got)
	}
}

// TestNothingIsLost keeps sending, each request on a connection of its own or a kept one, while the
// sidecar drains as in a pod's shutdown: the drain is asked for, and clients learn of it a while
// later, within the lame duck.
func TestNothingIsLost(t *testing.T) {
	app := serveApp(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	r := start(t, app, func(c *sidecar.Config) { c.LameDuck = long })
	ctx, gone := context.WithCancel(t.Context()) // when clients have learned that the pod goes
	type result struct {
		sent int
		err  error
	}
	results := make(chan result)
	const clients = 4
	for i := range clients {
		go func() {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%2 == 0}}
			defer client.CloseIdleConnections()
			var res result
			for ctx.Err() == nil && res.err == nil {
				// A POST is retried by no transport.
				resp, err := client.Post("http://"+r.addr, "text/plain", strings.NewReader("x"))
				if err != nil {
					res.err = err
					break
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
					res.err = errors.Join(err, errors.New(resp.Status))
				}
				_ = resp.Body.Close()
				res.sent++
			}
			results <- res
		}()
	}
	eventually(t, func() error {
		if r.metric(wire.Requests, "code", "2xx") < 100 {
			return errors.New("no traffic")
		}
		return nil
	})
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		resp, err := http.Get("http://" + r.metrics + "/drain")
		if err != nil {
			t.Error(err)
			return
		}
		_ = resp.Body.Close()
	}()
	r.wait(1, "sluice_sidecar_draining")
	before := r.metric(wire.Requests, "code", "2xx")
	eventually(t, func() error {
		if r.metric(wire.Requests, "code", "2xx") < before+100 {
			return errors.New("no traffic while draining")
		}
		return nil
	})
	gone()
	sent := 0
	for range clients {
		res := <-results
		if res.err != nil {
			t.Errorf("after %d requests: %v", res.sent, res.err)
		}
		sent += res.sent
	}
	<-drained
	if got := r.metric(wire.Requests, "code", "2xx"); got != float64(sent) {
		t.Errorf("%v requests counted, %d sent", got, sent)
	}
}
