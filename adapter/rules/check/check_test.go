package check_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sluice-autoscaler/sluice/adapter/rules"
	"github.com/sluice-autoscaler/sluice/adapter/rules/check"
	"github.com/sluice-autoscaler/sluice/adapter/rules/config"
	"github.com/sluice-autoscaler/sluice/adapter/rules/mapping"
)

// set checks one rule below rules: or externalRules:.
func set(t *testing.T, key, rule string) []check.Finding {
	t.Helper()
	cfg, err := config.Parse([]byte(key + ":\n- " + rule + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := rules.Compile(cfg, rules.Options{Mapper: mapping.New(mapping.Kubernetes())})
	if err != nil {
		t.Fatal(err)
	}
	return check.Set(compiled)
}

const (
	over  = `seriesQuery: 'up{namespace!=""}', resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}`
	match = `<<.Series>>{<<.LabelMatchers>>}`
)

// Each kind of finding comes up where it should, and a good rule has none.
func TestFindings(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range []struct{ kind, key, rule string }{
		{"", "rules", `{` + over + `, metricsQuery: 'sum(` + match + `) by (<<.GroupBy>>)'}`},
		{"", "externalRules", `{` + over + `, metricsQuery: 'sum(` + match + `)'}`},
		{"label-lost", "rules", `{` + over + `, metricsQuery: 'sum(` + match + `)'}`},
		{"other-label", "rules", `{` + over + `, metricsQuery: 'sum(` + match + `) by (<<.GroupBy>>, code)'}`},
		{"other-label", "rules", `{` + over + `, metricsQuery: '` + match + `'}`},
		{"no-namespace", "rules", `{` + over + `, metricsQuery: 'sum(<<.Series>>) by (<<.GroupBy>>)'}`},
		{"no-namespace", "rules", `{seriesQuery: up, resources: {overrides: {pod: {resource: pod}}}, metricsQuery: 'sum(` + match + `) by (<<.GroupBy>>)'}`},
		{"no-namespace", "externalRules", `{seriesQuery: up, metricsQuery: 'sum(` + match + `)'}`},
		{"regex", "rules", `{` + over + `, metricsQuery: 'sum(<<.Series>>{namespace="ns",pod="<<index .LabelValuesByName "pod">>"}) by (<<.GroupBy>>)'}`},
		{"unanchored", "rules", `{` + over + `, name: {matches: "_total$"}, metricsQuery: 'sum(` + match + `) by (<<.GroupBy>>)'}`},
		{"name", "rules", `{` + over + `, name: {matches: "^(.*)$", as: "$1_x"}, metricsQuery: 'sum(` + match + `) by (<<.GroupBy>>)'}`},
		{"nan", "rules", `{` + over + `, metricsQuery: 'sum(` + match + `) by (<<.GroupBy>>) / sum(` + match + `) by (<<.GroupBy>>)'}`},
		{"nan", "externalRules", `{` + over + `, metricsQuery: 'histogram_quantile(0.9, sum(` + match + `) by (le))'}`},
		{"scalar", "rules", `{` + over + `, metricsQuery: 'scalar(sum(` + match + `))'}`},
		{"syntax", "rules", `{` + over + `, metricsQuery: 'sum(` + match + `'}`},
		{"template", "rules", `{` + over + `, metricsQuery: '<<.Nothing>>'}`},
		{"template", "rules", `{` + over + `}`},
		{"selector", "rules", `{seriesQuery: '{a=~".*"}', metricsQuery: up}`},
		{"waits", "rules", `{seriesQuery: up, resources: {overrides: {brand: {group: cheese.io, resource: brand}}}, metricsQuery: 'sum(` + match + `) by (<<.GroupBy>>)'}`},
		{"no-resource", "rules", `{seriesQuery: up, metricsQuery: up}`},
		{"ignores-caller", "externalRules", `{` + over + `, metricsQuery: 'sum(up)'}`},
		{"twice", "rules", `{seriesQuery: 'up{ns!=""}', resources: {overrides: {ns: {resource: namespace}, namespace: {resource: namespace}}}, metricsQuery: 'sum(` + match + `) by (<<.GroupBy>>)'}`},
		{"old-labels", "rules", `{seriesQuery: 'up{namespace!=""}', resources: {overrides: {namespace: {resource: namespace}, pod_name: {resource: pod}}}, metricsQuery: 'sum(` + match + `) by (<<.GroupBy>>)'}`},
		{"own-labels", "rules", `{seriesQuery: 'up{namespace!=""}', resources: {template: <<.Resource>>}, metricsQuery: 'sum(` + match + `) by (<<.GroupBy>>)'}`},
		{"group-label", "rules", `{seriesQuery: 'up{kube__pod!=""}', resources: {template: "kube_<<.Group>>_<<.Resource>>"}, metricsQuery: 'sum(` + match + `) by (<<.GroupBy>>)'}`},
		{"utf8", "rules", `{seriesQuery: '{"http.requests",namespace!=""}', resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}, metricsQuery: 'sum(` + match + `) by (<<.GroupBy>>)'}`},
		{"utf8", "rules", `{seriesQuery: 'up{namespace!=""}', resources: {overrides: {namespace: {resource: namespace}, k8s.pod.name: {resource: pod}}}, metricsQuery: 'sum(` + match + `) by (<<.GroupBy>>)'}`},
		{"single", "rules", `{` + over + `, metricsQuery: 'topk(1, ` + match + `)'}`},
	} {
		found := set(t, c.key, c.rule)
		seen[c.kind] = true
		if c.kind == "" {
			if len(found) > 0 {
				t.Errorf("%s: %s has %v", c.key, c.rule, found)
			}
			continue
		}
		if !slices.ContainsFunc(found, func(f check.Finding) bool { return f.Kind == c.kind }) {
			t.Errorf("%s: %s has no %s: %v", c.key, c.rule, c.kind, found)
		}
		for _, f := range found {
			if check.Kinds()[f.Kind] == "" || !strings.HasPrefix(f.Field, c.key+"[0]") {
				t.Errorf("the finding %+v has an unknown kind or field", f)
			}
		}
	}
	for kind := range check.Kinds() {
		if !seen[kind] {
			t.Errorf("the kind %s is not tested", kind)
		}
	}
}

// Resource rules are rendered for pods and for nodes.
func TestResourceRules(t *testing.T) {
	t.Parallel()
	cfg, err := config.Parse([]byte(`resourceRules: {cpu: {containerQuery: "cpu{", nodeQuery: cpu}, memory: {nodeQuery: mem}}`))
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := rules.Compile(cfg, rules.Options{Mapper: mapping.New(mapping.Kubernetes())})
	if err != nil {
		t.Fatal(err)
	}
	found := check.Set(compiled)
	if len(found) != 2 || !strings.HasPrefix(found[0].Text, "pods: resourceRules.CPU: ") || !strings.HasPrefix(found[1].Text, "nodes: ") {
		t.Errorf("the findings are %v", found)
	}
}
