// Package keepalive answers how long to keep the last pod after the last request: the ski-rental problem. Keeping costs r per
// second, letting go costs C at the next request, and nobody knows when that comes. Costs are in any one unit.
//
// Sources: Karlin, Manasse, Rudolph, Sleator, "Competitive snoopy caching", 1988 (deterministic, 2); Karlin, Manasse, McGeoch,
// Owicki, "Competitive randomized algorithms for nonuniform problems", 1994 (e/(e−1)); Purohit, Svitkina, Kumar, "Improving online
// algorithms via ML predictions", 2018 (with advice). Functions are pure and safe for concurrent use.
package keepalive

import (
	"math"
	"slices"
	"time"
)

// Forever stands for a time that never ends.
const Forever time.Duration = math.MaxInt64

// BreakEven is τ = C / r, the idle time at which keeping has cost as much as one cold start. Keeping for exactly τ costs at
// most twice what one who knew the future would pay. A free pod is kept Forever; a free cold start is worth 0.
func BreakEven(idlePerSecond, coldStart float64) time.Duration {
	if !(coldStart > 0) { // NaN too
		return 0
	}
	if !(idlePerSecond > 0) {
		return Forever
	}
	return seconds(coldStart / idlePerSecond)
}

// Randomized is the random time θ = τ·ln(1 + u(e − 1)) for u in [0, 1), whose density on [0, τ] is e^(x/τ)/(τ(e − 1)): on average it
// costs e/(e − 1) ≈ 1.582 of the optimum, whatever the idle time turns out to be. The caller draws u.
func Randomized(tau time.Duration, u float64) time.Duration {
	return seconds(tau.Seconds() * math.Log1p(min(max(u, 0), 1)*(math.E-1)))
}

// WithAdvice is the time to keep when a forecast says that the idle time will be predicted. trust in (0, 1] weighs it: λ near 0
// believes the forecast (cost 1+λ when it is right), 1 ignores it; when it is wrong the cost is at most 1+1/λ of the optimum.
//
// The forecast says "long" when predicted ≥ τ; then keeping does not pay, and the time is λτ; else it is τ/λ.
func WithAdvice(tau, predicted time.Duration, trust float64) time.Duration {
	trust = min(max(trust, math.SmallestNonzeroFloat64), 1)
	if predicted >= tau {
		return seconds(tau.Seconds() * trust)
	}
	return seconds(tau.Seconds() / trust)
}

// Cost of keeping for keep when the next request comes after idle.
func Cost(keep, idle time.Duration, idlePerSecond, coldStart float64) float64 {
	if idle <= keep {
		return idlePerSecond * idle.Seconds()
	}
	return idlePerSecond*keep.Seconds() + coldStart
}

// Optimum is what one pays who knows idle: the lesser of keeping and one cold start.
func Optimum(idle time.Duration, idlePerSecond, coldStart float64) float64 {
	return min(idlePerSecond*idle.Seconds(), coldStart)
}

// Best is the time that would have cost least on average over the idle times seen: argmin over τ of
// r·E[min(IT, τ)] + C·P(IT > τ). Between two idle times seen the cost only grows, so the answer is 0 or one of them; the shortest wins a
// tie. It sorts a copy; no idle times give 0.
func Best(idles []time.Duration, idlePerSecond, coldStart float64) time.Duration {
	s := slices.Clone(idles)
	slices.Sort(s)
	n := float64(len(s))
	best, least := time.Duration(0), coldStart*n
	sum := 0.0
	for i, it := range s {
		sum += it.Seconds()
		if i+1 < len(s) && s[i+1] == it {
			continue
		}
		above := n - float64(i+1)
		if c := idlePerSecond*(sum+above*it.Seconds()) + coldStart*above; c < least {
			best, least = it, c
		}
	}
	return best
}

// Exponential is the best time for exponential idle times of that mean: Forever when one cold start costs more than the mean idle
// time, else 0; nothing between can be better, since such idle times have no memory.
func Exponential(mean time.Duration, idlePerSecond, coldStart float64) time.Duration {
	if coldStart > idlePerSecond*mean.Seconds() {
		return Forever
	}
	return 0
}

func seconds(s float64) time.Duration {
	if s >= Forever.Seconds() {
		return Forever
	}
	return time.Duration(s * float64(time.Second))
}
