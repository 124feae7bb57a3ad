//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestRollingRestarts restarts a Deployment of three pods again and again under 200 requests a
// second, over keep-alive HTTP/1.1 and over HTTP/2 connections, by POST, which no client repeats by
// itself. None may fail. SLUICE_RESTARTS sets how many restarts.
func TestRollingRestarts(t *testing.T) {
	const ns = "restarts"
	restarts := 15
	if s := os.Getenv("SLUICE_RESTARTS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("SLUICE_RESTARTS = %q: want a number ≥ 1", s)
		}
		restarts = n
	}
	url := web(t, ns, "replicas: 1", "replicas: 3")
	waitReplicas(t, ns, time.Minute, "3 ready", func(_, ready int32) bool { return ready == 3 })
	answers(t, url)

	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	load := steady(t.Context(), url, map[string]*http.Transport{"HTTP/1.1": {MaxIdleConnsPerHost: 100}, "HTTP/2": h2}, 100)
	for i := range restarts {
		// What `kubectl rollout restart` does, which refuses to do it twice within a second.
		patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"restart":"%d"}}}}}`, i)
		if out, err := cluster.Kubectl(t.Context(), "patch", "deployment", "web", "-n", ns, "-p", patch); err != nil {
			t.Fatalf("restart %d: %v: %s", i, err, out)
		}
		if out, err := cluster.Kubectl(t.Context(), "rollout", "status", "deployment/web", "-n", ns, "--timeout=60s"); err != nil {
			t.Fatalf("restart %d: %v: %s", i, err, out)
		}
	}
	answered, faults := load()
	for _, f := range faults {
		t.Error(f)
	}
	t.Logf("%d restarts of 3 pods, %d requests answered, %d failed", restarts, answered, len(faults))
	if out, err := cluster.Logs("kube-proxy", 100_000); err != nil {
		t.Error(err)
	} else if n := strings.Count(out, "nftables sync failed"); n > 0 {
		// then it leads connections to pods that have gone, for up to 30 s
		t.Logf("kube-proxy failed to write its rules %d times", n)
	}
}

// steady posts rate requests a second over each transport until stop is called, which returns how
// many were answered and the faults.
func steady(ctx context.Context, url string, transports map[string]*http.Transport, rate int) (stop func() (int, []string)) {
	ctx, cancel := context.WithCancel(ctx)
	var (
		mu       sync.Mutex
		answered int
		faults   []string
		all      sync.WaitGroup
	)
	for name, tr := range transports {
		client := &http.Client{Transport: tr, Timeout: 30 * time.Second}
		all.Go(func() {
			tick := time.NewTicker(time.Second / time.Duration(rate))
			defer tick.Stop()
			defer tr.CloseIdleConnections()
			var running sync.WaitGroup
			defer running.Wait()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				running.Go(func() {
					err := post(context.WithoutCancel(ctx), client, url+"/?ms=20")
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						answered++
					} else if len(faults) < 20 {
						faults = append(faults, fmt.Sprintf("%s %s: %v", time.Now().Format("15:04:05.000"), name, err))
					}
				})
			}
		})
	}
	return func() (int, []string) {
		cancel()
		all.Wait()
		return answered, faults
	}
}

// post asks once, with a body, and returns an error for anything but 200.
func post(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("ping"))
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	if closeErr := res.Body.Close(); err == nil {
		err = closeErr
	}
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s, reason %q", res.Status, res.Header.Get("Sluice-Reason"))
	}
	return err
}
