package catalog_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/params"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
)

// Each number is taken within its stated range, ends included where they belong to it, and refused
// beyond.
func TestBounds(t *testing.T) {
	t.Parallel()
	beside := map[string]map[string]string{
		"histogram": {
			"bin lo": `{"range": "24m"}`, "range lo": `{"bin": "1s"}`, "range hi": `{"bin": "1h"}`,
			"head hi": `{"tail": 1}`, "tail lo": `{"head": 0}`,
		},
		"keda": {
			"minReplicaCount hi": `{"maxReplicaCount": 1000000}`, "idleReplicaCount lo": `{"minReplicaCount": 1}`,
			"idleReplicaCount hi": `{"minReplicaCount": 1}`,
		},
		"portfolio": {"block hi": `{"memory": "24h"}`, "memory lo": `{"block": "10s"}`},
		"staffing": {
			"waitProbability lo": `{"meanWait": "1s"}`, "meanWait hi": `{"waitProbability": 0}`,
			"tailWait hi": `{"waitProbability": 0, "tailProbability": 0.1}`, "tailProbability hi": `{"waitProbability": 0, "tailWait": "1s"}`,
		},
	}
	policies := catalog.Default()
	for _, e := range policies.All() {
		policytest.Bounds(t, e.Parameters, beside[e.Name], func(raw json.RawMessage) error {
			_, err := policies.New(e.Name, 0, raw)
			return err
		})
	}
}

// The defaults shown are those of Default.
func TestShownDefaults(t *testing.T) {
	t.Parallel()
	for _, e := range catalog.Default().All() {
		raw, err := json.Marshal(configs()[e.Name])
		if err != nil {
			t.Fatal(err)
		}
		var defaults map[string]json.RawMessage
		if err := json.Unmarshal(raw, &defaults); err != nil {
			t.Fatal(err)
		}
		for _, p := range e.Parameters {
			if p.Value == nil {
				continue
			}
			if string(p.Value) != string(defaults[p.Name]) {
				t.Errorf("%s: the default of %s is %s, want %s as in Default", e.Name, p.Name, p.Value, defaults[p.Name])
			}
			var shown any
			if err := json.Unmarshal(p.Value, &shown); err != nil {
				t.Fatal(err)
			}
			text, ok := shown.(string)
			if !ok {
				text = string(p.Value)
			}
			if !strings.HasPrefix(p.Default, text) && !strings.HasSuffix(p.Default, "else "+text) {
				t.Errorf("%s: the default of %s reads %q, want it to name %s", e.Name, p.Name, p.Default, text)
			}
		}
		for _, p := range e.Parameters {
			if (p.Bounds != nil) != (p.Kind != params.None) {
				t.Errorf("%s: %s has kind %d and bounds %v", e.Name, p.Name, p.Kind, p.Bounds)
			}
		}
	}
}

// fields are the JSON names of a Config, with those of embedded structs.
func fields(c any) []string {
	var names []string
	for _, f := range reflect.VisibleFields(reflect.TypeOf(c)) {
		if !f.Anonymous {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			names = append(names, name)
		}
	}
	return names
}
