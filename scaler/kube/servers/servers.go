// Package servers finds, on Kubernetes, the servers of policies outside the process.
package servers

import (
	"context"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Servers finds what policies outside the process need: their Services, and the Secrets that
// secure the connections. It is a plugin.Services and a plugin.Secrets.
type Servers struct {
	// Cached reads Services, from memory.
	Cached client.Reader
	// Direct reads Secrets, each by a GET of its own: Secrets are not to be kept.
	Direct client.Reader
}

// ClusterIP implements plugin.Services. A Service without a cluster IP has none: one of the type
// ExternalName leads wherever its owner likes.
func (s Servers) ClusterIP(ctx context.Context, namespace, name string) (netip.Addr, error) {
	var svc corev1.Service
	if err := s.Cached.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, &svc, client.UnsafeDisableDeepCopy); err != nil {
		return netip.Addr{}, fmt.Errorf("find Service %s/%s: %w", namespace, name, err)
	}
	ip, err := netip.ParseAddr(svc.Spec.ClusterIP)
	if err != nil || svc.Spec.Type == corev1.ServiceTypeExternalName {
		return netip.Addr{}, fmt.Errorf("the Service %s/%s of type %s has the cluster IP %q: want an address", namespace, name, svc.Spec.Type, svc.Spec.ClusterIP)
	}
	return ip, nil
}

// maxSecret bounds what a Secret holds altogether, in bytes.
const maxSecret = 256 << 10

// Secret implements plugin.Secrets.
func (s Servers) Secret(ctx context.Context, namespace, name string) (map[string][]byte, error) {
	var secret corev1.Secret
	if err := s.Direct.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, &secret); err != nil {
		return nil, err
	}
	size := 0
	for _, v := range secret.Data {
		size += len(v)
	}
	if size > maxSecret {
		return nil, fmt.Errorf("it holds %d bytes: want at most %d", size, maxSecret)
	}
	return secret.Data, nil
}
