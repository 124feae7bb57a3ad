// Package target keeps a signal's mean per pod at a target: replicas = ceil(total / target), left alone while the ratio of
// the total to what the current pods should carry is within a tolerance of 1. It is the arithmetic of the Kubernetes HPA for a
// metric of type AverageValue (k8s.io/kubernetes, pkg/controller/podautoscaler/replica_calculator.go) in floating point.
package target

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

// Config holds the parameters.
type Config struct {
	// Target is the concurrency that one pod should carry, in requests, > 0.
	Target float64 `json:"target"`
	// Window is the averaging time, 1s–1h. Longer is calmer and slower.
	Window algorithms.Duration `json:"window"`
	// Tolerance is the share by which load may differ from what the current pods should carry before anything changes, 0–1.
	Tolerance float64 `json:"tolerance"`
	// StabilizationWindow keeps the largest answer of this long a time, 0–1h: the HPA's scale-down stabilization.
	StabilizationWindow algorithms.Duration `json:"stabilizationWindow"`
}

// Default returns a window of 30 s, a tolerance of 0.1 (as the HPA) and a stabilization window of 60 s; Target is the caller's.
func Default() Config {
	return Config{Target: 70, Window: algorithms.Duration(30 * time.Second), Tolerance: 0.1, StabilizationWindow: algorithms.Duration(time.Minute)}
}

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	if !algorithms.Finite(c.Target) || c.Target <= 0 {
		errs = append(errs, fmt.Errorf("target = %v: want a finite number > 0 (requests per pod)", c.Target))
	}
	if d := time.Duration(c.Window); d < time.Second || d > time.Hour {
		errs = append(errs, fmt.Errorf("window = %v: want 1s–1h", d))
	}
	if !algorithms.Finite(c.Tolerance) || c.Tolerance < 0 || c.Tolerance > 1 {
		errs = append(errs, fmt.Errorf("tolerance = %v: want 0–1", c.Tolerance))
	}
	if d := time.Duration(c.StabilizationWindow); d < 0 || d > time.Hour {
		errs = append(errs, fmt.Errorf("stabilizationWindow = %v: want 0s–1h", d))
	}
	return errors.Join(errs...)
}

// Policy decides as the package says. It is not safe for concurrent use.
type Policy struct {
	cfg   Config
	state state
}

type state struct {
	Version int               `json:"version"`
	Recent  algorithms.Maxima `json:"recent,omitempty"`
}

// New returns a policy with a validated Config.
func New(c Config) (*Policy, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Policy{cfg: c, state: state{Version: 1}}, nil
}

// Needs names the one window.
func (p *Policy) Needs() []algorithms.Need {
	return []algorithms.Need{{Name: algorithms.Concurrency, Window: time.Duration(p.cfg.Window)}}
}

// Decide answers one observation.
func (p *Policy) Decide(o algorithms.Observation) algorithms.Decision {
	sig, ok := o.Signal(algorithms.Concurrency, time.Duration(p.cfg.Window))
	if !ok || !algorithms.Finite(sig.Value) {
		return algorithms.Decision{Reason: "NoData", Message: "concurrency over the window is unknown"}
	}
	c, cur := p.cfg, o.Replicas.Current
	raw := algorithms.Pods(math.Ceil(sig.Value / c.Target))
	n, reason := raw, "Target"
	ratio := 0.0
	if cur > 0 {
		ratio = sig.Value / (c.Target * float64(cur))
		if math.Abs(ratio-1) <= c.Tolerance {
			n, reason = cur, "WithinTolerance"
		}
	}
	if held := p.state.Recent.Add(o.Now, n, time.Duration(c.StabilizationWindow)); held > n && n < cur {
		n, reason = min(held, cur), "Stabilized"
	}
	return algorithms.Decision{
		Replicas: n, Valid: true, Reason: reason,
		Message: fmt.Sprintf("%.4g requests over %s at %.4g a pod ask for %d pods; %s gives %d", sig.Value, sig.Window, c.Target, raw, reason, n),
		Terms: []algorithms.Term{
			{Name: "concurrency", Value: sig.Value},
			{Name: "target", Value: c.Target},
			{Name: "ratio", Value: ratio},
			{Name: "rawPods", Value: float64(raw)},
		},
	}
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
		return fmt.Errorf("read target snapshot: %w", err)
	}
	if s.Version != 1 {
		return fmt.Errorf("target snapshot has version %d: want 1", s.Version)
	}
	p.state = s
	return nil
}
