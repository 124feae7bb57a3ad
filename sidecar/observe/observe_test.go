package observe_test

import (
	"context"
	"fmt"
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

	"github.com/sluice-autoscaler/sluice/sidecar/inflight"
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
	cfg := observe.Default()
	cfg.AppPort, cfg.MetricsListen, cfg.Drain = port, "127.0.0.1:0", 0
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	o, err := observe.New(cfg, "v0", socket, slog.New(slog.DiscardHandler))
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
		if err := socket.Close(); err != nil {
			t.Error(err)
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
	return func() map[string]float64 {
		t.Helper()
		resp, err := client.Get("http://" + o.MetricsAddr().String() + "/metrics")
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

// closed keeps n requests in flight, with a pause after each, until stop is called.
func (a *app) closed(t *testing.T, n int, pause time.Duration) (stop func()) {
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	for range n {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := a.get(); err != nil {
					t.Error(err)
					return
				}
				time.Sleep(pause)
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

func TestAccuracy(t *testing.T) {
	for _, test := range []struct {
		clients  int
		takes    time.Duration
		pause    time.Duration
		network  string
		address  string
		dialHost string
	}{
		{clients: 1, takes: 20 * time.Millisecond},
		{clients: 1, takes: 20 * time.Millisecond, pause: 30 * time.Millisecond},
		{clients: 10, takes: 20 * time.Millisecond},
		{clients: 10, takes: 20 * time.Millisecond, pause: 7 * time.Millisecond},
		{clients: 100, takes: 20 * time.Millisecond},
		{clients: 100, takes: 100 * time.Millisecond, pause: 50 * time.Millisecond},
		{clients: 10, takes: 20 * time.Millisecond, network: "tcp6", address: "[::1]:0"},
		{clients: 10, takes: 20 * time.Millisecond, network: "tcp", address: ":0", dialHost: "127.0.0.1"},
	} {
		t.Run(fmt.Sprintf("%d clients, %v and %v, %s%s", test.clients, test.takes, test.pause, test.network, test.address), func(t *testing.T) {
			if test.network == "" {
				test.network, test.address = "tcp4", "127.0.0.1:0"
			}
			a := newApp(t, test.network, test.address, func(http.ResponseWriter, *http.Request) { time.Sleep(test.takes) })
			if test.dialHost != "" { // an IPv4 client of a socket for both: IPv4-mapped
				a.url = fmt.Sprintf("http://%s:%d/", test.dialHost, a.port)
			}
			scrape := observed(t, a.port)
			stop := a.closed(t, test.clients, test.pause)
			defer stop()
			time.Sleep(500 * time.Millisecond) // connections come up

			from, began := scrape(), time.Since(a.start)
			inside, outside := a.inside.Read(began).Seconds, a.outside.Read(began).Seconds
			time.Sleep(2 * time.Second) // what is measured
			to, ended := scrape(), time.Since(a.start)
			inside, outside = a.inside.Read(ended).Seconds-inside, a.outside.Read(ended).Seconds-outside

			mean := func(name string) float64 {
				return (to[name] - from[name]) / (to[wire.MonotonicSeconds] - from[wire.MonotonicSeconds])
			}
			d := (ended - began).Seconds()
			got, low, high := mean(wire.ConcurrencySeconds), inside/d, outside/d
			t.Logf("mean concurrency %.3f; app %.3f, client %.3f; error %.1f %% (own estimate %.1f %%), %.0f requests/s, %.0f samples/s, interval %.1f ms",
				got, low, high, 100*(got/low-1), 100*to["sluice_observe_error_ratio"], mean(wire.Requests+"/2xx"), mean("sluice_observe_samples_total"), 1e3*to["sluice_observe_interval_seconds"])
			// The truth lies between what the app and what the client saw, which differ on a busy machine.
			if got < 0.9*low || got > 1.1*high {
				t.Errorf("mean concurrency %.3f, want within 10 %% of %.3f–%.3f", got, low, high)
			}
			if to["sluice_observe_coverage_ratio"] != 1 {
				t.Errorf("coverage %v of plain HTTP/1, want 1", to["sluice_observe_coverage_ratio"])
			}
		})
	}
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
