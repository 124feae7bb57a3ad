package scaler

import (
	"testing"
	"time"
)

// Only starts that were watched from their beginning count, each once, and the least limit holds until another is known.
func TestLearnsStartsAndLimits(t *testing.T) {
	t.Parallel()
	at := func(s int) time.Time { return time.Unix(int64(1000+s), 0) }
	old := Pod{Name: "old", State: PodReady, Created: at(0), Ready: at(500), Limit: 8}
	young := Pod{Name: "young", State: PodStarting, Created: at(600)}
	var w workload
	w.learn([]Pod{old, young})
	if got := w.starts.StartUp().Samples; got != 0 {
		t.Errorf("%d starts known of pods that are ready since before or not yet: want 0", got)
	}
	young.State, young.Ready, young.Limit = PodReady, at(604), 10
	for range 2 {
		w.learn([]Pod{old, young})
		if got := w.starts.StartUp(); got.Samples != 1 || got.P50 != 4*time.Second {
			t.Errorf("start-up = %+v: want one of 4 s", got)
		}
	}
	if w.limit != 8 {
		t.Errorf("limit = %v: want the least, 8", w.limit)
	}
	w.learn(nil)
	if w.limit != 8 {
		t.Errorf("limit = %v at zero pods: want the last known, 8", w.limit)
	}
}
