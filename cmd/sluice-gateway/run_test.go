package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/sluice-autoscaler/sluice/wire"
)

// The command against an API server that knows no slices: it becomes ready, takes assignments,
// holds, and drains.
func TestServes(t *testing.T) {
	kubeconfig := emptyCluster(t)
	controlPort, metricsPort, port := 0, 0, freePort(t)
	control, metrics, stop := startGateway(t, kubeconfig, "--insecure-control")
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

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}
