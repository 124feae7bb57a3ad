package signal_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	yaml2 "go.yaml.in/yaml/v2"
	"sigs.k8s.io/yaml"

	"github.com/sluice-autoscaler/sluice/adapter/fetch/preset"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/source"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/prom/promql"
)

// The examples of the docs are what is taken.
func TestDocs(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/prometheus-signals.md")
	if err != nil {
		t.Fatal(err)
	}
	scalers, presets := 0, 0
	for _, b := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		if strings.HasPrefix(b[1], "presets:") {
			presets++
			var c source.Config
			if err := yaml2.UnmarshalStrict([]byte(b[1]), &c); err != nil {
				t.Errorf("%s: %v", b[1], err)
			}
			if _, err := preset.New(c.Presets); err != nil {
				t.Errorf("%s: %v", b[1], err)
			}
			continue
		}
		scalers++
		var as v1alpha1.Autoscaler
		if err := yaml.UnmarshalStrict([]byte(b[1]), &as); err != nil {
			t.Errorf("%s: %v", b[1], err)
		}
		if err := as.Spec.Validate(); err != nil {
			t.Errorf("%s: %v", b[1], err)
		}
		if p := as.Spec.Signals[0].Prometheus; p != nil {
			q, err := promql.Parse(p.Query)
			if err == nil {
				_, err = q.Narrow("namespace", "shop", promql.Bounds{Selectors: 10, Range: time.Hour, Steps: 720})
			}
			if err != nil {
				t.Errorf("%s: %v", p.Query, err)
			}
		}
	}
	if scalers != 2 || presets != 1 {
		t.Errorf("there are %d Autoscalers and %d lists of presets", scalers, presets)
	}
}
