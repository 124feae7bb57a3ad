package path

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-autoscaler/sluice/wire"
)

// Indexes of EndpointSlices that the driver's client must have; AddIndexes registers them.
const (
	// ServiceIndex finds the slices of a Service.
	ServiceIndex = "sluice.service"
	// NumberIndex finds Sluice's slices that have or claim a number.
	NumberIndex = "sluice.number"
)

const (
	// claimsAnnotation holds numbers that are claimed and not confirmed: "http=20417,admin=20418".
	claimsAnnotation = wire.Domain + "/claimed-ports"
	// ownerLabel names the owner that wrote the slice last.
	ownerLabel = wire.Domain + "/owner"
)

// AddIndexes registers the indexes with a manager's cache. It is called before the cache starts.
func AddIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	for name, f := range map[string]client.IndexerFunc{ServiceIndex: IndexService, NumberIndex: IndexNumber} {
		if err := indexer.IndexField(ctx, &discoveryv1.EndpointSlice{}, name, f); err != nil {
			return fmt.Errorf("index EndpointSlices by %s: %w", name, err)
		}
	}
	return nil
}

// IndexService is the function behind ServiceIndex.
func IndexService(o client.Object) []string {
	if s := o.GetLabels()[discoveryv1.LabelServiceName]; s != "" {
		return []string{s}
	}
	return nil
}

// IndexNumber is the function behind NumberIndex.
func IndexNumber(o client.Object) []string {
	s, ok := o.(*discoveryv1.EndpointSlice)
	if !ok || !IsOwn(s) {
		return nil
	}
	var out []string
	add := func(n int) {
		if key := strconv.Itoa(n); n > 0 && !slices.Contains(out, key) {
			out = append(out, key)
		}
	}
	for i := range s.Ports {
		if p := s.Ports[i].Port; p != nil {
			add(int(*p))
		}
	}
	for _, c := range claims(s) {
		add(c.number)
	}
	return out
}

// IsOwn tells whether a slice is Sluice's.
func IsOwn(s *discoveryv1.EndpointSlice) bool {
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

// claim is a number for the Service port of a name.
type claim struct {
	name   string
	number int
}

// claims reads the annotation. What cannot be read is left out.
func claims(s *discoveryv1.EndpointSlice) []claim {
	raw := s.Annotations[claimsAnnotation]
	if raw == "" {
		return nil
	}
	var out []claim
	for part := range strings.SplitSeq(raw, ",") {
		name, number, _ := strings.Cut(part, "=")
		if n, err := strconv.Atoi(number); err == nil && n >= 1 && n <= 65535 {
			out = append(out, claim{name, n})
		}
	}
	return out
}

func encodeClaims(list []claim) string {
	parts := make([]string, len(list))
	for i, c := range list {
		parts[i] = c.name + "=" + strconv.Itoa(c.number)
	}
	return strings.Join(parts, ",")
}

// confirmed returns the number that a slice has for a port name.
func confirmed(s *discoveryv1.EndpointSlice, name string) (int, bool) {
	if s == nil {
		return 0, false
	}
	for i := range s.Ports {
		if p := &s.Ports[i]; p.Port != nil && deref(p.Name) == name {
			return int(*p.Port), true
		}
	}
	return 0, false
}

// claimed returns the number that a slice claims for a port name.
func claimed(s *discoveryv1.EndpointSlice, name string) (int, bool) {
	if s == nil {
		return 0, false
	}
	for _, c := range claims(s) {
		if c.name == name {
			return c.number, true
		}
	}
	return 0, false
}

// has tells whether a slice has confirmed a number.
func has(s *discoveryv1.EndpointSlice, number int) bool {
	return slices.ContainsFunc(s.Ports, func(p discoveryv1.EndpointPort) bool { return p.Port != nil && int(*p.Port) == number })
}

// content is what a slice ought to hold.
type content struct {
	ports  []wire.Assignment // confirmed
	claims []claim
	// ips are the gateways' addresses in order.
	ips []string
	// keep leaves the endpoints as they are.
	keep bool
}

// matches tells whether a slice is as it ought to be.
func (c *content) matches(s *discoveryv1.EndpointSlice, owner string, ref *metav1.OwnerReference) bool {
	if s.Annotations[claimsAnnotation] != encodeClaims(c.claims) || s.Labels[ownerLabel] != owner || len(s.Ports) != len(c.ports) {
		return false
	}
	if len(s.OwnerReferences) != 1 || s.OwnerReferences[0].UID != ref.UID || s.OwnerReferences[0].Name != ref.Name {
		return false
	}
	for i := range c.ports {
		p := &s.Ports[i]
		if p.Port == nil || int(*p.Port) != c.ports[i].Listen || deref(p.Name) != c.ports[i].PortName {
			return false
		}
	}
	return c.keep || slices.EqualFunc(s.Endpoints, c.ips, func(e discoveryv1.Endpoint, ip string) bool {
		return len(e.Addresses) == 1 && e.Addresses[0] == ip
	})
}

// build returns the slice that ought to exist, made from the one that does, or nil.
func (c *content) build(was *discoveryv1.EndpointSlice, svc *corev1.Service, owner string, ref metav1.OwnerReference) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: svc.Namespace, Name: SliceName(svc.Name)},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	if was != nil {
		s.ObjectMeta = *was.DeepCopy().GetObjectMeta().(*metav1.ObjectMeta)
		s.ManagedFields, s.AddressType = nil, was.AddressType
	}
	s.Labels = maps.Clone(s.Labels)
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	s.Labels[discoveryv1.LabelServiceName], s.Labels[discoveryv1.LabelManagedBy], s.Labels[ownerLabel] = svc.Name, wire.Domain, owner
	s.OwnerReferences = []metav1.OwnerReference{ref}
	if len(c.claims) == 0 {
		delete(s.Annotations, claimsAnnotation)
	} else {
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		s.Annotations[claimsAnnotation] = encodeClaims(c.claims)
	}
	for _, p := range c.ports {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: new(p.PortName), Port: new(int32(p.Listen)), Protocol: new(corev1.ProtocolTCP)})
	}
	if c.keep {
		if was != nil {
			s.Endpoints = was.DeepCopy().Endpoints
		}
		return s
	}
	for _, ip := range c.ips {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{ip},
			Conditions: discoveryv1.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)},
		})
	}
	return s
}

// protocol tells what is spoken on a Service port: what its appProtocol or the first word of its name
// says, else HTTP.
func protocol(appProtocol, name string) string {
	word := strings.ToLower(appProtocol)
	if word == "" {
		word, _, _ = strings.Cut(strings.ToLower(name), "-")
	}
	switch word {
	case "tcp", "tls", "https", "mongo", "mysql", "redis", "postgres", "postgresql", "kubernetes.io/wss":
		return "tcp"
	}
	return "http"
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
