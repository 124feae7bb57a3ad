// Package portfolio runs several policies in shadow, on the measured load, and follows those that
// would have cost least.
//
//	shadow   each expert has simulated pods: they start, take their start-up time, serve the measured
//	         load, and keep a backlog
//	cost     pod-seconds, also of starting pods, + price per late request + cold starts, by block of time
//	weights  Hedge with fixed share on log₄(cost / the cheapest expert's cost of the block), at most 1;
//	         they change at the ends of blocks only, so that a change costs little beside a block
//	answer   weighted median of the experts' answers
//	floor    the first expert, a classic: while requests wait longer than the goal the answer is not
//	         below its answer
//
// A late request costs S/(Kβ) pod-seconds, as in package lookahead. Experts see the measured
// signals, so a real overload shows in the shadows too. An expert without a valid decision has no
// vote, and its block counts as a loss of 1.
//
// Sources: Freund and Schapire 1997 (Hedge); Herbster and Warmuth 1998 (fixed share); blocks of
// about ten start-ups as in FeMux, EuroSys 2026.
package portfolio

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/demand"
	"github.com/sluice-autoscaler/sluice/algorithms/memory"
	"github.com/sluice-autoscaler/sluice/algorithms/params"
	"github.com/sluice-autoscaler/sluice/algorithms/staffing"
)

// Expert names a policy and its parameters.
type Expert struct {
	Name       string          `json:"name"`
	Parameters json.RawMessage `json:"parameters,omitempty"`
}

// Config holds the parameters.
type Config struct {
	// Experts are the policies, the first of them the safe floor.
	Experts []Expert `json:"experts"`
	// Target is what a pod should carry, in requests: passed to experts that have a target, and the
	// slots of a pod where nothing limits it.
	Target float64 `json:"target"`
	// PodConcurrency is how many requests a pod works on at a time. 0 takes the observed limit, and
	// Target where there is none.
	PodConcurrency float64 `json:"podConcurrency"`
	// WaitGoal is how long a request may wait, and ViolationBudget the share that may wait longer.
	// Less of either costs pods.
	WaitGoal        algorithms.Duration `json:"waitGoal"`
	ViolationBudget float64             `json:"violationBudget"`
	// ColdStartCost is what leaving zero costs besides, in pod-seconds; observed costs override it.
	ColdStartCost float64 `json:"coldStartCost"`
	// Block is the least length of a block; it is at least ten start-ups long. Shorter changes the
	// weights sooner and more often in vain.
	Block algorithms.Duration `json:"block"`
	// Memory is the time for which the weights are made: over it the best expert is found, and
	// about one change of it is followed.
	Memory algorithms.Duration `json:"memory"`
	// StartUp is how long a pod takes to be ready while none was measured.
	StartUp algorithms.Duration `json:"startUp"`
	// Window is the time over which the freshest means are taken. Longer is calmer and slower.
	Window algorithms.Duration `json:"window"`
}

// Default has kpa as floor, and target, histogram, seasonal and lookahead; blocks of five minutes
// over four hours.
func Default() Config {
	return Config{
		Experts: []Expert{{Name: "kpa"}, {Name: "target"}, {Name: "histogram"}, {Name: "seasonal"}, {Name: "lookahead"}},
		Target:  70, WaitGoal: algorithms.Duration(500 * time.Millisecond), ViolationBudget: 0.01, ColdStartCost: 60,
		Block: algorithms.Duration(5 * time.Minute), Memory: algorithms.Duration(4 * time.Hour),
		StartUp: algorithms.Duration(10 * time.Second), Window: algorithms.Duration(2 * time.Second),
	}
}

// Params describes the parameters.
func Params() params.List[Config] {
	return params.List[Config]{
		params.Other[Config]("experts", "2–16 of {name, parameters}", "kpa, target, histogram, seasonal, lookahead", "policies in shadow; the first is the floor"),
		params.Of("target", params.Above(0).UpTo(1e6), "requests per pod", "what one pod should carry",
			func(c *Config) *float64 { return &c.Target }).After(params.SignalTarget).Search("20%..110%"),
		params.Of("podConcurrency", params.Between(0, 1e6), "requests", "requests that a pod works on at a time",
			func(c *Config) *float64 { return &c.PodConcurrency }).Zero("the observed limit, else target"),
		params.Of("waitGoal", params.Spans(time.Millisecond, time.Hour), "", "how long a request may wait",
			func(c *Config) *algorithms.Duration { return &c.WaitGoal }),
		params.Of("violationBudget", params.Above(0).Below(1), "", "share of requests that may wait longer; sets what one costs",
			func(c *Config) *float64 { return &c.ViolationBudget }).Search("0.0005..0.05:log"),
		params.Of("coldStartCost", params.Between(0, 86400), "pod-seconds", "what leaving zero costs besides; observed costs override it",
			func(c *Config) *float64 { return &c.ColdStartCost }).Search("1..3600:log"),
		params.Of("block", params.Spans(10*time.Second, 24*time.Hour), "", "time between changes of weights; at least ten start-ups",
			func(c *Config) *algorithms.Duration { return &c.Block }),
		params.Of("memory", params.Spans(10*time.Second, 720*time.Hour), "", "time over which the best expert is looked for",
			func(c *Config) *algorithms.Duration { return &c.Memory }).Also("at least block", func(c *Config) bool { return c.Memory >= c.Block }).Search("1h..7d:log"),
		params.Of("startUp", params.Spans(0, time.Hour), "", "how long a pod takes to be ready, while no start was measured",
			func(c *Config) *algorithms.Duration { return &c.StartUp }),
		params.Of("window", params.Spans(time.Second, time.Minute), "", "averaging time of the freshest means",
			func(c *Config) *algorithms.Duration { return &c.Window }),
	}
}

// Validate reports every fault but those of the experts' parameters, which New finds.
func (c Config) Validate() error {
	errs := []error{Params().Check(&c)}
	if n := len(c.Experts); n < 2 || n > 16 {
		errs = append(errs, fmt.Errorf("experts = %d: want 2–16", n))
	}
	for i, e := range c.Experts {
		if e.Name == "" || e.Name == "portfolio" {
			errs = append(errs, fmt.Errorf("experts[%d].name = %q: want a policy, and no portfolio", i, e.Name))
		}
	}
	return errors.Join(errs...)
}

// Make makes a policy by name, as the catalog does.
type Make func(name string, targetPerPod float64, params json.RawMessage) (algorithms.Policy, error)

// shadow is the simulated workload of one expert.
type shadow struct {
	Current int `json:"current"`
	Ready   int `json:"ready"`
	// Starts are pods that start, in the order of their readiness.
	Starts []batch `json:"starts,omitempty"`
	// Backlog is in slot-seconds; Cost in pod-seconds since the block began; NoAnswer says that a
	// decision in it was not valid.
	Backlog  float64 `json:"backlog"`
	Cost     float64 `json:"cost"`
	NoAnswer bool    `json:"blind,omitempty"`
}

type batch struct {
	Asked time.Time `json:"asked"`
	Ready time.Time `json:"ready"`
	Pods  int       `json:"pods"`
}

// maxBatches bounds how many starts are kept apart; later ones join the last.
const maxBatches = 64

// Policy decides as the package says. It is not safe for concurrent use.
type Policy struct {
	cfg       Config
	estimator demand.Estimator
	experts   []algorithms.Policy
	needs     []algorithms.Need
	hedge     Hedge
	state     state
	answers   []int
	known     []bool
	losses    []float64
	ages      []time.Duration
}

type state struct {
	At    time.Time `json:"at,omitzero"`
	Block time.Time `json:"block,omitzero"`
	// Blocks is how many have ended.
	Blocks  int       `json:"blocks"`
	Shadows []shadow  `json:"shadows"`
	Weights []float64 `json:"weights"`
	// Experts and Demand are for snapshots only.
	Experts []json.RawMessage `json:"experts,omitempty"`
	Demand  demand.State      `json:"demand"`
}

const version = 1

// New returns a policy with a validated Config; catalog makes the experts.
func New(c Config, makeExpert Make) (*Policy, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	n := len(c.Experts)
	blocks := int(c.Memory / c.Block)
	p := &Policy{
		cfg: c, estimator: demand.Estimator{Short: time.Duration(c.Window)}, hedge: NewHedge(n, blocks, 1/float64(blocks+1)),
		answers: make([]int, n), known: make([]bool, n), losses: make([]float64, n), state: state{Shadows: make([]shadow, n)},
	}
	var errs []error
	p.needs = p.estimator.Needs()
	for i, e := range c.Experts {
		x, err := makeExpert(e.Name, c.Target, e.Parameters)
		if err != nil {
			errs = append(errs, fmt.Errorf("experts[%d]: %w", i, err))
			continue
		}
		p.experts = append(p.experts, x)
		for _, need := range x.Needs() {
			if !has(p.needs, need) {
				p.needs = append(p.needs, need)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return p, nil
}

func has(needs []algorithms.Need, n algorithms.Need) bool {
	return slices.Contains(needs, n)
}

// Needs is what any of the experts reads.
func (p *Policy) Needs() []algorithms.Need { return p.needs }

// Learns names what any of the experts learns, in their order.
func (p *Policy) Learns() []string {
	var names []string
	for _, x := range p.experts {
		l, ok := x.(algorithms.Learner)
		if !ok {
			continue
		}
		for _, name := range l.Learns() {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// Learn passes the history to the experts that learn from one.
func (p *Policy) Learn(history []algorithms.Sample) error {
	if err := algorithms.CheckHistory(history, p.state.At); err != nil {
		return err
	}
	for i, x := range p.experts {
		if l, ok := x.(algorithms.Learner); ok {
			if err := l.Learn(history); err != nil {
				return fmt.Errorf("%s: %w", p.cfg.Experts[i].Name, err)
			}
		}
	}
	return nil
}

// Decide answers one observation.
func (p *Policy) Decide(o algorithms.Observation) algorithms.Decision {
	c, s := &p.cfg, &p.state
	slots := c.PodConcurrency
	if slots == 0 {
		slots = c.Target
		if o.Limits.PodConcurrency > 0 && algorithms.Finite(o.Limits.PodConcurrency) {
			slots = o.Limits.PodConcurrency
		}
	}
	start := time.Duration(c.StartUp)
	if o.StartUp.Samples > 0 {
		start = min(o.StartUp.P50, time.Hour)
	}
	r := p.estimator.Read(&o, slots)
	dt := o.Now.Sub(s.At)
	if s.At.IsZero() || dt > 10*time.Minute { // all shadows start from the real workload
		for i := range s.Shadows {
			s.Shadows[i] = shadow{Current: o.Replicas.Current, Ready: o.Replicas.Ready, Cost: s.Shadows[i].Cost, NoAnswer: s.Shadows[i].NoAnswer}
			if n := o.Replicas.Current - o.Replicas.Ready; n > 0 {
				s.Shadows[i].Starts = append(s.Shadows[i].Starts, batch{o.Now, o.Now.Add(start), n})
			}
		}
		if s.At.IsZero() {
			s.Block = o.Now
		}
		dt = 0
	}
	s.At = o.Now
	answered := false
	for i, x := range p.experts {
		w := &s.Shadows[i]
		w.advance(o.Now, dt, &r, slots, start, c, &o)
		ask := o
		ask.Quiet, ask.Scratch = true, nil
		p.ages = p.ages[:0]
		ask.Replicas = algorithms.Replicas{Current: w.Current, Ready: min(w.Ready, w.Current)}
		for _, b := range w.Starts {
			ask.Replicas.Starting += b.Pods
			for range min(b.Pods, 64-len(p.ages)) {
				p.ages = append(p.ages, max(o.Now.Sub(b.Asked), 0))
			}
		}
		ask.Replicas.StartingAges = p.ages
		d := x.Decide(ask)
		p.known[i] = d.Valid && d.Replicas >= 0
		if !p.known[i] {
			w.NoAnswer = true
			continue
		}
		answered = true
		n := d.Replicas
		if o.Limits.Max > 0 {
			n = min(n, o.Limits.Max)
		}
		p.answers[i] = n
		w.scale(o.Now, n, start)
	}
	if block := max(time.Duration(c.Block), 10*start); o.Now.Sub(s.Block) >= block {
		p.endBlock()
		s.Block = o.Now
	}
	if !answered || !r.Known {
		d := algorithms.Decision{Reason: "NoData"}
		if !o.Quiet {
			d.Message = "none of the experts can tell, or concurrency is unknown"
		}
		return d
	}
	n, _ := Median(p.answers, p.known, p.hedge.Weights)
	reason := "Weighted"
	if late := r.Wait > time.Duration(c.WaitGoal).Seconds(); late && p.known[0] && p.answers[0] > n {
		n, reason = p.answers[0], "Floor"
	}
	d := algorithms.Decision{Replicas: n, Valid: true, Reason: reason}
	if !o.Quiet {
		p.explain(&d, &o)
	}
	return d
}

// lossBase is the cost, relative to the cheapest expert's, that makes a loss of 1.
const lossBase = 4

// endBlock updates the weights: a loss is the logarithm of the cost over the cheapest expert's, to
// the base lossBase, at most 1.
func (p *Policy) endBlock() {
	least := math.Inf(1)
	for i := range p.state.Shadows {
		if w := &p.state.Shadows[i]; !w.NoAnswer {
			least = min(least, w.Cost)
		}
	}
	for i := range p.state.Shadows {
		w := &p.state.Shadows[i]
		p.losses[i] = 1
		if !w.NoAnswer { // differences of a pod-second do not count
			p.losses[i] = min(math.Log((w.Cost+1)/(least+1))/math.Log(lossBase), 1)
		}
		w.Cost, w.NoAnswer = 0, false
	}
	p.hedge.Update(p.losses)
	p.state.Blocks++
}

// advance simulates dt at the measured load.
func (w *shadow) advance(now time.Time, dt time.Duration, r *demand.Reading, slots float64, start time.Duration, c *Config, o *algorithms.Observation) {
	starting := 0
	done := 0
	for i := range w.Starts {
		if w.Starts[i].Ready.After(now) {
			starting += w.Starts[i].Pods
			continue
		}
		w.Ready += w.Starts[i].Pods
		done++
	}
	w.Starts = w.Starts[:copy(w.Starts, w.Starts[done:])]
	t := min(dt, time.Minute).Seconds()
	if !r.Known || t <= 0 {
		return
	}
	goal, late := time.Duration(c.WaitGoal).Seconds(), 0.0
	capacity := float64(w.Ready) * slots
	w.Backlog = min(max(w.Backlog+(r.Load-capacity)*t, 0), 1e12)
	switch {
	case r.InFlight == 0 && w.Backlog == 0:
	case capacity == 0:
		if start.Seconds() > goal {
			late = 1
		}
	default:
		late = min(max(w.Backlog/capacity/goal-0.5, 0), 1)
		if r.Service > 0 {
			late = max(late, staffing.WaitShare(capacity, r.Load, goal/r.Service))
		}
	}
	w.Cost = min(w.Cost+float64(w.Ready+starting)*t+late*r.Load*t/(slots*c.ViolationBudget), 1e15)
	if r.InFlight > 0 && w.Current == 0 {
		cold := c.ColdStartCost
		if o.Cost.PodSecond > 0 && o.Cost.ColdStart > 0 {
			cold = min(o.Cost.ColdStart/o.Cost.PodSecond, 86400)
		}
		w.Cost += cold
		w.scale(now, 1, start) // as guard wakes it
	}
}

// scale sets the count to n pods.
func (w *shadow) scale(now time.Time, n int, start time.Duration) {
	existing := w.Ready
	for _, b := range w.Starts {
		existing += b.Pods
	}
	switch added := n - existing; {
	case added > 0 && len(w.Starts) < maxBatches:
		w.Starts = append(w.Starts, batch{now, now.Add(start), added})
	case added > 0:
		w.Starts[maxBatches-1].Pods += added
	}
	for fewer := existing - n; fewer > 0; {
		if k := len(w.Starts); k > 0 {
			take := min(fewer, w.Starts[k-1].Pods)
			w.Starts[k-1].Pods -= take
			fewer -= take
			if w.Starts[k-1].Pods == 0 {
				w.Starts = w.Starts[:k-1]
			}
			continue
		}
		w.Ready = max(w.Ready-fewer, 0)
		fewer = 0
	}
	w.Current = n
}

// explain adds the message and the terms.
func (p *Policy) explain(d *algorithms.Decision, o *algorithms.Observation) {
	var b strings.Builder
	d.Terms = o.Scratch[:0]
	for i, e := range p.cfg.Experts {
		if i > 0 {
			b.WriteString(", ")
		}
		label := fmt.Sprintf("%s%d", e.Name, i)
		if p.known[i] {
			fmt.Fprintf(&b, "%s %d (weight %.2f)", e.Name, p.answers[i], p.hedge.Weights[i])
			d.Terms = append(d.Terms, algorithms.Term{Name: label + "Replicas", Value: float64(p.answers[i])})
		} else {
			fmt.Fprintf(&b, "%s cannot tell (weight %.2f)", e.Name, p.hedge.Weights[i])
		}
		d.Terms = append(d.Terms, algorithms.Term{Name: label + "Weight", Value: p.hedge.Weights[i]}, algorithms.Term{Name: label + "Cost", Value: p.state.Shadows[i].Cost})
	}
	how := "the weighted median"
	if d.Reason == "Floor" {
		how = "requests wait too long, so the floor"
	}
	d.Message = fmt.Sprintf("%s gives %d pods, after %d blocks: %s", how, d.Replicas, p.state.Blocks, b.String())
}

// Snapshot returns the memory, the experts' too.
func (p *Policy) Snapshot() json.RawMessage {
	s := p.state
	s.Weights, s.Demand = p.hedge.Weights, p.estimator.State
	for _, x := range p.experts {
		s.Experts = append(s.Experts, x.Snapshot())
	}
	return memory.Save("portfolio", version, s)
}

// Restore puts back a Snapshot of a policy with the same experts.
func (p *Policy) Restore(raw json.RawMessage) error {
	s, err := memory.Load[state]("portfolio", version, raw)
	if err != nil {
		return err
	}
	n := len(p.experts)
	if len(s.Shadows) != n || len(s.Weights) != n || len(s.Experts) != n {
		return fmt.Errorf("portfolio snapshot has %d experts: want %d", len(s.Experts), n)
	}
	sum := 0.0
	for i, w := range s.Weights {
		if !(w >= 0 && w <= 1) || s.Shadows[i].Current < 0 || s.Shadows[i].Ready < 0 || len(s.Shadows[i].Starts) > maxBatches {
			return fmt.Errorf("portfolio snapshot: expert %d has weight %v and %d pods: want 0–1 and a count ≥ 0", i, w, s.Shadows[i].Current)
		}
		sum += w
	}
	if math.Abs(sum-1) > 1e-6 {
		return fmt.Errorf("portfolio snapshot: weights add up to %v: want 1", sum)
	}
	before := make([]json.RawMessage, 0, n)
	for i, x := range p.experts {
		before = append(before, x.Snapshot())
		if err := x.Restore(s.Experts[i]); err != nil {
			err = fmt.Errorf("read portfolio snapshot: %s: %w", p.cfg.Experts[i].Name, err)
			for j, b := range before[:i] {
				err = errors.Join(err, p.experts[j].Restore(b))
			}
			return err
		}
	}
	p.hedge.Weights, p.estimator.State = s.Weights, s.Demand
	s.Weights, s.Experts, s.Demand = nil, nil, demand.State{}
	p.state = s
	return nil
}
