// Package histogram decides when the last pod stops and when it returns, by the distribution of
// idle times: the hybrid histogram of "Serverless in the Wild". Above zero pods a target rule
// decides.
//
//	idle time   from the end of demand to the next demand, in bins of a minute over four hours, and a
//	            count of longer ones
//	head, tail  the 5th percentile rounded down and the 99th rounded up to a bin, with a margin of a tenth
//	demand      the target rule, at least one pod
//	no demand   no pod before 0.9·head less the start-up time, one pod until 1.1·tail, none after;
//	            head in the first bin: one pod until 1.1·tail
//
// The histogram is used once it holds minCount idle times and is not flat (CV of its counts ≥ 2);
// before that the pod stays for the whole range. Where most idle times are longer than the range
// their mean is the forecast, and the pod is there from 0.85 to 1.15 of it (the paper's ARIMA is
// left out). No idle time costs more than one cold start (ski rental), so that the cost is at most
// twice the optimum, plus that of pre-warms in vain.
//
// Sources: Shahrad et al., "Serverless in the Wild", USENIX ATC'20, §4; Karlin et al. 1988 (package
// keepalive).
package histogram

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/keepalive"
	"github.com/sluice-autoscaler/sluice/algorithms/memory"
	"github.com/sluice-autoscaler/sluice/algorithms/params"
	"github.com/sluice-autoscaler/sluice/algorithms/target"
)

// Config holds the parameters.
type Config struct {
	// Target is the concurrency that one pod should carry above zero pods, in requests; Window the
	// averaging time there.
	Target float64             `json:"target"`
	Window algorithms.Duration `json:"window"`
	// Activity is the window over which concurrency above 0 is demand.
	Activity algorithms.Duration `json:"activity"`
	// Bin is the length of a bin; Range the longest idle time that is told apart, in whole bins.
	Bin   algorithms.Duration `json:"bin"`
	Range algorithms.Duration `json:"range"`
	// Head and Tail are percentiles as shares; a lower head and a higher tail keep the pod longer.
	Head float64 `json:"head"`
	Tail float64 `json:"tail"`
	// Margin is the share by which both are widened.
	Margin float64 `json:"margin"`
	// MinCV is the coefficient of variation of the counts from which they represent something.
	MinCV float64 `json:"minCV"`
	// MinCount is how many idle times must be known. The CV alone passes a single one.
	MinCount int `json:"minCount"`
	// OutOfBounds is the share of idle times beyond the range from which on their mean is the
	// forecast.
	OutOfBounds float64 `json:"outOfBounds"`
	// ColdStartCost is what a cold start costs, in pod-seconds; observed costs override it. It is
	// the longest keep-alive time.
	ColdStartCost float64 `json:"coldStartCost"`
	// StartUp is how long a pod takes to be ready while no start was measured.
	StartUp algorithms.Duration `json:"startUp"`
}

// Default returns the paper's constants, at least ten idle times, and a cold start worth the ten
// minutes for which clouds keep idle instances by default; Target is the caller's.
func Default() Config {
	return Config{
		Target: 70, Window: algorithms.Duration(30 * time.Second), Activity: algorithms.Duration(2 * time.Second),
		Bin: algorithms.Duration(time.Minute), Range: algorithms.Duration(4 * time.Hour), Head: 0.05, Tail: 0.99, Margin: 0.1,
		MinCV: 2, MinCount: 10, OutOfBounds: 0.5, ColdStartCost: 600, StartUp: algorithms.Duration(10 * time.Second),
	}
}

// Params describes the parameters.
func Params() params.List[Config] {
	share := params.Between(0, 1)
	return params.List[Config]{
		params.Of("target", params.Above(0), "requests per pod", "what one pod should carry",
			func(c *Config) *float64 { return &c.Target }).After(params.SignalTarget).Search("20%..110%"),
		params.Of("window", params.Spans(time.Second, time.Hour), "", "averaging time above zero pods",
			func(c *Config) *algorithms.Duration { return &c.Window }).Search("5s..10m:log"),
		params.Of("activity", params.Spans(time.Second, time.Minute), "", "window over which any concurrency is demand",
			func(c *Config) *algorithms.Duration { return &c.Activity }),
		params.Of("coldStartCost", params.Between(0, 864_000), "pod-seconds", "ends keeping when it has cost as much; observed costs override it",
			func(c *Config) *float64 { return &c.ColdStartCost }).Search("10..10000:log"),
		params.Of("bin", params.Spans(time.Second, time.Hour), "", "bin of idle times",
			func(c *Config) *algorithms.Duration { return &c.Bin }),
		params.Of("range", params.Spans(2*time.Second, 1440*time.Hour), "", "longest idle time told apart",
			func(c *Config) *algorithms.Duration { return &c.Range }).Also("2–1440 whole bins", wholeBins),
		params.Of("margin", share, "", "widens head and tail",
			func(c *Config) *float64 { return &c.Margin }).Search("0.0..0.5"),
		params.Of("head", params.AtLeast(0).Below(1), "", "percentile of idle times before which there is no pod",
			func(c *Config) *float64 { return &c.Head }).Also("below tail", func(c *Config) bool { return c.Head < c.Tail }),
		params.Of("tail", params.Above(0).UpTo(1), "", "percentile until which there is one",
			func(c *Config) *float64 { return &c.Tail }).Search("0.9..0.999"),
		params.Of("minCV", params.Between(0, 100), "", "variation of counts from which the histogram represents something",
			func(c *Config) *float64 { return &c.MinCV }),
		params.Of("minCount", params.Between(1, 1000), "idle times", "idle times that must be known",
			func(c *Config) *int { return &c.MinCount }),
		params.Of("outOfBounds", share, "", "share beyond the range from which on their mean is the forecast",
			func(c *Config) *float64 { return &c.OutOfBounds }),
		params.Of("startUp", params.Spans(0, time.Hour), "", "how long a pod takes to be ready, while no start was measured",
			func(c *Config) *algorithms.Duration { return &c.StartUp }),
	}
}

// wholeBins tells whether the range has 2–1440 whole bins; a bin out of its own range is no fault
// here.
func wholeBins(c *Config) bool {
	if c.Bin <= 0 {
		return true
	}
	n := c.Range / c.Bin
	return c.Range%c.Bin == 0 && n >= 2 && n <= 1440
}

// Validate reports every fault.
func (c Config) Validate() error { return Params().Check(&c) }

// Policy decides as the package says. It is not safe for concurrent use.
type Policy struct {
	cfg   Config
	idle  *Idle
	above *target.Policy
	state state
}

type state struct {
	// LastDemand is the last instant with demand; Seen that of the last observation.
	LastDemand time.Time `json:"lastDemand,omitzero"`
	Seen       time.Time `json:"seen,omitzero"`
	// Idle and Target are set in snapshots only.
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

// Learn reads past concurrency: its stretches of zero are idle times.
func (p *Policy) Learn(history []algorithms.Sample) error {
	if err := algorithms.CheckHistory(history, p.state.Seen); err != nil {
		return err
	}
	for _, s := range history {
		if s.Signal == algorithms.Concurrency {
			p.observe(s.At, s.Value > 0, 0)
		}
	}
	return nil
}

// observe records idle times longer than least.
func (p *Policy) observe(now time.Time, active bool, least time.Duration) {
	s := &p.state
	if s.Seen.IsZero() && !active {
		s.LastDemand = now // the start of the idle time is unknown
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
	p.observe(o.Now, active, 2*time.Duration(c.Activity))
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
	warmAt, endAt := max(r.PreWarm-start, 0), r.PreWarm+r.KeepAlive
	switch {
	case active:
		d.Replicas = max(d.Replicas, 1)
	case d.Replicas > 1:
	case idle < warmAt:
		d.Replicas, d.Reason, d.Next = 0, "Unloaded", warmAt-idle
	case idle < endAt:
		d.Replicas, d.Reason, d.Next = 1, "KeptAlive", endAt-idle
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
				idle.Round(time.Second), p.idle.total(), r.Kind, warmAt.Round(time.Second), endAt.Round(time.Second), d.Reason, d.Replicas)
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
