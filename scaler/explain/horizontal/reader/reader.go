// Package reader reads from a cluster what package horizontal explains, with the rights of the user
// who asks: the HorizontalPodAutoscaler, its target's scale, the pods, the events, and each metric
// through the API that the HPA's controller asks.
package reader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-autoscaler/sluice/algorithms/hpa"
	"github.com/sluice-autoscaler/sluice/scaler/explain/horizontal"
)

const (
	// callTimeout bounds one call of the API server.
	callTimeout = 15 * time.Second
	// mostBytes bounds one answer: another server may be behind the API server.
	mostBytes = 64 << 20
	// page and mostPods bound the lists of pods.
	page, mostPods = 500, 50_000
)

// Reader reads from one cluster. It is safe for concurrent use.
type Reader struct {
	cfg     *rest.Config
	client  client.Client
	disco   *discovery.DiscoveryClient
	mapper  *restmapper.DeferredDiscoveryRESTMapper
	metrics metricsClients
}

// New returns a Reader. It calls nobody yet.
func New(cfg *rest.Config) (*Reader, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.Timeout = callTimeout
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return bounded{next} })
	disco, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(disco))
	cl, err := client.New(cfg, client.Options{Scheme: scheme.Scheme, Mapper: mapper})
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	r := &Reader{cfg: cfg, client: cl, disco: disco, mapper: mapper}
	return r, r.metrics.connect(cfg)
}

// bounded refuses answers that are too large.
type bounded struct{ next http.RoundTripper }

// RoundTrip bounds what is read of the answer.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.next.RoundTrip(r)
	if err == nil && answer.Body != nil {
		answer.Body = &boundedBody{ReadCloser: answer.Body, left: mostBytes}
	}
	return answer, err
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

var errTooLarge = fmt.Errorf("the answer has more than %d MiB", mostBytes>>20)

// Read fails where there is more than the bound.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLarge
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// Read reads all that the explanation of an HPA needs. An error means that the HPA itself could not
// be read; whatever else cannot be is said in the Input.
func (r *Reader) Read(ctx context.Context, namespace, name string, set horizontal.Settings) (*horizontal.Input, error) {
	h := &autoscalingv2.HorizontalPodAutoscaler{}
	if err := r.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, h); err != nil {
		return nil, fmt.Errorf("read HorizontalPodAutoscaler %s/%s: %w", namespace, name, err)
	}
	in := &horizontal.Input{HPA: h, Settings: set}
	r.release(&in.Settings)
	if in.Scale, in.ScaleTrouble = r.scale(ctx, h); in.ScaleTrouble == nil {
		in.Pods, in.PodsTrouble = r.pods(ctx, namespace, in.Scale.Status.Selector)
		for i := range h.Spec.Metrics {
			in.Answers = append(in.Answers, r.answer(ctx, h, &h.Spec.Metrics[i], in.Scale.Status.Selector))
		}
	}
	in.Events = r.events(ctx, h)
	in.Now = time.Now()
	return in, nil
}

// release sets what depends on the cluster's release, where it is known.
func (r *Reader) release(set *horizontal.Settings) {
	v, err := r.disco.ServerVersion()
	if err != nil {
		return
	}
	minor, err := strconv.Atoi(strings.TrimRight(v.Minor, "+"))
	if err != nil || v.Major != "1" {
		return
	}
	set.Release = hpa.Release137
	if minor >= 38 {
		set.Release = hpa.Release138
	}
	set.WakesAlways = minor < 37
}

// refused tells whether the API server refused this user, who may know less than the controller.
func refused(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) }

// scale reads the scale of the target.
func (r *Reader) scale(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler) (*autoscalingv1.Scale, *horizontal.Trouble) {
	ref := h.Spec.ScaleTargetRef
	what := fmt.Sprintf("%s %s/%s", ref.Kind, h.Namespace, ref.Name)
	o, err := r.object(ref.APIVersion, ref.Kind)
	if err != nil {
		return nil, &horizontal.Trouble{
			Cause: fmt.Sprintf("the cluster has no kind %s of %q: %v", ref.Kind, ref.APIVersion, err), Remedy: "mend spec.scaleTargetRef, or install the kind's CRD",
		}
	}
	o.SetNamespace(h.Namespace)
	o.SetName(ref.Name)
	read := &unstructured.Unstructured{}
	read.SetGroupVersionKind(autoscalingv1.SchemeGroupVersion.WithKind("Scale"))
	s := &autoscalingv1.Scale{}
	if err = r.client.SubResource("scale").Get(ctx, o, read); err == nil {
		err = runtime.DefaultUnstructuredConverter.FromUnstructured(read.Object, s)
	}
	switch {
	case err == nil:
		return s, nil
	case refused(err):
		return nil, &horizontal.Trouble{Cause: fmt.Sprintf("you may not read the scale of %s: %v", what, err), Remedy: "the right to get the subresource scale is needed", Hidden: true}
	case !apierrors.IsNotFound(err):
		return nil, &horizontal.Trouble{Cause: fmt.Sprintf("the scale of %s cannot be read: %v", what, err), Remedy: "see whether the API server answers"}
	}
	if r.client.Get(ctx, client.ObjectKeyFromObject(o), o) == nil {
		return nil, &horizontal.Trouble{Cause: what + " has no scale subresource", Remedy: "name something that can be scaled; a CRD needs subresources.scale"}
	}
	return nil, &horizontal.Trouble{Cause: "there is no " + what, Remedy: "mend spec.scaleTargetRef, or make the target"}
}

// object is an empty object of a kind, at the version that the cluster prefers.
func (r *Reader) object(apiVersion, kind string) (*unstructured.Unstructured, error) {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return nil, err
	}
	m, err := r.mapper.RESTMapping(schema.GroupKind{Group: gv.Group, Kind: kind})
	if err != nil {
		return nil, err
	}
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(m.GroupVersionKind)
	return o, nil
}

// pods lists the pods of a selector.
func (r *Reader) pods(ctx context.Context, namespace, selector string) ([]*corev1.Pod, *horizontal.Trouble) {
	s, err := labels.Parse(selector)
	if selector == "" || err != nil {
		return nil, nil // package horizontal says so
	}
	var pods []*corev1.Pod
	for next := ""; ; {
		var list corev1.PodList
		err := r.client.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabelsSelector{Selector: s}, client.Limit(page), client.Continue(next))
		if err != nil {
			return nil, &horizontal.Trouble{Cause: fmt.Sprintf("the pods cannot be listed: %v", err), Remedy: "the right to list pods is needed", Hidden: true}
		}
		for i := range list.Items {
			pods = append(pods, &list.Items[i])
		}
		if next = list.Continue; next == "" {
			return pods, nil
		}
		if len(pods) >= mostPods {
			return nil, &horizontal.Trouble{Cause: fmt.Sprintf("there are more than %d pods", mostPods), Hidden: true}
		}
	}
}

// events are those of the HPA; none where they cannot be read.
func (r *Reader) events(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler) []corev1.Event {
	var list corev1.EventList
	of := fields.Set{"involvedObject.kind": "HorizontalPodAutoscaler", "involvedObject.name": h.Name}.AsSelector()
	if err := r.client.List(ctx, &list, client.InNamespace(h.Namespace), client.MatchingFieldsSelector{Selector: of}, client.Limit(page)); err != nil {
		return nil
	}
	mine := list.Items[:0]
	for i := range list.Items {
		if list.Items[i].InvolvedObject.UID == h.UID {
			mine = append(mine, list.Items[i])
		}
	}
	return mine
}

// absent tells whether the cluster has no such kind.
func absent(err error) bool {
	var failed *discovery.ErrGroupDiscoveryFailed
	return meta.IsNoMatchError(err) || errors.As(err, &failed)
}
