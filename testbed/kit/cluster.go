package kit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/sluice-autoscaler/sluice/testbed"
)

const (
	// Namespace is where Install puts Sluice.
	Namespace = "sluice"
	// ControllerSelector selects the controller's pods in Namespace.
	ControllerSelector = "app.kubernetes.io/component=sluice-controller"
	// GatewaySelector selects the gateways' pods in Namespace.
	GatewaySelector = "app.kubernetes.io/component=sluice-gateway"
)

// Cluster is a testbed together with the build of Sluice that goes on it.
type Cluster struct {
	*testbed.Cluster
	// Place is the build.
	Place Place
	// Kube is a client of the administrator.
	Kube kubernetes.Interface
}

// Start starts a testbed that knows Sluice's images besides those of o. The program must call
// testbed.MaybeChild first thing.
func Start(ctx context.Context, p Place, o testbed.Options) (*Cluster, error) {
	all := p.Images()
	maps.Copy(all, o.Images)
	o.Images = all
	if o.ControlPlane == "" {
		if dir := filepath.Join(p.Root, "testbed", "controlplane"); isDir(dir) {
			o.ControlPlane = dir
		}
	}
	t, err := testbed.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	c, err := New(t, p)
	if err != nil {
		return nil, errors.Join(err, t.Kill())
	}
	return c, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// New returns the kit for a testbed that runs.
func New(t *testbed.Cluster, p Place) (*Cluster, error) {
	config, err := t.REST()
	if err != nil {
		return nil, err
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return &Cluster{Cluster: t, Place: p, Kube: kube}, nil
}

// Render returns the chart's manifests with its CRDs, as `helm template` prints them; args are
// further arguments of helm ("--set", "controller.collectInterval=5s").
func (p Place) Render(ctx context.Context, args ...string) ([]byte, error) {
	chart := filepath.Join(p.Root, "deploy", "chart")
	cmd := exec.CommandContext(ctx, p.Helm, append([]string{"template", "sluice", chart, "--namespace", Namespace, "--include-crds"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("render the chart: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}

// Install renders the chart, applies it with kubectl, and returns when the controller and the
// gateways are ready and every APIService of Sluice is Available; args are further arguments of
// helm. It may be called again with others.
func (c *Cluster) Install(ctx context.Context, timeout time.Duration, args ...string) error {
	manifests, err := c.Place.Render(ctx, args...)
	if err != nil {
		return err
	}
	if err := c.EnsureNamespace(ctx, Namespace); err != nil {
		return err
	}
	if err := c.Apply(ctx, manifests); err != nil {
		return fmt.Errorf("apply the chart: %w", err)
	}
	return c.WaitInstalled(ctx, timeout)
}

// WaitInstalled waits until the controller and the gateways are rolled out, Sluice's APIServices
// are Available and Autoscalers can be applied.
func (c *Cluster) WaitInstalled(ctx context.Context, timeout time.Duration) error {
	return testbed.WaitFor(ctx, timeout, "Sluice to be ready", func(ctx context.Context) (string, bool) {
		var missing []string
		for _, name := range []string{"sluice-controller", "sluice-gateway"} {
			d, err := c.Kube.AppsV1().Deployments(Namespace).Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err.Error(), false
			}
			s := d.Status
			if s.ObservedGeneration < d.Generation || s.Replicas != *d.Spec.Replicas || s.ReadyReplicas != s.Replicas || s.UpdatedReplicas != s.Replicas {
				missing = append(missing, fmt.Sprintf("Deployment %s has %d of %d replicas ready", name, s.ReadyReplicas, *d.Spec.Replicas))
			}
		}
		apis, err := c.APIServices(ctx)
		if err != nil {
			return err.Error(), false
		}
		for _, a := range apis {
			if !a.Available {
				missing = append(missing, fmt.Sprintf("APIService %s: %s", a.Name, a.Message))
			}
		}
		if len(missing) == 0 {
			if _, err := c.Autoscalers(ctx, Namespace); err != nil {
				return err.Error(), false
			}
		}
		return strings.Join(missing, "; "), len(missing) == 0
	})
}

// EnsureNamespace makes a namespace unless it is there, and waits until pods can be made in it.
func (c *Cluster) EnsureNamespace(ctx context.Context, name string) error {
	_, err := c.Kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make namespace %s: %w", name, err)
	}
	return testbed.WaitFor(ctx, 30*time.Second, "the default service account of "+name, func(ctx context.Context) (string, bool) {
		_, err := c.Kube.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		return fmt.Sprint(err), err == nil
	})
}

// ApplyExample applies manifests of deploy/examples in a namespace, which it makes if need be.
func (c *Cluster) ApplyExample(ctx context.Context, namespace string, names ...string) error {
	if err := c.EnsureNamespace(ctx, namespace); err != nil {
		return err
	}
	args := []string{"apply", "--namespace", namespace}
	for _, name := range names {
		args = append(args, "-f", c.Place.Example(name))
	}
	_, err := c.Kubectl(ctx, args...)
	return err
}

// Scale sets a Deployment's replicas by its scale subresource.
func (c *Cluster) Scale(ctx context.Context, namespace, deployment string, replicas int32) error {
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
	_, err := c.Kube.AppsV1().Deployments(namespace).Patch(ctx, deployment, types.MergePatchType, patch, metav1.PatchOptions{}, "scale")
	if err != nil {
		return fmt.Errorf("scale %s/%s to %d: %w", namespace, deployment, replicas, err)
	}
	return nil
}

// Replicas tells how many replicas a Deployment is to have, and how many of them are ready. Pods
// that are ending are neither.
func (c *Cluster) Replicas(ctx context.Context, namespace, deployment string) (spec, ready int32, err error) {
	d, err := c.Kube.AppsV1().Deployments(namespace).Get(ctx, deployment, metav1.GetOptions{})
	if err != nil {
		return 0, 0, fmt.Errorf("read Deployment %s/%s: %w", namespace, deployment, err)
	}
	return *d.Spec.Replicas, d.Status.ReadyReplicas, nil
}

// WaitReplicas waits until want holds for a Deployment's replicas; what says it in words ("at least
// 4 ready").
func (c *Cluster) WaitReplicas(ctx context.Context, timeout time.Duration, namespace, deployment, what string, want func(spec, ready int32) bool) error {
	return testbed.WaitFor(ctx, timeout, fmt.Sprintf("%s/%s: %s", namespace, deployment, what), func(ctx context.Context) (string, bool) {
		spec, ready, err := c.Replicas(ctx, namespace, deployment)
		if err != nil {
			return err.Error(), false
		}
		return fmt.Sprintf("%d replicas, %d ready", spec, ready), want(spec, ready)
	})
}

// ServiceURL returns the address of a Service as http://ADDRESS:PORT, its first port. The host
// reaches it.
func (c *Cluster) ServiceURL(ctx context.Context, namespace, service string) (string, error) {
	s, err := c.Kube.CoreV1().Services(namespace).Get(ctx, service, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("read Service %s/%s: %w", namespace, service, err)
	}
	if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 {
		return "", fmt.Errorf("read Service %s/%s: it has no address or no port", namespace, service)
	}
	return fmt.Sprintf("http://%s:%d", s.Spec.ClusterIP, s.Spec.Ports[0].Port), nil
}

// Pods lists pods by label selector.
func (c *Cluster) Pods(ctx context.Context, namespace, selector string) ([]corev1.Pod, error) {
	list, err := c.Kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("list pods %s in %s: %w", selector, namespace, err)
	}
	return list.Items, nil
}

// PodLogs returns the last lines of each container of the selected pods, under headings, and of the
// run before if a container was restarted. What cannot be read is said in its place.
func (c *Cluster) PodLogs(ctx context.Context, namespace, selector string, lines int64) string {
	var b strings.Builder
	pods, err := c.Pods(ctx, namespace, selector)
	if err != nil {
		return err.Error() + "\n"
	}
	for _, p := range pods {
		for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			for _, previous := range []bool{true, false} {
				if previous && s.RestartCount == 0 {
					continue
				}
				run := ""
				if previous {
					run = ", the run before"
				}
				fmt.Fprintf(&b, "--- %s/%s %s (ready %t, restarts %d)%s\n", namespace, p.Name, s.Name, s.Ready, s.RestartCount, run)
				text, err := c.Kube.CoreV1().Pods(namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: s.Name, TailLines: &lines, Previous: previous}).DoRaw(ctx)
				if err != nil {
					text = []byte(err.Error() + "\n")
				}
				b.Write(text)
			}
		}
	}
	return b.String()
}

// InPod runs a command of the host in a pod's network, for example nft to cut it off. It needs
// bin/testbed.
func (c *Cluster) InPod(ctx context.Context, namespace, pod string, command ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.Place.Bin, "testbed"), append([]string{"exec", "--pod", namespace + "/" + pod, "--"}, command...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("run %s in pod %s/%s: %w: %s", strings.Join(command, " "), namespace, pod, err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// Sluice runs bin/sluice, the user's tool, as the administrator and returns its standard output. An
// error holds its standard error.
func (c *Cluster) Sluice(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.Place.Bin, "sluice"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig())
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("sluice %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
