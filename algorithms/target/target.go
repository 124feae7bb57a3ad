// Package target is AWS target tracking: keep a signal's mean per pod at a target.
//
//	raw = ceil(total / target)                 = ceil(current · metric / target) with the metric per pod
//	U   = total / (target · current)           load over what the pods asked for should carry
//	out when U > 1 + tolerance for scaleOutPoints data points in a row, to raw
//	in  when U < 1 − scaleInMargin for scaleInPoints data points in a row, to raw, unless disableScaleIn
//
// and in between nothing changes. A data point is one decision, or the first decision in each evaluationPeriod. From zero pods any
// load goes out at once. Pods asked for count as capacity from then on, so what is warming up is not asked for twice; while it
// is (warmUp after a scale-out) nothing goes in. Cooldowns follow a change and bound the same direction; scaling out may always
// interrupt the cooldown of scaling in. An unknown value ends both rows, so nothing goes in on missing data. stabilizationWindow
// keeps the largest answer of that long when going in, as the Kubernetes HPA.
//
// The defaults suit request concurrency measured every few seconds; AWS's own are tolerance 0, scaleInMargin 0.1, evaluationPeriod 1m,
// scaleOutPoints 3, scaleInPoints 15, cooldowns of 5m and stabilizationWindow 0s.
// Source: "Target tracking scaling policies", docs.aws.amazon.com/autoscaling/application/userguide; the counts of points and
// the margin are those of the alarms that it creates.
package target

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
	// Signal is what is measured, a total over the workload.
	Signal string `json:"signal"`
	// Target is what one pod should carry, in the signal's unit, > 0.
	Target float64 `json:"target"`
	// Window is the averaging time, 1s–1h. Longer is calmer and slower.
	Window algorithms.Duration `json:"window"`
	// Tolerance is the share by which load may exceed what the current pods should carry before anything changes, 0–1.
	Tolerance float64 `json:"tolerance"`
	// ScaleInMargin is the share by which load may fall below it, 0–1; null takes Tolerance.
	ScaleInMargin *float64 `json:"scaleInMargin,omitempty"`
	// StabilizationWindow keeps the largest answer of this long a time, 0–1h: the HPA's scale-down stabilization.
	StabilizationWindow algorithms.Duration `json:"stabilizationWindow"`
	// EvaluationPeriod is the least time between two data points, 0s–10m; 0s takes every decision.
	EvaluationPeriod algorithms.Duration `json:"evaluationPeriod"`
	// ScaleOutPoints and ScaleInPoints are how many data points in a row must breach, 1–100.
	ScaleOutPoints int `json:"scaleOutPoints"`
	ScaleInPoints  int `json:"scaleInPoints"`
	// ScaleOutCooldown and ScaleInCooldown are how long after a change in a direction the next one in it waits, 0s–1h.
	ScaleOutCooldown algorithms.Duration `json:"scaleOutCooldown"`
	ScaleInCooldown  algorithms.Duration `json:"scaleInCooldown"`
	// EstimatedInstanceWarmup is how long after a scale-out nothing goes in, 0s–1h.
	EstimatedInstanceWarmup algorithms.Duration `json:"estimatedInstanceWarmup"`
	// DisableScaleIn lets the policy only go out.
	DisableScaleIn bool `json:"disableScaleIn"`
}

// Default returns a window of 30 s, a tolerance of 0.1 both ways, a stabilization window of 60 s and none of AWS's waits; Target
// is the caller's.
func Default() Config {
	return Config{
		Signal: algorithms.Concurrency, Target: 70, Window: algorithms.Duration(30 * time.Second), Tolerance: 0.1,
		StabilizationWindow: algorithms.Duration(time.Minute), ScaleOutPoints: 1, ScaleInPoints: 1,
	}
}

// AWS returns AWS's own waits over Default.
func AWS() Config {
	c, margin := Default(), 0.1
	c.Tolerance, c.ScaleInMargin, c.StabilizationWindow = 0, &margin, 0
	c.Window, c.EvaluationPeriod = algorithms.Duration(time.Minute), algorithms.Duration(time.Minute)
	c.ScaleOutPoints, c.ScaleInPoints = 3, 15
	c.ScaleOutCooldown, c.ScaleInCooldown = algorithms.Duration(5*time.Minute), algorithms.Duration(5*time.Minute)
	return c
}

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	bad := func(ok bool, name string, value any, want string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s = %v: want %s", name, value, want))
		}
	}
	within := func(d algorithms.Duration, lo, hi time.Duration) bool {
		return time.Duration(d) >= lo && time.Duration(d) <= hi
	}
	share := func(v float64) bool { return v >= 0 && v <= 1 }
	bad(c.Signal != "", "signal", `""`, "the name of a signal")
	bad(algorithms.Finite(c.Target) && c.Target > 0, "target", c.Target, "a finite number > 0 (requests per pod)")
	bad(within(c.Window, time.Second, time.Hour), "window", time.Duration(c.Window), "1s–1h")
	bad(share(c.Tolerance), "tolerance", c.Tolerance, "0–1")
	if c.ScaleInMargin != nil {
		bad(share(*c.ScaleInMargin), "scaleInMargin", *c.ScaleInMargin, "0–1")
	}
	bad(within(c.StabilizationWindow, 0, time.Hour), "stabilizationWindow", time.Duration(c.StabilizationWindow), "0s–1h")
	bad(within(c.EvaluationPeriod, 0, 10*time.Minute), "evaluationPeriod", time.Duration(c.EvaluationPeriod), "0s–10m")
	bad(c.ScaleOutPoints >= 1 && c.ScaleOutPoints <= 100, "scaleOutPoints", c.ScaleOutPoints, "1–100 (data points)")
	bad(c.ScaleInPoints >= 1 && c.ScaleInPoints <= 100, "scaleInPoints", c.ScaleInPoints, "1–100 (data points)")
	bad(within(c.ScaleOutCooldown, 0, time.Hour), "scaleOutCooldown", time.Duration(c.ScaleOutCooldown), "0s–1h")
	bad(within(c.ScaleInCooldown, 0, time.Hour), "scaleInCooldown", time.Duration(c.ScaleInCooldown), "0s–1h")
	bad(within(c.EstimatedInstanceWarmup, 0, time.Hour), "estimatedInstanceWarmup", time.Duration(c.EstimatedInstanceWarmup), "0s–1h")
	return errors.Join(errs...)
}

// Policy decides as the package says. It is not safe for concurrent use.
type Policy struct {
	cfg   Config
	state state
}

type state struct {
	Recent algorithms.Maxima `json:"recent,omitempty"`
	// Point is when the last data point was taken; High and Low count those in a row that breached.
	Point time.Time `json:"point,omitzero"`
	High  int       `json:"high,omitempty"`
	Low   int       `json:"low,omitempty"`
	// Out and In are when this policy last asked for a change.
	Out time.Time `json:"out,omitzero"`
	In  time.Time `json:"in,omitzero"`
}

const version = 2

// New returns a policy with a validated Config.
func New(c Config) (*Policy, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Policy{cfg: c}, nil
}

// Needs names the one window.
func (p *Policy) Needs() []algorithms.Need {
	return []algorithms.Need{{Name: p.cfg.Signal, Window: time.Duration(p.cfg.Window)}}
}

// Decide answers one observation.
func (p *Policy) Decide(o algorithms.Observation) algorithms.Decision {
	c, s, cur := &p.cfg, &p.state, o.Replicas.Current
	i := o.Index(c.Signal, time.Duration(c.Window))
	if i < 0 {
		s.High, s.Low = 0, 0
		d := algorithms.Decision{Reason: "NoData"}
		if !o.Quiet {
			d.Message = fmt.Sprintf("%s over %s is unknown", c.Signal, time.Duration(c.Window))
		}
		return d
	}
	total := o.Signals[i].Value
	raw := algorithms.Pods(math.Ceil(total / c.Target))
	if o.Limits.Max > 0 {
		raw = min(raw, o.Limits.Max)
	}
	n, reason, ratio := p.choose(o.Now, cur, raw, total)
	if held := s.Recent.Add(o.Now, n, time.Duration(c.StabilizationWindow)); held > n && n < cur {
		n, reason = min(held, cur), "Stabilized"
	}
	if o.Limits.Max > 0 {
		n = min(n, o.Limits.Max)
	}
	switch {
	case n > cur:
		s.Out = o.Now
	case n < cur:
		s.In = o.Now
	}
	d := algorithms.Decision{Replicas: n, Valid: true, Reason: reason}
	if !o.Quiet {
		d.Message = fmt.Sprintf("%.4g of %s over %s at %.4g a pod ask for %d pods; %s gives %d", total, c.Signal, time.Duration(c.Window), c.Target, raw, reason, n)
		d.Terms = append(o.Scratch[:0],
			algorithms.Term{Name: c.Signal, Value: total},
			algorithms.Term{Name: "target", Value: c.Target},
			algorithms.Term{Name: "ratio", Value: ratio},
			algorithms.Term{Name: "rawPods", Value: float64(raw)})
	}
	return d
}

// choose answers before stabilization, with the ratio of load to what the current pods should carry (0 at zero pods).
func (p *Policy) choose(now time.Time, cur, raw int, total float64) (n int, reason string, ratio float64) {
	c, s := &p.cfg, &p.state
	if cur == 0 {
		return raw, "Target", 0
	}
	ratio = min(max(total/(c.Target*float64(cur)), -math.MaxFloat64), math.MaxFloat64)
	margin := c.Tolerance
	if c.ScaleInMargin != nil {
		margin = *c.ScaleInMargin
	}
	high, low := ratio > 1+c.Tolerance, ratio < 1-margin
	if s.Point.IsZero() || now.Sub(s.Point) >= time.Duration(c.EvaluationPeriod) {
		s.Point = now
		s.High, s.Low = row(s.High, high), row(s.Low, low)
	}
	recent := func(at time.Time, d algorithms.Duration) bool {
		return !at.IsZero() && now.Sub(at) < time.Duration(d)
	}
	switch {
	case high && s.High < c.ScaleOutPoints, low && s.Low < c.ScaleInPoints:
		return cur, "Evaluating", ratio
	case high && raw > cur && recent(s.Out, c.ScaleOutCooldown):
		return cur, "CoolingDown", ratio
	case high:
		return max(raw, cur), "Target", ratio
	case low && c.DisableScaleIn:
		return cur, "ScaleInDisabled", ratio
	case low && raw < cur && recent(s.Out, c.EstimatedInstanceWarmup):
		return cur, "WarmingUp", ratio
	case low && raw < cur && (recent(s.In, c.ScaleInCooldown) || recent(s.Out, c.ScaleInCooldown)):
		return cur, "CoolingDown", ratio
	case low:
		return min(raw, cur), "Target", ratio
	}
	return cur, "WithinTolerance", ratio
}

// row counts breaches in a row, bounded so that it stays a number of sane size.
func row(n int, breach bool) int {
	if !breach {
		return 0
	}
	return min(n+1, 1000)
}

// Snapshot returns the memory.
func (p *Policy) Snapshot() json.RawMessage { return memory.Save("target", version, p.state) }

// Restore puts back a Snapshot.
func (p *Policy) Restore(raw json.RawMessage) error {
	s, err := memory.Load[state]("target", version, raw)
	if err != nil {
		return err
	}
	p.state = s
	return nil
}
