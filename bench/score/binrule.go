package score

import "math"

// BinRule is the "default Knative" model of simulators that know a function by the bin (the minute) only: need[t] = ⌈x[t]⌉ pods of
// x[t] busy ones, and what need rises by starts cold,
//
//	cold = Σ (need[t] − need[t−1])⁺    need[−1] = 0
//
// so that a pod is kept until the end of the next bin. Values that are not finite or below 0 count as 0. The second result is Σ need,
// in pod bins.
//
// It knows nothing of what happens within a bin, and so overstates cold starts: FeMux (EuroSys '26), from whose artefact the rule is,
// measured 0.75 of them on a cluster. Use it to check against others, not to judge a policy.
func BinRule(x []float64) (cold, podBins int64) {
	var before int64
	for _, v := range x {
		var need int64
		if v > 0 && v < math.MaxInt32 {
			need = int64(math.Ceil(v))
		}
		cold += max(need-before, 0)
		podBins += need
		before = need
	}
	return cold, podBins
}
