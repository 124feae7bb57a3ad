package algorithms_test

import (
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

func TestPaceKeepsItsGrid(t *testing.T) {
	t.Parallel()
	var p algorithms.Pace
	began := time.Unix(1_000_000, 0)
	for _, s := range []struct {
		at  float64
		due bool
	}{{0, true}, {1, false}, {14.9, false}, {15.4, true}, {29.9, false}, {30, true}, {100, true}, {104.9, false}, {105, true}} {
		if due := p.Due(began.Add(time.Duration(s.at*1e9)), 15*time.Second); due != s.due {
			t.Errorf("Due after %v s = %t, want %t", s.at, due, s.due)
		}
	}
	var every algorithms.Pace
	if first, second := every.Due(began, 0), every.Due(began, 0); !first || !second {
		t.Error("a period of 0 is not always due")
	}
}
