package gateway

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
	protocolHTTP = "http"
	protocolTCP  = "tcp"
)

// maxHoldSeconds bounds a hold timeout to what a time.Duration surely holds.
const maxHoldSeconds = 24 * 3600

// DecodeAssignments reads one JSON document and reports every fault in it. Unknown fields are ignored, so that a newer
// controller can speak to an older gateway. The caller bounds r.
func DecodeAssignments(r io.Reader) (wire.Assignments, error) {
	var a wire.Assignments
	dec := json.NewDecoder(r)
	if err := dec.Decode(&a); err != nil {
		return wire.Assignments{}, fmt.Errorf("decode assignments: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return wire.Assignments{}, errors.New("decode assignments: more than one JSON document")
	}
	var errs []error
	targets, listens := map[Target]int{}, map[int]int{}
	for i, p := range a.Ports {
		fault := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("ports[%d]: "+format, append([]any{i}, args...)...))
		}
		if !label(p.Namespace) {
			fault("namespace = %q: want the name of a namespace", p.Namespace)
		}
		if !label(p.Service) {
			fault("service = %q: want the name of a Service", p.Service)
		}
		if p.PortName != "" && !label(p.PortName) {
			fault("portName = %q: want the name of a Service's port or nothing", p.PortName)
		}
		if p.Listen < 1 || p.Listen > 65535 {
			fault("listen = %d: want 1–65535", p.Listen)
		}
		if p.Protocol != protocolHTTP && p.Protocol != protocolTCP {
			fault(`protocol = %q: want "http" or "tcp"`, p.Protocol)
		}
		if p.MaxHeld < 0 {
			fault("maxHeld = %d: want ≥ 0 (requests)", p.MaxHeld)
		}
		if p.MaxHeldBytes < 0 {
			fault("maxHeldBytes = %d: want ≥ 0 (bytes)", p.MaxHeldBytes)
		}
		if math.IsNaN(p.HoldSeconds) || p.HoldSeconds < 0 || p.HoldSeconds > maxHoldSeconds {
			fault("holdSeconds = %v: want 0–%d (seconds)", p.HoldSeconds, maxHoldSeconds)
		}
		if p.PodConcurrency < 0 {
			fault("podConcurrency = %d: want ≥ 0 (requests)", p.PodConcurrency)
		}
		if first, twice := listens[p.Listen]; twice {
			fault("listen = %d is taken by ports[%d]", p.Listen, first)
		}
		listens[p.Listen] = i
		t := targetOf(p)
		if first, twice := targets[t]; twice {
			fault("%s is assigned by ports[%d] already", t, first)
		}
		targets[t] = i
	}
	if err := errors.Join(errs...); err != nil {
		return wire.Assignments{}, err
	}
	return a, nil
}

func targetOf(a wire.Assignment) Target { return Target{a.Namespace, a.Service, a.PortName} }

// label reports whether s is a DNS label as Kubernetes wants it of such names.
func label(s string) bool {
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
