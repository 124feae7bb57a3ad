package discover_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/sluice-autoscaler/sluice/adapter/discover"
	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// notes is a Sink that keeps what it is told.
type notes struct {
	mu       sync.Mutex
	pods     map[string]store.Pod
	gateways map[types.UID]store.GatewayPod
	synced   chan struct{}
}

func (n *notes) SetPod(_ context.Context, _ time.Time, p store.Pod) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pods[p.Name] = p
}

func (n *notes) DeletePod(_ time.Time, _ string, uid types.UID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pods, string(uid))
}

func (n *notes) SetGateway(_ context.Context, _ time.Time, g store.GatewayPod) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gateways[g.UID] = g
}

func (n *notes) DeleteGateway(_ time.Time, uid types.UID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.gateways, uid)
}

func (n *notes) Synced() { close(n.synced) }

// text describes the pods and gateways that are known.
func (n *notes) text(names ...string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for _, name := range names {
		if p, ok := n.pods[name]; ok {
			out = append(out, fmt.Sprintf("%s %s running=%v port=%d ready=%v scheduled=%v %s", p.Name, p.State, p.Running, p.MetricsPort, !p.Ready.IsZero(), !p.Scheduled.IsZero(), p.Trouble))
		}
		if g, ok := n.gateways[types.UID(name)]; ok {
			out = append(out, fmt.Sprintf("gateway %s %s running=%v", g.Name, g.Control, g.Running))
		}
	}
	return out
}

// start runs a Discoverer over a cluster of these pods, and returns once it has told of all.
func start(t *testing.T, onImpostor func(*corev1.Pod), pods ...*corev1.Pod) (*fake.Clientset, *notes) {
	t.Helper()
	client := fake.NewClientset()
	for _, p := range pods {
		if _, err := client.CoreV1().Pods(p.Namespace).Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	n := &notes{pods: map[string]store.Pod{}, gateways: map[types.UID]store.GatewayPod{}, synced: make(chan struct{})}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(discover.Strip))
	d, err := discover.New(discover.Options{
		Pods: factory.Core().V1().Pods().Informer(), Sink: n, Log: slog.New(slog.DiscardHandler),
		GatewayNamespace: "sluice", GatewayServiceAccount: "sluice-gateway", OnImpostor: onImpostor,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	factory.StartWithContext(ctx)
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		factory.Shutdown()
	})
	select {
	case <-n.synced:
	case <-time.After(20 * time.Second):
		t.Fatal("not synced")
	}
	return client, n
}

// newPod is ready and has a port of that name in a native sidecar.
func newPod(namespace, name, portName string) *corev1.Pod {
	now := metav1.Now()
	up := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(name), Labels: map[string]string{"app": "web"}, CreationTimestamp: now},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "sidecar", Ports: []corev1.ContainerPort{{Name: portName, ContainerPort: 9096}}}},
			Containers:     []corev1.Container{{Name: "app", Image: "app"}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "198.18.0.1",
			Conditions:            []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now}, {Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: now}},
			ContainerStatuses:     []corev1.ContainerStatus{{Name: "app", State: up}},
			InitContainerStatuses: []corev1.ContainerStatus{{Name: "sidecar", State: up}},
		},
	}
}

// newGateway is a pod with the gateways' label and port, of a ServiceAccount.
func newGateway(namespace, name, account string) *corev1.Pod {
	p := newPod(namespace, name, wire.ControlPortName)
	p.Labels[wire.GatewayLabel], p.Spec.ServiceAccountName = wire.GatewayValue, account
	return p
}

func TestPodStates(t *testing.T) {
	t.Parallel()
	starting := newPod("ns", "starting", "other")
	starting.Status.Conditions = starting.Status.Conditions[1:]
	starting.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "no such image"}}
	starting.Status.InitContainerStatuses = nil
	finished := newPod("ns", "finished", "other")
	finished.Status.Phase = corev1.PodSucceeded
	_, n := start(t, nil, newPod("ns", "ready", "other"), starting, finished, newPod("ns", "read", wire.MetricsPortName))
	want := []string{
		"read ready running=true port=9096 ready=true scheduled=true ",
		"ready ready running=true port=0 ready=true scheduled=true ",
		"starting starting running=false port=0 ready=false scheduled=true ErrImagePull: container app: no such image",
	}
	if d := cmp.Diff(want, n.text("read", "ready", "starting", "finished")); d != "" {
		t.Errorf("pods (-want +got):\n%s", d)
	}
}

func TestGatewaysAreOfOneServiceAccount(t *testing.T) {
	t.Parallel()
	portless := newGateway("sluice", "portless", "sluice-gateway")
	portless.Spec.InitContainers = nil
	unlabelled := newGateway("sluice", "unlabelled", "sluice-gateway")
	delete(unlabelled.Labels, wire.GatewayLabel)
	told := make(chan string, 20)
	client, n := start(t, func(p *corev1.Pod) { told <- p.Namespace + "/" + p.Name + " " + p.Spec.ServiceAccountName },
		newGateway("sluice", "gw", "sluice-gateway"), portless, unlabelled,
		newGateway("attacker", "far", "sluice-gateway"), newGateway("sluice", "near", "default"), newGateway("attacker", "none", ""),
	)
	if d := cmp.Diff([]string{"gateway gw 198.18.0.1:9096 running=true"}, n.gatewaysOnly()); d != "" {
		t.Errorf("gateways (-want +got):\n%s", d)
	}
	if len(n.text("gw", "far", "near", "none")) != 5 {
		t.Errorf("known = %v, want four pods and one gateway: impostors are pods", n.text("gw", "far", "near", "none"))
	}
	// Once in a pod's life, however often it changes; a pod that takes its place is told of anew.
	far := newGateway("attacker", "far", "sluice-gateway")
	far.Labels["turn"] = "1"
	if _, err := client.CoreV1().Pods("attacker").Update(t.Context(), far, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := client.CoreV1().Pods("attacker").Delete(t.Context(), "far", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	again := newGateway("attacker", "far", "sluice-gateway")
	again.UID = "far-2"
	if _, err := client.CoreV1().Pods("attacker").Create(t.Context(), again, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for range 4 {
		select {
		case who := <-told:
			got[who]++
		case <-time.After(20 * time.Second):
			t.Fatalf("told of %v only", got)
		}
	}
	want := map[string]int{"attacker/far sluice-gateway": 2, "sluice/near default": 1, "attacker/none ": 1}
	if d := cmp.Diff(want, got); d != "" || len(told) != 0 {
		t.Errorf("told of (-want +got):\n%s", d)
	}
}

func (n *notes) gatewaysOnly() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for _, g := range n.gateways {
		out = append(out, fmt.Sprintf("gateway %s %s running=%v", g.Name, g.Control, g.Running))
	}
	return out
}

func TestOptions(t *testing.T) {
	t.Parallel()
	_, err := discover.New(discover.Options{})
	for _, want := range []string{"pods, sink and log", "namespace and ServiceAccount"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v: want it to tell of %s", err, want)
		}
	}
}
