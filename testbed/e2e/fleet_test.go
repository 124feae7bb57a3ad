//go:build e2e

package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	listers "k8s.io/client-go/listers/autoscaling/v2"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/sluice-autoscaler/sluice/testbed"
	"github.com/sluice-autoscaler/sluice/testbed/kit"
)

// hollowNode is a node without a machine: its pods are ready as soon as they are there and run
// nothing, so that hundreds of them cost what their objects cost.
const hollowNode = "hollow"

// startHollow makes the node, and plays its kubelet until the test ends.
func startHollow(t *testing.T) {
	t.Helper()
	nodes := cluster.Kube.CoreV1().Nodes()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: hollowNode},
		Spec:       corev1.NodeSpec{Unschedulable: true, Taints: []corev1.Taint{{Key: hollowNode, Effect: corev1.TaintEffectNoSchedule}}},
	}
	if _, err := nodes.Create(ctx, node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// A patch, since the node's controllers write it at the same time.
	now := time.Now().UTC().Format(time.RFC3339)
	ready := fmt.Appendf(nil, `{"status":{"conditions":[{"type":"Ready","status":"True","reason":"Hollow","lastHeartbeatTime":%q,"lastTransitionTime":%q}]}}`, now, now)
	if _, err := nodes.Patch(ctx, hollowNode, types.StrategicMergePatchType, ready, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	factory := informers.NewSharedInformerFactoryWithOptions(cluster.Kube, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = "spec.nodeName=" + hollowNode
	}))
	pods := factory.Core().V1().Pods()
	handle := func(o any) {
		if err := runHollow(ctx, o.(*corev1.Pod)); err != nil && ctx.Err() == nil {
			t.Errorf("the hollow node: %v", err)
		}
	}
	if _, err := pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: handle, UpdateFunc: func(_, o any) { handle(o) }}); err != nil {
		t.Fatal(err)
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	t.Cleanup(func() {
		if err := testbed.WaitFor(ctx, time.Minute, "no pod on the hollow node", func(context.Context) (string, bool) {
			left, err := pods.Lister().List(labels.Everything())
			return fmt.Sprint(len(left), " pods, ", err), err == nil && len(left) == 0
		}); err != nil {
			t.Error(err)
		}
		if err := nodes.Delete(ctx, hollowNode, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		cancel()
		factory.Shutdown()
	})
}

// runHollow does for a pod what its kubelet would.
func runHollow(ctx context.Context, p *corev1.Pod) error {
	pods := cluster.Kube.CoreV1().Pods(p.Namespace)
	var err error
	switch {
	case p.DeletionTimestamp != nil:
		zero := int64(0)
		err = pods.Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
	case p.Status.Phase != corev1.PodRunning:
		p, now := p.DeepCopy(), metav1.Now()
		p.Status.Phase, p.Status.StartTime = corev1.PodRunning, &now
		for _, c := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: c, Status: corev1.ConditionTrue, LastTransitionTime: now})
		}
		_, err = pods.UpdateStatus(ctx, p, metav1.UpdateOptions{})
	}
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it comes again, or has gone
	}
	return err
}

// app is a StatefulSet on the hollow node, whose pods' names are known beforehand, and the
// HorizontalPodAutoscaler that scales it.
type app struct {
	name string
	// min and start are the least replicas and those at the beginning.
	min, start int32
	metric     autoscalingv2.MetricSpec
	// read is the part of a URI that only this HPA's reads of its metric have.
	read string
}

// average is a target for the mean over the pods.
func average(value string) autoscalingv2.MetricTarget {
	q := resource.MustParse(value)
	return autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: &q}
}

func podsMetric(name, target string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{
		Metric: autoscalingv2.MetricIdentifier{Name: name}, Target: average(target),
	}}
}

func serviceMetric(name, service, target string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{
		DescribedObject: autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "Service", Name: service},
		Metric:          autoscalingv2.MetricIdentifier{Name: name}, Target: average(target),
	}}
}

func externalMetric(name string, selector map[string]string, target string) autoscalingv2.MetricSpec {
	m := autoscalingv2.MetricIdentifier{Name: name}
	if selector != nil {
		m.Selector = &metav1.LabelSelector{MatchLabels: selector}
	}
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{Metric: m, Target: average(target)}}
}

func memoryMetric(target string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
		Name: corev1.ResourceMemory, Target: average(target),
	}}
}

func (a *app) objects(namespace string) (*appsv1.StatefulSet, *autoscalingv2.HorizontalPodAutoscaler) {
	meta, match := metav1.ObjectMeta{Name: a.name, Namespace: namespace}, map[string]string{"app": a.name}
	zero := int64(0)
	set := &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{
		Replicas: &a.start, ServiceName: a.name, PodManagementPolicy: appsv1.ParallelPodManagement, Selector: &metav1.LabelSelector{MatchLabels: match},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: match}, Spec: corev1.PodSpec{
			NodeName: hollowNode, TerminationGracePeriodSeconds: &zero, Containers: []corev1.Container{{Name: "app", Image: "none"}},
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		}},
	}}
	window := int32(0)
	hpa := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: meta, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "StatefulSet", Name: a.name},
		MinReplicas:    &a.min, MaxReplicas: 10, Metrics: []autoscalingv2.MetricSpec{a.metric},
		Behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: &window}},
	}}
	return set, hpa
}

// change is one of a StatefulSet's replicas.
type change struct {
	name     string
	from, to int32
	at       time.Time
}

// fleet is many apps, watched.
type fleet struct {
	namespace string
	apps      []app
	hpas      listers.HorizontalPodAutoscalerNamespaceLister

	mu       sync.Mutex
	replicas map[string]int32
	changes  []change
	// inactive are the HPAs that were seen to read no metric, with the reason.
	inactive map[string]string
	// reads are the HPAs' reads of their metrics, by app, as the API server recorded them up to
	// offset.
	reads  map[string][]metricRead
	offset int64
}

// metricRead is one read of a metric.
type metricRead struct {
	at   time.Time
	uri  string
	code int
}

// startFleet makes apps in a namespace of their own, and watches them until the test ends. Then it
// removes them.
func startFleet(t *testing.T, namespace string, apps []app) *fleet {
	t.Helper()
	startHollow(t)
	if err := cluster.EnsureNamespace(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Kube.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), namespace, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	f := &fleet{namespace: namespace, apps: apps, replicas: map[string]int32{}, inactive: map[string]string{}, reads: map[string][]metricRead{}}
	if info, err := os.Stat(record.log()); err == nil {
		f.offset = info.Size()
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	factory := informers.NewSharedInformerFactoryWithOptions(cluster.Kube, 0, informers.WithNamespace(namespace))
	hpas := factory.Autoscaling().V2().HorizontalPodAutoscalers()
	f.hpas = hpas.Lister().HorizontalPodAutoscalers(namespace)
	for informer, handle := range map[cache.SharedIndexInformer]func(any){factory.Apps().V1().StatefulSets().Informer(): f.seeSet, hpas.Informer(): f.seeHPA} {
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: handle, UpdateFunc: func(_, o any) { handle(o) }}); err != nil {
			t.Fatal(err)
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	t.Cleanup(func() { cancel(); factory.Shutdown() })
	for i := range apps {
		set, hpa := apps[i].objects(namespace)
		if _, err := cluster.Kube.AppsV1().StatefulSets(namespace).Create(ctx, set, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := cluster.Kube.AutoscalingV2().HorizontalPodAutoscalers(namespace).Create(ctx, hpa, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func (f *fleet) seeSet(o any) {
	set, now := o.(*appsv1.StatefulSet), *o.(*appsv1.StatefulSet).Spec.Replicas
	f.mu.Lock()
	defer f.mu.Unlock()
	if was, known := f.replicas[set.Name]; known && was != now {
		f.changes = append(f.changes, change{set.Name, was, now, time.Now()})
	}
	f.replicas[set.Name] = now
}

func (f *fleet) seeHPA(o any) {
	hpa := o.(*autoscalingv2.HorizontalPodAutoscaler)
	active, why := scalingActive(hpa)
	f.mu.Lock()
	defer f.mu.Unlock()
	if !active && why != "" {
		f.inactive[hpa.Name] = why
	}
}

// scalingActive is the HPA's condition; why is its message.
func scalingActive(hpa *autoscalingv2.HorizontalPodAutoscaler) (active bool, why string) {
	for _, c := range hpa.Status.Conditions {
		if c.Type == autoscalingv2.ScalingActive {
			return c.Status == corev1.ConditionTrue, c.Reason + ": " + c.Message
		}
	}
	return false, ""
}

// forget begins to watch anew.
func (f *fleet) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes = nil
	clear(f.inactive)
}

// seen returns the changes of replicas, and the HPAs that were inactive, since forget.
func (f *fleet) seen() (changes []change, inactive map[string]string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.changes), maps.Clone(f.inactive)
}

// settled tells, for WaitFor, whether each HPA reads its metric and its app has the replicas that
// are wanted.
func (f *fleet) settled(want func(a *app) int32) func(context.Context) (string, bool) {
	return func(context.Context) (string, bool) {
		var not []string
		for i := range f.apps {
			a := &f.apps[i]
			hpa, err := f.hpas.Get(a.name)
			if err != nil {
				return err.Error(), false
			}
			f.mu.Lock()
			spec := f.replicas[a.name]
			f.mu.Unlock()
			if active, why := scalingActive(hpa); !active || spec != want(a) || hpa.Status.CurrentReplicas != spec || hpa.Status.DesiredReplicas != spec {
				not = append(not, fmt.Sprintf("%s has %d replicas and wants %d, not %d (%s)", a.name, spec, hpa.Status.DesiredReplicas, want(a), why))
			}
		}
		if len(not) == 0 {
			return "", true
		}
		return fmt.Sprintf("%d of %d: %s", len(not), len(f.apps), strings.Join(not[:min(len(not), 3)], "; ")), false
	}
}

// follow reads what the API server recorded since it was last called.
func (f *fleet) follow() error {
	log, err := os.Open(record.log())
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // only read
	if _, err := log.Seek(f.offset, io.SeekStart); err != nil {
		return err
	}
	text, err := io.ReadAll(log)
	if err != nil {
		return err
	}
	text = text[:bytes.LastIndexByte(text, '\n')+1] // the last line may be half written
	f.offset += int64(len(text))
	f.mu.Lock()
	defer f.mu.Unlock()
	for line := range bytes.Lines(text) {
		var e struct {
			auditEvent
			URI string `json:"requestURI"`
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("read the audit log: %w", err)
		}
		if e.User.Name != hpaUser {
			continue
		}
		uri, err := url.QueryUnescape(e.URI)
		if err != nil {
			return fmt.Errorf("read the audit log: %w", err)
		}
		for i := range f.apps {
			if a := &f.apps[i]; strings.Contains(uri+"&", a.read+"&") || strings.Contains(uri+"?", a.read+"?") {
				f.reads[a.name] = append(f.reads[a.name], metricRead{e.Received, uri, e.Response.Code})
			}
		}
	}
	return nil
}

// readsSince returns an app's reads that began after an instant, as follow has them.
func (f *fleet) readsSince(name string, since time.Time) []metricRead {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []metricRead
	for _, r := range f.reads[name] {
		if r.at.After(since) {
			all = append(all, r)
		}
	}
	return all
}

// awaitReads waits until each HPA has read its metric n times since an instant that may be its own.
func (f *fleet) awaitReads(t *testing.T, n int, since func(a *app) time.Time) {
	t.Helper()
	wait(t, time.Minute, fmt.Sprintf("%d reads of each HPA", n), func(context.Context) (string, bool) {
		if err := f.follow(); err != nil {
			return err.Error(), false
		}
		missing := 0
		for i := range f.apps {
			if a := &f.apps[i]; len(f.readsSince(a.name, since(a))) < n {
				missing++
			}
		}
		return fmt.Sprintf("%d of %d HPAs have not", missing, len(f.apps)), missing == 0
	})
}

// controllersMetrics is the text of the metrics of all replicas of Sluice's controller.
func controllersMetrics(ctx context.Context) (string, error) {
	pods, err := cluster.Pods(ctx, kit.Namespace, kit.ControllerSelector)
	if err != nil {
		return "", err
	}
	config, err := cluster.REST()
	if err != nil {
		return "", err
	}
	// The administrator's certificate says who asks; the pod's own is not for its address.
	config = rest.CopyConfig(config)
	config.CAFile, config.CAData, config.Insecure = "", nil, true
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for _, p := range pods {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+p.Status.PodIP+":6443/metrics", nil)
		if err != nil {
			return "", err
		}
		res, err := client.Do(req)
		if err != nil {
			return "", err
		}
		_, err = io.Copy(&all, res.Body)
		if err != nil || res.Body.Close() != nil || res.StatusCode != http.StatusOK {
			return "", fmt.Errorf("read the metrics of %s: %s, %w", p.Name, res.Status, err)
		}
	}
	return all.String(), nil
}

// metricSum adds up the series of a metric whose labels contain all of parts.
func metricSum(text, name string, parts ...string) float64 {
	sum := 0.0
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, name+"{") && !strings.HasPrefix(line, name+" ") {
			continue
		}
		labels, value := line, 0.0
		if i := strings.LastIndexByte(line, ' '); i > 0 {
			labels = line[:i]
			if _, err := fmt.Sscan(line[i:], &value); err != nil {
				continue
			}
		}
		has := true
		for _, p := range parts {
			has = has && strings.Contains(labels, p)
		}
		if has {
			sum += value
		}
	}
	return sum
}
