package score

import (
	"cmp"
	"math"
	"slices"
)

// Point is what one choice costs in two ways; less is better in both.
type Point struct {
	// Cost may be pod-seconds or money, Violations a share.
	Cost, Violations float64
}

// Pareto gives the indices of the points that no other one beats, by rising cost: none is at most
// as bad in both and better in one. Equal points are all in it, in their order; those with NaN
// never.
func Pareto(points []Point) []int {
	var order []int
	for i, p := range points {
		if !math.IsNaN(p.Cost) && !math.IsNaN(p.Violations) {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(points[a].Cost, points[b].Cost), cmp.Compare(points[a].Violations, points[b].Violations))
	})
	var front []int
	for _, i := range order {
		if len(front) > 0 {
			last := points[front[len(front)-1]]
			if points[i].Violations >= last.Violations && points[i] != last {
				continue
			}
		}
		front = append(front, i)
	}
	return front
}
