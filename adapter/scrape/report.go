package scrape

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/sluice-autoscaler/sluice/wire"
)

const (
	// maxPorts bounds the ports of a report; a line holds no more.
	maxPorts = 32_768
	// maxOwners bounds the owners of a report; a gateway takes fewer.
	maxOwners = 1000
	// maxRequests bounds the requests that one port can hold or forward at a time, and the pods
	// that it knows. It is far beyond what a gateway's memory holds.
	maxRequests = 1_000_000
	// maxSeconds bounds clocks and start times: no gateway lives that long.
	maxSeconds = 1e11
	// maxName bounds a name, as the API server does. maxText is how much of an error is kept.
	maxName, maxText = 253, 1024
)

// errInvalid is a report whose numbers cannot be true. Nothing of it is used, since the rest is not
// to be believed either.
var errInvalid = errors.New("a report that cannot be true")

// checkReport refuses a report whose numbers cannot be true, and names the first of them. The ports
// are in order.
func checkReport(r *wire.Report) error {
	switch {
	case !within(r.StartTime, maxSeconds):
		return fmt.Errorf("%w: startTime = %v, want 0–%g seconds", errInvalid, r.StartTime, maxSeconds)
	case !within(r.Monotonic, maxSeconds):
		return fmt.Errorf("%w: monotonic = %v, want 0–%g seconds", errInvalid, r.Monotonic, maxSeconds)
	case len(r.Ports) > maxPorts:
		return fmt.Errorf("%w: %d ports, want %d at most", errInvalid, len(r.Ports), maxPorts)
	case len(r.Owners) > maxOwners:
		return fmt.Errorf("%w: %d owners, want %d at most", errInvalid, len(r.Owners), maxOwners)
	case len(r.Refused) > wire.MaxRefused:
		return fmt.Errorf("%w: %d refused ports, want %d at most", errInvalid, len(r.Refused), wire.MaxRefused)
	}
	for i := range r.Ports {
		if err := checkPort(&r.Ports[i], r.Monotonic); err != nil {
			return fmt.Errorf("%w: ports[%d]: %w", errInvalid, i, err)
		}
		if i > 0 && comparePorts(r.Ports[i-1], r.Ports[i]) == 0 {
			return fmt.Errorf("%w: ports[%d]: port %q of Service %s/%s is there twice", errInvalid, i, r.Ports[i].PortName, r.Ports[i].Namespace, r.Ports[i].Service)
		}
	}
	return nil
}

// checkPort refuses what cannot be true of a port of a gateway that has lived for some seconds.
func checkPort(p *wire.PortReport, lived float64) error {
	if p.Namespace == "" || p.Service == "" || max(len(p.Namespace), len(p.Service), len(p.PortName)) > maxName {
		return errors.New("namespace, service or portName is no name")
	}
	for _, n := range []struct {
		name  string
		value int
	}{{"waiting", p.Waiting}, {"forwarding", p.Forwarding}, {"readyPods", p.ReadyPods}, {"listen", p.Listen}} {
		if n.value < 0 || n.value > maxRequests {
			return fmt.Errorf("%s = %d, want 0–%d", n.name, n.value, maxRequests)
		}
	}
	// The slack of a second is for an integral that was read a moment after the clock.
	if !within(p.WaitingSeconds, maxRequests*(lived+1)) {
		return fmt.Errorf("waitingSeconds = %v, want 0–%g in a life of %v seconds", p.WaitingSeconds, maxRequests*(lived+1), lived)
	}
	if c := p.ColdStart; c != nil && (c.Detected < 0 || c.Answering < 0 || c.Released < 0 || c.Held < 0 || c.Held > maxRequests || len(c.Pod) > maxName) {
		return errors.New("coldStart has a number or name that cannot be true")
	}
	return nil
}

// within is false for NaN as well.
func within(v, most float64) bool { return v >= 0 && v <= most && !math.IsInf(v, 0) }

// cut shortens what a report says in words, and leaves out the ports that nobody gave to the
// gateway.
func (s *Scraper) cut(gateway string, r *wire.Report) {
	for i := range r.Ports {
		if p := &r.Ports[i]; len(p.Error) > maxText {
			p.Error = strings.ToValidUTF8(p.Error[:maxText], "")
		}
	}
	if s.Assigned == nil {
		return
	}
	kept := r.Ports[:0]
	for i := range r.Ports {
		if p := &r.Ports[i]; s.Assigned(gateway, p) {
			kept = append(kept, *p)
		}
	}
	r.Ports = kept
}
