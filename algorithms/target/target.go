// Package target is AWS target tracking: keep a signal's mean per pod at a target.
//
//	raw = ceil(total / target)                 = ceil(current · metric / target) with the metric per pod
//	U   = total / (target · current)           load over what the pods asked for should carry
//	out when U > 1 + tolerance for scaleOutPoints data points in a row, to raw
//	in  when U < 1 − scaleInMargin for scaleInPoints data points in a row, to raw, unless disableScaleIn
//
// In between nothing changes. A data point is one decision, or the first decision in each
// evaluationPeriod. From zero pods any load scales out at once. Pods asked for count as capacity
// from then on, so that pods in warm-up are not asked for twice; during warm-up after a scale-out
// nothing scales in. A cooldown follows a change and bounds the same direction; a scale-out may
// always interrupt the cooldown of a scale-in. An unknown value restarts both counts of data
// points, so that nothing scales in on missing data. stabilizationWindow keeps the largest answer
// of that long when scaling in, as the Kubernetes HPA.
//
// Default suits request concurrency measured every few seconds. AWS is what an ECS service gets:
// data points of a minute, 3 of them above the target to go out, 15 below 90 % of it to go in,
// cooldowns of 5m.
//
// Source: "Target tracking scaling policies",
// docs.aws.amazon.com/autoscaling/application/userguide. That page, the API's reference and that of
// AWS CDK were checked for the cooldowns (300 s where none is given, for ECS services) and for what
// they block. No public page of AWS states the alarms' counts of points and their margin: they are
// those of the alarms that it creates.
package target

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/memory"
	"github.com/sluice-autoscaler/sluice/algorithms/params"
)

// Config holds the parameters.
type Config struct {
	// Signal is what is measured, a total over the workload.
	Signal string `json:"signal"`
	// Target is what one pod should carry, in the signal's unit. Lower costs pods, higher waiting.
	Target float64 `json:"target"`
	// Window is the averaging time. Longer is calmer and slower.
	Window algorithms.Duration `json:"window"`
	// Tolerance is the share by which load may exceed what the current pods should carry before
	// anything changes. More changes less often and lets pods carry more.
	Tolerance float64 `json:"tolerance"`
	// ScaleInMargin is the share by which load may fall below it; null takes Tolerance.
	ScaleInMargin *float64 `json:"scaleInMargin,omitempty"`
	// StabilizationWindow keeps the largest answer of this long: the HPA's scale-down
	// stabilization. Longer costs pods and flaps less.
	StabilizationWindow algorithms.Duration `json:"stabilizationWindow"`
	// EvaluationPeriod is the least time between two data points; 0s takes every decision.
	EvaluationPeriod algorithms.Duration `json:"evaluationPeriod"`
	// ScaleOutPoints and ScaleInPoints are how many data points in a row must breach. More is
	// calmer and slower.
	ScaleOutPoints int `json:"scaleOutPoints"`
	ScaleInPoints  int `json:"scaleInPoints"`
	// ScaleOutCooldown and ScaleInCooldown are how long after a change in a direction the next one
	// in it waits.
	ScaleOutCooldown algorithms.Duration `json:"scaleOutCooldown"`
	ScaleInCooldown  algorithms.Duration `json:"scaleInCooldown"`
	// EstimatedInstanceWarmup is how long after a scale-out nothing goes in.
	EstimatedInstanceWarmup algorithms.Duration `json:"estimatedInstanceWarmup"`
	// DisableScaleIn lets the policy only go out.
	DisableScaleIn bool `json:"disableScaleIn"`
}

// Default returns a window of 30 s, a tolerance of 0.1 both ways, a stabilization window of 60 s
// and none of AWS's waits; Target is the caller's.
func Default() Config {
	return Config{
		Signal: algorithms.Concurrency, Target: 70, Window: algorithms.Duration(30 * time.Second), Tolerance: 0.1,
		StabilizationWindow: algorithms.Duration(time.Minute), ScaleOutPoints: 1, ScaleInPoints: 1,
	}
}

// AWS returns the settings of target tracking of an ECS service; Target is the caller's.
func AWS() Config {
	c := Default()
	c.Window, c.EvaluationPeriod = algorithms.Duration(time.Minute), algorithms.Duration(time.Minute)
	c.Tolerance, c.ScaleInMargin, c.StabilizationWindow = 0, new(0.1), 0
	c.ScaleOutPoints, c.ScaleInPoints = 3, 15
	c.ScaleOutCooldown, c.ScaleInCooldown = algorithms.Duration(5*time.Minute), algorithms.Duration(5*time.Minute)
	return c
}

// Params describes the parameters.
func Params() params.List[Config] {
	hour := params.Spans(0, time.Hour)
	points := params.Between(1, 100)
	return params.List[Config]{
		params.Text("signal", "a signal's name", "what is measured, a total over the workload", func(c *Config) *string { return &c.Signal }),
		params.Of("target", params.Above(0), "requests per pod", "what one pod should carry",
			func(c *Config) *float64 { return &c.Target }).After(params.SignalTarget).Search("20%..110%"),
		params.Of("window", params.Spans(time.Second, time.Hour), "", "averaging time",
			func(c *Config) *algorithms.Duration { return &c.Window }).Search("2s..10m:log"),
		params.Of("tolerance", params.Between(0, 1), "", "share of deviation that changes nothing",
			func(c *Config) *float64 { return &c.Tolerance }).Search("0.0..0.3"),
		params.Optional("scaleInMargin", params.Between(0, 1), "", "the same, below the target",
			func(c *Config) *float64 { return c.ScaleInMargin }).After("tolerance"),
		params.Of("stabilizationWindow", hour, "", "keep the largest answer of this long before going down",
			func(c *Config) *algorithms.Duration { return &c.StabilizationWindow }).Search("0s|15s|30s|1m|2m|5m|10m|20m"),
		params.Of("evaluationPeriod", params.Spans(0, 10*time.Minute), "", "least time between two data points",
			func(c *Config) *algorithms.Duration { return &c.EvaluationPeriod }),
		params.Of("scaleOutPoints", points, "data points", "data points in a row before going out",
			func(c *Config) *int { return &c.ScaleOutPoints }).Search("1..5:whole"),
		params.Of("scaleInPoints", points, "data points", "data points in a row before going in",
			func(c *Config) *int { return &c.ScaleInPoints }),
		params.Of("scaleOutCooldown", hour, "", "wait after going out before going out again",
			func(c *Config) *algorithms.Duration { return &c.ScaleOutCooldown }),
		params.Of("scaleInCooldown", hour, "", "wait after a change before going in",
			func(c *Config) *algorithms.Duration { return &c.ScaleInCooldown }),
		params.Of("estimatedInstanceWarmup", hour, "", "how long after going out nothing goes in",
			func(c *Config) *algorithms.Duration { return &c.EstimatedInstanceWarmup }),
		params.Bool("disableScaleIn", "only ever go out", func(c *Config) *bool { return &c.DisableScaleIn }),
	}
}

// Validate reports every fault.
func (c Config) Validate() error { return Params().Check(&c) }

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
	n, reason, ratio := p.decide(o.Now, cur, raw, total)
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

// decide answers before stabilization, with the ratio of load to what the current pods should carry
// (0 at zero pods).
func (p *Policy) decide(now time.Time, cur, raw int, total float64) (n int, reason string, ratio float64) {
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
		s.High, s.Low = streak(s.High, high), streak(s.Low, low)
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

// streak counts breaches in a row, bounded.
func streak(n int, breach bool) int {
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
