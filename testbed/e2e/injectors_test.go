//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-autoscaler/sluice/testbed"
	"github.com/sluice-autoscaler/sluice/testbed/kit"
	"github.com/sluice-autoscaler/sluice/testbed/promises"
)

// injection is a fault and how it is done and undone.
type injection struct {
	kind promises.Kind
	// seconds is how long it lasts.
	seconds int
	begin   func(ctx context.Context) error
	end     func(ctx context.Context) error
	// hits is the workload that it is done to; "" for all.
	hits string
	// untilRecovered: it is over when a sleeping workload answers again, as after a kill.
	untilRecovered bool
	// clusters: when it is over is the cluster's to decide. A ReplicaSet's controller that was refused
	// pods tries again by a back-off that grows up to minutes.
	clusters bool
}

// killed counts the processes of Sluice that tests have killed.
var killed atomic.Int64

func kill(pid int) error {
	err := syscall.Kill(pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	if err == nil {
		killed.Add(1)
	}
	return err
}

func nothing(context.Context) error { return nil }

// kubectl is the administrator's, without its output.
func kubectl(args ...string) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		_, err := cluster.Kubectl(ctx, args...)
		return err
	}
}

// awaitLeader waits until a controller leads.
func awaitLeader(ctx context.Context) (pid int, err error) {
	err = testbed.WaitFor(ctx, time.Minute, "a controller that leads", func(ctx context.Context) (string, bool) {
		var pod string
		pid, pod = leader(ctx)
		return fmt.Sprintf("pod %s, process %d", pod, pid), pid != 0
	})
	return pid, err
}

func killController() injection {
	return injection{kind: promises.ControllerKilled, seconds: 2, untilRecovered: true, end: nothing, begin: func(ctx context.Context) error {
		pid, err := awaitLeader(ctx)
		if err != nil {
			return err
		}
		return kill(pid)
	}}
}

// growBackOff kills each controller so many times, so that it is down for 10, 20, 40, … s.
func growBackOff(times int) injection {
	return injection{kind: promises.BackOffGrown, untilRecovered: true, end: nothing, begin: func(ctx context.Context) error {
		pods, err := cluster.Pods(ctx, kit.Namespace, kit.ControllerSelector)
		if err != nil {
			return err
		}
		done, ended := map[string]int{}, map[int]bool{}
		return testbed.WaitFor(ctx, 5*time.Minute, "controllers to kill", func(context.Context) (string, bool) {
			total := 0
			for _, p := range cluster.Processes("sluice-controller") {
				if done[p.Pod] < times && !ended[p.PID] && kill(p.PID) == nil {
					done[p.Pod]++
					ended[p.PID] = true
				}
			}
			for _, n := range done {
				total += n
			}
			return fmt.Sprint(done), total == times*len(pods)
		})
	}}
}

// freezeController stops the process that scales, as a machine that hangs does.
func freezeController(seconds int) injection {
	frozen := 0
	return injection{
		kind: promises.ControllerFrozen, seconds: seconds,
		begin: func(ctx context.Context) (err error) {
			if frozen, err = awaitLeader(ctx); err != nil {
				return err
			}
			return syscall.Kill(frozen, syscall.SIGSTOP)
		},
		end: func(context.Context) error {
			if err := syscall.Kill(frozen, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err // its liveness probe may have had it killed
			}
			return nil
		},
	}
}

// killGateway kills the gateway that holds most of a workload's requests.
func killGateway(workload string) injection {
	return injection{kind: promises.GatewayKilled, seconds: 2, end: nothing, begin: func(ctx context.Context) error {
		pod := ""
		err := testbed.WaitFor(ctx, 20*time.Second, "a gateway that holds requests", func(ctx context.Context) (string, bool) {
			most := 0
			reports, err := cluster.GatewayReports(ctx)
			for _, r := range reports {
				for _, p := range r.Ports {
					if (workload == "" || p.Namespace == workload) && p.Waiting >= most && (workload == "" || p.Waiting > 0) {
						pod, most = r.Gateway, p.Waiting
					}
				}
			}
			return fmt.Sprint(err), pod != ""
		})
		if err != nil {
			return err
		}
		for _, p := range cluster.Processes("sluice-gateway") {
			if p.Pod == pod {
				return kill(p.PID)
			}
		}
		return fmt.Errorf("the process of gateway %s is not found", pod)
	}}
}

// halt stops a component of the control plane. When it is back, controller manager and scheduler
// begin anew: those of a cluster with leader election lost their lease and ended. Without that they
// come back by their informers' own back-off, half a minute late.
func halt(kind promises.Kind, component string, seconds int) injection {
	return injection{
		kind: kind, seconds: seconds,
		begin: func(ctx context.Context) error { return cluster.Halt(ctx, component) },
		end: func(ctx context.Context) error {
			if err := cluster.Resume(component); err != nil {
				return err
			}
			err := testbed.WaitFor(ctx, time.Minute, "the API server to be ready", func(ctx context.Context) (string, bool) {
				_, err := cluster.Kubectl(ctx, "get", "--raw", "/readyz")
				return fmt.Sprint(err), err == nil
			})
			for _, client := range []string{"kube-controller-manager", "kube-scheduler"} {
				err = errors.Join(err, cluster.Halt(ctx, client), cluster.Resume(client))
			}
			return err
		},
	}
}

// partition drops what a pod sends to TCP ports.
func partition(ctx context.Context, namespace, pod string, ports ...string) error {
	list := "{" + strings.Join(ports, ",") + "}"
	for _, rule := range []string{
		"add table ip cut", "add chain ip cut out { type filter hook output priority 0; }", "add chain ip cut in { type filter hook input priority 0; }",
		"add rule ip cut out tcp dport " + list + " drop", "add rule ip cut in tcp sport " + list + " drop",
	} {
		if out, err := cluster.InPod(ctx, namespace, pod, append([]string{"nft"}, strings.Fields(rule)...)...); err != nil {
			return fmt.Errorf("cut off %s: %w: %s", pod, err, out)
		}
	}
	return nil
}

func heal(ctx context.Context, namespace, pod string) error {
	out, err := cluster.InPod(ctx, namespace, pod, "nft", "delete", "table", "ip", "cut")
	if err != nil && !strings.Contains(out+err.Error(), "No such file") {
		return fmt.Errorf("reconnect %s: %w: %s", pod, err, out)
	}
	return nil
}

// cutController cuts all controllers off from TCP ports.
func cutController(kind promises.Kind, seconds int, ports ...string) injection {
	var pods []string
	return injection{
		kind: kind, seconds: seconds,
		begin: func(ctx context.Context) error {
			pods = nil
			all, err := cluster.Pods(ctx, kit.Namespace, kit.ControllerSelector)
			for _, p := range all {
				pods = append(pods, p.Name)
				err = errors.Join(err, partition(ctx, kit.Namespace, p.Name, ports...))
			}
			return err
		},
		end: func(ctx context.Context) (err error) {
			for _, p := range pods {
				err = errors.Join(err, heal(ctx, kit.Namespace, p))
			}
			return err
		},
	}
}

// The ports that a controller is cut off from.
func cutFromAPI(seconds int) injection {
	return cutController(promises.ControllerNoAPI, seconds, "443", "6443")
}

func cutFromGateways(seconds int) injection {
	return cutController(promises.ControllerNoGateways, seconds, "9096")
}

func cutFromSidecars(seconds int) injection {
	return cutController(promises.ControllerNoSidecars, seconds, "9095")
}

// olderStandby has a replica that was born before the leader take over: with two replicas the one
// that does not lead is frozen while the leader is killed, so that the leader's successor is its own
// restart; then that one is frozen.
func olderStandby() injection {
	var frozen []int
	thaw := func(pids ...int) {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGCONT) // it may have ended
		}
	}
	return injection{
		kind: promises.OlderStandby, seconds: 20,
		begin: func(ctx context.Context) error {
			if err := cluster.Install(ctx, 2*time.Minute, "--set", "controller.replicas=2"); err != nil {
				return err
			}
			first, pod := leader(ctx)
			older := 0
			for _, p := range cluster.Processes("sluice-controller") {
				if p.Pod != pod {
					older = p.PID
				}
			}
			if first == 0 || older == 0 {
				return fmt.Errorf("leader %d and standby %d: want both", first, older)
			}
			defer thaw(older)
			if err := errors.Join(syscall.Kill(older, syscall.SIGSTOP), kill(first)); err != nil {
				return err
			}
			younger := 0
			err := testbed.WaitFor(ctx, time.Minute, "the leader's restart to lead", func(ctx context.Context) (string, bool) {
				younger, _ = leader(ctx)
				return fmt.Sprint(younger), younger != 0 && younger != first
			})
			if err != nil {
				return err
			}
			frozen = []int{younger}
			return syscall.Kill(younger, syscall.SIGSTOP)
		},
		end: func(ctx context.Context) error {
			thaw(frozen...)
			return cluster.Install(ctx, 2*time.Minute)
		},
	}
}

const quota = `{apiVersion: v1, kind: ResourceQuota, metadata: {name: none, namespace: %s}, spec: {hard: {pods: "0"}}}`

func quotaZero(ns string, seconds int) injection {
	return injection{
		kind: promises.QuotaZero, hits: ns, seconds: seconds, untilRecovered: true, clusters: true,
		begin: func(ctx context.Context) error { return cluster.Apply(ctx, fmt.Appendf(nil, quota, ns)) },
		end:   kubectl("delete", "resourcequota", "none", "-n", ns),
	}
}

const refusal = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-pods}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]}
  validations: [{expression: "false", message: no pods here}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-pods}
spec:
  policyName: no-pods
  validationActions: [Deny]
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %s}}}
`

func refuseAdmission(ns string, seconds int) injection {
	return injection{
		kind: promises.AdmissionRefused, hits: ns, seconds: seconds, untilRecovered: true, clusters: true,
		begin: func(ctx context.Context) error {
			if err := cluster.Apply(ctx, fmt.Appendf(nil, refusal, ns)); err != nil {
				return err
			}
			probe := `{apiVersion: v1, kind: Pod, metadata: {name: probe, namespace: ` + ns + `}, spec: {containers: [{name: a, image: none}]}}`
			return testbed.WaitFor(ctx, 20*time.Second, "pods to be refused", func(ctx context.Context) (string, bool) {
				err := cluster.Apply(ctx, []byte(probe))
				if err == nil {
					_, _ = cluster.Kubectl(ctx, "delete", "pod", "probe", "-n", ns, "--grace-period=0", "--force")
				}
				return fmt.Sprint(err), err != nil && strings.Contains(err.Error(), "no pods here")
			})
		},
		end: kubectl("delete", "validatingadmissionpolicybindings,validatingadmissionpolicies", "no-pods"),
	}
}

// remake deletes an object and makes it again when the fault ends.
func remake(kind promises.Kind, ns, resource string, seconds int) injection {
	var object []byte
	return injection{
		kind: kind, hits: ns, seconds: seconds,
		begin: func(ctx context.Context) error {
			args := []string{resource, "web", "-n", ns}
			text, err := cluster.Kubectl(ctx, append(append([]string{"get"}, args...), "-o", "json", "--show-managed-fields=false")...)
			if err != nil {
				return err
			}
			if object, err = plain([]byte(text)); err != nil {
				return err
			}
			return kubectl(append([]string{"delete"}, args...)...)(ctx)
		},
		end: func(ctx context.Context) error { return cluster.Apply(ctx, object) },
	}
}

func deleteNamespace(ns string) injection {
	return injection{kind: promises.NamespaceDeleted, seconds: 5, end: nothing, begin: func(ctx context.Context) error {
		return cluster.Kube.CoreV1().Namespaces().Delete(ctx, ns, metav1.DeleteOptions{})
	}}
}

func deleteSecrets(seconds int) injection {
	return injection{
		kind: promises.SecretsDeleted, seconds: seconds, end: nothing,
		begin: kubectl("delete", "secret", "sluice-gateway-tls", "sluice-controller-tls", "sluice-adapter-tls", "-n", kit.Namespace),
	}
}

func deleteAPIServices(seconds int) injection {
	return injection{
		kind: promises.APIServicesDeleted, seconds: seconds,
		begin: kubectl("delete", "apiservices", "v1beta2.custom.metrics.k8s.io", "v1beta1.custom.metrics.k8s.io", "v1beta1.external.metrics.k8s.io"),
		end:   func(ctx context.Context) error { return cluster.Install(ctx, 2*time.Minute) },
	}
}
