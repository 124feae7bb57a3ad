package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/wire"
)

// The command against an API server that knows no slices: it becomes ready, takes assignments, holds, and drains.
func TestServes(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Query().Get("watch") != "" {
			w.WriteHeader(http.StatusOK)
			if r.URL.Query().Get("sendInitialEvents") != "" {
				_, _ = io.WriteString(w, `{"type":"BOOKMARK","object":{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"resourceVersion":"1","annotations":{"k8s.io/initial-events-end":"true"}}}}`)
			}
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		_, _ = io.WriteString(w, `{"kind":"EndpointSliceList","apiVersion":"discovery.k8s.io/v1","metadata":{"resourceVersion":"1"},"items":[]}`)
	}))
	defer api.Close()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: %q}}], contexts: [{name: c, context: {cluster: c}}]}", api.URL)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	control, metrics, port := freePort(t), freePort(t), freePort(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{
			"--name=gw", "--kubeconfig", kubeconfig, fmt.Sprintf("--control-listen=127.0.0.1:%d", control),
			fmt.Sprintf("--metrics-listen=127.0.0.1:%d", metrics), "--listen-host=127.0.0.1", "--lame-duck=0s",
		}, io.Discard, io.Discard)
	}()
	fetch := func(method string, port int, path, body string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer func() { _ = res.Body.Close() }()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(b)
	}
	defer http.DefaultClient.CloseIdleConnections()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		code, answer := fetch(http.MethodGet, metrics, "/readyz", "")
		if code == 200 {
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not ready: %d %s", code, answer)
		}
	}
	push, err := json.Marshal(wire.Assignments{Epoch: 1, Generation: 1, Ports: []wire.Assignment{
		{Namespace: "shop", Service: "web", Listen: port, Protocol: "http", InPath: true, HoldSeconds: 0.05},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if code, answer := fetch(http.MethodPut, control, wire.OwnerPath("main"), string(push)); code != 204 {
		t.Fatalf("PUT = %d %s", code, answer)
	}
	if code, answer := fetch(http.MethodGet, port, "/", ""); code != 504 {
		t.Errorf("held request = %d %s, want 504 after 50 ms", code, answer)
	}
	if _, answer := fetch(http.MethodGet, metrics, "/metrics", ""); !strings.Contains(answer, `sluice_gateway_requests_expired_total{namespace="shop",service="web"} 1`) {
		t.Errorf("/metrics lacks the expired request:\n%s", answer)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run() = %v, want nil", err)
	}
	if code, _ := fetch(http.MethodGet, metrics, "/healthz", ""); code != 0 {
		t.Errorf("after the end /healthz = %d, want a closed port", code)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}
