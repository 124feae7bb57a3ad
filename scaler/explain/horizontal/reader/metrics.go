package reader

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	resourceclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
	customclient "k8s.io/metrics/pkg/client/custom_metrics"
	externalclient "k8s.io/metrics/pkg/client/external_metrics"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-autoscaler/sluice/scaler/explain/horizontal"
)

// The groups of the metrics APIs.
const (
	resourceGroup = "metrics.k8s.io"
	customGroup   = "custom.metrics.k8s.io"
	externalGroup = "external.metrics.k8s.io"
)

// metricsClients are those of the HPA's controller.
type metricsClients struct {
	resource resourceclient.PodMetricsesGetter
	external externalclient.ExternalMetricsClient
}

func (c *metricsClients) connect(cfg *rest.Config) (err error) {
	if c.resource, err = resourceclient.NewForConfig(cfg); err != nil {
		return fmt.Errorf("reach %s: %w", resourceGroup, err)
	}
	if c.external, err = externalclient.NewForConfig(cfg); err != nil {
		return fmt.Errorf("reach %s: %w", externalGroup, err)
	}
	return nil
}

// custom is a client for the version that the cluster serves. As the controller it takes the
// newest.
func (r *Reader) custom() (customclient.CustomMetricsClient, string, error) {
	const newest, older = "v1beta2", "v1beta1"
	version := newest
	groups, err := r.disco.ServerGroups()
	if err == nil {
		for _, g := range groups.Groups {
			if g.Name == customGroup && !slices.ContainsFunc(g.Versions, func(v metav1.GroupVersionForDiscovery) bool { return v.Version == newest }) {
				version = older
			}
		}
	}
	c, err := customclient.NewForVersionForConfig(r.cfg, r.mapper, schema.GroupVersion{Group: customGroup, Version: version})
	return c, version, err
}

// answer asks for one metric as the controller does.
func (r *Reader) answer(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler, spec *autoscalingv2.MetricSpec, pods string) horizontal.Answer {
	switch {
	case spec.Resource != nil:
		return r.askResource(ctx, h.Namespace, spec.Resource.Name, "", pods)
	case spec.ContainerResource != nil:
		return r.askResource(ctx, h.Namespace, spec.ContainerResource.Name, spec.ContainerResource.Container, pods)
	case spec.Pods != nil:
		return r.askPods(ctx, h.Namespace, spec.Pods, pods)
	case spec.Object != nil:
		return r.askObject(ctx, h.Namespace, spec.Object)
	case spec.External != nil:
		return r.askExternal(ctx, h.Namespace, spec.External)
	}
	return horizontal.Answer{Trouble: &horizontal.Trouble{Cause: fmt.Sprintf("an HPA has no metrics of type %q", spec.Type)}}
}

func (r *Reader) askResource(ctx context.Context, namespace string, name corev1.ResourceName, container, pods string) horizontal.Answer {
	list, err := r.metrics.resource.PodMetricses(namespace).List(ctx, metav1.ListOptions{LabelSelector: pods})
	if err != nil {
		return r.trouble(ctx, err, resourceGroup, "v1beta1", string(name), "")
	}
	return ofResource(list.Items, name, container)
}

// selectors parses the pods' selector and the metric's.
func selectors(pods string, metric *metav1.LabelSelector) (p, m labels.Selector, err error) {
	if p, err = labels.Parse(pods); err != nil {
		return nil, nil, err
	}
	m, err = metav1.LabelSelectorAsSelector(metric)
	return p, m, err
}

// faulty is the answer for a selector that is none.
func faulty(err error) horizontal.Answer {
	return horizontal.Answer{Trouble: &horizontal.Trouble{Cause: fmt.Sprintf("the metric's selector is none: %v", err), Remedy: "mend the selector in spec.metrics"}}
}

func (r *Reader) askPods(ctx context.Context, namespace string, spec *autoscalingv2.PodsMetricSource, pods string) horizontal.Answer {
	p, m, err := selectors(pods, spec.Metric.Selector)
	if err != nil {
		return faulty(err)
	}
	c, version, err := r.custom()
	if err == nil {
		list, asked := c.NamespacedMetrics(namespace).GetForObjects(schema.GroupKind{Kind: "Pod"}, p, spec.Metric.Name, m)
		if asked == nil {
			return ofPods(list.Items)
		}
		err = asked
	}
	return r.trouble(ctx, err, customGroup, version, spec.Metric.Name, "sluice explain metric "+spec.Metric.Name+" -n "+namespace+" --object pods/POD")
}

func (r *Reader) askObject(ctx context.Context, namespace string, spec *autoscalingv2.ObjectMetricSource) horizontal.Answer {
	_, m, err := selectors("", spec.Metric.Selector)
	if err != nil {
		return faulty(err)
	}
	of := spec.DescribedObject
	kind := schema.FromAPIVersionAndKind(of.APIVersion, of.Kind).GroupKind()
	// Of a namespace the controller reads the HPA's own, whatever the name.
	root := kind == schema.GroupKind{Kind: "Namespace"}
	c, version, err := r.custom()
	if err == nil {
		scope, object := customclient.MetricsInterface(nil), of.Name
		if scope = c.NamespacedMetrics(namespace); root {
			scope, object = c.RootScopedMetrics(), namespace
		}
		v, asked := scope.GetForObject(kind, object, spec.Metric.Name, m)
		if asked == nil {
			return ofObject(v)
		}
		err = asked
	}
	if missing := r.objectMissing(ctx, namespace, of, root, err); missing != nil {
		return horizontal.Answer{Trouble: missing}
	}
	return r.trouble(ctx, err, customGroup, version, spec.Metric.Name, "sluice explain metric "+spec.Metric.Name+" -n "+namespace+" --object "+strings.ToLower(of.Kind)+"/"+of.Name)
}

// objectMissing says that the described object is not there, where that is why the metric is not.
func (r *Reader) objectMissing(ctx context.Context, namespace string, of autoscalingv2.CrossVersionObjectReference, root bool, err error) *horizontal.Trouble {
	o, mapped := r.object(of.APIVersion, of.Kind)
	if absent(mapped) {
		return &horizontal.Trouble{Cause: fmt.Sprintf("the cluster has no kind %s of %q", of.Kind, of.APIVersion), Remedy: "mend describedObject, or install the kind's CRD"}
	}
	if root || mapped != nil || !apierrors.IsNotFound(err) {
		return nil
	}
	m, mapped := r.mapper.RESTMapping(o.GroupVersionKind().GroupKind())
	if mapped != nil {
		return nil
	}
	key := client.ObjectKey{Name: of.Name}
	if m.Scope.Name() == "namespace" {
		key.Namespace = namespace
	}
	if !apierrors.IsNotFound(r.client.Get(ctx, key, o)) {
		return nil
	}
	return &horizontal.Trouble{Cause: fmt.Sprintf("there is no %s %s/%s", of.Kind, namespace, of.Name), Remedy: "mend describedObject, or make the object"}
}

func (r *Reader) askExternal(ctx context.Context, namespace string, spec *autoscalingv2.ExternalMetricSource) horizontal.Answer {
	_, m, err := selectors("", spec.Metric.Selector)
	if err != nil {
		return faulty(err)
	}
	list, err := r.metrics.external.NamespacedMetrics(namespace).List(spec.Metric.Name, m)
	if err != nil {
		return r.trouble(ctx, err, externalGroup, "v1beta1", spec.Metric.Name, "sluice explain metric "+spec.Metric.Name+" -n "+namespace)
	}
	return ofExternal(spec.Metric.Name, list.Items)
}

// trouble says why a metric could not be read. More is the command that says more of it.
func (r *Reader) trouble(ctx context.Context, err error, group, version, metric, more string) horizontal.Answer {
	t := &horizontal.Trouble{Cause: line(err)}
	if refused(err) {
		t.Cause, t.Remedy, t.Hidden = "you may not read it: "+line(err), "the HPA's controller may have the right; to see what it sees you need it too", true
		return horizontal.Answer{Trouble: t}
	}
	if down := r.apiService(ctx, group, version); down != nil {
		return horizontal.Answer{Trouble: down}
	}
	switch {
	case apierrors.IsNotFound(err):
		t.Cause = fmt.Sprintf("%s has no metric %s here: %s", group, metric, line(err))
		t.Remedy = "see what there is: kubectl get --raw /apis/" + group + "/" + version
	default:
		t.Cause = fmt.Sprintf("%s answers %s", group, line(err))
	}
	if more != "" {
		t.Remedy = strings.TrimPrefix(t.Remedy+"; for a metric of Sluice's rules: "+more, "; ")
	}
	return horizontal.Answer{Trouble: t}
}

// line is an error in one line of bounded length.
func line(err error) string {
	const most = 400
	s := strings.Join(strings.Fields(err.Error()), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// apiService says that a metrics API has no provider, or one that cannot be reached; nil where it
// has one, or where that cannot be told.
func (r *Reader) apiService(ctx context.Context, group, version string) *horizontal.Trouble {
	name := version + "." + group
	raw, err := r.disco.RESTClient().Get().AbsPath("/apis/apiregistration.k8s.io/v1/apiservices", name).DoRaw(ctx)
	switch {
	case apierrors.IsNotFound(err):
		return &horizontal.Trouble{Cause: "nothing serves " + group + " in this cluster: there is no APIService " + name, Remedy: provider(group)}
	case err != nil:
		return nil
	}
	var service struct {
		Spec struct {
			Service *struct{ Namespace, Name string }
		}
		Status struct {
			Conditions []struct{ Type, Status, Reason, Message string }
		}
	}
	if json.Unmarshal(raw, &service) != nil {
		return nil
	}
	for _, c := range service.Status.Conditions {
		if c.Type != "Available" || c.Status == "True" {
			continue
		}
		t := &horizontal.Trouble{Cause: fmt.Sprintf("APIService %s is not available: %s: %s", name, c.Reason, strings.Join(strings.Fields(c.Message), " "))}
		if s := service.Spec.Service; s != nil {
			t.Remedy = fmt.Sprintf("see the Service %s/%s that it names: its endpoints, its port, and whether the APIService's caBundle signed its certificate", s.Namespace, s.Name)
		}
		return t
	}
	return nil
}

// provider says what serves a group.
func provider(group string) string {
	if group == resourceGroup {
		return "install metrics-server, or let Sluice serve it by resource rules (apiServices.resource)"
	}
	return "install an adapter, such as Sluice's controller with its APIServices"
}
