//go:build accuracy

package observe_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/wire"
)

// TestConnectionPerRequest has connections as short as their requests.
func TestConnectionPerRequest(t *testing.T) {
	a := newApp(t, "tcp4", "127.0.0.1:0", func(http.ResponseWriter, *http.Request) { time.Sleep(30 * time.Millisecond) })
	a.client.Transport = &http.Transport{DisableKeepAlives: true}
	scrape := process(t, a.port)
	stop := a.closed(t, 20, 0)
	defer stop()
	time.Sleep(500 * time.Millisecond) // churn is noticed
	from, began := scrape(), time.Since(a.start)
	inside, outside := a.inside.Read(began).Seconds, a.outside.Read(began).Seconds
	time.Sleep(window)
	to, ended := scrape(), time.Since(a.start)
	d := (ended - began).Seconds()
	low, high := (a.inside.Read(ended).Seconds-inside)/d, (a.outside.Read(ended).Seconds-outside)/d
	got := (to[wire.ConcurrencySeconds] - from[wire.ConcurrencySeconds]) / (to[wire.MonotonicSeconds] - from[wire.MonotonicSeconds])
	t.Logf("mean concurrency %.2f; app %.2f, client %.2f; own estimate of the error %.0f %%", got, low, high, 100*to["sluice_observe_error_ratio"])
	if got < 0.8*low || got > 1.2*high {
		t.Errorf("mean concurrency %.2f, want within 20 %% of %.2f–%.2f", got, low, high)
	}
}
