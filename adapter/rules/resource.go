package rules

import (
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
	"github.com/sluice-autoscaler/sluice/adapter/rules/config"
	"github.com/sluice-autoscaler/sluice/adapter/rules/naming"
	"github.com/sluice-autoscaler/sluice/adapter/rules/query"
	"github.com/sluice-autoscaler/sluice/prom/promql"
)

var (
	pods  = schema.GroupResource{Resource: "pods"}  //nolint:gochecknoglobals // a constant
	nodes = schema.GroupResource{Resource: "nodes"} //nolint:gochecknoglobals // a constant
)

// ResourceRules are compiled resourceRules.
type ResourceRules struct {
	// Window is the time over which the queries take their means.
	Window time.Duration
	// Err says why they make no figures now, nil if they do.
	Err error

	cpu, memory resourceRule
	options     Options
}

// resourceRule has one resource's queries.
type resourceRule struct {
	name            string
	labels          *naming.Labels
	container, node *query.Template
	containerLabel  string
}

func compileResource(c *config.ResourceRules, o Options) (*ResourceRules, error) {
	r := &ResourceRules{Window: time.Duration(c.Window), options: o}
	var waits []error
	for _, part := range []struct {
		key, name string
		from      *config.ResourceRule
		to        *resourceRule
	}{{"cpu", "CPU", &c.CPU, &r.cpu}, {"memory", "memory", &c.Memory, &r.memory}} {
		fault := func(field string, err error) error {
			return &config.FieldError{
				Field: "resourceRules." + part.key + "." + field,
				Err:   fmt.Errorf("unable to construct querier for %s metrics: %w", part.name, err),
			}
		}
		var wait, err error
		*part.to = resourceRule{name: part.name, containerLabel: part.from.ContainerLabel}
		if part.to.labels, wait, err = naming.NewLabels(part.from.Resources, o.Mapper); err != nil {
			return nil, fault("resources.template", fmt.Errorf("unable to construct label-resource converter: %w", err))
		}
		if part.to.container, err = query.Compile(part.from.ContainerQuery); err != nil {
			return nil, fault("containerQuery", fmt.Errorf("unable to construct container metrics query: %w", err))
		}
		if part.to.node, err = query.Compile(part.from.NodeQuery); err != nil {
			return nil, fault("nodeQuery", fmt.Errorf("unable to construct node metrics query: %w", err))
		}
		if wait != nil {
			waits = append(waits, fmt.Errorf("%s: %w", part.key, wait))
		}
	}
	r.Err = errors.Join(waits...)
	return r, nil
}

// ResourceQueries are the queries for pods or nodes.
type ResourceQueries struct{ CPU, Memory Query }

// Texts lists the texts of the queries that could be rendered.
func (q ResourceQueries) Texts() []string {
	var all []string
	for _, one := range []Query{q.CPU, q.Memory} {
		if one.PromQL != "" {
			all = append(all, one.PromQL)
		}
	}
	return all
}

// Pods renders the queries for pods of a namespace. The error is an *answer.Error; what could be
// rendered is there nevertheless.
func (r *ResourceRules) Pods(namespace string, names []string) (ResourceQueries, error) {
	return r.queries(pods, namespace, names)
}

// Nodes renders the queries for nodes.
func (r *ResourceRules) Nodes(names []string) (ResourceQueries, error) {
	return r.queries(nodes, "", names)
}

func (r *ResourceRules) queries(of schema.GroupResource, namespace string, names []string) (q ResourceQueries, err error) {
	var errs []error
	for _, part := range []struct {
		rule *resourceRule
		to   *Query
	}{{&r.cpu, &q.CPU}, {&r.memory, &q.Memory}} {
		text, err := part.rule.render(of, namespace, names, r.options)
		part.to.PromQL = text
		if err == nil {
			if part.to.Parsed, err = promql.Parse(text); err != nil {
				err = fmt.Errorf("its query is no PromQL: %w", err)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("resourceRules.%s: %w", part.rule.name, err))
		}
	}
	if len(errs) > 0 {
		return q, answer.Broken(errors.Join(errs...).Error())
	}
	return q, nil
}

// render renders one query.
func (r *resourceRule) render(of schema.GroupResource, namespace string, names []string, o Options) (string, error) {
	q := query.Request{Names: names, LegacyNames: o.LegacyNames}
	template := r.node
	var err error
	if of == pods {
		template = r.container
		q.ExtraGroupBy = []string{r.containerLabel}
	}
	if namespace != "" {
		q.Namespace = namespace
		if q.NamespaceLabel, err = r.labels.Label(naming.Namespaces); err != nil {
			return "", err
		}
	}
	if q.Label, err = r.labels.Label(of); err != nil {
		return "", err
	}
	return template.Render(q)
}

// labelsOf are the labels that name objects in the answers for CPU and memory.
func (r *ResourceRules) labelsOf(of schema.GroupResource) (both [2]string, err error) {
	for i, rule := range []*resourceRule{&r.cpu, &r.memory} {
		if both[i], err = rule.labels.Label(of); err != nil {
			return both, answer.Broken(err.Error())
		}
	}
	return both, nil
}

// PodUsage turns answers into figures of pods.
func (r *ResourceRules) PodUsage(cpu, memory answer.Result, names []string) ([]answer.Usage, error) {
	labels, err := r.labelsOf(pods)
	if err != nil {
		return nil, err
	}
	return answer.Pods(cpu, memory, names, labels, [2]string{r.cpu.containerLabel, r.memory.containerLabel}), nil
}

// NodeUsage turns answers into figures of nodes.
func (r *ResourceRules) NodeUsage(cpu, memory answer.Result, names []string) ([]answer.Usage, error) {
	labels, err := r.labelsOf(nodes)
	if err != nil {
		return nil, err
	}
	return answer.Nodes(cpu, memory, names, labels)
}
