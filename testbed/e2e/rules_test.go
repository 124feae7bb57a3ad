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

// rulesApp is a StatefulSet, whose pods' names are known beforehand, and an HPA on a metric.
const rulesApp = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: NAME, namespace: rules}
spec:
  serviceName: NAME
  podManagementPolicy: Parallel
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
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: NAME, namespace: rules}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: StatefulSet, name: NAME}
  minReplicas: 1
  maxReplicas: 10
  metrics:
    - METRIC
---
`

// usage is a resource rule for pods.
func usage(series string) string {
	return `{"containerQuery":"sum(` + series + `{<<.LabelMatchers>>}) by (<<.GroupBy>>)","nodeQuery":"sum(` + series + `{<<.LabelMatchers>>}) by (<<.GroupBy>>)",` +
		`"resources":{"template":"<<.Resource>>"},"containerLabel":"container"}`
}

// TestRules lets stock HorizontalPodAutoscalers of all kinds but ContainerResource scale on
// rules of a real Prometheus: each reaches exactly the count that its formula gives. It is not
// parallel: it restarts the controller.
func TestRules(t *testing.T) {
	const ns = "rules"
	now := time.Now().Truncate(time.Second)
	constant := func(v float64) func(time.Time) (float64, bool) {
		return func(time.Time) (float64, bool) { return v, true }
	}
	series := []promtest.Series{
		{Kind: "gauge", Name: "queue_depth", Labels: `namespace="rules",queue="mail"`, Value: constant(42.5)},
		{Kind: "gauge", Name: "orders", Labels: `namespace="rules",service="shop"`, Value: constant(61)},
	}
	for _, name := range []string{"cpu_cores", "memory_bytes"} { // 400 Mi in all
		for i := range 10 {
			v := 0.0
			if i == 0 {
				v = 400 << 20
			}
			series = append(series, promtest.Series{
				Kind: "gauge", Name: name, Labels: fmt.Sprintf(`namespace="rules",pod="resource-%d",container="app"`, i), Value: constant(v),
			})
		}
	}
	for i := range 10 { // 60 in all, whatever the count
		v := 0.0
		if i == 0 {
			v = 60
		}
		series = append(series, promtest.Series{Kind: "gauge", Name: "jobs", Labels: fmt.Sprintf(`namespace="rules",pod="pods-%d"`, i), Value: constant(v)})
	}
	url := promtest.Start(t, network.Host().String(), now.Add(-5*time.Minute), now.Add(30*time.Minute), series...)
	if err := cluster.EnsureNamespace(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	logsOnFailure(t, ns)
	const query = `"resources":{"template":"<<.Resource>>"},"metricsQuery":"sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)"`
	err := cluster.Install(t.Context(), 2*time.Minute, "--set", "prometheus.url="+url, "--set", "prometheus.interval=2s", "--set", "rules.default=false",
		"--set-json", `rules.custom=[{"seriesQuery":"{__name__=~\"jobs|orders\"}",`+query+`}]`,
		"--set-json", `rules.external=[{"seriesQuery":"queue_depth","resources":{"template":"<<.Resource>>"},"metricsQuery":"sum(<<.Series>>{<<.LabelMatchers>>})"}]`,
		"--set", "apiServices.resource=true", "--set-json", `rules.resource={"window":"1m","cpu":`+usage("cpu_cores")+`,"memory":`+usage("memory_bytes")+`}`)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int32{"pods": 3, "object": 7, "external": 5, "resource": 4}
	for name, metric := range map[string]string{
		"pods":     `{type: Pods, pods: {metric: {name: jobs}, target: {type: AverageValue, averageValue: "20"}}}`,
		"object":   `{type: Object, object: {describedObject: {apiVersion: v1, kind: Service, name: shop}, metric: {name: orders}, target: {type: AverageValue, averageValue: "10"}}}`,
		"resource": `{type: Resource, resource: {name: memory, target: {type: AverageValue, averageValue: 100Mi}}}`,
		"external": `{type: External, external: {metric: {name: queue_depth}, target: {type: AverageValue, averageValue: "10"}}}`,
	} {
		if err := cluster.Apply(t.Context(), []byte(strings.NewReplacer("NAME", name, "METRIC", metric).Replace(rulesApp))); err != nil {
			t.Fatal(err)
		}
	}
	counts := func(ctx context.Context) string {
		out, err := cluster.Kubectl(ctx, "get", "hpa", "-n", ns, "-o", `jsonpath={range .items[*]}{.metadata.name}={.status.currentReplicas}/{.status.desiredReplicas} {end}`)
		if err != nil {
			return err.Error()
		}
		return strings.TrimSpace(out)
	}
	reached := func(ctx context.Context) (string, bool) {
		got := counts(ctx)
		for name, n := range want {
			if !strings.Contains(got, fmt.Sprintf("%s=%d/%d", name, n, n)) {
				return got, false
			}
		}
		return got, true
	}
	wait(t, 2*time.Minute, "the counts of the formulas", reached)
	out, err := cluster.Kubectl(t.Context(), "get", "--raw", "/apis/custom.metrics.k8s.io/v1beta2/namespaces/rules/pods/*/jobs?labelSelector=app%3Dpods")
	if err != nil || strings.Count(out, `"metricValue"`)+strings.Count(out, `"value"`) < 3 {
		t.Errorf("the metrics API answers %s, %v", out, err)
	}
	if out, err := cluster.Kubectl(t.Context(), "get", "--raw", "/apis/external.metrics.k8s.io/v1beta1"); err != nil || !strings.Contains(out, "queue_depth") {
		t.Errorf("discovery is %s, %v", out, err)
	}
	said, err := cluster.Sluice(t.Context(), "explain", "metric", "jobs", "-n", ns, "--object", "pods/pods-0")
	if err != nil || !strings.Contains(said, `sum(jobs{namespace="rules",pod!=""}) by (pod)`) || !strings.Contains(said, "pods-0 = 60") {
		t.Errorf("sluice explain metric says %s, %v", said, err)
	}
	t.Logf("sluice explain metric:\n%s", said)
	if got, ok := reached(t.Context()); !ok {
		t.Errorf("later there are %s, want %v", got, want)
	}
	// The defaults again. They leave metrics.k8s.io out, and applying the chart prunes nothing.
	if out, err := cluster.Kubectl(t.Context(), "delete", "apiservice", "v1beta1.metrics.k8s.io"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := cluster.Install(t.Context(), 2*time.Minute); err != nil {
		t.Fatal(err)
	}
}
