package keda_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"
	"unsafe"

	"github.com/expr-lang/expr/vm"
	"github.com/go-logr/logr"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"github.com/kedacore/keda/v2/pkg/scalers"
	"github.com/kedacore/keda/v2/pkg/scalers/scalersconfig"
	"github.com/kedacore/keda/v2/pkg/scaling"
	"github.com/kedacore/keda/v2/pkg/scaling/cache"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/scale"
	"k8s.io/metrics/pkg/apis/external_metrics"
	runtimeclient "sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
)

const (
	namespace = "ns"
	target    = "it"
	hpaName   = "keda-hpa-it"
)

// cluster is what KEDA sees of a cluster, and KEDA's scale handler itself, whole and unaltered. It is
// used within one synctest bubble.
type cluster struct {
	handler scaling.ScaleHandler
	caches  map[string]*cache.ScalersCache
	lock    *sync.RWMutex

	object  *kedav1alpha1.ScaledObject // as it is stored
	formula *vm.Program
	scalers []*scaler
	spec    int32 // replicas asked for
	ready   int
	active  bool // the HPA's condition ScalingActive
}

// newCluster makes a handler. Its map of scalers is reached into, since KEDA has no trigger that reads
// nothing from the world.
func newCluster() *cluster {
	logf.SetLogger(logr.Discard())
	c := &cluster{}
	c.handler = scaling.NewScaleHandler(client{c: c}, scales{c: c}, runtime.NewScheme(), time.Second, time.Second, recorder{}, nil)
	v := reflect.ValueOf(c.handler).Elem()
	c.caches = *(*map[string]*cache.ScalersCache)(unsafe.Pointer(v.FieldByName("scalerCaches").UnsafeAddr())) //nolint:gosec // see above
	c.lock = *(**sync.RWMutex)(unsafe.Pointer(v.FieldByName("scalerCachesLock").UnsafeAddr()))                //nolint:gosec // see above
	return c
}

// prepare gives the handler scalers for the object as it is stored, as after a restart of KEDA.
func (c *cluster) prepare() {
	so := c.object.DeepCopy()
	fresh := &cache.ScalersCache{ScaledObject: so, ScalableObjectGeneration: so.Generation, Recorder: recorder{}, CompiledFormula: c.formula}
	for i, s := range c.scalers {
		cfg := scalersconfig.ScalerConfig{TriggerIndex: i, TriggerName: s.trigger}
		fresh.Scalers = append(fresh.Scalers, cache.ScalerBuilder{
			Scaler: s, ScalerConfig: cfg,
			Factory: func(context.Context) (scalers.Scaler, *scalersconfig.ScalerConfig, error) { return s, &cfg, nil },
		})
	}
	c.lock.Lock()
	c.caches[so.GenerateIdentifier()] = fresh
	c.lock.Unlock()
}

// scaler is a trigger of which the test says what it measures.
type scaler struct {
	trigger, metric string
	aim             autoscalingv2.MetricTarget
	activation      float64
	value           float64
	known           bool
}

var errUnknown = errors.New("there is no value")

func (s *scaler) GetMetricsAndActivity(context.Context, string) ([]external_metrics.ExternalMetricValue, bool, error) {
	if !s.known {
		return nil, false, errUnknown
	}
	return []external_metrics.ExternalMetricValue{scalers.GenerateMetricInMili(s.metric, s.value)}, s.value > s.activation, nil
}

func (s *scaler) GetMetricSpecForScaling(context.Context) []autoscalingv2.MetricSpec {
	return []autoscalingv2.MetricSpec{{
		Type:     autoscalingv2.ExternalMetricSourceType,
		External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: s.metric}, Target: s.aim},
	}}
}

func (s *scaler) Close(context.Context) error { return nil }

// client answers what the handler asks of the API server.
type client struct {
	runtimeclient.Client
	c *cluster
}

func (k client) Get(_ context.Context, key runtimeclient.ObjectKey, obj runtimeclient.Object, _ ...runtimeclient.GetOption) error {
	switch o := obj.(type) {
	case *kedav1alpha1.ScaledObject:
		k.c.object.DeepCopyInto(o)
	case *appsv1.Deployment:
		n := k.c.spec
		o.Spec.Replicas = &n
	case *autoscalingv2.HorizontalPodAutoscaler:
		status := corev1.ConditionFalse
		if k.c.active {
			status = corev1.ConditionTrue
		}
		o.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: autoscalingv2.ScalingActive, Status: status}}
	default:
		return fmt.Errorf("%s: a %T was not expected", key, obj)
	}
	return nil
}

func (k client) List(_ context.Context, list runtimeclient.ObjectList, _ ...runtimeclient.ListOption) error {
	pods, ok := list.(*corev1.PodList)
	if !ok {
		return fmt.Errorf("a %T was not expected", list)
	}
	for range k.c.ready {
		pods.Items = append(pods.Items, corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}})
	}
	return nil
}

func (k client) Status() runtimeclient.SubResourceWriter { return status{c: k.c} }

type status struct {
	runtimeclient.SubResourceWriter
	c *cluster
}

// Patch stores the status as the API server does: as JSON, in which times are whole seconds.
func (s status) Patch(_ context.Context, obj runtimeclient.Object, _ runtimeclient.Patch, _ ...runtimeclient.SubResourcePatchOption) error {
	so, ok := obj.(*kedav1alpha1.ScaledObject)
	if !ok {
		return fmt.Errorf("a %T was not expected", obj)
	}
	b, err := json.Marshal(so.Status)
	if err != nil {
		return err
	}
	stored := kedav1alpha1.ScaledObjectStatus{}
	if err := json.Unmarshal(b, &stored); err != nil {
		return err
	}
	s.c.object.Status = stored
	return nil
}

type scales struct {
	scale.ScaleInterface
	c *cluster
}

func (s scales) Scales(string) scale.ScaleInterface { return s }

func (s scales) Get(context.Context, schema.GroupResource, string, metav1.GetOptions) (*autoscalingv1.Scale, error) {
	return &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: s.c.spec}, Status: autoscalingv1.ScaleStatus{Replicas: s.c.spec, Selector: "app=it"}}, nil
}

func (s scales) Update(_ context.Context, _ schema.GroupResource, sc *autoscalingv1.Scale, _ metav1.UpdateOptions) (*autoscalingv1.Scale, error) {
	s.c.spec = sc.Spec.Replicas
	return sc, nil
}

type recorder struct{}

func (recorder) Eventf(runtime.Object, runtime.Object, string, string, string, string, ...any) {}
