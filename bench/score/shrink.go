package score

import (
	"math"
	"slices"
)

// Shrink makes one value of each `per` values; the last may come of fewer.
func Shrink(values []float32, per int, how func([]float32) float64) []float64 {
	out := make([]float64, 0, len(values)/per+1)
	for part := range slices.Chunk(values, per) {
		out = append(out, how(part))
	}
	return out
}

// SumOf is the sum.
func SumOf(values []float32) float64 {
	sum := 0.0
	for _, v := range values {
		sum += float64(v)
	}
	return sum
}

// MeanOf is the mean.
func MeanOf(values []float32) float64 { return SumOf(values) / float64(len(values)) }

// PeakOf is the highest value, at least 0.
func PeakOf(all ...[]float32) float64 {
	top := 0.0
	for _, values := range all {
		for _, v := range values {
			if x := float64(v); x > top && !math.IsInf(x, 0) {
				top = x
			}
		}
	}
	return top
}
