package suite_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/sluice-autoscaler/sluice/bench/folder"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/suite"
	"github.com/sluice-autoscaler/sluice/bench/summary"
)

func TestReuse(t *testing.T) {
	t.Parallel()
	scene := scenario.Default()
	scene.Name = "mine"
	dir := t.TempDir() + "/earlier"
	raw, err := json.Marshal(scene)
	if err != nil {
		t.Fatal(err)
	}
	scenes := []json.RawMessage{raw}
	w, err := folder.Create(dir, summary.Summary{Baseline: "kpa", Scenarios: scenes}, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Put(0, score.Run{Result: score.Result{Policy: "kpa (tuned)", Trace: "busy", Scenario: "mine", Seed: 1, PodSeconds: 42}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish("busy, mine: "+suite.Found+" kpa:x=1.", "Something else."); err != nil {
		t.Fatal(err)
	}

	cfg := suite.Config{Scenarios: []scenario.Scenario{scene}}
	notes, err := cfg.Reuse(scenes, []string{dir})
	if err != nil {
		t.Fatal(err)
	}
	if run, ok := cfg.Known("kpa (tuned)", "busy", "mine", 1); !ok || run.Result.PodSeconds != 42 {
		t.Errorf("Known = %+v, %v; want what was put", run.Result, ok)
	}
	if _, ok := cfg.Known("kpa (tuned)", "busy", "mine", 2); ok {
		t.Error("another seed is known")
	}
	if _, ok := cfg.Known("kpa (tuned)", "busy", "other", 1); ok {
		t.Error("another scenario is known")
	}
	if len(notes) != 2 || !strings.Contains(notes[1], "kpa:x=1") {
		t.Errorf("notes = %q, want where the classics are from and what tuning found", notes)
	}

	scene.MaxReplicas++
	other, err := json.Marshal(scene)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cfg.Reuse([]json.RawMessage{other}, []string{dir}); err == nil || !strings.Contains(err.Error(), "none of the scenarios") {
		t.Errorf("another scenario of the same name: %v", err)
	}
	if _, err := cfg.Reuse(scenes, []string{dir + "x"}); err == nil {
		t.Error("no folder is no error")
	}
}
