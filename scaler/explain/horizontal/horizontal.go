// Package horizontal explains a HorizontalPodAutoscaler (autoscaling/v2): what each of its metrics
// says, what the HPA's own arithmetic makes of it, and which rule holds the count. The arithmetic
// is that of packages algorithms/hpa and algorithms/behavior, which the test module oracle/hpa
// holds equal to Kubernetes' controller; the same module holds these explanations against it.
//
// The controller remembers recommendations and changes of the count, and shows neither. Explain
// works out the lowest and the highest count that such a memory could lead to, given what the
// object's status tells of it. Where both are one, Desired is that count. Two things are assumed:
// that the controller looks once in Settings.Look, and that its flags are as Settings say.
//
// The package does no I/O: package horizontal/reader reads from a cluster what is explained here.
package horizontal

import (
	"slices"
	"strings"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-autoscaler/sluice/algorithms/hpa"
)

// Settings are those of the HPA's controller, which no API shows.
type Settings struct {
	// Tolerance, DownscaleStabilization, CPUInitializationPeriod and InitialReadinessDelay are the
	// controller's flags.
	Tolerance               float64
	DownscaleStabilization  time.Duration
	CPUInitializationPeriod time.Duration
	InitialReadinessDelay   time.Duration
	// Look is how long the controller's last look may be ago when it looks next: twice its sync
	// period, since this reading falls between two looks. Longer proves less.
	Look time.Duration
	// WakesAlways: at 0 replicas with minReplicas 0 the metrics are read, whoever scaled to 0. It
	// holds before release 1.37, where the feature is on.
	WakesAlways bool
	// Release is the release whose arithmetic holds.
	Release hpa.Release
}

// Default returns the controller's defaults.
func Default() Settings {
	c := hpa.Default()
	return Settings{
		Tolerance: c.Tolerance, DownscaleStabilization: 5 * time.Minute, Look: 30 * time.Second, Release: c.Release,
		CPUInitializationPeriod: time.Duration(c.CPUInitializationPeriod), InitialReadinessDelay: time.Duration(c.InitialReadinessDelay),
	}
}

// Trouble is something that could not be read, or that stands in the way.
type Trouble struct {
	// Cause is one line, Remedy what to do about it.
	Cause  string `json:"cause"`
	Remedy string `json:"remedy,omitempty"`
	// Hidden says that only this reader was refused, so that the controller may know it.
	Hidden bool `json:"hidden,omitempty"`
}

// Reading is the value of one pod, in thousandths, with its instant and the time it is a mean over.
type Reading struct {
	Value int64
	At    time.Time
	Over  time.Duration
}

// Answer is what an API answered for one metric.
type Answer struct {
	// PerPod are the readings by pod, of the types Pods, Resource and ContainerResource.
	PerPod map[string]Reading
	// Totals are the values in thousandths, of the types Object (one) and External.
	Totals []int64
	// At is the oldest instant behind the answer, zero where it names none; Over the time that the
	// values are means over, 0 where unknown.
	At   time.Time
	Over time.Duration
	// Trouble is why there is no answer, nil when there is one.
	Trouble *Trouble
}

// Input is what was read of one HorizontalPodAutoscaler.
type Input struct {
	Now      time.Time
	Settings Settings
	HPA      *autoscalingv2.HorizontalPodAutoscaler
	// Scale is the target's, nil with ScaleTrouble.
	Scale        *autoscalingv1.Scale
	ScaleTrouble *Trouble
	// Pods are those of the scale's selector; they are unknown with PodsTrouble.
	Pods        []*corev1.Pod
	PodsTrouble *Trouble
	// Answers are those of spec.metrics, in their order.
	Answers []Answer
	// Events are those of the HPA, in any order; none when they are unknown.
	Events []corev1.Event
}

// State says in a word how the HPA stands.
type State string

// The states.
const (
	// NoTarget: the scale of the target cannot be read.
	NoTarget State = "NoTarget"
	// Disabled: the target has 0 replicas, and the HPA leaves it there.
	Disabled State = "Disabled"
	// OutOfBounds: the count is corrected to a bound before any metric is read.
	OutOfBounds State = "OutOfBounds"
	// BadSelector: the pods cannot be told, or belong to several HPAs.
	BadSelector State = "BadSelector"
	// NoMetrics: no metric has a value. SomeMetricsFailed: some have none, and the others ask for
	// fewer pods. Nothing changes in both.
	NoMetrics         State = "NoMetrics"
	SomeMetricsFailed State = "SomeMetricsFailed"
	// Hidden: a metric, or the pods, could not be read by this user, and the outcome depends on it.
	Hidden State = "Hidden"
	// Steady: the metrics ask for the count that there is. Up, Down: they lead to another one.
	// Held: a rule keeps the count.
	Steady State = "Steady"
	Up     State = "Up"
	Down   State = "Down"
	Held   State = "Held"
	// Open: what the controller remembers decides, and cannot be read.
	Open State = "Open"
)

// Explanation says how a HorizontalPodAutoscaler stands. Its JSON is described in
// docs/explain-hpa.md.
type Explanation struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Sentence is the whole in one sentence.
	Sentence    string     `json:"sentence"`
	State       State      `json:"state"`
	Target      Target     `json:"target"`
	MinReplicas int        `json:"minReplicas"`
	MaxReplicas int        `json:"maxReplicas"`
	Pods        *PodCounts `json:"pods,omitempty"`
	Metrics     []Metric   `json:"metrics"`
	// Recommended is what the metrics ask for, before all limits.
	Recommended *int `json:"recommended,omitempty"`
	// Lowest and Highest bound the next count, whatever the controller remembers; Desired is the
	// one count that both are, and Likely a guess by what status and events tell.
	Lowest  *int `json:"lowest,omitempty"`
	Highest *int `json:"highest,omitempty"`
	Desired *int `json:"desired,omitempty"`
	Likely  *int `json:"likely,omitempty"`
	// Clamps are the rules that changed the count, in their order.
	Clamps []Clamp `json:"clamps,omitempty"`
	// Active is the reason that the controller's condition ScalingActive is to have.
	Active     string     `json:"active,omitempty"`
	Controller Controller `json:"controller"`
	// Unknown are the things that cannot be read from outside and bear upon this explanation.
	Unknown  []string  `json:"unknown,omitempty"`
	Troubles []Trouble `json:"troubles,omitempty"`
}

// Target is what is scaled.
type Target struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	// Replicas were asked for, Existing are there.
	Replicas *int   `json:"replicas,omitempty"`
	Existing *int   `json:"existing,omitempty"`
	Selector string `json:"selector,omitempty"`
}

// PodCounts are the pods of the target's selector.
type PodCounts struct {
	Matched     int `json:"matched"`
	Ready       int `json:"ready"`
	Unready     int `json:"unready"`
	Pending     int `json:"pending"`
	Terminating int `json:"terminating"`
	Ended       int `json:"ended"`
}

// Metric is one of spec.metrics with its value and what becomes of it.
type Metric struct {
	Type      string `json:"type"`
	Name      string `json:"name"`
	Container string `json:"container,omitempty"`
	Object    string `json:"object,omitempty"`
	Selector  string `json:"selector,omitempty"`
	// TargetType is Utilization, Value or AverageValue.
	TargetType string `json:"targetType"`
	Target     string `json:"target"`
	// Value is the mean of the pods that count, the total (External and Object), or a percentage.
	// Series is how many values an External metric has.
	Value  string `json:"value,omitempty"`
	Series int    `json:"series,omitempty"`
	// At is the oldest instant behind it.
	At            *time.Time `json:"at,omitempty"`
	AgeSeconds    *float64   `json:"ageSeconds,omitempty"`
	WindowSeconds float64    `json:"windowSeconds,omitempty"`
	// FirstRatio is value over target as read; Ratio the same after missing and unready pods were
	// filled in.
	FirstRatio *float64 `json:"firstRatio,omitempty"`
	Ratio      *float64 `json:"ratio,omitempty"`
	// ToleranceDown and ToleranceUp bound the ratios that change nothing.
	ToleranceDown float64 `json:"toleranceDown"`
	ToleranceUp   float64 `json:"toleranceUp"`
	// Tolerated: the ratio is within the tolerance. Turned: what was filled in would have turned
	// the direction. Existing: within tolerance the HPA answers the pods that exist.
	Tolerated bool `json:"tolerated,omitempty"`
	Turned    bool `json:"turned,omitempty"`
	Existing  bool `json:"existing,omitempty"`
	// CountedPods have a value that counts, MissingPods none, UnreadyPods none that counts.
	CountedPods int      `json:"countedPods,omitempty"`
	MissingPods int      `json:"missingPods,omitempty"`
	UnreadyPods int      `json:"unreadyPods,omitempty"`
	Missing     []string `json:"missing,omitempty"`
	// Replicas is the count that it asks for; Wins marks the highest.
	Replicas *int `json:"replicas,omitempty"`
	Wins     bool `json:"wins,omitempty"`
	// Trouble is why it asks for none.
	Trouble *Trouble `json:"trouble,omitempty"`

	memory bool // bytes
}

// Clamp is one rule that changed the count. Rule is the controller's own word, or Tolerance,
// SomeMetricsFailed or ScalingDisabled.
type Clamp struct {
	Rule string `json:"rule"`
	From int    `json:"from"`
	To   int    `json:"to"`
	// Certain says that it does not depend on what the controller remembers.
	Certain bool   `json:"certain"`
	Message string `json:"message"`
}

// Controller is what the controller wrote last.
type Controller struct {
	CurrentReplicas int         `json:"currentReplicas"`
	DesiredReplicas int         `json:"desiredReplicas"`
	LastScaleTime   *time.Time  `json:"lastScaleTime,omitempty"`
	Written         *time.Time  `json:"written,omitempty"`
	Conditions      []Condition `json:"conditions,omitempty"`
	// Stale says that it has not looked at the spec as it is now.
	Stale bool `json:"stale,omitempty"`
}

// Condition is one of the HPA's conditions.
type Condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

// condition is the one of that type, without a status when there is none.
func (c *Controller) condition(kind autoscalingv2.HorizontalPodAutoscalerConditionType) Condition {
	for _, k := range c.Conditions {
		if k.Type == string(kind) {
			return k
		}
	}
	return Condition{}
}

// said is what the controller wrote into the object.
func said(h *autoscalingv2.HorizontalPodAutoscaler) Controller {
	st := &h.Status
	c := Controller{CurrentReplicas: int(st.CurrentReplicas), DesiredReplicas: int(st.DesiredReplicas)}
	if st.LastScaleTime != nil {
		c.LastScaleTime = &st.LastScaleTime.Time
	}
	for _, f := range h.ManagedFields {
		if f.Subresource == "status" && f.Time != nil && strings.Contains(f.Manager, "controller-manager") {
			c.Written = &f.Time.Time
		}
	}
	for _, k := range st.Conditions {
		c.Conditions = append(c.Conditions, Condition{Type: string(k.Type), Status: string(k.Status), Reason: k.Reason, Message: k.Message})
	}
	slices.SortStableFunc(c.Conditions, func(a, b Condition) int { return strings.Compare(a.Type, b.Type) })
	c.Stale = st.ObservedGeneration != nil && *st.ObservedGeneration < h.Generation
	return c
}

// bound returns the bounds of the count.
func bounds(s *autoscalingv2.HorizontalPodAutoscalerSpec) (lo, hi int) {
	lo = 1
	if s.MinReplicas != nil {
		lo = int(*s.MinReplicas)
	}
	return lo, int(s.MaxReplicas)
}
