//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/internal/promtest"

	"github.com/sluice-autoscaler/sluice/testbed/internal/network"
)

// TestHistory has the controller teach a policy the past of its workload, of two days, from a real
// Prometheus; one that Prometheus does not know begins without. Both scale. It is not parallel: it
// restarts the controller.
func TestHistory(t *testing.T) {
	end := time.Now().Truncate(time.Minute)
	begin := end.AddDate(0, 0, -2)
	const known, unknown = "known", "unknown"
	url := promtest.Start(t, network.Host().String(), begin, end, promtest.Series{
		Kind: "counter", Name: "sluice_request_concurrency_seconds_total", Labels: `namespace="` + known + `",pod="web-6d4cf56db6-x7k2p"`,
		Value: func(at time.Time) (float64, bool) { return 3 * at.Sub(begin).Seconds(), true },
	})
	if err := cluster.Install(t.Context(), 2*time.Minute, "--set", "controller.history.prometheus="+url, "--set", "controller.history.range=24h"); err != nil {
		t.Fatal(err)
	}
	// note is what an event in a namespace says.
	note := func(ctx context.Context, ns, reason string) string {
		out, err := cluster.Kubectl(ctx, "get", "events.events.k8s.io", "-n", ns, "-o", `jsonpath={.items[?(@.reason=="`+reason+`")].note}`)
		if err != nil {
			return err.Error()
		}
		return out
	}
	for _, ns := range []string{known, unknown} {
		url := web(t, ns)
		apply(t, ns, "autoscaler.yaml", "name: kpa\n    parameters: {stableWindow: 12s, panicWindowPercentage: 25}", "name: lookahead", "after: 12s", "after: 1s")
		answers(t, url)
	}
	wait(t, time.Minute, "a past that was learnt", func(ctx context.Context) (string, bool) {
		got := note(ctx, known, "HistoryLearned")
		var n int
		_, err := fmt.Sscanf(got, "the policy has learnt %d samples of concurrency", &n)
		return got, err == nil && n > 1400 && n <= 1440
	})
	wait(t, time.Minute, "a past of which nothing is known", func(ctx context.Context) (string, bool) {
		got := note(ctx, unknown, "HistoryEmpty")
		return got, strings.Contains(got, "nothing is known yet of the past of this workload")
	})
	for _, ns := range []string{known, unknown} {
		url, err := cluster.ServiceURL(t.Context(), ns, "web")
		if err != nil {
			t.Fatal(err)
		}
		answers(t, url) // with the policy that has learnt
	}
	// the defaults again, for the tests after this one
	if err := cluster.Install(t.Context(), 2*time.Minute); err != nil {
		t.Fatal(err)
	}
}
