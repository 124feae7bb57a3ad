package fetch

import (
	"context"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// prefetchPeriod is how often HorizontalPodAutoscalers are looked at.
const prefetchPeriod = 5 * time.Second

// prefetch has what HorizontalPodAutoscalers name fetched, before they ask for it.
func (e *Engine) prefetch(ctx context.Context) error {
	if e.opts.Demand == nil {
		return nil
	}
	ticker := time.NewTicker(prefetchPeriod)
	defer ticker.Stop()
	for {
		if st := e.state.Load(); st != nil {
			for _, hpa := range e.opts.Demand() {
				for _, q := range demand(st, hpa) {
					e.ahead(st, &q)
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// ahead has a question's query repeated. A query that has to name the pods of a selector is known
// once it was asked for; until then there is nothing to fetch.
func (e *Engine) ahead(st *state, q *question) {
	now := e.opts.Clock()
	p, err := st.plan(q, now)
	if err != nil {
		return // another provider's, or a fault that the reader is told
	}
	query := p.group
	if !p.grouped {
		if len(q.names) == 0 {
			return
		}
		if query, err = p.metric.Query(q.asked(now)); err != nil {
			return
		}
	}
	_, _ = e.memory.Want(p.key(query, false))
}

// demand is what a HorizontalPodAutoscaler asks for.
func demand(st *state, hpa *autoscalingv2.HorizontalPodAutoscaler) []question {
	var all []question
	add := func(q question, m autoscalingv2.MetricIdentifier) {
		q.metric, q.selector = m.Name, labels.Everything()
		if m.Selector != nil {
			s, err := metav1.LabelSelectorAsSelector(m.Selector)
			if err != nil {
				return
			}
			q.selector = s
		}
		all = append(all, q)
	}
	for i := range hpa.Spec.Metrics {
		switch m := &hpa.Spec.Metrics[i]; {
		case m.Pods != nil:
			add(question{resource: schema.GroupResource{Resource: "pods"}, namespaced: true, namespace: hpa.Namespace, list: true}, m.Pods.Metric)
		case m.External != nil:
			add(question{external: true, namespace: hpa.Namespace}, m.External.Metric)
		case m.Object != nil:
			gv, err := schema.ParseGroupVersion(m.Object.DescribedObject.APIVersion)
			if err != nil {
				continue
			}
			mapping, err := st.mapper.RESTMapping(schema.GroupKind{Group: gv.Group, Kind: m.Object.DescribedObject.Kind}, gv.Version)
			if err != nil {
				continue
			}
			q := question{
				resource: mapping.Resource.GroupResource(), namespaced: true, namespace: hpa.Namespace, names: []string{m.Object.DescribedObject.Name},
			}
			if q.resource.Resource == "namespaces" && q.resource.Group == "" {
				q.namespaced, q.namespace = false, ""
			}
			add(q, m.Object.Metric)
		}
	}
	return all
}
