package delegate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
	metricsapi "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/sluice-autoscaler/sluice/adapter/delegate/config"
	"github.com/sluice-autoscaler/sluice/adapter/delegate/remote"
)

var _ metricsapi.MetricsProvider = (*Delegates)(nil)

// maxCollisions bounds the collisions that are kept and logged.
const maxCollisions = 1000

// ListAllMetrics lists the custom metrics of rules and of delegates, each once.
func (d *Delegates) ListAllMetrics() []metricsapi.CustomMetricInfo {
	var all []metricsapi.CustomMetricInfo
	if d.opts.Rules != nil {
		all = slices.Clone(d.opts.Rules.ListAllMetrics())
	}
	seen := map[metricsapi.CustomMetricInfo]bool{}
	for _, m := range all {
		seen[m] = true
	}
	for _, p := range d.table.Load().providers {
		custom, _, _ := p.Listed()
		for _, m := range custom {
			if !seen[m] {
				seen[m] = true
				all = append(all, m)
			}
		}
	}
	return all
}

// ListAllExternalMetrics lists the external metrics of rules and of delegates, each once.
func (d *Delegates) ListAllExternalMetrics() []metricsapi.ExternalMetricInfo {
	var all []metricsapi.ExternalMetricInfo
	if d.opts.Rules != nil {
		all = slices.Clone(d.opts.Rules.ListAllExternalMetrics())
	}
	seen := map[string]bool{}
	for _, m := range all {
		seen[m.Metric] = true
	}
	for _, p := range d.table.Load().providers {
		_, external, _ := p.Listed()
		for _, m := range external {
			if !seen[m.Metric] {
				seen[m.Metric] = true
				all = append(all, m)
			}
		}
	}
	return all
}

// whose says who answers a call: a provider, or the source that answers with values or with an
// error. Its own error is an API status.
func (d *Delegates) whose(ctx context.Context, c *remote.Call) (*remote.Provider, metricsapi.MetricsProvider, error) {
	last := d.opts.Else
	var unknown error
	made := false
	if d.opts.Rules != nil {
		last = d.opts.Rules
		made, unknown = d.opts.Rules.Makes(c.Resource, c.Namespace, c.Metric)
	}
	t := d.table.Load()
	r := t.config.Route(request(c), func(ns string) (labels.Set, error) { return d.namespaces.labels(ctx, ns) })
	switch {
	case made:
		if r.Delegate >= 0 && !r.Rest {
			d.collision(ctx, c.Metric, "rules", t.config.Delegates[r.Delegate].Name)
		}
		return nil, last, nil
	case r.Delegate < 0:
		return nil, last, nil
	case r.Err != nil:
		return nil, nil, apierrors.NewServiceUnavailable(fmt.Sprintf("delegate %s: %v", t.config.Delegates[r.Delegate].Name, r.Err))
	case r.Rest && unknown != nil:
		return nil, nil, apierrors.NewServiceUnavailable(fmt.Sprintf("whether a rule makes %s is not known yet, so that it is not known to be delegate %s's: %v", c.Metric, t.config.Delegates[r.Delegate].Name, unknown))
	}
	if !r.Rest {
		for _, hidden := range r.Hidden {
			d.collision(ctx, c.Metric, "delegate "+t.config.Delegates[r.Delegate].Name, t.config.Delegates[hidden].Name)
		}
	}
	return t.providers[r.Delegate], nil, nil
}

// request is a call as it is routed.
func request(c *remote.Call) config.Request {
	api := config.Custom
	if c.External {
		api = config.External
	}
	return config.Request{API: api, Metric: c.Metric, Namespace: c.Area(), Selector: c.Metrics}
}

// collide finds the collisions among what is listed.
func (d *Delegates) collide(ctx context.Context) {
	t := d.table.Load()
	for _, name := range d.opts.Own {
		for i := range t.config.Delegates {
			if t.config.Delegates[i].Names(name) {
				d.collision(ctx, name, "Sluice itself", t.config.Delegates[i].Name)
			}
		}
	}
	type metric struct {
		resource schema.GroupResource
		name     string
	}
	first := map[metric]string{}
	look := func(m metric, by string) {
		switch made, _ := d.makes(m.resource, m.name); {
		case d.opts.Reserved != nil && d.opts.Reserved(m.resource, m.name):
			d.collision(ctx, m.name, "Sluice itself", by)
		case made:
			d.collision(ctx, m.name, "rules", by)
		case first[m] != "" && first[m] != by:
			d.collision(ctx, m.name, "delegate "+first[m]+", unless namespace or selector tell them apart", by)
		default:
			first[m] = by
		}
	}
	for _, p := range t.providers {
		custom, external, _ := p.Listed()
		for _, m := range custom {
			look(metric{m.GroupResource, m.Metric}, p.Name())
		}
		for _, m := range external {
			look(metric{name: m.Metric}, p.Name())
		}
	}
}

// makes asks the rules.
func (d *Delegates) makes(resource schema.GroupResource, metric string) (bool, error) {
	if d.opts.Rules == nil {
		return false, nil
	}
	return d.opts.Rules.Makes(resource, "", metric)
}

// collision logs once that a delegate's metric is answered by somebody else.
func (d *Delegates) collision(ctx context.Context, metric, by, hides string) {
	key := metric + "\x00" + by + "\x00" + hides
	d.mu.Lock()
	known := d.collisions[key] || len(d.collisions) >= maxCollisions
	if !known {
		d.collisions[key] = true
	}
	d.metrics.collisions.Set(float64(len(d.collisions)))
	d.mu.Unlock()
	if !known {
		d.opts.Log.WarnContext(ctx, "two providers have a metric", slog.String("metric", metric), slog.String("answered_by", by), slog.String("not_by", "delegate "+hides))
	}
}

// GetMetricByName answers for one object.
func (d *Delegates) GetMetricByName(ctx context.Context, name types.NamespacedName, info metricsapi.CustomMetricInfo, selector labels.Selector) (*custom_metrics.MetricValue, error) {
	c := &remote.Call{Resource: info.GroupResource, Namespace: name.Namespace, Name: name.Name, Metric: info.Metric, Metrics: selector}
	p, other, err := d.whose(ctx, c)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return other.GetMetricByName(ctx, name, info, selector)
	}
	values, err := p.Custom(ctx, c)
	if err != nil {
		return nil, err
	}
	return &values[0], nil
}

// GetMetricBySelector answers for the objects whose own labels match.
func (d *Delegates) GetMetricBySelector(ctx context.Context, namespace string, selector labels.Selector, info metricsapi.CustomMetricInfo, metricSelector labels.Selector) (*custom_metrics.MetricValueList, error) {
	c := &remote.Call{Resource: info.GroupResource, Namespace: namespace, Name: "*", Metric: info.Metric, Objects: selector, Metrics: metricSelector}
	p, other, err := d.whose(ctx, c)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return other.GetMetricBySelector(ctx, namespace, selector, info, metricSelector)
	}
	values, err := p.Custom(ctx, c)
	if err != nil {
		return nil, err
	}
	return &custom_metrics.MetricValueList{Items: values}, nil
}

// GetExternalMetric answers for a namespace.
func (d *Delegates) GetExternalMetric(ctx context.Context, namespace string, selector labels.Selector, info metricsapi.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error) {
	c := &remote.Call{External: true, Namespace: namespace, Metric: info.Metric, Metrics: selector}
	p, other, err := d.whose(ctx, c)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return other.GetExternalMetric(ctx, namespace, selector, info)
	}
	values, err := p.External(ctx, c)
	if err != nil {
		return nil, err
	}
	return &external_metrics.ExternalMetricValueList{Items: values}, nil
}

// Question is what Explain explains.
type Question struct {
	External          bool
	Resource          schema.GroupResource
	Namespace, Object string
	Metric            string
	Selector          labels.Selector
}

// Explanation says who answers a question, and what.
type Explanation struct {
	// Delegate is the provider's name, Where its address, Rest that it takes what nobody else does.
	Delegate, Where string
	Rest            bool
	// Path is what it is asked.
	Path   string
	Values []string
	// Status and Err say why there is no answer.
	Status int
	Err    error
}

// Explain asks as a reader would, and says how; ok is false for what no delegate answers.
func (d *Delegates) Explain(ctx context.Context, q Question) (out Explanation, ok bool) {
	c := &remote.Call{External: q.External, Resource: q.Resource, Namespace: q.Namespace, Name: q.Object, Metric: q.Metric, Metrics: q.Selector}
	if !q.External && q.Object == "" {
		c.Name = "*"
	}
	if !q.External && q.Resource.Group == "" && strings.TrimSuffix(q.Resource.Resource, "s") == "namespace" {
		// Of namespaces the caller is told of the one that it may read.
		c.Resource.Resource, c.Namespace, c.Name = "namespaces", "", q.Namespace
	}
	p, other, err := d.whose(ctx, c)
	if other != nil {
		return out, false
	}
	out.Status = http.StatusOK
	if err == nil {
		out.Delegate, out.Where = p.Name(), p.Where()
		r := d.table.Load().config.Route(request(c), func(ns string) (labels.Set, error) { return d.namespaces.labels(ctx, ns) })
		out.Rest = r.Rest
		if q.External {
			asked := *c
			asked.Objects, asked.Metrics = c.Metrics, nil
			out.Path, _ = asked.Target("v1beta1", "") // what it refuses external refuses as well
			var values []external_metrics.ExternalMetricValue
			values, err = p.External(ctx, c)
			for i := range values {
				out.Values = append(out.Values, fmt.Sprintf("%s = %s at %s", labels.Set(values[i].MetricLabels), values[i].Value.String(), values[i].Timestamp.UTC().Format(time.RFC3339)))
			}
		} else {
			out.Path, _ = c.Target(cmp.Or(p.Version(), "v1beta2"), "")
			var values []custom_metrics.MetricValue
			values, err = p.Custom(ctx, c)
			for i := range values {
				out.Values = append(out.Values, fmt.Sprintf("%s = %s at %s", values[i].DescribedObject.Name, values[i].Value.String(), values[i].Timestamp.UTC().Format(time.RFC3339)))
			}
		}
	}
	if err != nil {
		out.Err, out.Status = err, http.StatusInternalServerError
		var s apierrors.APIStatus
		if errors.As(err, &s) {
			out.Status = int(s.Status().Code)
		}
	}
	return out, true
}
