package lookahead

import (
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/params"
)

// Config holds the parameters.
type Config struct {
	// Window is the time over which the freshest means are taken. Longer is calmer and slower.
	Window algorithms.Duration `json:"window"`
	// WaitGoal is how long a request may wait, and ViolationBudget the share that may wait longer.
	// Less of either costs pods.
	WaitGoal        algorithms.Duration `json:"waitGoal"`
	ViolationBudget float64             `json:"violationBudget"`
	// BudgetWindow is the time over which the budget is kept: overspending all of it makes a
	// violation e times as dear. Shorter reacts faster and swings more.
	BudgetWindow algorithms.Duration `json:"budgetWindow"`
	// PodConcurrency is how many requests a pod works on at a time. 0 takes the observed limit, and
	// Target where there is none.
	PodConcurrency float64 `json:"podConcurrency"`
	// Target is what a pod carries where nothing limits it, in requests.
	Target float64 `json:"target"`
	// StartUp is how long a pod takes to be ready while no start has been measured.
	StartUp algorithms.Duration `json:"startUp"`
	// Tick is the time between decisions that the policy asks for (Decision.Next). Longer answers
	// later.
	Tick algorithms.Duration `json:"tick"`
	// HalfLife is after how long a forecast error counts half. Longer remembers rarer jumps,
	// shorter adapts sooner.
	HalfLife algorithms.Duration `json:"halfLife"`
	// IdleReference is the keep-alive time that idleness may cost as much as, where costs are not
	// observed. More spares cold starts and costs pods.
	IdleReference algorithms.Duration `json:"idleReference"`
	// Seasonal lets the forecast follow the time of day and week where that errs less.
	Seasonal bool `json:"seasonal"`
}

// Default promises that at most 1 % wait for more than half a second. Errors of forecast count half
// after 12 h, as Autopilot's load does (Rzadca et al. 2020); idleness may cost what Knative's
// minute does. The rest is assumed only where nothing was measured.
func Default() Config {
	return Config{
		Window: algorithms.Duration(time.Second), WaitGoal: algorithms.Duration(500 * time.Millisecond), ViolationBudget: 0.01,
		BudgetWindow: algorithms.Duration(3 * time.Hour), Target: 70, StartUp: algorithms.Duration(10 * time.Second),
		Tick: algorithms.Duration(time.Second), HalfLife: algorithms.Duration(12 * time.Hour), IdleReference: algorithms.Duration(time.Minute), Seasonal: true,
	}
}

// Params describes the parameters.
func Params() params.List[Config] {
	return params.List[Config]{
		params.Of("violationBudget", params.Above(0).Below(1), "", "share of requests that may wait longer than waitGoal",
			func(c *Config) *float64 { return &c.ViolationBudget }).Search("0.0005..0.05:log"),
		params.Of("waitGoal", params.Spans(time.Millisecond, time.Hour), "", "how long a request may wait",
			func(c *Config) *algorithms.Duration { return &c.WaitGoal }).Search("50ms..1s:log"),
		params.Of("halfLife", params.Spans(time.Minute, 720*time.Hour), "", "after how long a forecast error counts half",
			func(c *Config) *algorithms.Duration { return &c.HalfLife }).Search("1h..7d:log"),
		params.Of("budgetWindow", params.Spans(time.Minute, 168*time.Hour), "", "time over which the budget is kept",
			func(c *Config) *algorithms.Duration { return &c.BudgetWindow }).Search("5m..1d:log"),
		params.Of("idleReference", params.Spans(5*time.Second, 6*time.Hour), "", "keep-alive time that idleness may cost as much as; observed costs override it",
			func(c *Config) *algorithms.Duration { return &c.IdleReference }).Search("10s..10m:log"),
		params.Of("podConcurrency", params.Between(0, 1e6), "requests", "requests that a pod works on at a time",
			func(c *Config) *float64 { return &c.PodConcurrency }).Zero("the observed limit, else target"),
		params.Of("target", params.Above(0).UpTo(1e6), "requests per pod", "what a pod carries where nothing limits it",
			func(c *Config) *float64 { return &c.Target }).After(params.SignalTarget),
		params.Of("window", params.Spans(time.Second, time.Minute), "", "averaging time of the freshest means",
			func(c *Config) *algorithms.Duration { return &c.Window }),
		params.Of("tick", params.Spans(time.Second, time.Minute), "", "time between decisions, which it asks for",
			func(c *Config) *algorithms.Duration { return &c.Tick }),
		params.Of("startUp", params.Spans(0, time.Hour), "", "how long a pod takes to be ready, while no start was measured",
			func(c *Config) *algorithms.Duration { return &c.StartUp }),
		params.Bool("seasonal", "follow the time of day and week where that errs less", func(c *Config) *bool { return &c.Seasonal }),
	}
}

// Validate reports every fault.
func (c Config) Validate() error { return Params().Check(&c) }
