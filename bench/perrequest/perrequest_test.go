package perrequest_test

import (
	"math"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/bench/perrequest"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// The published run of SimFaaS (pacslab/simfaas README): λ = 0.9, exponential service of 1.991 s
// warm and 2.244 s cold, an idle expiry of 600 s over 10⁶ s gives 0.14 % cold requests, 7.6612
// servers, 1.7879 running, a lifespan of 6335 s.
func TestSimFaaS(t *testing.T) {
	t.Parallel()
	src, err := trace.Generate("poisson:rate=0.9,duration=1000000s")
	if err != nil {
		t.Fatal(err)
	}
	sc := scenario.Default()
	sc.Service = dist(t, "exp:1991ms")
	cold := dist(t, "exp:2244ms")
	const seeds = 10
	var servers, running, share, life float64
	for seed := range uint64(seeds) {
		r, err := perrequest.Run(t.Context(), perrequest.Config{Source: src, Scenario: sc, Seed: seed + 1},
			perrequest.Params{KeepAlive: algorithms.Duration(10 * time.Minute), ColdService: &cold})
		if err != nil {
			t.Fatal(err)
		}
		res := r.Result
		servers += res.PodSeconds / res.Length / seeds
		running += (res.PodSeconds - res.IdleSeconds) / res.Length / seeds
		share += res.ColdStartShare / seeds
		life += res.PodSeconds / float64(res.Starts) / seeds
	}
	t.Logf("servers %.4f, running %.4f, cold %.5f, lifespan %.0f s", servers, running, share, life)
	near := func(name string, got, want, within float64) {
		if math.Abs(got/want-1) > within {
			t.Errorf("%s = %v, want %v within %v", name, got, want, within)
		}
	}
	near("servers", servers, 7.6612, 0.015)
	near("running", running, 1.7879, 0.015)
	// One published run tells rare events to about 3 % (1213 cold requests), and the lifespan
	// likewise.
	near("cold share", share, 0.00135, 0.05)
	near("lifespan", life, 6335.1, 0.05)
}

func dist(t testing.TB, spec string) scenario.Dist {
	t.Helper()
	d, err := scenario.ParseDist(spec)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
