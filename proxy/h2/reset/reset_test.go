package reset_test

import (
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/proxy/h2/reset"
)

func TestBudget(t *testing.T) {
	var b reset.Budget
	for i := range 3 {
		if !b.Spend(0, 3, 2) {
			t.Errorf("%d of 3 is beyond the budget", i+1)
		}
	}
	if b.Spend(0, 3, 2) {
		t.Error("a fourth is within the budget of 3")
	}
	if !b.Spend(time.Second, 3, 2) { // two of four have come back
		t.Error("a second does not give 2 back")
	}
	if b.Spend(time.Second, 3, 2) {
		t.Error("a second gives more than 2 back")
	}
}

func TestRecent(t *testing.T) {
	var r reset.Recent
	for id := uint32(1); id <= 300; id++ {
		r.Note(id)
	}
	for id, want := range map[uint32]bool{44: false, 45: true, 300: true, 301: false} {
		if got := r.Has(id); got != want {
			t.Errorf("Has(%d) = %v, want %v", id, got, want)
		}
	}
}
