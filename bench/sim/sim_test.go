package sim_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/sim"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// run simulates a policy on a generator's arrivals.
func run(t testing.TB, seed uint64, generator, name, params string, edit func(*scenario.Scenario)) score.Run {
	t.Helper()
	src, err := trace.Generate(generator)
	if err != nil {
		t.Fatal(err)
	}
	sc := scenario.Default()
	if edit != nil {
		edit(&sc)
	}
	p, err := catalog.Default().New(name, sc.PerPod(), json.RawMessage(params))
	if err != nil {
		t.Fatal(err)
	}
	r, err := sim.Run(t.Context(), sim.Config{Source: src, Scenario: sc, Policy: p, Name: name, Seed: seed, Points: 200})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func dist(t testing.TB, spec string) scenario.Dist {
	t.Helper()
	d, err := scenario.ParseDist(spec)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// queue makes the scenario a plain queueing system: servers of one slot that are there from the
// start.
func queue(t testing.TB, service string, servers int) func(*scenario.Scenario) {
	return func(s *scenario.Scenario) {
		s.Service, s.PodConcurrency, s.Startup = dist(t, service), 1, scenario.Startup{}
		s.InitialReplicas, s.MaxReplicas = servers, max(servers, 1)
		s.HoldRequests, s.HoldTimeout = 10_000_000, algorithms.Duration(24*time.Hour)
	}
}
