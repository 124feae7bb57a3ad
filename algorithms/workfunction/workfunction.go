// Package workfunction decides when to change a pod count, where changes have a cost: the work
// function algorithm for metrical task systems on a line of counts.
//
//	w(n) ← min over m of (w(m) + move·|n − m|) + cost(n)
//
// is the cost of the cheapest sequence of past counts that ends at n. The count moves from n to m
// once w(n) exceeds w(m) + move·|n − m|: when staying has cost as much as moving there and back. A
// large regret is acted on at once and a small one when it lasts, in both directions, and a count
// between two others does not flap. The cost is within a constant factor of the optimum in
// hindsight.
//
// Source: Borodin, Linial and Saks 1992.
package workfunction

import (
	"fmt"
	"math"
	"sort"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

const (
	// everyCount is up to which count every count is a candidate; above, candidates are a
	// sixty-fourth apart.
	everyCount = 64
	// maxCandidates bounds the candidates; they reach beyond 10^6 pods.
	maxCandidates = 1024
)

// next is the candidate after n.
func next(n int) int { return n + 1 + n/everyCount }

// Function is the work function of one workload. Its zero value has seen nothing. It is not safe
// for concurrent use.
type Function struct {
	levels []int
	work   []float64
}

// extend makes the candidates reach count n, or 1,000,000.
func (f *Function) extend(n, current int, move float64) {
	for last := len(f.levels) - 1; last < maxCandidates-1 && (last < 0 || f.levels[last] < n); last++ {
		level, work := 0, move*float64(current)
		if last >= 0 {
			level = next(f.levels[last])
			work = f.work[last] + move*(math.Abs(float64(level-current))-math.Abs(float64(f.levels[last]-current)))
		}
		f.levels, f.work = append(f.levels, level), append(f.work, max(work, 0))
	}
}

// Step adds the cost of each count up to most since the previous step, cost(n) ≥ 0, and returns the
// count to move to from current. move ≥ 0, in the same unit, is the cost of adding or removing a
// pod. A cost that is not finite counts as very large. Step calls cost once per candidate, a few
// hundred times at most, with rising n.
func (f *Function) Step(current, most int, move float64, cost func(n int) float64) int {
	most, current = min(max(most, 0), 1_000_000), min(max(current, 0), 1_000_000)
	f.extend(max(most, current), current, move)
	f.relax(move)
	least := math.Inf(1)
	for i, n := range f.levels {
		c := math.MaxFloat32
		if n <= most {
			if v := cost(n); v < c {
				c = v
			}
		}
		f.work[i] += c
		least = min(least, f.work[i])
	}
	at := min(sort.SearchInts(f.levels, current), len(f.levels)-1)
	best, end := at, math.Inf(1)
	for i, n := range f.levels {
		f.work[i] -= least
		if n <= most {
			// Of equal candidates, the one with the least work.
			if v := f.work[i] + move*math.Abs(float64(n-f.levels[at])); v < end || v == end && f.work[i] < f.work[best] {
				best, end = i, v
			}
		}
	}
	if stay := f.levels[at] <= most && f.work[at] <= end*(1+1e-9); stay {
		best = at
	}
	f.relax(move)
	if best == at {
		return min(current, most)
	}
	return f.levels[best]
}

// relax allows one more move: w(n) ← min over m of (w(m) + move·|n − m|).
func (f *Function) relax(move float64) {
	for i := 1; i < len(f.work); i++ {
		f.work[i] = min(f.work[i], f.work[i-1]+move*float64(f.levels[i]-f.levels[i-1]))
	}
	for i := len(f.work) - 2; i >= 0; i-- {
		f.work[i] = min(f.work[i], f.work[i+1]+move*float64(f.levels[i+1]-f.levels[i]))
	}
}

// State is the memory: the work of each candidate.
func (f *Function) State() []float64 { return append([]float64(nil), f.work...) }

// Load puts back a State; an error leaves the Function as it was.
func (f *Function) Load(work []float64) error {
	if len(work) > maxCandidates {
		return fmt.Errorf("work function of %d counts: want at most %d", len(work), maxCandidates)
	}
	for i, w := range work {
		if !algorithms.Finite(w) || w < 0 {
			return fmt.Errorf("work function: count %d = %v: want a finite number ≥ 0", i, w)
		}
	}
	f.levels, f.work = nil, append([]float64(nil), work...)
	for n := range work {
		level := 0
		if n > 0 {
			level = next(f.levels[n-1])
		}
		f.levels = append(f.levels, level)
	}
	return nil
}
