// Package replay sends a load to a live workload, records what comes of it, and simulates the same
// requests beside it.
package replay

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/live"
	"github.com/sluice-autoscaler/sluice/bench/load"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/summary"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// Watch follows the pods of the workload into rec. It returns once the present state is known; stop
// ends it and waits.
type Watch func(ctx context.Context, rec *live.Recorder) (stop func(), err error)

// Replay is a load that is sent live.
type Replay struct {
	Source   trace.Source
	Scenario scenario.Scenario
	// Seed makes arrivals and work, those that a simulation with the same seed has.
	Seed uint64
	// Policy is simulated on the same requests; nil is none.
	Policy *plan.Policy
	// Template makes the requests, Load says how they are sent. MaxRequests bounds how many are.
	Template    load.Template
	Load        load.Config
	MaxRequests int
	// Watch may be nil: then nothing is known of pods.
	Watch Watch
	// Points bounds the rows of a run's series; Explain records a sentence with each simulated
	// change.
	Points  int
	Explain bool
	// Stderr gets progress.
	Stderr io.Writer
}

// Label is what results call the live run.
func (r *Replay) Label() string {
	if r.Policy != nil {
		return r.Policy.Label + " live"
	}
	return "live"
}

// Outcome is what a replay sent and saw.
type Outcome struct {
	Seen live.Observations
	// Runs are the live run and, where there is a policy, the simulated one.
	Runs  summary.Runs
	Notes []string
}

// Run sends the load, and simulates afterwards. When it is interrupted, the outcome holds what was
// sent until then, and early says so; an outcome that is nil comes with err.
func (r *Replay) Run(ctx context.Context) (outcome *Outcome, early, err error) {
	seen, took, notes, err := r.send(ctx)
	if err != nil {
		return nil, nil, err
	}
	length := r.Source.Length()
	if ctx.Err() != nil { // what was sent until then is still worth a record
		early = fmt.Errorf("replay: stopped after %v of %v: %w", took.Round(time.Millisecond), length, context.Cause(ctx))
		length = min(length, took)
		notes = append(notes, "It ended early: "+early.Error())
	}
	outcome = &Outcome{Seen: seen, Notes: notes, Runs: summary.Runs{live.Run(live.Config{
		Policy: r.Label(), Trace: r.Source.Name(), Scenario: &r.Scenario, Seed: r.Seed, Length: max(length, 1), Points: r.Points,
	}, seen)}}
	if r.Policy == nil || early != nil {
		return outcome, early, nil
	}
	run, err := r.simulate(ctx, seen)
	if err != nil {
		return nil, nil, err
	}
	outcome.Runs = append(outcome.Runs, run)
	return outcome, nil, nil
}

// simulate runs the simulator on the same requests, beginning with as many pods as the cluster had.
func (r *Replay) simulate(ctx context.Context, seen live.Observations) (score.Run, error) {
	s := r.Scenario
	if seen.Cluster != nil {
		s.InitialReplicas = seen.Cluster.ReadyAtStart()
		s.MaxReplicas = max(s.MaxReplicas, s.InitialReplicas)
	}
	job := plan.Job{Source: r.Source, Scenario: s, Policy: *r.Policy, Seed: r.Seed}
	return job.Run(ctx, plan.Options{Points: r.Points, Explain: r.Explain}, nil)
}

// send sends the load, and returns what was seen and how long that took.
func (r *Replay) send(ctx context.Context) (seen live.Observations, took time.Duration, notes []string, err error) {
	g, err := load.New(r.Load)
	if err != nil {
		return seen, 0, nil, err
	}
	defer g.Close()
	rec := &live.Recorder{}
	stop := func() {}
	if r.Watch != nil {
		if stop, err = r.Watch(ctx, rec); err != nil {
			return seen, 0, nil, err
		}
	}
	if !r.Template.TellsWork() {
		notes = append(notes, "The URL does not say how long to work, so work counts as 0 and waits are whole latencies.")
	}
	calls := r.Template.Calls(scenario.Requests(r.Source, &r.Scenario, r.Seed), r.MaxRequests, func() {
		notes = append(notes, fmt.Sprintf("There were more than --max-requests = %d requests; the rest was not sent.", r.MaxRequests))
	})
	var progress sync.WaitGroup
	sending, done := context.WithCancel(ctx)
	progress.Go(func() { r.tell(sending, g, rec) })
	result := g.Follow(ctx, r.Source.Length(), calls)
	took = time.Since(result.Start)
	done()
	progress.Wait()
	stop()
	seen = live.Observations{Start: result.Start, Requests: result.Records}
	if r.Watch != nil {
		seen.Cluster = rec.Cluster(result.Start)
	}
	s := result.Summary()
	fmt.Fprintf(r.Stderr, "%v in %v\n", s, took.Round(time.Millisecond))
	if s.Lost > 0 && s.Lost == s.Sent && !answered(s.Causes) {
		return seen, took, notes, fmt.Errorf("replay to %s: no request of %d was answered (%v)", r.Load.URL, s.Sent, s)
	}
	if s.Late > 0 {
		notes = append(notes, fmt.Sprintf("%d of %d requests left more than %v after their instant: the sender was short of time or of places, and the waits include that.",
			s.Late, s.Sent, load.LateAfter))
	}
	return seen, took, notes, nil
}

// answered reports whether some loss was an answer, if a bad one.
func answered(causes map[string]int) bool {
	for cause := range causes {
		if strings.HasPrefix(cause, "status") {
			return true
		}
	}
	return false
}

// tell says every five seconds how far it is.
func (r *Replay) tell(ctx context.Context, g *load.Generator, rec *live.Recorder) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	begun, length := time.Now(), r.Source.Length()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		pods := ""
		if r.Watch != nil {
			pods = fmt.Sprintf(", %d pods ready", rec.Ready())
		}
		c, took := g.Counts(), time.Since(begun)
		fmt.Fprintf(r.Stderr, "%3.0f %% of %v: %d sent, %d in flight, %d lost, %d late%s\n",
			min(100, 100*took.Seconds()/length.Seconds()), length, c.Sent, c.InFlight, c.Lost, c.Late, pods)
	}
}

// Compare writes the simulated run beside the live one, if there are both.
func (r *Replay) Compare(w io.Writer, o *Outcome) error {
	if len(o.Runs) < 2 {
		return nil
	}
	fmt.Fprintln(w)
	return live.Text(w, live.Compare(o.Runs[1].Result, o.Runs[0].Result, r.Watch != nil))
}

// CheckLoopback refuses a URL whose host is not this machine.
func CheckLoopback(ctx context.Context, address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return fmt.Errorf("find %s: %w", u.Hostname(), err)
	}
	for _, a := range addresses {
		if !a.Unmap().IsLoopback() {
			return fmt.Errorf("%s is %v, not this machine: load goes to others only with --i-own-this-host", u.Hostname(), a.Unmap())
		}
	}
	return nil
}
