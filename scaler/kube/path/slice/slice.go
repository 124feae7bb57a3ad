// Package slice is what Sluice keeps in an EndpointSlice of its own beside a Service's: the
// gateways in its path, the numbers of its ports, and claims to numbers. It reads and makes slices,
// and does no I/O.
package slice

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

// MaxPorts is how many ports an EndpointSlice can have.
const MaxPorts = 100

const (
	// claimsAnnotation holds numbers that are claimed and not confirmed: "http=20417,admin=20418".
	claimsAnnotation = wire.Domain + "/claimed-ports"
	// OwnerLabel names the owner that wrote the slice last.
	OwnerLabel = wire.Domain + "/owner"
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
	for _, c := range Claims(s) {
		add(c.Number)
	}
	return out
}

// IsOwn tells whether a slice is Sluice's.
func IsOwn(s *discoveryv1.EndpointSlice) bool {
	return s.Labels[discoveryv1.LabelManagedBy] == wire.Domain
}

// Name names Sluice's slice of a Service.
func Name(service string) string {
	const most, suffix = 253, "-sluice"
	if len(service)+len(suffix) <= most {
		return service + suffix
	}
	sum := sha256.Sum256([]byte(service))
	return service[:most-len(suffix)-9] + "-" + hex.EncodeToString(sum[:4]) + suffix
}

// Claim is a number for the Service port of a name.
type Claim struct {
	Name   string
	Number int
}

// Claims reads the annotation. What cannot be read is left out.
func Claims(s *discoveryv1.EndpointSlice) []Claim {
	raw := s.Annotations[claimsAnnotation]
	if raw == "" {
		return nil
	}
	var out []Claim
	for part := range strings.SplitSeq(raw, ",") {
		if len(out) == MaxPorts { // more than any slice of ours
			break
		}
		name, number, _ := strings.Cut(part, "=")
		if n, err := strconv.Atoi(number); err == nil && n >= 1 && n <= 65535 {
			out = append(out, Claim{name, n})
		}
	}
	return out
}

func encode(list []Claim) string {
	parts := make([]string, len(list))
	for i, c := range list {
		parts[i] = c.Name + "=" + strconv.Itoa(c.Number)
	}
	return strings.Join(parts, ",")
}

// Confirmed returns the number that a slice has for a port name.
func Confirmed(s *discoveryv1.EndpointSlice, name string) (int, bool) {
	if s == nil {
		return 0, false
	}
	for i := range s.Ports {
		if p := &s.Ports[i]; p.Port != nil && Deref(p.Name) == name {
			return int(*p.Port), true
		}
	}
	return 0, false
}

// Claimed returns the number that a slice claims for a port name.
func Claimed(s *discoveryv1.EndpointSlice, name string) (int, bool) {
	if s == nil {
		return 0, false
	}
	for _, c := range Claims(s) {
		if c.Name == name {
			return c.Number, true
		}
	}
	return 0, false
}

// Has tells whether a slice has confirmed a number.
func Has(s *discoveryv1.EndpointSlice, number int) bool {
	return slices.ContainsFunc(s.Ports, func(p discoveryv1.EndpointPort) bool { return p.Port != nil && int(*p.Port) == number })
}

// Content is what a slice ought to hold.
type Content struct {
	Ports  []wire.Assignment // confirmed
	Claims []Claim
	// IPs are the gateways' addresses in order.
	IPs []string
	// Keep leaves the endpoints as they are.
	Keep bool
}

// Matches tells whether a slice is as it ought to be.
func (c *Content) Matches(s *discoveryv1.EndpointSlice, owner string, ref *metav1.OwnerReference) bool {
	if s.Annotations[claimsAnnotation] != encode(c.Claims) || s.Labels[OwnerLabel] != owner || len(s.Ports) != len(c.Ports) {
		return false
	}
	if len(s.OwnerReferences) != 1 || s.OwnerReferences[0].UID != ref.UID || s.OwnerReferences[0].Name != ref.Name {
		return false
	}
	for i := range c.Ports {
		p := &s.Ports[i]
		if p.Port == nil || int(*p.Port) != c.Ports[i].Listen || Deref(p.Name) != c.Ports[i].PortName {
			return false
		}
	}
	return c.Keep || slices.EqualFunc(s.Endpoints, c.IPs, func(e discoveryv1.Endpoint, ip string) bool {
		return len(e.Addresses) == 1 && e.Addresses[0] == ip
	})
}

// Build returns the slice that ought to exist, made from the one that does, or nil.
func (c *Content) Build(was *discoveryv1.EndpointSlice, svc *corev1.Service, owner string, ref metav1.OwnerReference) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: svc.Namespace, Name: Name(svc.Name)},
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
	s.Labels[discoveryv1.LabelServiceName], s.Labels[discoveryv1.LabelManagedBy], s.Labels[OwnerLabel] = svc.Name, wire.Domain, owner
	s.OwnerReferences = []metav1.OwnerReference{ref}
	if len(c.Claims) == 0 {
		delete(s.Annotations, claimsAnnotation)
	} else {
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		s.Annotations[claimsAnnotation] = encode(c.Claims)
	}
	for _, p := range c.Ports {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: new(p.PortName), Port: new(int32(p.Listen)), Protocol: new(corev1.ProtocolTCP)})
	}
	if c.Keep {
		if was != nil {
			s.Endpoints = was.DeepCopy().Endpoints
		}
		return s
	}
	for _, ip := range c.IPs {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{ip},
			Conditions: discoveryv1.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)},
		})
	}
	return s
}

// Protocol tells what is spoken on a Service port: what its appProtocol or the first word of its
// name says, else HTTP.
func Protocol(appProtocol, name string) string {
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

// Deref returns a string that may be missing.
func Deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
