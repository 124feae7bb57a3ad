// Package kpa decides like the Knative Pod Autoscaler (knative.dev/serving, pkg/autoscaler/scaling/autoscaler.go): a
// stable window for the normal course, a panic window for bursts, and rates that bound each step.
//
// With r = max(1, ready):
//
//	dS = ceil(stable / target)        dP = ceil(panic / target)
//	both clamped to [floor(r / maxScaleDownRate), ceil(r × maxScaleUpRate)]
//	panic begins or is extended when dP (before the clamp) / r ≥ panicThresholdPercentage / 100,
//	and ends one stable window after the last such moment
//	in panic the answer is the largest of dS, dP and every answer since panic began; else it is dS
package kpa

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

// Config holds the parameters, named as Knative names them.
type Config struct {
	// Target is the concurrency that one pod should carry, in requests, > 0. Knative multiplies its container concurrency by a target
	// utilization of 0.7 first; here the value is used as given. Lower costs pods, higher costs waiting.
	Target float64 `json:"target"`
	// TotalValue is the concurrency that one pod can carry at most, in requests, ≥ 0; 0 means Target. It enters excess burst
	// capacity only.
	TotalValue float64 `json:"totalValue"`
	// TargetBurstCapacity is the burst, in requests, to be taken without queueing, ≥ 0, or −1 for without bound. It enters excess
	// burst capacity only, which is reported as a term.
	TargetBurstCapacity float64 `json:"targetBurstCapacity"`
	// StableWindow is the averaging time of the normal course, 6s–1h. Longer is calmer and slower.
	StableWindow algorithms.Duration `json:"stableWindow"`
	// PanicWindowPercentage is the panic window as a percentage of StableWindow, 1–100.
	PanicWindowPercentage float64 `json:"panicWindowPercentage"`
	// PanicThresholdPercentage is the load, as a percentage of what the ready pods should carry, at which panic begins, 110–1000.
	PanicThresholdPercentage float64 `json:"panicThresholdPercentage"`
	// MaxScaleUpRate is the largest factor by which one decision may grow the ready pods, > 1.
	MaxScaleUpRate float64 `json:"maxScaleUpRate"`
	// MaxScaleDownRate is the largest factor by which one decision may shrink the ready pods, > 1.
	MaxScaleDownRate float64 `json:"maxScaleDownRate"`
	// ScaleDownDelay keeps the largest answer of this long a time, 0–1h.
	ScaleDownDelay algorithms.Duration `json:"scaleDownDelay"`
	// ActivationScale is the least count while there is any demand, ≥ 1.
	ActivationScale int `json:"activationScale"`
}

// Default returns Knative's defaults; Target is the caller's to set (Knative: 100 × 70 %).
func Default() Config {
	return Config{
		Target: 70, TargetBurstCapacity: 211,
		StableWindow: algorithms.Duration(time.Minute), PanicWindowPercentage: 10, PanicThresholdPercentage: 200,
		MaxScaleUpRate: 1000, MaxScaleDownRate: 2, ActivationScale: 1,
	}
}

// PanicWindow is PanicWindowPercentage of StableWindow, never under a second.
func (c Config) PanicWindow() time.Duration {
	w := time.Duration(float64(c.StableWindow) * c.PanicWindowPercentage / 100).Round(time.Second)
	return max(w, time.Second)
}

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	bad := func(ok bool, name string, value any, want string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s = %v: want %s", name, value, want))
		}
	}
	within := func(v, lo, hi float64) bool { return algorithms.Finite(v) && v >= lo && v <= hi }
	bad(algorithms.Finite(c.Target) && c.Target > 0, "target", c.Target, "a finite number > 0 (requests per pod)")
	bad(within(c.TotalValue, 0, math.MaxFloat64), "totalValue", c.TotalValue, "a finite number ≥ 0 (requests per pod)")
	bad(c.TargetBurstCapacity == -1 || within(c.TargetBurstCapacity, 0, math.MaxFloat64), "targetBurstCapacity", c.TargetBurstCapacity, "−1 or a finite number ≥ 0 (requests)")
	bad(time.Duration(c.StableWindow) >= 6*time.Second && time.Duration(c.StableWindow) <= time.Hour, "stableWindow", time.Duration(c.StableWindow), "6s–1h")
	bad(within(c.PanicWindowPercentage, 1, 100), "panicWindowPercentage", c.PanicWindowPercentage, "1–100 (percent of stableWindow)")
	bad(within(c.PanicThresholdPercentage, 110, 1000), "panicThresholdPercentage", c.PanicThresholdPercentage, "110–1000 (percent)")
	bad(algorithms.Finite(c.MaxScaleUpRate) && c.MaxScaleUpRate > 1, "maxScaleUpRate", c.MaxScaleUpRate, "a finite number > 1")
	bad(algorithms.Finite(c.MaxScaleDownRate) && c.MaxScaleDownRate > 1, "maxScaleDownRate", c.MaxScaleDownRate, "a finite number > 1")
	bad(c.ScaleDownDelay >= 0 && time.Duration(c.ScaleDownDelay) <= time.Hour, "scaleDownDelay", time.Duration(c.ScaleDownDelay), "0s–1h")
	bad(c.ActivationScale >= 1, "activationScale", c.ActivationScale, "an integer ≥ 1 (pods)")
	return errors.Join(errs...)
}

// Policy decides as the package says. It is not safe for concurrent use.
type Policy struct {
	cfg   Config
	state state
}

// state is the memory, as it is serialized.
type state struct {
	Version      int               `json:"version"`
	Started      bool              `json:"started"`
	PanicTime    time.Time         `json:"panicTime"`
	MaxPanicPods int               `json:"maxPanicPods"`
	Delay        algorithms.Maxima `json:"delay,omitempty"`
}

// New returns a policy with a validated Config.
func New(c Config) (*Policy, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Policy{cfg: c, state: state{Version: 1}}, nil
}

// Needs names the stable and the panic window of concurrency.
func (p *Policy) Needs() []algorithms.Need {
	return []algorithms.Need{
		{Name: algorithms.Concurrency, Window: time.Duration(p.cfg.StableWindow)},
		{Name: algorithms.Concurrency, Window: p.cfg.PanicWindow()},
	}
}

// Decide answers one observation. A policy that starts over more than one ready pod starts in panic, so that a restart
// never scales down before a stable window has passed.
func (p *Policy) Decide(o algorithms.Observation) algorithms.Decision {
	stable, okS := o.Signal(algorithms.Concurrency, time.Duration(p.cfg.StableWindow))
	panicky, okP := o.Signal(algorithms.Concurrency, p.cfg.PanicWindow())
	if !okS || !okP || !algorithms.Finite(stable.Value) || !algorithms.Finite(panicky.Value) {
		return algorithms.Decision{Reason: "NoData", Message: "concurrency over the stable or the panic window is unknown"}
	}
	stable.Value *= undiluted(o, stable.Window)
	panicky.Value *= undiluted(o, panicky.Window)
	c, s := p.cfg, &p.state
	if !s.Started {
		s.Started = true
		if o.Replicas.Ready > 1 {
			s.PanicTime, s.MaxPanicPods = o.Now, o.Replicas.Ready
		}
	}
	ready := math.Max(1, float64(o.Replicas.Ready))
	up, down := math.Ceil(c.MaxScaleUpRate*ready), math.Floor(ready/c.MaxScaleDownRate)
	rawS, rawP := math.Ceil(stable.Value/c.Target), math.Ceil(panicky.Value/c.Target)
	clamp := func(raw float64) int {
		n := algorithms.Pods(math.Min(math.Max(raw, down), up))
		if raw > 0 && n < c.ActivationScale {
			n = c.ActivationScale
		}
		return n
	}
	dS, dP := clamp(rawS), clamp(rawP)

	over := rawP/ready >= c.PanicThresholdPercentage/100
	switch {
	case over:
		s.PanicTime = o.Now
	case !s.PanicTime.IsZero() && s.PanicTime.Add(time.Duration(c.StableWindow)).Before(o.Now):
		s.PanicTime, s.MaxPanicPods = time.Time{}, 0
	}
	n, reason := dS, "Stable"
	inPanic := !s.PanicTime.IsZero()
	if inPanic {
		s.MaxPanicPods = max(s.MaxPanicPods, dS, dP)
		n, reason = s.MaxPanicPods, "Panic"
	}
	if c.ScaleDownDelay > 0 {
		if d := s.Delay.Add(o.Now, n, time.Duration(c.ScaleDownDelay)); d > n {
			n, reason = d, "ScaleDownDelay"
		}
	}

	excess := -1.0
	switch {
	case c.TargetBurstCapacity == 0:
		excess = 0
	case c.TargetBurstCapacity > 0:
		total := c.TotalValue
		if total == 0 {
			total = c.Target
		}
		excess = math.Floor(float64(o.Replicas.Ready)*total - c.TargetBurstCapacity - panicky.Value)
	}
	return algorithms.Decision{
		Replicas: n, Valid: true, Reason: reason,
		Message: fmt.Sprintf("%.4g requests over %s and %.4g over %s at %.4g a pod ask for %d and %d pods; %s gives %d",
			stable.Value, stable.Window, panicky.Value, panicky.Window, c.Target, dS, dP, reason, n),
		Terms: []algorithms.Term{
			{Name: "stableConcurrency", Value: stable.Value},
			{Name: "panicConcurrency", Value: panicky.Value},
			{Name: "target", Value: c.Target},
			{Name: "readyPods", Value: float64(o.Replicas.Ready)},
			{Name: "desiredStablePods", Value: float64(dS)},
			{Name: "desiredPanicPods", Value: float64(dP)},
			{Name: "panic", Value: b2f(inPanic)},
			{Name: "maxPanicPods", Value: float64(s.MaxPanicPods)},
			{Name: "excessBurstCapacity", Value: excess},
		},
	}
}

// undiluted is the factor from a mean over the window to the mean since the workload left zero, if that is shorter (but at
// least Knative's bucket of one second): Knative likewise divides by the buckets since the first one written.
func undiluted(o algorithms.Observation, window time.Duration) float64 {
	if o.ActiveSince.IsZero() {
		return 1
	}
	if active := max(o.Now.Sub(o.ActiveSince), time.Second); active < window {
		return window.Seconds() / active.Seconds()
	}
	return 1
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
	if s.Version != 1 || s.MaxPanicPods < 0 {
		return fmt.Errorf("kpa snapshot has version %d and maxPanicPods %d: want version 1 and a count ≥ 0", s.Version, s.MaxPanicPods)
	}
	p.state = s
	return nil
}

func b2f(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
