package report

import (
	"cmp"
	"math"
	"slices"
)

// Interval is a mean with its 95 % confidence interval by Student's t, over N values. With fewer than two values nothing is known
// about the spread: Low and High equal Mean then, and Known is false.
type Interval struct {
	Mean float64 `json:"mean"`
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	N    int     `json:"n"`
}

// Known says whether Low and High tell anything.
func (i Interval) Known() bool { return i.N >= 2 }

// Half is half the interval's width.
func (i Interval) Half() float64 { return (i.High - i.Low) / 2 }

// interval is the mean of values and its interval.
func interval(values []float64) Interval {
	mean, se := moments(values)
	h := 0.0
	if len(values) > 1 {
		h = student(float64(len(values)-1)) * se
	}
	return Interval{Mean: mean, Low: mean - h, High: mean + h, N: len(values)}
}

// moments are the mean and its standard error; the latter is 0 for fewer than two values.
func moments(values []float64) (mean, se float64) {
	n := float64(len(values))
	if n == 0 {
		return 0, 0
	}
	for _, v := range values {
		mean += v / n
	}
	if n < 2 {
		return mean, 0
	}
	for _, v := range values {
		se += (v - mean) * (v - mean)
	}
	return mean, math.Sqrt(se / (n - 1) / n)
}

// student is the 97.5 % quantile of Student's t: exact values up to 10 degrees of freedom with linear interpolation in 1/df
// between them, and above that the Cornish-Fisher expansion (Abramowitz and Stegun 26.7.5), which is right to four digits there.
func student(df float64) float64 {
	exact := []float64{12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281}
	switch {
	case df <= 1:
		return exact[0]
	case df < 10:
		k := int(df)
		a, b := 1/float64(k), 1/float64(k+1)
		return exact[k] + (exact[k-1]-exact[k])*(1/df-b)/(a-b)
	}
	const z = 1.959964
	z3 := z * z * z
	z5 := z3 * z * z
	return z + (z3+z)/(4*df) + (5*z5+16*z3+3*z)/(96*df*df) + (3*z5*z*z+19*z5+17*z3-15*z)/(384*df*df*df)
}

// front are the indices of the points that no other point beats in both, from the cheapest on; of equal points all are kept.
func front(cost, loss []float64) []int {
	order := make([]int, len(cost))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(cost[a], cost[b]), cmp.Compare(loss[a], loss[b]), cmp.Compare(a, b))
	})
	var out []int
	for _, i := range order {
		if len(out) == 0 {
			out = append(out, i)
			continue
		}
		last := out[len(out)-1]
		if loss[i] < loss[last] || (loss[i] == loss[last] && cost[i] == cost[last]) {
			out = append(out, i)
		}
	}
	return out
}
