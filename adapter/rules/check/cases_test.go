package check_test

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"testing"

	"github.com/sluice-autoscaler/sluice/adapter/rules"
	"github.com/sluice-autoscaler/sluice/adapter/rules/check"
	"github.com/sluice-autoscaler/sluice/adapter/rules/config"
	"github.com/sluice-autoscaler/sluice/adapter/rules/mapping"
	"github.com/sluice-autoscaler/sluice/adapter/rules/ruletest"
)

// wrongs are the kinds of findings that name the cause of each case in which prometheus-adapter is
// wrong. A case without a kind depends on what Prometheus answers or the caller asks for, which no
// file shows.
var wrongs = map[string][]string{
	"prefix-template-with-group":             {"group-label"},
	"wrong-resource-in-override":             {"waits"},
	"external-capture-all":                   nil, // the selector of one caller
	"llm-queue-by-namespace":                 {"other-label"},
	"epp-external-hard-coded":                {"ignores-caller"},
	"external-without-resources":             {"no-namespace"},
	"selector-operators":                     nil, // the selectors of callers
	"values-nan-inf-overflow-small":          nil, // the values that Prometheus answers
	"empty-template":                         {"template"},
	"utf8-names":                             {"utf8"},
	"gpu-by-service":                         {"no-namespace"},
	"mesh-service-and-latency":               {"nan"},
	"statefulset-without-namespace-label":    {"no-namespace"},
	"root-scoped-objects":                    {"waits"},
	"one-bad-selector-stops-all":             {"selector"},
	"resource-rules-without-container-label": {"template"},
}

// TestWrongCases demands that the cause of each wrong case that a file shows is named.
func TestWrongCases(t *testing.T) {
	t.Parallel()
	folder := os.Getenv("SLUICE_CASES")
	if folder == "" {
		folder = "../../../../shared/cases"
	}
	text, err := os.ReadFile(folder + "/prometheus_adapter_rules.yaml")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("no cases at %s: say where they are by SLUICE_CASES", folder)
	}
	if err != nil {
		t.Fatal(err)
	}
	file, _, err := ruletest.Read(text)
	if err != nil {
		t.Fatal(err)
	}
	for i := range file.Cases {
		c := &file.Cases[i]
		want, known := wrongs[c.ID]
		if known != (c.Wrong != "") {
			t.Errorf("%s: wrong is %q, and here it is said to be %v", c.ID, c.Wrong, known)
		}
		if !known {
			continue
		}
		cfg, err := config.Parse([]byte(c.Config))
		if err != nil {
			t.Fatalf("%s: %v", c.ID, err)
		}
		set, err := rules.Compile(cfg, rules.Options{Mapper: mapping.New(mapping.Kubernetes())})
		if err != nil {
			t.Fatalf("%s: %v", c.ID, err)
		}
		found := check.Set(set)
		for _, kind := range want {
			if !slices.ContainsFunc(found, func(f check.Finding) bool { return f.Kind == kind }) {
				t.Errorf("%s: no finding %s names its cause (%s): %+v", c.ID, kind, c.Wrong, found)
			}
		}
		if want == nil {
			t.Logf("%s: %+v", c.ID, found)
		}
	}
}
