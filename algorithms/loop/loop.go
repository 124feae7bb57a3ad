// Package loop is the control loop of one workload: everything between what was seen of it and what
// is to be done. It owns data time, start-up times, the policy and its guard, the hand-over between
// instances and gateways, settling and the mode. It is pure: no clock, no I/O, no goroutine. The
// scaler and the simulator are shells around it.
//
// A round is Step: a View in, Commands out. The shell carries the Commands out and calls Done.
//
// # Rules
//
// Each rule has a name here, a scenario in looptest/testdata that fails without it, and a line in
// the mutation test.
//
//	clock         The loop's time runs as time passes, and a clock that is set moves no timer.
//	data time     A policy's time is that of its data: timers must not run out on stale readings.
//	start-up      Start-ups count when both their ends were watched.
//	limit         The least limit of the ready instances bounds what a policy expects of one.
//	guard         Bounds, behavior, wake-ups, missing data, idle time: package guard.
//	hand-over     The way to zero and back: the table below.
//	settling      Down only Settle after a change and SettleWake after a wake-up, and to zero only
//	              once the workload is as old as its idle time.
//	blind         While those who route requests may not see changes, nothing goes: neither an
//	              instance nor a gateway in the path.
//	mode          DryRun decides and records, and changes nothing.
//
// # The way to zero and back
//
// current is the target's count, want the guarded decision (current, where there is none), ready
// the instances that take requests, in whether the path leads through the gateways.
//
//	current  want  condition                                   phase         path  replicas
//	0        0                                                 Asleep        in    0
//	0        > 0                                               Waking        in    want
//	> 0      0     no gateway listens                          Awake         out*  min(current, 1)
//	> 0      0     not in yet                                  GoingToSleep  in    current
//	> 0      0     in for less than Grace                      GoingToSleep  in    current
//	> 0      0     in for Grace                                Asleep        in    0
//	> 0      > 0   ready = 0                                   Waking        in    want
//	> 0      > 0   was Waking, ready < current or requests     Waking        in    want
//	               wait, ready for less than Linger
//	> 0      > 0   else                                        Awake         out   want
//
// The grace begins when the path is first seen in on this way to zero. One that was seen in while
// the count was zero is not: somebody may have scaled by hand.
//
// out* is in while no instance is ready. Settling comes after the table: it may keep the count, and
// then a phase of Asleep is GoingToSleep.
package loop

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/guard"
)

// Catalog makes policies by name. catalog.Catalog is one.
type Catalog interface {
	New(name string, targetPerPod float64, params json.RawMessage) (algorithms.Policy, error)
}

// signalCatalog is a Catalog that lets policies look at other signals than concurrency.
type signalCatalog interface {
	// ForSignal returns parameters by which a policy looks at a signal, where they name none.
	ForSignal(policy, signal string, targetPerPod float64, params json.RawMessage) (json.RawMessage, error)
}

// policyParameters are the spec's, with its signal.
func policyParameters(s *Spec, c Catalog) (json.RawMessage, error) {
	if s.SignalName() == algorithms.Concurrency {
		return s.Policy.Parameters, nil
	}
	of, ok := c.(signalCatalog)
	if !ok {
		return nil, fmt.Errorf("spec.signals[0].name = %q: want concurrency, the only signal of these policies", s.SignalName())
	}
	raw, err := of.ForSignal(s.PolicyName(), s.SignalName(), s.TargetPerPod(), s.Policy.Parameters)
	if err != nil {
		return nil, fmt.Errorf("spec.signals[0].name = %q: %w", s.SignalName(), err)
	}
	return raw, nil
}

// Config is a Loop's parts, for shells that do not begin with a Spec.
type Config struct {
	// Policy decides; Guard bounds it.
	Policy algorithms.Policy
	Guard  guard.Config
	// Limits are the bounds of decisions. Limits.PodConcurrency, where it is set, takes the place
	// of the instances' own limit.
	Limits algorithms.Limits
	Mode   Mode
	Timing Timing
	Cost   algorithms.Cost
	// Quiet leaves messages, terms and clamps out of records, and spares their cost.
	Quiet bool
}

// Loop is the control loop of one workload. It is not safe for concurrent use.
type Loop struct {
	cfg    Config
	policy *guard.Policy
	needs  []algorithms.Need
	memory memory
	clock  clock
	// lastStep is the instant of the round before; began that of the first.
	lastStep, began time.Time
	// ages and scratch are buffers.
	ages    []time.Duration
	scratch []algorithms.Term
}

// memory is what a loop remembers besides its policy.
type memory struct {
	handover
	// dataTime is the instant up to which all signals were known in the last round; it never goes
	// back.
	dataTime time.Time
	// scaledAt is when the count was last written; activeSince when the workload last left zero.
	scaledAt, activeSince time.Time
	// wantedSince is since when requests wait, or waited, for the workload to leave zero.
	wantedSince time.Time
	starts      algorithms.StartTimes
	// limit is the instances' limit as it was last known, 0 before.
	limit float64
}

// New makes the loop that a Spec describes, with a policy of the catalog. Errors name the field,
// its value and the remedy. Close is to be called once the loop is not used any more.
func New(s Spec, c Catalog, t Timing) (*Loop, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	raw, err := policyParameters(&s, c)
	if err != nil {
		return nil, err
	}
	policy, err := c.New(s.PolicyName(), s.TargetPerPod(), raw)
	if err != nil {
		return nil, fmt.Errorf("spec.policy: %w", err)
	}
	cfg := Config{
		Policy: policy, Guard: s.guard(), Mode: s.Mode, Timing: t,
		Limits: algorithms.Limits{Min: s.MinReplicas, Max: s.MaxReplicas},
	}
	if s.Hold != nil && s.Hold.PodConcurrency != nil {
		cfg.Limits.PodConcurrency = float64(*s.Hold.PodConcurrency)
	}
	l, err := Build(cfg)
	if err != nil {
		closePolicy(policy)
		return nil, err
	}
	return l, nil
}

// Build makes a loop of its parts.
func Build(c Config) (*Loop, error) {
	if c.Mode == "" {
		c.Mode = ModeApply
	}
	if err := errors.Join(c.Timing.validate()...); err != nil {
		return nil, err
	}
	p, err := guard.New(c.Guard, c.Policy)
	if err != nil {
		return nil, err
	}
	return &Loop{cfg: c, policy: p, needs: p.Needs()}, nil
}

// Close lets go what the policy holds.
func (l *Loop) Close() { closePolicy(l.cfg.Policy) }

// closePolicy closes a policy that holds something, such as a connection.
func closePolicy(p algorithms.Policy) {
	if c, ok := p.(io.Closer); ok {
		_ = c.Close() // nobody could act on the fault
	}
}

// Needs lists the signals and windows that a View is to answer. It is not to be changed.
func (l *Loop) Needs() []algorithms.Need { return l.needs }

// Phase is where the workload was in the last round; "" before the first.
func (l *Loop) Phase() Phase { return l.memory.Phase }

// Step does one round. The slices of the Commands' record are the View's and the loop's own: they
// hold until the next Step, and whoever keeps them longer clones them.
func (l *Loop) Step(v View) Commands {
	if l.began.IsZero() {
		l.began = v.Now
	}
	l.clock = l.clock.step(v.Now).birth(v.Born)
	path := v.Path
	if l.cfg.Mode == ModeDryRun {
		path = nil
	}
	o := l.observe(&v)
	d := l.policy.Decide(o)
	l.lastStep = v.Now

	p := plan{phase: Awake, replicas: v.Replicas}
	if d.Valid {
		p.replicas = d.Replicas
	}
	if path != nil {
		p = l.memory.next(l.clock.at, v.Replicas, p.replicas, path, &l.cfg.Timing)
	} else {
		l.memory.handover = handover{Phase: Awake}
	}
	l.settle(&v, &p)
	return l.commands(&v, path, &o, &d, &p)
}

// DataTime is the instant up to which all signals of a view are known, or that of an earlier view
// if that is later. It is the policy's time in the Step that follows.
func (l *Loop) DataTime(v *View) time.Time {
	age := time.Duration(0)
	for i := range v.Signals {
		age = max(age, v.Signals[i].Age)
	}
	return later(l.clock.step(v.Now).at.Add(-age), l.memory.dataTime)
}

// observe makes the policy's observation of a view, and learns from it.
func (l *Loop) observe(v *View) algorithms.Observation {
	m := &l.memory
	m.dataTime = l.DataTime(v)
	m.want(v)
	o := algorithms.Observation{
		Now: m.dataTime, Signals: v.Signals, ActiveSince: m.active(), Quiet: l.cfg.Quiet, Scratch: l.scratch[:0], Done: v.Done,
		Replicas: algorithms.Replicas{Current: v.Replicas}, Limits: l.cfg.Limits, Cost: l.cfg.Cost,
	}
	limit := 0.0
	l.ages = l.ages[:0]
	for i := range v.Instances {
		p := &v.Instances[i]
		switch p.State {
		case algorithms.PodReady:
			o.Replicas.Ready++
			if !l.lastStep.IsZero() && p.Ready.After(l.lastStep) && !p.Created.Before(l.began) {
				m.starts.Add(p.Ready.Sub(p.Created))
			}
			if p.Limit > 0 && (limit == 0 || p.Limit < limit) {
				limit = p.Limit
			}
		case algorithms.PodStarting, algorithms.PodPending, algorithms.PodUnknown:
			o.Replicas.Starting++
			if !p.Created.IsZero() {
				l.ages = append(l.ages, max(0, v.Now.Sub(p.Created)))
			}
		case algorithms.PodTerminating:
			o.Replicas.Terminating++
		case algorithms.PodFailed, algorithms.PodSucceeded, algorithms.PodGone:
			// another takes its place
		}
	}
	if limit > 0 {
		m.limit = limit
	}
	if len(l.ages) > 0 {
		o.Replicas.StartingAges = l.ages
	}
	o.StartUp = m.starts.StartUp()
	if o.Limits.PodConcurrency == 0 {
		o.Limits.PodConcurrency = m.limit
	}
	return o
}

// want notices since when requests wait for a workload at zero. A wake-up can be late.
func (m *memory) want(v *View) {
	if v.Replicas != 0 {
		return
	}
	waiting := v.Path != nil && v.Path.Waiting > 0
	for i := range v.Signals {
		s := &v.Signals[i]
		waiting = waiting || s.Name == algorithms.Waiting && s.Window == algorithms.Instant && s.Known && s.Value > 0
	}
	switch {
	case !waiting:
		m.wantedSince = time.Time{}
		return
	case m.wantedSince.IsZero():
		m.wantedSince = v.Now
	}
	if v.Path == nil {
		return
	}
	for i := range v.Path.ColdStarts {
		if c := &v.Path.ColdStarts[i]; c.Answering.IsZero() && !c.Detected.IsZero() && c.Detected.Before(m.wantedSince) {
			m.wantedSince = c.Detected
		}
	}
}

// active is since when the workload is wanted, for policies.
func (m *memory) active() time.Time {
	if m.activeSince.IsZero() || m.wantedSince.IsZero() || m.activeSince.Before(m.wantedSince) {
		return m.activeSince
	}
	return m.wantedSince
}

// settle puts off scaling down that would come too soon, and what the routers would not see.
func (l *Loop) settle(v *View, p *plan) {
	blind := v.BlindUntil.Sub(v.Now)
	if blind > 0 && v.Path != nil && v.Path.In && !p.in {
		p.in, p.why = true, whyBlind
		p.lookAgain(blind)
	}
	if p.replicas >= v.Replicas {
		return
	}
	t := &l.cfg.Timing
	due := later(l.memory.scaledAt.Add(t.Settle), l.memory.activeSince.Add(t.SettleWake))
	if p.replicas == 0 {
		due = later(due, l.clock.bornAt.Add(l.cfg.Guard.IdleAfter))
	}
	left := due.Sub(l.clock.at)
	switch {
	case blind > max(left, 0):
		left, p.rule, p.why = blind, ruleBlind, whyBlind
	case left > 0:
		p.rule, p.why = ruleSettling, "scaling down is put off until the last change has settled"
	default:
		return
	}
	p.replicas = v.Replicas
	p.lookAgain(left)
	if p.phase == Asleep {
		p.phase = GoingToSleep
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// commands turns a plan into Commands with their record.
func (l *Loop) commands(v *View, path *Path, o *algorithms.Observation, d *algorithms.Decision, p *plan) Commands {
	next := l.cfg.Timing.Tick
	for _, at := range []time.Duration{d.Next, p.recheck} {
		if at > 0 {
			next = min(next, at)
		}
	}
	c := Commands{
		Next: max(next, time.Millisecond),
		Record: Record{
			At: v.Now, Phase: p.phase, From: v.Replicas, To: p.replicas, Desired: d.Replicas, Valid: d.Valid,
			Reason: d.Reason, Message: d.Message, Waiting: p.why, Terms: d.Terms, Clamps: d.Clamps,
			Signals: v.Signals, Replicas: o.Replicas, Limits: o.Limits, StartUp: o.StartUp,
			ActiveSince: o.ActiveSince, Mode: l.cfg.Mode,
		},
	}
	if !l.cfg.Quiet && d.Valid && p.replicas != d.Replicas {
		c.Record.Clamps = append(c.Record.Clamps, algorithms.Clamp{Rule: p.rule, From: d.Replicas, To: p.replicas})
	}
	if cap(d.Terms) > cap(l.scratch) {
		l.scratch = d.Terms
	}
	if l.cfg.Mode == ModeDryRun {
		return c
	}
	if p.replicas != v.Replicas {
		c.Scale = &p.replicas
		c.First = goFirst(v.Instances, v.Replicas-p.replicas)
	}
	if path != nil {
		c.Path = &PathState{In: p.in, Failure: failure(p.phase, v)}
		if c.Path.Failure != "" && c.Record.Waiting == "" { // gateways tell clients less
			c.Record.Waiting = "no pod can start: " + c.Path.Failure
		}
	}
	return c
}

// failure says why no instance can start while none is ready, "" while one may.
func failure(phase Phase, v *View) string {
	if phase != Waking {
		return ""
	}
	why := v.Trouble
	for i := range v.Instances {
		switch p := &v.Instances[i]; {
		case p.State == algorithms.PodTerminating:
		case p.Trouble == "":
			return ""
		default:
			why = "pod " + p.ID + ": " + p.Trouble
		}
	}
	if len(why) > mostFailure {
		why = strings.ToValidUTF8(why[:mostFailure], "") + "…"
	}
	return why
}

// mostFailure bounds the text of a failure, in bytes: the gateways are told of all workloads' at
// once.
const mostFailure = 256

// goFirst names the n instances that lose least by going: those that do not run yet, the youngest
// first, then those with the fewest requests in flight. Equal ones go by name, so that the order is
// always the same.
func goFirst(instances []Instance, n int) []string {
	if n <= 0 {
		return nil
	}
	var all []*Instance
	for i := range instances {
		if s := instances[i].State; s != algorithms.PodTerminating && s != algorithms.PodFailed && s != algorithms.PodSucceeded {
			all = append(all, &instances[i])
		}
	}
	slices.SortFunc(all, func(a, b *Instance) int {
		ready := func(p *Instance) int {
			if p.State == algorithms.PodReady {
				return 1
			}
			return 0
		}
		byAge := 0
		if ready(a) == 0 {
			byAge = b.Created.Compare(a.Created)
		}
		return cmp.Or(cmp.Compare(ready(a), ready(b)), byAge, cmp.Compare(a.InFlight, b.InFlight), cmp.Compare(a.ID, b.ID))
	})
	ids := make([]string, 0, n)
	for _, p := range all[:min(n, len(all))] {
		ids = append(ids, p.ID)
	}
	return ids
}

// Done tells the loop what became of its commands: err is nil when all were carried out, at now.
func (l *Loop) Done(now time.Time, c Commands, err error) {
	if err != nil || c.Scale == nil {
		return
	}
	l.memory.scaledAt = l.clock.instant(now)
	if c.Record.From == 0 {
		l.memory.activeSince = l.memory.scaledAt
	}
}
