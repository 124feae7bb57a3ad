package path_test

import (
	"testing"

	"github.com/sluice-autoscaler/sluice/algorithms/loop"
)

// TestResetForgetsWhatWasAssigned begins a second term after another process was the owner: until
// rounds have assigned anew nothing is remembered, and then all is as before.
func TestResetForgetsWhatWasAssigned(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.api.addService("web", "http")
	w.driver.Register(reference("web"), workload("web", 0))
	before := w.agreed("web")
	if len(before) != 1 {
		t.Fatalf("assigned %+v, want one port", before)
	}
	w.driver.Reset()
	w.driver.Expect([]loop.Ref{reference("web")})
	if set, ready := w.driver.Set(); ready || len(set.Ports) != 0 {
		t.Fatalf("after Reset: %+v, ready %v; want nothing, false", set.Ports, ready)
	}
	after := w.agreed("web")
	if _, ready := w.driver.Set(); !ready || len(after) != 1 || after[0] != before[0] {
		t.Errorf("after a round: %+v, ready %v; want %+v, true", after, ready, before)
	}
}
