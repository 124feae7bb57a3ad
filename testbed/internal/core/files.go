package core

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/sluice-autoscaler/sluice/testbed/internal/network"
	"github.com/sluice-autoscaler/sluice/testbed/internal/pki"
)

const (
	securePort = 6443
	nodeName   = "testbed"
	// firstService is the address that the API server gives its own Service, kubernetes.default.
	firstService = "198.19.0.1"
)

// files are the paths, and what of their contents is needed again, of certificates and
// configuration.
type files struct {
	authority, front    string // certificates of the authorities
	serving, servingKey string
	proxy, proxyKey     string // the aggregation layer's client certificate
	kubelet, kubeletKey string // the API server's client certificate towards the node
	tokens              string // key of service-account tokens
	manager, scheduler  string // kubeconfig files
	proxyConfig         string
	schedulerConfig     string
	pool                *x509.CertPool
	nodeServing         tls.Certificate
}

// serverURL is where the API server is reached, from inside and from the host.
func serverURL() string {
	return fmt.Sprintf("https://%s", netip.AddrPortFrom(network.Node(), securePort))
}

// writeFiles makes all certificates and configuration files below cfg.Dir.
func writeFiles(cfg Config) (files, error) {
	dir := filepath.Join(cfg.Dir, "pki")
	for _, d := range []string{dir, filepath.Join(cfg.Dir, LogDir)} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return files{}, fmt.Errorf("make state directory: %w", err)
		}
	}
	now := time.Now()
	authority, err := pki.NewAuthority("testbed", now)
	if err != nil {
		return files{}, err
	}
	// Who may claim to speak for users, as the aggregation layer does, is vouched for by an
	// authority of its own.
	front, err := pki.NewAuthority("testbed-front-proxy", now)
	if err != nil {
		return files{}, err
	}
	f := files{
		authority: filepath.Join(dir, "ca.crt"), front: filepath.Join(dir, "front-proxy-ca.crt"), tokens: filepath.Join(dir, "tokens.key"),
		pool: authority.Pool(),
	}
	if err := writeFile(f.authority, authority.PEM()); err != nil {
		return files{}, err
	}
	if err := writeFile(f.front, front.PEM()); err != nil {
		return files{}, err
	}
	tokens, err := pki.SigningKey()
	if err != nil {
		return files{}, err
	}
	if err := writeFile(f.tokens, tokens); err != nil {
		return files{}, err
	}
	for _, c := range []struct {
		by        *pki.Authority
		file      string
		id        pki.Identity
		cert, key *string
	}{
		{authority, "apiserver", pki.Identity{
			Name:  "kube-apiserver",
			Hosts: []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"},
			Addrs: []netip.Addr{network.Node(), netip.MustParseAddr(firstService), netip.AddrFrom4([4]byte{127, 0, 0, 1})},
		}, &f.serving, &f.servingKey},
		{front, "front-proxy-client", pki.Identity{Name: "front-proxy-client"}, &f.proxy, &f.proxyKey},
		{authority, "apiserver-kubelet-client", pki.Identity{Name: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}}, &f.kubelet, &f.kubeletKey},
	} {
		pair, err := c.by.Issue(c.id)
		if err != nil {
			return files{}, err
		}
		if *c.cert, *c.key, err = pair.Write(dir, c.file); err != nil {
			return files{}, err
		}
	}
	node, err := authority.Issue(pki.Identity{Name: "system:node:" + nodeName, Groups: []string{"system:nodes"}, Hosts: []string{nodeName}, Addrs: []netip.Addr{network.Node()}})
	if err != nil {
		return files{}, err
	}
	if f.nodeServing, err = tls.X509KeyPair(node.Cert, node.Key); err != nil {
		return files{}, fmt.Errorf("load the node's certificate: %w", err)
	}
	var proxy string
	for _, k := range []struct {
		path, file, user string
		groups           []string
		out              *string
	}{
		{cfg.Dir, Kubeconfig, "testbed-admin", []string{"system:masters"}, new(string)},
		{dir, "kube-controller-manager.kubeconfig", "system:kube-controller-manager", nil, &f.manager},
		{dir, "kube-scheduler.kubeconfig", "system:kube-scheduler", nil, &f.scheduler},
		{dir, "kube-proxy.kubeconfig", "system:kube-proxy", nil, &proxy},
	} {
		pair, err := authority.Issue(pki.Identity{Name: k.user, Groups: k.groups})
		if err != nil {
			return files{}, err
		}
		config, err := pki.Kubeconfig(serverURL(), authority.PEM(), pair)
		if err != nil {
			return files{}, err
		}
		*k.out = filepath.Join(k.path, k.file)
		if err := writeFile(*k.out, config); err != nil {
			return files{}, err
		}
	}
	f.proxyConfig = filepath.Join(cfg.Dir, "kube-proxy.yaml")
	if err := writeFile(f.proxyConfig, proxyConfig(proxy)); err != nil {
		return files{}, err
	}
	f.schedulerConfig = filepath.Join(cfg.Dir, "kube-scheduler.yaml")
	return f, writeFile(f.schedulerConfig, schedulerConfig(f.scheduler))
}
