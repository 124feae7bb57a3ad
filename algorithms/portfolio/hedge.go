package portfolio

import "math"

// Hedge keeps weights of experts by their losses, which are within 0–1:
//
//	w_i ∝ w_i · exp(−η·loss_i), then w_i ← (1 − α)·w_i + α/N        (fixed share)
//
// With α = 0 and η = √(8 ln N / T) its expected loss after T rounds is at most that of the best
// expert plus √(T ln N / 2). With α > 0 it follows the best sequence of experts with few changes.
// Sources: Freund and Schapire 1997; Herbster and Warmuth 1998. Not safe for concurrent use.
type Hedge struct {
	// Eta is η > 0, Share is α in [0, 1).
	Eta, Share float64
	// Weights sum to 1.
	Weights []float64
}

// NewHedge returns equal weights for n experts, made for rounds rounds.
func NewHedge(n, rounds int, share float64) Hedge {
	h := Hedge{Eta: Rate(n, rounds), Share: share, Weights: make([]float64, n)}
	for i := range h.Weights {
		h.Weights[i] = 1 / float64(n)
	}
	return h
}

// Rate is η = √(8 ln N / T).
func Rate(n, rounds int) float64 {
	return math.Sqrt(8 * math.Log(float64(max(n, 2))) / float64(max(rounds, 1)))
}

// Update adds one loss per expert, clamped to 0–1, and returns the expected loss under the previous
// weights.
func (h *Hedge) Update(losses []float64) (expected float64) {
	sum := 0.0
	for i, l := range losses {
		if !(l > 0) {
			l = 0
		}
		l = min(l, 1)
		expected += h.Weights[i] * l
		h.Weights[i] *= math.Exp(-h.Eta * l)
		sum += h.Weights[i]
	}
	n := float64(len(h.Weights))
	for i := range h.Weights {
		h.Weights[i] = (1-h.Share)*h.Weights[i]/sum + h.Share/n
	}
	return expected
}

// Median is the weighted median of the known answers: the least answer that more than half of their
// weight does not exceed.
func Median(answers []int, known []bool, weights []float64) (n int, ok bool) {
	total := 0.0
	for i, k := range known {
		if k {
			total += weights[i]
			ok = true
		}
	}
	if !ok {
		return 0, false
	}
	// few experts: no need to sort
	best := math.MaxInt
	for i, k := range known {
		if !k || answers[i] >= best {
			continue
		}
		below := 0.0
		for j, other := range known {
			if other && answers[j] <= answers[i] {
				below += weights[j]
			}
		}
		if below > total/2+1e-12 {
			best = answers[i]
		}
	}
	if best == math.MaxInt { // rounding
		for i, k := range known {
			if k {
				n = max(n, answers[i])
			}
		}
		return n, true
	}
	return best, true
}
