// Package seasonal scales for the time of day: for the largest forecast until a pod ordered now is
// ready, and never below the present load.
//
//	ahead  = max of the forecast over [now, now + start-up time + tick]
//	pods   = ceil(max(present, ahead) / target), and not below the largest such answer of the last
//	         start-up time plus tick
//
// The forecast sums load into bins of Unix time and uses Holt-Winters (daily season, damped trend)
// or a regression on daily and weekly waves, whichever had the lower recent error (package
// forecast). Before two days of data only the present load counts. The present is the mean over
// window, so a sudden rise is answered a window late, as by any rule on means.
//
// Sources: Hyndman and Athanasopoulos, "Forecasting: principles and practice"; the use in
// autoscaling is as in Bauer et al., "Chameleon", TPDS 2019.
package seasonal

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/forecast"
	"github.com/sluice-autoscaler/sluice/algorithms/memory"
	"github.com/sluice-autoscaler/sluice/algorithms/params"
)

// Config holds the parameters.
type Config struct {
	// Signal is what is measured and forecast, a total over the workload.
	Signal string `json:"signal"`
	// Target is what one pod should carry, in the signal's unit. Lower costs pods, higher waiting.
	Target float64 `json:"target"`
	// Window is the averaging time of the present. Longer is calmer and slower.
	Window algorithms.Duration `json:"window"`
	// DailyConfig configures the forecast.
	forecast.DailyConfig
	// StartUp is how long a pod takes to be ready while none was measured.
	StartUp algorithms.Duration `json:"startUp"`
	// Tick is the time between decisions.
	Tick algorithms.Duration `json:"tick"`
}

// Default returns bins of ten minutes, six waves a day and three a week; Target is the caller's.
func Default() Config {
	return Config{
		Signal: algorithms.Concurrency, Target: 70, Window: algorithms.Duration(30 * time.Second), DailyConfig: forecast.DefaultDaily(),
		StartUp: algorithms.Duration(10 * time.Second), Tick: algorithms.Duration(2 * time.Second),
	}
}

// Params describes the parameters.
func Params() params.List[Config] {
	list := params.List[Config]{
		params.Text("signal", "a signal's name", "what is measured, a total over the workload", func(c *Config) *string { return &c.Signal }),
		params.Of("target", params.Above(0), "requests per pod", "what one pod should carry",
			func(c *Config) *float64 { return &c.Target }).After(params.SignalTarget).Search("20%..110%"),
		params.Of("window", params.Spans(time.Second, time.Hour), "", "averaging time of the present",
			func(c *Config) *algorithms.Duration { return &c.Window }).Search("5s..10m:log"),
	}
	list = append(list, params.In(forecast.DailyParams(), func(c *Config) *forecast.DailyConfig { return &c.DailyConfig })...)
	return append(list,
		params.Of("startUp", params.Spans(0, time.Hour), "", "how long a pod takes to be ready, while no start was measured",
			func(c *Config) *algorithms.Duration { return &c.StartUp }),
		params.Of("tick", params.Spans(time.Second, 10*time.Minute), "", "time between decisions",
			func(c *Config) *algorithms.Duration { return &c.Tick }))
}

// Validate reports every fault.
func (c Config) Validate() error { return Params().Check(&c) }

// Policy decides as the package says. It is not safe for concurrent use.
type Policy struct {
	cfg   Config
	daily *forecast.Daily
	state state
}

type state struct {
	At     time.Time         `json:"at,omitzero"`
	Recent algorithms.Maxima `json:"recent,omitempty"`
	// Daily is set in snapshots only.
	Daily *forecast.DailyState `json:"daily,omitempty"`
}

const version = 1

// New returns a policy with a validated Config.
func New(c Config) (*Policy, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	d, err := forecast.NewDaily(c.DailyConfig)
	if err != nil {
		return nil, err
	}
	return &Policy{cfg: c, daily: d}, nil
}

// Needs names the one window.
func (p *Policy) Needs() []algorithms.Need {
	return []algorithms.Need{{Name: p.cfg.Signal, Window: time.Duration(p.cfg.Window)}}
}

// Learns names the signal.
func (p *Policy) Learns() []string { return []string{p.cfg.Signal} }

// Learn reads the signal's past.
func (p *Policy) Learn(history []algorithms.Sample) error {
	if err := algorithms.CheckHistory(history, p.state.At); err != nil {
		return err
	}
	p.daily.Learn(history, p.cfg.Signal)
	return nil
}

// Decide answers one observation.
func (p *Policy) Decide(o algorithms.Observation) algorithms.Decision {
	c, s := &p.cfg, &p.state
	i := o.Index(c.Signal, time.Duration(c.Window))
	if i < 0 || o.Signals[i].Value < 0 {
		d := algorithms.Decision{Reason: "NoData"}
		if !o.Quiet {
			d.Message = fmt.Sprintf("%s over %s is unknown", c.Signal, time.Duration(c.Window))
		}
		return d
	}
	present := min(o.Signals[i].Value, forecast.Most)
	if since := o.Now.Sub(s.At); s.At.IsZero() || since > 0 {
		if s.At.IsZero() || since > time.Duration(c.Window) {
			since = time.Duration(c.Window)
		}
		p.daily.Observe(o.Now, present, since)
		s.At = o.Now
	}
	start := time.Duration(c.StartUp)
	if o.StartUp.Samples > 0 {
		start = min(o.StartUp.P90, time.Hour)
	}
	lead := start + time.Duration(c.Tick)
	ahead, known := p.daily.Max(o.Now, o.Now.Add(lead))
	raw := algorithms.Pods(math.Ceil(max(present, ahead) / c.Target))
	n, reason := raw, "Present"
	if known && ahead > present {
		reason = "Forecast"
	}
	if held := s.Recent.Add(o.Now, n, lead); held > n && o.Replicas.Current > n {
		n, reason = min(held, o.Replicas.Current), "Held"
	}
	if o.Limits.Max > 0 {
		n = min(n, o.Limits.Max)
	}
	d := algorithms.Decision{Replicas: n, Valid: true, Reason: reason}
	if o.Quiet {
		return d
	}
	m := p.daily.Best()
	d.Message = fmt.Sprintf("%.4g of %s over %s, and at most %.4g within %s by %s, at %.4g a pod ask for %d pods; %s gives %d",
		present, c.Signal, time.Duration(c.Window), ahead, lead, m, c.Target, raw, reason, n)
	if !known {
		d.Message = fmt.Sprintf("%.4g of %s over %s, and no forecast yet, at %.4g a pod ask for %d pods; %s gives %d", present, c.Signal, time.Duration(c.Window), c.Target, raw, reason, n)
	}
	d.Terms = append(o.Scratch[:0],
		algorithms.Term{Name: c.Signal, Value: present},
		algorithms.Term{Name: "forecast", Value: ahead},
		algorithms.Term{Name: "leadSeconds", Value: lead.Seconds()},
		algorithms.Term{Name: "target", Value: c.Target},
		algorithms.Term{Name: "holtWintersError", Value: p.daily.MeanError(forecast.ByHoltWinters)},
		algorithms.Term{Name: "harmonicsError", Value: p.daily.MeanError(forecast.ByHarmonics)},
		algorithms.Term{Name: "rawPods", Value: float64(raw)})
	return d
}

// Snapshot returns the memory.
func (p *Policy) Snapshot() json.RawMessage {
	s := p.state
	d := p.daily.State()
	s.Daily = &d
	return memory.Save("seasonal", version, s)
}

// Restore puts back a Snapshot of a policy with the same bins and waves.
func (p *Policy) Restore(raw json.RawMessage) error {
	s, err := memory.Load[state]("seasonal", version, raw)
	if err != nil {
		return err
	}
	if s.Daily == nil {
		return errors.New("read seasonal snapshot: it holds no forecast")
	}
	if err := p.daily.Load(*s.Daily); err != nil {
		return fmt.Errorf("read seasonal snapshot: %w", err)
	}
	s.Daily = nil
	p.state = s
	return nil
}
