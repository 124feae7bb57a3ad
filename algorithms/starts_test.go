package algorithms_test

import (
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

func TestStartTimes(t *testing.T) {
	t.Parallel()
	var s algorithms.StartTimes
	if got := s.StartUp(); got != (algorithms.StartUp{}) {
		t.Errorf("no starts: %+v, want nothing", got)
	}
	s.Add(-time.Second)
	s.Add(3 * time.Second)
	if got, want := s.StartUp(), (algorithms.StartUp{P50: 3 * time.Second, P90: 3 * time.Second, P99: 3 * time.Second, Samples: 1}); got != want {
		t.Errorf("one start: %+v, want %+v", got, want)
	}
	for i := range 200 { // only the last 64 count: 136–199 s
		s.Add(time.Duration(i) * time.Second)
	}
	if got, want := s.StartUp(), (algorithms.StartUp{P50: 168 * time.Second, P90: 193 * time.Second, P99: 199 * time.Second, Samples: 64}); got != want {
		t.Errorf("200 starts: %+v, want %+v", got, want)
	}
}
