package wire_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluice-autoscaler/sluice/wire"
)

// TestGatewayPorts compares the index with a scan, for reports in order and in none.
func TestGatewayPorts(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		var r wire.Report
		for n := range rng.IntN(6) {
			for s := range rng.IntN(4) {
				for p := range 1 + rng.IntN(3) {
					r.Ports = append(r.Ports, wire.PortReport{
						Namespace: fmt.Sprint("n", n), Service: fmt.Sprint("s", s), PortName: fmt.Sprint("p", p), Waiting: rng.IntN(5),
					})
				}
			}
		}
		if round%2 == 1 {
			rng.Shuffle(len(r.Ports), func(i, j int) { r.Ports[i], r.Ports[j] = r.Ports[j], r.Ports[i] })
		}
		g := wire.Gateway{Name: "gw"}.WithReport(&r)
		for n := range 7 {
			for s := range 5 {
				namespace, service := fmt.Sprint("n", n), fmt.Sprint("s", s)
				var want []wire.PortReport
				waiting := 0
				for _, p := range r.Ports {
					if p.Namespace == namespace && p.Service == service {
						want, waiting = append(want, p), waiting+p.Waiting
					}
				}
				byName := cmpopts.SortSlices(func(a, b wire.PortReport) bool { return a.PortName < b.PortName })
				if diff := cmp.Diff(want, g.Ports(namespace, service), byName, cmpopts.EquateEmpty()); diff != "" {
					t.Fatalf("Ports(%s, %s) (-want +got):\n%s", namespace, service, diff)
				}
				if got := g.Waiting(namespace, service); got != waiting {
					t.Errorf("Waiting(%s, %s) = %d, want %d", namespace, service, got, waiting)
				}
			}
		}
	}
	if got := (&wire.Gateway{}).Ports("a", "b"); len(got) != 0 {
		t.Errorf("Ports without a report = %v, want none", got)
	}
}
