package core

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sluice-autoscaler/sluice/testbed/internal/network"
)

func etcdArgs(cfg Config) []string {
	const peers = "http://127.0.0.1:2380"
	return []string{
		"--name=testbed",
		"--data-dir=" + filepath.Join(cfg.Dir, "etcd"),
		"--unsafe-no-fsync", // what it holds is thrown away anyway
		"--listen-client-urls=http://127.0.0.1:2379",
		"--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=" + peers,
		"--initial-advertise-peer-urls=" + peers,
		"--initial-cluster=testbed=" + peers,
		"--log-level=warn",
	}
}

func apiserverArgs(f files) []string {
	return []string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=" + network.Node().String(),
		"--advertise-address=" + network.Node().String(),
		fmt.Sprintf("--secure-port=%d", securePort),
		"--service-cluster-ip-range=" + network.Services().String(),
		"--tls-cert-file=" + f.serving, "--tls-private-key-file=" + f.servingKey,
		"--client-ca-file=" + f.authority,
		"--authorization-mode=Node,RBAC",
		"--allow-privileged=true",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + f.tokens, "--service-account-signing-key-file=" + f.tokens,
		"--kubelet-certificate-authority=" + f.authority,
		"--kubelet-client-certificate=" + f.kubelet, "--kubelet-client-key=" + f.kubeletKey,
		"--kubelet-preferred-address-types=InternalIP",
		// The aggregation layer: to endpoints directly, and with an identity that aggregated
		// servers can check.
		"--enable-aggregator-routing=true",
		"--proxy-client-cert-file=" + f.proxy, "--proxy-client-key-file=" + f.proxyKey,
		"--requestheader-client-ca-file=" + f.front,
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
	}
}

func controllerManagerArgs(cfg Config, f files) []string {
	return []string{
		"--kubeconfig=" + f.manager,
		"--authentication-kubeconfig=" + f.manager, "--authorization-kubeconfig=" + f.manager,
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + f.tokens,
		"--root-ca-file=" + f.authority,
		"--horizontal-pod-autoscaler-sync-period=" + cfg.HPASyncPeriod.String(),
		// A machine busy with tests must not get its only node called lost.
		"--node-monitor-grace-period=5m",
		"--kube-api-qps=300", "--kube-api-burst=600",
	}
}

func schedulerArgs(f files) []string {
	return []string{
		"--config=" + f.schedulerConfig,
		"--authentication-kubeconfig=" + f.scheduler, "--authorization-kubeconfig=" + f.scheduler,
		"--bind-address=127.0.0.1",
	}
}

func schedulerConfig(kubeconfig string) []byte {
	return fmt.Appendf(nil, `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection:
  leaderElect: false
clientConnection:
  kubeconfig: %q
  qps: 300
  burst: 600
`, kubeconfig)
}

func proxyArgs(f files) []string { return []string{"--config=" + f.proxyConfig} }

// proxyConfig is kube-proxy's. The limits of connection tracking are left alone: they are the
// host's.
func proxyConfig(kubeconfig string) []byte {
	return fmt.Appendf(nil, `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: %s
clusterCIDR: %s
bindAddress: 0.0.0.0
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
clientConnection:
  kubeconfig: %q
conntrack:
  maxPerCore: 0
  min: 0
  tcpEstablishedTimeout: 0s
  tcpCloseWaitTimeout: 0s
nftables:
  minSyncPeriod: 20ms
  syncPeriod: 30s
`, nodeName, network.Pods(), kubeconfig)
}

func etcdReady(ctx context.Context) error {
	return healthz("http://127.0.0.1:2379/health")(ctx)
}

func apiserverReady(f files) func(context.Context) error {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: f.pool}, DisableKeepAlives: true}}
	return func(ctx context.Context) error { return get(ctx, client, serverURL()+"/readyz") }
}

// healthz asks a component on the loopback address, whose certificate it made itself.
func healthz(url string) func(context.Context) error {
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // loopback, and only asked for its health
		DisableKeepAlives: true,
	}}
	return func(ctx context.Context) error { return get(ctx, client, url) }
}

func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // the status alone is enough
		return fmt.Errorf("get %s: %s: %s", url, resp.Status, body)
	}
	return nil
}

// clusterReady waits for what pods need besides running components: the node, and the default
// service account.
func clusterReady(ctx context.Context, config *rest.Config, timeout time.Duration) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	return awaitReady(ctx, time.Now().Add(timeout), func(ctx context.Context) error {
		if _, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return fmt.Errorf("wait for the default service account: %w", err)
		}
		node, err := client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("wait for the node: %w", err)
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("wait for node %s: not ready: %v", nodeName, node.Status.Conditions)
	})
}
