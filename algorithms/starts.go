package algorithms

import (
	"slices"
	"time"
)

// rememberedStarts is how many starts the quantiles are computed from.
const rememberedStarts = 64

// StartTimes holds how long the last starts of a workload's pods took. The zero value is empty. It
// is not safe for concurrent use.
type StartTimes struct {
	took  [rememberedStarts]time.Duration
	n     int
	cache StartUp
	fresh bool
}

// Add adds the time from a pod's creation to its readiness; negative ones are ignored.
func (s *StartTimes) Add(d time.Duration) {
	if d < 0 {
		return
	}
	s.took[s.n%rememberedStarts] = d
	s.n++
	s.fresh = false
}

// StartUp returns the quantiles.
func (s *StartTimes) StartUp() StartUp {
	if s.fresh || s.n == 0 {
		return s.cache
	}
	n := min(s.n, rememberedStarts)
	sorted := slices.Clone(s.took[:n])
	slices.Sort(sorted)
	at := func(q float64) time.Duration { return sorted[min(int(q*float64(n)), n-1)] }
	s.cache, s.fresh = StartUp{P50: at(0.5), P90: at(0.9), P99: at(0.99), Samples: n}, true
	return s.cache
}

// List returns the remembered times, oldest first.
func (s *StartTimes) List() []time.Duration {
	if s.n <= rememberedStarts {
		return slices.Clone(s.took[:s.n])
	}
	at := s.n % rememberedStarts
	return append(slices.Clone(s.took[at:]), s.took[:at]...)
}
