// Package rules is what prometheus-adapter's rules mean: which metrics they make of which series,
// what is asked of Prometheus for them, and what its answer is worth. It is pure: it reads no
// clock, no cluster and no network, and is safe for concurrent use.
//
// A Set is a compiled file of rules. With the series that Prometheus has, it makes a Registry of
// metrics. A metric renders queries, one for the objects asked for or one for all of them, and
// turns answers into values.
package rules

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
	"github.com/sluice-autoscaler/sluice/adapter/rules/config"
	"github.com/sluice-autoscaler/sluice/adapter/rules/naming"
	"github.com/sluice-autoscaler/sluice/adapter/rules/query"
	"github.com/sluice-autoscaler/sluice/prom/promql"
)

// Options say what rules are compiled for.
type Options struct {
	// Mapper knows the cluster's resources. package mapping has one without a cluster.
	Mapper meta.RESTMapper
	// LegacyNames says that the Prometheus is older than version 3.
	LegacyNames bool
}

// Set is a compiled file of rules.
type Set struct {
	// Custom and External are rules and externalRules.
	Custom, External []*Rule
	// Resource is resourceRules, nil where there are none.
	Resource *ResourceRules

	options Options
}

// Rule is a compiled rule.
type Rule struct {
	// Field is its place in the file, such as rules[2].
	Field string
	// External says that it makes external metrics.
	External bool
	// Config is the rule as it stands in the file.
	Config config.DiscoveryRule
	// Selector is its seriesQuery.
	Selector promql.Selector
	// Answers say what its values mean; Hold is how long the last known one stands in.
	Answers answer.Options
	Hold    time.Duration
	// Err says why the rule makes no metrics now; nil if it does. A rule that waits for a resource
	// works once the set is compiled again with a mapper that knows it.
	Err error

	labels   *naming.Labels
	names    *naming.Names
	template *query.Template
	options  Options
}

// Compile compiles rules. The error has every fault that makes v0.12.0 refuse the file, in its
// words and in its order, and faults of fields that only Sluice has. What depends on the cluster or
// on Prometheus is an error of its rule alone.
func Compile(c *config.MetricsDiscoveryConfig, o Options) (*Set, error) {
	s := &Set{options: o}
	var errs []error
	for i := range c.Rules {
		r, err := compile(fmt.Sprintf("rules[%d]", i), c.Rules[i], false, o)
		errs = append(errs, err)
		s.Custom = append(s.Custom, r)
	}
	for i := range c.ExternalRules {
		r, err := compile(fmt.Sprintf("externalRules[%d]", i), c.ExternalRules[i], true, o)
		errs = append(errs, err)
		s.External = append(s.External, r)
	}
	if c.ResourceRules != nil {
		r, err := compileResource(c.ResourceRules, o)
		errs = append(errs, err)
		s.Resource = r
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

// First is the first of the errors of Compile, which is what v0.12.0 says.
func First(err error) error {
	if all, ok := err.(interface{ Unwrap() []error }); ok && len(all.Unwrap()) > 0 {
		return First(all.Unwrap()[0])
	}
	return err
}

// compile compiles one rule.
func compile(place string, c config.DiscoveryRule, external bool, o Options) (*Rule, error) {
	r := &Rule{Field: place, External: external, Config: c, options: o, Hold: time.Duration(c.Hold)}
	fault := func(field, remedy string, err error) error {
		return &config.FieldError{Field: place + "." + field, Err: err, Remedy: remedy}
	}
	var waits, err error
	if r.labels, waits, err = naming.NewLabels(c.Resources, o.Mapper); err != nil {
		return nil, fault("resources.template", "want a template such as kube_<<.Resource>>", err)
	}
	if r.template, err = query.Compile(c.MetricsQuery); err != nil {
		return nil, fault("metricsQuery", "want a template of PromQL with << and >>",
			fmt.Errorf("unable to construct metrics query associated with series query %q: %w", c.SeriesQuery, err))
	}
	if r.names, err = naming.NewNames(&c); err != nil {
		if f, ok := errors.AsType[*config.FieldError](err); ok {
			f.Field = place + "." + f.Field
		}
		return nil, err
	}
	r.Answers = answer.Options{OnEmpty: c.OnEmpty, OnNaN: c.OnNaN, OnInf: c.OnInf, Duplicates: c.Duplicates, MaxAge: time.Duration(c.MaxAge)}
	var errs []error
	faults := r.Answers.Validate()
	for _, field := range []string{"onEmpty", "onNaN", "onInf", "duplicates", "maxAge"} {
		if err := faults[field]; err != nil {
			errs = append(errs, fault(field, "", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	r.Err = r.usable(waits)
	return r, nil
}

// usable says why a rule that v0.12.0 takes, or refuses all rules for, can make no metrics.
func (r *Rule) usable(waits error) error {
	if waits != nil {
		return waits
	}
	var err error
	if r.Selector, err = promql.ParseSelector(r.Config.SeriesQuery); err != nil {
		return fmt.Errorf("seriesQuery %q: bad_data: %w", r.Config.SeriesQuery, err)
	}
	if r.template.Blank() {
		return errors.New("metricsQuery is missing: want a template of PromQL, such as sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)")
	}
	return nil
}

// Takes reports whether the rule takes the series of a name that its seriesQuery selects.
func (r *Rule) Takes(series string) bool { return r.names.Takes(series) }

// MetricName is the name of the metric that a series makes.
func (r *Rule) MetricName(series string) (string, error) { return r.names.Metric(series) }

// Resources are the kinds of objects that labels name.
func (r *Rule) Resources(labels []string) []naming.Resource { return r.labels.Resources(labels) }

// Label is the label that names objects of a resource.
func (r *Rule) Label(resource schema.GroupResource) (string, error) { return r.labels.Label(resource) }

// Names are the rule's filters and names, for what checks it.
func (r *Rule) Names() *naming.Names { return r.names }

// same reports whether two rules ask and answer alike.
func (r *Rule) same(o *Rule) bool {
	a, b := r.Config, o.Config
	if a.MetricsQuery != b.MetricsQuery || a.Source != b.Source || r.Answers != o.Answers || r.Hold != o.Hold ||
		a.Resources.Template != b.Resources.Template || len(a.Resources.Overrides) != len(b.Resources.Overrides) ||
		r.namespaced() != o.namespaced() {
		return false
	}
	for label, to := range a.Resources.Overrides {
		if other, ok := b.Resources.Overrides[label]; !ok || other != to {
			return false
		}
	}
	return true
}

// namespaced reports whether queries have the caller's namespace.
func (r *Rule) namespaced() bool {
	set := r.Config.Resources.NamespaceMatcher
	if r.External {
		if set == nil {
			set = r.Config.Resources.Namespaced
		}
	}
	return set == nil || *set
}

// Rules lists the rules of both kinds in the order of the file.
func (s *Set) Rules() []*Rule { return slices.Concat(s.Custom, s.External) }
