package sim_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/sim"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

const bursts = "onoff:rate=60,on=40s,off=90s,duration=1h"

// everything turns on what a scenario can have at once.
func everything(t testing.TB) func(*scenario.Scenario) {
	return func(s *scenario.Scenario) {
		s.Service = dist(t, "lognormal:200ms,cv=1.5")
		s.PodConcurrency, s.Knee, s.KneeSlope = 5, 3, 0.5
		s.Startup = scenario.Startup{Schedule: dist(t, "50ms"), Pull: dist(t, "exp:1s"), Start: dist(t, "lognormal:2s,cv=0.5"), Ready: dist(t, "uniform:100ms,400ms")}
		s.StartFailure, s.Termination = 0.1, dist(t, "uniform:1s,3s")
		s.Nodes = &scenario.Nodes{PodsPerNode: 3, Initial: 2, Max: 5, Provision: dist(t, "30s")}
		s.Scrape.Loss = 0.1
		s.HoldRequests, s.PodQueue = 200, 20
		s.HoldTimeout, s.Drain = algorithms.Duration(5*time.Second), algorithms.Duration(500*time.Millisecond)
	}
}

func routed(routing string, edit func(*scenario.Scenario)) func(*scenario.Scenario) {
	return func(s *scenario.Scenario) {
		if edit != nil {
			edit(s)
		}
		s.Routing = routing
	}
}

func routings() []string {
	return []string{scenario.RoutingShared, scenario.RoutingRandom, scenario.RoutingTwo}
}

// The same seed gives the same run to the last bit; another seed another one.
func TestDeterministic(t *testing.T) {
	t.Parallel()
	for _, r := range routings() {
		a, b := run(t, 7, bursts, "kpa", "", routed(r, everything(t))), run(t, 7, bursts, "kpa", "", routed(r, everything(t)))
		if diff := cmp.Diff(a, b); diff != "" {
			t.Errorf("%s: the same seed gives another run:\n%s", r, diff)
		}
		if c := run(t, 8, bursts, "kpa", "", routed(r, everything(t))); c.Result.WaitMean == a.Result.WaitMean {
			t.Errorf("%s: another seed gives the same mean wait %v", r, c.Result.WaitMean)
		}
	}
}

// What must hold of any run whatever happens in it.
func TestInvariants(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"kpa", "hpa", "target", "staffing", "fixed"} {
		for _, routing := range routings() {
			for seed := range uint64(2) {
				t.Run(fmt.Sprintf("%s %s %d", policy, routing, seed), func(t *testing.T) {
					t.Parallel()
					check(t, run(t, seed, bursts, policy, "", routed(routing, everything(t))))
					check(t, run(t, seed, bursts, policy, "", routed(routing, nil)))
				})
			}
		}
	}
}

func check(t *testing.T, r score.Run) {
	t.Helper()
	res := r.Result
	served := int64(0)
	for _, b := range r.Waits {
		served += b.Count
	}
	// A request that a pod had begun to work on and that was lost with it counts as begun and as
	// lost.
	if served+res.Lost < res.Requests {
		t.Errorf("%d requests came, %d began to be served, %d were lost: some are nowhere", res.Requests, served, res.Lost)
	}
	for name, share := range map[string]float64{
		"sloViolations": res.SLOViolations, "coldStartShare": res.ColdStartShare, "tauU": res.TauU, "tauO": res.TauO, "upsilon": res.Upsilon,
	} {
		if !(share >= 0 && share <= 1) {
			t.Errorf("%s = %v: want a share", name, share)
		}
	}
	if !(res.WaitP50 <= res.WaitP90 && res.WaitP90 <= res.WaitP99 && res.WaitP99 <= res.WaitP999 && res.WaitP999 <= res.WaitMax*1.004) {
		t.Errorf("waits are not in order: %+v", res)
	}
	if sum := res.ReadySeconds + res.StartingSeconds + res.TerminatingSeconds; math.Abs(sum-res.PodSeconds) > 1e-6*(1+sum) {
		t.Errorf("podSeconds = %v, its parts sum to %v", res.PodSeconds, sum)
	}
	if res.SlowdownP99 < 1 || res.SlowdownP50 < 1 {
		t.Errorf("slowdown below 1: %+v", res)
	}
	// The series tells of the same run.
	s := r.Series
	arrivals, ready, cold := 0.0, 0.0, 0.0
	for i := range s.Arrivals {
		arrivals += float64(s.Arrivals[i]) * s.Step
		ready += float64(s.Ready[i]) * s.Step
		cold += float64(s.ColdStarts[i])
	}
	if math.Abs(arrivals-float64(res.Requests)) > 1e-3*float64(res.Requests)+1 || math.Abs(ready-res.ReadySeconds) > 1e-3*res.ReadySeconds+1 || cold != float64(res.ColdStarts) {
		t.Errorf("the series has %v arrivals, %v ready seconds and %v cold starts: want %d, %v, %d", arrivals, ready, cold, res.Requests, res.ReadySeconds, res.ColdStarts)
	}
}

// Reading every pod by itself gives the policy what the sum of all gives.
func TestOwnSeries(t *testing.T) {
	t.Parallel()
	for _, routing := range routings() {
		all := run(t, 3, bursts, "kpa", "", routed(routing, nil)).Result
		own := run(t, 3, bursts, "kpa", "", routed(routing, func(s *scenario.Scenario) { s.Scrape.Sample = 1000 })).Result
		if math.Abs(own.PodSeconds/all.PodSeconds-1) > 0.02 || math.Abs(own.WaitMean-all.WaitMean) > 0.1*all.WaitMean+0.001 {
			t.Errorf("%s: pods read one by one: %v pod-seconds and a mean wait of %v; all at once: %v and %v", routing, own.PodSeconds, own.WaitMean, all.PodSeconds, all.WaitMean)
		}
	}
}

// A single request at zero waits for the wake-up and the start, no longer.
func TestColdStart(t *testing.T) {
	t.Parallel()
	r := run(t, 1, "ramp:from=0.001,to=0.0010001,duration=20000s", "kpa", "", func(s *scenario.Scenario) {
		s.InitialReplicas, s.Service = 0, dist(t, "const:100ms")
	}).Result
	want := (2*time.Second + 10*time.Millisecond).Seconds()
	if r.ColdStarts < 10 || math.Abs(r.WaitP50-want) > 0.004*want || r.WakeUps != r.ColdStarts {
		t.Errorf("%d cold starts, %d wake-ups, a median wait of %v s: want more than 10, as many, and %v s", r.ColdStarts, r.WakeUps, r.WaitP50, want)
	}
	if r.Lost != 0 || r.ZeroDemandSeconds <= 0 {
		t.Errorf("lost = %d, zeroDemandSeconds = %v: want none, and some", r.Lost, r.ZeroDemandSeconds)
	}
}

// With one queue before all pods requests wait no longer than with a queue at each, and with the
// lesser of two in between.
func TestRouting(t *testing.T) {
	t.Parallel()
	wait := map[string]float64{}
	for _, r := range routings() {
		wait[r] = run(t, 1, "poisson:rate=80,duration=20000s", "fixed", `{"replicas":10}`, func(s *scenario.Scenario) {
			s.PodConcurrency, s.Routing, s.InitialReplicas = 1, r, 10
		}).Result.WaitMean
	}
	if !(wait[scenario.RoutingShared] < wait[scenario.RoutingTwo] && wait[scenario.RoutingTwo] < wait[scenario.RoutingRandom]) {
		t.Errorf("mean waits %v: want shared < leastOfTwo < random", wait)
	}
	// Random routing to ten servers is ten queues M/M/1 at 0.8: a mean wait of ρ/(1−ρ) × 0.1 s.
	if want := 0.4; math.Abs(wait[scenario.RoutingRandom]/want-1) > 0.03 {
		t.Errorf("random routing: a mean wait of %v, want %v within 3 %%", wait[scenario.RoutingRandom], want)
	}
}

// Where all pods are busy and the nodes are full, new nodes are waited for.
func TestNodes(t *testing.T) {
	t.Parallel()
	r := run(t, 1, "poisson:rate=100,duration=600s", "fixed", `{"replicas":10}`, func(s *scenario.Scenario) {
		s.InitialReplicas, s.Startup = 1, scenario.Startup{Start: dist(t, "1s")}
		s.Nodes = &scenario.Nodes{PodsPerNode: 4, Initial: 1, Max: 2, Provision: dist(t, "60s")}
	})
	last := float64(r.Series.Ready[len(r.Series.Ready)-1])
	if r.Result.PeakReplicas != 10 || last != 8 {
		t.Errorf("%d pods wanted and %v ready at the end: want 10, and 8 on two nodes of 4", r.Result.PeakReplicas, last)
	}
	// Three of nine new pods find a place at once; four more after a minute; two never.
	// The first round comes within two seconds.
	if want := 9.0*1 + 4*60 + 2*600; math.Abs(r.Result.StartingSeconds-want) > 8 {
		t.Errorf("startingSeconds = %v, want about %v", r.Result.StartingSeconds, want)
	}
}

// A pod that is to go works off what it has, for as long as it may.
func TestDrain(t *testing.T) {
	t.Parallel()
	edit := func(drain time.Duration) func(*scenario.Scenario) {
		return func(s *scenario.Scenario) {
			s.Service, s.PodConcurrency, s.InitialReplicas, s.MinReplicas = dist(t, "const:20s"), 100, 4, 1
			s.Drain = algorithms.Duration(drain)
		}
	}
	// Four pods until ten past midnight, one from then on.
	const policy = `{"defaultReplicas":1,"rules":[{"start":"0 0 * * *","end":"10 0 * * *","replicas":4}]}`
	kept := run(t, 1, "poisson:rate=2,duration=20m", "schedule", policy, edit(time.Minute)).Result
	if kept.Lost != 0 || kept.TerminatingSeconds < 1 {
		t.Errorf("a drain of a minute: %d lost, %v terminating seconds: want none, and some", kept.Lost, kept.TerminatingSeconds)
	}
	// Each pod has about ten requests of 20 s at a time: most of what three of them have is lost in
	// a second.
	cut := run(t, 1, "poisson:rate=2,duration=20m", "schedule", policy, edit(time.Second)).Result
	if cut.Lost < 15 || cut.Lost > 45 || cut.TerminatingSeconds > 3.1 {
		t.Errorf("a drain of a second: %d lost, %v terminating seconds: want about 30, and 3", cut.Lost, cut.TerminatingSeconds)
	}
}

// A run ends when it is told to.
func TestCancelled(t *testing.T) {
	t.Parallel()
	src, err := trace.Generate("poisson:rate=1000,duration=1000h")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("enough")
	p, err := catalog.Default().New("kpa", 7, nil)
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	_, err = sim.Run(ctx, sim.Config{Source: src, Scenario: scenario.Default(), Policy: p, Name: "kpa", Progress: func(float64) {
		if calls++; calls == 3 {
			cancel(reason)
		}
	}})
	if !errors.Is(err, reason) {
		t.Errorf("Run = %v, want %v", err, reason)
	}
}
