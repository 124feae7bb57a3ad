// Package catalog is the one list of policies: a name and JSON parameters in, a validated policy out.
package catalog

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/kpa"
	"github.com/sluice-autoscaler/sluice/algorithms/target"
)

// Parameter documents one parameter of a policy.
type Parameter struct {
	Name, Range, Default, Doc string
}

// Entry documents a policy and makes it.
type Entry struct {
	Name, Summary, Source string
	Parameters            []Parameter
	// New makes the policy for a target per pod; params override it and the defaults.
	New func(targetPerPod float64, params json.RawMessage) (algorithms.Policy, error)
}

// All returns every policy, by name.
func All() []Entry {
	return []Entry{
		{
			Name: "kpa", Summary: "stable and panic windows, as the Knative Pod Autoscaler", Source: "knative.dev/serving pkg/autoscaler/scaling",
			Parameters: []Parameter{
				{"target", "> 0 requests per pod", "the signal's target", "concurrency one pod should carry"},
				{"totalValue", "≥ 0 requests per pod", "target", "concurrency one pod can carry; enters excess burst capacity only"},
				{"targetBurstCapacity", "−1 or ≥ 0 requests", "211", "burst to take without queueing; reported as excessBurstCapacity"},
				{"stableWindow", "6s–1h", "1m0s", "averaging time of the normal course"},
				{"panicWindowPercentage", "1–100 %", "10", "panic window as a share of stableWindow"},
				{"panicThresholdPercentage", "110–1000 %", "200", "load over what ready pods should carry at which panic begins"},
				{"maxScaleUpRate", "> 1", "1000", "largest factor up in one decision"},
				{"maxScaleDownRate", "> 1", "2", "largest factor down in one decision"},
				{"scaleDownDelay", "0s–1h", "0s", "keep the largest answer of this long"},
				{"activationScale", "≥ 1 pods", "1", "least count while there is demand"},
			},
			New: func(t float64, params json.RawMessage) (algorithms.Policy, error) {
				c := kpa.Default()
				if t > 0 {
					c.Target = t
				}
				if err := algorithms.Strict(params, &c); err != nil {
					return nil, err
				}
				return kpa.New(c)
			},
		},
		{
			Name: "target", Summary: "mean per pod at a target, with a tolerance", Source: "k8s.io/kubernetes pkg/controller/podautoscaler (AverageValue)",
			Parameters: []Parameter{
				{"target", "> 0 requests per pod", "the signal's target", "concurrency one pod should carry"},
				{"window", "1s–1h", "30s", "averaging time"},
				{"tolerance", "0–1", "0.1", "share of deviation that changes nothing"},
				{"stabilizationWindow", "0s–1h", "1m0s", "keep the largest answer of this long before going down"},
			},
			New: func(t float64, params json.RawMessage) (algorithms.Policy, error) {
				c := target.Default()
				if t > 0 {
					c.Target = t
				}
				if err := algorithms.Strict(params, &c); err != nil {
					return nil, err
				}
				return target.New(c)
			},
		},
	}
}

// New makes the policy of that name. Unknown names and parameters are errors that list the known ones.
func New(name string, targetPerPod float64, params json.RawMessage) (algorithms.Policy, error) {
	var names []string
	for _, e := range All() {
		if e.Name != name {
			names = append(names, e.Name)
			continue
		}
		p, err := e.New(targetPerPod, params)
		if err != nil {
			return nil, fmt.Errorf("policy %s: %w (parameters: %s)", name, err, strings.Join(e.known(), ", "))
		}
		return p, nil
	}
	return nil, fmt.Errorf("policy %q: unknown; known are %s", name, strings.Join(names, ", "))
}

func (e Entry) known() []string {
	names := make([]string, 0, len(e.Parameters))
	for _, p := range e.Parameters {
		names = append(names, p.Name)
	}
	return names
}
