// Package histogram decides when the last pod goes and when it comes back, by the idle times seen: the hybrid histogram of "Serverless in the Wild".
// Above zero pods it leaves the count to a target rule.
//
//	idle time  from the end of demand to the next demand, in bins of a minute over four hours, and a count of longer ones
//	head, tail the 5th percentile rounded down and the 99th rounded up to a bin, with a margin of a tenth
//	demand     the target rule, at least one pod
//	idle       no pod before 0.9·head less the start-up time, one pod until 1.1·tail, none after; head in the first bin: one pod until 1.1·tail
//
// The histogram counts once it holds minCount idle times and is not flat (CV of its counts ≥ 2); before, the pod stays for the whole range. Where most
// idle times are longer than the range their mean stands for a forecast, and the pod is there from 0.85 to 1.15 of it (the paper's ARIMA is left out).
// In all cases no idle time costs more than one cold start (ski rental), so that the cost is at most twice the least possible, plus what waiting
// for a pre-warm that was in vain costs.
//
// Sources: Shahrad et al., "Serverless in the Wild", USENIX ATC'20, §4; Karlin et al. 1988 (package keepalive).
package histogram

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/keepalive"
	"github.com/sluice-autoscaler/sluice/algorithms/memory"
	"github.com/sluice-autoscaler/sluice/algorithms/target"
)

// Config holds the parameters.
type Config struct {
	// Target is the concurrency that one pod should carry, in requests, > 0, above zero pods; Window the averaging time there, 1s–1h.
	Target float64             `json:"target"`
	Window algorithms.Duration `json:"window"`
	// Activity is the window over which concurrency above 0 is demand, 1s–1m.
	Activity algorithms.Duration `json:"activity"`
	// Bin is the length of a bin, 1s–1h; Range the longest idle time that is told apart, of 2–1440 whole bins.
	Bin   algorithms.Duration `json:"bin"`
	Range algorithms.Duration `json:"range"`
	// Head and Tail are the percentiles, as shares in [0, 1], Head < Tail; a lower head and a higher tail keep the pod longer.
	Head float64 `json:"head"`
	Tail float64 `json:"tail"`
	// Margin widens both, 0–1.
	Margin float64 `json:"margin"`
	// MinCV is the coefficient of variation of the counts from which they represent something, 0–100.
	MinCV float64 `json:"minCV"`
	// MinCount is how many idle times must be known, 1–1000. The CV alone passes a single one.
	MinCount int `json:"minCount"`
	// OutOfBounds is the share of idle times beyond the range from which on their mean is the forecast, 0–1.
	OutOfBounds float64 `json:"outOfBounds"`
	// ColdStartCost is what a cold start costs, in pod-seconds, 0–864000; observed costs override it. It is the longest keep-alive time.
	ColdStartCost float64 `json:"coldStartCost"`
	// StartUp is how long a pod takes to be ready while no start was measured, 0s–1h.
	StartUp algorithms.Duration `json:"startUp"`
}

// Default returns the paper's constants, at least ten idle times, and a cold start worth the ten minutes for which clouds keep idle
// instances by default; Target is the caller's.
func Default() Config {
	return Config{
		Target: 70, Window: algorithms.Duration(30 * time.Second), Activity: algorithms.Duration(2 * time.Second),
		Bin: algorithms.Duration(time.Minute), Range: algorithms.Duration(4 * time.Hour), Head: 0.05, Tail: 0.99, Margin: 0.1,
		MinCV: 2, MinCount: 10, OutOfBounds: 0.5, ColdStartCost: 600, StartUp: algorithms.Duration(10 * time.Second),
	}
}

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	bad := func(ok bool, name string, value any, want string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s = %v: want %s", name, value, want))
		}
	}
	share := func(v float64) bool { return v >= 0 && v <= 1 }
	within := func(d algorithms.Duration, lo, hi time.Duration) bool {
		return time.Duration(d) >= lo && time.Duration(d) <= hi
	}
	bad(algorithms.Finite(c.Target) && c.Target > 0, "target", c.Target, "a finite number > 0 (requests per pod)")
	bad(within(c.Window, time.Second, time.Hour), "window", time.Duration(c.Window), "1s–1h")
	bad(within(c.Activity, time.Second, time.Minute), "activity", time.Duration(c.Activity), "1s–1m")
	ok := within(c.Bin, time.Second, time.Hour)
	bad(ok, "bin", time.Duration(c.Bin), "1s–1h")
	bad(!ok || c.Range%c.Bin == 0 && c.Range/c.Bin >= 2 && c.Range/c.Bin <= 1440, "range", time.Duration(c.Range), "2–1440 whole bins")
	bad(share(c.Head) && c.Head < c.Tail, "head", c.Head, "a share in [0, 1] below tail")
	bad(share(c.Tail), "tail", c.Tail, "a share in [0, 1]")
	bad(share(c.Margin), "margin", c.Margin, "0–1")
	bad(c.MinCV >= 0 && c.MinCV <= 100, "minCV", c.MinCV, "0–100")
	bad(c.MinCount >= 1 && c.MinCount <= 1000, "minCount", c.MinCount, "1–1000")
	bad(share(c.OutOfBounds), "outOfBounds", c.OutOfBounds, "0–1")
	bad(c.ColdStartCost >= 0 && c.ColdStartCost <= 864000, "coldStartCost", c.ColdStartCost, "0–864000 (pod-seconds)")
	bad(within(c.StartUp, 0, time.Hour), "startUp", time.Duration(c.StartUp), "0s–1h")
	return errors.Join(errs...)
}

// Policy decides as the package says. It is not safe for concurrent use.
type Policy struct {
	cfg   Config
	idle  *Idle
	above *target.Policy
	state state
}

type state struct {
	// LastDemand is when there was demand last; Seen the last observation.
	LastDemand time.Time `json:"lastDemand,omitzero"`
	Seen       time.Time `json:"seen,omitzero"`
	// Idle and Target are for snapshots only.
	Idle   IdleState       `json:"idle"`
	Target json.RawMessage `json:"target,omitempty"`
}

const version = 1

// New returns a policy with a validated Config.
func New(c Config) (*Policy, error) {
	idle, err := NewIdle(c)
	if err != nil {
		return nil, err
	}
	t := target.Default()
	t.Target, t.Window = c.Target, c.Window
	above, err := target.New(t)
	if err != nil {
		return nil, fmt.Errorf("the target rule: %w", err)
	}
	return &Policy{cfg: c, idle: idle, above: above}, nil
}

// Needs names concurrency over both windows.
func (p *Policy) Needs() []algorithms.Need {
	needs := p.above.Needs()
	if p.cfg.Activity != p.cfg.Window {
		needs = append(needs, algorithms.Need{Name: algorithms.Concurrency, Window: time.Duration(p.cfg.Activity)})
	}
	return needs
}

// Learns names concurrency.
func (p *Policy) Learns() []string { return []string{algorithms.Concurrency} }

// Learn takes in past concurrency: its stretches of zero are idle times.
func (p *Policy) Learn(history []algorithms.Sample) error {
	if err := algorithms.CheckHistory(history, p.state.Seen); err != nil {
		return err
	}
	for _, s := range history {
		if s.Signal == algorithms.Concurrency {
			p.see(s.At, s.Value > 0, 0)
		}
	}
	return nil
}

// see keeps the book of idle times. What is no longer than least is no idle time.
func (p *Policy) see(now time.Time, active bool, least time.Duration) {
	s := &p.state
	if s.Seen.IsZero() && !active {
		s.LastDemand = now // since when it was idle is unknown: from now on, then
	}
	if active {
		if it := now.Sub(s.LastDemand); !s.LastDemand.IsZero() && now.Sub(s.Seen) < it && it > least {
			p.idle.Add(it)
		}
		s.LastDemand = now
	}
	s.Seen = now
}

// Decide answers one observation.
func (p *Policy) Decide(o algorithms.Observation) algorithms.Decision {
	c, s := &p.cfg, &p.state
	i := o.Index(algorithms.Concurrency, time.Duration(c.Activity))
	d := p.above.Decide(o)
	if i < 0 || o.Signals[i].Value < 0 || !d.Valid {
		d = algorithms.Decision{Reason: "NoData"}
		if !o.Quiet {
			d.Message = fmt.Sprintf("concurrency over %s or %s is unknown", time.Duration(c.Activity), time.Duration(c.Window))
		}
		return d
	}
	active := o.Signals[i].Value > 0
	p.see(o.Now, active, 2*time.Duration(c.Activity))
	start := time.Duration(c.StartUp)
	if o.StartUp.Samples > 0 {
		start = min(o.StartUp.P90, time.Hour)
	}
	cold := c.ColdStartCost
	if o.Cost.PodSecond > 0 && o.Cost.ColdStart > 0 {
		cold = min(o.Cost.ColdStart/o.Cost.PodSecond, 864000)
	}
	r := p.idle.Rule(keepalive.BreakEven(1, cold))
	idle := o.Now.Sub(s.LastDemand)
	back, gone := max(r.PreWarm-start, 0), r.PreWarm+r.KeepAlive
	switch {
	case active:
		d.Replicas = max(d.Replicas, 1)
	case d.Replicas > 1:
	case idle < back:
		d.Replicas, d.Reason, d.Next = 0, "Unloaded", back-idle
	case idle < gone:
		d.Replicas, d.Reason, d.Next = 1, "KeptAlive", gone-idle
		if r.PreWarm > 0 {
			d.Reason = "PreWarmed"
		}
	default:
		d.Replicas, d.Reason = 0, "Idle"
	}
	if o.Limits.Max > 0 {
		d.Replicas = min(d.Replicas, o.Limits.Max)
	}
	if !o.Quiet {
		if !active {
			d.Message = fmt.Sprintf("idle for %s; by %d idle times (%s) a pod is there from %s to %s; %s gives %d",
				idle.Round(time.Second), p.idle.total(), r.Kind, back.Round(time.Second), gone.Round(time.Second), d.Reason, d.Replicas)
		}
		d.Terms = append(d.Terms,
			algorithms.Term{Name: "idleSeconds", Value: idle.Seconds()},
			algorithms.Term{Name: "idleTimes", Value: float64(p.idle.total())},
			algorithms.Term{Name: "cv", Value: p.idle.CV()},
			algorithms.Term{Name: "preWarmSeconds", Value: r.PreWarm.Seconds()},
			algorithms.Term{Name: "keepAliveSeconds", Value: r.KeepAlive.Seconds()})
	}
	return d
}

// Snapshot returns the memory.
func (p *Policy) Snapshot() json.RawMessage {
	s := p.state
	s.Idle, s.Target = p.idle.State(), p.above.Snapshot()
	return memory.Save("histogram", version, s)
}

// Restore puts back a Snapshot.
func (p *Policy) Restore(raw json.RawMessage) error {
	s, err := memory.Load[state]("histogram", version, raw)
	if err != nil {
		return err
	}
	fresh := &Idle{cfg: p.cfg}
	if err := fresh.Load(s.Idle); err != nil {
		return fmt.Errorf("read histogram snapshot: %w", err)
	}
	if err := p.above.Restore(s.Target); err != nil {
		return fmt.Errorf("read histogram snapshot: %w", err)
	}
	p.idle = fresh
	s.Idle, s.Target = IdleState{}, nil
	p.state = s
	return nil
}
