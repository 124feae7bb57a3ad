package sim_test

import (
	"testing"
)

// BenchmarkSimulate is the whole loop with kpa from 1 pod to 100: ten million requests each time.
func BenchmarkSimulate(b *testing.B) {
	requests := 0.0
	for b.Loop() {
		r := run(b, 1, "ramp:from=10,to=10000,duration=2000s", "kpa", "", nil)
		if r.Result.PeakReplicas < 100 {
			b.Fatalf("%d pods at the peak, want 100", r.Result.PeakReplicas)
		}
		requests += float64(r.Result.Requests)
	}
	b.ReportMetric(requests/b.Elapsed().Seconds(), "requests/s")
}
