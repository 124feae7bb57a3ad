// Package staffing sizes a workload by queueing theory: the least count of servers at which at most
// a given share of requests waits, or the mean wait, or a tail of it, is within bounds. A pod is
// podConcurrency servers.
//
//	a    = rate × duration, or concurrency (in service and waiting: an upper estimate under overload)
//	c    = least servers that keep the bound at load a (method Erlang), or a + β√a (HalfinWhitt)
//	pods = ceil(c / podConcurrency)
//
// The last pod is kept for a break-even time after the last demand (package keepalive). Without
// that, staffing asks for one pod at any load above 0, and for none at 0.
//
// Sources: Erlang 1917; Halfin and Whitt 1981; Allen and Cunneen for other variabilities.
package staffing

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/keepalive"
	"github.com/sluice-autoscaler/sluice/algorithms/memory"
	"github.com/sluice-autoscaler/sluice/algorithms/params"
)

// Duration is the signal of the mean service time, in seconds, that LoadRate reads.
const Duration = "duration"

// Where the offered load comes from.
const (
	// LoadConcurrency takes the mean concurrency.
	LoadConcurrency = "Concurrency"
	// LoadRate takes rate × duration (Little's law), or × serviceTime while duration is unknown.
	LoadRate = "Rate"
)

// How load becomes servers.
const (
	// Erlang is exact for Poisson arrivals and exponential service.
	Erlang = "Erlang"
	// SquareRootRule is Halfin and Whitt's limit for many servers.
	SquareRootRule = "HalfinWhitt"
)

// Config holds the parameters.
type Config struct {
	// Load is LoadConcurrency or LoadRate.
	Load string `json:"load"`
	// Window is the averaging time. Longer is calmer and slower.
	Window algorithms.Duration `json:"window"`
	// Method is Erlang or HalfinWhitt.
	Method string `json:"method"`
	// WaitProbability is the share of requests that may wait at all; 0 when another promise is
	// made. Less costs pods.
	WaitProbability float64 `json:"waitProbability"`
	// MeanWait is the longest mean wait; 0 when another promise is made.
	MeanWait algorithms.Duration `json:"meanWait"`
	// TailWait and TailProbability: at most the share TailProbability waits longer than TailWait; 0
	// when another promise is made.
	TailWait        algorithms.Duration `json:"tailWait"`
	TailProbability float64             `json:"tailProbability"`
	// ServiceTime is the mean service time, for promises in time while the duration signal is
	// unknown; 0 waits for the signal.
	ServiceTime algorithms.Duration `json:"serviceTime"`
	// PodConcurrency is how many requests a pod works on at a time. 0 takes the observed limit, and
	// 1 where there is none.
	PodConcurrency float64 `json:"podConcurrency"`
	// ArrivalVariability and ServiceVariability are squared coefficients of variation: 1 for
	// Poisson and exponential, 0 for constant, more for bursty.
	ArrivalVariability float64 `json:"arrivalVariability"`
	ServiceVariability float64 `json:"serviceVariability"`
	// ColdStartCost is what one cold start costs, in pod-seconds: the last pod is kept that long
	// after the last demand. Observed costs override it.
	ColdStartCost float64 `json:"coldStartCost"`
}

// Default promises that at most a fifth of the requests wait, on the mean concurrency of a minute.
func Default() Config {
	return Config{
		Load: LoadConcurrency, Window: algorithms.Duration(time.Minute), Method: Erlang, WaitProbability: 0.2,
		ArrivalVariability: 1, ServiceVariability: 1, ColdStartCost: 60,
	}
}

// Params describes the parameters.
func Params() params.List[Config] {
	hour := params.Spans(0, time.Hour)
	share := params.AtLeast(0).Below(1)
	variability := params.Between(0, 1000)
	return params.List[Config]{
		params.OneOf("load", "offered load: mean concurrency, or rate × duration", func(c *Config) *string { return &c.Load }, LoadConcurrency, LoadRate),
		params.OneOf("method", "exact, or the limit for many servers", func(c *Config) *string { return &c.Method }, Erlang, SquareRootRule),
		params.Of("waitProbability", share, "", "at most this share waits; 0 for another promise",
			func(c *Config) *float64 { return &c.WaitProbability }).Search("0.001..0.5:log"),
		params.Of("window", params.Spans(time.Second, time.Hour), "", "averaging time",
			func(c *Config) *algorithms.Duration { return &c.Window }).Search("5s..10m:log"),
		params.Of("meanWait", hour, "", "the longest mean wait; 0s for another promise",
			func(c *Config) *algorithms.Duration { return &c.MeanWait }),
		params.Of("tailWait", hour, "", "the wait that at most tailProbability exceeds; 0s for another promise",
			func(c *Config) *algorithms.Duration { return &c.TailWait }),
		params.Of("tailProbability", share, "", "see tailWait",
			func(c *Config) *float64 { return &c.TailProbability }),
		params.Of("serviceTime", hour, "", "mean time that a pod works on a request",
			func(c *Config) *algorithms.Duration { return &c.ServiceTime }).Zero("signal duration"),
		params.Of("podConcurrency", params.Between(0, 1e6), "requests", "requests that a pod works on at a time",
			func(c *Config) *float64 { return &c.PodConcurrency }).Zero("the observed limit, else 1"),
		params.Of("arrivalVariability", variability, "", "squared coefficient of variation between arrivals",
			func(c *Config) *float64 { return &c.ArrivalVariability }),
		params.Of("serviceVariability", variability, "", "squared coefficient of variation of service times",
			func(c *Config) *float64 { return &c.ServiceVariability }),
		params.Of("coldStartCost", params.Between(0, 86400), "pod-seconds", "how long the last pod is kept; observed costs override it",
			func(c *Config) *float64 { return &c.ColdStartCost }).Search("1..3600:log"),
	}
}

// Validate reports every fault.
func (c Config) Validate() error {
	errs := []error{Params().Check(&c)}
	if (c.TailWait > 0) != (c.TailProbability > 0) {
		errs = append(errs, fmt.Errorf("tailWait = %v: want tailWait and tailProbability together or neither", time.Duration(c.TailWait)))
	}
	promises := 0
	for _, made := range []bool{c.WaitProbability > 0, c.MeanWait > 0, c.TailWait > 0} {
		if made {
			promises++
		}
	}
	if promises != 1 {
		errs = append(errs, fmt.Errorf("promises = %d: want exactly one of waitProbability, meanWait and tailWait (set waitProbability to 0 to make another)", promises))
	}
	return errors.Join(errs...)
}

// Policy decides as the package says. It is not safe for concurrent use.
type Policy struct {
	cfg   Config
	state state
}

type state struct {
	// LastDemand is the last instant with demand.
	LastDemand time.Time `json:"lastDemand,omitzero"`
}

// version of the snapshot.
const version = 1

// New returns a policy with a validated Config.
func New(c Config) (*Policy, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Policy{cfg: c}, nil
}

// Needs names concurrency, or rate, and duration where the promise or the load needs it.
func (p *Policy) Needs() []algorithms.Need {
	w := time.Duration(p.cfg.Window)
	if p.cfg.Load == LoadConcurrency {
		needs := []algorithms.Need{{Name: algorithms.Concurrency, Window: w}}
		if p.cfg.WaitProbability == 0 && p.cfg.ServiceTime == 0 {
			needs = append(needs, algorithms.Need{Name: Duration, Window: w})
		}
		return needs
	}
	needs := []algorithms.Need{{Name: algorithms.Rate, Window: w}}
	if p.cfg.ServiceTime == 0 {
		needs = append(needs, algorithms.Need{Name: Duration, Window: w})
	}
	return needs
}

// value returns a known, finite, non-negative signal.
func value(o *algorithms.Observation, name string, window time.Duration) (float64, bool) {
	i := o.Index(name, window)
	if i < 0 || o.Signals[i].Value < 0 {
		return 0, false
	}
	return o.Signals[i].Value, true
}

// Decide answers one observation.
func (p *Policy) Decide(o algorithms.Observation) algorithms.Decision {
	c, w := p.cfg, time.Duration(p.cfg.Window)
	unknown := func(what string) algorithms.Decision {
		d := algorithms.Decision{Reason: "NoData"}
		if !o.Quiet {
			d.Message = what + " over " + w.String() + " is unknown"
		}
		return d
	}
	service, serviceKnown := value(&o, Duration, w)
	if !serviceKnown || service == 0 {
		service = time.Duration(c.ServiceTime).Seconds()
		serviceKnown = serviceKnown || service > 0
	}
	var load float64
	var ok bool
	if c.Load == LoadConcurrency {
		if load, ok = value(&o, algorithms.Concurrency, w); !ok {
			return unknown("concurrency")
		}
	} else {
		rate, ok := value(&o, algorithms.Rate, w)
		switch {
		case !ok:
			return unknown("rate")
		case rate > 0 && !serviceKnown:
			return unknown("duration")
		}
		load = min(rate*service, math.MaxFloat64)
	}
	goal := Goal{WaitProbability: c.WaitProbability, Tail: c.TailProbability}
	if c.WaitProbability == 0 && load > 0 {
		if service == 0 {
			return unknown("duration")
		}
		goal.MeanWait, goal.TailWait = time.Duration(c.MeanWait).Seconds()/service, time.Duration(c.TailWait).Seconds()/service
	}
	slots := c.PodConcurrency
	if slots == 0 {
		slots = 1
		if o.Limits.PodConcurrency > 0 && algorithms.Finite(o.Limits.PodConcurrency) {
			slots = o.Limits.PodConcurrency
		}
	}
	variability := (c.ArrivalVariability + c.ServiceVariability) / 2
	var servers float64
	if c.Method == Erlang {
		servers = Servers(load, variability, goal)
	} else {
		servers = SquareRoot(load, variability, goal)
	}
	d := algorithms.Decision{Replicas: algorithms.Pods(math.Ceil(servers / slots)), Valid: true, Reason: "Staffed"}
	keep := p.keep(o)
	if load > 0 {
		p.state.LastDemand = o.Now
	} else if d.Replicas == 0 && o.Replicas.Current > 0 && !p.state.LastDemand.IsZero() && o.Now.Sub(p.state.LastDemand) < keep {
		d.Replicas, d.Reason = 1, "KeptAlive"
	}
	if o.Limits.Max > 0 {
		d.Replicas = min(d.Replicas, o.Limits.Max)
	}
	if !o.Quiet {
		d.Message = fmt.Sprintf("a load of %.4g needs %.0f servers by %s, %.4g to a pod: %d pods", load, servers, c.Method, slots, d.Replicas)
		if d.Reason == "KeptAlive" {
			d.Message = fmt.Sprintf("no load; the last pod is kept until %s after the last demand, when keeping has cost one cold start", keep)
		}
		d.Terms = append(o.Scratch[:0],
			algorithms.Term{Name: "offeredLoad", Value: load},
			algorithms.Term{Name: "servers", Value: min(servers, math.MaxFloat64)},
			algorithms.Term{Name: "podConcurrency", Value: slots},
			algorithms.Term{Name: "serviceSeconds", Value: service},
			algorithms.Term{Name: "keepSeconds", Value: keep.Seconds()})
	}
	return d
}

// keep is the break-even time, by observed costs where there are any.
func (p *Policy) keep(o algorithms.Observation) time.Duration {
	if o.Cost.PodSecond > 0 && o.Cost.ColdStart > 0 {
		return keepalive.BreakEven(o.Cost.PodSecond, o.Cost.ColdStart)
	}
	return keepalive.BreakEven(1, p.cfg.ColdStartCost)
}

// Snapshot returns the memory.
func (p *Policy) Snapshot() json.RawMessage { return memory.Save("staffing", version, p.state) }

// Restore puts back a Snapshot.
func (p *Policy) Restore(raw json.RawMessage) error {
	s, err := memory.Load[state]("staffing", version, raw)
	if err != nil {
		return err
	}
	p.state = s
	return nil
}
