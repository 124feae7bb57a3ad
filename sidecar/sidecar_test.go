package sidecar_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"

	"github.com/sluice-autoscaler/sluice/sidecar"
	"github.com/sluice-autoscaler/sluice/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what should happen soon; only a failing test waits so long.
const patience = 20 * time.Second

// running is a sidecar in this process, on ports of its own.
type running struct {
	sidecar       *sidecar.Sidecar
	t             *testing.T
	addr, metrics string
	stop          context.CancelFunc
	ended         chan error // what Run returned
	client        *http.Client
}

// start runs a sidecar before app; the test's end stops it and expects it to end well.
func start(t *testing.T, app string, edit func(*sidecar.Config)) *running {
	t.Helper()
	return startLogging(t, app, slog.DiscardHandler, edit)
}

// startLogging does as start, with a log.
func startLogging(t *testing.T, app string, log slog.Handler, edit func(*sidecar.Config)) *running {
	t.Helper()
	cfg := sidecar.Default()
	cfg.Listen, cfg.MetricsListen, cfg.App = "127.0.0.1:0", "127.0.0.1:0", app
	cfg.LameDuck, cfg.Drain = 0, patience
	if edit != nil {
		edit(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	s, err := sidecar.New(cfg, "test", slog.New(log))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	r := &running{t: t, sidecar: s, stop: stop, ended: make(chan error, 1), client: &http.Client{Transport: &http.Transport{DisableCompression: true}}}
	go func() { r.ended <- s.Run(ctx) }()
	select {
	case <-s.Up():
	case err := <-r.ended:
		t.Fatal(err)
	}
	r.addr, r.metrics = s.Addr().String(), s.MetricsAddr().String()
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		stop()
		select {
		case err := <-r.ended:
			if err != nil {
				t.Errorf("Run = %v", err)
			}
		case <-time.After(2 * patience):
			t.Error("the sidecar does not end")
		}
	})
	return r
}

// answer is a response that was read whole.
type answer struct {
	StatusCode      int
	Proto           string
	Header, Trailer http.Header
}

// do sends a request through the proxy and returns the answer and its body.
func (r *running) do(req *http.Request) (answer, string) {
	r.t.Helper()
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Proto, resp.Header, resp.Trailer}, string(body)
}

func (r *running) get(path string, header ...string) (answer, string) {
	r.t.Helper()
	return r.do(r.request(http.MethodGet, path, nil, header...))
}

func (r *running) request(method, path string, body io.Reader, header ...string) *http.Request {
	r.t.Helper()
	host := r.addr
	if after, ok := strings.CutPrefix(path, "metrics:"); ok {
		host, path = r.metrics, after
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, "http://"+host+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return req
}

// metric reads one value from /metrics; labels are name, value pairs.
func (r *running) metric(name string, labels ...string) float64 {
	r.t.Helper()
	resp, body := r.get("metrics:/metrics")
	if resp.StatusCode != http.StatusOK {
		r.t.Fatalf("/metrics = %d %s", resp.StatusCode, body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, m := range families[name].GetMetric() {
		if matches(m, labels) {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	r.t.Fatalf("no metric %s%v", name, labels)
	return 0
}

func matches(m *dto.Metric, labels []string) bool {
	for i := 0; i < len(labels); i += 2 {
		found := false
		for _, l := range m.GetLabel() {
			found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
		}
		if !found {
			return false
		}
	}
	return true
}

// wait polls until the metric has the value.
func (r *running) wait(want float64, name string, labels ...string) {
	r.t.Helper()
	eventually(r.t, func() error {
		if got := r.metric(name, labels...); got != want {
			return fmt.Errorf("%s%v = %v, want %v", name, labels, got, want)
		}
		return nil
	})
}

// eventually polls until holds returns nil.
func eventually(t *testing.T, holds func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

// serveApp runs an app that speaks HTTP/1.1 and h2c, and returns its address.
func serveApp(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, Protocols: protocols(true, true), ReadHeaderTimeout: patience, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	t.Cleanup(func() {
		_ = srv.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("app: %v", err)
		}
	})
	return l.Addr().String()
}

func protocols(http1, h2c bool) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(http1)
	p.SetUnencryptedHTTP2(h2c)
	return p
}

// rawApp answers each connection by handle, and returns its address.
func rawApp(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			handle(c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
	})
	return l.Addr().String()
}

// dial opens a raw connection to the proxy.
func (r *running) dial() (net.Conn, *bufio.Reader) {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c, bufio.NewReader(c)
}

// closedPort returns an address on which nothing listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func TestIntegralOverTheWire(t *testing.T) {
	release := make(chan struct{})
	app := serveApp(t, func(http.ResponseWriter, *http.Request) { <-release })
	r := start(t, app, nil)
	const n = 7
	answered := make(chan int, n)
	for range n {
		go func() {
			resp, err := r.client.Get("http://" + r.addr)
			if err != nil {
				answered <- 0
				return
			}
			_ = resp.Body.Close()
			answered <- resp.StatusCode
		}()
	}
	r.wait(n, wire.InFlight)
	// Between two scrapes the increase of the integral is exactly n times that of the source's own clock.
	read := func() (float64, float64) {
		_, body := r.get("metrics:/metrics")
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		return families[wire.ConcurrencySeconds].GetMetric()[0].GetCounter().GetValue(), families[wire.MonotonicSeconds].GetMetric()[0].GetGauge().GetValue()
	}
	integral, at := read()
	for range 20 {
		later, then := read()
		if got, want := later-integral, n*(then-at); got < want*0.999 || got > want*1.001 {
			t.Errorf("integral grew by %v in %v s, want %v", got, then-at, want)
		}
	}
	close(release)
	for range n {
		if code := <-answered; code != http.StatusOK {
			t.Errorf("answer %d", code)
		}
	}
	r.wait(n, wire.Requests, "code", "2xx")
	r.wait(0, wire.InFlight)
	if got := r.metric("sluice_sidecar_request_duration_seconds"); got != n {
		t.Errorf("%v durations, want %d", got, n)
	}
	if got := r.metric("sluice_sidecar_overhead_seconds"); got != n {
		t.Errorf("%v overheads, want %d", got, n)
	}
}

func TestHealth(t *testing.T) {
	status := make(chan int, 1)
	status <- http.StatusServiceUnavailable
	app := serveApp(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/up" {
			s := <-status
			status <- s
			w.WriteHeader(s)
		}
	})
	r := start(t, app, func(c *sidecar.Config) { c.AppReadyPath = "/up" })
	paths := map[string]string{"readyz": "metrics:/readyz", "well-known": "/.well-known/sluice/ready"}
	for name, path := range paths {
		if resp, body := r.get(path); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s with the app unready = %d %s", name, resp.StatusCode, body)
		}
	}
	<-status
	status <- http.StatusOK
	for name, path := range paths {
		if resp, body := r.get(path); resp.StatusCode != http.StatusOK {
			t.Errorf("%s with the app ready = %d %s", name, resp.StatusCode, body)
		}
	}
	if resp, _ := r.get("metrics:/healthz"); resp.StatusCode != http.StatusOK {
		t.Errorf("healthz = %d", resp.StatusCode)
	}
	if got := r.metric(wire.ConcurrencySeconds); got != 0 {
		t.Errorf("%v request-seconds of probes were counted", got)
	}

	down := start(t, closedPort(t), nil)
	for name, path := range paths {
		if resp, body := down.get(path); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s with the app down = %d %s", name, resp.StatusCode, body)
		}
	}
	if resp, _ := down.get("metrics:/healthz"); resp.StatusCode != http.StatusOK {
		t.Errorf("healthz with the app down = %d", resp.StatusCode)
	}
}

func TestProbesAreNoDemand(t *testing.T) {
	release := make(chan struct{})
	arrived := make(chan struct{}, 10)
	app := serveApp(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/hold" {
			arrived <- struct{}{}
			<-release
		}
		_, _ = io.WriteString(w, "from the app")
	})
	r := start(t, app, func(c *sidecar.Config) {
		c.ConcurrencyLimit, c.QueueLimit = 1, 0
		c.IgnorePaths = []string{"/status", "/internal/*"}
		c.IgnoreAgents = append(c.IgnoreAgents, "uptime/")
	})
	held := make(chan struct{})
	go func() {
		defer close(held)
		r.get("/hold")
	}()
	<-arrived
	// With every place taken, probes pass still.
	probes := []struct{ path, agent string }{
		{"/", "kube-probe/1.37"},
		{"/", "Prometheus/3.1"},
		{"/", "GoogleHC/1.0"},
		{"/", "ELB-HealthChecker/2.0"},
		{"/", "uptime/1"},
		{"/status", "curl/8"},
		{"/internal/x", "curl/8"},
	}
	for _, p := range probes {
		if resp, body := r.get(p.path, "User-Agent", p.agent); resp.StatusCode != http.StatusOK || body != "from the app" {
			t.Errorf("%s of %s = %d %q", p.path, p.agent, resp.StatusCode, body)
		}
	}
	for _, path := range []string{"/", "/status/more"} {
		if resp, _ := r.get(path, "User-Agent", "curl/8"); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s of a user = %d, want 503", path, resp.StatusCode)
		}
	}
	if got := r.metric("sluice_sidecar_uncounted_requests_total"); got != float64(len(probes)) {
		t.Errorf("%v uncounted, want %d", got, len(probes))
	}
	r.wait(1, wire.InFlight) // a refused one ends when its answer was sent
	close(release)
	<-held
	r.wait(1, wire.Requests, "code", "2xx")
}

func TestQueue(t *testing.T) {
	release := make(chan struct{})
	app := serveApp(t, func(http.ResponseWriter, *http.Request) { <-release })
	r := start(t, app, func(c *sidecar.Config) { c.ConcurrencyLimit, c.QueueLimit = 1, 2 })
	codes := make(chan int, 3)
	send := func(ctx context.Context) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.addr, nil)
		if err != nil {
			codes <- -1
			return
		}
		resp, err := r.client.Do(req)
		if err != nil {
			codes <- 0
			return
		}
		_ = resp.Body.Close()
		codes <- resp.StatusCode
	}
	go send(t.Context())
	r.wait(1, wire.InFlight)
	leaving, leave := context.WithCancel(t.Context())
	defer leave()
	go send(leaving)
	go send(t.Context())
	r.wait(2, wire.Queued)
	r.wait(3, wire.InFlight) // who waits is demand

	resp, body := r.get("/")
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "1" || resp.Header.Get("Sluice-Reason") != "queue-full" || strings.Count(body, "\n") != 1 {
		t.Errorf("with a full queue: %d %v %q", resp.StatusCode, resp.Header, body)
	}
	// A client that leaves gives its place in the queue back.
	leave()
	if code := <-codes; code != 0 {
		t.Errorf("who left got %d", code)
	}
	r.wait(1, wire.Queued)
	r.wait(1, "sluice_sidecar_refused_requests_total", "reason", "client-left")
	close(release)
	for range 2 {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("a request that waited got %d", code)
		}
	}
	r.wait(0, wire.InFlight)
	if got := r.metric(wire.Requests, "code", "5xx"); got != 1 {
		t.Errorf("%v answers of 5xx, want 1", got)
	}
}

func TestQueueTimeout(t *testing.T) {
	release := make(chan struct{})
	app := serveApp(t, func(http.ResponseWriter, *http.Request) { <-release })
	r := start(t, app, func(c *sidecar.Config) { c.ConcurrencyLimit, c.QueueTimeout = 1, time.Millisecond })
	first := make(chan struct{})
	go func() {
		defer close(first)
		r.get("/")
	}()
	r.wait(1, wire.InFlight)
	if resp, _ := r.get("/"); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Sluice-Reason") != "queue-timeout" {
		t.Errorf("after the timeout: %d %v", resp.StatusCode, resp.Header)
	}
	close(release)
	<-first
}

func TestAppDown(t *testing.T) {
	cases := []struct {
		name   string
		app    func(t *testing.T) string
		reason string
	}{
		{name: "no listener", app: closedPort, reason: "app-unreachable"},
		{name: "closes before it answers", app: func(t *testing.T) string {
			return rawApp(t, func(c net.Conn) { _, _ = http.ReadRequest(bufio.NewReader(c)) })
		}, reason: "app-error"},
		{name: "answers no HTTP", app: func(t *testing.T) string {
			return rawApp(t, func(c net.Conn) {
				_, _ = http.ReadRequest(bufio.NewReader(c))
				_, _ = io.WriteString(c, "hello\r\n\r\n")
			})
		}, reason: "app-error"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, c.app(t), nil)
			resp, body := r.do(r.request(http.MethodPost, "/", strings.NewReader("x")))
			if resp.StatusCode != http.StatusBadGateway || resp.Header.Get("Sluice-Reason") != c.reason || strings.Count(body, "\n") != 1 {
				t.Errorf("answer %d %v %q, want 502 with reason %s", resp.StatusCode, resp.Header, body, c.reason)
			}
			r.wait(1, "sluice_sidecar_refused_requests_total", "reason", c.reason)
			r.wait(1, wire.Requests, "code", "5xx")
			r.wait(0, wire.InFlight)
		})
	}
}
