package benchadapter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sluice-autoscaler/sluice/wire"
	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sluice-autoscaler/sluice/testbed"
	"github.com/sluice-autoscaler/sluice/testbed/kit"
)

const (
	// workloads are those of a namespace. Their HPAs read the same names.
	workloads = 100
	// sidecarPort is where pods say that their sidecar serves /metrics.
	sidecarPort = 19095
	// atOnce bounds the writes to the API server that go on at once.
	atOnce = 16
)

// rulesText is the file of rules that both adapters get.
const rulesText = `rules:
- seriesQuery: '{__name__=~"^bench_.+",namespace!="",pod!=""}'
  resources:
    overrides:
      namespace: {resource: namespace}
      pod: {resource: pod}
  metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'
`

// bed is a running control plane with pods, which nobody runs.
type bed struct {
	Options
	cluster *kit.Cluster
	dir     string
	rules   string
	token   string
	// pods are, by namespace, how many each workload has.
	pods map[string]int
}

func newBed(ctx context.Context, o Options) (_ *bed, err error) {
	fmt.Fprintln(o.Stdout, "starting a control plane")
	b := &bed{Options: o, pods: map[string]int{}}
	if b.dir, err = os.MkdirTemp("", "bench-adapter-"); err != nil {
		return nil, err
	}
	b.rules = filepath.Join(b.dir, "rules.yaml")
	if err := os.WriteFile(b.rules, []byte(rulesText), 0o600); err != nil {
		return nil, err
	}
	if b.cluster, err = kit.Start(ctx, o.Place, testbed.Options{Progress: o.Stderr}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.close(ctx)
		}
	}()
	for _, ns := range []string{kit.Namespace, namespaceOf(10), namespaceOf(100)} {
		if err := b.cluster.EnsureNamespace(ctx, ns); err != nil {
			return nil, err
		}
	}
	if err := b.caller(ctx); err != nil {
		return nil, err
	}
	// Nobody is to act on the pods and the HPAs.
	for _, name := range []string{"kube-controller-manager", "kube-scheduler", "kube-proxy"} {
		if err := b.cluster.Halt(ctx, name); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *bed) close(ctx context.Context) {
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if err := b.cluster.Stop(stop); err != nil {
		fmt.Fprintln(b.Stderr, err)
	}
	_ = os.RemoveAll(b.dir) // a temporary folder
}

// caller makes who asks for metrics, and its token.
func (b *bed) caller(ctx context.Context) error {
	const name = "bench-hpa"
	meta := metav1.ObjectMeta{Name: name, Namespace: kit.Namespace}
	kube := b.cluster.Kube
	_, err := kube.CoreV1().ServiceAccounts(kit.Namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{"custom.metrics.k8s.io"}, Resources: []string{"*"}, Verbs: []string{"get", "list"}}},
	}
	if _, err := kube.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return err
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: kit.Namespace, Name: name}},
	}
	if _, err := kube.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		return err
	}
	ask := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(7200))}}
	got, err := kube.CoreV1().ServiceAccounts(kit.Namespace).CreateToken(ctx, name, ask, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("ask for a token: %w", err)
	}
	b.token = got.Status.Token
	return nil
}

func namespaceOf(pods int) string { return fmt.Sprintf("bench-%d", pods) }

func workload(w int) string { return fmt.Sprintf("w-%02d", w) }

func podName(w, i int) string { return fmt.Sprintf("w-%02d-%03d", w, i) }

// grow makes the workloads of a namespace, with their pods and Services.
func (b *bed) grow(ctx context.Context, pods int) error {
	ns := namespaceOf(pods)
	if b.pods[ns] == pods {
		return nil
	}
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for w := range workloads {
		g.Go(func() error {
			s := &corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Name: workload(w)},
				Spec: corev1.ServiceSpec{
					ClusterIP: corev1.ClusterIPNone, Selector: map[string]string{"app": workload(w)},
					Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}},
				},
			}
			_, err := b.cluster.Kube.CoreV1().Services(ns).Create(ctx, s, metav1.CreateOptions{})
			return err
		})
		for i := range pods {
			g.Go(func() error { return b.addPod(ctx, ns, w, i) })
		}
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("make pods: %w", err)
	}
	b.pods[ns] = pods
	fmt.Fprintf(b.Stdout, "%d pods after %.0f s\n", workloads*pods, time.Since(began).Seconds())
	return nil
}

// addPod makes a pod that no scheduler knows.
func (b *bed) addPod(ctx context.Context, ns string, w, i int) error {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: podName(w, i), Labels: map[string]string{"app": workload(w)}},
		Spec: corev1.PodSpec{
			SchedulerName: "none", AutomountServiceAccountToken: new(false),
			Containers: []corev1.Container{
				{Name: "app", Image: "none"},
				{Name: "sluice-sidecar", Image: "none", Ports: []corev1.ContainerPort{{Name: wire.MetricsPortName, ContainerPort: sidecarPort}}},
			},
		},
	}
	_, err := b.cluster.Kube.CoreV1().Pods(ns).Create(ctx, p, metav1.CreateOptions{})
	return err
}

// demand makes an HPA of each workload that names the metrics of a shape, and takes others away.
func (b *bed) demand(ctx context.Context, s *shape) error {
	for ns := range b.pods {
		err := b.cluster.Kube.AutoscalingV2().HorizontalPodAutoscalers(ns).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("take HPAs away: %w", err)
		}
	}
	by := map[int][]string{}
	for _, a := range s.asks() {
		by[a.workload] = append(by[a.workload], a.name)
	}
	ns := namespaceOf(s.pods)
	for w, names := range by {
		hpa := &autoscalingv2.HorizontalPodAutoscaler{
			ObjectMeta: metav1.ObjectMeta{Name: workload(w)},
			Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
				ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: workload(w)},
				MaxReplicas:    1000,
			},
		}
		for _, name := range names {
			hpa.Spec.Metrics = append(hpa.Spec.Metrics, autoscalingv2.MetricSpec{
				Type: autoscalingv2.PodsMetricSourceType,
				Pods: &autoscalingv2.PodsMetricSource{
					Metric: autoscalingv2.MetricIdentifier{Name: name},
					Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: resource.NewQuantity(10, resource.DecimalSI)},
				},
			})
		}
		if _, err := b.cluster.Kube.AutoscalingV2().HorizontalPodAutoscalers(ns).Create(ctx, hpa, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("make an HPA: %w", err)
		}
	}
	return nil
}

// ask is an HPA metric.
type ask struct {
	workload int
	name     string
}

func metricName(i int) string { return fmt.Sprintf("bench_jobs_%04d", i) }

// asks are the HPA metrics of a shape.
func (s *shape) asks() []ask {
	all := make([]ask, s.metrics)
	for i := range all {
		all[i] = ask{i % workloads, metricName(i / workloads)}
		if s.own {
			all[i].name = metricName(i)
		}
	}
	return all
}

// fill writes the series of a shape: each name has one of each pod, or of each pod of its workload.
func (s *shape) fill(ctx context.Context, p *prometheus) error {
	pods := s.pods
	if !s.own {
		pods *= workloads
	}
	return p.write(ctx, time.Now(), s.series, func(i int) []label {
		name, pod := i/pods, i%pods
		w := pod / s.pods
		if s.own {
			w = name % workloads
		}
		return labels(metricName(name), s.pods, podName(w, pod%s.pods))
	})
}

func labels(name string, pods int, pod string) []label {
	return []label{{"__name__", name}, {"namespace", namespaceOf(pods)}, {"pod", pod}}
}

// run makes a pod one that runs and answers at an address.
func (b *bed) run(ctx context.Context, ns, pod, address string) error {
	now := metav1.Now()
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}
	status := corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now}},
		ContainerStatuses: []corev1.ContainerStatus{
			{Name: "app", Ready: true, State: running}, {Name: "sluice-sidecar", Ready: true, State: running},
		},
	}
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	_, err = b.cluster.Kube.CoreV1().Pods(ns).Patch(ctx, pod, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) {
		return errors.Join(err, fmt.Errorf("pod %s/%s is gone", ns, pod))
	}
	return err
}
