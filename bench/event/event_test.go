package event_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sluice-autoscaler/sluice/bench/event"
)

// Departures come in the order of their instants, whatever is pushed, dropped and replaced in
// between.
func TestDepartures(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	var heap event.Departures
	var sorted []int64
	for range 20_000 {
		at := r.Int64N(1000)
		switch k := r.IntN(5); {
		case k < 3 || len(sorted) == 0:
			heap.Push(event.Departure{At: at})
			sorted = append(sorted, at)
		case k == 3:
			heap.Drop()
			sorted = sorted[1:]
		default:
			heap.Replace(event.Departure{At: at})
			sorted[0] = at
		}
		slices.Sort(sorted)
		want := event.Never
		if len(sorted) > 0 {
			want = sorted[0]
		}
		if got := heap.Next(); got != want {
			t.Fatalf("Next = %d with %d departures, want %d", got, len(sorted), want)
		}
	}
}

// Events at one instant come in the order in which they were planned.
func TestSchedule(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	var s event.Schedule
	type planned struct {
		at  int64
		pod int32
	}
	var want []planned
	for i := range int32(5000) {
		at := r.Int64N(100)
		s.Push(event.Planned{At: at, Pod: i})
		want = append(want, planned{at, i})
	}
	slices.SortStableFunc(want, func(a, b planned) int { return int(a.at - b.at) })
	for i, w := range want {
		if s.Next() != w.at {
			t.Fatalf("Next = %d, want %d", s.Next(), w.at)
		}
		if got := s.Pop(); got.At != w.at || got.Pod != w.pod {
			t.Fatalf("event %d is %+v, want %+v", i, got, w)
		}
	}
	if s.Next() != event.Never {
		t.Errorf("Next of nothing = %d, want Never", s.Next())
	}
}

func TestFIFO(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	var q event.FIFO
	var want []event.Waiting
	for i := range int64(20_000) {
		switch k := r.IntN(100); {
		case k == 0:
			q.Clear()
			want = want[:0]
		case k < 55 || len(want) == 0:
			q.Push(event.Waiting{At: i, Work: i})
			want = append(want, event.Waiting{At: i, Work: i})
		default:
			if front, got := *q.Front(), q.Pop(); front != want[0] || got != want[0] {
				t.Fatalf("Front = %v and Pop = %v, want %v", front, got, want[0])
			}
			want = want[1:]
		}
		if q.Len() != len(want) {
			t.Fatalf("Len = %d, want %d", q.Len(), len(want))
		}
	}
}

func TestGauge(t *testing.T) {
	t.Parallel()
	const second = int64(1e9)
	var g event.Gauge
	g.Set(2*second, 3)
	g.Set(4*second, 1)
	if got := g.Until(10 * second); got != 3*2+6 {
		t.Errorf("Until = %v count × seconds, want 12", got)
	}
	g.Restart(10 * second)
	if got := g.Until(13 * second); got != 3 || g.Value != 1 {
		t.Errorf("after Restart Until = %v at a count of %d, want 3 at 1", got, g.Value)
	}
}
