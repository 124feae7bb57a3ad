package catalog

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/hpa"
)

// ForSignal returns parameters by which the policy of that name looks at a signal, of which a pod
// should carry targetPerPod. Parameters that name a signal already stay as they are.
func (c Catalog) ForSignal(policy, signal string, targetPerPod float64, raw json.RawMessage) (json.RawMessage, error) {
	e, err := c.Find(policy)
	if err != nil || signal == algorithms.Concurrency {
		return raw, err
	}
	if e.OfRequests {
		return nil, fmt.Errorf("policy %s reasons about requests: want the signal concurrency, or another policy such as kpa, target or hpa", policy)
	}
	if e.SignalParameter == "" {
		return raw, nil
	}
	given := map[string]json.RawMessage{}
	if len(raw) > 0 && string(raw) != "null" {
		if err := json.Unmarshal(raw, &given); err != nil {
			return raw, nil //nolint:nilerr // New says what is wrong with it
		}
	}
	if _, ok := given[e.SignalParameter]; ok {
		return raw, nil
	}
	var value any = signal
	switch target := strconv.FormatFloat(targetPerPod, 'f', -1, 64); e.SignalParameter {
	case "metrics":
		value = []any{map[string]any{"type": hpa.External, "external": map[string]any{
			"metric": map[string]any{"name": signal}, "target": map[string]any{"type": hpa.AverageValue, "averageValue": target},
		}}}
	case "triggers":
		value = []any{map[string]any{"signal": signal, "window": "1m", "threshold": targetPerPod}}
	}
	if given[e.SignalParameter], err = json.Marshal(value); err != nil {
		return nil, err
	}
	return json.Marshal(given)
}
