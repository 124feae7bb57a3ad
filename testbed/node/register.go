package node

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	coordv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// version is the kubelet version that the node claims.
const version = "v1.37.2"

// register makes the Node object, or takes over the one that is there, and makes it ready.
func register(ctx context.Context, client kubernetes.Interface, cfg Config) error {
	nodes := client.CoreV1().Nodes()
	want := nodeObject(cfg, time.Now())
	for {
		_, err := nodes.Create(ctx, want, metav1.CreateOptions{})
		if err == nil || apierrors.IsAlreadyExists(err) {
			break
		}
		cfg.Logger.WarnContext(ctx, "node not registered, will be tried again", slog.Any("error", err))
		if !sleep(ctx, 200*time.Millisecond) {
			return fmt.Errorf("register node %s: %w", cfg.NodeName, err)
		}
	}
	if err := renew(ctx, client, cfg); err != nil {
		return fmt.Errorf("make lease of node %s: %w", cfg.NodeName, err)
	}
	return writeNodeStatus(ctx, client, cfg)
}

func writeNodeStatus(ctx context.Context, client kubernetes.Interface, cfg Config) error {
	nodes := client.CoreV1().Nodes()
	for try := 0; ; try++ {
		have, err := nodes.Get(ctx, cfg.NodeName, metav1.GetOptions{})
		if err == nil {
			now := nodeObject(cfg, time.Now()).Status
			for i := range now.Conditions {
				for _, was := range have.Status.Conditions {
					if c := &now.Conditions[i]; was.Type == c.Type && was.Status == c.Status {
						c.LastTransitionTime = was.LastTransitionTime
					}
				}
			}
			have.Status = now
			_, err = nodes.UpdateStatus(ctx, have, metav1.UpdateOptions{})
		}
		if err == nil {
			return nil
		}
		if try == 20 || !sleep(ctx, 50*time.Millisecond) {
			return fmt.Errorf("write status of node %s: %w", cfg.NodeName, err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func nodeObject(cfg Config, now time.Time) *v1.Node {
	at := metav1.NewTime(now)
	condition := func(t v1.NodeConditionType, s v1.ConditionStatus, reason, message string) v1.NodeCondition {
		return v1.NodeCondition{Type: t, Status: s, Reason: reason, Message: message, LastHeartbeatTime: at, LastTransitionTime: at}
	}
	n := &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: cfg.NodeName, Labels: map[string]string{
			v1.LabelHostname: cfg.NodeName, v1.LabelOSStable: runtime.GOOS, v1.LabelArchStable: runtime.GOARCH,
		}},
		Status: v1.NodeStatus{
			Capacity: cfg.Capacity, Allocatable: cfg.Capacity,
			Addresses: []v1.NodeAddress{
				{Type: v1.NodeInternalIP, Address: cfg.NodeIP.String()}, {Type: v1.NodeHostName, Address: cfg.NodeName},
			},
			DaemonEndpoints: v1.NodeDaemonEndpoints{KubeletEndpoint: v1.DaemonEndpoint{Port: kubeletPort}},
			NodeInfo: v1.NodeSystemInfo{
				KubeletVersion: version, ContainerRuntimeVersion: "sluice://testbed", OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH,
			},
			Conditions: []v1.NodeCondition{
				condition(v1.NodeMemoryPressure, v1.ConditionFalse, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
				condition(v1.NodeDiskPressure, v1.ConditionFalse, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
				condition(v1.NodePIDPressure, v1.ConditionFalse, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
				condition(v1.NodeReady, v1.ConditionTrue, "KubeletReady", "kubelet is posting ready status"),
			},
		},
	}
	for name := range cfg.Images {
		n.Status.Images = append(n.Status.Images, v1.ContainerImage{Names: []string{name}})
	}
	return n
}

// heartbeat renews the node's lease each period, and its status each thirtieth, until ctx ends. A
// renewal that fails is tried again at the next: the node controller is patient.
func heartbeat(ctx context.Context, client kubernetes.Interface, cfg Config) error {
	for n := 1; sleep(ctx, cfg.Heartbeat); n++ {
		err := renew(ctx, client, cfg)
		if err == nil && n%30 == 0 {
			err = writeNodeStatus(ctx, client, cfg)
		}
		if err != nil && ctx.Err() == nil {
			cfg.Logger.WarnContext(ctx, "node heartbeat missed", slog.Any("error", err))
		}
	}
	return nil
}

func renew(ctx context.Context, client kubernetes.Interface, cfg Config) error {
	leases := client.CoordinationV1().Leases(v1.NamespaceNodeLease)
	now := metav1.NowMicro()
	lease, err := leases.Get(ctx, cfg.NodeName, metav1.GetOptions{})
	if err == nil {
		lease.Spec.RenewTime = &now
		_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
		return err
	}
	if !apierrors.IsNotFound(err) {
		return err
	}
	lease = &coordv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: cfg.NodeName, Namespace: v1.NamespaceNodeLease},
		Spec: coordv1.LeaseSpec{
			HolderIdentity: &cfg.NodeName, LeaseDurationSeconds: new(int32(max(4*cfg.Heartbeat/time.Second, 1))), RenewTime: &now,
		},
	}
	_, err = leases.Create(ctx, lease, metav1.CreateOptions{})
	if apierrors.IsNotFound(err) {
		// a young control plane has not made the namespace yet; the next heartbeat makes the lease
		return nil
	}
	return err
}
