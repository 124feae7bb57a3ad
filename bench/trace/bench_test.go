package trace_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// BenchmarkRead measures the cost per request, in batches as the simulator reads them.
func BenchmarkRead(b *testing.B) {
	bins := make([]float64, 1000)
	for i := range bins {
		bins[i] = float64(9000 + i)
	}
	t, err := trace.New("bins", time.Minute, bins)
	if err != nil {
		b.Fatal(err)
	}
	sources := map[string]trace.Source{}
	for _, m := range []string{"poisson", "even", "exact", "gamma:cv=0.5", "gamma:cv=4", "weibull:cv=4"} {
		model, err := trace.ParseModel(m)
		if err != nil {
			b.Fatal(err)
		}
		sources["trace/"+m] = t.Source(model)
	}
	for _, g := range trace.Generators() {
		s, err := trace.Generate(example(g))
		if err != nil {
			b.Fatal(err)
		}
		sources["generate/"+g.Name] = s
	}
	for name, s := range sources {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			buf := make([]trace.Request, 512)
			rng := rand.New(rand.NewPCG(1, 2))
			a := s.Open(rng)
			read := 0
			for b.Loop() {
				// One operation is one request: whole batches, 512 operations apart.
				if read > 0 {
					read--
					continue
				}
				read = a.Read(buf) - 1
				if read < 0 {
					a = s.Open(rng)
					read = 0
				}
			}
		})
	}
}
