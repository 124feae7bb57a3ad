package observe_test

import (
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

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"

	"github.com/sluice-autoscaler/sluice/proxy/inflight"
	"github.com/sluice-autoscaler/sluice/sidecar/observe"
	"github.com/sluice-autoscaler/sluice/sidecar/observe/sockdiag"
	"github.com/sluice-autoscaler/sluice/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds how long a test waits for what should come soon.
const patience = 20 * time.Second

// observed runs an observer of a port until the test ends and returns how to scrape it.
func observed(t *testing.T, port int) (scrape func() map[string]float64) {
	t.Helper()
	socket, err := sockdiag.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := socket.Close(); err != nil {
			t.Error(err)
		}
	})
	return observedThrough(t, port, socket)
}

// observedThrough does as observed, with a source of its own.
func observedThrough(t *testing.T, port int, source observe.Source) (scrape func() map[string]float64) {
	t.Helper()
	cfg := observe.Default()
	cfg.AppPort, cfg.MetricsListen, cfg.Drain = port, "127.0.0.1:0", 0
	cfg.MaxCPU = 1 // it counts what the test itself takes
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	o, err := observe.New(cfg, "v0", source, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- o.Run(ctx) }()
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-o.Up():
	case err := <-ended:
		ended <- nil
		t.Fatalf("Run: %v", err)
	case <-time.After(patience):
		t.Fatal("not up")
	}
	return func() map[string]float64 { return scraped(t, client, o.MetricsAddr().String()) }
}

// scraped reads metrics, by name and values of labels.
func scraped(t *testing.T, client *http.Client, address string) map[string]float64 {
	t.Helper()
	resp, err := client.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for name, f := range families {
		for _, m := range f.Metric {
			key := name
			for _, l := range m.Label {
				key += "/" + l.GetValue()
			}
			values[key] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return values
}

// app is an HTTP/1 server that knows the truth.
type app struct {
	start   time.Time
	inside  inflight.Counter // from the handler's start to its end
	outside inflight.Counter // from before the client sends to after it has the answer
	url     string
	port    int
	client  *http.Client
}

func newApp(t *testing.T, network, address string, handler http.HandlerFunc) *app {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Skipf("no %s %s on this machine: %v", network, address, err)
	}
	a := &app{start: time.Now(), url: "http://" + l.Addr().String() + "/", port: l.Addr().(*net.TCPAddr).Port}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.inside.Begin(time.Since(a.start))
		defer func() { a.inside.End(time.Since(a.start)) }()
		handler(w, r)
	})}
	go func() { _ = server.Serve(l) }()
	a.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}
	t.Cleanup(func() { a.client.CloseIdleConnections(); _ = server.Close() })
	return a
}

func (a *app) get() error {
	a.outside.Begin(time.Since(a.start))
	defer func() { a.outside.End(time.Since(a.start)) }()
	resp, err := a.client.Get(a.url)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return err
}

func TestIdleKeepAlivesAreNoDemand(t *testing.T) {
	a := newApp(t, "tcp4", "127.0.0.1:0", func(http.ResponseWriter, *http.Request) { time.Sleep(50 * time.Millisecond) })
	scrape := observed(t, a.port)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := a.get(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	silent, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(a.url, "http://"), "/"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	var at map[string]float64
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if at = scrape(); at["sluice_observe_connections/idle"] == 11 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("idle connections: %v, want 11", at["sluice_observe_connections/idle"])
		}
	}
	time.Sleep(300 * time.Millisecond)
	after := scrape()
	if after[wire.InFlight] != 0 || after[wire.ConcurrencySeconds] != at[wire.ConcurrencySeconds] {
		t.Errorf("in flight %v, integral %v → %v, want 0 and no change", after[wire.InFlight], at[wire.ConcurrencySeconds], after[wire.ConcurrencySeconds])
	}
	if got := after[wire.Requests+"/2xx"]; got != 10 {
		t.Errorf("requests = %v, want 10", got)
	}
}

// table is a kernel of connections on which nothing happens, and whose lists are dear.
type table struct {
	mu             sync.Mutex
	conns          int
	accepted       uint64
	err            error // of Accepted
	lists, samples int
}

func (k *table) show(n int, each func(*sockdiag.Conn)) {
	for i := range n {
		each(&sockdiag.Conn{ID: sockdiag.ID{byte(i)}, Family: 2, State: sockdiag.Established})
	}
}

func (k *table) List(_ uint16, each func(*sockdiag.Conn)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lists++
	for began := time.Now(); time.Since(began) < 20*time.Millisecond; { // CPU time, which is what a list costs
	}
	k.show(k.conns, each)
	return nil
}

func (k *table) Each(ids []sockdiag.ID, _ []uint8, each func(*sockdiag.Conn)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.samples++
	k.show(len(ids), each)
	return nil
}

func (k *table) Accepted() (uint64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.accepted, k.err
}

func (k *table) counts() (lists, samples int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lists, k.samples
}

// TestListsOnlyWhenConnectionsAreNew: a list reads through the table of the whole machine.
func TestListsOnlyWhenConnectionsAreNew(t *testing.T) {
	for _, test := range []struct {
		name  string
		err   error
		lists func(int) bool
		want  string
	}{
		{name: "counted", lists: func(n int) bool { return n <= 1 }, want: "at most the one of every ten seconds"},
		{name: "not counted", err: errors.ErrUnsupported, lists: func(n int) bool { return n > 1 }, want: "several"},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := &table{err: test.err}
			scrape := observedThrough(t, 1, k)
			// until waits for what is so of the samples taken since this call.
			until := func(what string, is func(lists, samples int) bool) {
				t.Helper()
				lists, samples := k.counts()
				for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
					if l, s := k.counts(); is(l-lists, s-samples) {
						return
					}
					if time.Now().After(deadline) {
						t.Fatal("never: " + what)
					}
				}
			}
			k.mu.Lock()
			k.conns, k.accepted = 3, 3
			k.mu.Unlock()
			until("a list of new connections", func(lists, _ int) bool { return lists > 0 })
			until("a sample after it", func(_, samples int) bool { return samples > 0 })
			if got := scrape()["sluice_observe_connections/idle"]; got != 3 {
				t.Errorf("idle connections = %v, want 3", got)
			}
			before, _ := k.counts()
			until("more samples", func(lists, samples int) bool { return lists+samples >= 40 })
			after, _ := k.counts()
			if !test.lists(after - before) {
				t.Errorf("%d lists while nothing was new, want %s", after-before, test.want)
			}
		})
	}
}
