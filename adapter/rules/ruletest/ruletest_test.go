package ruletest_test

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/sluice-autoscaler/sluice/adapter/rules"
	"github.com/sluice-autoscaler/sluice/adapter/rules/check"
	"github.com/sluice-autoscaler/sluice/adapter/rules/config"
	"github.com/sluice-autoscaler/sluice/adapter/rules/mapping"
	"github.com/sluice-autoscaler/sluice/adapter/rules/ruletest"
)

// shared reads a file of the cases that lie beside the project.
func shared(t *testing.T, name string) *ruletest.File {
	t.Helper()
	folder := os.Getenv("SLUICE_CASES")
	if folder == "" {
		folder = "../../../../shared/cases"
	}
	text, err := os.ReadFile(folder + "/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("no cases at %s: say where they are by SLUICE_CASES", folder)
	}
	if err != nil {
		t.Fatal(err)
	}
	file, unknown, err := ruletest.Read(text)
	if err != nil || len(unknown) > 0 {
		t.Fatalf("Read: %v, unknown %v", err, unknown)
	}
	return file
}

func differences(t *testing.T) *ruletest.Differences {
	t.Helper()
	text, err := os.ReadFile("testdata/differences.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d, err := ruletest.ReadDifferences(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Sluice answers the shared cases as v0.12.0 does, but for the documented differences. Each of them
// is one, and of a case that says that v0.12.0 is wrong.
func TestSharedCases(t *testing.T) {
	t.Parallel()
	file := shared(t, "prometheus_adapter_rules.yaml")
	d := differences(t)
	if err := d.Apply(file.Cases); err != nil {
		t.Fatal(err)
	}
	wrong := map[string]bool{}
	for i := range file.Cases {
		c := &file.Cases[i]
		wrong[c.ID] = c.Wrong != ""
		out, err := ruletest.Run(c)
		if err != nil {
			t.Errorf("%s: %v", c.ID, err)
			continue
		}
		ruletest.Compare(c, out)
		if len(out.Differences) > 0 {
			t.Errorf("%s:\n%s", c.ID, ruletest.Diff(out, c))
		}
		again, err := ruletest.Run(c)
		if err != nil {
			t.Fatal(err)
		}
		ruletest.Compare(c, again)
		if len(again.Differences) > 0 {
			t.Errorf("%s differs the second time", c.ID)
		}
	}
	for _, e := range d.Differences {
		if !wrong[e.Case] {
			t.Errorf("a difference of %s is documented, and the case does not say that v0.12.0 is wrong", e.Case)
		}
	}
}

// Cases of other metric sources are read, and said not to be run.
func TestOtherSources(t *testing.T) {
	t.Parallel()
	file := shared(t, "other_metric_sources.yaml")
	for i := range file.Cases {
		out, err := ruletest.Run(&file.Cases[i])
		if err != nil || !strings.Contains(out.Unsupported, file.Cases[i].Kind) {
			t.Errorf("%s: %+v, %v", file.Cases[i].ID, out, err)
		}
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"cases: []":                                                     "the file has no cases",
		"cases: [{series: ['up{']}]":                                    "series[0] up{: ",
		"cases: [{extraResources: [x]}]":                                `extraResources: "x" is unknown; known are httproutes, istioconfig, knative, tenants`,
		"cases: [{extraResources: [{group: a}]}]":                       "extraResources[0]: version is missing",
		"cases: [{requests: [{api: x}]}]":                               `requests[0]: api = "x": want custom, external or resource`,
		"cases: [{requests: [{api: custom, answer: [{value: many}]}]}]": `requests[0]: answer[0].value "many" is no number`,
		"cases: [{requests: [{api: custom, scalarAnswer: many}]}]":      `requests[0]: scalarAnswer "many" is no number`,
		"cases: x": "read the cases",
	} {
		file, _, err := ruletest.Read([]byte(text))
		if err == nil {
			_, err = ruletest.Run(&file.Cases[0])
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	file, _, err := ruletest.Read([]byte("cases: [{id: a, requests: [{api: custom}]}]"))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"differences: [{case: b, reason: x}]":                                  "there is no case b",
		"differences: [{case: a, reason: x, request: 1}]":                      "case a has no requests[1]",
		"differences: [{case: a}]":                                             "case or reason is missing",
		"differences: [{case: a, reason: x, request: 0, want: {}}]":            "field want not found",
		"differences: [{case: a, reason: x, request: 0, expect: {error: ''}}]": `case a expects "" already`,
	} {
		d, err := ruletest.ReadDifferences([]byte(text))
		if err == nil {
			err = d.Apply(file.Cases)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// FuzzCases: no file of cases makes a run or a check of its rules panic or run on.
func FuzzCases(f *testing.F) {
	mapper := mapping.New(mapping.Kubernetes())
	f.Add([]byte(`cases:
- config: "rules: [{seriesQuery: up, resources: {template: <<.Resource>>}, metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'}]"
  series: ['up{pod="a",namespace="b"}']
  requests: [{api: custom, resource: pods, namespace: b, name: a, metric: up, answer: [{labels: {pod: a}, value: NaN}]}]
`))
	f.Add([]byte(`cases: [{config: "externalRules: [{seriesQuery: up, metricsQuery: '<<range .GroupBySlice>><<end>>x'}]", series: [up], requests: [{api: external, metric: up, namespace: a}]}]`))
	f.Add([]byte(`cases: [{config: "resourceRules: {cpu: {nodeQuery: x}}", requests: [{api: resource, resource: nodes, objects: [a]}]}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<14 {
			return
		}
		file, _, err := ruletest.Read(text)
		if err != nil {
			return
		}
		for i := range file.Cases[:min(3, len(file.Cases))] {
			c := &file.Cases[i]
			if cfg, err := config.Parse([]byte(c.Config)); err == nil {
				if set, err := rules.Compile(cfg, rules.Options{Mapper: mapper}); err == nil {
					check.Set(set)
				}
			}
			out, err := ruletest.Run(c)
			if err != nil {
				continue
			}
			ruletest.Compare(c, out)
			if out.Unsupported == "" && len(out.Requests) != len(c.Requests) {
				t.Errorf("%d requests gave %d outcomes", len(c.Requests), len(out.Requests))
			}
		}
	})
}
