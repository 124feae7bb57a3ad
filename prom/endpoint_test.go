package prom_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/prom"
)

// clock is moved by hand.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time       { return time.Unix(0, c.at.Load()) }
func (c *clock) move(d time.Duration) { c.at.Add(int64(d)) }

func endpoint(t *testing.T, url string, change func(*prom.EndpointConfig)) *prom.Endpoint {
	t.Helper()
	c := prom.EndpointConfig{URL: url, Timeout: 5 * time.Second, MaxConcurrent: 4, MaxBytes: 1 << 10}
	if change != nil {
		change(&c)
	}
	e, err := prom.NewEndpoint(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// Every fault of the configuration is named.
func TestEndpointConfig(t *testing.T) {
	t.Parallel()
	_, err := prom.NewEndpoint(prom.EndpointConfig{URL: "prometheus:9090", Timeout: time.Hour, CertFile: "c"})
	for _, want := range []string{"url =", "timeout = 1h0m0s: want 100ms–2m", "maxConcurrent = 0: want 1–256", "maxBytes = 0", "certFile and keyFile"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %q in it", err, want)
		}
	}
}

// After failures in a row nothing is sent for a while, then one request tries. A refused query is
// no failure.
func TestBreaker(t *testing.T) {
	t.Parallel()
	var asked, status atomic.Int64
	status.Store(http.StatusBadRequest)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(int(status.Load()))
		fmt.Fprint(w, `{"status":"error","errorType":"bad_data","error":"no"}`)
	}))
	t.Cleanup(s.Close)
	var c clock
	c.move(time.Hour)
	results := map[string]int{}
	e := endpoint(t, s.URL, func(o *prom.EndpointConfig) {
		o.Clock = c.now
		o.Observe = func(_, result string, _ time.Duration) { results[result]++ }
	})
	ask := func() error { _, err := e.Query(t.Context(), "up"); return err }
	for range 2 * prom.FailuresToOpen {
		if err := ask(); err == nil || err.Error() != "bad_data: no" {
			t.Fatalf("a refused query: %v", err)
		}
	}
	status.Store(http.StatusBadGateway)
	for range prom.FailuresToOpen {
		if err := ask(); err == nil {
			t.Fatal("502 is a success")
		}
	}
	sent := asked.Load()
	var paused *prom.PausedError
	if err := ask(); !errors.As(err, &paused) || asked.Load() != sent {
		t.Fatalf("after %d failures: %v", prom.FailuresToOpen, err)
	}
	for i, pause := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second} {
		c.move(pause - time.Millisecond)
		if err := ask(); !errors.As(err, &paused) {
			t.Errorf("pause %d is shorter than %v: %v", i, pause, err)
		}
		c.move(time.Millisecond)
		if err := ask(); err == nil || errors.As(err, new(*prom.PausedError)) {
			t.Errorf("pause %d is longer than %v: %v", i, pause, err)
		}
	}
	if h := e.Health(); h.Failures != prom.FailuresToOpen+6 || h.PausedUntil.IsZero() || h.Last == nil {
		t.Errorf("the health is %+v", h)
	}
	c.move(time.Minute)
	status.Store(http.StatusOK)
	if err := ask(); err != nil {
		t.Errorf("once it works: %v", err)
	}
	if h := e.Health(); h.Failures != 0 || !h.Success.Equal(c.now()) {
		t.Errorf("the health is %+v", h)
	}
	if results["rejected"] != 2*prom.FailuresToOpen || results["not_sent"] != 7 || results["ok"] != 1 {
		t.Errorf("the results are %v", results)
	}
}

// A caller that gives up is no failure of Prometheus; a Prometheus that hangs is.
func TestEndpointTimeout(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(release) })
	e := endpoint(t, s.URL, func(o *prom.EndpointConfig) { o.Timeout = 100 * time.Millisecond })
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Query(gone, "up"); !errors.Is(err, context.Canceled) || e.Health().Failures != 0 {
		t.Errorf("a caller that gave up: %v, %+v", err, e.Health())
	}
	if _, err := e.Query(t.Context(), "up"); err == nil || err.Error() != "no answer within 100ms" || e.Health().Failures != 1 {
		t.Errorf("a Prometheus that hangs: %v, %+v", err, e.Health())
	}
}

// No more requests are under way at once than the bound.
func TestMaxConcurrent(t *testing.T) {
	t.Parallel()
	var now, most atomic.Int64
	arrived, release := make(chan struct{}, 20), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		most.Store(max(most.Load(), now.Add(1)))
		arrived <- struct{}{}
		<-release
		now.Add(-1)
		fmt.Fprint(w, "{}")
	}))
	t.Cleanup(s.Close)
	e := endpoint(t, s.URL, func(o *prom.EndpointConfig) { o.MaxConcurrent = 3 })
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if _, err := e.Query(t.Context(), "up"); err != nil {
				t.Error(err)
			}
		})
	}
	for range 3 {
		<-arrived
	}
	close(release)
	group.Wait()
	if most.Load() != 3 {
		t.Errorf("%d requests were under way at once, want 3", most.Load())
	}
}

// The token is read for each request, and the authority when it changes; headers and parameters go
// with each request, and an answer is bounded.
func TestCredentials(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	token, ca := filepath.Join(dir, "token"), filepath.Join(dir, "ca.crt")
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		if r.Form.Get("query") == "large" {
			fmt.Fprint(w, strings.Repeat("x", 2<<10))
			return
		}
		fmt.Fprint(w, r.Header.Get("Authorization"), " ", r.Header.Get("X-Scope-OrgID"), " ", r.Form.Get("dedup"), " ", r.URL.Path)
	}))
	t.Cleanup(s.Close)
	var c clock
	write(token, "one\n")
	write(ca, "nothing")
	e := endpoint(t, s.URL+"/prometheus/", func(o *prom.EndpointConfig) {
		o.BearerTokenFile, o.CAFile, o.Clock = token, ca, c.now
		o.Headers, o.Parameters = map[string]string{"X-Scope-OrgID": "shop"}, map[string]string{"dedup": "true"}
	})
	if _, err := e.Query(t.Context(), "up"); err == nil || !strings.Contains(err.Error(), "want certificates in PEM") {
		t.Errorf("with a file that is no authority: %v", err)
	}
	write(ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	for _, text := range []string{"one", "two"} {
		write(token, text)
		got, err := e.Query(t.Context(), "up")
		if want := "Bearer " + text + " shop true /prometheus/api/v1/query"; err != nil || string(got) != want {
			t.Errorf("it is asked with %q, %v, want %q", got, err, want)
		}
	}
	var status *prom.StatusError
	if _, err := e.Query(t.Context(), "large"); !errors.As(err, &status) || !status.OfQuery() {
		t.Errorf("a large answer: %v", err)
	}
	c.move(time.Minute)
	write(ca, "nothing")
	if _, err := e.Query(t.Context(), "up"); err == nil {
		t.Error("an authority that was taken away is still used")
	}
}
