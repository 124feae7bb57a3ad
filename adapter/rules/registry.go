package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
	"github.com/sluice-autoscaler/sluice/adapter/rules/naming"
)

// MaxMetrics bounds the metrics of a registry; a rule that would make more is at fault. Discovery
// lists them all, and a few hundred are usual.
const MaxMetrics = 50_000

// Series is what is known of the series of one name: the names of their labels. Values do not
// matter, so that one entry may stand for any number of series.
type Series struct {
	Name   string
	Labels []string
}

// Listing is what Prometheus has for a rule.
type Listing struct {
	Series []Series
	// Err says why it could not be listed.
	Err error
}

// CustomInfo names a custom metric in discovery.
type CustomInfo struct {
	schema.GroupResource
	Namespaced bool
	Metric     string
}

// String writes it as test files do.
func (c CustomInfo) String() string {
	scope := "root"
	if c.Namespaced {
		scope = "namespaced"
	}
	return fmt.Sprintf("%s/%s (%s)", c.GroupResource, c.Metric, scope)
}

// Metric is a metric that a rule makes of a series.
type Metric struct {
	Rule *Rule
	// Series is the name of the series.
	Series string
	// Name is the metric's.
	Name string
	// Resource is the kind of object that it describes; empty for external metrics.
	Resource naming.Resource
	// Err says why the metric cannot be read, though it is there.
	Err error
	// labels are those that the series have.
	labels []string
}

// key finds a metric; resource is empty for external ones.
type key struct {
	resource schema.GroupResource
	metric   string
}

// Registry has the metrics that rules make of the series that there are. It does not change.
type Registry struct {
	set     *Set
	metrics map[key]*Metric
	errs    map[*Rule]error
}

// Registry makes the metrics of what Prometheus has for each rule. A rule without a listing has no
// series. A rule that fails, or whose listing failed, harms no other.
func (s *Set) Registry(listings map[*Rule]Listing) *Registry {
	g := &Registry{set: s, metrics: map[key]*Metric{}, errs: map[*Rule]error{}}
	for _, r := range s.Rules() {
		l := listings[r]
		err := r.Err
		if err == nil {
			err = l.Err
		}
		for _, series := range l.Series {
			if !r.Takes(series.Name) {
				continue
			}
			name, nameErr := r.MetricName(series.Name)
			if nameErr != nil {
				if err == nil {
					err = nameErr
				}
				continue
			}
			if r.External {
				g.add(r, naming.Resource{}, name, series)
				continue
			}
			for _, resource := range r.Resources(series.Labels) {
				g.add(r, resource, name, series)
			}
		}
		if err == nil && len(g.metrics) >= MaxMetrics {
			err = fmt.Errorf("there are more than %d metrics; narrow the seriesQuery", MaxMetrics)
		}
		if err != nil {
			g.errs[r] = err
		}
	}
	return g
}

// add adds a metric. Two that differ and have one name clash.
func (g *Registry) add(r *Rule, resource naming.Resource, name string, series Series) {
	k := key{resource.GroupResource, name}
	m := &Metric{Rule: r, Series: series.Name, Name: name, Resource: resource, labels: series.Labels}
	if r.Err != nil {
		m.Err = fmt.Errorf("%s: %w", r.Field, r.Err)
	}
	old := g.metrics[k]
	switch {
	case old == nil:
		if len(g.metrics) < MaxMetrics {
			g.metrics[k] = m
		}
	case old.Rule.Err != nil && r.Err == nil:
		g.metrics[k] = m
	case r.Err != nil || old.Series == m.Series && (old.Rule == r || old.Rule.same(r)):
		for _, label := range m.labels {
			if !slices.Contains(old.labels, label) {
				old.labels = append(slices.Clone(old.labels), label)
			}
		}
	case old.Rule.Answers.Duplicates == answer.First:
	default:
		if old.Err == nil {
			old.Err = fmt.Errorf("the series %s (%s) and %s (%s) both make it; give one another name, or the first rule duplicates: first",
				old.Series, old.Rule.Field, m.Series, r.Field)
		}
	}
}

// Errors are the rules that make no metrics, or fewer than they should, with the cause.
func (g *Registry) Errors() map[*Rule]error { return g.errs }

// Custom lists the custom metrics for discovery, by name. A metric of a rule that fails is not
// listed.
func (g *Registry) Custom() []CustomInfo {
	by := map[string]CustomInfo{}
	for k, m := range g.metrics {
		if !m.Rule.External && m.Rule.Err == nil {
			info := CustomInfo{GroupResource: k.resource, Namespaced: !m.Resource.Root, Metric: k.metric}
			by[info.String()] = info
		}
	}
	all := make([]CustomInfo, 0, len(by))
	for _, name := range slices.Sorted(maps.Keys(by)) {
		all = append(all, by[name])
	}
	return all
}

// External lists the external metrics for discovery, by name.
func (g *Registry) External() []string {
	var all []string
	for k, m := range g.metrics {
		if m.Rule.External && m.Rule.Err == nil {
			all = append(all, k.metric)
		}
	}
	slices.Sort(all)
	return all
}

// Describes finds the custom metric of a resource, whose name may be singular. namespaced says that
// the request was made in a namespace. A metric of objects outside namespaces is found within one,
// too, where v0.12.0 finds it there: the HorizontalPodAutoscaler asks so for all but namespaces.
// The error is an *answer.Error; a metric that is there and cannot be read gives both.
func (g *Registry) Describes(asked schema.GroupResource, namespaced bool, metric string) (*Metric, error) {
	gvr, err := g.set.options.Mapper.ResourceFor(asked.WithVersion(""))
	if err != nil {
		return nil, answer.NotFound(asked, metric, "", err.Error())
	}
	resource := gvr.GroupResource()
	m := g.metrics[key{resource, metric}]
	if m == nil || m.Rule.External {
		return nil, answer.NotFound(asked, metric, "", g.absence(resource, metric))
	}
	if namespaced == m.Resource.Root && (!namespaced || !legacyNamespaced(resource)) {
		scope := "in a namespace"
		if m.Resource.Root {
			scope = "outside of namespaces"
		}
		return nil, answer.NotFound(asked, metric, "", fmt.Sprintf("%s are %s", resource, scope))
	}
	if m.Err != nil {
		if m.Rule.Err != nil {
			return m, answer.NotFound(asked, metric, "", m.Err.Error())
		}
		return m, answer.Broken(fmt.Sprintf("metric %s of %s: %v", metric, resource, m.Err))
	}
	return m, nil
}

// legacyNamespaced reports whether v0.12.0 takes a resource for one within namespaces, whatever it
// is.
func legacyNamespaced(r schema.GroupResource) bool {
	return r != naming.Namespaces && r != schema.GroupResource{Resource: "nodes"} && r != schema.GroupResource{Resource: "persistentvolumes"}
}

// ExternalMetric finds an external metric for a namespace. The error is as that of Describes.
func (g *Registry) ExternalMetric(namespace, name string) (*Metric, error) {
	m := g.metrics[key{metric: name}]
	if m == nil || !m.Rule.External {
		var of schema.GroupResource
		if namespace == "default" { // so v0.12.0 words it
			of = naming.Namespaces
		}
		return nil, answer.NotFound(of, name, "", g.absence(schema.GroupResource{}, name))
	}
	if m.Err != nil {
		return m, answer.Broken(m.Err.Error())
	}
	return m, nil
}

// absence says why there is no such metric.
func (g *Registry) absence(resource schema.GroupResource, metric string) string {
	var of []string
	for k, m := range g.metrics {
		if k.metric == metric && m.Rule.External == (resource == schema.GroupResource{}) {
			of = append(of, k.resource.String())
		}
	}
	slices.Sort(of)
	if len(of) > 0 {
		return "only " + strings.Join(of, ", ") + " have it"
	}
	for _, r := range g.set.Rules() {
		if err := g.errs[r]; err != nil && r.External == (resource == schema.GroupResource{}) {
			return fmt.Sprintf("no rule makes it of the series that there are; %s makes none: %v", r.Field, err)
		}
	}
	return "no rule makes it of the series that there are"
}
