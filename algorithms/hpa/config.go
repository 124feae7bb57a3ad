package hpa

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/behavior"
	"github.com/sluice-autoscaler/sluice/algorithms/params"
)

// The types of metrics and of targets, as the HPA names them.
const (
	Pods         = "Pods"
	Object       = "Object"
	External     = "External"
	Resource     = "Resource"
	Value        = "Value"
	AverageValue = "AverageValue"
	Utilization  = "Utilization"
)

// What Limits may be.
const (
	LimitsStock = "stock"
	LimitsNone  = "none"
)

// Release is a minor release of Kubernetes.
type Release string

// The releases whose arithmetic is known.
const (
	Release137 Release = "1.37"
	Release138 Release = "1.38"
)

// UnmarshalJSON reads "1.37", and 1.37, as YAML without quotes has it.
func (r *Release) UnmarshalJSON(b []byte) error {
	*r = Release(strings.Trim(string(b), `"`))
	return nil
}

// Config holds the parameters: the fields of a HorizontalPodAutoscaler's spec, and the settings of
// the controller that runs it.
type Config struct {
	// Metrics are spec.metrics; the largest proposal wins. None means one of type External: the
	// total concurrency, with an AverageValue of Target.
	Metrics []Metric `json:"metrics,omitempty"`
	// Target is the concurrency that one pod should carry, in requests; used only when Metrics is
	// empty. Lower costs pods, higher waiting.
	Target float64 `json:"target"`
	// MinReplicas and MaxReplicas are the spec's; left out, those of the observation hold. They
	// matter only when answers are limited here.
	MinReplicas *int `json:"minReplicas,omitempty"`
	MaxReplicas *int `json:"maxReplicas,omitempty"`
	// Behavior is spec.behavior. Left out, answers are limited as Limits says.
	Behavior *behavior.Rules `json:"behavior,omitempty"`
	// Limits is LimitsStock or LimitsNone. Stock are the rules of an HPA without spec.behavior: the
	// largest answer of 300 s, and at most max(2 × count 15 s ago, 4) pods. None leaves the bare
	// calculator. It goes with no Behavior.
	Limits string `json:"limits"`
	// SyncPeriod is the least time between two looks at the metrics, the controller's
	// --horizontal-pod-autoscaler-sync-period. 0s looks at every round. Longer is slower.
	SyncPeriod algorithms.Duration `json:"syncPeriod"`
	// Release is the Kubernetes release whose arithmetic holds: Release137 or Release138.
	Release Release `json:"release"`
	// Tolerance is the share of deviation that changes nothing, where Behavior names none: the
	// controller's --horizontal-pod-autoscaler-tolerance. More changes less often.
	Tolerance float64 `json:"tolerance"`
	// CPUInitializationPeriod is how long after its start a pod's CPU readings may be left out;
	// InitialReadinessDelay how long after its start a pod counts as never having been ready. Both
	// matter to the resource cpu only.
	CPUInitializationPeriod algorithms.Duration `json:"cpuInitializationPeriod"`
	InitialReadinessDelay   algorithms.Duration `json:"initialReadinessDelay"`
}

// Metric is one of spec.metrics. Type says which of the others is set.
type Metric struct {
	// Type is Pods, Object, External or Resource.
	Type string `json:"type"`
	// Window is Sluice's own: the window of the signal. Left out, it is the reading of the instant
	// or, where there is none, the shortest known window. Readings of single pods have none.
	Window   *algorithms.Duration `json:"window,omitempty"`
	Pods     *PodsMetric          `json:"pods,omitempty"`
	Object   *ObjectMetric        `json:"object,omitempty"`
	External *ExternalMetric      `json:"external,omitempty"`
	Resource *ResourceMetric      `json:"resource,omitempty"`
}

// PodsMetric is a value of each pod; the target is an AverageValue.
type PodsMetric struct {
	Metric Identifier `json:"metric"`
	Target Target     `json:"target"`
}

// ObjectMetric is a value of one object; the target is a Value or an AverageValue.
type ObjectMetric struct {
	// DescribedObject is accepted and not used: the signal's name suffices.
	DescribedObject json.RawMessage `json:"describedObject,omitempty"`
	Metric          Identifier      `json:"metric"`
	Target          Target          `json:"target"`
}

// ExternalMetric is a value of something else; the target is a Value or an AverageValue.
type ExternalMetric struct {
	Metric Identifier `json:"metric"`
	Target Target     `json:"target"`
}

// ResourceMetric is what each pod uses of a resource; the target is an AverageValue or a
// Utilization of what it requests.
type ResourceMetric struct {
	// Name is the resource, which is the signal's name: cpu, in cores, or memory, in bytes.
	Name   string `json:"name"`
	Target Target `json:"target"`
}

// Identifier names a signal.
type Identifier struct {
	Name string `json:"name"`
	// Selector is accepted and not used: signals have been selected by their rules.
	Selector json.RawMessage `json:"selector,omitempty"`
}

// Target is what is aimed at. Type says which of the others is set.
type Target struct {
	Type               string               `json:"type"`
	Value              *algorithms.Quantity `json:"value,omitempty"`
	AverageValue       *algorithms.Quantity `json:"averageValue,omitempty"`
	AverageUtilization *int                 `json:"averageUtilization,omitempty"`
}

// Default returns the HPA controller's settings, and no metrics; Target is the caller's to set.
func Default() Config {
	return Config{
		Target: 70, Tolerance: 0.1, Limits: LimitsStock, Release: Release137,
		CPUInitializationPeriod: algorithms.Duration(5 * time.Minute), InitialReadinessDelay: algorithms.Duration(30 * time.Second),
	}
}

// metric is a Metric as the calculator wants it.
type metric struct {
	kind, name string
	window     time.Duration
	anyWindow  bool
	// goal is the target in thousandths, or in percent for a Utilization.
	goal int64
	aim  string
	cpu  bool
}

// Params describes the parameters.
func Params() params.List[Config] {
	return params.List[Config]{
		params.Other[Config]("metrics", "as spec.metrics of autoscaling/v2, with window", "total concurrency, AverageValue target", "what is compared; the largest proposal wins"),
		params.Of("target", params.Above(0).UpTo(1e12), "requests per pod", "what one pod should carry",
			func(c *Config) *float64 { return &c.Target }).After(params.SignalTarget).Search("20%..110%"),
		params.Optional("minReplicas", params.AtLeast(0), "pods", "lower bound of behavior",
			func(c *Config) *int { return c.MinReplicas }).After("the Autoscaler's"),
		params.Optional("maxReplicas", params.AtLeast(1), "pods", "upper bound of behavior",
			func(c *Config) *int { return c.MaxReplicas }).After("the Autoscaler's").Also("at least minReplicas",
			func(c *Config) bool {
				return c.MaxReplicas == nil || c.MinReplicas == nil || *c.MaxReplicas >= *c.MinReplicas
			}),
		params.Other[Config]("behavior", "as spec.behavior of autoscaling/v2", "none: limits", "stabilization windows and rates"),
		params.OneOf("limits", "without behavior: those of an HPA without spec.behavior, or the bare calculator",
			func(c *Config) *string { return &c.Limits }, LimitsStock, LimitsNone),
		params.Of("syncPeriod", params.Spans(0, time.Hour), "", "least time between two looks at the metrics; 0s: every round",
			func(c *Config) *algorithms.Duration { return &c.SyncPeriod }),
		params.OneOf("release", "whose arithmetic holds", func(c *Config) *string { return (*string)(&c.Release) }, string(Release137), string(Release138)),
		params.Of("tolerance", params.AtLeast(0), "", "share of deviation that changes nothing",
			func(c *Config) *float64 { return &c.Tolerance }).Search("0.0..0.3"),
		params.Of("cpuInitializationPeriod", params.AtLeast(0), "", "how long after its start a pod's cpu is doubted",
			func(c *Config) *algorithms.Duration { return &c.CPUInitializationPeriod }),
		params.Of("initialReadinessDelay", params.AtLeast(0), "", "how long after its start a pod counts as never ready; cpu only",
			func(c *Config) *algorithms.Duration { return &c.InitialReadinessDelay }),
	}
}

// Validate reports every fault.
func (c Config) Validate() error {
	_, err := c.metrics()
	errs := []error{err, Params().Check(&c)}
	if c.Behavior != nil {
		errs = append(errs, c.Behavior.Validate())
	}
	return errors.Join(errs...)
}

// maxMetrics bounds the metrics: each is looked for among all signals at each decision.
const maxMetrics = 100

// metrics checks and resolves the metrics.
func (c Config) metrics() ([]metric, error) {
	if len(c.Metrics) == 0 {
		return []metric{{kind: External, name: algorithms.Concurrency, anyWindow: true, aim: AverageValue, goal: max(1, milli(c.Target))}}, nil
	}
	if len(c.Metrics) > maxMetrics {
		return nil, fmt.Errorf("metrics = %d: want at most %d", len(c.Metrics), maxMetrics)
	}
	var out []metric
	var errs []error
	for i, m := range c.Metrics {
		at := fmt.Sprintf("metrics[%d]", i)
		r, t := metric{kind: m.Type, anyWindow: m.Window == nil}, Target{}
		if m.Window != nil {
			if r.window = time.Duration(*m.Window); r.window < 0 || r.window > time.Hour {
				errs = append(errs, fmt.Errorf("%s.window = %v: want 0s–1h", at, r.window))
			}
		}
		set := 0
		for _, s := range []bool{m.Pods != nil, m.Object != nil, m.External != nil, m.Resource != nil} {
			if s {
				set++
			}
		}
		var allowed []string
		switch {
		case m.Type == Pods && m.Pods != nil:
			r.name, t, allowed = m.Pods.Metric.Name, m.Pods.Target, []string{AverageValue}
		case m.Type == Object && m.Object != nil:
			r.name, t, allowed = m.Object.Metric.Name, m.Object.Target, []string{Value, AverageValue}
		case m.Type == External && m.External != nil:
			r.name, t, allowed = m.External.Metric.Name, m.External.Target, []string{Value, AverageValue}
		case m.Type == Resource && m.Resource != nil:
			r.name, t, allowed = m.Resource.Name, m.Resource.Target, []string{Utilization, AverageValue}
			r.cpu = r.name == "cpu"
		default:
			errs = append(errs, fmt.Errorf("%s.type = %q: want Pods, Object, External or Resource, and the field of that name", at, m.Type))
			continue
		}
		if set > 1 {
			errs = append(errs, fmt.Errorf("%s has %d sources: want the one that its type names", at, set))
		}
		if r.name == "" {
			errs = append(errs, fmt.Errorf("%s has no name: want the signal's", at))
		}
		var err error
		if r.aim, r.goal, err = t.resolve(allowed); err != nil {
			errs = append(errs, fmt.Errorf("%s.target: %w", at, err))
		}
		out = append(out, r)
	}
	return out, errors.Join(errs...)
}

// resolve checks that the target has one of the allowed types and the one value that goes with it.
func (t Target) resolve(allowed []string) (aim string, goal int64, err error) {
	ok := false
	for _, a := range allowed {
		ok = ok || a == t.Type
	}
	if !ok {
		return "", 0, fmt.Errorf("type = %q: want one of %q", t.Type, allowed)
	}
	given := 0
	for _, s := range []bool{t.Value != nil, t.AverageValue != nil, t.AverageUtilization != nil} {
		if s {
			given++
		}
	}
	switch {
	case given != 1:
	case t.Type == Value && t.Value != nil:
		goal = t.Value.Milli()
	case t.Type == AverageValue && t.AverageValue != nil:
		goal = t.AverageValue.Milli()
	case t.Type == Utilization && t.AverageUtilization != nil:
		goal = int64(*t.AverageUtilization)
	}
	if goal <= 0 {
		return "", 0, fmt.Errorf("want value, averageValue or averageUtilization, the one that type %s names, and > 0", t.Type)
	}
	return t.Type, goal, nil
}
