// Package check says what of a file of rules cannot work, or may be wrong, without a cluster and
// without a Prometheus: it renders each rule's query for one object and for two, and reads it with
// Prometheus' parser. It is pure.
package check

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/rules"
	"github.com/sluice-autoscaler/sluice/adapter/rules/naming"
	"github.com/sluice-autoscaler/sluice/prom/promql"
)

// Level says how bad a finding is.
type Level string

// Levels of findings.
const (
	// Fault cannot work.
	Fault Level = "error"
	// Doubt works, and may give wrong values or none.
	Doubt Level = "warning"
	// Remark is worth knowing.
	Remark Level = "note"
)

// Finding is one thing to say about a rule.
type Finding struct {
	Level Level `json:"level"`
	// Field is the rule, or its field.
	Field string `json:"field"`
	// Kind is a word for it, from Kinds.
	Kind string `json:"kind"`
	Text string `json:"text"`
}

// Kinds of findings, with what they mean.
func Kinds() map[string]string {
	return map[string]string{
		"waits":          "a resource is not installed",
		"selector":       "Prometheus refuses the seriesQuery",
		"template":       "the query cannot be rendered",
		"syntax":         "the query is no PromQL",
		"no-resource":    "no label names an object",
		"no-namespace":   "no label names the namespace, or the query does not ask for it",
		"label-lost":     "the result has no label that names the object",
		"other-label":    "the result can have several samples for one object",
		"scalar":         "the result is a number without labels",
		"regex":          "names are not matched as they stand",
		"unanchored":     "an expression also matches in the middle of a name",
		"name":           "the metric's name is not as meant",
		"nan":            "the value can be NaN or infinite",
		"ignores-caller": "the query does not read the caller's selector or namespace",
		"twice":          "two labels name the same kind of object",
		"old-labels":     "cAdvisor's labels of before Kubernetes 1.16",
		"own-labels":     "Prometheus' own label is taken for a kind of object",
		"single":         "each set of objects needs a query of its own",
		"group-label":    "labels of a group, which prometheus-adapter does not read back",
		"utf8":           "a name that Prometheus takes since version 3 only",
	}
}

// Set checks compiled rules.
func Set(s *rules.Set) []Finding {
	var c checker
	for _, r := range s.Rules() {
		c.rule(r)
	}
	if s.Resource != nil {
		c.resource(s.Resource)
	}
	return c.findings
}

type checker struct{ findings []Finding }

// add notes a finding once.
func (c *checker) add(level Level, field, kind, format string, args ...any) {
	f := Finding{Level: level, Field: field, Kind: kind, Text: fmt.Sprintf(format, args...)}
	if !slices.Contains(c.findings, f) {
		c.findings = append(c.findings, f)
	}
}

// example is a series that a rule could take.
func example(r *rules.Rule) rules.Series {
	s := rules.Series{Name: r.Selector.Name()}
	for _, m := range r.Selector.Matchers() {
		if m.Label == "__name__" && m.Operator == "=~" {
			s.Name = sample(m.Value)
		} else if m.Label != "__name__" && (m.Operator == "!=" && m.Value == "" || m.Operator == "=" && m.Value != "") {
			s.Labels = append(s.Labels, m.Label)
		}
	}
	for _, pattern := range []string{s.Name, sample(r.Config.Name.Matches), "example"} {
		if pattern != "" && r.Takes(pattern) {
			s.Name = pattern
			break
		}
	}
	if s.Name == "" {
		s.Name = "example"
	}
	return s
}

// rule checks one rule.
func (c *checker) rule(r *rules.Rule) {
	if r.Err != nil {
		c.broken(r)
		if _, ok := errors.AsType[*naming.UnresolvedError](r.Err); !ok {
			return
		}
	}
	series := example(r)
	c.names(r, series.Name)
	c.quoted(r, series)
	c.labels(r)
	if r.External {
		c.external(r, series)
		return
	}
	resources := c.resources(r, series)
	if len(resources) == 0 {
		c.add(Fault, r.Field+".resources", "no-resource", "no label names an object, so there are no metrics; set resources.template or resources.overrides")
		return
	}
	for _, resource := range resources {
		c.custom(r, series.Name, resource)
	}
}

// broken says why a rule makes no metrics.
func (c *checker) broken(r *rules.Rule) {
	if waits, ok := errors.AsType[*naming.UnresolvedError](r.Err); ok {
		c.add(Doubt, r.Field, "waits", "%s", waits.Explain())
		return
	}
	if _, err := promql.ParseSelector(r.Config.SeriesQuery); err != nil {
		c.add(Fault, r.Field+".seriesQuery", "selector", "Prometheus refuses %q: %v", r.Config.SeriesQuery, err)
		return
	}
	c.add(Fault, r.Field, "template", "%v", r.Err)
}

// names checks the metric's name and the expressions for it.
func (c *checker) names(r *rules.Rule, series string) {
	missing := r.Names().Missing()
	if len(missing) > 0 {
		c.add(Doubt, r.Field+".name.as", "name", "%q: $%s names no group of name.matches and stands for nothing; write ${1} before a letter, a digit or _",
			r.Config.Name.As, missing[0])
	}
	if _, err := r.MetricName(series); err != nil && r.Takes(series) {
		c.add(Fault, r.Field+".name", "name", "%v", err)
	}
	begins, ends := naming.Unanchored(&r.Config)
	for _, field := range begins {
		c.add(Doubt, r.Field, "unanchored", "%s also matches in the middle of a name; begin it with ^", field)
	}
	for _, field := range ends {
		c.add(Remark, r.Field, "unanchored", "%s also matches longer names; end it with $", field)
	}
}

// classic is a name that every Prometheus takes without quotes.
var classic = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)

// quoted remarks names that need quotes in PromQL.
func (c *checker) quoted(r *rules.Rule, series rules.Series) {
	for _, name := range append([]string{series.Name}, append(series.Labels, slices.Sorted(maps.Keys(r.Config.Resources.Overrides))...)...) {
		if !classic.MatchString(name) {
			c.add(Remark, r.Field, "utf8", "%q needs quotes in PromQL, which Prometheus takes since version 3; prometheus-adapter v0.12.0 writes none", name)
		}
	}
}

// labels checks which labels name objects.
func (c *checker) labels(r *rules.Rule) {
	m := r.Config.Resources
	by := map[schema.GroupResource][]string{}
	for label := range m.Overrides {
		for _, resource := range r.Resources([]string{label}) {
			by[resource.GroupResource] = append(by[resource.GroupResource], label)
		}
		if label == "pod_name" || label == "container_name" {
			c.add(Doubt, r.Field, "old-labels", "cAdvisor's label %s is %s since Kubernetes 1.16", label, strings.TrimSuffix(label, "_name"))
		}
	}
	for resource, labels := range by {
		if len(labels) > 1 {
			slices.Sort(labels)
			c.add(Doubt, r.Field+".resources.overrides", "twice", "%s are all labels of %s; queries use %s", strings.Join(labels, " and "), resource, labels[0])
		}
	}
	if strings.Contains(m.Template, ".Group") {
		c.add(Remark, r.Field+".resources.template", "group-label",
			"a group is written with underscores; prometheus-adapter v0.12.0 does not read labels of groups with a dot, or of the core group, back: Sluice makes metrics of them")
	}
	if strings.TrimSpace(m.Template) == "<<.Resource>>" && !r.External {
		c.add(Remark, r.Field+".resources.template", "own-labels", "Prometheus' own label job is taken for jobs.batch: each scraped series makes a metric of it")
	}
}

// resources are the kinds of objects to try.
func (c *checker) resources(r *rules.Rule, s rules.Series) []naming.Resource {
	labels := append(slices.Sorted(maps.Keys(r.Config.Resources.Overrides)), s.Labels...)
	if r.Config.Resources.Template != "" {
		for _, of := range []schema.GroupResource{{Resource: "pods"}, naming.Namespaces} {
			if label, err := r.Label(of); err == nil {
				labels = append(labels, label)
			}
		}
	}
	all := r.Resources(labels)
	if len(all) > 1 {
		all = slices.DeleteFunc(all, func(n naming.Resource) bool { return n.GroupResource == naming.Namespaces })
	}
	return all
}

// custom checks the query for one kind of object.
func (c *checker) custom(r *rules.Rule, series string, resource naming.Resource) {
	label, err := r.Label(resource.GroupResource)
	if err != nil {
		c.add(Fault, r.Field, "template", "%v", err)
		return
	}
	namespace := "ns"
	if resource.Root || resource.GroupResource == naming.Namespaces {
		namespace = ""
	}
	m := &rules.Metric{Rule: r, Series: series, Name: "metric", Resource: resource}
	one, err := m.Query(rules.Asked{Namespace: namespace, Names: []string{"a"}})
	if err != nil {
		c.failed(r, one, err)
		return
	}
	of := fmt.Sprintf("for %s", resource)
	c.result(r, one, label, c.namespaceLabel(r), of)
	if namespace != "" {
		c.namespaceMatcher(r, one, of)
	}
	two, err := m.Query(rules.Asked{Namespace: namespace, Names: []string{"a", "b.c"}})
	if err != nil {
		c.failed(r, two, err)
		return
	}
	for _, s := range two.Parsed.Selectors() {
		for _, m := range s.Matchers() {
			if m.Label == label && (m.Operator == "=" || m.Operator == "!=") && strings.Contains(m.Value, "|") {
				c.add(Fault, r.Field+".metricsQuery", "regex", "%s: the query has %s for two objects, which matches neither; write =~ or <<.LabelMatchers>>", of, m)
			}
		}
	}
	if _, ok, why, err := m.Group(rules.Asked{Namespace: namespace}); err == nil && !ok {
		c.add(Remark, r.Field, "single", "%s: one query cannot serve all objects, since %s", of, why)
	}
}

// failed notes that a query could not be rendered, or is no PromQL.
func (c *checker) failed(r *rules.Rule, q rules.Query, err error) {
	kind := "template"
	if q.PromQL != "" {
		kind = "syntax"
	} else if strings.Contains(err.Error(), "no label names namespaces") {
		kind = "no-namespace"
	}
	c.add(Fault, r.Field, kind, "%s", strings.TrimPrefix(reason(err), r.Field+": "))
}

// namespaceLabel is the label that names the namespace, "" for none.
func (c *checker) namespaceLabel(r *rules.Rule) string {
	label, err := r.Label(naming.Namespaces)
	if err != nil {
		return ""
	}
	return label
}

// result checks what a query gives for one object.
func (c *checker) result(r *rules.Rule, q rules.Query, label, namespaceLabel, of string) {
	field := r.Field + ".metricsQuery"
	if nan := q.Parsed.NaN(); len(nan) > 0 && r.Answers.OnNaN == "" {
		c.add(Doubt, field, "nan", "%s can be NaN or infinite, which is an error; onNaN and onInf say what it is to be", nan[0])
	}
	if q.Parsed.Scalar() {
		c.add(Doubt, field, "scalar", "the result is a number without labels; it serves one object, and no list")
		return
	}
	keeps := q.Parsed.Keeps()
	if !keeps.Has(label) {
		c.add(Fault, field, "label-lost", "%s: the result has no label %s, which names the object; aggregate by (<<.GroupBy>>)", of, label)
		return
	}
	if r.Answers.Duplicates != "" {
		return
	}
	if keeps.Only == nil {
		c.add(Doubt, field, "other-label", "%s: nothing is aggregated, so two series of one object are an error; aggregate by (<<.GroupBy>>), or set duplicates", of)
		return
	}
	others := slices.DeleteFunc(keeps.Names(), func(n string) bool { return n == label || n == namespaceLabel })
	if len(others) > 0 {
		c.add(Doubt, field, "other-label", "%s: the result also has %s, so several series of one object are an error; aggregate by (<<.GroupBy>>), or set duplicates",
			of, strings.Join(others, ", "))
	}
}

// namespaceMatcher checks that the query asks for the object's namespace, and that series have it.
func (c *checker) namespaceMatcher(r *rules.Rule, q rules.Query, of string) {
	if set := r.Config.Resources.NamespaceMatcher; set != nil && !*set {
		return
	}
	label := c.namespaceLabel(r)
	if label == "" {
		c.add(Doubt, r.Field+".resources", "no-namespace", "%s: no label names the namespace, so objects of one name in two namespaces cannot be told apart", of)
		return
	}
	for _, s := range q.Parsed.Selectors() {
		if !slices.ContainsFunc(s.Matchers(), func(m promql.Matcher) bool { return m.Label == label && m.Value == "ns" }) {
			kept := ""
			if !q.Parsed.Keeps().Has(label) {
				kept = ", and the result does not tell them apart"
			}
			c.add(Doubt, r.Field+".metricsQuery", "no-namespace", "%s: a selector does not ask for the namespace, so it reads those of all namespaces%s; write <<.LabelMatchers>> into it", of, kept)
		}
	}
	if !slices.ContainsFunc(r.Selector.Matchers(), func(m promql.Matcher) bool { return m.Label == label }) {
		c.add(Remark, r.Field+".seriesQuery", "no-namespace",
			"%s: series without the label %s make metrics that no query finds; add %s!=\"\", or set resources.namespaceMatcher: false", of, label, label)
	}
}

// external checks the query of an external metric.
func (c *checker) external(r *rules.Rule, series rules.Series) {
	m := &rules.Metric{Rule: r, Series: series.Name, Name: "metric"}
	q, err := m.Query(rules.Asked{Namespace: "ns"})
	if err != nil {
		c.failed(r, q, err)
		return
	}
	if nan := q.Parsed.NaN(); len(nan) > 0 && r.Answers.OnNaN == "" {
		c.add(Doubt, r.Field+".metricsQuery", "nan", "%s can be NaN or infinite, which is an error; onNaN and onInf say what it is to be", nan[0])
	}
	if !strings.Contains(r.Config.MetricsQuery, "LabelMatchers") && !strings.Contains(r.Config.MetricsQuery, "LabelValuesByName") {
		c.add(Doubt, r.Field+".metricsQuery", "ignores-caller", "the query does not read <<.LabelMatchers>>: each caller gets the same value, whatever its namespace and its selector")
	}
}

// resource checks resourceRules.
func (c *checker) resource(s *rules.ResourceRules) {
	if s.Err != nil {
		c.add(Doubt, "resourceRules", "waits", "%v", s.Err)
	}
	if _, err := s.Pods("ns", []string{"a", "b"}); err != nil {
		c.add(Fault, "resourceRules", "template", "pods: %s", reason(err))
	}
	if _, err := s.Nodes([]string{"a", "b"}); err != nil {
		c.add(Fault, "resourceRules", "template", "nodes: %s", reason(err))
	}
}
