package loop_test

import (
	"testing"

	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/algorithms/loop/looptest"
)

// policies is the catalog.
func policies() catalog.Catalog { return catalog.Default() }

func open(t *testing.T, s loop.Spec, timing loop.Timing) looptest.Shell {
	t.Helper()
	l, err := loop.New(s, policies(), timing)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return looptest.Bare{Loop: l}
}

func TestScenarios(t *testing.T) {
	t.Parallel()
	looptest.Scenarios(t, "looptest/testdata", open)
}

// TestHistoriesRepeat holds the loop against itself: the same views give the same commands.
func TestHistoriesRepeat(t *testing.T) {
	t.Parallel()
	looptest.Same(t, 50, 100, open, open)
}
