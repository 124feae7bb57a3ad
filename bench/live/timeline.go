package live

import (
	"fmt"
	"slices"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/score"
)

// counts is how many pods are in each state from an instant on, or, as an integral, pod-seconds.
type counts struct{ wanted, ready, starting, ending float64 }

func (c counts) paid() float64 { return c.ready + c.starting + c.ending }

// timeline is the workload over time: a step function.
type timeline struct {
	known  bool
	length time.Duration
	at     []time.Duration // ascending, the first at or before 0
	values []counts
	starts int64
	// changes of wanted within the length
	changes []score.Change
}

// newTimeline makes the step function; of nil it is one without pods.
func newTimeline(c *Cluster, length time.Duration) *timeline {
	t := &timeline{known: c != nil, length: length}
	if c == nil {
		c = &Cluster{}
	}
	type delta struct {
		at time.Duration
		d  counts
	}
	deltas := []delta{{at: min(0, first(c))}}
	add := func(at time.Duration, sign float64, s State) {
		var d counts
		switch s {
		case Created, Scheduled, Started, Unready:
			d.starting = sign
		case Ready:
			d.ready = sign
		case Ending:
			d.ending = sign
		case Gone:
			return
		}
		deltas = append(deltas, delta{at, d})
	}
	for _, p := range c.Pods {
		for i, s := range p.Steps {
			if i == 0 && s.At > 0 && s.At <= length {
				t.starts++
			}
			if i > 0 {
				add(s.At, -1, p.Steps[i-1].State)
			}
			add(s.At, 1, s.State)
		}
	}
	for i, w := range c.Wanted {
		d := float64(w.Replicas)
		if i > 0 {
			d -= float64(c.Wanted[i-1].Replicas)
		}
		deltas = append(deltas, delta{w.At, counts{wanted: d}})
	}
	slices.SortStableFunc(deltas, func(a, b delta) int { return int(a.at - b.at) })
	var now counts
	for _, d := range deltas {
		now.wanted, now.ready, now.starting, now.ending = now.wanted+d.d.wanted, now.ready+d.d.ready, now.starting+d.d.starting, now.ending+d.d.ending
		if n := len(t.at); n > 0 && t.at[n-1] == d.at {
			t.values[n-1] = now
			continue
		}
		t.at, t.values = append(t.at, d.at), append(t.values, now)
	}
	for i, w := range c.Wanted {
		if i == 0 || w.At <= 0 || w.At > length {
			continue
		}
		from := c.Wanted[i-1].Replicas
		t.changes = append(t.changes, score.Change{
			T: w.At.Seconds(), From: from, To: w.Replicas, Reason: "Seen", Message: fmt.Sprintf("spec.replicas went from %d to %d", from, w.Replicas),
		})
	}
	return t
}

// ReadyAtStart is how many pods were ready when the replay began.
func (c *Cluster) ReadyAtStart() int { return newTimeline(c, 1).readyAt(0) }

// first is the earliest instant of anything.
func first(c *Cluster) (at time.Duration) {
	for _, p := range c.Pods {
		for _, s := range p.Steps {
			at = min(at, s.At)
		}
	}
	for _, w := range c.Wanted {
		at = min(at, w.At)
	}
	return at
}

// index is the step that an instant is in.
func (t *timeline) index(at time.Duration) int {
	i, exact := slices.BinarySearch(t.at, at)
	if !exact {
		i--
	}
	return max(i, 0)
}

func (t *timeline) readyAt(at time.Duration) int { return int(t.values[t.index(at)].ready) }

// cold tells that no pod was ready.
func (t *timeline) cold(at time.Duration) bool { return t.known && t.readyAt(at) == 0 }

// between is the integral, in pod-seconds.
func (t *timeline) between(from, to time.Duration) counts {
	var sum counts
	for i := t.index(from); i < len(t.at) && t.at[i] < to; i++ {
		end := to
		if i+1 < len(t.at) {
			end = min(end, t.at[i+1])
		}
		s := max(0, (end - max(t.at[i], from)).Seconds())
		v := t.values[i]
		sum.wanted, sum.ready, sum.starting, sum.ending = sum.wanted+v.wanted*s, sum.ready+v.ready*s, sum.starting+v.starting*s, sum.ending+v.ending*s
	}
	return sum
}

// result fills in what follows from pods and counts alone.
func (t *timeline) result(r *score.Result) {
	all := t.between(0, t.length)
	r.ReadySeconds, r.StartingSeconds, r.TerminatingSeconds = all.ready, all.starting, all.ending
	r.PodSeconds = all.paid()
	r.Starts = t.starts
	for i := range t.at {
		if t.at[i] <= t.length && (i+1 == len(t.at) || t.at[i+1] > 0) {
			r.PeakReplicas = max(r.PeakReplicas, int(t.values[i].wanted))
		}
	}
	direction := 0
	for _, c := range t.changes {
		r.Changes++
		if c.From == 0 {
			r.WakeUps++
		}
		d := 1
		if c.To < c.From {
			d = -1
		}
		if direction != 0 && d != direction {
			r.Reversals++
		}
		direction = d
	}
}
