// Package residual keeps the distribution of a forecast's residuals, for those who weigh how often
// and how far a forecast is exceeded. A residual is what was observed minus what was forecast, in
// units of a spread; only too low a forecast hurts, so its upper tail is what is asked for.
//
// Source: Lei et al., "Distribution-free predictive inference for regression", 2018 (residuals in
// units of a local spread). Nothing here is safe for concurrent use.
package residual

import (
	"fmt"
	"math"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

const (
	// tailStep, tailLow and tailBins: bin i of a Tail holds the residuals z with asinh z in
	// [tailLow + i·tailStep, + tailStep).
	tailStep = 0.125
	tailLow  = -4.0
	tailBins = 80
	// tailMaxWeight is the sum of weights at which they are scaled down.
	tailMaxWeight = 1e100
)

// Tail is a distribution of residuals with slow forgetting, in 80 bins that are narrow around 0 (an
// eighth) and wide far out (an eighth of the residual). An update and a look-up cost a few dozen
// steps at most. Residuals are in units of a spread, so that ±10,000 is far enough.
type Tail struct {
	state TailState
	// above[i] is the weight of the bins after i; state.Above is set in snapshots only.
	above [tailBins]float64
}

// TailState is the memory of a Tail. Its zero value is empty.
type TailState struct {
	// Weights are those of the bins, Above the sums of those beyond each, kept so that a restored
	// Tail gives the same bits. Next is the weight of the next residual, which grows as old ones
	// count less.
	Weights []float64 `json:"weights,omitempty"`
	Above   []float64 `json:"above,omitempty"`
	Next    float64   `json:"next,omitempty"`
}

func (t *Tail) initialize() {
	if t.state.Weights == nil {
		t.state.Weights, t.state.Next = make([]float64, tailBins), 1
	}
}

// locate is the bin of a residual and its place within the bin, 0–1.
func locate(z float64) (int, float64) {
	x := (math.Asinh(z) - tailLow) / tailStep
	switch {
	case x < 0:
		return 0, 0
	case x >= tailBins:
		return tailBins - 1, 1
	}
	i := int(x)
	return i, x - float64(i)
}

// Add adds a finite residual with a weight > 0. Earlier ones count by the factor keep in (0, 1] of
// what they did.
func (t *Tail) Add(z, weight, keep float64) {
	if !algorithms.Finite(z) || !(weight > 0 && weight <= 1e6) || !(keep > 0 && keep <= 1) {
		return
	}
	t.initialize()
	s := &t.state
	if s.Next /= max(keep, 1e-50); s.Next > tailMaxWeight {
		for i := range s.Weights {
			s.Weights[i] /= s.Next
		}
		for i := range t.above {
			t.above[i] /= s.Next
		}
		s.Next = 1
	}
	i, _ := locate(z)
	w := weight * s.Next
	s.Weights[i] += w
	for j := range t.above[:i] {
		t.above[j] += w
	}
}

// Size is the weight of all residuals in units of the last one's: about how many count.
func (t *Tail) Size() float64 {
	if t.state.Weights == nil {
		return 0
	}
	return (t.above[0] + t.state.Weights[0]) / t.state.Next
}

// Above is the share of the weight above z, 0–1; 0 without residuals. Within a bin the weight is
// uniform in asinh z.
func (t *Tail) Above(z float64) float64 {
	if t.state.Weights == nil {
		return 0
	}
	i, part := locate(z)
	all := t.above[0] + t.state.Weights[0]
	return min((t.above[i]+(1-part)*t.state.Weights[i])/all, 1)
}

// Quantile is the residual that a share 1−p of the weight exceeds, for p in [0, 1]; 0 without
// residuals.
func (t *Tail) Quantile(p float64) float64 {
	if t.state.Weights == nil {
		return 0
	}
	want := (1 - p) * (t.above[0] + t.state.Weights[0])
	for i := range t.above {
		if w := t.state.Weights[i]; t.above[i] <= want {
			part := 1.0
			if w > 0 {
				part = min(max(1-(want-t.above[i])/w, 0), 1)
			}
			return math.Sinh(tailLow + tailStep*(float64(i)+part))
		}
	}
	return math.Sinh(tailLow + tailStep*tailBins)
}

// Excess holds sums of a value over the residuals of a Tail, filled by Tail.Sum. It is not safe for
// concurrent use.
type Excess struct {
	// above[i] and shares[i] are the sum and the share of weight over the bins after i, in[i] and
	// share[i] those of bin i.
	above, in, shares, share [tailBins]float64
}

// Sum fills e with the mean of value over all residuals; Excess.Above returns the part of it from
// high ones. value is asked for the middle of each bin that has weight. Without residuals the sums
// are 0.
func (t *Tail) Sum(e *Excess, value func(score float64) float64) {
	if t.state.Weights == nil {
		*e = Excess{}
		return
	}
	all, sum := t.above[0]+t.state.Weights[0], 0.0
	// sinh of the middles of the bins, from the top down, by the addition theorem
	middle := tailLow + tailStep*(tailBins-0.5)
	sinh, cosh := math.Sinh(middle), math.Cosh(middle)
	stepSinh, stepCosh := math.Sinh(tailStep), math.Cosh(tailStep)
	for i := tailBins - 1; i >= 0; i-- {
		e.above[i], e.shares[i], e.in[i], e.share[i] = sum, t.above[i]/all, 0, 0
		if w := t.state.Weights[i]; w > 0 {
			e.share[i] = w / all
			e.in[i] = e.share[i] * value(sinh)
			sum += e.in[i]
		}
		sinh, cosh = sinh*stepCosh-cosh*stepSinh, cosh*stepCosh-sinh*stepSinh
	}
}

// Above is the part of the mean from residuals above z, and their share of the weight (0–1), as
// Tail.Above gives it.
func (e *Excess) Above(z float64) (sum, share float64) {
	i, part := locate(z)
	return e.above[i] + (1-part)*e.in[i], min(e.shares[i]+(1-part)*e.share[i], 1)
}

// State returns the memory; it shares nothing that changes later.
func (t *Tail) State() TailState {
	if t.state.Weights == nil {
		return TailState{}
	}
	return TailState{Weights: append([]float64(nil), t.state.Weights...), Above: append([]float64(nil), t.above[:]...), Next: t.state.Next}
}

// Load puts back a State; an error leaves the Tail as it was.
func (t *Tail) Load(s TailState) error {
	if len(s.Weights) == 0 && len(s.Above) == 0 {
		t.state, t.above = TailState{}, [tailBins]float64{}
		return nil
	}
	if len(s.Weights) != tailBins || len(s.Above) != tailBins || !(s.Next > 0) {
		return fmt.Errorf("tail state of %d bins: want %d", len(s.Weights), tailBins)
	}
	for _, v := range [][]float64{s.Weights, s.Above} {
		for i, w := range v {
			if !algorithms.Finite(w) || w < 0 {
				return fmt.Errorf("tail state: bin %d = %v: want a finite number ≥ 0", i, w)
			}
		}
	}
	copy(t.above[:], s.Above)
	s.Above = nil
	t.state = s
	return nil
}
