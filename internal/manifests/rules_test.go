package manifests_test

import (
	"maps"
	"os"
	"path/filepath"
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
	file := filepath.Join(t.TempDir(), "prometheus.yaml")
	if err := os.WriteFile(file, []byte(found["prometheus.yaml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	sources, err := source.Load(file)
	if err == nil {
		err = sources.Validate()
	}
	if err != nil || sources.Sources[0].URL != "http://prometheus:9090" || sources.Interval != source.Default().Interval {
		t.Errorf("the sources are %+v, %v", sources, err)
	}
}
