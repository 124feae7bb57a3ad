package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-autoscaler/sluice/gateway"
	"github.com/sluice-autoscaler/sluice/gateway/hold"
	"github.com/sluice-autoscaler/sluice/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeSource is a Source whose endpoints the test sets.
type fakeSource struct {
	mu   sync.Mutex
	eps  map[gateway.Target][]hold.Endpoint
	subs map[gateway.Target][]func([]hold.Endpoint)
}

func newFakeSource() *fakeSource {
	return &fakeSource{eps: map[gateway.Target][]hold.Endpoint{}, subs: map[gateway.Target][]func([]hold.Endpoint){}}
}

func (f *fakeSource) Synced() bool { return true }

func (f *fakeSource) Subscribe(t gateway.Target, update func([]hold.Endpoint)) func() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subs[t] = append(f.subs[t], update)
	update(f.eps[t])
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.subs, t)
	}
}

func (f *fakeSource) set(t gateway.Target, eps ...hold.Endpoint) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.eps[t] = eps
	for _, u := range f.subs[t] {
		u(eps)
	}
}

var web = gateway.Target{Namespace: "shop", Service: "web", PortName: "http"}

// bench is a running gateway with one reader of its reports.
type bench struct {
	t       *testing.T
	gw      *gateway.Gateway
	source  *fakeSource
	control *httptest.Server
	gen     uint64
	stop    func()
}

func start(t *testing.T, change func(*gateway.Config)) *bench {
	t.Helper()
	cfg := gateway.Default()
	cfg.Name, cfg.ListenHost = "gw-0", "127.0.0.1"
	cfg.LameDuck, cfg.Drain = 10*time.Millisecond, 5*time.Second
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, source: newFakeSource()}
	b.gw = gateway.New(cfg, b.source, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.gw.Run(ctx) }()
	b.control = httptest.NewServer(b.gw.Control(nil))
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v, want nil", err)
		}
		b.control.Close()
	})
	t.Cleanup(b.stop)
	b.until("running", func(wire.Report) bool { return b.gw.Ready() == nil })
	return b
}

// until waits for a condition, looked at on every report of the stream.
func (b *bench) until(what string, ok func(wire.Report) bool) wire.Report {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.control.URL+wire.ReportsPath, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	res, err := b.control.Client().Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	dec := json.NewDecoder(res.Body)
	for {
		var r wire.Report
		if err := dec.Decode(&r); err != nil {
			b.t.Fatalf("no report that shows %s: %v; last: %+v", what, err, b.gw.Report())
		}
		if ok(r) {
			return r
		}
	}
}

func (b *bench) untilWaiting(n int) wire.PortReport {
	b.t.Helper()
	r := b.until(fmt.Sprintf("%d waiting", n), func(r wire.Report) bool { return len(r.Ports) == 1 && r.Ports[0].Waiting == n })
	return r.Ports[0]
}

func assignment(change func(*wire.Assignment)) wire.Assignment {
	a := wire.Assignment{Namespace: web.Namespace, Service: web.Service, PortName: web.PortName, Listen: freePort(), Protocol: "http", InPath: true}
	if change != nil {
		change(&a)
	}
	return a
}

// assign puts assignments through the control port and returns the base URL of the first.
func (b *bench) assign(as ...wire.Assignment) string {
	b.t.Helper()
	b.gen++
	if code, text := b.put(wire.Assignments{Epoch: 1, Generation: b.gen, Ports: as}); code != http.StatusNoContent {
		b.t.Fatalf("PUT assignments = %d %s, want 204", code, text)
	}
	for _, p := range b.gw.Report().Ports {
		if !p.Listening && slices.ContainsFunc(as, func(a wire.Assignment) bool { return a.Service == p.Service }) {
			b.t.Fatalf("not listening: %+v", p)
		}
	}
	if len(as) == 0 {
		return ""
	}
	return fmt.Sprintf("http://127.0.0.1:%d", as[0].Listen)
}

func (b *bench) put(a any) (int, string) {
	b.t.Helper()
	return b.putAs("main", a)
}

func (b *bench) putAs(owner string, a any) (int, string) {
	b.t.Helper()
	body, err := json.Marshal(a)
	if err != nil {
		b.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPut, b.control.URL+wire.OwnerPath(owner), bytes.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	res, err := b.control.Client().Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(text)
}

func freePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// pod is a server that stands for a pod; the gateway's probe is not counted.
type pod struct {
	*httptest.Server
	inFlight, most, served atomic.Int64
	block                  chan struct{} // nil: answers at once
	tick                   chan struct{} // not nil: each request must be taken from it
}

func newPod(t *testing.T, h http.HandlerFunc) *pod {
	p := &pod{}
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/.well-known/sluice/ready" {
			http.NotFound(w, r)
			return
		}
		n := p.inFlight.Add(1)
		defer p.inFlight.Add(-1)
		for most := p.most.Load(); n > most && !p.most.CompareAndSwap(most, n); most = p.most.Load() {
		}
		p.served.Add(1)
		if p.block != nil {
			<-p.block
		}
		if p.tick != nil {
			p.tick <- struct{}{}
		}
		if h != nil {
			h(w, r)
			return
		}
		_, _ = io.WriteString(w, "ok")
	}))
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	p.Config.Protocols = protocols
	p.Start()
	t.Cleanup(p.Close)
	return p
}

func (p *pod) address() string { return p.Listener.Addr().String() }

func up(address string) hold.Endpoint {
	return hold.Endpoint{Address: address, Ready: true, Serving: true}
}

func starting(address string) hold.Endpoint { return hold.Endpoint{Address: address} }

// client returns a client of many connections that ends with the test.
func client(t *testing.T) *http.Client {
	tr := &http.Transport{MaxIdleConnsPerHost: 1000}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

type reply struct {
	code   int
	body   string
	header http.Header
	err    error
}

func get(ctx context.Context, c *http.Client, url string, change ...func(*http.Request)) reply {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return reply{err: err}
	}
	for _, f := range change {
		f(req)
	}
	res, err := c.Do(req)
	if err != nil {
		return reply{err: err}
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, string(body), res.Header, err}
}

// async starts f and returns what waits for its outcome.
func async[T any](f func() T) func() T {
	c := make(chan T, 1)
	go func() { c <- f() }()
	return func() T { return <-c }
}

func TestBurstAtZero(t *testing.T) {
	const burst, limit = 500, 20
	b := start(t, nil)
	url := b.assign(assignment(func(a *wire.Assignment) { a.PodConcurrency = limit }))
	c := client(t)
	var waits []func() reply
	for range burst {
		waits = append(waits, async(func() reply { return get(t.Context(), c, url) }))
	}
	b.untilWaiting(burst)

	// The pod appears not ready, as it does in a cluster: it is the gateway's probe that finds it.
	p := newPod(t, nil)
	p.block = make(chan struct{})
	b.source.set(web, starting(p.address()))
	b.until("the pod full", func(wire.Report) bool { return p.inFlight.Load() == limit })
	b.untilWaiting(burst - limit)
	close(p.block)
	for i, wait := range waits {
		if r := wait(); r.err != nil || r.code != 200 || r.body != "ok" {
			t.Fatalf("request %d = %d %q %v, want 200 ok", i, r.code, r.body, r.err)
		}
	}
	if most := p.most.Load(); most != limit {
		t.Errorf("most in flight at the pod = %d, want %d", most, limit)
	}
	r := b.gw.Report().Ports[0]
	if r.Arrived != burst || r.Forwarded != burst || r.Waiting != 0 || r.ReadyPods != 1 {
		t.Errorf("report = %+v, want %d arrived and forwarded, none waiting, 1 pod", r, burst)
	}
	cold := r.ColdStart
	if cold == nil || cold.Detected == 0 || cold.Answering < cold.Detected || cold.Released < cold.Answering || cold.Held != burst || cold.Pod != p.address() {
		t.Errorf("cold start = %+v, want detected ≤ answering ≤ released, %d held, pod %s", cold, burst, p.address())
	}
}

func TestRefusedPodIsLeft(t *testing.T) {
	b := start(t, nil)
	url := b.assign(assignment(nil))
	dead := fmt.Sprintf("127.0.0.1:%d", freePort())
	p := newPod(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	b.source.set(web, up(dead), up(p.address()))
	c := client(t)
	for range 50 {
		res, err := c.Post(url, "text/plain", strings.NewReader("payload"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != 200 || string(body) != "payload" {
			t.Fatalf("POST = %d %q, want 200 and the body back", res.StatusCode, body)
		}
	}
	// With all pods dead a request is held until one is back.
	b.source.set(web, up(dead))
	wait := async(func() reply { return get(t.Context(), c, url) })
	b.untilWaiting(1)
	b.source.set(web, up(dead), up(p.address()))
	if r := wait(); r.code != 200 {
		t.Errorf("held request = %+v, want 200", r)
	}
}

func TestClientLeaves(t *testing.T) {
	for _, body := range []string{"", "a body that is not read"} {
		t.Run(fmt.Sprintf("body of %d", len(body)), func(t *testing.T) {
			b := start(t, nil)
			url := b.assign(assignment(nil))
			ctx, cancel := context.WithCancel(t.Context())
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			c := client(t)
			wait := async(func() error {
				res, err := c.Do(req)
				if err == nil {
					_ = res.Body.Close()
				}
				return err
			})
			b.untilWaiting(1)
			cancel()
			if err := wait(); err == nil {
				t.Error("canceled request got an answer")
			}
			if p := b.untilWaiting(0); p.Canceled != 1 || p.Forwarded != 0 {
				t.Errorf("report = %+v, want 1 canceled", p)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	tests := map[string]struct {
		config     func(*gateway.Config)
		assignment func(*wire.Assignment)
		held       int // requests held before
		code       int
		reason     string
		body       string
	}{
		"full by count":  {assignment: func(a *wire.Assignment) { a.MaxHeld = 1 }, held: 1, code: 503, reason: "full", body: "too many"},
		"full by bytes":  {assignment: func(a *wire.Assignment) { a.MaxHeldBytes = 6 << 10 }, held: 1, code: 503, reason: "full", body: "too many"},
		"full in total":  {config: func(c *gateway.Config) { c.MaxHeldTotal = 1 }, held: 1, code: 503, reason: "full", body: "too many"},
		"held too long":  {assignment: func(a *wire.Assignment) { a.HoldSeconds = 0.02 }, code: 504, reason: "held-too-long", body: "20ms"},
		"no pod can be":  {assignment: func(a *wire.Assignment) { a.Failure = "image pull: not found" }, code: 503, reason: "image pull: not found", body: "image pull: not found"},
		"default length": {config: func(c *gateway.Config) { c.HoldTimeout = 10 * time.Millisecond }, code: 504, reason: "held-too-long", body: "10ms"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			b := start(t, tc.config)
			url := b.assign(assignment(tc.assignment))
			c := client(t)
			ctx, cancel := context.WithCancel(t.Context())
			var held []func() reply
			for i := range tc.held {
				held = append(held, async(func() reply { return get(ctx, c, url) }))
				b.untilWaiting(i + 1)
			}
			r := get(t.Context(), c, url)
			if r.code != tc.code || r.header.Get("Sluice-Reason") != tc.reason || !strings.Contains(r.body, tc.body) {
				t.Errorf("answer = %d, reason %q, %q, want %d, %q, %q", r.code, r.header.Get("Sluice-Reason"), r.body, tc.code, tc.reason, tc.body)
			}
			if got := r.header.Get("Retry-After") != ""; got != (tc.code == 503) {
				t.Errorf("Retry-After set = %v for %d", got, tc.code)
			}
			cancel()
			for _, w := range held {
				w()
			}
		})
	}
}

func TestFailureEndsWaiting(t *testing.T) {
	b := start(t, nil)
	a := assignment(nil)
	url := b.assign(a)
	c := client(t)
	wait := async(func() reply { return get(t.Context(), c, url) })
	b.untilWaiting(1)
	a.Failure = "quota exceeded"
	b.assign(a)
	if r := wait(); r.code != 503 || !strings.Contains(r.body, "quota exceeded") {
		t.Errorf("held request = %+v, want 503 with the cause", r)
	}
	p := newPod(t, nil)
	b.source.set(web, up(p.address()))
	if r := get(t.Context(), c, url); r.code != 200 {
		t.Errorf("with a pod after all = %+v, want 200", r)
	}
}

func TestHealthChecksWakeNothing(t *testing.T) {
	b := start(t, func(c *gateway.Config) { c.ProbePaths = []string{"/ping"} })
	url := b.assign(assignment(nil))
	c := client(t)
	check := func() map[string]reply {
		return map[string]reply{
			"agent": get(t.Context(), c, url, func(r *http.Request) { r.Header.Set("User-Agent", "kube-probe/1.37") }),
			"path":  get(t.Context(), c, url+"/ping"),
		}
	}
	for name, r := range check() {
		if r.code != 200 || r.header.Get("Sluice-Reason") != "at-zero" {
			t.Errorf("%s at zero = %+v, want 200 by the gateway", name, r)
		}
	}
	p := newPod(t, nil)
	b.source.set(web, up(p.address()))
	for name, r := range check() {
		if r.code != 200 || r.body != "ok" {
			t.Errorf("%s with a pod = %+v, want the pod's answer", name, r)
		}
	}
	if r := b.gw.Report().Ports[0]; r.Arrived != 0 || r.WaitingSeconds != 0 || r.ColdStart != nil {
		t.Errorf("report = %+v, want nothing counted", r)
	}
}

func TestSendsClientsOnWhenOutOfPath(t *testing.T) {
	b := start(t, nil)
	a := assignment(nil)
	url := b.assign(a)
	p := newPod(t, nil)
	b.source.set(web, up(p.address()))
	raw := func() bool {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: web\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.Close
	}
	if raw() {
		t.Error("in the path: the connection is closed, want it kept")
	}
	a.InPath = false
	b.assign(a)
	if !raw() {
		t.Error("out of the path: the connection is kept, want Connection: close")
	}
}

// Bounds change, the path flips and other ports come and go; the requests of a port that stays must not notice.
func TestReplacedUnderLoad(t *testing.T) {
	b := start(t, nil)
	p := newPod(t, nil)
	p.tick = make(chan struct{})
	b.source.set(web, up(p.address()))
	other := assignment(func(a *wire.Assignment) { a.Service = "other" })
	a := assignment(nil)
	url := b.assign(a)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	for range 8 {
		c := client(t)
		all.Go(func() {
			for ctx.Err() == nil {
				if r := get(t.Context(), c, url); r.err != nil || r.code != 200 {
					t.Errorf("request = %+v, want 200", r)
				}
			}
		})
	}
	for i := range 40 {
		for range 20 {
			<-p.tick
		}
		a.InPath, a.PodConcurrency, a.MaxHeld = i%3 != 0, 1+i%4, 100+i
		if i%2 == 0 {
			b.assign(a, other)
		} else {
			b.assign(a)
		}
	}
	cancel()
	go func() {
		all.Wait()
		close(p.tick)
	}()
	for range p.tick {
		continue
	}
	for _, r := range b.gw.Report().Ports {
		if want := uint64(p.served.Load()); r.Service == "web" && (r.Arrived != want || r.Forwarded != want) {
			t.Errorf("report = %+v, want %d arrived and forwarded", r, want)
		}
	}
}

func TestRemovedPortAnswersWhatItHolds(t *testing.T) {
	b := start(t, nil)
	url := b.assign(assignment(nil))
	c := client(t)
	wait := async(func() reply { return get(t.Context(), c, url) })
	b.untilWaiting(1)
	b.assign()
	if r := get(t.Context(), client(t), url); r.err == nil {
		t.Errorf("after removal = %+v, want a refused connection", r)
	}
	b.untilWaiting(1) // still reported: it is demand
	p := newPod(t, nil)
	b.source.set(web, starting(p.address()))
	if r := wait(); r.code != 200 {
		t.Errorf("held request = %+v, want 200", r)
	}
	b.until("the port gone", func(r wire.Report) bool { return len(r.Ports) == 0 })
}

func TestDrainAnswersWhatIsHeld(t *testing.T) {
	b := start(t, nil)
	url := b.assign(assignment(nil))
	c := client(t)
	wait := async(func() reply { return get(t.Context(), c, url) })
	b.untilWaiting(1)
	stopped := async(func() bool { b.stop(); return true })
	b.until("not ready", func(wire.Report) bool { return b.gw.Ready() != nil })
	p := newPod(t, nil)
	b.source.set(web, starting(p.address()))
	if r := wait(); r.code != 200 {
		t.Errorf("held request = %+v, want 200", r)
	}
	stopped()
}
