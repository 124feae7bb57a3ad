// Package pid is a proportional-integral-derivative controller of the pod count. Demand m and error
// e are in pods:
//
//	m = signal / target          pods that would carry the load at target
//	e = m − current              pods missing (of those asked for, so that start-up does not wind up the
//	                             integral)
//	u = I + kp·e + kd·m'         I grows by ki·e·dt; m' is the filtered derivative of the measurement, in
//	                             pods per second
//
// Anti-windup: whatever the limits cut off u is subtracted from I, so that the answer leaves a
// limit at once when the error turns. The derivative is of the measurement, not of the error, so
// that a change of target gives no kick; it looks kd seconds ahead along the trend. The first
// answer is the current count (bumpless). u is rounded to the nearest pod, but kept while it is
// less than deadband pods from the current count.
//
// For a workload that follows at once the loop is stable for kp < 1 and kp + ki·dt < 2 − kp; start
// with less.
//
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
	"github.com/sluice-autoscaler/sluice/algorithms/params"
)

// Config holds the parameters.
type Config struct {
	// Signal is the measurement's name, a total over the workload.
	Signal string `json:"signal"`
	// Window is the averaging time; 0s takes a reading. Longer is calmer and slower.
	Window algorithms.Duration `json:"window"`
	// Target is what one pod should carry, in the signal's unit. Lower costs pods, higher waiting.
	Target float64 `json:"target"`
	// KP is the proportional gain, in pods per missing pod. More reacts faster and flaps sooner.
	KP float64 `json:"kp"`
	// KI is the integral gain, per second. It removes lasting error; too much oscillates.
	KI float64 `json:"ki"`
	// KD is the derivative time in seconds: how far ahead along the trend. More leads earlier and
	// amplifies noise.
	KD float64 `json:"kd"`
	// DerivativeFilter is the time constant of the derivative's low-pass. Longer is calmer and
	// later.
	DerivativeFilter algorithms.Duration `json:"derivativeFilter"`
	// Deadband is how many pods the answer must differ by. More is calmer and less exact.
	Deadband float64 `json:"deadband"`
	// MaxStep is the longest time between two decisions that counts as one step; after a longer gap
	// the controller starts anew.
	MaxStep algorithms.Duration `json:"maxStep"`
}

// Default returns kp 0.5, ki 0.02/s, no derivative, on the mean concurrency of 30 s; Target is the
// caller's.
func Default() Config {
	return Config{
		Signal: algorithms.Concurrency, Window: algorithms.Duration(30 * time.Second), Target: 70, KP: 0.5, KI: 0.02,
		DerivativeFilter: algorithms.Duration(10 * time.Second), Deadband: 0.6, MaxStep: algorithms.Duration(2 * time.Minute),
	}
}

// Params describes the parameters.
func Params() params.List[Config] {
	return params.List[Config]{
		params.Text("signal", "a signal's name", "what is measured, a total over the workload", func(c *Config) *string { return &c.Signal }),
		params.Of("target", params.Above(0), "requests per pod", "what one pod should carry",
			func(c *Config) *float64 { return &c.Target }).After(params.SignalTarget).Search("20%..110%"),
		params.Of("window", params.Spans(0, time.Hour), "", "averaging time; 0s is a reading",
			func(c *Config) *algorithms.Duration { return &c.Window }).Search("2s..5m:log"),
		params.Of("kp", params.Between(0, 1), "pods per missing pod", "proportional gain",
			func(c *Config) *float64 { return &c.KP }).Search("0.05..1.0"),
		params.Of("ki", params.Between(0, 1), "per second", "integral gain",
			func(c *Config) *float64 { return &c.KI }).Search("0.001..0.5:log"),
		params.Of("kd", params.Between(0, 600), "seconds", "derivative time: how far ahead along the trend",
			func(c *Config) *float64 { return &c.KD }).Search("0|5|15|30|60"),
		params.Of("derivativeFilter", params.Spans(0, 10*time.Minute), "", "time constant of the derivative's low-pass",
			func(c *Config) *algorithms.Duration { return &c.DerivativeFilter }),
		params.Of("deadband", params.Between(0.5, 1000), "pods", "deviation that changes nothing",
			func(c *Config) *float64 { return &c.Deadband }),
		params.Of("maxStep", params.Spans(time.Second, 10*time.Minute), "", "after a longer gap the controller starts anew",
			func(c *Config) *algorithms.Duration { return &c.MaxStep }),
	}
}

// Validate reports every fault.
func (c Config) Validate() error {
	err := Params().Check(&c)
	if c.KP == 0 && c.KI == 0 {
		err = errors.Join(err, errors.New("kp, ki = 0: want at least one of them > 0"))
	}
	return err
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
