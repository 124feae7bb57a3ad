//go:build e2e

package e2e_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/wire"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-autoscaler/sluice/testbed/kit"
)

// impostor is a pod with a gateway's program, labels and port that is none.
const impostor = `
apiVersion: v1
kind: Pod
metadata:
  name: impostor
  namespace: %s
  labels: {app.kubernetes.io/name: sluice, app.kubernetes.io/instance: sluice, app.kubernetes.io/component: sluice-gateway}
spec:
  containers:
    - name: gateway
      image: sluice-autoscaler/sluice-gateway:0.1.0
      args: [--name=impostor, --insecure-control, --control-listen=:9096, --metrics-listen=:9097]
      ports:
        - {name: sluice-control, containerPort: 9096}
`

// TestImpostor runs pods that pretend to be gateways, one in another namespace and one in the
// release's with another ServiceAccount, while a workload goes to sleep and wakes. Neither is ever
// connected to, no slice names it, and one event tells of it.
func TestImpostor(t *testing.T) {
	namespaces := []string{"impostor", kit.Namespace}
	ips := map[string]string{}
	for _, ns := range namespaces {
		if err := cluster.EnsureNamespace(t.Context(), ns); err != nil {
			t.Fatal(err)
		}
		if err := cluster.Apply(t.Context(), []byte(fmt.Sprintf(impostor, ns))); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			zero := int64(0)
			_ = cluster.Kube.CoreV1().Pods(ns).Delete(context.WithoutCancel(t.Context()), "impostor", metav1.DeleteOptions{GracePeriodSeconds: &zero})
		})
		wait(t, time.Minute, "the impostor in "+ns, func(ctx context.Context) (string, bool) {
			p, err := cluster.Kube.CoreV1().Pods(ns).Get(ctx, "impostor", metav1.GetOptions{})
			if err != nil {
				return err.Error(), false
			}
			ips[ns] = p.Status.PodIP
			return string(p.Status.Phase), p.Status.Phase == corev1.PodRunning && p.Status.PodIP != ""
		})
		for _, rule := range []string{
			"add table ip seen", "add chain ip seen in { type filter hook input priority 0 ; }", "add rule ip seen in tcp dport 9096 tcp flags syn / syn,ack counter",
		} {
			if out, err := cluster.InPod(t.Context(), ns, "impostor", append([]string{"nft"}, strings.Fields(rule)...)...); err != nil {
				t.Fatalf("count connections in %s: %v: %s", ns, err, out)
			}
		}
		// The counter counts: this test is the first to connect.
		wait(t, 20*time.Second, "a connection to the impostor", func(ctx context.Context) (string, bool) {
			conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", net.JoinHostPort(ips[ns], "9096"))
			if err != nil {
				return err.Error(), false
			}
			return "", conn.Close() == nil
		})
	}
	before := map[string]int{}
	for _, ns := range namespaces {
		if before[ns] = connections(t, ns); before[ns] == 0 {
			t.Fatalf("the connection to the impostor in %s was not counted: the test shows nothing", ns)
		}
	}

	url := web(t, "impostor")
	apply(t, "impostor", "autoscaler.yaml")
	asleep(t, "impostor")
	slices, err := cluster.Kube.DiscoveryV1().EndpointSlices("").List(t.Context(), metav1.ListOptions{LabelSelector: discoveryv1.LabelManagedBy + "=" + wire.Domain})
	if err != nil || len(slices.Items) == 0 {
		t.Fatalf("%d slices of Sluice, %v, want that of the sleeping workload", len(slices.Items), err)
	}
	for _, s := range slices.Items {
		for _, e := range s.Endpoints {
			for ns, ip := range ips {
				if e.Addresses[0] == ip {
					t.Errorf("slice %s/%s names the impostor in %s", s.Namespace, s.Name, ns)
				}
			}
		}
	}
	if err := get(t.Context(), fresh(), url); err != nil {
		t.Errorf("a request to the sleeping workload: %v", err)
	}
	for _, ns := range namespaces {
		if after := connections(t, ns); after != before[ns] {
			t.Errorf("the impostor in %s was connected to %d times", ns, after-before[ns])
		}
		wait(t, 20*time.Second, "the event about the impostor in "+ns, func(ctx context.Context) (string, bool) {
			n, err := events(ctx, ns)
			return fmt.Sprint(n, " events, ", err), n == 1 && err == nil
		})
	}
}

// events counts what tells of the impostor in a namespace.
func events(ctx context.Context, namespace string) (int, error) {
	list, err := cluster.Kube.EventsV1().Events(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, err
	}
	n := 0
	for _, e := range list.Items {
		if e.Reason == "GatewayImpostor" && e.Regarding.Name == "impostor" {
			n++
			if e.Series != nil {
				n += int(e.Series.Count)
			}
		}
	}
	return n, nil
}

// connections counts the connections that were opened to the impostor's control port.
func connections(t *testing.T, namespace string) int {
	t.Helper()
	out, err := cluster.InPod(t.Context(), namespace, "impostor", "nft", "list", "table", "ip", "seen")
	if err != nil {
		t.Fatalf("read the counter in %s: %v: %s", namespace, err, out)
	}
	m := regexp.MustCompile(`counter packets (\d+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no counter in:\n%s", out)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestControlPortNeedsACertificate asks a real gateway's control port without one.
func TestControlPortNeedsACertificate(t *testing.T) {
	pods, err := cluster.Pods(t.Context(), kit.Namespace, kit.GatewaySelector)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, p := range pods {
		if p.Name == "impostor" || p.Status.PodIP == "" || p.DeletionTimestamp != nil {
			continue
		}
		asked++
		address := net.JoinHostPort(p.Status.PodIP, "9096")
		anybody := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
		for _, url := range []string{"https://" + address, "http://" + address} {
			for method, path := range map[string]string{http.MethodGet: wire.ReportsPath, http.MethodPut: wire.OwnerPath("controller"), http.MethodDelete: wire.OwnerPath("controller")} {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				req, err := http.NewRequestWithContext(ctx, method, url+path, strings.NewReader("{}"))
				if err != nil {
					t.Fatal(err)
				}
				res, err := anybody.RoundTrip(req)
				if err == nil {
					_ = res.Body.Close()
					// 400 is a TLS server's answer to plain HTTP.
					if res.StatusCode != http.StatusBadRequest {
						t.Errorf("%s %s without a certificate = %s, want none", method, url+path, res.Status)
					}
				}
				cancel()
			}
		}
	}
	if asked == 0 {
		t.Error("no gateway was asked")
	}
}
