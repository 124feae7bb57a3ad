//go:build accuracy

package observe_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/wire"
)

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

// TestAccuracy measures the estimate against what the app and the client saw, on the clock of a quiet machine: `make accuracy`. It
// is no part of `make test`, since a machine that is busy with other things makes it fail rightly.
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
