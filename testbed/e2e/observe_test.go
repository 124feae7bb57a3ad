//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// observeMode measures a pod from outside the path of its requests, by a sidecar without root and
// without any capability, and reads through the metrics API what a HorizontalPodAutoscaler would:
// idle keep-alive connections count as 0, and seven requests in flight as seven, within the 10 %
// that docs/observe.md promises. Nothing heavy may run beside it: what it measures is how well the
// observer keeps up.
func observeMode(t *testing.T) {
	t.Parallel()
	const (
		ns              = "observe"
		idle, n         = 11, 7
		settle          = 30 * time.Second
		millis          = 1000 // between two requests, on a busy machine, a client is not in flight
		tolerance       = 0.10
		concurrency     = "request_concurrency"
		connectionsIdle = `sluice_observe_connections{kind="idle"}`
	)
	apply(t, ns, "observe.yaml")
	url, err := cluster.ServiceURL(t.Context(), ns, "web")
	if err != nil {
		t.Fatal(err)
	}
	waitReplicas(t, ns, time.Minute, "1 ready", func(_, ready int32) bool { return ready == 1 })
	answers(t, url)
	unprivileged(t)

	// Each keeps its connection, and lets it rest.
	for range idle {
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		if err := get(t.Context(), client, url); err != nil {
			t.Fatal(err)
		}
	}
	served := func(ctx context.Context) (string, bool) {
		m, err := cluster.DeploymentMetric(ctx, ns, "web", concurrency, 0)
		return fmt.Sprintf("%v, %v", m.Value, err), err == nil && m.Value == 0
	}
	wait(t, time.Minute, "a concurrency of 0", served)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for range 10 {
		<-tick.C
		if got, ok := served(t.Context()); !ok {
			t.Errorf("the API serves %s with %d idle connections, want 0", got, idle)
		}
	}
	own := observed(t, ns)
	if got := own[connectionsIdle]; got < idle {
		t.Errorf("%s = %v, want at least %d: the connections are not seen at all", connectionsIdle, got, idle)
	}

	stop := closedLoop(t.Context(), url, n, millis)
	reads, worst := holds(t, ns, n, settle, tolerance)
	own = observed(t, ns)
	answered, err := stop()
	if err != nil {
		t.Errorf("a request was lost: %v", err)
	}
	if got := own["sluice_observe_coverage_ratio"]; got != 1 {
		t.Errorf("coverage %v of plain HTTP/1.1, want 1", got)
	}
	wait(t, time.Minute, "a concurrency of 0 after the load", served)
	t.Logf("N = %d beside %d idle connections: %d reads, the worst %.2f %% off, own estimate of the error %.2f %%; %d requests answered",
		n, idle, reads, 100*worst, 100*own["sluice_observe_error_ratio"], answered)
}

// unprivileged fails the test unless the observer runs without root and without capabilities.
func unprivileged(t *testing.T) {
	t.Helper()
	for _, p := range cluster.Processes("sluice-sidecar") {
		// Its arguments tell it from the proxies of other tests.
		args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
		if err != nil || !strings.Contains(string(args), "\x00observe\x00") {
			continue
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(status)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
			switch {
			case strings.HasPrefix(name, "Cap") && strings.Trim(value, "0") != "":
				t.Errorf("the observer's %s is %s, want none", name, value)
			case name == "Uid" && !strings.HasPrefix(value, "65532\t"):
				t.Errorf("the observer's users are %s, want 65532", value)
			}
		}
		return
	}
	t.Fatal("the observer's process is not found")
}

// observed reads the observer's own exposition: the values of metrics by name and labels.
func observed(t *testing.T, ns string) map[string]float64 {
	t.Helper()
	pods, err := cluster.Pods(t.Context(), ns, "app=web")
	if err != nil || len(pods) != 1 {
		t.Fatalf("find the pod: %v, %d pods", err, len(pods))
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+net.JoinHostPort(pods[0].Status.PodIP, "9095")+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := fresh().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			values[name] = v
		}
	}
	return values
}
