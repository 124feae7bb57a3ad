package lookahead

import (
	"errors"
	"fmt"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

// Config holds the parameters.
type Config struct {
	// Window is the time over which the freshest means are taken, 1s–1m. Longer is calmer and slower.
	Window algorithms.Duration `json:"window"`
	// WaitGoal is how long a request may wait, 1ms–1h, and ViolationBudget the share that may wait longer, in (0, 1). Less costs pods.
	WaitGoal        algorithms.Duration `json:"waitGoal"`
	ViolationBudget float64             `json:"violationBudget"`
	// BudgetWindow is the time over which the budget is to be kept, 1m–168h: overspending all of it makes a violation e times as dear.
	// Shorter reacts faster and swings more.
	BudgetWindow algorithms.Duration `json:"budgetWindow"`
	// PodConcurrency is how many requests a pod works on at a time, > 0. 0 takes the observed limit, and Target where there is none.
	PodConcurrency float64 `json:"podConcurrency"`
	// Target is what a pod carries where nothing limits it, in requests, > 0.
	Target float64 `json:"target"`
	// StartUp is how long a pod takes to be ready while no start has been measured, 0s–1h.
	StartUp algorithms.Duration `json:"startUp"`
	// Tick is the time between decisions that the policy asks for (Decision.Next), 1s–1m. Longer answers later.
	Tick algorithms.Duration `json:"tick"`
	// HalfLife is after how long an error of forecast counts half, 1m–720h. Longer knows rarer jumps, shorter follows new ways sooner.
	HalfLife algorithms.Duration `json:"halfLife"`
	// IdleReference is the keep-alive time that idleness may cost as much as, 5s–6h, where costs are not observed; more spares cold starts and costs pods.
	IdleReference algorithms.Duration `json:"idleReference"`
	// Seasonal lets the forecast follow the time of day and week where that errs less.
	Seasonal bool `json:"seasonal"`
}

// Default promises that at most 1 % wait for more than half a second. Errors of forecast count half after 12 h, as Autopilot's load does
// (Rzadca et al. 2020); idleness may cost what Knative's minute does. The rest is assumed only where nothing was measured.
func Default() Config {
	return Config{
		Window: algorithms.Duration(time.Second), WaitGoal: algorithms.Duration(500 * time.Millisecond), ViolationBudget: 0.01,
		BudgetWindow: algorithms.Duration(3 * time.Hour), Target: 70, StartUp: algorithms.Duration(10 * time.Second),
		Tick: algorithms.Duration(time.Second), HalfLife: algorithms.Duration(12 * time.Hour), IdleReference: algorithms.Duration(time.Minute), Seasonal: true,
	}
}

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	bad := func(ok bool, name string, value any, want string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s = %v: want %s", name, value, want))
		}
	}
	span := func(name string, v algorithms.Duration, lo, hi time.Duration) {
		d := time.Duration(v)
		bad(d >= lo && d <= hi, name, d, fmt.Sprintf("%s–%s", lo, hi))
	}
	span("window", c.Window, time.Second, time.Minute)
	span("waitGoal", c.WaitGoal, time.Millisecond, time.Hour)
	bad(c.ViolationBudget > 0 && c.ViolationBudget < 1, "violationBudget", c.ViolationBudget, "a share in (0, 1)")
	span("budgetWindow", c.BudgetWindow, time.Minute, 168*time.Hour)
	bad(c.PodConcurrency >= 0 && c.PodConcurrency <= 1e6, "podConcurrency", c.PodConcurrency, "0–1000000 (requests)")
	bad(c.Target > 0 && c.Target <= 1e6, "target", c.Target, "a number > 0 and ≤ 1000000 (requests per pod)")
	span("startUp", c.StartUp, 0, time.Hour)
	span("tick", c.Tick, time.Second, time.Minute)
	span("halfLife", c.HalfLife, time.Minute, 720*time.Hour)
	span("idleReference", c.IdleReference, 5*time.Second, 6*time.Hour)
	return errors.Join(errs...)
}
