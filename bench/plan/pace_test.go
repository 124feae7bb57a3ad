package plan_test

import (
	"testing"

	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// TestStockPoliciesKeepTheirSyncPeriod jumps from 1 to 49 pods' worth of load, with pods that are
// ready at once. Each that becomes ready brings a round, and still the count changes once in 15 s,
// and at most doubles.
func TestStockPoliciesKeepTheirSyncPeriod(t *testing.T) {
	t.Parallel()
	src, err := trace.Generate("steps:rates=0.5/49,each=2m")
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range []string{"hpa", "keda", `hpa:guard={"behavior":{}}`, `keda:guard={"behavior":{}}`} {
		p, err := plan.ParsePolicy(catalog.Default(), spec)
		if err != nil {
			t.Fatal(err)
		}
		s, err := scenario.Parse(scenario.Default(), []byte(`{"service":"const:1s","startup":"const:100ms","podConcurrency":1,
			"target":1,"minReplicas":1,"maxReplicas":100,"initialReplicas":1,"peakReplicas":0}`))
		if err != nil {
			t.Fatal(err)
		}
		job := plan.Job{Source: src, Scenario: s, Policy: p, Seed: 1}
		run, err := job.Run(t.Context(), plan.Options{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		ups, last := 0, -1e9
		for _, d := range run.Decisions {
			if d.From == 0 || d.To <= d.From {
				continue
			}
			if d.T-last < 14.9 {
				t.Errorf("%s: from %d to %d at %v s, %v s after the change before", spec, d.From, d.To, d.T, d.T-last)
			}
			if d.To > max(2*d.From, d.From+4) {
				t.Errorf("%s: from %d to %d at once", spec, d.From, d.To)
			}
			ups, last = ups+1, d.T
		}
		if ups < 4 {
			t.Errorf("%s went up %d times, want at least 4: %+v", spec, ups, run.Decisions)
		}
	}
}
