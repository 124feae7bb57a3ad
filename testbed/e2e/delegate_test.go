//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// providerImage is testbed/cmd/metrics-provider.
const providerImage = "sluice-autoscaler/metrics-provider:0.1.0"

// otherProvider is a provider of external metrics as charts install them, and two HPAs whose
// metrics only their selectors tell apart.
const otherProvider = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: provider, namespace: delegate}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "delegate:auth-delegator"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
subjects: [{kind: ServiceAccount, name: provider, namespace: delegate}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: "delegate:auth-reader", namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: extension-apiserver-authentication-reader}
subjects: [{kind: ServiceAccount, name: provider, namespace: delegate}]
---
apiVersion: v1
kind: Service
metadata: {name: provider, namespace: delegate}
spec:
  selector: {app: provider}
  ports: [{name: https, port: 443, targetPort: 6443}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: provider, namespace: delegate}
spec:
  selector: {matchLabels: {app: provider}}
  template:
    metadata: {labels: {app: provider}}
    spec:
      serviceAccountName: provider
      terminationGracePeriodSeconds: 1
      containers:
        - name: provider
          image: ` + providerImage + `
          args: [--secure-port=6443, --cert-dir=, "--values=web=42500m,mail=25"]
          ports: [{containerPort: 6443}]
          readinessProbe: {httpGet: {path: /readyz, port: 6443, scheme: HTTPS}, periodSeconds: 1}
---
`

// delegatedApp is a Deployment and its HPA on the metric that KEDA would have made.
const delegatedApp = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, namespace: delegate}
spec:
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: app
          image: sluice-autoscaler/sample:0.1.0
          args: [--listen=127.0.0.1:8080]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: NAME, namespace: delegate}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: NAME}
  minReplicas: 1
  maxReplicas: 10
  metrics:
    - {type: External, external: {metric: {name: s0-prometheus, selector: {matchLabels: {scaledobject.keda.sh/name: NAME}}}, target: {type: AverageValue, averageValue: "10"}}}
---
`

// TestDelegate puts another API server of metrics behind Sluice: stock HPAs scale on it by the key
// of their selectors, each to the count of its formula, and a write to the APIService as KEDA's
// rotator does it is told within 10 s. It is not parallel: it restarts the controller.
func TestDelegate(t *testing.T) {
	const ns, apiService = "delegate", "v1beta1.external.metrics.k8s.io"
	if err := cluster.EnsureNamespace(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	logsOnFailure(t, ns)
	if err := cluster.Apply(t.Context(), []byte(otherProvider)); err != nil {
		t.Fatal(err)
	}
	if err := cluster.WaitReplicas(t.Context(), time.Minute, ns, "provider", "the provider is ready", func(_, ready int32) bool { return ready == 1 }); err != nil {
		t.Fatal(err)
	}
	url, err := cluster.ServiceURL(t.Context(), ns, "provider")
	if err != nil {
		t.Fatal(err)
	}
	address := strings.TrimPrefix(strings.TrimPrefix(url, "http://"), "https://")
	// There is no DNS in the testbed, so that the Service is named by its address.
	err = cluster.Install(t.Context(), 2*time.Minute, "--set-json", fmt.Sprintf(
		`delegates=[{"name":"keda","url":"https://%s","ca":{"insecureSkipTLSVerify":true},"apis":["external"],`+
			`"match":[{"selectorKey":"scaledobject.keda.sh/name"},{"metricPattern":"datadogmetric@[a-z0-9-]+:[a-z0-9-]+"}]}]`, address))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int32{"web": 5, "mail": 3}
	for name := range want {
		if err := cluster.Apply(t.Context(), []byte(strings.ReplaceAll(delegatedApp, "NAME", name))); err != nil {
			t.Fatal(err)
		}
	}
	reached := func(ctx context.Context) (string, bool) {
		got, err := cluster.Kubectl(ctx, "get", "hpa", "-n", ns, "-o", `jsonpath={range .items[*]}{.metadata.name}={.status.currentReplicas}/{.status.desiredReplicas} {end}`)
		if err != nil {
			return err.Error(), false
		}
		for name, n := range want {
			if !strings.Contains(got, fmt.Sprintf("%s=%d/%d", name, n, n)) {
				return got, false
			}
		}
		return got, true
	}
	wait(t, 2*time.Minute, "the counts of the formulas", reached)
	const external = "/apis/external.metrics.k8s.io/v1beta1"
	for path, part := range map[string]string{
		external: "s0-prometheus",
		external + "/namespaces/delegate/s0-prometheus?labelSelector=scaledobject.keda.sh%2Fname%3Dweb": `"42500m"`,
		external + "/namespaces/delegate/datadogmetric@prod:api-rps":                                    `"datadogmetric@prod:api-rps"`,
		external + "/namespaces/delegate/datadogmetric%40prod%3Aapi-rps":                                `"7"`,
	} {
		if out, err := cluster.Kubectl(t.Context(), "get", "--raw", path); err != nil || !strings.Contains(out, part) {
			t.Errorf("%s: %s, %v", path, out, err)
		}
	}
	if out, err := cluster.Kubectl(t.Context(), "get", "--raw", external+"/namespaces/delegate/s0-prometheus?labelSelector=scaledobject.keda.sh%2Fname%3Dnobody"); err == nil || !strings.Contains(out+err.Error(), "delegate keda") {
		t.Errorf("an error of the provider: %s, %v", out, err)
	}
	said, err := cluster.Sluice(t.Context(), "explain", "metric", "s0-prometheus", "-n", ns, "--selector", "scaledobject.keda.sh/name=web")
	if err != nil || !strings.Contains(said, "keda at https://"+address) || !strings.Contains(said, "42500m") {
		t.Errorf("sluice explain metric says %s, %v", said, err)
	}
	if said, err := cluster.Sluice(t.Context(), "check", "--cluster"); err != nil || strings.Contains(said, "warning") {
		t.Errorf("sluice check says %s, %v", said, err)
	}
	began := time.Now()
	if out, err := cluster.Kubectl(t.Context(), "patch", "apiservice", apiService, "--type=merge", "--field-manager=keda", "-p", `{"spec":{"caBundle":"eA=="}}`); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wait(t, 10*time.Second, "an event that names the writer", func(ctx context.Context) (string, bool) {
		out, err := cluster.Kubectl(ctx, "get", "events", "-n", "default", "-o", `jsonpath={range .items[*]}{.reason} {.message}{"\n"}{end}`)
		return out, err == nil && strings.Contains(out, "APIServiceForeignWrite") && strings.Contains(out, `"keda"`)
	})
	t.Logf("told after %v", time.Since(began).Round(time.Millisecond))
	wait(t, 15*time.Second, "Sluice's authority again", func(ctx context.Context) (string, bool) {
		out, err := cluster.Kubectl(ctx, "get", "apiservice", apiService, "-o", "jsonpath={.spec.caBundle}")
		return out, err == nil && len(out) > 100
	})
	if got, ok := reached(t.Context()); !ok {
		t.Errorf("later there are %s, want %v", got, want)
	}
	for _, object := range [][]string{{"hpa,deployments", "--all", "-n", ns}, {"clusterrolebinding", "delegate:auth-delegator"}, {"rolebinding", "delegate:auth-reader", "-n", "kube-system"}} {
		if out, err := cluster.Kubectl(t.Context(), append([]string{"delete"}, object...)...); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	if err := cluster.Install(t.Context(), 2*time.Minute); err != nil { // the defaults again
		t.Fatal(err)
	}
}
