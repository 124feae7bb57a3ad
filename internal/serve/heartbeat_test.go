package serve_test

import (
	"sync"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/internal/serve"
)

func TestHeartbeat(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const period = 10 * time.Second
	cases := []struct {
		name  string
		beats []time.Duration
		at    time.Duration
		want  string
	}{
		{name: "new", at: 0},
		{name: "not begun, in time", at: 20*time.Second - 1},
		{name: "not begun, too late", at: 20 * time.Second, want: "no step has begun for 20s: want one each 10s"},
		{name: "turning", beats: []time.Duration{10 * time.Second, 20 * time.Second}, at: 40*time.Second - 1},
		{name: "hung", beats: []time.Duration{10 * time.Second, 20 * time.Second}, at: 41 * time.Second, want: "no step has begun for 21s: want one each 10s"},
		{name: "turning again", beats: []time.Duration{10 * time.Second, time.Hour}, at: time.Hour},
		{name: "an older step changes nothing", beats: []time.Duration{30 * time.Second, 10 * time.Second}, at: 49 * time.Second},
		{name: "clock before the construction", beats: []time.Duration{-time.Hour}, at: -time.Minute},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := serve.NewHeartbeat("rounds", period, start)
			for _, b := range c.beats {
				h.Beat(start.Add(b))
			}
			got := ""
			check := h.Check(func() time.Time { return start.Add(c.at) })
			if err := check.Probe(t.Context()); err != nil {
				got = err.Error()
			}
			if got != c.want || check.Name != "rounds" {
				t.Errorf("check %q at %v = %q, want rounds, %q", check.Name, c.at, got, c.want)
			}
		})
	}
}

func TestHeartbeatIsConcurrentAndAllocatesNothing(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	h := serve.NewHeartbeat("rounds", time.Second, start)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 1000 {
				h.Beat(start.Add(time.Duration(8*j+i) * time.Second))
				_ = h.Alive(start)
			}
		})
	}
	all.Wait()
	// The newest beat of all counts, in whatever order they came.
	if err := h.Alive(start.Add(8000 * time.Second)); err != nil {
		t.Errorf("Alive one period after the newest beat = %v, want nil", err)
	}
	if err := h.Alive(start.Add(8001 * time.Second)); err == nil {
		t.Error("Alive two periods after the newest beat = nil, want an error")
	}
	now := start.Add(time.Hour)
	if n := testing.AllocsPerRun(100, func() { now = now.Add(1); h.Beat(now) }); n != 0 {
		t.Errorf("Beat allocates %v times, want 0", n)
	}
}
