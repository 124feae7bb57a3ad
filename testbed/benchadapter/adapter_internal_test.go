package benchadapter

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A window sends each GET once, and measures answers, refusals and requests to Prometheus.
func TestWindow(t *testing.T) {
	s := &shape{metrics: 3000, pods: 1, series: 3000, span: time.Second}
	var asked atomic.Int64
	prometheus := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer prometheus.Close()
	w, err := newWay(t.Context(), prometheus.URL)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, s.metrics)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer secret":
			rw.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == api:
			fmt.Fprint(rw, "0123456789")
		default:
			seen <- r.URL.String()
			if asked.Add(1)%10 == 0 { // refused at once
				rw.WriteHeader(http.StatusTooManyRequests)
				return
			}
			if _, err := get(r.Context(), http.DefaultClient, w.url+"/api/v1/query", nil); err != nil {
				t.Error(err)
			}
		}
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	process, err := start(filepath.Join(t.TempDir(), "log"), "sleep", "60")
	if err != nil {
		t.Fatal(err)
	}
	a := &adapter{name: sluice, process: process, way: w, url: server.URL, client: server.Client(), token: "secret", firstAnswer: time.Second}
	defer a.close()
	r, err := a.window(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	close(seen)
	different := map[string]bool{}
	for path := range seen {
		if !strings.HasPrefix(path, api+"/namespaces/bench-1/pods/%2A/bench_jobs_") && !strings.HasPrefix(path, api+"/namespaces/bench-1/pods/*/bench_jobs_") {
			t.Fatalf("a GET was of %s", path)
		}
		different[path] = true
	}
	if r.Gets != 200 || len(different) != 200 {
		t.Errorf("%d GETs of %d metrics, want 200: a second of a period of 15", r.Gets, len(different))
	}
	if r.Failed != 20 || r.Queries != 180 {
		t.Errorf("%d failed, and Prometheus was asked %d times; want 20 and 180", r.Failed, r.Queries)
	}
	if r.GetP50Ms > 1000 || r.GetP99Ms < float64(patience.Milliseconds()) {
		t.Errorf("p50 is %v ms, p99 %v ms; want a refusal to count as no answer", r.GetP50Ms, r.GetP99Ms)
	}
	if r.RSSMiB <= 0 || r.CPUSecondsPer1000Gets < 0 || r.CPUSecondsPer1000Gets > 0.1 || r.DiscoveryBytes != 10 {
		t.Errorf("the run is %+v", r)
	}
}

// A process can be paused, and its end is told.
func TestProcess(t *testing.T) {
	p, err := start(filepath.Join(t.TempDir(), "log"), "sh", "-c", "echo started; while :; do :; done")
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	cpu := func() time.Duration {
		t.Helper()
		d, err := p.cpu()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	until := func(what string, holds func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !holds(); {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not within 20 s", what)
			}
			if err := pause(t.Context(), 10*time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
	}
	until("it works", func() bool { return cpu() > 20*time.Millisecond })
	p.pause()
	until("it is paused", func() bool {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		return err == nil && strings.Contains(string(raw), ") T ")
	})
	last := cpu()
	p.resume()
	until("it works again", func() bool { return cpu() > last })
	if err := p.alive(); err != nil {
		t.Error(err)
	}
	p.stop()
	if err := p.alive(); err == nil || !strings.Contains(err.Error(), "started") {
		t.Errorf("after its end: %v, want its log", err)
	}
}
