package source_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/adapter/fetch/source"
	"github.com/sluice-autoscaler/sluice/prom/promql"
)

// The file is read over the defaults and strictly, and every fault is named.
func TestConfig(t *testing.T) {
	t.Parallel()
	load := func(text string) (source.Config, error) {
		file := filepath.Join(t.TempDir(), "prometheus.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := source.Load(file)
		if err == nil {
			err = c.Validate()
		}
		return c, err
	}
	c, err := load("interval: 20s\nsources:\n- {name: a, url: 'http://a', headers: {X-Scope-OrgID: shop}, timeout: 3s}\n- {name: b, url: 'https://b/prometheus'}\n")
	if err != nil || time.Duration(c.Interval) != 20*time.Second || c.Relist != source.Default().Relist || c.Sources[0].Headers["X-Scope-OrgID"] != "shop" {
		t.Errorf("it is %+v, %v", c, err)
	}
	if _, err := load("sources: [{url: 'http://a', verify: false}]"); err == nil || !strings.Contains(err.Error(), "field verify not found") {
		t.Errorf("an unknown key: %v", err)
	}
	_, err = load("interval: 1ms\nkeepNames: 48h\nsources: [{name: a, url: 'http://a'}, {name: a, url: a, timeout: 1h, maxConcurrent: 999, headers: {A: ''}}]")
	for _, want := range []string{"interval = 1ms: want 1s–5m", "keepNames = ", `sources[1].name = "a": want a name of its own`, "sources[1]: url =", "timeout = 1h", "maxConcurrent = 999", "sources[1].headers"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %q in it", err, want)
		}
	}
}

// The times of samples are asked for by the objects' label, of each selector once.
func TestTimes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`sum(rate(a{x="1"}[2m])) by (pod) / sum(rate(a{x="1"}[2m])) by (pod)`: `min by (pod) (label_replace(max by (pod) (timestamp({x="1",__name__="a"})), "selector", "0", "", ""))`,
		`vector(1)`: ``,
	} {
		q, err := promql.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		got := source.Times(q, "pod")
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
		if got != "" {
			if _, err := promql.Parse(got); err != nil {
				t.Errorf("%s: %v", got, err)
			}
		}
	}
}
