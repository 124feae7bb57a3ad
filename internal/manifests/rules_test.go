package manifests_test

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-autoscaler/sluice/adapter/fetch/source"
	"github.com/sluice-autoscaler/sluice/adapter/rules/config"
)

// TestRules: what the chart writes of sources and rules can be read.
func TestRules(t *testing.T) {
	t.Parallel()
	text := render(t, "--set", "prometheus.url=http://prometheus:9090",
		"--set-json", `rules.external=[{"seriesQuery":"depth","resources":{"namespaced":false},"metricsQuery":"sum(<<.Series>>{<<.LabelMatchers>>})"}]`)
	found := map[string]string{}
	for _, d := range documents(t, text) {
		if d.Kind == "ConfigMap" {
			maps.Copy(found, decode[corev1.ConfigMap](t, d).Data)
		}
	}
	rules, err := config.Parse([]byte(found["config.yaml"]))
	if err != nil || len(rules.Rules) != 6 || len(rules.ExternalRules) != 1 {
		t.Errorf("the rules are %+v, %v:\n%s", rules, err, found["config.yaml"])
	}
	sources := load(t, found["prometheus.yaml"])
	if sources.Sources[0].URL != "http://prometheus:9090" || sources.Interval != source.Default().Interval || sources.Sources[0].Tenants || len(sources.Presets) > 0 {
		t.Errorf("the sources are %+v", sources)
	}
}

// Queries of Autoscalers and more presets are the operator's to allow and to add. Where presets
// are, namespaces are watched, and nowhere else.
func TestTenantQueriesAndPresets(t *testing.T) {
	t.Parallel()
	text := render(t, "--set", "prometheus.url=http://prometheus:9090", "--set", "prometheus.tenantQueries=true",
		"--set-json", `prometheus.presets=[{"name":"edge","window":"1m","signals":{"rate":"sum(edge{ns=\"{namespace}\"})"}}]`)
	for _, d := range documents(t, text) {
		if d.Kind == "ConfigMap" && d.Name == "sluice-prometheus" {
			c := load(t, decode[corev1.ConfigMap](t, d).Data["prometheus.yaml"])
			if !c.Sources[0].Tenants || len(c.Presets) != 1 || c.Presets[0].Signals["rate"] != `sum(edge{ns="{namespace}"})` {
				t.Errorf("the sources are %+v", c)
			}
		}
	}
	const right = `resources: [namespaces]`
	if !strings.Contains(string(text), right) || strings.Contains(string(render(t)), right) {
		t.Error("the right to watch namespaces is not where presets are")
	}
}

// load reads a file of sources.
func load(t *testing.T, text string) source.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "prometheus.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := source.Load(file)
	if err == nil {
		err = c.Validate()
	}
	if err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	return c
}
