package catalog

import (
	"encoding/json"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/cel"
	"github.com/sluice-autoscaler/sluice/algorithms/fixed"
	"github.com/sluice-autoscaler/sluice/algorithms/histogram"
	"github.com/sluice-autoscaler/sluice/algorithms/hpa"
	"github.com/sluice-autoscaler/sluice/algorithms/keda"
	"github.com/sluice-autoscaler/sluice/algorithms/kpa"
	"github.com/sluice-autoscaler/sluice/algorithms/lookahead"
	"github.com/sluice-autoscaler/sluice/algorithms/pid"
	"github.com/sluice-autoscaler/sluice/algorithms/portfolio"
	"github.com/sluice-autoscaler/sluice/algorithms/schedule"
	"github.com/sluice-autoscaler/sluice/algorithms/seasonal"
	"github.com/sluice-autoscaler/sluice/algorithms/staffing"
	"github.com/sluice-autoscaler/sluice/algorithms/step"
	"github.com/sluice-autoscaler/sluice/algorithms/target"
)

func none[C any](*C) *float64 { return nil }

// builtin lists the policies that need nothing but their parameters. Portfolio makes its experts by make.
func builtin(make portfolio.Make) []Entry {
	perPod := Parameter{"target", "> 0 requests per pod", "the signal's target", "what one pod should carry"}
	signal := Parameter{"signal", "a signal's name", "concurrency", "what is measured, a total over the workload"}
	return []Entry{
		{
			Name: "cel", Summary: "your own expression", Source: "cel.dev",
			Note: "The expression sees signal(name, window), known(name, window), target, replicas.current/.ready/.starting/.terminating, limits.min/.max, previous, " +
				"activeFor, startUp.p50/.p90/.p99 and now, and gives the pod count: an int, or a double that is rounded up.",
			Parameters: []Parameter{
				{"expression", "up to 8192 characters", `math.ceil(signal("concurrency", "60s") / target)`, "the policy"},
				perPod,
				{"costLimit", "1–1000000 units", "10000", "bound of one evaluation"},
			},
			New: maker(cel.Default, func(c *cel.Config) *float64 { return &c.Target }, cel.New),
		},
		{
			Name: "fixed", Summary: "always the same count", Source: "none",
			Parameters: []Parameter{{"replicas", "0–1000000 pods", "1", "the answer"}},
			New:        maker(fixed.Default, none, fixed.New),
		},
		{
			Name: "histogram", Summary: "keeps and pre-warms the last pod by the idle times seen", Source: "Shahrad et al., Serverless in the Wild, 2020",
			Note: "Above zero pods the rule of target decides. guard's scaleToZero.after comes first: set it to 1s to leave zero to this policy.",
			Parameters: []Parameter{
				perPod,
				{"window", "1s–1h", "30s", "averaging time above zero pods"},
				{"activity", "1s–1m", "2s", "window over which any concurrency is demand"},
				{"bin", "1s–1h", "1m0s", "bin of idle times"},
				{"range", "2–1440 bins", "4h0m0s", "longest idle time told apart"},
				{"head", "a share in [0, 1] below tail", "0.05", "percentile of idle times before which there is no pod"},
				{"tail", "a share in [0, 1]", "0.99", "percentile until which there is one"},
				{"margin", "0–1", "0.1", "widens both"},
				{"minCV", "0–100", "2", "variation of counts from which the histogram represents something"},
				{"minCount", "1–1000", "10", "idle times that must be known"},
				{"outOfBounds", "0–1", "0.5", "share beyond the range from which on their mean is the forecast"},
				{"coldStartCost", "0–864000 pod-seconds", "600", "ends keeping when it has cost as much; observed costs override it"},
				{"startUp", "0s–1h", "10s", "how long a pod takes to be ready, while no start was measured"},
			},
			New: maker(histogram.Default, func(c *histogram.Config) *float64 { return &c.Target }, histogram.New),
		},
		{
			Name: "hpa", Summary: "the Kubernetes HPA's replica calculator", Source: "k8s.io/kubernetes pkg/controller/podautoscaler",
			Note: "With maxReplicas and without behavior, the older rules of an HPA hold: the largest answer of 300 s, at most max(2 × current, 4) pods. With neither only the calculator runs, and guard may do the rest.",
			Parameters: []Parameter{
				{"metrics", "as spec.metrics of autoscaling/v2, with window", "total concurrency, AverageValue target", "what is compared; the largest proposal wins"},
				perPod,
				{"minReplicas", "≥ 0 pods", "the Autoscaler's", "lower bound of behavior"},
				{"maxReplicas", "≥ 1 pods", "the Autoscaler's", "upper bound of behavior"},
				{"behavior", "as spec.behavior of autoscaling/v2", "none", "stabilization windows and rates"},
				{"tolerance", "≥ 0", "0.1", "share of deviation that changes nothing"},
				{"cpuInitializationPeriod", "≥ 0s", "5m0s", "how long after its start a pod's cpu is doubted"},
				{"initialReadinessDelay", "≥ 0s", "30s", "how long after its start a pod counts as never ready; cpu only"},
			},
			New: maker(hpa.Default, func(c *hpa.Config) *float64 { return &c.Target }, hpa.New),
		},
		{
			Name: "keda", Summary: "KEDA's activation and cooldown around the HPA", Source: "github.com/kedacore/keda pkg/scaling/executor",
			Note: "Formulas have CEL's syntax: + − * / % comparisons ?: and min, max, abs, ceil, floor, round; KEDA's ?? and count() are not there.",
			Parameters: []Parameter{
				{"triggers", "1–50 of {name, signal, window, threshold, activationThreshold, metricType}", "concurrency at target", "what is compared; the largest proposal wins"},
				perPod,
				{"pollingInterval", "1–86400 seconds", "30", "time between looks at activation"},
				{"cooldownPeriod", "0–86400 seconds", "300", "time without activity before zero"},
				{"initialCooldownPeriod", "0–86400 seconds", "0", "the same before the first activity"},
				{"minReplicaCount", "0–1000000 pods", "0", "lower bound"},
				{"maxReplicaCount", "1–1000000 pods", "100", "upper bound"},
				{"idleReplicaCount", "0", "none", "pods while nothing is active, though minReplicaCount is more"},
				{"fallback", "{failureThreshold, replicas, behavior}", "none", "what to do on unknown triggers"},
				{"advanced", "{horizontalPodAutoscalerConfig: {behavior}, scalingModifiers: {formula, target, activationTarget, metricType}}", "the HPA's", "behavior and formula"},
			},
			New: func(t float64, params json.RawMessage) (algorithms.Policy, error) {
				return maker(keda.Default, func(c *keda.Config) *float64 { return &c.Target }, func(c keda.Config) (*keda.Policy, error) {
					return keda.New(c, formula)
				})(t, params)
			},
		},
		{
			Name: "kpa", Summary: "stable and panic windows, as the Knative Pod Autoscaler", Source: "knative.dev/serving pkg/autoscaler/scaling",
			Parameters: []Parameter{
				{"metric", "concurrency, rps or a signal's name", "concurrency", "what is scaled on"},
				{"target", "> 0 requests per pod", "the signal's target", "concurrency one pod should carry"},
				{"totalValue", "≥ 0 requests per pod", "target", "concurrency one pod can carry; enters excess burst capacity only"},
				{"targetBurstCapacity", "−1 or ≥ 0 requests", "211", "burst to take without queueing; reported as excessBurstCapacity"},
				{"stableWindow", "6s–1h", "1m0s", "averaging time of the normal course"},
				{"panicWindowPercentage", "1–100 %", "10", "panic window as a share of stableWindow"},
				{"panicThresholdPercentage", "110–1000 %", "200", "load over what ready pods should carry at which panic begins"},
				{"maxScaleUpRate", "> 1", "1000", "largest factor up in one decision"},
				{"maxScaleDownRate", "> 1", "2", "largest factor down in one decision"},
				{"scaleDownDelay", "0s–1h", "0s", "keep the largest answer of this long"},
				{"activationScale", "≥ 1 pods", "1", "least count while there is demand"},
				{"reachable", "true or false", "true", "false lets the count fall to 0 at once"},
				{"initialScale", "≥ 0 pods", "1", "least count until it was once reached"},
			},
			New: maker(kpa.Default, func(c *kpa.Config) *float64 { return &c.Target }, kpa.New),
		},
		{
			Name: "lookahead", Summary: "staffing for the load at the end of a start-up, at the least cost within a budget of late requests", Source: "algorithms/lookahead",
			Note: "guard's scaleToZero.after comes first: set it to 1s to leave the last pod to this policy.",
			Parameters: []Parameter{
				{"waitGoal", "1ms–1h", "500ms", "how long a request may wait"},
				{"violationBudget", "a share in (0, 1)", "0.01", "share of requests that may wait longer"},
				{"budgetWindow", "1m–168h", "3h0m0s", "time over which the budget is kept"},
				{"podConcurrency", "0–1000000 requests", "0: the observed limit, else target", "requests that a pod works on at a time"},
				{"target", "> 0 requests per pod", "the signal's target", "what a pod carries where nothing limits it"},
				{"window", "1s–1m", "1s", "averaging time of the freshest means"},
				{"tick", "1s–1m", "1s", "time between decisions, which it asks for"},
				{"startUp", "0s–1h", "10s", "how long a pod takes to be ready, while no start was measured"},
				{"halfLife", "1m–720h", "12h0m0s", "after how long an error of forecast counts half"},
				{"idleReference", "5s–6h", "1m0s", "keep-alive time that idleness may cost as much as; observed costs override it"},
				{"seasonal", "true or false", "true", "follow the time of day and week where that errs less"},
			},
			New: maker(lookahead.Default, func(c *lookahead.Config) *float64 { return &c.Target }, lookahead.New),
		},
		{
			Name: "pid", Summary: "proportional, integral and derivative of missing pods", Source: "Åström and Hägglund, Advanced PID Control",
			Parameters: []Parameter{
				signal,
				{"window", "0s–1h", "30s", "averaging time; 0s is a reading"},
				perPod,
				{"kp", "0–1 pods per missing pod", "0.5", "proportional gain"},
				{"ki", "0–1 per second", "0.02", "integral gain"},
				{"kd", "0–600 seconds", "0", "derivative time: how far ahead along the trend"},
				{"derivativeFilter", "0s–10m", "10s", "time constant of the derivative's low-pass"},
				{"deadband", "0.5–1000 pods", "0.6", "deviation that changes nothing"},
				{"maxStep", "1s–10m", "2m0s", "after a longer gap the controller starts anew"},
			},
			New: maker(pid.Default, func(c *pid.Config) *float64 { return &c.Target }, pid.New),
		},
		{
			Name: "portfolio", Summary: "follows those of several policies that cost least in shadow", Source: "Freund and Schapire 1997; Herbster and Warmuth 1998",
			Note: "The first expert is the floor while requests wait too long. Experts are policies that need nothing but their parameters.",
			Parameters: []Parameter{
				{"experts", "2–16 of {name, parameters}", "kpa, target, histogram, seasonal, lookahead", "policies in shadow"},
				perPod,
				{"podConcurrency", "0–1000000 requests", "0: the observed limit, else target", "requests that a pod works on at a time"},
				{"waitGoal", "1ms–1h", "500ms", "how long a request may wait"},
				{"violationBudget", "a share in (0, 1)", "0.01", "share of requests that may wait longer; sets what one costs"},
				{"coldStartCost", "0–86400 pod-seconds", "60", "what leaving zero costs besides; observed costs override it"},
				{"block", "10s–24h", "5m0s", "time between changes of weights; at least ten start-ups"},
				{"memory", "block–720h", "4h0m0s", "time over which the best expert is looked for"},
				{"startUp", "0s–1h", "10s", "how long a pod takes to be ready, while no start was measured"},
				{"window", "1s–1m", "2s", "averaging time of the freshest means"},
			},
			New: maker(portfolio.Default, func(c *portfolio.Config) *float64 { return &c.Target }, func(c portfolio.Config) (*portfolio.Policy, error) {
				return portfolio.New(c, make)
			}),
		},
		{
			Name: "schedule", Summary: "counts by time of day and week", Source: "KEDA's cron scaler; AWS scheduled actions",
			Note: "By wall clock: a time that a clock change skips falls due right after the gap, one that it repeats only the first time.",
			Parameters: []Parameter{
				{"timeZone", "an IANA name", "UTC", "whose wall clock"},
				{"rules", "up to 100 of {name, start, end or duration, replicas}", "none", "cron start and end; the largest that holds wins"},
				{"defaultReplicas", "0–1000000 pods", "1", "the count while no rule holds"},
				{"leadTime", "0s–1h", "0s", "how much earlier rules start"},
			},
			New: maker(schedule.Default, none, schedule.New),
		},
		{
			Name: "seasonal", Summary: "the load that the time of day and week promises until a pod is ready", Source: "Holt-Winters; Fourier regression (Hyndman, FPP3)",
			Note: "Silent until two days were seen or learnt.",
			Parameters: []Parameter{
				signal,
				perPod,
				{"window", "1s–1h", "30s", "averaging time of the present"},
				{"bin", "1m–1h, a part of a day", "10m0s", "bin of the forecast"},
				{"alpha", "0–1", "0.3", "Holt-Winters: share of an error in the level"},
				{"beta", "0–1", "0.02", "of that in the trend"},
				{"gamma", "0–1", "0.3", "share of an error in the season"},
				{"phi", "0–1", "0.9", "damping of the trend"},
				{"harmonics", "1–16", "6", "waves of a day in the regression"},
				{"weekHarmonics", "1–16", "3", "waves of a week"},
				{"halfLife", "> 0 days", "14", "after how long a value counts half in the regression"},
				{"startUp", "0s–1h", "10s", "how long a pod takes to be ready, while no start was measured"},
				{"tick", "1s–10m", "2s", "time between decisions"},
			},
			New: maker(seasonal.Default, func(c *seasonal.Config) *float64 { return &c.Target }, seasonal.New),
		},
		{
			Name: "staffing", Summary: "a promise about waiting, by queueing theory", Source: "Erlang C; Halfin and Whitt 1981",
			Note: "Make exactly one promise: waitProbability, meanWait, or tailWait with tailProbability.",
			Parameters: []Parameter{
				{"load", "Concurrency or Rate", "Concurrency", "offered load: mean concurrency, or rate × duration"},
				{"window", "1s–1h", "1m0s", "averaging time"},
				{"method", "Erlang or HalfinWhitt", "Erlang", "exact, or the limit for many servers"},
				{"waitProbability", "a share in (0, 1), or 0", "0.2", "at most this share waits"},
				{"meanWait", "0s–1h", "0s", "the longest mean wait"},
				{"tailWait", "0s–1h", "0s", "the wait that at most tailProbability exceeds"},
				{"tailProbability", "a share in (0, 1), or 0", "0", "see tailWait"},
				{"serviceTime", "0s–1h", "0s: signal duration", "mean time that a pod works on a request"},
				{"podConcurrency", "0–1000000 requests", "0: the observed limit, else 1", "requests that a pod works on at a time"},
				{"arrivalVariability", "0–1000", "1", "squared coefficient of variation between arrivals"},
				{"serviceVariability", "0–1000", "1", "squared coefficient of variation of service times"},
				{"coldStartCost", "0–86400 pod-seconds", "60", "how long the last pod is kept; observed costs override it"},
			},
			New: maker(staffing.Default, none, staffing.New),
		},
		{
			Name: "step", Summary: "AWS step scaling", Source: "docs.aws.amazon.com/autoscaling",
			Parameters: []Parameter{
				signal,
				{"window", "0s–1h", "1m0s", "averaging time; 0s is a reading"},
				{"metric", "PerPod or Total", "PerPod", "mean per ready pod, or as it is"},
				{"adjustmentType", "ChangeInCapacity, PercentChangeInCapacity or ExactCapacity", "ChangeInCapacity", "what scalingAdjustment means"},
				{"minAdjustmentMagnitude", "0–1000000 pods", "0", "least change in percent"},
				{"estimatedInstanceWarmup", "0s–1h", "1m0s", "how long new pods count as coming"},
				{"scaleOutCooldown", "0s–1h", "0s", "wait after going out before going out again"},
				{"scaleInCooldown", "0s–1h", "5m0s", "wait after a change before going in"},
				{"scaleOut", "{threshold, evaluationPeriods, stepAdjustments}", "70: +1, 140: +2", "alarm and steps out"},
				{"scaleIn", "{threshold, evaluationPeriods, stepAdjustments}", "35: −1", "alarm and steps in"},
			},
			New: maker(step.Default, none, step.New),
		},
		{
			Name: "target", Summary: "AWS target tracking: mean per pod at a target", Source: "docs.aws.amazon.com/autoscaling",
			Note: "AWS's own waits: tolerance 0, scaleInMargin 0.1, window and evaluationPeriod 1m, scaleOutPoints 3, scaleInPoints 15, cooldowns 5m, stabilizationWindow 0s.",
			Parameters: []Parameter{
				signal,
				perPod,
				{"window", "1s–1h", "30s", "averaging time"},
				{"tolerance", "0–1", "0.1", "share of deviation that changes nothing"},
				{"scaleInMargin", "0–1", "tolerance", "the same, below the target"},
				{"stabilizationWindow", "0s–1h", "1m0s", "keep the largest answer of this long before going down"},
				{"evaluationPeriod", "0s–10m", "0s", "least time between two data points"},
				{"scaleOutPoints", "1–100", "1", "data points in a row before going out"},
				{"scaleInPoints", "1–100", "1", "data points in a row before going in"},
				{"scaleOutCooldown", "0s–1h", "0s", "wait after going out before going out again"},
				{"scaleInCooldown", "0s–1h", "0s", "wait after a change before going in"},
				{"estimatedInstanceWarmup", "0s–1h", "0s", "how long after going out nothing goes in"},
				{"disableScaleIn", "true or false", "false", "only ever go out"},
			},
			New: maker(target.Default, func(c *target.Config) *float64 { return &c.Target }, target.New),
		},
	}
}

// formula compiles KEDA's scaling modifiers.
func formula(expression string, names []string) (keda.Formula, error) {
	f, err := cel.NewFormula(expression, names)
	if err != nil {
		return nil, err
	}
	return f.Value, nil
}

// Guard documents the rules that wrap any policy (algorithms/guard); its New is nil, since it makes no policy of its own.
func Guard() Entry {
	return Entry{
		Name: "guard", Summary: "the rules around any policy: bounds, behavior, zero, missing data, containment", Source: "algorithms/guard; spec.behavior of autoscaling/v2",
		Note: "In an Autoscaler these are fields of its spec; sluice decide takes them by --guard.",
		Parameters: []Parameter{
			{"minReplicas", "0–1000000 pods", "the observation's limits", "lower bound"},
			{"maxReplicas", "1–1000000 pods", "the observation's limits", "upper bound"},
			{"target", "≥ 0 requests per pod", "0: one pod", "sizes a wake-up from zero by what waits"},
			{"behavior", "as spec.behavior of autoscaling/v2", "none", "stabilization windows and rates"},
			{"scaleToZero", "{after: 1s–1h}", "1m0s", "how long demand must have been zero before 0 pods"},
			{"onMissingData", "{hold: 0s–24h, replicas: 0–1000000}", "10m0s, none", "how long nothing changes while nothing is known, and the least count then"},
		},
	}
}
