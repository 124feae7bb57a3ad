package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/internal/pki"
	"github.com/sluice-autoscaler/sluice/wire"
)

// The command against an API server that knows no slices: it becomes ready, takes assignments,
// holds, and drains.
func TestServes(t *testing.T) {
	kubeconfig := emptyCluster(t)
	controlPort, metricsPort, port := 0, 0, freePort(t)
	control, metrics, stop := startGateway(t, kubeconfig, "--insecure-control", "--open-metrics")
	_, _ = fmt.Sscanf(control, "127.0.0.1:%d", &controlPort)
	_, _ = fmt.Sscanf(metrics, "127.0.0.1:%d", &metricsPort)
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
	push, err := json.Marshal(wire.Assignments{Epoch: 1, Generation: 1, Ports: []wire.Assignment{
		{Namespace: "shop", Service: "web", Listen: port, Protocol: "http", InPath: true, HoldSeconds: 0.05},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if code, answer := fetch(http.MethodPut, controlPort, wire.OwnerPath("main"), string(push)); code != 204 {
		t.Fatalf("PUT = %d %s", code, answer)
	}
	if code, answer := fetch(http.MethodGet, port, "/", ""); code != 504 {
		t.Errorf("held request = %d %s, want 504 after 50 ms", code, answer)
	}
	if _, answer := fetch(http.MethodGet, metricsPort, "/metrics", ""); !strings.Contains(answer, `sluice_gateway_requests_expired_total{namespace="shop",service="web"} 1`) {
		t.Errorf("/metrics lacks the expired request:\n%s", answer)
	}
	stop()
	if code, _ := fetch(http.MethodGet, metricsPort, "/healthz", ""); code != 0 {
		t.Errorf("after the end /healthz = %d, want a closed port", code)
	}
}

// Metrics name all tenants' Services. They are served by TLS to who may get them, health to
// everybody.
func TestWhoReadsMetrics(t *testing.T) {
	for _, open := range []bool{false, true} {
		t.Run(fmt.Sprintf("open=%v", open), func(t *testing.T) { whoReadsMetrics(t, open) })
	}
}

func whoReadsMetrics(t *testing.T, open bool) {
	f := &files{dir: t.TempDir()}
	authority, err := pki.Authority{}.Step(time.Now(), policy())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Renew(pki.Pair{}, pki.Gateway(namespace), time.Now(), policy())
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, pair)
	more := f.flags()
	if open {
		more = append(more, "--open-metrics")
	}
	_, metrics, _ := startGateway(t, emptyCluster(t), more...)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pair.CA)
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: pki.Gateway(namespace).Names[0]},
	}}
	for _, tt := range []struct {
		path, token string
		want        int
	}{
		{"/metrics", "", 401},
		{"/metrics", "tenant", 403},
		{"/metrics", "scraper", 200},
		{"/healthz", "", 200},
		{"/readyz", "", 200},
	} {
		if open {
			tt.want = 200
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+metrics+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tt.token != "" {
			req.Header.Set("Authorization", "Bearer "+tt.token)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != tt.want {
			t.Errorf("GET %s by %q = %d %s, %v; want %d", tt.path, tt.token, res.StatusCode, body, err, tt.want)
		}
		if shown := strings.Contains(string(body), "sluice_gateway_"); shown != (tt.path == "/metrics" && tt.want == 200) {
			t.Errorf("GET %s by %q shows metrics: %v", tt.path, tt.token, shown)
		}
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
