package live_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/bench/live"
	"github.com/sluice-autoscaler/sluice/bench/load"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
)

const second = time.Second

// seen is a workload that wakes at 10 s for a request, gets a second pod at 20 s, and ends both.
func seen() live.Observations {
	pod := func(name string, created, ready, ending, gone time.Duration) live.Pod {
		return live.Pod{Name: name, Steps: []live.Step{
			{At: created, State: live.Created},
			{At: created + second/2, State: live.Scheduled},
			{At: ready, State: live.Ready},
			{At: ending, State: live.Ending},
			{At: gone, State: live.Gone},
		}}
	}
	answered := func(at, wait, work time.Duration) load.Record {
		return load.Record{Intended: at, Sent: at, Done: at + wait + work, Work: work, Status: 200}
	}
	lost := answered(32*second, 0, second)
	lost.Cause = load.CauseTimeout
	aborted := answered(33*second, 0, second)
	aborted.Cause = load.CauseAborted
	return live.Observations{
		Requests: []load.Record{answered(10*second, 4*second, 2*second), answered(12*second, 2*second, second), answered(30*second, 0, second), lost, aborted},
		Cluster: &live.Cluster{
			Pods: []live.Pod{
				pod("a", 11*second, 15*second, 50*second, 54*second),
				pod("b", 20*second, 25*second, 40*second, 44*second),
				pod("before", -20*second, -15*second, -5*second, 2*second),
			},
			Wanted: []live.Count{{At: -5 * second, Replicas: 0}, {At: 10500 * time.Millisecond, Replicas: 1}, {At: 20 * second, Replicas: 2}, {At: 40 * second, Replicas: 1}, {At: 50 * second, Replicas: 0}, {At: 70 * second, Replicas: 1}},
		},
	}
}

func webScenario() *scenario.Scenario {
	s := scenario.Default()
	s.Name, s.PodConcurrency, s.ElasticityStep = "test", 2, algorithms.Duration(5*second)
	return &s
}

func TestRun(t *testing.T) {
	t.Parallel()
	got := live.Run(live.Config{Policy: "kpa live", Trace: "x", Scenario: webScenario(), Seed: 3, Length: 60 * second, Points: 6}, seen())
	want := score.Result{
		Policy: "kpa live", Trace: "x", Scenario: "test", Seed: 3, Length: 60, Requests: 4, Lost: 1,
		WaitMean: 2, WaitP50: 2, WaitP90: 4, WaitP99: 4, WaitP999: 4, WaitMax: 4, SlowdownP50: 3, SlowdownP99: 3,
		SLOViolations: 0.75, ColdStarts: 2, ColdStartShare: 0.5, WakeUps: 1, Starts: 2,
		ReadySeconds: 35 + 15, StartingSeconds: 4 + 5, TerminatingSeconds: 4 + 4 + 2, PodSeconds: 69,
		WorkSeconds: 2.5, IdleSeconds: 47.5, Cost: 69, Changes: 4, Reversals: 1, PeakReplicas: 2,
	}
	options := cmp.Options{cmpopts.EquateApprox(0.004, 1e-9), cmpopts.IgnoreFields(score.Result{}, "ThetaU", "ThetaO", "TauU", "TauO", "Upsilon", "ZeroDemandSeconds")}
	if diff := cmp.Diff(want, got.Result, options); diff != "" {
		t.Errorf("Run (-want +got):\n%s", diff)
	}
	s := got.Series
	if s.Step != 10 || len(s.Ready) != 6 {
		t.Fatalf("%d rows of %v s, want 6 of 10", len(s.Ready), s.Step)
	}
	for name, x := range map[string]struct{ got, want []float32 }{
		"arrivals":   {s.Arrivals, []float32{0, .2, 0, .2, 0, 0}},
		"ready":      {s.Ready, []float32{0, .5, 1.5, 2, 1, 0}},
		"starting":   {s.Starting, []float32{0, .4, .5, 0, 0, 0}},
		"wanted":     {s.Wanted, []float32{0, .95, 2, 2, 1, 0}},
		"waiting":    {s.Waiting, []float32{0, .6, 0, 0, 0, 0}},
		"cold":       {s.ColdStarts, []float32{0, 2, 0, 0, 0, 0}},
		"violations": {s.Violations, []float32{0, 2, 0, 1, 0, 0}},
		"longest":    {s.WaitMax, []float32{0, 4, 0, 0, 0, 0}},
	} {
		if diff := cmp.Diff(x.want, x.got, cmpopts.EquateApprox(0, 1e-5)); diff != "" {
			t.Errorf("series of %s (-want +got):\n%s", name, diff)
		}
	}
	if len(got.Decisions) != 4 || got.Decisions[0].To != 1 || got.Decisions[3].T != 50 {
		t.Errorf("changes %+v, want four within the length", got.Decisions)
	}
}

// Without a look at the pods there is nothing of them, and no request is cold.
func TestRunUnwatched(t *testing.T) {
	t.Parallel()
	s := seen()
	s.Cluster = nil
	r := live.Run(live.Config{Scenario: webScenario(), Length: 60 * second}, s).Result
	if r.PodSeconds != 0 || r.ColdStarts != 0 || r.Requests != 4 || r.WaitMax != 4 {
		t.Errorf("Run = %+v, want four requests and no pods", r)
	}
	for _, l := range live.Compare(r, r, false) {
		if strings.Contains(l.Name, "pod") || l.Name == "cold starts" {
			t.Errorf("unwatched, %s is compared", l.Name)
		}
	}
}

func TestRecorder(t *testing.T) {
	t.Parallel()
	var r live.Recorder
	start := time.Unix(1000, 0)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * second) }
	r.Wanted(at(-9), 3)
	r.Wanted(at(-3), 0)
	r.Wanted(at(4), 0)
	r.Pod(at(-9), "old", "old", live.Ready)
	r.Pod(at(-1), "old", "old", live.Gone)
	for s, state := range []live.State{live.Created, live.Created, live.Scheduled, live.Ready, live.Started, live.Ready, live.Ending, live.Ready, live.Gone, live.Gone} {
		r.Pod(at(s), "a", "web-a", state)
	}
	r.Pod(at(5), "never seen", "x", live.Gone)
	r.Wanted(at(5), 1)
	want := &live.Cluster{
		Pods: []live.Pod{{Name: "web-a", Steps: []live.Step{
			{0, live.Created}, {2 * second, live.Scheduled}, {3 * second, live.Ready}, {4 * second, live.Unready}, {5 * second, live.Ready}, {6 * second, live.Ending}, {8 * second, live.Gone},
		}}},
		Wanted: []live.Count{{-3 * second, 0}, {5 * second, 1}},
	}
	if diff := cmp.Diff(want, r.Cluster(start)); diff != "" {
		t.Errorf("Cluster (-want +got):\n%s", diff)
	}
}

func TestMeasure(t *testing.T) {
	t.Parallel()
	p := live.Measure(seen())
	want := live.Phases{
		Woken: []time.Duration{second / 2}, Created: []time.Duration{0, second / 2}, Ready: []time.Duration{4 * second, 5 * second},
		Answered: []time.Duration{second}, Ended: []time.Duration{4 * second, 4 * second, 7 * second}, Overhead: []time.Duration{0},
	}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("Measure (-want +got):\n%s", diff)
	}
	s := scenario.Default()
	if err := p.Apply(&s, 3*second); err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(); err != nil {
		t.Errorf("the scenario is not valid any more: %v", err)
	}
	got := map[string]any{
		"wakeDelay": time.Duration(s.WakeDelay), "lameDuck": time.Duration(s.LameDuck), "start": s.Startup.Start.Mean(), "announce": s.Startup.Announce.Mean(),
		"schedule": s.Startup.Schedule.Mean(), "termination": s.Termination.Mean(),
	}
	wanted := map[string]any{
		"wakeDelay": second / 2, "lameDuck": 3 * second, "start": 3500 * time.Millisecond, "announce": second,
		"schedule": second / 4, "termination": 2 * second,
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("Apply (-want +got):\n%s", diff)
	}
}

func TestRatio(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ simulated, seen, want float64 }{{0, 0, 1}, {3, 2, 1.5}, {1, 0, math.Inf(1)}} {
		if got := (live.Line{Simulated: x.simulated, Live: x.seen}).Ratio(); got != x.want {
			t.Errorf("Ratio of %v and %v = %v, want %v", x.simulated, x.seen, got, x.want)
		}
	}
}
