package live

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/bench/load"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
)

// Phases are a cluster's own times, as a replay has shown them, each in ascending order. They are
// what a scenario has to say of a cluster before a simulation of it can be right.
type Phases struct {
	// Woken is from the first request at zero to the change of spec.replicas; Created from a change
	// to a new pod.
	Woken   []time.Duration
	Created []time.Duration
	// Ready is from a pod's creation until the cluster says that it is ready. Answered is how much
	// earlier the first pod of a wake-up began to work on what was held.
	Ready    []time.Duration
	Answered []time.Duration
	// Ended is from a ready pod's deletion to its end.
	Ended []time.Duration
	// Overhead is the latency beyond the work of requests that came while pods were ready.
	Overhead []time.Duration
}

// disorder is by how much a pod may be seen before the change that it came from: they come by two
// watches.
const disorder = 50 * time.Millisecond

// Measure reads the phases off what was seen of a replay.
func Measure(s Observations) Phases {
	var p Phases
	if s.Cluster == nil {
		return p
	}
	line := newTimeline(s.Cluster, 1<<62)
	for i, w := range s.Cluster.Wanted {
		if i == 0 || w.At <= 0 {
			continue
		}
		if s.Cluster.Wanted[i-1].Replicas == 0 {
			if k := slices.IndexFunc(s.Requests, func(r load.Record) bool {
				return r.Intended > s.Cluster.Wanted[i-1].At && r.Done > w.At
			}); k >= 0 && s.Requests[k].Intended < w.At {
				p.Woken = append(p.Woken, w.At-s.Requests[k].Intended)
			}
			p.first(s, w.At)
		}
	}
	for _, pod := range s.Cluster.Pods {
		at := func(state State) (time.Duration, bool) {
			i := slices.IndexFunc(pod.Steps, func(s Step) bool { return s.State == state })
			if i < 0 {
				return 0, false
			}
			return pod.Steps[i].At, true
		}
		born := pod.Steps[0].At
		ready, wasReady := at(Ready)
		if born > 0 && wasReady {
			p.Ready = append(p.Ready, ready-born)
		}
		if born > 0 {
			for i := len(s.Cluster.Wanted) - 1; i > 0; i-- {
				w := s.Cluster.Wanted[i]
				if w.Replicas > s.Cluster.Wanted[i-1].Replicas && w.At <= born+disorder {
					p.Created = append(p.Created, max(0, born-w.At))
					break
				}
			}
		}
		ending, ended := at(Ending)
		if gone, isGone := at(Gone); ended && isGone && wasReady {
			p.Ended = append(p.Ended, gone-ending)
		}
	}
	for _, r := range s.Requests {
		if r.OK() && !line.cold(r.Intended) {
			p.Overhead = append(p.Overhead, Wait(r))
		}
	}
	for _, all := range [][]time.Duration{p.Woken, p.Created, p.Ready, p.Answered, p.Ended, p.Overhead} {
		slices.Sort(all)
	}
	return p
}

// first notes how much before its readiness the first pod of a wake-up began to work.
func (p *Phases) first(s Observations, woken time.Duration) {
	ready := time.Duration(-1)
	for _, pod := range s.Cluster.Pods {
		for _, step := range pod.Steps {
			if step.State == Ready && step.At >= woken && pod.Steps[0].At >= woken && (ready < 0 || step.At < ready) {
				ready = step.At
			}
		}
	}
	begun := time.Duration(-1)
	for _, r := range s.Requests {
		if b := r.Done - r.Work; r.OK() && r.Done > woken && r.Intended < ready && (begun < 0 || b < begun) {
			begun = b
		}
	}
	if ready >= 0 && begun >= woken {
		p.Answered = append(p.Answered, max(0, ready-begun))
	}
}

// mean is 0 for none.
func mean(values []time.Duration) time.Duration {
	var sum time.Duration
	for _, v := range values {
		sum += v
	}
	return sum / time.Duration(max(1, len(values)))
}

// kept bounds the values of an empirical distribution.
const kept = 50

// Apply puts the phases into a scenario; lameDuck is what the pods' sidecars are told of it. What
// was not measured stays as it is.
//
//	wakeDelay            the median of Woken
//	startup.schedule     Created
//	startup.start        Ready less the mean of Answered, so that both together have the mean of Ready
//	startup.announce     Answered
//	termination          Ended less lameDuck
//	overhead             the median of Overhead
func (p Phases) Apply(s *scenario.Scenario, lameDuck time.Duration) error {
	s.LameDuck = algorithms.Duration(lameDuck)
	if len(p.Woken) > 0 {
		s.WakeDelay = algorithms.Duration(load.Quantile(p.Woken, 0.5).Round(time.Millisecond))
	}
	if len(p.Overhead) > 0 {
		s.Overhead = algorithms.Duration(load.Quantile(p.Overhead, 0.5).Round(100 * time.Microsecond))
	}
	early := mean(p.Answered)
	for _, d := range []struct {
		to     *scenario.Dist
		values []time.Duration
		less   time.Duration
	}{
		{&s.Startup.Schedule, p.Created, 0},
		{&s.Startup.Start, p.Ready, early},
		{&s.Startup.Announce, p.Answered, 0},
		{&s.Termination, p.Ended, lameDuck},
	} {
		if len(d.values) == 0 {
			continue
		}
		dist, err := empirical(d.values, d.less)
		if err != nil {
			return err
		}
		*d.to = dist
	}
	return nil
}

// empirical is the distribution of values, each less a bit; of many, evenly spread quantiles.
func empirical(values []time.Duration, less time.Duration) (scenario.Dist, error) {
	n := min(len(values), kept)
	words := make([]string, n)
	for i := range n {
		v := load.Quantile(values, (float64(i)+0.5)/float64(n))
		words[i] = max(0, v-less).Round(time.Millisecond).String()
	}
	d, err := scenario.ParseDist("empirical:" + strings.Join(words, ","))
	if err != nil {
		return d, fmt.Errorf("measured times: %w", err)
	}
	return d, nil
}
