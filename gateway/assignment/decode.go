// Package assignment keeps what the owners of a gateway's ports have assigned, and resolves it into
// the one assignment that is in effect for each number and each Service port. It does no I/O.
package assignment

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/sluice-autoscaler/sluice/wire"
)

// Protocols of an assignment.
const (
	HTTP = "http"
	TCP  = "tcp"
)

// maxHoldSeconds bounds a hold timeout to what a time.Duration surely holds.
const maxHoldSeconds = 24 * 3600

// Target names one port of one Service.
type Target struct{ Namespace, Service, PortName string }

// String returns namespace/service, with :port where the port has a name.
func (t Target) String() string {
	s := t.Namespace + "/" + t.Service
	if t.PortName != "" {
		s += ":" + t.PortName
	}
	return s
}

// TargetOf returns the Service port that an assignment is for.
func TargetOf(a wire.Assignment) Target { return Target{a.Namespace, a.Service, a.PortName} }

// Decode reads one JSON document. It looks at no port: Table.Put refuses those that are at fault one
// by one. Unknown fields are ignored, so that a newer controller can speak to an older gateway. The
// caller bounds r.
func Decode(r io.Reader) (wire.Assignments, error) {
	var a wire.Assignments
	dec := json.NewDecoder(r)
	if err := dec.Decode(&a); err != nil {
		return wire.Assignments{}, fmt.Errorf("decode assignments: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return wire.Assignments{}, errors.New("decode assignments: more than one JSON document")
	}
	return a, nil
}

// Validate reports every fault of one port.
func Validate(p wire.Assignment) error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(IsLabel(p.Namespace), "namespace = %q: want the name of a namespace", p.Namespace)
	check(IsLabel(p.Service), "service = %q: want the name of a Service", p.Service)
	check(p.PortName == "" || IsLabel(p.PortName), "portName = %q: want the name of a Service's port or nothing", p.PortName)
	check(p.Listen >= 1 && p.Listen <= 65535, "listen = %d: want 1–65535", p.Listen)
	check(p.Protocol == HTTP || p.Protocol == TCP, `protocol = %q: want "http" or "tcp"`, p.Protocol)
	check(p.MaxHeld >= 0, "maxHeld = %d: want ≥ 0 (requests)", p.MaxHeld)
	check(p.MaxHeldBytes >= 0, "maxHeldBytes = %d: want ≥ 0 (bytes)", p.MaxHeldBytes)
	check(!math.IsNaN(p.HoldSeconds) && p.HoldSeconds >= 0 && p.HoldSeconds <= maxHoldSeconds,
		"holdSeconds = %v: want 0–%d (seconds)", p.HoldSeconds, maxHoldSeconds)
	check(p.PodConcurrency >= 0, "podConcurrency = %d: want ≥ 0 (requests)", p.PodConcurrency)
	return errors.Join(errs...)
}

// IsLabel reports whether s is a DNS label, as Kubernetes wants it of such names.
func IsLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}
