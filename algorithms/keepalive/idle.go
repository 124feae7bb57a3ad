package keepalive

import (
	"fmt"
	"math"
	"time"
)

const (
	// idleBins bins of an eighth of an octave each, from shortest on: up to 6 days.
	idleBins      = 144
	binsPerOctave = 8.0
	shortest      = 2.0 // seconds
	// prior is the weight, in idle times, of a uniform prior over the bins.
	prior = 0.5
)

// Idle is a distribution of idle times with forgetting: a histogram in eighths of octaves. It is
// not safe for concurrent use.
type Idle struct {
	state IdleState
}

// IdleState is the memory of an Idle. Its zero value has seen nothing.
type IdleState struct {
	// Weights are those of the bins; Seen counts the idle times, up to a million.
	Weights []float64 `json:"weights,omitempty"`
	Seen    int       `json:"seen,omitempty"`
}

// edge is the lower end of bin i, in seconds; that of bin 0 counts as 0.
func edge(i int) float64 {
	if i <= 0 {
		return 0
	}
	return shortest * math.Exp2(float64(i)/binsPerOctave)
}

// Seen is how many idle times were added.
func (h *Idle) Seen() int { return h.state.Seen }

// Add adds an idle time; earlier ones count by the factor keep in (0, 1] of what they did.
func (h *Idle) Add(it time.Duration, keep float64) {
	s := &h.state
	if s.Weights == nil {
		s.Weights = make([]float64, idleBins)
	}
	for i := range s.Weights {
		s.Weights[i] *= keep
	}
	i := 0
	if x := it.Seconds(); x > shortest {
		i = min(int(math.Log2(x/shortest)*binsPerOctave), idleBins-1)
	}
	// Smoothing: an idle time counts for its neighbours too.
	s.Weights[max(i-1, 0)] += 0.25
	s.Weights[i] += 0.5
	s.Weights[min(i+1, idleBins-1)] += 0.25
	s.Seen = min(s.Seen+1, 1_000_000)
}

// WorthKeeping tells whether a pod is worth its cost at that idle time, be it kept or started
// ahead, where a cold start costs cold pod-seconds: whether for some u within the horizon
//
//	cold · P(idle time ends before u)  >  E[time until it ends or u]     given that it has not ended yet
//
// For a short horizon that compares the hazard rate with 1/cold. The horizon is the cost of
// stopping and starting a pod: over a gap in the hazard that is no longer, the pod is kept. With a
// decreasing hazard keeping ends once; with periodic idle times the pod returns before their end.
// It costs one pass over the bins.
func (h *Idle) WorthKeeping(idle time.Duration, cold float64, horizon time.Duration) bool {
	t, end := max(idle.Seconds(), 0), max((idle+horizon).Seconds(), 0.1)
	left := prior // weight of idle times longer than the present edge
	for _, w := range h.state.Weights {
		left += w
	}
	gain, cost := 0.0, 0.0
	for i := 0; i < idleBins && edge(i) < end; i++ {
		lo, hi := edge(i), edge(i+1)
		w := prior / idleBins
		if h.state.Weights != nil {
			w += h.state.Weights[i]
		}
		from, to := max(lo, t), min(hi, end)
		if to <= from {
			left -= w
			continue
		}
		// spread evenly within a bin
		left -= w * (from - lo) / (hi - lo)
		part := w * (to - from) / (hi - lo)
		gain += part
		cost += (to - from) * max(left-part/2, 0)
		left -= part
		if cold*gain > cost {
			return true
		}
	}
	return false
}

// State returns the memory; it shares nothing that changes later.
func (h *Idle) State() IdleState {
	s := h.state
	s.Weights = append([]float64(nil), s.Weights...)
	return s
}

// Load puts back a State; an error leaves the Idle as it was.
func (h *Idle) Load(s IdleState) error {
	if len(s.Weights) != 0 && len(s.Weights) != idleBins || s.Seen < 0 {
		return fmt.Errorf("idle times in %d bins: want %d", len(s.Weights), idleBins)
	}
	for i, w := range s.Weights {
		if !(w >= 0 && w <= 1e9) {
			return fmt.Errorf("idle times: bin %d = %v: want 0–1e9", i, w)
		}
	}
	if len(s.Weights) == 0 {
		s.Weights = nil
	}
	h.state = s
	return nil
}
