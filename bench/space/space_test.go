package space_test

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/space"
)

func policy(t testing.TB, spec string) plan.Policy {
	t.Helper()
	p, err := plan.ParsePolicy(catalog.Default(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// scenario has pods that take 10 requests at a time.
func webScenario() *scenario.Scenario {
	s := scenario.Default()
	return &s
}

func searched(t testing.TB, spec string, search ...string) *space.Space {
	t.Helper()
	s, err := space.New(policy(t, spec), webScenario(), search)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSpace(t *testing.T) {
	t.Parallel()
	s := searched(t, "keda:cooldownPeriod=60", "pollingInterval=1..60:log", "target=50%..100%",
		"advanced.horizontalPodAutoscalerConfig.behavior.scaleDown.stabilizationWindowSeconds=0|60", "guard.scaleToZero.after=1m..10m", "tick=5s..1m")
	p, err := s.Policy([]float64{0.5, 0.5, 0.9, 0.5, 0})
	if err != nil {
		t.Fatal(err)
	}
	const params = `{"advanced":{"horizontalPodAutoscalerConfig":{"behavior":{"scaleDown":{"stabilizationWindowSeconds":60}}}},"cooldownPeriod":60,"pollingInterval":8,"target":7.5}`
	if string(p.Params) != params || string(p.Guard) != `{"scaleToZero":{"after":"5m30s"}}` || p.Tick != 5*time.Second {
		t.Errorf("Policy = %s, guard %s, tick %v", p.Params, p.Guard, p.Tick)
	}
	again, err := plan.ParsePolicy(catalog.Default(), p.Label)
	if err != nil || string(again.Params) != string(p.Params) || string(again.Guard) != string(p.Guard) || again.Tick != p.Tick {
		t.Errorf("ParsePolicy(%q) = %+v, %v: want the same policy", p.Label, again, err)
	}
	for _, name := range []string{"kpa", "hpa", "keda", "target", "staffing", "pid", "step", "fixed", "lookahead", "seasonal", "histogram", "portfolio"} {
		s := searched(t, name)
		for i := range 50 {
			at := make([]float64, len(s.Dimensions()))
			for k := range at {
				at[k] = float64((i*(k+3)*7919)%1000) / 999
			}
			if p, err := s.Policy(at); err != nil {
				t.Errorf("%s: default ranges at %v: %v", name, at, err)
			} else if _, err := plan.ParsePolicy(catalog.Default(), p.Label); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for _, c := range []struct{ policy, search, want string }{
		{"kpa", "stabelWindow=6s..10m", "stabelWindow"},
		{"kpa", "stableWindow=1s..10m", "stableWindow"},
		{"kpa", "stableWindow=1..10", "stableWindow"},
		{"kpa", "panicWindowPercentage.x=1..10", "panicWindowPercentage"},
		{"schedule", "", "no default ranges"},
		{"kpa", "guard.scaleToZero.before=1s|2s", "before"},
	} {
		var ranges []string
		if c.search != "" {
			ranges = []string{c.search}
		}
		if _, err := space.New(policy(t, c.policy), webScenario(), ranges); err == nil || !contains(err, c.want) {
			t.Errorf("NewSpace(%s, %q) = %v, want it to name %s", c.policy, c.search, err, c.want)
		}
	}
}

func TestParseDimension(t *testing.T) {
	t.Parallel()
	for _, spec := range []string{"a=1..2", "a=0.1..2:log", "a=6s..10m:log", "a=1..9:whole", "a=30%..95%", "a=x|y", `a.b={"c":1}|null`, "a=1d..2d"} {
		if d, err := space.ParseDimension(spec); err != nil || d.String() != spec {
			t.Errorf("ParseDimension(%q) = %s, %v", spec, d.String(), err)
		}
	}
	for _, c := range []struct{ spec, want string }{
		{"a", "want NAME=LOW..HIGH"},
		{"=1..2", "want NAME"},
		{"a=", "want NAME"},
		{"a..b=1..2", "single dots"},
		{"a=2..1", "lower bound first"},
		{"a=1..2s", "both"},
		{"a=0..2:log", "above 0"},
		{"a=1..2:cubic", "want log or whole"},
		{"a=1.5..3:whole", "whole numbers"},
		{"a=x..y", "want a number, a duration"},
		{"a=1|1", "twice"},
		{"a=1", "want 2–100"},
		{"a=1||2", "empty value"},
		{"a=NaN..1", "want a number"},
	} {
		if _, err := space.ParseDimension(c.spec); err == nil || !contains(err, c.want) {
			t.Errorf("ParseDimension(%q) = %v, want %q", c.spec, err, c.want)
		}
	}
}

// FuzzParseDimension: what is read can be written and read again, and every value of a policy's own
// range is accepted by the policy.
func FuzzParseDimension(f *testing.F) {
	for _, s := range []string{"stableWindow=6s..10m:log", "target=30%..95%", "panicThresholdPercentage=110|200|400", "a=1..2:whole", "a=1e-300..1e300:log"} {
		f.Add(s, 0.3)
	}
	f.Fuzz(func(t *testing.T, spec string, u float64) {
		d, err := space.ParseDimension(spec)
		if err != nil {
			return
		}
		again, err := space.ParseDimension(d.String())
		if err != nil || !reflect.DeepEqual(d, again) {
			t.Fatalf("%q reads as %q, which reads as %q, %v", spec, d.String(), again.String(), err)
		}
		s, err := space.New(policy(t, "kpa"), webScenario(), []string{spec})
		if err != nil || math.IsNaN(u) {
			return
		}
		if p, err := s.Policy([]float64{u}); err != nil {
			t.Fatalf("%q at %v: %v (%s)", spec, u, err, p.Label)
		}
	})
}

func contains(err error, part string) bool { return strings.Contains(err.Error(), part) }
