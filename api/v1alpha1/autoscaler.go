package v1alpha1

import (
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is sluice.dev/v1alpha1.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: "sluice.dev", Version: "v1alpha1"}
}

// AddToScheme registers the types with s.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion(), &Autoscaler{}, &AutoscalerList{})
	metav1.AddToGroupVersion(s, GroupVersion())
	return nil
}

// Autoscaler scales one workload by its request concurrency, to and from zero.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=asc,categories=all
// +kubebuilder:printcolumn:name="Target",type=string,JSONPath=`.spec.scaleTargetRef.name`
// +kubebuilder:printcolumn:name="Policy",type=string,JSONPath=`.spec.policy.name`
// +kubebuilder:printcolumn:name="Min",type=integer,JSONPath=`.spec.minReplicas`
// +kubebuilder:printcolumn:name="Max",type=integer,JSONPath=`.spec.maxReplicas`
// +kubebuilder:printcolumn:name="Concurrency",type=string,JSONPath=`.status.concurrency`
// +kubebuilder:printcolumn:name="Desired",type=integer,JSONPath=`.status.desiredReplicas`
// +kubebuilder:printcolumn:name="Ready",type=integer,JSONPath=`.status.readyReplicas`
// +kubebuilder:printcolumn:name="Active",type=string,JSONPath=`.status.conditions[?(@.type=="Active")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Autoscaler struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   AutoscalerSpec   `json:"spec"`
	Status AutoscalerStatus `json:"status,omitempty"`
}

// AutoscalerList is a list of Autoscalers.
//
// +kubebuilder:object:root=true
type AutoscalerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Autoscaler `json:"items"`
}

// AutoscalerSpec says what is scaled, by what, and within which bounds.
type AutoscalerSpec struct {
	// scaleTargetRef names the workload, in the Autoscaler's namespace: a Deployment, a StatefulSet
	// or anything else with a scale subresource.
	ScaleTargetRef autoscalingv2.CrossVersionObjectReference `json:"scaleTargetRef"`

	// serviceRef names the Service whose requests are held while no pod is ready. Without it
	// nothing is held, and minReplicas must be at least 1.
	// +optional
	ServiceRef *ServiceReference `json:"serviceRef,omitempty"`

	// minReplicas is the lower bound; 0 lets the workload sleep.
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	MinReplicas *int32 `json:"minReplicas,omitempty"`

	// maxReplicas is the upper bound.
	// +kubebuilder:validation:Minimum=1
	MaxReplicas int32 `json:"maxReplicas"`

	// signals are what the policy looks at, each with its target. Today there is one at most;
	// without one it is concurrency, in requests per pod.
	// +optional
	// +kubebuilder:validation:MaxItems=1
	Signals []SignalSpec `json:"signals,omitempty"`

	// policy is the algorithm that turns signals into replicas.
	// +optional
	Policy PolicySpec `json:"policy,omitempty"`

	// behavior bounds how fast and how far one decision may go, with the fields and the meaning of
	// autoscaling/v2; without it nothing bounds it but the policy.
	// +optional
	Behavior *autoscalingv2.HorizontalPodAutoscalerBehavior `json:"behavior,omitempty"`

	// onMissingData says what happens while signals are unknown. Nothing is ever scaled down on
	// that.
	// +optional
	OnMissingData *MissingDataSpec `json:"onMissingData,omitempty"`

	// scaleToZero says when an idle workload sleeps. It has no effect while minReplicas is above 0.
	// +optional
	ScaleToZero *ScaleToZeroSpec `json:"scaleToZero,omitempty"`

	// hold bounds what a gateway holds for this workload.
	// +optional
	Hold *HoldSpec `json:"hold,omitempty"`

	// mode is Apply (decide and scale) or DryRun (decide and record).
	// +optional
	// +kubebuilder:default=Apply
	// +kubebuilder:validation:Enum=Apply;DryRun
	Mode Mode `json:"mode,omitempty"`
}

// ServiceReference names a Service in the Autoscaler's namespace.
type ServiceReference struct {
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
}

// SignalSpec is one signal and its target.
type SignalSpec struct {
	// name is the signal: concurrency, rate, waiting, the name of a metric that a rule makes, or
	// the one that prometheus makes.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[A-Za-z_][A-Za-z0-9_:.-]*$`
	Name string `json:"name"`
	// target is what one pod should carry.
	Target SignalTarget `json:"target"`
	// prometheus is the query that makes the signal, where the operator lets Autoscalers have one.
	// +optional
	Prometheus *PrometheusSpec `json:"prometheus,omitempty"`
}

// PrometheusSpec is a query of the workload's own. It reads series of the Autoscaler's namespace
// alone.
type PrometheusSpec struct {
	// query is PromQL that gives one number, such as sum(queue_depth{queue="mail"}). $namespace
	// stands for the Autoscaler's namespace; each selector is narrowed to that anyway.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Query string `json:"query"`
	// source is the name of a Prometheus of the operator's; the first that takes such queries
	// without it.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Source string `json:"source,omitempty"`
	// maxAge makes an older sample unknown, 1s–1h; default 2m.
	// +optional
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
	// interval is the time between two queries, 5s–5m; default the operator's.
	// +optional
	Interval *metav1.Duration `json:"interval,omitempty"`
}

// SignalTarget is what one pod should carry of a signal.
type SignalTarget struct {
	// averageValue is the value per pod, in the signal's unit (concurrency: requests), greater
	// than 0.
	AverageValue resource.Quantity `json:"averageValue"`
}

// PolicySpec names a policy of the catalog and its parameters; `sluice policies` lists them.
type PolicySpec struct {
	// name is the policy: aws, cel, fixed, grpc, histogram, hpa, keda, kpa, lookahead, pid,
	// portfolio, schedule, seasonal, staffing, step, target.
	// +optional
	// +kubebuilder:default=kpa
	Name string `json:"name,omitempty"`
	// parameters are the policy's own; durations are strings such as 6s. docs/reference/policies.md
	// has their ranges and defaults. aws: signal, target, window, tolerance, scaleInMargin,
	// stabilizationWindow, evaluationPeriod, scaleOutPoints, scaleInPoints, scaleOutCooldown,
	// scaleInCooldown, estimatedInstanceWarmup, disableScaleIn. cel: expression, target, costLimit.
	// fixed: replicas. grpc: address, timeout, maxAge, signals, parameters, workload, tls,
	// fallback, circuitBreaker.failures, circuitBreaker.openFor. histogram: target, window,
	// activity, coldStartCost, bin, range, margin, head, tail, minCV, minCount, outOfBounds,
	// startUp. hpa: metrics, target, minReplicas, maxReplicas, behavior, limits, syncPeriod,
	// release, tolerance, cpuInitializationPeriod, initialReadinessDelay. keda: triggers, target,
	// pollingInterval, cooldownPeriod, initialCooldownPeriod, minReplicaCount, maxReplicaCount,
	// syncPeriod, idleReplicaCount, fallback, advanced. kpa: metric, target, totalValue,
	// targetBurstCapacity, stableWindow, panicWindowPercentage, panicThresholdPercentage,
	// scaleDownDelay, maxScaleDownRate, maxScaleUpRate, activationScale, reachable, initialScale.
	// lookahead: violationBudget, waitGoal, halfLife, budgetWindow, idleReference, podConcurrency,
	// target, window, tick, startUp, seasonal. pid: signal, target, window, kp, ki, kd,
	// derivativeFilter, deadband, maxStep. portfolio: experts, target, podConcurrency, waitGoal,
	// violationBudget, coldStartCost, block, memory, startUp, window. schedule: timeZone, rules,
	// defaultReplicas, leadTime. seasonal: signal, target, window, bin, alpha, beta, gamma, phi,
	// harmonics, weekHarmonics, halfLife, startUp, tick. staffing: load, method, waitProbability,
	// window, meanWait, tailWait, tailProbability, serviceTime, podConcurrency, arrivalVariability,
	// serviceVariability, coldStartCost. step: signal, window, metric, adjustmentType,
	// minAdjustmentMagnitude, scaleInCooldown, scaleOutCooldown, estimatedInstanceWarmup, scaleOut,
	// scaleIn. target: signal, target, window, tolerance, scaleInMargin, stabilizationWindow,
	// evaluationPeriod, scaleOutPoints, scaleInPoints, scaleOutCooldown, scaleInCooldown,
	// estimatedInstanceWarmup, disableScaleIn.
	// +optional
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Schemaless
	Parameters *runtime.RawExtension `json:"parameters,omitempty"`
}

// MissingDataSpec says what happens while signals are unknown.
type MissingDataSpec struct {
	// hold is how long replicas stay as they are, 0s–24h; default 10m. Without replicas below it
	// has no end.
	// +optional
	Hold *metav1.Duration `json:"hold,omitempty"`
	// replicas is the least count from then on. It only ever raises the count.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Replicas *int32 `json:"replicas,omitempty"`
}

// ScaleToZeroSpec says when an idle workload sleeps.
type ScaleToZeroSpec struct {
	// after is how long demand must have been zero, 1s–1h; default 60s.
	// +optional
	After *metav1.Duration `json:"after,omitempty"`
}

// HoldSpec bounds what each gateway holds for the workload.
type HoldSpec struct {
	// maxRequests is how many requests may wait at once on each port; more are answered 503. The
	// gateway's own default is 10000.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxRequests *int32 `json:"maxRequests,omitempty"`
	// timeout is how long a request may wait before it is answered 504, 1s–1h. The gateway's own
	// default is 60s.
	// +optional
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// podConcurrency is how many requests a gateway keeps in flight per pod. The default is the
	// pods' own limit or 100.
	// +optional
	// +kubebuilder:validation:Minimum=1
	PodConcurrency *int32 `json:"podConcurrency,omitempty"`
}

// Mode says what becomes of decisions.
type Mode string

const (
	// ModeApply scales the target.
	ModeApply Mode = "Apply"
	// ModeDryRun records decisions and touches nothing.
	ModeDryRun Mode = "DryRun"
)

// Condition types; the first three are HPA v2's words.
const (
	// ConditionAbleToScale: the target can be read and its scale written.
	ConditionAbleToScale = "AbleToScale"
	// ConditionScalingActive: there are signals that can be trusted, and decisions follow from
	// them.
	ConditionScalingActive = "ScalingActive"
	// ConditionScalingLimited: the wanted count was outside minReplicas–maxReplicas.
	ConditionScalingLimited = "ScalingLimited"
	// ConditionActive: the workload is awake (has, or is getting, replicas).
	ConditionActive = "Active"
	// ConditionContested: another, younger Autoscaler names the same target or Service. It does
	// nothing. The condition is there from the first time on.
	ConditionContested = "Contested"
)

// AutoscalerStatus is what the scaler last saw and decided.
type AutoscalerStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// phase is the activation state: Awake, GoingToSleep, Asleep or Waking.
	// +optional
	Phase string `json:"phase,omitempty"`
	// +optional
	CurrentReplicas int32 `json:"currentReplicas"`
	// +optional
	ReadyReplicas int32 `json:"readyReplicas"`
	// +optional
	DesiredReplicas int32 `json:"desiredReplicas"`
	// concurrency is the demand of the last decision, in requests; absent while unknown.
	// +optional
	Concurrency string `json:"concurrency,omitempty"`
	// +optional
	LastScaleTime *metav1.MicroTime `json:"lastScaleTime,omitempty"`
	// lastColdStart is the latest wake-up from zero, by phase.
	// +optional
	LastColdStart *ColdStartStatus `json:"lastColdStart,omitempty"`
	// decisions are the last ones that changed something, newest first, at most 10.
	// +optional
	// +kubebuilder:validation:MaxItems=10
	Decisions []DecisionRecord `json:"decisions,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ColdStartStatus accounts for one wake-up: the instant of the first request, then how many seconds
// after it each phase was over. A phase that was not seen is absent.
type ColdStartStatus struct {
	// detected is when the first request found no pod.
	Detected metav1.MicroTime `json:"detected"`
	// decided: the scale was written, in seconds after detected, as are the rest.
	// +optional
	Decided string `json:"decided,omitempty"`
	// +optional
	PodCreated string `json:"podCreated,omitempty"`
	// +optional
	Scheduled string `json:"scheduled,omitempty"`
	// +optional
	Started string `json:"started,omitempty"`
	// +optional
	Answering string `json:"answering,omitempty"`
	// +optional
	Released string `json:"released,omitempty"`
	// held is how many requests had waited when the first was released.
	Held int32 `json:"held"`
}

// DecisionRecord is one decision with what led to it.
type DecisionRecord struct {
	Time metav1.MicroTime `json:"time"`
	From int32            `json:"from"`
	To   int32            `json:"to"`
	// reason is a CamelCase word; message a sentence.
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// applied is false in DryRun and when the write was refused.
	Applied bool `json:"applied"`
	// terms are the named numbers that led to it.
	// +optional
	Terms map[string]string `json:"terms,omitempty"`
}
