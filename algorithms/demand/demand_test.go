package demand_test

import (
	"math"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/demand"
)

func read(e *demand.Estimator, now time.Time, n, rate float64, ready int) demand.Reading {
	o := algorithms.Observation{
		Now: now, Replicas: algorithms.Replicas{Current: ready, Ready: ready},
		Signals: []algorithms.Signal{
			{Name: algorithms.Concurrency, Window: e.Short, Value: n, Known: true, Coverage: 1},
			{Name: algorithms.Rate, Window: e.Short, Value: rate, Known: true, Coverage: 1},
		},
	}
	return e.Read(&o, 10)
}

// usual is an estimator that has seen a load of 30 in 50 slots for 100 s, half a second a request,
// and the time of its next reading.
func usual() (*demand.Estimator, time.Time) {
	e := &demand.Estimator{Short: 2 * time.Second}
	now := time.Unix(1_000_000, 0)
	for range 50 {
		read(e, now, 30, 60, 5)
		now = now.Add(2 * time.Second)
	}
	return e, now
}

func near(t *testing.T, what string, got, want, tol float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tol) {
		t.Errorf("%s = %v, want %v ± %v", what, got, want, tol)
	}
}

// Below saturation concurrency is the load, and Little's law gives the service time. Above it the
// queue is told from the load: 60 slots of load at 5 pods of 10, half a second each, leave 20 more
// in the queue each second.
func TestOverload(t *testing.T) {
	t.Parallel()
	e := &demand.Estimator{Short: 2 * time.Second}
	now := time.Unix(1_000_000, 0)
	var r demand.Reading
	for range 50 {
		r = read(e, now, 30, 60, 5)
		now = now.Add(2 * time.Second)
	}
	near(t, "load", r.Load, 30, 1e-9)
	near(t, "service", r.Service, 0.5, 1e-9)
	near(t, "rate", r.Rate, 60, 1e-9)
	if r.Saturated || r.Backlog != 0 || r.Wait != 0 {
		t.Errorf("30 of 50 slots: %+v", r)
	}
	read(e, now, 60, 100, 5)
	for i := range 5 {
		now = now.Add(2 * time.Second)
		n := 60 + 40*float64(i+1)
		r = read(e, now, n, 100, 5)
		near(t, "load under overload", r.Load, 60, 0.01)
		near(t, "arrivals under overload", r.Rate, 120, 0.01)
		near(t, "backlog", r.Backlog, (n-50)*0.5, 0.01)
		near(t, "wait", r.Wait, (n-50)*0.5/50, 0.001)
	}
}

// At zero pods all waits, endlessly as far as is known; unknown concurrency is unknown; the long
// window stands in for the short one.
func TestEdges(t *testing.T) {
	t.Parallel()
	e, now := usual()
	if r := read(e, now, 8, 0, 0); !math.IsInf(r.Wait, 1) || !r.Saturated || r.Load > 8 {
		t.Errorf("no pod: %+v", r)
	}
	if r := e.Read(&algorithms.Observation{Now: now}, 10); r.Known {
		t.Errorf("nothing known: %+v", r)
	}
	o := algorithms.Observation{Now: now, Signals: []algorithms.Signal{{Name: algorithms.Concurrency, Window: demand.Long, Value: 7, Known: true}}}
	if r := e.Read(&o, 10); r.Load != 7 {
		t.Errorf("a minute's mean alone: %+v", r)
	}
	if n := (&demand.Estimator{Short: demand.Long}).Needs(); len(n) != 3 {
		t.Errorf("needs %+v, want each once", n)
	}
}

// When many pods begin at once on a long queue, means lag behind what they answer: the counts of
// the instants tell arrivals.
func TestDrain(t *testing.T) {
	t.Parallel()
	e, now := usual()
	queue, mean := 3000.0, 2800.0 // 200 come in 2 s
	for i := range 5 {
		rate := 0.0
		if i > 0 {
			rate = 1000 // 50 pods of 10, half a second each
		}
		before := queue
		queue += 2 * (100 - rate)
		o := algorithms.Observation{
			Now: now, Replicas: algorithms.Replicas{Current: 50, Ready: 50 * min(i, 1)},
			Signals: []algorithms.Signal{
				{Name: algorithms.Concurrency, Window: algorithms.Instant, Value: max(queue, 50), Known: true, Coverage: 1},
				{Name: algorithms.Concurrency, Window: e.Short, Value: max((before+queue)/2, mean), Known: true, Coverage: 1},
				{Name: algorithms.Rate, Window: e.Short, Value: rate, Known: true, Coverage: 1},
			},
		}
		if r := e.Read(&o, 10); i > 0 && queue > 50 {
			near(t, "arrivals while a queue is worked off", r.Rate, 100, 1e-9)
		}
		now = now.Add(2 * time.Second)
	}
}

// A long sleep teaches nothing of how long a request takes, and makes nothing forgotten.
func TestSleep(t *testing.T) {
	t.Parallel()
	e, now := usual()
	for range 5000 {
		read(e, now, 0, 0, 0)
		now = now.Add(2 * time.Second)
	}
	if r := read(e, now, 40, 0, 0); math.Abs(r.Service-0.5) > 1e-9 {
		t.Errorf("service time after three hours of sleep: %v, want 0.5", r.Service)
	}
}
