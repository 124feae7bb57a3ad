package rules

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
	"github.com/sluice-autoscaler/sluice/adapter/rules/naming"
	"github.com/sluice-autoscaler/sluice/adapter/rules/query"
	"github.com/sluice-autoscaler/sluice/prom/promql"
)

// Asked is what is asked of a metric.
type Asked struct {
	// Resource is the kind of object by the name that the caller gave it, for errors; empty is the
	// metric's own.
	Resource schema.GroupResource
	// Namespace is the caller's, or the objects'; "" for objects outside of namespaces.
	Namespace string
	// Names are the objects; none for external metrics.
	Names []string
	// List says that the objects were asked for as a list.
	List bool
	// Selector is the metric selector; nil is everything.
	Selector labels.Selector
	Now      time.Time
}

// Query is a rendered query.
type Query struct {
	// PromQL is its text.
	PromQL string
	// Source names the Prometheus to ask, "" is the first.
	Source string
	// Parsed is the query as Prometheus' parser reads it.
	Parsed *promql.Query
}

// unanswerable says that nothing was asked for.
const unanswerable = "no objects were asked for"

// resource is the kind of object as errors name it.
func (m *Metric) resource(a Asked) schema.GroupResource {
	if a.Resource != (schema.GroupResource{}) {
		return a.Resource
	}
	return m.Resource.GroupResource
}

// Query renders the query for what is asked. The error is an *answer.Error. A text that is no
// PromQL gives both.
func (m *Metric) Query(a Asked) (Query, error) {
	r, err := m.request(a)
	if err != nil {
		return Query{}, err
	}
	if len(a.Names) == 0 && !m.Rule.External {
		return Query{}, answer.NotFound(m.resource(a), m.Name, "", unanswerable)
	}
	r.Names = a.Names
	return m.render(a, r)
}

// Group renders one query for all objects of a namespace that have the label. ok is false where one
// query does not serve them all, and why says what stands against it; ask with Query then. Names
// and List of what is asked do not count.
func (m *Metric) Group(a Asked) (q Query, ok bool, why string, err error) {
	if m.Rule.External {
		return Query{}, false, "an external metric has no objects", nil
	}
	if m.Rule.template.Uses("LabelValuesByName") {
		return Query{}, false, "metricsQuery reads LabelValuesByName", nil
	}
	r, err := m.request(a)
	if err != nil {
		return Query{}, false, "", err
	}
	r.All = true
	if q, err = m.render(a, r); err != nil {
		return Query{}, false, "", err
	}
	ok, why = q.Parsed.Groupable(r.Label)
	return q, ok, why, nil
}

// request has all but the objects.
func (m *Metric) request(a Asked) (query.Request, error) {
	r := query.Request{Series: m.Series, Selector: a.Selector, LegacyNames: m.Rule.options.LegacyNames}
	var err error
	if a.Namespace != "" && m.Rule.namespaced() {
		r.Namespace = a.Namespace
		if r.NamespaceLabel, err = m.Rule.Label(naming.Namespaces); err != nil {
			// v0.12.0 fails here; a query that does not name the namespace can do without.
			if m.uses() {
				return r, m.fault(a, fmt.Errorf("no label names namespaces (%w); set resources.template or resources.overrides, or %s",
					err, map[bool]string{true: "resources.namespaced: false", false: "resources.namespaceMatcher: false"}[m.Rule.External]))
			}
			r.Namespace = ""
		}
	}
	if !m.Rule.External {
		if r.Label, err = m.Rule.Label(m.Resource.GroupResource); err != nil {
			return r, m.fault(a, err)
		}
	}
	return r, nil
}

// uses reports whether the query reads the matchers.
func (m *Metric) uses() bool {
	return m.Rule.template.Uses("LabelMatchers") || m.Rule.template.Uses("LabelValuesByName")
}

// fault is an error of the rule: 404 for custom metrics and 500 for external ones, as in v0.12.0.
func (m *Metric) fault(a Asked, err error) error {
	if s, ok := errors.AsType[*query.SelectorError](err); ok {
		return &answer.Error{Status: http.StatusBadRequest, Message: s.Error()}
	}
	cause := fmt.Sprintf("%s: %v", m.Rule.Field, err)
	if m.Rule.External {
		return answer.Broken(cause)
	}
	return answer.NotFound(m.resource(a), m.Name, "", cause)
}

// render renders and parses.
func (m *Metric) render(a Asked, r query.Request) (Query, error) {
	text, err := m.Rule.template.Render(r)
	if err != nil {
		return Query{}, m.fault(a, err)
	}
	q := Query{PromQL: text, Source: m.Rule.Config.Source}
	if q.Parsed, err = promql.Parse(text); err != nil {
		return q, answer.Broken(fmt.Sprintf("%s: its query is no PromQL: %v", m.Rule.Field, err))
	}
	return q, nil
}

// Values turns an answer into values: of the objects in the order of their names, or of an external
// metric. The error is an *answer.Error. An answer to Group serves each set of objects; Index it
// once then, and ask with Select.
func (m *Metric) Values(r answer.Result, a Asked) ([]answer.Value, error) {
	if m.Rule.External {
		return m.Rule.Answers.External(r, m.Name, a.Namespace, a.Now)
	}
	x, err := m.Index(r, a)
	if err != nil {
		return nil, err
	}
	return m.Select(x, a)
}

// Index prepares an answer about objects for many questions in one namespace. Of what is asked only
// the namespace counts.
func (m *Metric) Index(r answer.Result, a Asked) (*answer.Index, error) {
	w, err := m.question(a)
	if err != nil {
		return nil, err
	}
	return w.Index(r), nil
}

// Select takes the values of the objects asked for out of an answer.
func (m *Metric) Select(x *answer.Index, a Asked) ([]answer.Value, error) {
	w, err := m.question(a)
	if err != nil {
		return nil, err
	}
	values, err := m.Rule.Answers.Objects(x, w)
	if e, ok := errors.AsType[*answer.Error](err); ok && e.Status == http.StatusNotFound && x.Empty() {
		e.Cause += m.unlisted(a)
	}
	return values, err
}

// question is what is asked of an answer.
func (m *Metric) question(a Asked) (answer.Objects, error) {
	w := answer.Objects{
		Metric: m.Name, Resource: m.resource(a), Namespace: a.Namespace, Names: a.Names, List: a.List, Now: a.Now,
	}
	var err error
	if w.Label, err = m.Rule.Label(m.Resource.GroupResource); err != nil {
		return w, m.fault(a, err)
	}
	if m.Resource.GroupResource == naming.Namespaces || m.Resource.Root && a.Namespace == "" {
		w.Namespace = ""
	} else if w.NamespaceLabel, err = m.Rule.Label(naming.Namespaces); err != nil {
		w.NamespaceLabel = ""
	}
	return w, nil
}

// unlisted says that series lack the label of the namespace that the query asks for, "" if not.
func (m *Metric) unlisted(a Asked) string {
	label, err := m.Rule.Label(naming.Namespaces)
	if a.Namespace == "" || !m.Rule.namespaced() || !m.uses() || err != nil || m.labels == nil || slices.Contains(m.labels, label) {
		return ""
	}
	return fmt.Sprintf("; the series %s has no label %s, which the query asks for (resources.namespaceMatcher: false leaves it out)", m.Series, label)
}

// Hold puts last known values in the place of those that are not known now, for as long as the rule
// holds them. values and err are those of Values, or err is why Prometheus could not be asked. A
// fault of the rule or of the caller is not bridged.
func (m *Metric) Hold(memory *answer.Memory, a Asked, values []answer.Value, err error) ([]answer.Value, error) {
	if e, ok := errors.AsType[*answer.Error](err); m.Rule.Hold <= 0 || ok && e.Status != http.StatusServiceUnavailable && e.Status != http.StatusNotFound {
		return values, err
	}
	key := fmt.Sprintf("%s\x00%s\x00%s\x00%s\x00%v\x00", m.Rule.Field, m.Resource, m.Name, a.Namespace, a.Selector)
	if m.Rule.External {
		if len(values) == 0 {
			values = nil
		}
		if held, ok := memory.Hold(key, m.Rule.Hold, a.Now, values); ok {
			return held, nil
		}
		return values, err
	}
	var all []answer.Value
	for _, name := range a.Names {
		var known []answer.Value
		if i := slices.IndexFunc(values, func(v answer.Value) bool { return v.Name == name }); i >= 0 {
			known = values[i : i+1]
		}
		held, _ := memory.Hold(key+name, m.Rule.Hold, a.Now, known)
		all = append(all, held...)
	}
	if len(all) > 0 {
		return all, nil
	}
	return values, err
}
