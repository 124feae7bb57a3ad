//go:build accuracy

package observe_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/wire"
)

// window is what is measured, for as long as the shortest window of a usual policy (kpa's panic
// window).
const window = 6 * time.Second

// process runs the observer as users do, in a process of its own, and returns how to scrape it.
func process(t *testing.T, port int) (scrape func() map[string]float64) {
	t.Helper()
	binary := os.Getenv("SLUICE_SIDECAR")
	if binary == "" {
		t.Fatal("SLUICE_SIDECAR is not set: want the path of the sidecar's binary, as make accuracy gives it")
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	c := exec.Command(binary, "observe", "--app-port", strconv.Itoa(port), "--metrics-listen", address, "--drain", "0s", "--log-level", "error")
	c.Stderr = os.Stderr
	began := time.Now()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		_ = c.Process.Signal(syscall.SIGTERM)
		if err := c.Wait(); err != nil {
			t.Errorf("the observer: %v", err)
		}
		t.Logf("the observer took %.2f %% of a core", 100*(c.ProcessState.SystemTime()+c.ProcessState.UserTime()).Seconds()/time.Since(began).Seconds())
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		resp, err := client.Get("http://" + address + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("not up")
		}
	}
	return func() map[string]float64 { return scraped(t, client, address) }
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

// TestAccuracy measures the estimate against what the app and the client saw, on the clock of a
// quiet machine: `make accuracy`. It is no part of `make test`, since a machine that is busy with
// other things makes it fail rightly.
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
			scrape := process(t, a.port)
			stop := a.closed(t, test.clients, test.pause)
			defer stop()
			time.Sleep(500 * time.Millisecond) // connections come up

			from, began := scrape(), time.Since(a.start)
			inside, outside := a.inside.Read(began).Seconds, a.outside.Read(began).Seconds
			time.Sleep(window)
			to, ended := scrape(), time.Since(a.start)
			inside, outside = a.inside.Read(ended).Seconds-inside, a.outside.Read(ended).Seconds-outside

			mean := func(name string) float64 {
				return (to[name] - from[name]) / (to[wire.MonotonicSeconds] - from[wire.MonotonicSeconds])
			}
			d := (ended - began).Seconds()
			got, low, high := mean(wire.ConcurrencySeconds), inside/d, outside/d
			t.Logf("mean concurrency %.3f; app %.3f, client %.3f; error %.1f %% (own estimate %.1f %%), %.0f requests/s, %.0f samples/s, interval %.1f ms",
				got, low, high, 100*(got/low-1), 100*to["sluice_observe_error_ratio"], mean(wire.Requests+"/2xx"), mean("sluice_observe_samples_total"), 1e3*to["sluice_observe_interval_seconds"])
			// The truth lies between what the app and what the client saw, which differ on a busy
			// machine.
			if got < 0.9*low || got > 1.1*high {
				t.Errorf("mean concurrency %.3f, want within 10 %% of %.3f–%.3f", got, low, high)
			}
			if to["sluice_observe_coverage_ratio"] != 1 {
				t.Errorf("coverage %v of plain HTTP/1, want 1", to["sluice_observe_coverage_ratio"])
			}
		})
	}
}
