package rules_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/rules"
	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
	"github.com/sluice-autoscaler/sluice/adapter/rules/config"
	"github.com/sluice-autoscaler/sluice/adapter/rules/mapping"
)

// compile compiles rules for Kubernetes' resources and more.
func compile(t *testing.T, text string, more ...mapping.Resource) (*rules.Set, error) {
	t.Helper()
	cfg, err := config.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return rules.Compile(cfg, rules.Options{Mapper: mapping.New(append(mapping.Kubernetes(), more...))})
}

func must(t *testing.T, text string, more ...mapping.Resource) *rules.Set {
	t.Helper()
	set, err := compile(t, text, more...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// everywhere gives each rule the same series.
func everywhere(set *rules.Set, series ...rules.Series) map[*rules.Rule]rules.Listing {
	out := map[*rules.Rule]rules.Listing{}
	for _, r := range set.Rules() {
		out[r] = rules.Listing{Series: series}
	}
	return out
}

var podsResource = schema.GroupResource{Resource: "pods"}

const gauge = `
rules:
- seriesQuery: '{namespace!=""}'
  resources: {template: "<<.Resource>>"}
  name: {matches: "^(.*?)(_total)?$", as: "$1"}
  metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'
`

// All faults come at once, each with its field; the first is the one that v0.12.0 stops at.
func TestFaults(t *testing.T) {
	t.Parallel()
	_, err := compile(t, `
rules:
- {seriesQuery: up, name: {matches: "(a)(b)"}, metricsQuery: up}
- {seriesQuery: up, seriesFilters: [{is: a}, {}], metricsQuery: up}
- {seriesQuery: up, resources: {template: pod}, metricsQuery: up}
- {seriesQuery: up, metricsQuery: "<<"}
- {seriesQuery: up, metricsQuery: up, onEmpty: nothing, duplicates: last}
externalRules:
- {seriesQuery: up, name: {matches: "("}, metricsQuery: up}
resourceRules:
  cpu: {nodeQuery: "<<x>>"}
`)
	got := config.Explain(err)
	want := []string{
		`rules[0].name.as: must specify an 'as' value for name matcher "(a)(b)" associated with series query "up"; name the group that makes the name, such as ${1}`,
		"rules[1].seriesFilters[1]: unable to generate series name filter associated with series query \"up\": must have either an `is` or `isNot` expression in a filter; give is or isNot, as a regular expression of RE2",
		"rules[2].resources.template: unable to generate label format from template \"pod\": must include at least `{{.Resource}}` in the label template; want a template such as kube_<<.Resource>>",
		`rules[3].metricsQuery: unable to construct metrics query associated with series query "up": unable to parse metrics query template "<<": template: metrics-query:1: unclosed action; want a template of PromQL with << and >>`,
		`rules[4].onEmpty: onEmpty = "nothing": want omit, error, zero`,
		`rules[4].duplicates: duplicates = "last": want error, sum, max, first`,
		"externalRules[0].name.matches: unable to generate series name filter from name rules associated with series query \"up\": unable to compile series filter \"(\": error parsing regexp: missing closing ): `(`; want a regular expression of RE2",
		`resourceRules.cpu.nodeQuery: unable to construct querier for CPU metrics: unable to construct node metrics query: unable to parse metrics query template "<<x>>": template: metrics-query:1: function "x" not defined`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if first := rules.First(err).Error(); !strings.HasPrefix(first, "must specify an 'as' value") {
		t.Errorf("the first is %s", first)
	}
}

// A rule that waits for a resource works once it is there, and harms no other until then.
func TestWaits(t *testing.T) {
	t.Parallel()
	const text = `
rules:
- {seriesQuery: depth, resources: {overrides: {namespace: {resource: namespace}, queue: {group: sqs.aws, resource: queue}}}, metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'}
- {seriesQuery: up, resources: {template: "<<.Resource>>"}, metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'}
`
	depth, up := rules.Series{Name: "depth", Labels: []string{"namespace", "queue"}}, rules.Series{Name: "up", Labels: []string{"namespace", "pod"}}
	list := func(set *rules.Set) *rules.Registry {
		return set.Registry(map[*rules.Rule]rules.Listing{set.Custom[0]: {Series: []rules.Series{depth}}, set.Custom[1]: {Series: []rules.Series{up}}})
	}
	without := must(t, text)
	if without.Custom[0].Err == nil || without.Custom[1].Err != nil {
		t.Fatalf("the errors are %v and %v", without.Custom[0].Err, without.Custom[1].Err)
	}
	registry := list(without)
	if got := names(registry.Custom()); got != "namespaces/up (root), pods/up (namespaced)" {
		t.Errorf("without the resource there are %s", got)
	}
	_, err := registry.Describes(schema.GroupResource{Resource: "namespaces"}, false, "depth")
	if err == nil || !strings.Contains(err.Error(), "no matches for sqs.aws/, Resource=queue") {
		t.Errorf("the metric of the waiting rule: %v", err)
	}
	with := list(must(t, text, mapping.Resource{Group: "sqs.aws", Version: "v1", Name: "queues", Kind: "Queue"}))
	if got := names(with.Custom()); got != "namespaces/depth (root), namespaces/up (root), pods/up (namespaced), queues.sqs.aws/depth (namespaced)" {
		t.Errorf("with the resource there are %s", got)
	}
}

func names(all []rules.CustomInfo) string {
	var text []string
	for _, m := range all {
		text = append(text, m.String())
	}
	return strings.Join(text, ", ")
}

// Two series for one name are an error of that name, whichever came last.
func TestClash(t *testing.T) {
	t.Parallel()
	a := rules.Series{Name: "jobs", Labels: []string{"namespace", "pod"}}
	b := rules.Series{Name: "jobs_total", Labels: []string{"namespace", "pod", "code"}}
	for _, series := range [][]rules.Series{{a, b}, {b, a}, {a, b, a}} {
		set := must(t, gauge)
		m, err := set.Registry(everywhere(set, series...)).Describes(podsResource, true, "jobs")
		e, ok := errors.AsType[*answer.Error](err)
		if !ok || e.Status != 500 || !strings.Contains(e.Error(), "both make it") || m == nil {
			t.Errorf("%v gives %v, %v", series, m, err)
		}
	}
	first := must(t, gauge+"  duplicates: first\n")
	m, err := first.Registry(everywhere(first, b, a)).Describes(podsResource, true, "jobs")
	if err != nil || m.Series != "jobs_total" {
		t.Errorf("with duplicates: first it is %v, %v", m, err)
	}
	// The same series with other labels, and another rule that asks the same, do not clash.
	set := must(t, gauge+strings.TrimPrefix(gauge, "\nrules:\n"))
	if len(set.Custom) != 2 {
		t.Fatalf("there are %d rules", len(set.Custom))
	}
	c := rules.Series{Name: "jobs", Labels: []string{"namespace", "pod", "code"}}
	if m, err := set.Registry(everywhere(set, a, c)).Describes(podsResource, true, "jobs"); err != nil || m.Series != "jobs" {
		t.Errorf("equal rules give %v, %v", m, err)
	}
}

// One query serves all pods, and its answer serves each set of them.
func TestGroup(t *testing.T) {
	t.Parallel()
	set := must(t, gauge)
	m, err := set.Registry(everywhere(set, rules.Series{Name: "jobs", Labels: []string{"namespace", "pod"}})).Describes(podsResource, true, "jobs")
	if err != nil {
		t.Fatal(err)
	}
	asked := rules.Asked{Namespace: "shop", Names: []string{"a", "b"}, List: true, Now: time.Unix(1, 0)}
	q, ok, why, err := m.Group(asked)
	if err != nil || !ok || q.PromQL != `sum(jobs{namespace="shop",pod!=""}) by (pod)` {
		t.Fatalf("Group = %q, %v, %s, %v", q.PromQL, ok, why, err)
	}
	values, err := m.Values(answer.Result{Samples: []answer.Sample{
		{Labels: map[string]string{"pod": "c"}, Value: 3}, {Labels: map[string]string{"pod": "b"}, Value: 2}, {Labels: map[string]string{"pod": "a"}, Value: 1},
	}}, asked)
	if err != nil || len(values) != 2 || values[0].String() != "1" || values[1].Name != "b" {
		t.Errorf("Values = %v, %v", values, err)
	}
	for text, want := range map[string]string{
		`topk(1, <<.Series>>{<<.LabelMatchers>>})`:                      "topk stands over the objects",
		`<<.Series>>{pod=~"<<index .LabelValuesByName "pod">>"}`:        "metricsQuery reads LabelValuesByName",
		`sum(<<.Series>>{<<.LabelMatchers>>})`:                          "sum does not keep the label pod",
		`<<.Series>>{<<.LabelMatchers>>} / on (namespace) other{a="b"}`: "the match of / does not include the label pod",
	} {
		set := must(t, "rules:\n- seriesQuery: jobs\n  resources: {template: <<.Resource>>}\n  metricsQuery: '"+text+"'\n")
		m, err := set.Registry(everywhere(set, rules.Series{Name: "jobs", Labels: []string{"namespace", "pod"}})).Describes(podsResource, true, "jobs")
		if err != nil {
			t.Fatal(err)
		}
		if _, ok, why, err := m.Group(asked); ok || why != want || err != nil {
			t.Errorf("%s: groupable %v, %q, %v; want %q", text, ok, why, err, want)
		}
	}
}

// Series without a label for namespaces are found where the rule says so.
func TestNamespaceMatcher(t *testing.T) {
	t.Parallel()
	const text = `
rules:
- seriesQuery: api_requests
  resources: {overrides: {server: {group: apps, resource: statefulset}}%s}
  metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'
`
	statefulsets := schema.GroupResource{Group: "apps", Resource: "statefulsets"}
	query := func(option string) (string, error) {
		set := must(t, strings.Replace(text, "%s", option, 1))
		m, err := set.Registry(everywhere(set, rules.Series{Name: "api_requests", Labels: []string{"server"}})).Describes(statefulsets, true, "api_requests")
		if err != nil {
			t.Fatal(err)
		}
		q, err := m.Query(rules.Asked{Namespace: "web", Names: []string{"gateway"}})
		return q.PromQL, err
	}
	if _, err := query(""); err == nil || !strings.Contains(err.Error(), "resources.namespaceMatcher: false") {
		t.Errorf("without a label for namespaces: %v", err)
	}
	if got, err := query(", namespaceMatcher: false"); err != nil || got != `sum(api_requests{server="gateway"}) by (server)` {
		t.Errorf("with namespaceMatcher: false it is %q, %v", got, err)
	}
	if _, err := query(", namespaced: false"); err == nil {
		t.Error("namespaced: false, which v0.12.0 ignores here, is not ignored")
	}
}

// A listing that failed is its rule's own affair.
func TestListingFails(t *testing.T) {
	t.Parallel()
	set := must(t, gauge+`
externalRules:
- {seriesQuery: depth, resources: {namespaced: false}, metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>})'}
`)
	listings := everywhere(set, rules.Series{Name: "depth", Labels: []string{"namespace"}})
	listings[set.Custom[0]] = rules.Listing{Err: errors.New("no route")}
	registry := set.Registry(listings)
	if got := registry.External(); !slices.Equal(got, []string{"depth"}) || len(registry.Custom()) != 0 {
		t.Errorf("there are %v and %v", registry.Custom(), got)
	}
	if err := registry.Errors()[set.Custom[0]]; err == nil || err.Error() != "no route" {
		t.Errorf("the error is %v", err)
	}
	_, err := registry.Describes(podsResource, true, "jobs")
	if e, ok := errors.AsType[*answer.Error](err); !ok || e.Message != "the server could not find the metric jobs for pods" || !strings.Contains(e.Cause, "rules[0] makes none: no route") {
		t.Errorf("its metric: %v", err)
	}
	if _, err := registry.ExternalMetric("default", "none"); err == nil || !strings.HasPrefix(err.Error(), "the server could not find the metric none for namespaces: ") {
		t.Errorf("an external metric that is not there: %v", err)
	}
}

// The metrics of a registry are bounded.
func TestMaxMetrics(t *testing.T) {
	t.Parallel()
	set := must(t, gauge)
	var series []rules.Series
	for i := range rules.MaxMetrics + 10 {
		series = append(series, rules.Series{Name: "m" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + strings.ToLower(time.Unix(int64(i), 0).UTC().Format("150405")) + "_" + strings.Repeat("y", i/86400), Labels: []string{"pod"}})
	}
	registry := set.Registry(everywhere(set, series...))
	if n := len(registry.Custom()); n > rules.MaxMetrics {
		t.Errorf("there are %d metrics", n)
	}
	if err := registry.Errors()[set.Custom[0]]; err == nil || !strings.Contains(err.Error(), "more than 50000 metrics") {
		t.Errorf("the error is %v", err)
	}
}
