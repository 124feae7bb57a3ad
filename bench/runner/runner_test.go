package runner_test

import (
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/bench/folder"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/runner"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
)

func jobs(t *testing.T) []plan.Job {
	t.Helper()
	p, err := plan.ParsePolicy(catalog.Default(), "fixed:replicas=2")
	if err != nil {
		t.Fatal(err)
	}
	load, err := plan.Generated("poisson:rate=2,duration=2m")
	if err != nil {
		t.Fatal(err)
	}
	all, err := plan.Matrix([]scenario.Scenario{scenario.Default()}, []plan.Load{load}, []plan.Policy{p}, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A folder holds what memory does, and is not replaced unless that was said.
func TestFolderAndMemory(t *testing.T) {
	t.Parallel()
	var stdout, named strings.Builder
	dir := filepath.Join(t.TempDir(), "out")
	memory := runner.Runner{Workers: 2, Points: 10, Stdout: &stdout, Stderr: io.Discard}
	onDisk := runner.Runner{Workers: 2, Points: 10, Stdout: io.Discard, Stderr: &named, Out: dir}
	head, err := runner.Head([]string{"test"}, "", []scenario.Scenario{scenario.Default()})
	if err != nil {
		t.Fatal(err)
	}
	kept, err := memory.Keep(t.Context(), head, jobs(t))
	if err != nil || len(kept.Results) != 2 || kept.Baseline != "fixed:replicas=2" {
		t.Fatalf("Keep = %d results against %q, %v; want 2 against the only policy", len(kept.Results), kept.Baseline, err)
	}
	if err := onDisk.Run(t.Context(), head, jobs(t)); err != nil {
		t.Fatal(err)
	}
	written, err := folder.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range written.Summary.Results {
		if r != kept.Results[i] {
			t.Errorf("run %d in the folder is %+v, in memory %+v", i, r, kept.Results[i])
		}
	}
	if !strings.Contains(named.String(), "wrote "+filepath.Join(dir, "report.html")) {
		t.Errorf("it says %q, want the names of the files", &named)
	}
	if err := onDisk.Run(t.Context(), head, jobs(t)); err == nil {
		t.Error("a folder with a bench was replaced unasked")
	}
	if err := memory.Run(t.Context(), head, jobs(t)); err != nil || !strings.Contains(stdout.String(), "fixed:replicas=2") {
		t.Errorf("Run: %v, and printed %q", err, &stdout)
	}
}
