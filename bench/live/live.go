// Package live turns the observations of a replay into a result with the simulator's definitions,
// so that both can be compared. It is pure: clocks and clusters are the caller's.
package live

import (
	"math"
	"slices"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/load"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
)

// State is what a pod is seen to be.
type State string

// The states of a pod, and the steps on the way to ready.
const (
	// Created is a pod that waits for a node, Scheduled one that has it, Started one whose
	// containers run. Unready is one that was ready and is not any more. All of them count as
	// starting.
	Created   State = "created"
	Scheduled State = "scheduled"
	Started   State = "started"
	Unready   State = "unready"
	// Ready takes requests.
	Ready State = "ready"
	// Ending is a pod that is being deleted, Gone one that is no more.
	Ending State = "ending"
	Gone   State = "gone"
)

// Step is a change that was seen of a pod, at a time since the replay's start; before it the time
// is below 0.
type Step struct {
	At    time.Duration `json:"at"`
	State State         `json:"state"`
}

// Pod is the life of one, as far as it was seen.
type Pod struct {
	Name  string `json:"name"`
	Steps []Step `json:"steps"`
}

// Count is a number of wanted pods from an instant on.
type Count struct {
	At       time.Duration `json:"at"`
	Replicas int           `json:"replicas"`
}

// Cluster is what was seen of the workload.
type Cluster struct {
	Pods []Pod `json:"pods"`
	// Wanted is spec.replicas: the first at or before 0.
	Wanted []Count `json:"wanted"`
}

// Observations are all that was observed of a replay.
type Observations struct {
	// Start is the instant from which times count.
	Start time.Time `json:"start"`
	// Requests are in the order of their intended instants.
	Requests []load.Record `json:"requests"`
	// Cluster is nil when the pods were not watched.
	Cluster *Cluster `json:"cluster,omitempty"`
}

// Config names the run, and says by what it is measured.
type Config struct {
	Policy, Trace string
	// Scenario gives the concurrency of a pod, the promise, the prices and the elasticity step.
	Scenario *scenario.Scenario
	Seed     uint64
	// Length is the trace's. Pods count within it only.
	Length time.Duration
	// Points bounds the rows of the series, 0 for none.
	Points int
}

// Wait is how long a request waited for its work to begin: what its latency from the intended
// instant has beyond the work.
func Wait(r load.Record) time.Duration { return max(0, r.Latency()-r.Work) }

// Run makes the record of a run, as sim.Run does of a simulated one. Requests that were aborted do
// not count. What is not to be seen from outside is 0: decisions, failed starts, and without a
// cluster everything about pods.
func Run(c Config, s Observations) score.Run {
	r := score.Result{
		Policy: c.Policy, Trace: c.Trace, Scenario: c.Scenario.Name, Seed: c.Seed, Length: c.Length.Seconds(),
	}
	pods := newTimeline(s.Cluster, c.Length)
	pods.result(&r)
	var waits score.Histogram
	var slowdowns []float64
	var work time.Duration
	var late int64
	for _, q := range s.Requests {
		if !q.OK() && !q.Lost() {
			continue
		}
		r.Requests++
		work += q.Work
		if pods.cold(q.Intended) {
			r.ColdStarts++
		}
		if q.Lost() {
			r.Lost++
			continue
		}
		r.Length = max(r.Length, q.Done.Seconds())
		w := Wait(q)
		waits.Add(w)
		slowdowns = append(slowdowns, float64(w+q.Work)/float64(max(q.Work, 1)))
		if w > time.Duration(c.Scenario.SLO.Wait) {
			late++
		}
	}
	slices.Sort(slowdowns)
	at := func(q float64) float64 { return waits.Quantile(q).Seconds() }
	r.WaitMean, r.WaitMax = waits.MeanSeconds(), waits.Max().Seconds()
	r.WaitP50, r.WaitP90, r.WaitP99, r.WaitP999 = at(0.5), at(0.9), at(0.99), at(0.999)
	r.SlowdownP50, r.SlowdownP99 = load.Quantile(slowdowns, 0.5), load.Quantile(slowdowns, 0.99)
	if r.Requests > 0 {
		r.SLOViolations = float64(late+r.Lost) / float64(r.Requests)
		r.ColdStartShare = float64(r.ColdStarts) / float64(r.Requests)
	}
	if k := float64(c.Scenario.PodConcurrency); k > 0 {
		r.WorkSeconds = work.Seconds() / k
		r.IdleSeconds = max(0, r.ReadySeconds-r.WorkSeconds)
	}
	p := c.Scenario.Cost
	r.Cost = p.PodSecond*r.PodSeconds + p.ColdStart*float64(r.ColdStarts) + p.WaitSecond*r.WaitMean*float64(waits.Count())
	series := c.rows(s, pods, &r)
	return score.Run{Result: r, Series: series, Waits: waits.Buckets(), Decisions: pods.changes}
}

// rows makes the series, and the figures that need its steps: elasticity and the pod time of steps
// without demand.
func (c Config) rows(s Observations, pods *timeline, r *score.Result) score.Series {
	step := time.Duration(c.Scenario.ElasticityStep)
	n := int((c.Length + step - 1) / step)
	if n == 0 {
		return score.Series{}
	}
	b := newSteps(n, step, c.Length)
	for _, q := range s.Requests {
		if (q.OK() || q.Lost()) && q.Intended < c.Length {
			b.add(q, pods.cold(q.Intended), time.Duration(c.Scenario.SLO.Wait))
		}
	}
	perPod := float64(c.Scenario.PodConcurrency)
	if perPod == 0 {
		perPod = c.Scenario.PerPod()
	}
	if s.Cluster != nil {
		var e score.Elasticity
		for i := range n {
			from, to := b.edge(i), b.edge(i+1)
			seconds := (to - from).Seconds()
			e.Add(math.Ceil(b.busy[i]/seconds/perPod-1e-9), float64(pods.readyAt(to)), seconds)
			if b.busy[i] == 0 {
				r.ZeroDemandSeconds += pods.between(from, to).paid()
			}
		}
		v := e.Vector()
		r.ThetaU, r.ThetaO, r.TauU, r.TauO, r.Upsilon = v.ThetaU, v.ThetaO, v.TauU, v.TauO, v.Upsilon
	}
	if c.Points <= 0 {
		return score.Series{}
	}
	return b.series((n+c.Points-1)/c.Points, perPod, pods)
}

// steps are the sums of a replay by steps of equal length, in requests and seconds.
type steps struct {
	n            int
	step, length time.Duration

	arrivals, busy, waiting, cold, late, longest []float64
}

func newSteps(n int, step, length time.Duration) *steps {
	b := &steps{n: n, step: step, length: length}
	for _, values := range []*[]float64{&b.arrivals, &b.busy, &b.waiting, &b.cold, &b.late, &b.longest} {
		*values = make([]float64, n)
	}
	return b
}

// edge is where the i-th step begins.
func (b *steps) edge(i int) time.Duration { return min(time.Duration(i)*b.step, b.length) }

// at is the step of an instant.
func (b *steps) at(t time.Duration) int { return min(max(int(t/b.step), 0), b.n-1) }

// spread adds the seconds of a stretch of time to the steps that it lasts.
func (b *steps) spread(dst []float64, from, to time.Duration) {
	for i := b.at(from); i < b.n && b.edge(i) < to; i++ {
		dst[i] += max(0, (min(to, b.edge(i+1)) - max(from, b.edge(i))).Seconds())
	}
}

// add counts a request; cold says that no pod was ready, longest is the wait that keeps the
// promise.
func (b *steps) add(q load.Record, cold bool, longest time.Duration) {
	i := b.at(q.Intended)
	b.arrivals[i]++
	b.spread(b.busy, q.Intended, q.Intended+q.Work)
	if cold {
		b.cold[i]++
	}
	if q.Lost() {
		b.late[i]++
		return
	}
	w := Wait(q)
	b.spread(b.waiting, q.Intended, q.Intended+w)
	begin := b.at(q.Intended + w)
	b.longest[begin] = max(b.longest[begin], w.Seconds())
	if w > longest {
		b.late[begin]++
	}
}

// series makes a row of each so many steps.
func (b *steps) series(each int, perPod float64, pods *timeline) score.Series {
	out := score.Series{Step: float64(each) * b.step.Seconds()}
	put := func(dst *[]float32, v float64) { *dst = append(*dst, float32(v)) }
	for from := 0; from < b.n; from += each {
		to := min(from+each, b.n)
		sum := func(values []float64) (t float64) {
			for _, v := range values[from:to] {
				t += v
			}
			return t
		}
		seconds := (b.edge(to) - b.edge(from)).Seconds()
		got := pods.between(b.edge(from), b.edge(to))
		put(&out.Arrivals, sum(b.arrivals)/seconds)
		put(&out.Demand, sum(b.busy)/seconds/perPod)
		put(&out.Waiting, sum(b.waiting)/seconds)
		put(&out.Wanted, got.wanted/seconds)
		put(&out.Ready, got.ready/seconds)
		put(&out.Starting, got.starting/seconds)
		put(&out.ColdStarts, sum(b.cold))
		put(&out.Violations, sum(b.late))
		put(&out.WaitMax, slices.Max(b.longest[from:to]))
	}
	return out
}
