package hpa_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	autoscalinginformers "k8s.io/client-go/informers/autoscaling/v2"
	coreinformers "k8s.io/client-go/informers/core/v1"
	autoscalingclient "k8s.io/client-go/kubernetes/typed/autoscaling/v2"
	clientcore "k8s.io/client-go/kubernetes/typed/core/v1"
	autoscalinglisters "k8s.io/client-go/listers/autoscaling/v2"
	corelisters "k8s.io/client-go/listers/core/v1"
	scaleclient "k8s.io/client-go/scale"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/podautoscaler"
	"k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
)

// The controller's settings.
const (
	tolerance         = 0.1
	downStabilization = 300 * time.Second
	cpuInitialization = 5 * time.Minute
	readinessDelay    = 30 * time.Second
)

// cluster is what the controller sees of a cluster, and the controller itself, running as it does
// in the controller manager. It is used within one synctest bubble.
type cluster struct {
	hpa      *autoscalingv2.HorizontalPodAutoscaler
	handlers cache.ResourceEventHandler

	spec, status int32
	pods         []*corev1.Pod
	perPod       map[string]metrics.PodMetricsInfo // by metric
	totals       map[string]int64                  // by metric; one that is not there cannot be had
	refuses      bool                              // the scale cannot be written
}

// start runs a controller on c until the bubble's test ends.
func start(t *testing.T, c *cluster) {
	utilruntime.ErrorHandlers = nil // they log, and sleep
	klog.SetOutput(io.Discard)
	klog.LogToStderr(false)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	hc := podautoscaler.NewHorizontalController(ctx, events{}, scales{c: c}, autoscalers{c: c}, mapper{}, client{c},
		hpaInformer{c: c}, podInformer{c: c}, 10000*time.Hour, downStabilization, tolerance, cpuInitialization, readinessDelay)
	go func() {
		hc.Run(ctx, 1)
		close(ended)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	time.Sleep(time.Second) // simulated: until the informers' state has been polled
	synctest.Wait()
}

// begin makes h the cluster's only HPA, known to the controller.
func (c *cluster) begin(h *autoscalingv2.HorizontalPodAutoscaler) {
	if c.hpa != nil {
		old := c.hpa
		c.hpa = nil
		c.handlers.OnDelete(old)
		synctest.Wait()
	}
	c.hpa = h
}

// reconcile has the controller look at its HPA once, now, and returns the replicas that it then
// asks for.
func (c *cluster) reconcile() int {
	if c.hpa.Generation == 0 {
		c.hpa.Generation = 1
		c.handlers.OnAdd(c.hpa, false)
	} else {
		old := c.hpa.DeepCopy()
		c.hpa.Generation++ // the one change that the controller acts upon at once
		c.handlers.OnUpdate(old, c.hpa)
	}
	synctest.Wait()
	return int(c.spec)
}

// condition is the status of one of the HPA's conditions.
func (c *cluster) condition(kind autoscalingv2.HorizontalPodAutoscalerConditionType) autoscalingv2.HorizontalPodAutoscalerCondition {
	for _, k := range c.hpa.Status.Conditions {
		if k.Type == kind {
			return k
		}
	}
	return autoscalingv2.HorizontalPodAutoscalerCondition{}
}

var errNoMetric = errors.New("no such metric")

type client struct{ c *cluster }

func (m client) GetResourceMetric(_ context.Context, name corev1.ResourceName, _ string, _ labels.Selector, _ string) (metrics.PodMetricsInfo, time.Time, error) {
	return m.GetRawMetric(string(name), "", nil, nil)
}

func (m client) GetRawMetric(name, _ string, _, _ labels.Selector) (metrics.PodMetricsInfo, time.Time, error) {
	return maps.Clone(m.c.perPod[name]), time.Now(), nil // the calculator writes into it
}

func (m client) GetObjectMetric(name, _ string, _ *autoscalingv2.CrossVersionObjectReference, _ labels.Selector) (int64, time.Time, error) {
	v, ok := m.c.totals[name]
	if !ok {
		return 0, time.Time{}, errNoMetric
	}
	return v, time.Now(), nil
}

func (m client) GetExternalMetric(name, _ string, _ labels.Selector) ([]int64, time.Time, error) {
	v, at, err := m.GetObjectMetric(name, "", nil, nil)
	return halves(v), at, err
}

// halves are two values that add up to v: an External metric may have several.
func halves(v int64) []int64 { return []int64{v / 2, v - v/2} }

type scales struct {
	scaleclient.ScaleInterface
	c *cluster
}

func (s scales) Scales(string) scaleclient.ScaleInterface { return s }

func (s scales) Get(_ context.Context, _ schema.GroupResource, name string, _ metav1.GetOptions) (*autoscalingv1.Scale, error) {
	return &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.c.hpa.Namespace},
		Spec:       autoscalingv1.ScaleSpec{Replicas: s.c.spec},
		Status:     autoscalingv1.ScaleStatus{Replicas: s.c.status, Selector: "app=it"},
	}, nil
}

func (s scales) Update(_ context.Context, _ schema.GroupResource, scale *autoscalingv1.Scale, _ metav1.UpdateOptions) (*autoscalingv1.Scale, error) {
	if s.c.refuses {
		return nil, errors.New("no")
	}
	s.c.spec = scale.Spec.Replicas
	return scale, nil
}

type autoscalers struct {
	autoscalingclient.HorizontalPodAutoscalerInterface
	c *cluster
}

func (a autoscalers) HorizontalPodAutoscalers(string) autoscalingclient.HorizontalPodAutoscalerInterface {
	return a
}

func (a autoscalers) UpdateStatus(_ context.Context, h *autoscalingv2.HorizontalPodAutoscaler, _ metav1.UpdateOptions) (*autoscalingv2.HorizontalPodAutoscaler, error) {
	a.c.hpa.Status = h.Status
	return h, nil
}

type mapper struct{ apimeta.RESTMapper }

func (mapper) RESTMappings(gk schema.GroupKind, _ ...string) ([]*apimeta.RESTMapping, error) {
	return []*apimeta.RESTMapping{{Resource: schema.GroupVersionResource{Group: gk.Group, Version: "v1", Resource: "deployments"}}}, nil
}

type events struct{ clientcore.EventInterface }

func (e events) Events(string) clientcore.EventInterface { return e }

func (events) CreateWithEventNamespace(e *corev1.Event) (*corev1.Event, error) { return e, nil }

func (events) UpdateWithEventNamespace(e *corev1.Event) (*corev1.Event, error) { return e, nil }

func (events) PatchWithEventNamespace(e *corev1.Event, _ []byte) (*corev1.Event, error) {
	return e, nil
}

type hpaInformer struct {
	cache.SharedIndexInformer
	c *cluster
}

func (i hpaInformer) Informer() cache.SharedIndexInformer { return i }
func (i hpaInformer) Lister() autoscalinglisters.HorizontalPodAutoscalerLister {
	return hpaLister{c: i.c}
}
func (i hpaInformer) HasSynced() bool       { return true }
func (i hpaInformer) GetStore() cache.Store { return cache.NewStore(cache.MetaNamespaceKeyFunc) }
func (i hpaInformer) AddEventHandlerWithResyncPeriod(h cache.ResourceEventHandler, _ time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	i.c.handlers = h
	return nil, nil //nolint:nilnil // the controller does not look at it
}

type hpaLister struct {
	autoscalinglisters.HorizontalPodAutoscalerLister
	autoscalinglisters.HorizontalPodAutoscalerNamespaceLister
	c *cluster
}

func (l hpaLister) List(labels.Selector) ([]*autoscalingv2.HorizontalPodAutoscaler, error) {
	return nil, errors.New("not used")
}

func (l hpaLister) HorizontalPodAutoscalers(string) autoscalinglisters.HorizontalPodAutoscalerNamespaceLister {
	return l
}

func (l hpaLister) Get(name string) (*autoscalingv2.HorizontalPodAutoscaler, error) {
	if l.c.hpa == nil || l.c.hpa.Name != name {
		return nil, fmt.Errorf("no HPA %s", name)
	}
	return l.c.hpa, nil
}

type podInformer struct {
	cache.SharedIndexInformer
	c *cluster
}

func (i podInformer) Informer() cache.SharedIndexInformer { return i }
func (i podInformer) Lister() corelisters.PodLister       { return podLister{c: i.c} }
func (i podInformer) HasSynced() bool                     { return true }

type podLister struct {
	corelisters.PodLister
	corelisters.PodNamespaceLister
	c *cluster
}

func (l podLister) Pods(string) corelisters.PodNamespaceLister  { return l }
func (l podLister) List(labels.Selector) ([]*corev1.Pod, error) { return l.c.pods, nil }

var (
	_ autoscalinginformers.HorizontalPodAutoscalerInformer = hpaInformer{}
	_ coreinformers.PodInformer                            = podInformer{}
)
