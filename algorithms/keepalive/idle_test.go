package keepalive_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/keepalive"
)

func sec(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// Exponential idle times: keep for as long as it lasts when a cold start costs clearly more than
// the mean, never when clearly less.
func TestWorthExponential(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	var h keepalive.Idle
	for range 5000 {
		h.Add(sec(r.ExpFloat64()*100), 1)
	}
	for _, idle := range []float64{0, 10, 50, 100, 200} {
		if !h.WorthKeeping(sec(idle), 160, 10*time.Second) {
			t.Errorf("after %v s: a cold start of 160 s is not worth a mean of 100", idle)
		}
		if h.WorthKeeping(sec(idle), 60, 10*time.Second) {
			t.Errorf("after %v s: a cold start of 60 s is worth a mean of 100", idle)
		}
	}
}

// A period of half an hour: nothing at first, and a pod from some minutes before its end until some
// after.
func TestWorthPeriod(t *testing.T) {
	t.Parallel()
	var h keepalive.Idle
	for range 40 {
		h.Add(30*time.Minute, 0.95)
	}
	on := time.Duration(0)
	for idle := time.Duration(0); idle < time.Hour; idle += 10 * time.Second {
		worth := h.WorthKeeping(idle, 400, 10*time.Second)
		if worth {
			on += 10 * time.Second
		}
		if idle > 30*time.Second && idle < 20*time.Minute && worth || idle >= 29*time.Minute && idle < 31*time.Minute && !worth {
			t.Errorf("after %s: worth it %t", idle, worth)
		}
	}
	if on > 15*time.Minute {
		t.Errorf("on for %s of an hour", on)
	}
}

// A mixture of bursts and long gaps: kept for a while, then let go for good.
func TestWorthMixture(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	var h keepalive.Idle
	for range 2000 {
		if r.IntN(2) == 0 {
			h.Add(sec(r.ExpFloat64()*5), 1)
		} else {
			h.Add(sec(r.ExpFloat64()*5000), 1)
		}
	}
	was, changes := true, 0
	for idle := 0.0; idle < 4000; idle++ {
		if now := h.WorthKeeping(sec(idle), 60, 10*time.Second); now != was {
			changes++
			was = now
		}
	}
	if was || changes != 1 {
		t.Errorf("%d changes, at last %t", changes, was)
	}
	if err := h.Load(h.State()); err != nil {
		t.Error(err)
	}
	if err := h.Load(keepalive.IdleState{Weights: []float64{1}}); err == nil {
		t.Error("one bin was taken")
	}
}
