// Package kpa decides like the Knative Pod Autoscaler (knative.dev/serving,
// pkg/autoscaler/scaling/autoscaler.go): a stable window, a panic window for bursts, and rates that
// bound each step. The test module oracle/kpa runs both side by side and requires equal desired
// scale and excess burst capacity.
//
// With r = max(1, ready):
//
//	dS = ceil(stable / target)        dP = ceil(panic / target)
//	both clamped to [floor(r / maxScaleDownRate), ceil(r × maxScaleUpRate)], the lower bound being 0 when
//	unreachable; each at least activationScale when it is above 0 before the clamp
//	panic begins or is extended when dP (before the clamp) / r ≥ panicThresholdPercentage / 100, and
//	ends one stable window after the last such moment; a policy that starts over more than one ready
//	pod starts in panic
//	in panic the answer is the largest of dS, dP and every answer since panic began; else it is dS
//	if reachable, the answer is the largest of the last scaleDownDelay, in steps of Knative's tick of 2 s
//	initialScale, which in Knative the reconciler adds, holds until as many pods have been ready once
//	excess burst capacity = floor(ready × totalValue − targetBurstCapacity − panic), below 0 when a burst
//	would queue
//
// Two differences at the edges: counts end at 1,000,000, and Observation.ActiveSince, when set,
// undoes the dilution of means by the time before the workload was wanted. Knative's own windows do
// that when they average. Nothing is undone where the means say that requests came before
// ActiveSince: only time without any may be left out of a mean.
package kpa

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/params"
)

// Config holds the parameters, named as Knative names them.
type Config struct {
	// Metric is what is scaled on: concurrency, rps (Knative's word for the signal rate) or any
	// other signal's name.
	Metric string `json:"metric"`
	// Target is the concurrency that one pod should carry, in requests. Knative multiplies its
	// container concurrency by a target utilization of 0.7 first; here the value is used as given.
	// Lower costs pods, higher costs waiting.
	Target float64 `json:"target"`
	// TotalValue is the concurrency that one pod can carry at most, in requests; 0 means Target. It
	// enters excess burst capacity only.
	TotalValue float64 `json:"totalValue"`
	// TargetBurstCapacity is the burst, in requests, to be taken without queueing; −1 is without
	// bound. It enters excess burst capacity only, which is reported as a term.
	TargetBurstCapacity float64 `json:"targetBurstCapacity"`
	// StableWindow is the averaging time outside of panic. Longer is calmer and slower.
	StableWindow algorithms.Duration `json:"stableWindow"`
	// PanicWindowPercentage is the panic window as a percentage of StableWindow. Less reacts faster
	// and to less.
	PanicWindowPercentage float64 `json:"panicWindowPercentage"`
	// PanicThresholdPercentage is the load, as a percentage of what the ready pods should carry, at
	// which panic begins. Less panics more often.
	PanicThresholdPercentage float64 `json:"panicThresholdPercentage"`
	// MaxScaleUpRate is the largest factor by which one decision may grow the ready pods.
	MaxScaleUpRate float64 `json:"maxScaleUpRate"`
	// MaxScaleDownRate is the largest factor by which one decision may shrink the ready pods.
	MaxScaleDownRate float64 `json:"maxScaleDownRate"`
	// ScaleDownDelay keeps the largest answer of this long. Longer costs pods and flaps less.
	ScaleDownDelay algorithms.Duration `json:"scaleDownDelay"`
	// ActivationScale is the least count while there is any demand.
	ActivationScale int `json:"activationScale"`
	// Reachable says that requests can reach the workload. If not, it may shrink at once: neither
	// maxScaleDownRate nor scaleDownDelay nor initialScale hold it.
	Reachable bool `json:"reachable"`
	// InitialScale is the least count until as many pods have been ready once; up to 1 it says
	// nothing. A policy that starts over ready pods takes them as initialized, one that starts over
	// none does not, so keep its snapshot. Higher costs pods at the beginning only.
	InitialScale int `json:"initialScale"`
}

// Default returns Knative's defaults; Target is the caller's to set (Knative: 100 × 70 %).
func Default() Config {
	return Config{
		Metric: algorithms.Concurrency, Target: 70, TargetBurstCapacity: 211,
		StableWindow: algorithms.Duration(time.Minute), PanicWindowPercentage: 10, PanicThresholdPercentage: 200,
		MaxScaleUpRate: 1000, MaxScaleDownRate: 2, ActivationScale: 1, Reachable: true, InitialScale: 1,
	}
}

// PanicWindow is PanicWindowPercentage of StableWindow, never under a second.
func (c Config) PanicWindow() time.Duration {
	w := time.Duration(float64(c.StableWindow) * c.PanicWindowPercentage / 100).Round(time.Second)
	return max(w, time.Second)
}

// Params describes the parameters.
func Params() params.List[Config] {
	return params.List[Config]{
		params.Text("metric", "concurrency, rps or a signal's name", "what is scaled on", func(c *Config) *string { return &c.Metric }),
		params.Of("target", params.Above(0), "requests per pod", "concurrency one pod should carry",
			func(c *Config) *float64 { return &c.Target }).After(params.SignalTarget).Search("20%..110%"),
		params.Of("totalValue", params.AtLeast(0), "requests per pod", "concurrency one pod can carry; enters excess burst capacity only",
			func(c *Config) *float64 { return &c.TotalValue }).Zero("target"),
		params.Of("targetBurstCapacity", params.AtLeast(0).Or(-1), "requests", "burst to take without queueing; reported as excessBurstCapacity",
			func(c *Config) *float64 { return &c.TargetBurstCapacity }),
		params.Of("stableWindow", params.Spans(6*time.Second, time.Hour), "", "averaging time outside of panic",
			func(c *Config) *algorithms.Duration { return &c.StableWindow }).Search("6s..10m:log"),
		params.Of("panicWindowPercentage", params.Between(1, 100), "percent of stableWindow", "averaging time of panic",
			func(c *Config) *float64 { return &c.PanicWindowPercentage }).Search("5..50"),
		params.Of("panicThresholdPercentage", params.Between(110, 1000), "percent", "load over what ready pods should carry at which panic begins",
			func(c *Config) *float64 { return &c.PanicThresholdPercentage }).Search("110..1000:log"),
		params.Of("scaleDownDelay", params.Spans(0, time.Hour), "", "keep the largest answer of this long",
			func(c *Config) *algorithms.Duration { return &c.ScaleDownDelay }).Search("0s|15s|30s|1m|2m|5m|10m|20m"),
		params.Of("maxScaleDownRate", params.Above(1), "", "largest factor down in one decision",
			func(c *Config) *float64 { return &c.MaxScaleDownRate }).Search("1.1..10:log"),
		params.Of("maxScaleUpRate", params.Above(1), "", "largest factor up in one decision",
			func(c *Config) *float64 { return &c.MaxScaleUpRate }),
		params.Of("activationScale", params.Between(1, most), "pods", "least count while there is demand",
			func(c *Config) *int { return &c.ActivationScale }),
		params.Bool("reachable", "false lets the count fall to 0 at once", func(c *Config) *bool { return &c.Reachable }),
		params.Of("initialScale", params.Between(0, most), "pods", "least count until it was once reached",
			func(c *Config) *int { return &c.InitialScale }),
	}
}

// Validate reports every fault.
func (c Config) Validate() error { return Params().Check(&c) }

// most bounds pod counts.
const most = 1_000_000

// tick is the time between Knative's decisions, in seconds: the step of its scale-down delay.
const tick = 2

// Policy decides as the package says. It is not safe for concurrent use.
type Policy struct {
	cfg            Config
	signal         string
	stable, panicW time.Duration
	threshold      float64
	// delaySlots is the scale-down delay in ticks.
	delaySlots int64
	state      state
}

// state is the memory, as it is serialized.
type state struct {
	Version int `json:"version"`
	// Started says that a first observation was seen; Initialized that initialScale was reached.
	Started     bool `json:"started"`
	Initialized bool `json:"initialized"`
	// PanicTime is when panic was begun or last extended, the zero time out of panic.
	PanicTime    time.Time `json:"panicTime"`
	MaxPanicPods int       `json:"maxPanicPods"`
	// Delay holds the counts of the last scaleDownDelay that no later count has reached, oldest and
	// largest first.
	Delay []slot `json:"delay,omitempty"`
}

// slot is the largest count of one tick.
type slot struct {
	Tick int64 `json:"tick"`
	Pods int   `json:"pods"`
}

// version is that of the memory: 2 counts the scale-down delay in ticks.
const version = 2

// New returns a policy with a validated Config.
func New(c Config) (*Policy, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	p := &Policy{
		cfg: c, signal: c.Metric, stable: time.Duration(c.StableWindow), panicW: c.PanicWindow(),
		threshold: c.PanicThresholdPercentage / 100, state: state{Version: version},
	}
	if c.Metric == "rps" {
		p.signal = algorithms.Rate
	}
	const step = tick * time.Second
	p.delaySlots = int64((time.Duration(c.ScaleDownDelay) + step - 1) / step)
	return p, nil
}

// Needs names the stable and the panic window of the signal.
func (p *Policy) Needs() []algorithms.Need {
	return []algorithms.Need{{Name: p.signal, Window: p.stable}, {Name: p.signal, Window: p.panicW}}
}

// Decide answers one observation. A policy that starts over more than one ready pod starts in
// panic, so that a restart never scales down before a stable window has passed.
func (p *Policy) Decide(o algorithms.Observation) algorithms.Decision {
	c, s := &p.cfg, &p.state
	if !s.Started {
		s.Started, s.MaxPanicPods, s.Initialized = true, o.Replicas.Ready, o.Replicas.Ready > 0
		if o.Replicas.Ready > 1 {
			s.PanicTime = o.Now
		}
	}
	iS, iP := o.Index(p.signal, p.stable), o.Index(p.signal, p.panicW)
	if iS < 0 || iP < 0 {
		d := algorithms.Decision{Reason: "NoData"}
		if !o.Quiet {
			d.Message = p.signal + " over the stable or the panic window is unknown"
		}
		return d
	}
	stable, panicLoad := p.undilute(&o, o.Signals[iS].Value, o.Signals[iP].Value)
	ready := math.Max(1, float64(o.Replicas.Ready))
	up, down := math.Ceil(c.MaxScaleUpRate*ready), 0.0
	if c.Reachable {
		down = math.Floor(ready / c.MaxScaleDownRate)
	}
	rawS, rawP := math.Ceil(stable/c.Target), math.Ceil(panicLoad/c.Target)
	dS, dP := p.clamp(rawS, down, up), p.clamp(rawP, down, up)

	over := rawP/ready >= p.threshold
	switch {
	case over:
		s.PanicTime = o.Now
	case !s.PanicTime.IsZero() && s.PanicTime.Add(p.stable).Before(o.Now):
		s.PanicTime, s.MaxPanicPods = time.Time{}, 0
	}
	n, reason := dS, "Stable"
	inPanic := !s.PanicTime.IsZero()
	if inPanic {
		s.MaxPanicPods = max(s.MaxPanicPods, dS, dP)
		n, reason = s.MaxPanicPods, "Panic"
	}
	if c.Reachable && p.delaySlots > 0 {
		if d := s.maxOfDelay(o.Now.Unix()/tick, n, p.delaySlots); d > n {
			n, reason = d, "ScaleDownDelay"
		}
	}
	s.Initialized = s.Initialized || o.Replicas.Ready >= c.InitialScale
	if c.InitialScale > 1 && !s.Initialized && c.Reachable && n < c.InitialScale {
		n, reason = c.InitialScale, "InitialScale"
	}
	d := algorithms.Decision{Replicas: n, Valid: true, Reason: reason}
	if !o.Quiet {
		p.explain(&d, &o, stable, panicLoad, dS, dP)
	}
	return d
}

// clamp bounds a count by the rates and the activation scale.
func (p *Policy) clamp(raw, down, up float64) int {
	n := algorithms.Pods(math.Min(math.Max(raw, down), up))
	if raw > 0 && n < p.cfg.ActivationScale {
		n = p.cfg.ActivationScale
	}
	return n
}

// maxOfDelay records n for the tick and returns the largest count of the last slots ticks.
func (s *state) maxOfDelay(at int64, n int, slots int64) int {
	kept := s.Delay
	for len(kept) > 0 && kept[len(kept)-1].Pods <= n {
		kept = kept[:len(kept)-1]
	}
	old := 0
	for old < len(kept) && at-kept[old].Tick >= slots {
		old++
	}
	kept = kept[:copy(kept, kept[old:])]
	// of one tick the larger count stays
	if last := len(kept) - 1; last < 0 || kept[last].Tick != at {
		kept = append(kept, slot{at, n})
	}
	s.Delay = kept
	return kept[0].Pods
}

// excessBurstCapacity is what the ready pods can carry beyond the panic window's load and the
// burst; −1 when bursts are without bound, 0 when none is asked for. It stays within Knative's
// int32.
func (p *Policy) excessBurstCapacity(ready int, panicLoad float64) float64 {
	switch c := &p.cfg; {
	case c.TargetBurstCapacity == 0:
		return 0
	case c.TargetBurstCapacity > 0:
		total := c.TotalValue
		if total == 0 {
			total = c.Target
		}
		return min(max(math.Floor(float64(ready)*total-c.TargetBurstCapacity-panicLoad), math.MinInt32), math.MaxInt32)
	}
	return -1
}

// explain adds the message and the terms.
func (p *Policy) explain(d *algorithms.Decision, o *algorithms.Observation, stable, panicLoad float64, dS, dP int) {
	d.Message = fmt.Sprintf("%.4g requests over %s and %.4g over %s at %.4g a pod ask for %d and %d pods; %s gives %d",
		stable, p.stable, panicLoad, p.panicW, p.cfg.Target, dS, dP, d.Reason, d.Replicas)
	if p.signal != algorithms.Concurrency {
		d.Message = p.signal + ": " + d.Message
	}
	d.Terms = append(o.Scratch[:0],
		algorithms.Term{Name: "stableConcurrency", Value: stable},
		algorithms.Term{Name: "panicConcurrency", Value: panicLoad},
		algorithms.Term{Name: "target", Value: p.cfg.Target},
		algorithms.Term{Name: "readyPods", Value: float64(o.Replicas.Ready)},
		algorithms.Term{Name: "desiredStablePods", Value: float64(dS)},
		algorithms.Term{Name: "desiredPanicPods", Value: float64(dP)},
		algorithms.Term{Name: "panic", Value: boolToFloat(!p.state.PanicTime.IsZero())},
		algorithms.Term{Name: "maxPanicPods", Value: float64(p.state.MaxPanicPods)},
		algorithms.Term{Name: "excessBurstCapacity", Value: p.excessBurstCapacity(o.Replicas.Ready, panicLoad)},
	)
}

// early is by how much the stable window may hold more than the panic window though all requests
// came within both: windows are extrapolated over gaps.
const early = 1.1

// undilute turns the means over both windows into means since the workload was wanted, where that
// is shorter (but at least Knative's bucket of one second): Knative likewise divides by the buckets
// since the first one written. If all came since then, a window that is longer holds as many
// request-seconds as one that is shorter. If it holds more, requests came before, as after a
// wake-up that was late, and the means are left as they are.
func (p *Policy) undilute(o *algorithms.Observation, stable, panicLoad float64) (s, q float64) {
	if o.ActiveSince.IsZero() {
		return stable, panicLoad
	}
	active := max(o.Now.Sub(o.ActiveSince), time.Second)
	if active < p.panicW && stable*p.stable.Seconds() > early*panicLoad*p.panicW.Seconds() {
		return stable, panicLoad
	}
	factor := func(window time.Duration) float64 { return max(1, window.Seconds()/active.Seconds()) }
	return min(stable*factor(p.stable), math.MaxFloat64), min(panicLoad*factor(p.panicW), math.MaxFloat64)
}

// Snapshot returns the memory.
func (p *Policy) Snapshot() json.RawMessage {
	b, err := json.Marshal(p.state)
	if err != nil { // times and ints always marshal
		return nil
	}
	return b
}

// Restore puts back a Snapshot.
func (p *Policy) Restore(raw json.RawMessage) error {
	var s state
	if err := algorithms.Strict(raw, &s); err != nil {
		return fmt.Errorf("read kpa snapshot: %w", err)
	}
	if s.Version != version || s.MaxPanicPods < 0 {
		return fmt.Errorf("kpa snapshot has version %d and maxPanicPods %d: want version %d and a count ≥ 0", s.Version, s.MaxPanicPods, version)
	}
	for i, d := range s.Delay {
		if i > 0 && (d.Tick <= s.Delay[i-1].Tick || d.Pods >= s.Delay[i-1].Pods) {
			return fmt.Errorf("kpa snapshot has delay[%d] = %+v after %+v: want later and smaller", i, d, s.Delay[i-1])
		}
	}
	p.state = s
	return nil
}

func boolToFloat(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
