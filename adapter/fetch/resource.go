package fetch

import (
	"context"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/sluice-autoscaler/sluice/adapter/fetch/memory"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/resource"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/source"
	"github.com/sluice-autoscaler/sluice/adapter/rules"
	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
)

// PodMetrics answers metrics.k8s.io for the pods whose own labels match, of one namespace or of
// all. An error of one namespace is an error of the answer: a part would look like the whole.
func (e *Engine) PodMetrics(ctx context.Context, namespace string, selector labels.Selector) ([]metricsv1beta1.PodMetrics, error) {
	var by map[string][]string
	var err error
	if namespace == "" {
		by, err = e.opts.Objects.Pods(selector)
	} else {
		var names []string
		names, err = e.opts.Objects.Names(ctx, corev1.SchemeGroupVersion.WithResource("pods"), namespace, selector)
		by = map[string][]string{namespace: names}
	}
	if err != nil {
		return nil, e.count("resource", apierrors.NewInternalError(err))
	}
	all := []metricsv1beta1.PodMetrics{}
	for _, ns := range slices.Sorted(maps.Keys(by)) {
		usage, window, err := e.usage(ctx, ns, by[ns], false, namespace != "")
		if err != nil {
			return nil, err
		}
		for _, u := range usage {
			all = append(all, resource.Pod(ns, u, window))
		}
	}
	return all, nil
}

// PodMetric answers for one pod.
func (e *Engine) PodMetric(ctx context.Context, namespace, name string) (*metricsv1beta1.PodMetrics, error) {
	usage, window, err := e.usage(ctx, namespace, []string{name}, false, false)
	if err != nil {
		return nil, err
	}
	if len(usage) == 0 {
		return nil, apierrors.NewNotFound(schema.GroupResource{Group: metricsv1beta1.GroupName, Resource: "pods"}, namespace+"/"+name)
	}
	m := resource.Pod(namespace, usage[0], window)
	return &m, nil
}

// NodeMetrics answers for the nodes whose own labels match.
func (e *Engine) NodeMetrics(ctx context.Context, selector labels.Selector) ([]metricsv1beta1.NodeMetrics, error) {
	names, err := e.opts.Objects.Names(ctx, corev1.SchemeGroupVersion.WithResource("nodes"), "", selector)
	if err != nil {
		return nil, e.count("resource", apierrors.NewInternalError(err))
	}
	return e.nodes(ctx, names)
}

// NodeMetric answers for one node.
func (e *Engine) NodeMetric(ctx context.Context, name string) (*metricsv1beta1.NodeMetrics, error) {
	all, err := e.nodes(ctx, []string{name})
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, apierrors.NewNotFound(schema.GroupResource{Group: metricsv1beta1.GroupName, Resource: "nodes"}, name)
	}
	return &all[0], nil
}

func (e *Engine) nodes(ctx context.Context, names []string) ([]metricsv1beta1.NodeMetrics, error) {
	usage, window, err := e.usage(ctx, "", names, true, false)
	if err != nil {
		return nil, err
	}
	all := []metricsv1beta1.NodeMetrics{}
	for _, u := range usage {
		all = append(all, resource.Node(u, window))
	}
	return all, nil
}

// usage asks for CPU and memory of pods or nodes; some makes it an error that none has both. Its
// error is an API status.
func (e *Engine) usage(ctx context.Context, namespace string, names []string, nodes, some bool) (usage []answer.Usage, window time.Duration, err error) {
	defer func() {
		if err != nil {
			err = e.count("resource", status(err))
		} else {
			e.metrics.Answers.WithLabelValues("resource", "ok").Inc()
		}
	}()
	st := e.state.Load()
	of := "namespace " + namespace
	if nodes {
		of = "the nodes"
	}
	switch {
	case st == nil:
		return nil, 0, answer.Unknown("usage", of, "the rules are not compiled yet")
	case st.set.Resource == nil:
		return nil, 0, answer.Broken("there are no resourceRules")
	case st.set.Resource.Err != nil:
		return nil, 0, answer.Broken("resourceRules: " + st.set.Resource.Err.Error())
	case len(names) == 0:
		return nil, 0, nil
	}
	r := st.set.Resource
	values := r.PodUsage
	var queries rules.ResourceQueries
	if nodes {
		values = r.NodeUsage
		queries, err = r.Nodes(names)
	} else {
		queries, err = r.Pods(namespace, names)
	}
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, firstWait)
	defer cancel()
	keys := [2]memory.Key{resourceKey(queries.CPU), resourceKey(queries.Memory)}
	for _, key := range keys { // both are asked at once
		_, _ = e.memory.Want(key)
	}
	var results [2]answer.Result
	for i, key := range keys {
		f := e.memory.Read(ctx, key)
		if f.Err != nil {
			return nil, 0, answer.Unknown("usage", of, f.Err.Error())
		}
		if age := e.opts.Clock().Sub(f.At); age > e.staleAfter(key.From) {
			return nil, 0, answer.Unknown("usage", of, "the last answer is "+age.Round(time.Second).String()+" old")
		}
		results[i] = f.Result
	}
	usage, err = values(results[0], results[1], names)
	if err == nil && some && len(usage) == 0 {
		err = resource.Missing(of, results)
	}
	return usage, r.Window, err
}

func resourceKey(q rules.Query) memory.Key {
	return memory.Key{From: q.Source, Query: source.Query{PromQL: q.PromQL}}
}
