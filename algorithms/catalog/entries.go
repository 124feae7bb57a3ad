package catalog

import (
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

// builtin lists the policies that need nothing but their parameters. Portfolio makes its experts by
// expert.
func builtin(expert portfolio.Make) []Entry {
	return []Entry{
		entry(Entry{
			Name: "aws", SignalParameter: "signal", Summary: "AWS target tracking as an ECS service gets it", Source: "docs.aws.amazon.com/autoscaling/application/userguide",
			Note: "It is target with AWS's own waits.",
		}, target.Params(), target.AWS, func(c *target.Config) *float64 { return &c.Target }, target.New),
		entry(Entry{
			Name: "cel", Summary: "your own expression", Source: "cel.dev",
			Note: "The expression sees signal(name, window), known(name, window), target, replicas.current/.ready/.starting/.terminating, limits.min/.max, previous, " +
				"activeFor, startUp.p50/.p90/.p99 and now, and gives the pod count: an int, or a double that is rounded up.",
		}, cel.Params(), cel.Default, func(c *cel.Config) *float64 { return &c.Target }, cel.New),
		entry(Entry{
			Name: "fixed", Summary: "always the same count", Source: "none",
		}, fixed.Params(), fixed.Default, nil, fixed.New),
		entry(Entry{
			Name: "histogram", OfRequests: true, Summary: "keeps and pre-warms the last pod by the idle times seen", Source: "Shahrad et al., Serverless in the Wild, 2020",
			Note: "Above zero pods the rule of target decides. guard's scaleToZero.after comes first: set it to 1s to leave zero to this policy.",
		}, histogram.Params(), histogram.Default, func(c *histogram.Config) *float64 { return &c.Target }, histogram.New),
		entry(Entry{
			Name: "hpa", SignalParameter: "metrics", Summary: "the Kubernetes HPA", Source: "k8s.io/kubernetes pkg/controller/podautoscaler",
			Note: "Without behavior the rules of an HPA without spec.behavior hold: the largest answer of 300 s, and at most 4 pods or twice the count of 15 s ago. A behavior of guard, which is the Autoscaler's own, takes their place. limits: none leaves the bare calculator. As in the HPA, within tolerance an AverageValue gives the pods that exist, not those asked for (kubernetes#138505).",
		}, hpa.Params(), hpa.Default, func(c *hpa.Config) *float64 { return &c.Target }, hpa.New),
		entry(Entry{
			Name: "keda", SignalParameter: "triggers", Summary: "KEDA's activation and cooldown around the HPA", Source: "github.com/kedacore/keda v2.21 pkg/scaling, pkg/fallback",
			Note: "Formulas have CEL's syntax: + − * / % comparisons ?: and min, max, abs, ceil, floor, round; KEDA's ?? and count() are not there.",
		}, keda.Params(), keda.Default, func(c *keda.Config) *float64 { return &c.Target }, func(c keda.Config) (*keda.Policy, error) { return keda.New(c, formula) }),
		entry(Entry{
			Name: "kpa", SignalParameter: "metric", Summary: "stable and panic windows, as the Knative Pod Autoscaler", Source: "knative.dev/serving pkg/autoscaler/scaling",
		}, kpa.Params(), kpa.Default, func(c *kpa.Config) *float64 { return &c.Target }, kpa.New),
		entry(Entry{
			Name: "lookahead", OfRequests: true, Summary: "staffing for the load at the end of a start-up, at the least cost within a budget of late requests", Source: "algorithms/lookahead",
			Note: "guard's scaleToZero.after comes first: set it to 1s to leave the last pod to this policy.",
		}, lookahead.Params(), lookahead.Default, func(c *lookahead.Config) *float64 { return &c.Target }, lookahead.New),
		entry(Entry{
			Name: "pid", SignalParameter: "signal", Summary: "proportional, integral and derivative of missing pods", Source: "Åström and Hägglund, Advanced PID Control",
		}, pid.Params(), pid.Default, func(c *pid.Config) *float64 { return &c.Target }, pid.New),
		entry(Entry{
			Name: "portfolio", OfRequests: true, Summary: "follows those of several policies that cost least in shadow", Source: "Freund and Schapire 1997; Herbster and Warmuth 1998",
			Note: "The first expert is the floor while requests wait too long. Experts are policies that need nothing but their parameters.",
		}, portfolio.Params(), portfolio.Default, func(c *portfolio.Config) *float64 { return &c.Target }, func(c portfolio.Config) (*portfolio.Policy, error) { return portfolio.New(c, expert) }),
		entry(Entry{
			Name: "schedule", Summary: "counts by time of day and week", Source: "KEDA's cron scaler; AWS scheduled actions",
			Note: "By wall clock: a time that a clock change skips falls due right after the gap, one that it repeats only the first time.",
		}, schedule.Params(), schedule.Default, nil, schedule.New),
		entry(Entry{
			Name: "seasonal", SignalParameter: "signal", Summary: "the load that the time of day and week promises until a pod is ready", Source: "Holt-Winters; Fourier regression (Hyndman, FPP3)",
			Note: "Silent until two days were seen or learnt.",
		}, seasonal.Params(), seasonal.Default, func(c *seasonal.Config) *float64 { return &c.Target }, seasonal.New),
		entry(Entry{
			Name: "staffing", OfRequests: true, Summary: "a promise about waiting, by queueing theory", Source: "Erlang C; Halfin and Whitt 1981",
			Note: "Make exactly one promise: waitProbability, meanWait, or tailWait with tailProbability.",
		}, staffing.Params(), staffing.Default, nil, staffing.New),
		entry(Entry{
			Name: "step", SignalParameter: "signal", Summary: "AWS step scaling", Source: "docs.aws.amazon.com/autoscaling",
		}, step.Params(), step.Default, nil, step.New),
		entry(Entry{
			Name: "target", SignalParameter: "signal", Summary: "AWS target tracking: mean per pod at a target", Source: "docs.aws.amazon.com/autoscaling",
			Note: "The defaults suit requests measured every few seconds. The policy aws has AWS's own waits.",
		}, target.Params(), target.Default, func(c *target.Config) *float64 { return &c.Target }, target.New),
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

// Guard documents the rules that wrap any policy (algorithms/guard); its New is nil, since it makes
// no policy of its own.
func Guard() Entry {
	return Entry{
		Name: "guard", Summary: "the rules around any policy: bounds, behavior, zero, missing data, containment", Source: "algorithms/guard; spec.behavior of autoscaling/v2",
		Note: "In an Autoscaler these are fields of its spec; sluice decide takes them by --guard.",
		Parameters: []Parameter{
			{Name: "minReplicas", Range: "0–1000000", Unit: "pods", Default: "the observation's limits", Meaning: "lower bound"},
			{Name: "maxReplicas", Range: "1–1000000", Unit: "pods", Default: "the observation's limits", Meaning: "upper bound"},
			{Name: "target", Range: "≥ 0", Unit: "requests per pod", Default: "0: one pod", Meaning: "sizes a wake-up from zero by what waits"},
			{Name: "behavior", Range: "as spec.behavior of autoscaling/v2", Default: "none", Meaning: "stabilization windows and rates"},
			{Name: "scaleToZero", Range: "{after: 1s–1h}", Default: "1m0s", Meaning: "how long demand must have been zero before 0 pods"},
			{Name: "onMissingData", Range: "{hold: 0s–24h, replicas: 0–1000000}", Default: "10m0s, none", Meaning: "how long nothing changes while nothing is known, and the least count then"},
		},
	}
}
