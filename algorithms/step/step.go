// Package step is AWS step scaling: how far the metric is beyond an alarm's threshold chooses a
// step, and the step says by how much to change. The metric is the mean per ready pod (as
// CloudWatch averages over instances) or the workload's total.
//
//	out: metric ≥ scaleOut.threshold; breach b = metric − threshold ≥ 0; the step with lower ≤ b < upper
//	in:  metric ≤ scaleIn.threshold;  breach b = metric − threshold ≤ 0; the step with lower < b ≤ upper
//	ChangeInCapacity         new = base + adjustment
//	PercentChangeInCapacity  new = base + base·adjustment/100, the change rounded towards zero but
//	                         never to 0, and at least minAdjustmentMagnitude pods
//	ExactCapacity            new = adjustment
//
// Warm-up: for estimatedInstanceWarmup after a scale-out the pods it added do not count as
// capacity. base is the count without them, so that a breach in the same step adds nothing and a
// larger one only the difference; nothing scales in meanwhile. A missing bound is open. Cooldowns
// start with a change. Where both alarms have one threshold and the metric is at it, out comes
// first, as AWS takes the larger capacity.
//
// Source: "Step and simple scaling policies for Amazon EC2 Auto Scaling",
// docs.aws.amazon.com/autoscaling/ec2/userguide.
package step

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

// How the metric is made of the signal.
const (
	// PerPod divides by the ready pods, at least one.
	PerPod = "PerPod"
	// Total takes it as it is.
	Total = "Total"
)

// Adjustment types, in AWS's words.
const (
	ChangeInCapacity        = "ChangeInCapacity"
	PercentChangeInCapacity = "PercentChangeInCapacity"
	ExactCapacity           = "ExactCapacity"
)

// Step says what to do for a range of breaches.
type Step struct {
	// MetricIntervalLowerBound and MetricIntervalUpperBound bound the breach, in the metric's unit;
	// null is open.
	MetricIntervalLowerBound *float64 `json:"metricIntervalLowerBound,omitempty"`
	MetricIntervalUpperBound *float64 `json:"metricIntervalUpperBound,omitempty"`
	// ScalingAdjustment is in pods or percent, by adjustmentType.
	ScalingAdjustment float64 `json:"scalingAdjustment"`
}

// Alarm is a threshold with its steps. Without steps it never acts.
type Alarm struct {
	// Threshold is in the metric's unit.
	Threshold float64 `json:"threshold"`
	// EvaluationPeriods is how many decisions in a row must breach, 1–1000.
	EvaluationPeriods int    `json:"evaluationPeriods"`
	StepAdjustments   []Step `json:"stepAdjustments"`
}

// Config holds the parameters, in AWS's words where it has them.
type Config struct {
	// Signal and Window name what is measured; a Window of 0s is a reading.
	Signal string              `json:"signal"`
	Window algorithms.Duration `json:"window"`
	// Metric is PerPod or Total.
	Metric string `json:"metric"`
	// AdjustmentType is ChangeInCapacity, PercentChangeInCapacity or ExactCapacity.
	AdjustmentType string `json:"adjustmentType"`
	// MinAdjustmentMagnitude is the least change in pods of PercentChangeInCapacity.
	MinAdjustmentMagnitude int `json:"minAdjustmentMagnitude"`
	// EstimatedInstanceWarmup is how long new pods count as coming.
	EstimatedInstanceWarmup algorithms.Duration `json:"estimatedInstanceWarmup"`
	// ScaleOutCooldown and ScaleInCooldown are how long after a change of that direction another
	// one waits. Longer is calmer and slower.
	ScaleOutCooldown algorithms.Duration `json:"scaleOutCooldown"`
	ScaleInCooldown  algorithms.Duration `json:"scaleInCooldown"`
	ScaleOut         Alarm               `json:"scaleOut"`
	ScaleIn          Alarm               `json:"scaleIn"`
}

// Default returns an example that works: at or above 70 per pod one pod more, from 140 on two more;
// at or below 35 one less, after a cooldown of 5 minutes.
func Default() Config {
	return Config{
		Signal: algorithms.Concurrency, Window: algorithms.Duration(time.Minute), Metric: PerPod, AdjustmentType: ChangeInCapacity,
		EstimatedInstanceWarmup: algorithms.Duration(time.Minute), ScaleInCooldown: algorithms.Duration(5 * time.Minute),
		ScaleOut: Alarm{Threshold: 70, EvaluationPeriods: 1, StepAdjustments: []Step{{MetricIntervalLowerBound: new(0.0), MetricIntervalUpperBound: new(70.0), ScalingAdjustment: 1}, {MetricIntervalLowerBound: new(70.0), ScalingAdjustment: 2}}},
		ScaleIn:  Alarm{Threshold: 35, EvaluationPeriods: 1, StepAdjustments: []Step{{MetricIntervalUpperBound: new(0.0), ScalingAdjustment: -1}}},
	}
}

// Params describes the parameters.
func Params() params.List[Config] {
	hour := params.Spans(0, time.Hour)
	return params.List[Config]{
		params.Text("signal", "a signal's name", "what is measured, a total over the workload", func(c *Config) *string { return &c.Signal }),
		params.Of("window", hour, "", "averaging time; 0s is a reading",
			func(c *Config) *algorithms.Duration { return &c.Window }).Search("10s..5m:log"),
		params.OneOf("metric", "mean per ready pod, or as it is", func(c *Config) *string { return &c.Metric }, PerPod, Total),
		params.OneOf("adjustmentType", "what scalingAdjustment means", func(c *Config) *string { return &c.AdjustmentType }, ChangeInCapacity, PercentChangeInCapacity, ExactCapacity),
		params.Of("minAdjustmentMagnitude", params.Between(0, 1_000_000), "pods", "least change in percent",
			func(c *Config) *int { return &c.MinAdjustmentMagnitude }),
		params.Of("scaleInCooldown", hour, "", "wait after a change before going in",
			func(c *Config) *algorithms.Duration { return &c.ScaleInCooldown }).Search("15s..20m:log"),
		params.Of("scaleOutCooldown", hour, "", "wait after going out before going out again",
			func(c *Config) *algorithms.Duration { return &c.ScaleOutCooldown }).Search("0s|15s|30s|1m|5m"),
		params.Of("estimatedInstanceWarmup", hour, "", "how long new pods count as coming",
			func(c *Config) *algorithms.Duration { return &c.EstimatedInstanceWarmup }).Search("5s..5m:log"),
		params.Other[Config]("scaleOut", "{threshold, evaluationPeriods, stepAdjustments}", "70: +1, 140: +2", "alarm and steps out"),
		params.Other[Config]("scaleIn", "{threshold, evaluationPeriods, stepAdjustments}", "35: −1", "alarm and steps in"),
	}
}

// Validate reports every fault.
func (c Config) Validate() error {
	errs := []error{Params().Check(&c)}
	both := len(c.ScaleOut.StepAdjustments) > 0 && len(c.ScaleIn.StepAdjustments) > 0
	if both && c.ScaleOut.Threshold < c.ScaleIn.Threshold {
		errs = append(errs, fmt.Errorf("scaleIn.threshold = %v: want at most scaleOut.threshold, %v", c.ScaleIn.Threshold, c.ScaleOut.Threshold))
	}
	errs = append(errs, c.alarm("scaleOut", c.ScaleOut, 1)...)
	errs = append(errs, c.alarm("scaleIn", c.ScaleIn, -1)...)
	return errors.Join(errs...)
}

// alarm checks one side; sign is 1 for out and −1 for in.
func (c Config) alarm(name string, a Alarm, sign float64) (errs []error) {
	if !algorithms.Finite(a.Threshold) {
		errs = append(errs, fmt.Errorf("%s.threshold = %v: want a finite number", name, a.Threshold))
	}
	if a.EvaluationPeriods < 1 || a.EvaluationPeriods > 1000 {
		errs = append(errs, fmt.Errorf("%s.evaluationPeriods = %d: want 1–1000 (decisions)", name, a.EvaluationPeriods))
	}
	for i, s := range a.StepAdjustments {
		at := fmt.Sprintf("%s.stepAdjustments[%d]", name, i)
		lo, hi := s.bounds()
		switch {
		case math.IsNaN(lo) || math.IsNaN(hi) || lo >= hi:
			errs = append(errs, fmt.Errorf("%s: interval from %v to %v: want the lower bound below the upper", at, lo, hi))
		case sign > 0 && hi <= 0 || sign < 0 && lo >= 0:
			errs = append(errs, fmt.Errorf("%s: interval from %v to %v: want breaches of this alarm (scaleOut ≥ 0, scaleIn ≤ 0)", at, lo, hi))
		}
		exact := c.AdjustmentType == ExactCapacity
		if v := s.ScalingAdjustment; !algorithms.Finite(v) || math.Abs(v) > 1e6 || (exact && v < 0) || (!exact && v*sign < 0) || (c.AdjustmentType != PercentChangeInCapacity && v != math.Trunc(v)) {
			errs = append(errs, fmt.Errorf("%s.scalingAdjustment = %v: want a number of the alarm's direction, whole unless in percent, up to 1000000", at, v))
		}
		for j := range i {
			if l, h := a.StepAdjustments[j].bounds(); lo < h && l < hi {
				errs = append(errs, fmt.Errorf("%s: interval from %v to %v overlaps that of step %d", at, lo, hi, j))
			}
		}
	}
	return errs
}

func (s Step) bounds() (lo, hi float64) {
	lo, hi = math.Inf(-1), math.Inf(1)
	if s.MetricIntervalLowerBound != nil {
		lo = *s.MetricIntervalLowerBound
	}
	if s.MetricIntervalUpperBound != nil {
		hi = *s.MetricIntervalUpperBound
	}
	return lo, hi
}

// Policy decides as the package says. It is not safe for concurrent use.
type Policy struct {
	cfg   Config
	state state
}

type state struct {
	// High and Low count the decisions in a row that breached.
	High int `json:"high"`
	Low  int `json:"low"`
	// Out and In are when the last changes were asked for.
	Out time.Time `json:"out,omitzero"`
	In  time.Time `json:"in,omitzero"`
	// Base is the count without the pods in warm-up, meaningful until Out + warm-up.
	Base int `json:"base"`
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

// Decide answers one observation.
func (p *Policy) Decide(o algorithms.Observation) algorithms.Decision {
	c, s := p.cfg, &p.state
	i := o.Index(c.Signal, time.Duration(c.Window))
	if i < 0 {
		s.High, s.Low = 0, 0
		d := algorithms.Decision{Reason: "NoData"}
		if !o.Quiet {
			d.Message = c.Signal + " is unknown"
		}
		return d
	}
	cur, metric := o.Replicas.Current, o.Signals[i].Value
	if c.Metric == PerPod {
		metric /= float64(max(1, o.Replicas.Ready))
	}
	warming := !s.Out.IsZero() && o.Now.Sub(s.Out) < time.Duration(c.EstimatedInstanceWarmup) && s.Base < cur
	base := cur
	if warming {
		base = s.Base
	}
	s.High, s.Low = streak(s.High, metric >= c.ScaleOut.Threshold), streak(s.Low, metric <= c.ScaleIn.Threshold)
	n, breach, reason := cur, 0.0, "NoBreach"
	switch {
	case s.High >= c.ScaleOut.EvaluationPeriods && len(c.ScaleOut.StepAdjustments) > 0:
		breach = clamp(metric - c.ScaleOut.Threshold)
		st, ok := findStep(c.ScaleOut.StepAdjustments, func(lo, hi float64) bool { return lo <= breach && breach < hi })
		want := c.apply(base, st)
		if o.Limits.Max > 0 {
			want = min(want, o.Limits.Max)
		}
		switch {
		case !ok:
			reason = "NoStep"
		case want <= cur:
			reason = "AlreadyOut"
		case !s.Out.IsZero() && o.Now.Sub(s.Out) < time.Duration(c.ScaleOutCooldown):
			reason = "CoolingDown"
		default:
			n, reason = want, "ScaleOut"
			s.Base, s.Out = base, o.Now
		}
	case s.Low >= c.ScaleIn.EvaluationPeriods && len(c.ScaleIn.StepAdjustments) > 0:
		breach = clamp(metric - c.ScaleIn.Threshold)
		st, ok := findStep(c.ScaleIn.StepAdjustments, func(lo, hi float64) bool { return lo < breach && breach <= hi })
		switch want := c.apply(cur, st); {
		case !ok:
			reason = "NoStep"
		case want >= cur:
			reason = "AlreadyIn"
		case warming:
			reason = "WarmingUp"
		case coolingDown(o.Now, s.In, c.ScaleInCooldown) || coolingDown(o.Now, s.Out, c.ScaleInCooldown):
			reason = "CoolingDown"
		default:
			n, reason = want, "ScaleIn"
			s.In = o.Now
		}
	}
	if o.Limits.Max > 0 {
		n = min(n, o.Limits.Max)
	}
	d := algorithms.Decision{Replicas: n, Valid: true, Reason: reason}
	if !o.Quiet {
		d.Message = fmt.Sprintf("%s %s is %.4g, %.4g beyond its threshold: %s gives %d pods", c.Metric, c.Signal, metric, breach, reason, n)
		d.Terms = append(o.Scratch[:0],
			algorithms.Term{Name: "metric", Value: metric},
			algorithms.Term{Name: "breach", Value: breach},
			algorithms.Term{Name: "base", Value: float64(base)})
	}
	return d
}

func coolingDown(now, since time.Time, d algorithms.Duration) bool {
	return !since.IsZero() && now.Sub(since) < time.Duration(d)
}

func clamp(v float64) float64 { return min(max(v, -math.MaxFloat64), math.MaxFloat64) }

// streak counts breaches in a row, bounded.
func streak(n int, breach bool) int {
	if !breach {
		return 0
	}
	return min(n+1, 1000)
}

func findStep(steps []Step, within func(lo, hi float64) bool) (Step, bool) {
	for _, s := range steps {
		if within(s.bounds()) {
			return s, true
		}
	}
	return Step{}, false
}

// apply computes a step's count from base.
func (c Config) apply(base int, s Step) int {
	b := float64(base)
	switch c.AdjustmentType {
	case ExactCapacity:
		return algorithms.Pods(s.ScalingAdjustment)
	case PercentChangeInCapacity:
		change := b * s.ScalingAdjustment / 100
		sign := math.Copysign(1, change)
		if change != 0 {
			change = sign * max(1, math.Floor(math.Abs(change)), float64(c.MinAdjustmentMagnitude))
		} else if s.ScalingAdjustment != 0 { // from zero pods, percents of nothing
			change = math.Copysign(float64(c.MinAdjustmentMagnitude), s.ScalingAdjustment)
		}
		return algorithms.Pods(b + change)
	default:
		return algorithms.Pods(b + s.ScalingAdjustment)
	}
}

// Snapshot returns the memory.
func (p *Policy) Snapshot() json.RawMessage { return memory.Save("step", version, p.state) }

// Restore puts back a Snapshot.
func (p *Policy) Restore(raw json.RawMessage) error {
	s, err := memory.Load[state]("step", version, raw)
	if err != nil {
		return err
	}
	p.state = s
	return nil
}
