// Package summarytest makes up benches for tests: runs of a fluid model of a queue, with figures
// that fit together.
package summarytest

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/summary"
)

// Plan is a made-up policy: a fluid model of a queue whose pods follow the demand of `lag` steps
// ago with some head room, and leave `keep` steps after they were last needed.
type Plan struct {
	name      string
	lag, keep int
	room      float64
	least     float64
}

// Plans are made-up policies.
func Plans() []Plan {
	return []Plan{
		{"kpa", 3, 8, 1.4, 0},
		{"hpa", 8, 30, 1.25, 1},
		{"keda", 6, 30, 1.3, 0},
		{"portfolio", 1, 4, 1.15, 0},
		{"histogram:keep=10m", 2, 12, 1.2, 0},
		{"clairvoyant", -3, 6, 1.1, 0},
	}
}

// Runs makes the runs of a made-up bench. The same arguments make the same runs.
func Runs(traces, scenarios []string, policies []Plan, seeds, steps int) []score.Run {
	var runs []score.Run
	for si, scenario := range scenarios {
		for ti, trace := range traces {
			for seed := range uint64(seeds) {
				load := arrivals(ti, seed+1, steps)
				for _, p := range policies {
					runs = append(runs, flow(p, load, trace, scenario, seed+1, float64(si)))
				}
			}
		}
	}
	return runs
}

func arrivals(shape int, seed uint64, steps int) []float64 {
	rng := rand.New(rand.NewPCG(seed, uint64(shape)))
	load := make([]float64, steps)
	burst := 0.0
	for i := range load {
		day := float64(i) / float64(steps) * 4 * math.Pi
		switch shape % 3 {
		case 0: // day and night with bursts
			if rng.Float64() < 0.004 {
				burst = 150 + 200*rng.Float64()
			}
			load[i] = 60 + 50*math.Sin(day-1.2) + burst
			burst *= 0.93
		case 1: // sparse
			if rng.Float64() < 0.02 {
				burst = 20
			}
			load[i] = burst
			burst = math.Floor(burst * 0.6)
			continue
		default: // steps
			load[i] = 40 + 120*float64((i*6/steps)%2)
		}
		load[i] = math.Max(0, load[i]*(1+0.12*rng.NormFloat64()))
	}
	return load
}

// flow runs a plan on a load, in steps of 10 s. slow delays starts, in steps.
func flow(p Plan, load []float64, trace, scenario string, seed uint64, slow float64) score.Run {
	const step, perPod, service = 10.0, 10.0, 0.25
	n := len(load)
	zero := func() []float32 { return make([]float32, n) }
	s := score.Series{Step: step, Arrivals: zero(), Demand: zero(), Waiting: zero(), Wanted: zero(), Ready: zero(), Starting: zero(), ColdStarts: zero(), Violations: zero(), WaitMax: zero()}
	r := score.Result{Policy: p.name, Trace: trace, Scenario: scenario, Seed: seed, Length: float64(n) * step}
	var queue, wanted, ready float64
	var last []float64
	delay := 1 + int(slow*4)
	var changes []score.Change
	hist := make([]int64, 40)
	direction := 0
	for i := range n {
		seen := load[min(max(i-p.lag, 0), n-1)]
		want := math.Max(p.least, math.Ceil(seen/perPod*p.room))
		last = append(last, want)
		if len(last) > p.keep {
			last = last[1:]
		}
		want = slices.Max(last)
		if want != wanted {
			r.Changes++
			d := 1
			reason := "ScaleUp"
			if want < wanted {
				d, reason = -1, "ScaleDown"
			}
			if direction != 0 && d != direction {
				r.Reversals++
			}
			direction = d
			changes = append(changes, score.Change{T: float64(i) * step, From: int(wanted), To: int(want), Reason: reason, Message: fmt.Sprintf("concurrency %.1f at a target of %.0f a pod wants %.0f", seen*service, perPod*service, want)})
		}
		wanted = want
		past := float64(s.Wanted[max(i-delay, 0)])
		if i < delay {
			past = 0
		}
		ready = math.Min(wanted, math.Max(ready, past))
		capacity := ready * perPod
		cold, late := 0.0, 0.0
		if ready == 0 {
			cold = load[i] * step
		}
		queue += (load[i] - capacity) * step
		queue = math.Max(queue, 0)
		wait := 0.002
		if capacity > 0 {
			wait += queue / capacity
		} else if load[i] > 0 {
			wait += step * float64(delay)
		}
		if wait > 0.5 {
			late = load[i] * step
		}
		hist[min(int(math.Log2(wait/0.001)*2), len(hist)-1)] += int64(load[i] * step)
		s.Arrivals[i], s.Demand[i], s.Waiting[i] = float32(load[i]), float32(load[i]/perPod), float32(queue)
		s.Wanted[i], s.Ready[i], s.Starting[i] = float32(wanted), float32(ready), float32(math.Max(0, wanted-ready))
		s.ColdStarts[i], s.Violations[i], s.WaitMax[i] = float32(cold), float32(late), float32(wait)
		r.Requests += int64(load[i] * step)
		r.ColdStarts += int64(cold)
		r.SLOViolations += late
		r.WaitMean += wait * load[i] * step
		r.WaitMax = math.Max(r.WaitMax, wait)
		r.PodSeconds += wanted * step
		r.ReadySeconds += ready * step
		r.StartingSeconds += (wanted - ready) * step
		r.WorkSeconds += load[i] / perPod * step
		r.PeakReplicas = max(r.PeakReplicas, int(wanted))
		r.Decisions++
	}
	return finish(score.Run{Result: r, Series: s, Decisions: changes}, hist, service)
}

// finish turns the sums of a run into shares and means, and its waits into a distribution.
func finish(run score.Run, hist []int64, service float64) score.Run {
	r := &run.Result
	total := math.Max(float64(r.Requests), 1)
	r.SLOViolations = math.Min(1, r.SLOViolations/total)
	r.WaitMean /= total
	r.ColdStartShare = float64(r.ColdStarts) / total
	r.IdleSeconds = math.Max(0, r.ReadySeconds-r.WorkSeconds)
	r.Cost = r.PodSeconds / 3600 * 0.04
	r.ThetaO = r.IdleSeconds / math.Max(r.WorkSeconds, 1)
	r.SlowdownP50, r.SlowdownP99 = 1, 1
	var below int64
	for i, c := range hist {
		if c == 0 {
			continue
		}
		upper := 0.001 * math.Exp2(float64(i+1)/2)
		run.Waits = append(run.Waits, score.Bucket{Upper: upper, Count: c})
		below += c
		if float64(below) < 0.99*total {
			r.WaitP99, r.SlowdownP99 = upper, 1+upper/service
		}
	}
	return run
}

// Bench is a summary and the runs that belong to it.
func Bench(runs []score.Run, baseline string) (summary.Summary, summary.Runs) {
	s := summary.Summary{
		Sluice: "0.1.0", Commit: "0123456789ab", Baseline: baseline,
		Command: []string{"sluice", "bench", "compare", "--trace", "traces/day.csv", "--policy", "kpa", "--policy", "hpa", "--out", "out/bench"},
		Scenarios: []json.RawMessage{
			json.RawMessage(`{"name":"start-5s","service":"lognormal:250ms,cv=1","podConcurrency":10,"startup":"5s","peakReplicas":40,"slo":{"wait":"500ms","share":0.01}}`),
			json.RawMessage(`{"name":"start-60s","service":"lognormal:250ms,cv=1","podConcurrency":10,"startup":"60s","peakReplicas":40,"slo":{"wait":"500ms","share":0.01}}`),
		},
		Notes: []string{"Made-up numbers: a fluid model, not the simulator."},
	}
	for _, r := range runs {
		s.Results = append(s.Results, r.Result)
	}
	return summary.Summarize(s), summary.Runs(runs)
}

// Small is the bench of the golden files.
func Small() (summary.Summary, summary.Runs) {
	return Bench(Runs([]string{"day", "sparse"}, []string{"start-5s"}, Plans()[:3], 3, 40), "kpa")
}
