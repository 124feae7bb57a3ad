package sim

import (
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/algorithms/loop/looptest"
	"github.com/sluice-autoscaler/sluice/bench/event"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// shell is a run's engine that sees a test's views instead of its own world.
type shell struct{ e *engine }

func (s shell) Needs() []algorithms.Need { return s.e.loop.Needs() }

// Round returns what was done to the engine, which is what the loop commanded if the shell is
// right.
func (s shell) Round(v loop.View, fault error) loop.Commands {
	e := s.e
	e.now = int64(v.Now.Sub(looptest.Epoch()))
	if fault != nil { // nothing can fail in a simulation
		c := e.loop.Step(v)
		e.loop.Done(v.Now, c, fault)
		return c
	}
	e.wanted = v.Replicas
	if v.Path != nil {
		e.inPath = v.Path.In
	}
	c := e.step(v)
	done := loop.Commands{Next: c.Next, Record: c.Record}
	if e.wanted != v.Replicas {
		n := e.wanted
		done.Scale = &n
	}
	if c.Path != nil {
		done.Path = &loop.PathState{In: e.inPath, Failure: c.Path.Failure}
	}
	return done
}

func openSimulator(t *testing.T, s loop.Spec, timing loop.Timing) looptest.Shell {
	t.Helper()
	l, err := loop.New(s, catalog.Default(), timing)
	if err != nil {
		t.Fatal(err)
	}
	src, err := trace.Generate("poisson:rate=1,duration=1h")
	if err != nil {
		t.Fatal(err)
	}
	c := &Config{Source: src, Scenario: scenario.Default(), Seed: 1, Start: looptest.Epoch()}
	return shell{newEngine(c, l)}
}

func openLoop(t *testing.T, s loop.Spec, timing loop.Timing) looptest.Shell {
	t.Helper()
	l, err := loop.New(s, catalog.Default(), timing)
	if err != nil {
		t.Fatal(err)
	}
	return looptest.Bare{Loop: l}
}

// TestScenarios runs the loop's scenarios in the simulator: the same file, the same answers.
func TestScenarios(t *testing.T) {
	t.Parallel()
	looptest.Scenarios(t, "../../algorithms/loop/looptest/testdata", openSimulator)
}

// TestSameAsTheLoop runs random histories in the simulator and beside it.
func TestSameAsTheLoop(t *testing.T) {
	t.Parallel()
	looptest.Same(t, 100, 100, openLoop, openSimulator)
}

// TestViewOfTheWorld checks what a round sees: pods by state with their ages, and the path.
func TestViewOfTheWorld(t *testing.T) {
	t.Parallel()
	e := openSimulator(t, loop.Spec{ServiceRef: &loop.ServiceRef{Name: "web"}, MaxReplicas: 5}, loop.DefaultTiming()).(shell).e
	e.now = int64(time.Second)
	e.scale(2, &loop.Record{})
	e.becomeReady(e.live[0])
	e.now = int64(4 * time.Second)
	e.holdIt(event.Waiting{At: e.now, Work: 1}, false)
	v := e.view()
	if len(v.Instances) != 2 || v.Instances[0].State != algorithms.PodReady || v.Instances[1].State != algorithms.PodStarting ||
		v.Now.Sub(v.Instances[1].Created) != 3*time.Second || v.Instances[0].ID == v.Instances[1].ID {
		t.Errorf("instances %+v, want one ready and one that starts for 3 s", v.Instances)
	}
	if p := v.Path; v.Replicas != 2 || p.Ready != 1 || p.Waiting != 1 || p.Listening != e.sc.Gateways || p.In {
		t.Errorf("%d replicas, path %+v; want 2, one ready, one waiting", v.Replicas, p)
	}
}
