package runner

import (
	"strings"
	"testing"
)

// TestProgressCountsWhatEnded says how many runs were done, not how many were planned.
func TestProgressCountsWhatEnded(t *testing.T) {
	t.Parallel()
	for done, want := range map[int]string{2: "2 of 5 runs in ", 5: "5 runs in "} {
		var b strings.Builder
		p := NewProgress(&b, 5)
		p.told = true
		p.Share(float64(done) / 5)
		p.End(p.Done())
		if !strings.HasPrefix(b.String(), want) {
			t.Errorf("%d done: %q, want %q", done, b.String(), want)
		}
	}
}
