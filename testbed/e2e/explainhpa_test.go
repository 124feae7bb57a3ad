//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/internal/promtest"

	"github.com/sluice-autoscaler/sluice/testbed/internal/network"
)

// explanation is as much of `sluice explain hpa/NAME -o json` as is looked at.
type explanation struct {
	Sentence, State string
	Desired         *int
	Lowest, Highest *int
	Metrics         []struct {
		Name, Value string
		Replicas    *int
		Trouble     *struct{ Cause, Remedy string }
	}
	Controller struct{ DesiredReplicas int }
}

// TestExplainHPA runs `sluice explain hpa` beside the real HPA controller: what its sentence says is
// what the controller does. It is not parallel: it restarts the controller of Sluice.
func TestExplainHPA(t *testing.T) {
	const ns = "rules"
	now := time.Now().Truncate(time.Second)
	series := []promtest.Series{{
		Kind: "gauge", Name: "queue_depth", Labels: `namespace="rules",queue="mail"`,
		Value: func(time.Time) (float64, bool) { return 42.5, true },
	}}
	url := promtest.Start(t, network.Host().String(), now.Add(-5*time.Minute), now.Add(30*time.Minute), series...)
	if err := cluster.EnsureNamespace(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	logsOnFailure(t, ns)
	err := cluster.Install(t.Context(), 2*time.Minute, "--set", "prometheus.url="+url, "--set", "prometheus.interval=2s", "--set", "rules.default=false",
		"--set-json", `rules.external=[{"seriesQuery":"queue_depth","resources":{"template":"<<.Resource>>"},"metricsQuery":"sum(<<.Series>>{<<.LabelMatchers>>})"}]`)
	if err != nil {
		t.Fatal(err)
	}
	const external = `{type: External, external: {metric: {name: METRIC}, target: {type: AverageValue, averageValue: "10"}}}`
	for name, metric := range map[string]string{
		"served":  strings.ReplaceAll(external, "METRIC", "queue_depth"),
		"missing": strings.ReplaceAll(external, "METRIC", "no_such_metric"),
		"nobody":  `{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}`,
	} {
		if err := cluster.Apply(t.Context(), []byte(strings.NewReplacer("NAME", "explain-"+name, "METRIC", metric).Replace(rulesApp))); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(ctx context.Context, name string) (x explanation, said string) {
		said, err := cluster.Sluice(ctx, "explain", "hpa/explain-"+name, "-n", ns, "-o", "json")
		if err != nil {
			return x, err.Error()
		}
		if err := json.Unmarshal([]byte(said), &x); err != nil {
			return x, err.Error()
		}
		return x, said
	}
	for name, want := range map[string]struct{ sentence, state, cause string }{
		"served":  {"StatefulSet rules/explain-served stays at 5 replicas: external queue_depth is 42500m where the target is 10 a pod", "Steady", ""},
		"missing": {"StatefulSet rules/explain-missing stays at 1 replica: external no_such_metric has no value", "NoMetrics", "external.metrics.k8s.io has no metric no_such_metric here"},
		"nobody":  {"StatefulSet rules/explain-nobody stays at 1 replica: cpu has no value", "NoMetrics", "nothing serves metrics.k8s.io in this cluster"},
	} {
		var x explanation
		wait(t, 2*time.Minute, "what the controller does with "+name, func(ctx context.Context) (string, bool) {
			var said string
			x, said = ask(ctx, name)
			// The controller has looked at it, and its count is the one that is explained.
			return said, x.State == want.state && strings.HasPrefix(x.Sentence, want.sentence) && !strings.Contains(x.Sentence, "has not looked")
		})
		if x.Desired == nil || *x.Desired != x.Controller.DesiredReplicas && want.state == "Steady" {
			t.Errorf("%s: explained are %v, the controller wants %d: %s", name, x.Desired, x.Controller.DesiredReplicas, x.Sentence)
		}
		if trouble := x.Metrics[0].Trouble; (trouble != nil) != (want.cause != "") || trouble != nil && (!strings.Contains(trouble.Cause, want.cause) || trouble.Remedy == "") {
			t.Errorf("%s: the metric's trouble is %+v, want %q", name, trouble, want.cause)
		}
	}
	said, err := cluster.Sluice(t.Context(), "explain", "hpa/explain-served", "-n", ns)
	if err != nil || !strings.Contains(said, "ScalingActive is True, ValidMetricFound") {
		t.Errorf("sluice explain hpa says %s, %v", said, err)
	}
	t.Logf("sluice explain hpa:\n%s", said)
	explainHold(t, ns, ask)
	for _, name := range []string{"served", "missing", "nobody"} {
		if out, err := cluster.Kubectl(t.Context(), "delete", "hpa,statefulset", "-n", ns, "explain-"+name); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	if err := cluster.Install(t.Context(), 2*time.Minute); err != nil {
		t.Fatal(err)
	}
}

// explainHold lowers the demand: the stabilization window holds the count, and the sentence says so
// while the controller does it.
func explainHold(t *testing.T, ns string, ask func(context.Context, string) (explanation, string)) {
	t.Helper()
	patch := `[{"op":"replace","path":"/spec/metrics/0/external/target/averageValue","value":"40"}]`
	if out, err := cluster.Kubectl(t.Context(), "patch", "hpa", "explain-served", "-n", ns, "--type=json", "-p", patch); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wait(t, time.Minute, "the stabilization window holds the count", func(ctx context.Context) (string, bool) {
		x, said := ask(ctx, "served")
		reason, err := cluster.Kubectl(ctx, "get", "hpa", "explain-served", "-n", ns, "-o", `jsonpath={.status.conditions[?(@.type=="AbleToScale")].reason} {.status.desiredReplicas}`)
		if err != nil {
			return err.Error(), false
		}
		ok := reason == "ScaleDownStabilized 5" && x.Highest != nil && *x.Highest == 5 && x.State != "Down" && strings.Contains(x.Sentence, "asks for 2")
		return fmt.Sprint(reason, ": ", said), ok
	})
}
