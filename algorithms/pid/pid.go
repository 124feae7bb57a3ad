// Package pid is a proportional-integral-derivative controller of the pod count. Demand m and error e are in pods:
//
//	m = signal / target          pods that would carry the load at target
//	e = m − current              pods missing (of those asked for, so that start-up does not wind the integral up)
//	u = I + kp·e + kd·m'         I grows by ki·e·dt; m' is the filtered derivative of the measurement, in pods per second
//
// Anti-windup: whatever the limits cut off u is taken back from I, so that the answer leaves a limit at once when the error turns.
// The derivative is taken of the measurement, not of the error, so a change of target gives no kick; with it the answer looks kd
// seconds ahead along the trend. The first answer is the current count (bumpless). u is rounded to the nearest pod, but kept
// while it is less than deadband pods from the current count.
//
// For a workload that follows at once the loop is stable for kp < 1 and kp + ki·dt < 2 − kp; start with less.
// Source: Åström and Hägglund, "Advanced PID Control", 2006, ch. 3.
package pid

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/memory"
)

// Config holds the parameters.
type Config struct {
	// Signal is the measurement's name, a total over the workload.
	Signal string `json:"signal"`
	// Window is the averaging time, 0s (a reading) to 1h.
	Window algorithms.Duration `json:"window"`
	// Target is what one pod should carry, in the signal's unit, > 0.
	Target float64 `json:"target"`
	// KP is the proportional gain, 0–1 pods per missing pod. More reacts faster and flaps sooner.
	KP float64 `json:"kp"`
	// KI is the integral gain, 0–1 per second. It removes lasting error; too much oscillates.
	KI float64 `json:"ki"`
	// KD is the derivative time, 0–600 seconds: how far ahead along the trend.
	KD float64 `json:"kd"`
	// DerivativeFilter is the time constant of the derivative's low-pass, 0s–10m. Longer is calmer and later.
	DerivativeFilter algorithms.Duration `json:"derivativeFilter"`
	// Deadband is how many pods the answer must differ by, 0.5–1000.
	Deadband float64 `json:"deadband"`
	// MaxStep is the longest time between two decisions that counts as one step, 1s–10m; after a longer gap the controller starts anew.
	MaxStep algorithms.Duration `json:"maxStep"`
}

// Default returns kp 0.5, ki 0.02/s, no derivative, on the mean concurrency of 30 s; Target is the caller's.
func Default() Config {
	return Config{
		Signal: algorithms.Concurrency, Window: algorithms.Duration(30 * time.Second), Target: 70, KP: 0.5, KI: 0.02,
		DerivativeFilter: algorithms.Duration(10 * time.Second), Deadband: 0.6, MaxStep: algorithms.Duration(2 * time.Minute),
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
	within := func(v, lo, hi float64) bool { return v >= lo && v <= hi }
	bad(c.Signal != "", "signal", `""`, "the name of a signal")
	bad(c.Window >= 0 && time.Duration(c.Window) <= time.Hour, "window", time.Duration(c.Window), "0s–1h")
	bad(algorithms.Finite(c.Target) && c.Target > 0, "target", c.Target, "a finite number > 0 (per pod)")
	bad(within(c.KP, 0, 1), "kp", c.KP, "0–1 (pods per missing pod)")
	bad(within(c.KI, 0, 1), "ki", c.KI, "0–1 (per second)")
	bad(within(c.KD, 0, 600), "kd", c.KD, "0–600 (seconds)")
	bad(c.KP+c.KI > 0, "kp, ki", 0, "at least one of them > 0")
	bad(c.DerivativeFilter >= 0 && time.Duration(c.DerivativeFilter) <= 10*time.Minute, "derivativeFilter", time.Duration(c.DerivativeFilter), "0s–10m")
	bad(within(c.Deadband, 0.5, 1000), "deadband", c.Deadband, "0.5–1000 (pods)")
	bad(time.Duration(c.MaxStep) >= time.Second && time.Duration(c.MaxStep) <= 10*time.Minute, "maxStep", time.Duration(c.MaxStep), "1s–10m")
	return errors.Join(errs...)
}

// Policy decides as the package says. It is not safe for concurrent use.
type Policy struct {
	cfg   Config
	state state
}

type state struct {
	// At is the last decision's instant, zero before the first.
	At time.Time `json:"at,omitzero"`
	// Integral is I in pods, Demand the last m, Slope the filtered m' in pods per second.
	Integral float64 `json:"integral"`
	Demand   float64 `json:"demand"`
	Slope    float64 `json:"slope"`
}

const version = 1

// New returns a policy with a validated Config.
func New(c Config) (*Policy, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Policy{cfg: c}, nil
}

// Needs names the one signal.
func (p *Policy) Needs() []algorithms.Need {
	return []algorithms.Need{{Name: p.cfg.Signal, Window: time.Duration(p.cfg.Window)}}
}

// most bounds demand and slope, so that no sum or difference of them overflows.
const most = 1e6

// Decide answers one observation.
func (p *Policy) Decide(o algorithms.Observation) algorithms.Decision {
	c, s := p.cfg, &p.state
	i := o.Index(c.Signal, time.Duration(c.Window))
	if i < 0 || o.Signals[i].Value < 0 {
		d := algorithms.Decision{Reason: "NoData"}
		if !o.Quiet {
			d.Message = c.Signal + " is unknown"
		}
		return d
	}
	cur := float64(o.Replicas.Current)
	demand := min(o.Signals[i].Value/c.Target, most)
	err := demand - cur
	dt := o.Now.Sub(s.At)
	reason := "Tracking"
	if s.At.IsZero() || dt < 0 || dt > time.Duration(c.MaxStep) {
		s.Integral, s.Slope, reason = cur-c.KP*err, 0, "Started"
	} else if sec := dt.Seconds(); sec > 0 {
		s.Integral += c.KI * err * sec
		share := sec / (sec + time.Duration(c.DerivativeFilter).Seconds())
		s.Slope += share * (min(max((demand-s.Demand)/sec, -most), most) - s.Slope)
	}
	s.At, s.Demand = o.Now, demand

	p1, d1 := c.KP*err, c.KD*s.Slope
	raw := s.Integral + p1 + d1
	lo, hi := float64(max(o.Limits.Min, 0)), most
	if o.Limits.Max > 0 {
		hi = float64(o.Limits.Max)
	}
	u := max(min(raw, hi), min(lo, hi))
	s.Integral += u - raw
	n := algorithms.Pods(math.Round(u))
	if math.Abs(u-cur) < c.Deadband && cur <= hi {
		n = o.Replicas.Current
		if reason == "Tracking" {
			reason = "WithinDeadband"
		}
	}
	if u != raw {
		reason = "Limited"
	}
	dec := algorithms.Decision{Replicas: n, Valid: true, Reason: reason}
	if !o.Quiet {
		dec.Message = fmt.Sprintf("demand for %.4g pods with %d asked for: %.4g (integral) %+.4g (proportional) %+.4g (derivative) gives %d", demand, o.Replicas.Current, s.Integral, p1, d1, n)
		dec.Terms = append(o.Scratch[:0],
			algorithms.Term{Name: "demandPods", Value: demand},
			algorithms.Term{Name: "error", Value: err},
			algorithms.Term{Name: "proportional", Value: p1},
			algorithms.Term{Name: "integral", Value: s.Integral},
			algorithms.Term{Name: "derivative", Value: d1},
			algorithms.Term{Name: "output", Value: u})
	}
	return dec
}

// Snapshot returns the memory.
func (p *Policy) Snapshot() json.RawMessage { return memory.Save("pid", version, p.state) }

// Restore puts back a Snapshot.
func (p *Policy) Restore(raw json.RawMessage) error {
	s, err := memory.Load[state]("pid", version, raw)
	if err != nil {
		return err
	}
	p.state = s
	return nil
}
