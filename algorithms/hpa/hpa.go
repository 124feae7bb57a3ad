// Package hpa decides like the Kubernetes HorizontalPodAutoscaler, autoscaling/v2
// (k8s.io/kubernetes, pkg/controller/podautoscaler): its replica calculator to the digit, in whole
// thousandths, and, with the Config of a whole HPA, stabilization and rates too. The test module
// oracle/hpa runs both side by side and requires equality.
//
// For a target per pod (Pods, and Resource with AverageValue):
//
//	usage = Σ readings div n      U = usage / target
//	in tolerance when 1 − tolerance down ≤ U ≤ 1 + tolerance up
//	nothing missing, and not (some unready and U > 1): current when in tolerance, else ceil(U × n)
//	else missing pods count as target when U < 1 and as 0 when U > 1, unready ones as 0 when U > 1, and
//	U' is computed anew: current when U' is in tolerance, on the other side of 1, or would move the
//	count against itself; else ceil(U' × pods counted)
//
// Utilization is the same with integer percents of the requests; missing pods then use max(100,
// target) % of theirs. An External or Object AverageValue gives ceil(total / target) out of
// tolerance; a Value gives ceil(total / target × ready pods), and from 0 replicas ceil(total /
// target).
//
// Terminating and failed pods are ignored, pending ones are unready, running ones without a reading
// are missing; readiness counts for the resource cpu only. Of several metrics the largest proposal
// wins. When some fail and the others would scale down, nothing changes.
//
// An AverageValue of External or Object answers the count of existing pods within tolerance, not
// the count that was asked for (kubernetes#138505, open in both releases). So the surge of a
// rollout is kept, and a missing pod is given up. It is kept here, since this package is to equal
// the HPA; the message says when it happens. No other policy of Sluice does it.
//
// Config.Release says whose arithmetic holds. 1.38 ignores pods that have succeeded, where 1.37
// takes them for missing or counted, and leaves a pod's overhead out of its requests. Where 1.37
// overflows a 32-bit count, both saturate here. A total over no pods has no ratio, so no tolerance,
// in both.
//
// Without Behavior the HPA's older rules limit the answers (package behavior, NewOlder). Limits:
// none leaves the bare calculator.
//
// Where single pods are unknown (Observation.Pods is nil), a Pods metric takes the signal's total
// as spread over the ready pods.
package hpa

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/behavior"
	"github.com/sluice-autoscaler/sluice/algorithms/memory"
)

// Policy decides as the package says. It is not safe for concurrent use.
type Policy struct {
	cfg      Config
	metrics  []metric
	down, up float64
	limiter  *behavior.Limiter // nil when only the calculator runs
	pace     algorithms.Pace
	results  []Proposal
}

// Proposal is what one metric asks for, and how that came about.
type Proposal struct {
	// Fault is why there is no proposal, "" when there is one.
	Fault string
	// Replicas is the count that the metric asks for. It is meaningless with a Fault.
	Replicas int
	// Usage is what was compared with the target, before pods were filled in: in thousandths per
	// pod or in total, or in percent of the requests.
	Usage int64
	// First is usage over target as read; Ratio is the same after pods without a reading and
	// unready pods were filled in, and equals First where none were.
	First, Ratio float64
	// Counted pods had a reading that counts. Missing ones had none, and Unready ones none that
	// counts.
	Counted, Missing, Unready int
	// Tolerated says that Ratio is within the tolerance, so that nothing changes.
	Tolerated bool
	// Turned says that filling in would have moved the count against First, so that nothing
	// changes.
	Turned bool
	// Existing says that Replicas is the count of existing pods, within tolerance.
	Existing bool
}

// New returns a policy with a validated Config.
func New(c Config) (*Policy, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	m, err := c.metrics()
	if err != nil {
		return nil, err
	}
	p := &Policy{cfg: c, metrics: m, results: make([]Proposal, len(m))}
	p.down, p.up = c.Behavior.Tolerances(c.Tolerance)
	switch {
	case c.Behavior != nil:
		if p.limiter, err = behavior.New(*c.Behavior); err != nil {
			return nil, err
		}
	case c.Limits == LimitsStock:
		p.limiter = behavior.NewOlder()
	}
	return p, nil
}

// YieldLimits takes away the stock limits, for a caller that bounds the answers by rules of its
// own. Rules that the Config states stay.
func (p *Policy) YieldLimits() {
	if p.cfg.Behavior == nil {
		p.cfg.Limits, p.limiter = LimitsNone, nil
	}
}

// Needs names the metrics' signals.
func (p *Policy) Needs() []algorithms.Need {
	needs := make([]algorithms.Need, 0, len(p.metrics))
	for _, m := range p.metrics {
		needs = append(needs, algorithms.Need{Name: m.name, Window: m.window, PerPod: m.kind == Pods || m.kind == Resource})
	}
	return needs
}

// Decide answers one observation.
func (p *Policy) Decide(o algorithms.Observation) algorithms.Decision {
	cur := o.Replicas.Current
	if cur > 0 && !p.pace.Due(o.Now, time.Duration(p.cfg.SyncPeriod)) {
		return algorithms.WaitForSync(&o, p.pace.Next)
	}
	lo, hi := o.Limits.Min, o.Limits.Max
	if p.cfg.MinReplicas != nil {
		lo = *p.cfg.MinReplicas
	}
	if p.cfg.MaxReplicas != nil {
		hi = *p.cfg.MaxReplicas
	}
	if p.limiter != nil {
		p.limiter.Observe(o.Now, cur)
		// A count out of bounds is corrected before any metric is read; 0 is asleep, and wakes by
		// metrics.
		if d := (algorithms.Decision{Valid: true}); cur > hi || cur > 0 && cur < lo {
			if d.Replicas, d.Reason = hi, "TooManyReplicas"; cur < lo {
				d.Replicas, d.Reason = lo, "TooFewReplicas"
			}
			p.limiter.Answered(o.Now, cur, d.Replicas)
			if !o.Quiet {
				d.Message = fmt.Sprintf("%d replicas are out of the bounds %d–%d; %s gives %d", cur, lo, hi, d.Reason, d.Replicas)
			}
			return d
		}
	}
	for i := range p.metrics {
		p.results[i] = p.compute(&p.metrics[i], &o)
	}
	n, _, reason := Combine(p.results, cur)
	d := algorithms.Decision{Replicas: n, Valid: reason != NoData && reason != SomeMetricsFailed, Reason: reason}
	if !d.Valid {
		d.Replicas = 0
	}
	raw := n
	if d.Valid && p.limiter != nil {
		if m, why := p.limiter.Apply(o.Now, cur, max(n, 0), lo, hi); why != "" {
			d.Replicas, d.Reason = m, why
		} else {
			d.Replicas = m
		}
		if cur == 0 && d.Replicas < lo {
			d.Replicas, d.Reason = lo, "TooFewReplicas"
		}
		p.limiter.Answered(o.Now, cur, d.Replicas)
	}
	d.Replicas = min(max(d.Replicas, 0), most)
	if !o.Quiet {
		p.explain(&d, &o, raw)
	}
	return d
}

// The reasons of Combine.
const (
	// NoData says that no metric has a proposal.
	NoData = "NoData"
	// SomeMetricsFailed says that some have none, and that the others ask for fewer pods than
	// there are.
	SomeMetricsFailed = "SomeMetricsFailed"
	// Unchanged says that the metrics ask for the current count.
	Unchanged = "Unchanged"
	// Metrics says that they ask for another one.
	Metrics = "Metrics"
)

// Combine is what all metrics together ask for, and the index of the one that asks for it, -1 when
// there is none. With the reason NoData or SomeMetricsFailed nothing is to change.
func Combine(all []Proposal, current int) (n, winner int, reason string) {
	winner = -1
	failed := 0
	for i := range all {
		switch {
		case all[i].Fault != "":
			failed++
		case n == 0 || all[i].Replicas > n:
			n, winner = all[i].Replicas, i
		}
	}
	switch {
	case failed == len(all):
		return n, winner, NoData
	case failed > 0 && n < current:
		return n, winner, SomeMetricsFailed
	case n == current:
		return n, winner, Unchanged
	}
	return n, winner, Metrics
}

// Propose is what each metric asks for, in the order of Config.Metrics, before all limits. It
// changes nothing in the policy.
func (p *Policy) Propose(o algorithms.Observation) []Proposal {
	all := make([]Proposal, len(p.metrics))
	for i := range p.metrics {
		all[i] = p.compute(&p.metrics[i], &o)
	}
	return all
}

// most bounds pod counts.
const most = 1_000_000

// within tells whether a ratio is in the tolerance band.
func (p *Policy) inTolerance(ratio float64) bool { return 1-p.down <= ratio && ratio <= 1+p.up }

// compute is one metric's proposal.
func (p *Policy) compute(m *metric, o *algorithms.Observation) Proposal {
	if m.kind == Pods || m.kind == Resource {
		if o.Pods == nil && m.aim == AverageValue && !m.cpu {
			return p.fromTotal(m, o)
		}
		return p.perPod(m, o)
	}
	total, ok := m.read(o)
	if !ok {
		return Proposal{Fault: "the signal is unknown"}
	}
	r := Proposal{Usage: total}
	cur := o.Replicas.Current
	if m.aim == AverageValue {
		existing := o.Replicas.Existing()
		r.setRatio(float64(total) / (float64(m.goal) * float64(existing)))
		if p.inTolerance(r.Ratio) {
			r.Replicas, r.Existing, r.Tolerated = existing, true, true
			return r
		}
		r.Replicas = ceil(float64(total) / float64(m.goal))
		return r
	}
	r.setRatio(float64(total) / float64(m.goal))
	switch {
	case cur == 0:
		r.Replicas = ceil(r.Ratio)
	case p.inTolerance(r.Ratio):
		r.Replicas, r.Tolerated = cur, true
	default:
		ready, all := ReadyPods(o)
		if all == 0 {
			return Proposal{Fault: "there are no pods"}
		}
		r.Counted = ready
		r.Replicas = ceil(r.Ratio * float64(ready))
	}
	return r
}

// setRatio sets a ratio that nothing was filled in for.
func (r *Proposal) setRatio(v float64) { r.First, r.Ratio = v, v }

// read is the signal's total in thousandths.
func (m *metric) read(o *algorithms.Observation) (int64, bool) {
	best := -1
	for i := range o.Signals {
		s := &o.Signals[i]
		if s.Name != m.name || !s.Usable() || !m.anyWindow && s.Window != m.window {
			continue
		}
		if best < 0 || s.Window < o.Signals[best].Window {
			best = i
		}
	}
	if best < 0 {
		return 0, false
	}
	return milli(o.Signals[best].Value), true
}

// fromTotal is the proposal of a Pods metric when only the total is known.
func (p *Policy) fromTotal(m *metric, o *algorithms.Observation) Proposal {
	total, ok := m.read(o)
	switch ready := int64(o.Replicas.Ready); {
	case !ok:
		return Proposal{Fault: "the signal is unknown"}
	case ready < 1:
		return Proposal{Fault: "no pod is ready"}
	default:
		r := Proposal{Usage: total / ready, Counted: o.Replicas.Ready}
		r.setRatio(float64(r.Usage) / float64(m.goal))
		p.simple(&r, o.Replicas.Current, float64(ready))
		return r
	}
}

// simple is the proposal where nothing has to be filled in.
func (p *Policy) simple(r *Proposal, current int, ready float64) {
	if r.Tolerated = p.inTolerance(r.Ratio); r.Tolerated {
		r.Replicas = current
		return
	}
	r.Replicas = ceil(r.Ratio * ready)
}

// sums are totals over the pods that count.
type sums struct {
	// used and requested are readings and requests in thousandths, n the number of pods.
	used, requested, n int64
}

func (s *sums) add(used, requested int64) {
	s.used, s.requested, s.n = addSaturating(s.used, used), addSaturating(s.requested, requested), s.n+1
}

// tally is the pods of a metric by what becomes of their readings.
type tally struct {
	counted, missing, unready, gone sums
	// missingUse is what missing pods are taken to use of a resource on the way down.
	missingUse int64
}

// tally sorts the pods; ok is false where one requests none of the resource.
func (p *Policy) tally(m *metric, o *algorithms.Observation) (t tally, ok bool) {
	percent := max(100, m.goal)
	for i := range o.Pods {
		pod := &o.Pods[i]
		var requested int64
		if m.aim == Utilization && pod.State != algorithms.PodGone {
			if requested, ok = p.requested(pod, m.name); !ok {
				return t, false
			}
		}
		if p.ignores(pod) {
			continue
		}
		if pod.State == algorithms.PodPending {
			t.unready.add(0, requested)
			continue
		}
		v, ok := pod.Values[m.name]
		switch {
		case pod.State == algorithms.PodGone:
			if ok && algorithms.Finite(v) {
				t.gone.add(milli(v), 0)
			}
		case !ok || !algorithms.Finite(v):
			t.missing.add(0, requested)
			t.missingUse = addSaturating(t.missingUse, requested*percent/100)
		case m.cpu && p.unreliable(pod, o.Now):
			t.unready.add(0, requested)
		default:
			t.counted.add(milli(v), requested)
		}
	}
	return t, true
}

// perPod is the proposal of a metric that is read from single pods.
func (p *Policy) perPod(m *metric, o *algorithms.Observation) Proposal {
	if len(o.Pods) == 0 {
		return Proposal{Fault: "there are no pods"}
	}
	t, ok := p.tally(m, o)
	if !ok {
		return Proposal{Fault: "a pod requests none of the resource"}
	}
	counted, missing, unready, gone := t.counted, t.missing, t.unready, t.gone
	// Of a pod that is gone a plain value counts as that of a pod, though not as a pod that could
	// be scaled by; of a utilization it counts as a pod once others are filled in.
	ready, extra := counted.n, gone.n
	if m.aim != Utilization {
		counted.n, counted.used, extra = counted.n+gone.n, addSaturating(counted.used, gone.used), 0
	}
	r := Proposal{Counted: int(ready), Missing: int(missing.n), Unready: int(unready.n)}
	if counted.n == 0 {
		r.Fault = "no pod that counts has a reading"
		return r
	}
	var first float64
	if first, r.Usage, ok = m.ratio(counted); !ok {
		r.Fault = "the pods request none of the resource"
		return r
	}
	r.setRatio(first)
	cur, withUnready := o.Replicas.Current, unready.n > 0 && first > 1
	if !withUnready && missing.n == 0 {
		p.simple(&r, cur, float64(ready))
		return r
	}
	if first != 1 {
		counted.n, counted.requested = counted.n+missing.n, addSaturating(counted.requested, missing.requested)
		switch {
		case first > 1:
		case m.aim == Utilization:
			counted.used = addSaturating(counted.used, t.missingUse)
		default:
			counted.used = addSaturating(counted.used, m.goal*missing.n)
		}
	}
	if withUnready {
		counted.n, counted.requested = counted.n+unready.n, addSaturating(counted.requested, unready.requested)
	}
	second, _, ok := m.ratio(counted)
	if !ok {
		r.Fault = "the pods request none of the resource"
		return r
	}
	r.Replicas, r.Ratio = cur, second
	if r.Tolerated = p.inTolerance(second); r.Tolerated {
		return r
	}
	n := ceil(second * float64(counted.n+extra))
	r.Turned = first < 1 && second > 1 || first > 1 && second < 1 || second < 1 && n > cur || second > 1 && n < cur
	if !r.Turned {
		r.Replicas = n
	}
	return r
}

// ignores tells whether a pod is left out altogether.
func (p *Policy) ignores(pod *algorithms.Pod) bool {
	return pod.State == algorithms.PodTerminating || pod.State == algorithms.PodFailed ||
		pod.State == algorithms.PodSucceeded && p.cfg.Release != Release137
}

// requested is what a pod reserves of a resource, in thousandths.
func (p *Policy) requested(pod *algorithms.Pod, name string) (int64, bool) {
	v, ok := pod.Requests[name]
	if p.cfg.Release == Release137 {
		v += pod.Overhead[name]
	}
	return milli(v), ok && algorithms.Finite(v)
}

// ratio is usage over target; ok is false when nothing is requested.
func (m *metric) ratio(s sums) (ratio float64, usage int64, ok bool) {
	if m.aim != Utilization {
		usage = s.used / s.n
		return float64(usage) / float64(m.goal), usage, true
	}
	if s.requested == 0 {
		return 0, 0, false
	}
	usage = s.used * 100 / s.requested
	return float64(usage) / float64(m.goal), usage, true
}

// unreliable tells whether a pod's CPU reading is left out: the pod is unready early in its life or
// never was ready, or the reading reaches back to before it became ready. A ready pod without known
// times is reliable.
func (p *Policy) unreliable(pod *algorithms.Pod, now time.Time) bool {
	if pod.Started.IsZero() || pod.Changed.IsZero() {
		return pod.State != algorithms.PodReady
	}
	read := pod.ReadAt
	if read.IsZero() {
		read = now
	}
	notReady := pod.State == algorithms.PodStarting || pod.State == algorithms.PodSucceeded
	if pod.Started.Add(time.Duration(p.cfg.CPUInitializationPeriod)).After(now) {
		return notReady || read.Before(pod.Changed.Add(pod.ReadOver))
	}
	return notReady && pod.Started.Add(time.Duration(p.cfg.InitialReadinessDelay)).After(pod.Changed)
}

// ReadyPods counts pods that take requests, those among them that are to go included, and all pods.
func ReadyPods(o *algorithms.Observation) (ready, all int) {
	if o.Pods == nil {
		return o.Replicas.Ready, o.Replicas.Existing() + o.Replicas.Terminating
	}
	for i := range o.Pods {
		if s := o.Pods[i].State; s == algorithms.PodReady || s == algorithms.PodTerminating && o.Pods[i].StillReady {
			ready++
		}
	}
	return ready, len(o.Pods)
}

// explain adds the message and the terms.
func (p *Policy) explain(d *algorithms.Decision, o *algorithms.Observation, raw int) {
	terms := append(o.Scratch[:0],
		algorithms.Term{Name: "currentReplicas", Value: float64(o.Replicas.Current)},
		algorithms.Term{Name: "readyPods", Value: float64(o.Replicas.Ready)})
	var parts []string
	for i, r := range p.results {
		m := &p.metrics[i]
		if r.Fault != "" {
			parts = append(parts, fmt.Sprintf("%s metric %s: %s", m.kind, m.name, r.Fault))
			continue
		}
		unit, usage := "", float64(r.Usage)/1000
		goal := float64(m.goal) / 1000
		if m.aim == Utilization {
			unit, usage, goal = " %", float64(r.Usage), float64(m.goal)
		}
		besides := ""
		if r.Missing > 0 || r.Unready > 0 {
			besides = fmt.Sprintf(" (%d missing and %d unready make the ratio %.4g)", r.Missing, r.Unready, r.Ratio)
		}
		if r.Existing && r.Replicas != o.Replicas.Current {
			besides = fmt.Sprintf(" (within tolerance the HPA answers the %d pods that exist, not the %d asked for: kubernetes#138505)", r.Replicas, o.Replicas.Current)
		}
		parts = append(parts, fmt.Sprintf("%s metric %s is %.6g%s where %s is %.6g%s%s: %d pods", m.kind, m.name, usage, unit, m.aim, goal, unit, besides, r.Replicas))
		terms = append(terms,
			algorithms.Term{Name: m.name + "Usage", Value: usage},
			algorithms.Term{Name: m.name + "Target", Value: goal},
			algorithms.Term{Name: m.name + "Missing", Value: float64(r.Missing)},
			algorithms.Term{Name: m.name + "Unready", Value: float64(r.Unready)},
			algorithms.Term{Name: m.name + "Pods", Value: float64(r.Replicas)})
		if algorithms.Finite(r.Ratio) { // with no pods there is none
			terms = append(terms, algorithms.Term{Name: m.name + "Ratio", Value: r.Ratio})
		}
	}
	d.Message = strings.Join(parts, "; ")
	if d.Valid {
		d.Message += fmt.Sprintf("; %s gives %d", d.Reason, d.Replicas)
		terms = append(terms, algorithms.Term{Name: "rawPods", Value: float64(raw)})
	} else {
		d.Message += "; nothing changes"
	}
	d.Terms = terms
}

// snapshot is the memory of a policy with a sync period, as it is serialized.
type snapshot struct {
	Pace   algorithms.Pace `json:"pace"`
	Limits json.RawMessage `json:"limits"`
}

// Snapshot returns the memory, null when only the calculator runs.
func (p *Policy) Snapshot() json.RawMessage {
	limits := json.RawMessage("null")
	if p.limiter != nil {
		limits = p.limiter.Snapshot()
	}
	if p.cfg.SyncPeriod == 0 {
		return limits
	}
	return memory.Save("hpa", 1, snapshot{Pace: p.pace, Limits: limits})
}

// Restore puts back a Snapshot. The calculator alone has nothing to restore.
func (p *Policy) Restore(raw json.RawMessage) error {
	var pace algorithms.Pace
	if p.cfg.SyncPeriod > 0 {
		s, err := memory.Load[snapshot]("hpa", 1, raw)
		if err != nil {
			return err
		}
		pace, raw = s.Pace, s.Limits
	}
	if p.limiter != nil {
		if err := p.limiter.Restore(raw); err != nil {
			return err
		}
	} else if s := strings.TrimSpace(string(raw)); s != "" && s != "null" {
		return fmt.Errorf("hpa snapshot: want null, since the calculator alone remembers nothing")
	}
	p.pace = pace
	return nil
}

// milli is v in whole thousandths, the nearest, as Sluice's own metrics API serves values to an
// HPA. It saturates far beyond any measurement.
func milli(v float64) int64 {
	const far = 1e17
	return int64(math.Round(min(max(v*1000, -far), far)))
}

// addSaturating adds and saturates.
func addSaturating(a, b int64) int64 {
	const far = math.MaxInt64 / 200 // leaves room for a percentage
	return min(max(min(max(a, -far), far)+min(max(b, -far), far), -far), far)
}

// ceil rounds a count up, within bounds; NaN is 0.
func ceil(v float64) int {
	const far = math.MaxInt32
	if math.IsNaN(v) {
		return 0
	}
	return int(min(max(math.Ceil(v), -far), far))
}
