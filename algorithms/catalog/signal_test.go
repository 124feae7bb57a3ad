package catalog_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
)

// Every policy either looks at a signal of another name, or says why it cannot, or reads none.
func TestForSignal(t *testing.T) {
	t.Parallel()
	c := catalog.Default()
	for name, raw := range map[string]string{
		"aws": "", "hpa": "", "keda": "", "kpa": `{"stableWindow":"30s"}`, "pid": "", "seasonal": "", "target": "null",
		"step": `{"scaleOut":[{"lower":0,"adjustment":1}],"scaleIn":[{"upper":0,"adjustment":-1}]}`,
	} {
		params, err := c.ForSignal(name, "queue_depth", 30, json.RawMessage(raw))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p, err := c.New(name, 30, params)
		if err != nil {
			if name == "step" && !strings.Contains(err.Error(), "signal") {
				continue // its steps are not the point here
			}
			t.Errorf("%s with %s: %v", name, params, err)
			continue
		}
		for _, n := range p.Needs() {
			if n.Name != "queue_depth" {
				t.Errorf("%s reads %s", name, n.Name)
			}
		}
		if len(p.Needs()) == 0 {
			t.Errorf("%s reads nothing", name)
		}
	}
	for _, name := range []string{"histogram", "lookahead", "portfolio", "staffing"} {
		if _, err := c.ForSignal(name, "queue_depth", 30, nil); err == nil || !strings.Contains(err.Error(), "want the signal concurrency") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, given := range []struct{ name, signal, raw string }{
		{"kpa", "queue_depth", `{"metric":"rps"}`}, {"fixed", "queue_depth", `{"replicas":3}`}, {"cel", "queue_depth", `{"expression":"3"}`}, {"kpa", algorithms.Concurrency, `{}`},
	} {
		if got, err := c.ForSignal(given.name, given.signal, 30, json.RawMessage(given.raw)); err != nil || string(got) != given.raw {
			t.Errorf("%s with %s becomes %s, %v", given.name, given.raw, got, err)
		}
	}
	for _, e := range c.All() { // a policy that is new here has to say what it reads
		if e.SignalParameter == "" && !e.OfRequests && e.Name != "cel" && e.Name != "fixed" && e.Name != "schedule" {
			t.Errorf("%s says neither which parameter names its signal nor that it reads requests alone", e.Name)
		}
	}
}
