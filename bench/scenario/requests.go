package scenario

import (
	"math/rand/v2"

	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// The streams of randomness of a run. Each has a stream of its own, so that policies that are
// compared under one seed meet the same requests with the same work.
const (
	Arrivals = iota + 1
	Work
	Starts
	Routes
	Readings
	Phases
)

// Stream opens one of a run's streams of randomness.
func Stream(seed, which uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, which)) }

// Requests opens a source as a run with that seed sees it: each request has its work filled in.
func Requests(src trace.Source, s *Scenario, seed uint64) trace.Arrivals {
	return &worked{Arrivals: src.Open(Stream(seed, Arrivals)), work: s.Service, r: Stream(seed, Work)}
}

// worked fills in the work of requests that have none of their own.
type worked struct {
	trace.Arrivals
	work Dist
	r    *rand.Rand
}

// Read fills dst.
func (w *worked) Read(dst []trace.Request) int {
	n := w.Arrivals.Read(dst)
	for i := range dst[:n] {
		if dst[i].Service == 0 {
			dst[i].Service = w.work.Draw(w.r)
		}
	}
	return n
}

// Err returns what ended the arrivals early.
func (w *worked) Err() error { return trace.Err(w.Arrivals) }
