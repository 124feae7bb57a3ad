package activation

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-autoscaler/sluice/wire"
)

// PortRange is the half-open range of gateway ports that are assigned to Service ports.
type PortRange struct{ From, To int }

// DefaultPorts is 20000–29999.
func DefaultPorts() PortRange { return PortRange{From: 20000, To: 30000} }

// Own tells whether a slice is Sluice's.
func Own(s *discoveryv1.EndpointSlice) bool {
	return s.Labels[discoveryv1.LabelManagedBy] == wire.Domain
}

// SliceName names Sluice's slice of a Service.
func SliceName(service string) string {
	const most, suffix = 253, "-sluice"
	if len(service)+len(suffix) <= most {
		return service + suffix
	}
	sum := sha256.Sum256([]byte(service))
	return service[:most-len(suffix)-9] + "-" + hex.EncodeToString(sum[:4]) + suffix
}

// Ports lists the Service's TCP ports with the gateway port of each. A port that the slice knows already keeps its number, so
// that a restart of the controller moves nothing; others get one that used does not hold.
func Ports(svc *corev1.Service, slice *discoveryv1.EndpointSlice, used map[int]bool, r PortRange) ([]wire.Assignment, error) {
	known := map[string]int{}
	if slice != nil {
		for _, p := range slice.Ports {
			if p.Port != nil {
				known[deref(p.Name)] = int(*p.Port)
			}
		}
	}
	taken := map[int]bool{}
	for p := range used {
		taken[p] = true
	}
	var out []wire.Assignment
	for _, p := range svc.Spec.Ports {
		if p.Protocol != corev1.ProtocolTCP && p.Protocol != "" {
			continue
		}
		listen, ok := known[p.Name]
		if !ok || taken[listen] {
			var err error
			if listen, err = free(svc.Namespace+"/"+svc.Name+"/"+p.Name, taken, r); err != nil {
				return nil, err
			}
		}
		taken[listen] = true
		out = append(out, wire.Assignment{
			Namespace: svc.Namespace, Service: svc.Name, PortName: p.Name, Listen: listen, Protocol: protocol(p),
		})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("service %s/%s has no TCP port: nothing can be held for it", svc.Namespace, svc.Name)
	}
	return out, nil
}

// free picks a port by hash and then the next that is not taken.
func free(key string, taken map[int]bool, r PortRange) (int, error) {
	h := fnv.New32a()
	h.Write([]byte(key))
	n := r.To - r.From
	for i := range n {
		if p := r.From + (int(h.Sum32())%n+i)%n; !taken[p] {
			return p, nil
		}
	}
	return 0, fmt.Errorf("no gateway port is left in %d–%d: widen the range", r.From, r.To-1)
}

// protocol tells what is spoken on a Service port: what its appProtocol or the first word of its name says, else HTTP.
func protocol(p corev1.ServicePort) string {
	said := strings.ToLower(deref(p.AppProtocol))
	if said == "" {
		said, _, _ = strings.Cut(strings.ToLower(p.Name), "-")
	}
	switch said {
	case "tcp", "tls", "https", "mongo", "mysql", "redis", "postgres", "postgresql", "kubernetes.io/wss":
		return "tcp"
	}
	return "http"
}

// Slice builds the slice that ought to exist: with the gateways' addresses as endpoints when in, with none when not. Its ports
// are the memory of the assignment, so it is kept either way.
func Slice(svc *corev1.Service, ports []wire.Assignment, gateways []string, in bool, owner metav1.OwnerReference) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: svc.Namespace, Name: SliceName(svc.Name),
			Labels:          map[string]string{discoveryv1.LabelServiceName: svc.Name, discoveryv1.LabelManagedBy: wire.Domain},
			OwnerReferences: []metav1.OwnerReference{owner},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, p := range ports {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: new(p.PortName), Port: new(int32(p.Listen)), Protocol: new(corev1.ProtocolTCP)})
	}
	if in {
		for _, ip := range slices.Sorted(slices.Values(gateways)) {
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
				Addresses:  []string{ip},
				Conditions: discoveryv1.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)},
			})
		}
	}
	return s
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
