package observe_test

import (
	"context"
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
