package scrape_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/adapter/scrape"
	"github.com/sluice-autoscaler/sluice/wire"
)

// What is urgent is what a look at two maps of ports says.
func TestUrgentAsByMaps(t *testing.T) {
	t.Parallel()
	type key struct{ namespace, service, port string }
	r := rand.New(rand.NewPCG(1, 2))
	report := func(start float64) *wire.Report {
		ports := map[key]wire.PortReport{}
		for range r.IntN(8) {
			k := key{fmt.Sprint("ns", r.IntN(2)), fmt.Sprint("s", r.IntN(3)), fmt.Sprint("p", r.IntN(2))}
			p := wire.PortReport{
				Namespace: k.namespace, Service: k.service, PortName: k.port, Waiting: r.IntN(2), ReadyPods: r.IntN(2),
				Listening: r.IntN(4) > 0, Listen: 20000 + r.IntN(2), Owner: "o",
			}
			if r.IntN(3) == 0 {
				p.ColdStart = &wire.ColdStart{Detected: int64(r.IntN(2))}
			}
			ports[k] = p
		}
		out := &wire.Report{StartTime: start, Ports: slices.Collect(maps.Values(ports))}
		scrape.SortPorts(out)
		return out
	}
	for range 5000 {
		before := wire.Gateway{Connected: r.IntN(4) > 0, Report: report(float64(r.IntN(5) / 4))}
		after := wire.Gateway{Connected: true, Report: report(0)}
		was := map[key]wire.PortReport{}
		if before.Connected && before.Report.StartTime == 0 {
			for _, p := range before.Report.Ports {
				was[key{p.Namespace, p.Service, p.PortName}] = p
			}
		}
		set := map[types.NamespacedName]bool{}
		for _, p := range after.Report.Ports {
			k := key{p.Namespace, p.Service, p.PortName}
			old, known := was[k]
			delete(was, k)
			same := p
			same.Waiting = 0
			old.Waiting = 0
			if !known || p.Waiting > 0 || !cmp.Equal(same, old) {
				set[types.NamespacedName{Namespace: p.Namespace, Name: p.Service}] = true
			}
		}
		for k := range was {
			set[types.NamespacedName{Namespace: k.namespace, Name: k.service}] = true
		}
		want := map[types.NamespacedName]bool{}
		for _, n := range scrape.Urgent(before, after) {
			if want[n] {
				t.Fatalf("%s is named twice", n)
			}
			want[n] = true
		}
		if d := cmp.Diff(set, want); d != "" {
			t.Fatalf("urgent of %+v after %+v (-want +got):\n%s", after.Report, before.Report, d)
		}
	}
}
