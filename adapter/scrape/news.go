package scrape

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/wire"
)

// sortPorts puts a report's ports into the order that the wire promises.
func sortPorts(r *wire.Report) {
	if !slices.IsSortedFunc(r.Ports, comparePorts) {
		slices.SortStableFunc(r.Ports, comparePorts)
	}
}

// comparePorts orders ports by namespace, Service and name.
func comparePorts(a, b wire.PortReport) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Service, b.Service), cmp.Compare(a.PortName, b.PortName))
}

// nameList is a list of Services that are added in order, each once.
type nameList []types.NamespacedName

func (l *nameList) add(p *wire.PortReport) {
	name := types.NamespacedName{Namespace: p.Namespace, Name: p.Service}
	if n := len(*l); n == 0 || (*l)[n-1] != name {
		*l = append(*l, name)
	}
}

// services names the Services of a report.
func services(r *wire.Report) []types.NamespacedName {
	if r == nil {
		return nil
	}
	var list nameList
	for i := range r.Ports {
		list.add(&r.Ports[i])
	}
	return list
}

// urgent names the Services of which a report says something that somebody waits for: requests are
// held, or a port opened, closed, changed or failed, or pods began to take requests, or a wake-up
// went on. Both reports' ports are in order.
func urgent(before, after wire.Gateway) []types.NamespacedName {
	var list nameList
	var was []wire.PortReport
	is := after.Report.Ports
	if r := before.Report; before.Connected && r != nil && r.StartTime == after.Report.StartTime {
		was = r.Ports
	}
	for len(was) > 0 || len(is) > 0 {
		order := 0
		switch {
		case len(was) == 0:
			order = 1
		case len(is) == 0:
			order = -1
		default:
			order = comparePorts(was[0], is[0])
		}
		switch {
		case order < 0: // no longer there
			list.add(&was[0])
			was = was[1:]
			continue
		case order > 0: // new
			list.add(&is[0])
		default:
			if is[0].Waiting > 0 || changed(&is[0], &was[0]) {
				list.add(&is[0])
			}
			was = was[1:]
		}
		is = is[1:]
	}
	return list
}

// changed says that a port's state is not what it was.
func changed(p, was *wire.PortReport) bool {
	if p.Listening != was.Listening || p.InPath != was.InPath || p.Error != was.Error || p.ReadyPods != was.ReadyPods || p.Listen != was.Listen || p.Owner != was.Owner {
		return true
	}
	if p.ColdStart == nil || was.ColdStart == nil {
		return p.ColdStart != was.ColdStart
	}
	return *p.ColdStart != *was.ColdStart
}
