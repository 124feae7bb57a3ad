package wire

import (
	"cmp"
	"slices"
)

// Gateway is one gateway as a controller sees it. Copies share the report, which nobody changes.
type Gateway struct {
	// Name is the pod's name, IP its address, Control its control address ("host:port").
	Name, IP, Control string
	// Connected says whether its report stream is up.
	Connected bool
	// Leaving says that its pod does not run, or is told to go: it still serves, but no slice may
	// name it.
	Leaving bool
	// Report is the last report, nil before the first. WithReport sets it.
	Report *Report

	// ports are the report's, in order.
	ports []PortReport
}

// WithReport returns the gateway with a new report. It costs one pass over the report's ports, so
// that Ports costs no more than a Service has of them.
func (g Gateway) WithReport(r *Report) Gateway {
	g.Report, g.ports = r, nil
	if r == nil {
		return g
	}
	g.ports = r.Ports
	// The wire promises the order; a gateway that breaks it must not hide ports.
	if !slices.IsSortedFunc(g.ports, comparePorts) {
		g.ports = slices.Clone(g.ports)
		slices.SortStableFunc(g.ports, comparePorts)
	}
	return g
}

// Ports returns what the gateway reports of a Service's ports. The result is not to be changed.
func (g *Gateway) Ports(namespace, service string) []PortReport {
	first, _ := slices.BinarySearchFunc(g.ports, PortReport{Namespace: namespace, Service: service}, compareServices)
	end := first
	for end < len(g.ports) && g.ports[end].Namespace == namespace && g.ports[end].Service == service {
		end++
	}
	return g.ports[first:end:end]
}

// Waiting is how many requests the gateway holds for a Service.
func (g *Gateway) Waiting(namespace, service string) int {
	n := 0
	for _, p := range g.Ports(namespace, service) {
		n += p.Waiting
	}
	return n
}

// Owner returns what the report says of an owner; false when nothing.
func (r *Report) Owner(name string) (OwnerReport, bool) {
	for _, o := range r.Owners {
		if o.Owner == name {
			return o, true
		}
	}
	return OwnerReport{}, false
}

func compareServices(a, b PortReport) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Service, b.Service))
}

func comparePorts(a, b PortReport) int {
	return cmp.Or(compareServices(a, b), cmp.Compare(a.PortName, b.PortName))
}
