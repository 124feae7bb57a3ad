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

// signalsApp is a Deployment without a sidecar, and its Autoscaler.
const signalsApp = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, namespace: signals, annotations: ANNOTATIONS}
spec:
  replicas: 1
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: app
          image: sluice-autoscaler/sample:0.1.0
          args: [--listen=127.0.0.1:8080]
          securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
---
apiVersion: sluice.dev/v1alpha1
kind: Autoscaler
metadata: {name: NAME, namespace: signals}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: NAME}
  minReplicas: 1
  maxReplicas: 10
  signals:
    - SIGNAL
  policy: {name: target, parameters: {window: 10s}}
---
`

// TestSignals scales Deployments without sidecars on a rule's metric, on a query of the
// Autoscaler's own and on a preset, all of a real Prometheus. It is not parallel: it restarts the
// controller.
func TestSignals(t *testing.T) {
	const ns = "signals"
	now := time.Now().Truncate(time.Second)
	constant := func(v float64) func(time.Time) (float64, bool) {
		return func(time.Time) (float64, bool) { return v, true }
	}
	url := promtest.Start(t, network.Host().String(), now.Add(-5*time.Minute), now.Add(30*time.Minute),
		promtest.Series{Kind: "gauge", Name: "queue_depth", Labels: `namespace="signals",queue="mail"`, Value: constant(42.5)},
		promtest.Series{Kind: "gauge", Name: "queue_depth", Labels: `namespace="other",queue="mail"`, Value: constant(1e6)},
		promtest.Series{Kind: "gauge", Name: "app_in_flight", Labels: `namespace="signals",pod="preset-bcdfgh-bcdfg"`, Value: constant(61)},
		promtest.Series{Kind: "gauge", Name: "app_in_flight", Labels: `namespace="other",pod="preset-bcdfgh-bcdfg"`, Value: constant(1e6)},
	)
	if err := cluster.EnsureNamespace(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	logsOnFailure(t, ns)
	err := cluster.Install(t.Context(), 2*time.Minute, "--set", "prometheus.url="+url, "--set", "prometheus.interval=2s", "--set", "prometheus.tenantQueries=true", "--set", "rules.default=false",
		"--set-json", `rules.external=[{"seriesQuery":"queue_depth","resources":{"template":"<<.Resource>>"},"metricsQuery":"sum(<<.Series>>{<<.LabelMatchers>>})"}]`)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"rule": 5, "own": 3, "preset": 7}
	for name, app := range map[string]struct{ signal, annotations string }{
		"rule": {`{name: queue_depth, target: {averageValue: "10"}}`, "{}"},
		"own":  {`{name: mails, target: {averageValue: "20"}, prometheus: {query: 'sum(queue_depth)', interval: 5s}}`, "{}"},
		"preset": {
			`{name: concurrency, target: {averageValue: "10"}}`, `{sluice.dev/prometheus-preset: in-flight, sluice.dev/prometheus-metric: app_in_flight}`,
		},
	} {
		if err := cluster.Apply(t.Context(), []byte(strings.NewReplacer("NAME", name, "SIGNAL", app.signal, "ANNOTATIONS", app.annotations).Replace(signalsApp))); err != nil {
			t.Fatal(err)
		}
	}
	wait(t, 3*time.Minute, "the counts of the signals", func(ctx context.Context) (string, bool) {
		out, err := cluster.Kubectl(ctx, "get", "deployments", "-n", ns, "-o", `jsonpath={range .items[*]}{.metadata.name}={.spec.replicas} {end}`)
		if err != nil {
			return err.Error(), false
		}
		for name, n := range want {
			if !strings.Contains(" "+out+" ", fmt.Sprintf(" %s=%d ", name, n)) {
				return out, false
			}
		}
		return out, true
	})
	// The same number for an HPA, though no pod has a sidecar.
	wait(t, time.Minute, "request_concurrency of a Deployment without a sidecar", func(ctx context.Context) (string, bool) {
		out, err := cluster.Kubectl(ctx, "get", "--raw", "/apis/custom.metrics.k8s.io/v1beta2/namespaces/signals/deployments.apps/preset/request_concurrency")
		if err != nil {
			return err.Error(), false
		}
		return out, strings.Contains(out, `"value":"61"`)
	})
	said, err := cluster.Sluice(t.Context(), "explain", "rule", "-n", ns)
	if err != nil || !strings.Contains(said, "queue_depth over 10s 42.5") {
		t.Errorf("sluice explain says %s, %v", said, err)
	}
	if out, err := cluster.Kubectl(t.Context(), "delete", "autoscalers", "--all", "-n", ns); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := cluster.Install(t.Context(), 2*time.Minute); err != nil {
		t.Fatal(err)
	}
}
