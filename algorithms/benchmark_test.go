package algorithms_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/guard"
)

// BenchmarkPolicies runs every policy of the catalog, bare and guarded, without explanation:
// decisions per second, and allocations, of a workload whose load goes up and down.
func BenchmarkPolicies(b *testing.B) {
	for _, e := range catalog.Default().All() {
		for _, guarded := range []bool{false, true} {
			name := e.Name
			if guarded {
				name += "+guard"
			}
			b.Run(name, func(b *testing.B) {
				var params json.RawMessage
				if e.Name == "schedule" { // by default it has no rules
					params = json.RawMessage(`{"rules":[{"name":"day","start":"0 8 * * 1-5","end":"0 18 * * 1-5","replicas":10}]}`)
				}
				p, err := e.New(10, params)
				if err != nil {
					b.Fatal(err)
				}
				if guarded {
					if p, err = guard.New(guard.Default(), p); err != nil {
						b.Fatal(err)
					}
				}
				o := algorithms.Observation{
					Now: time.Unix(1_000_000, 0), Quiet: true, Limits: algorithms.Limits{Max: 50},
					Replicas: algorithms.Replicas{Current: 10, Ready: 10},
				}
				for _, n := range p.Needs() {
					o.Signals = append(o.Signals, algorithms.Signal{Name: n.Name, Window: n.Window, Known: true, Coverage: 1})
				}
				load := [...]float64{100, 120, 90, 250, 40, 100, 10, 180}
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					o.Now = o.Now.Add(2 * time.Second)
					for j := range o.Signals {
						o.Signals[j].Value = load[i%len(load)]
					}
					if d := p.Decide(o); d.Valid {
						o.Replicas.Current, o.Replicas.Ready = d.Replicas, d.Replicas
					}
					i++
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
			})
		}
	}
}
