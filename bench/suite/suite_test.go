package suite_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/suite"
)

// column is a trace of so many one-minute bins.
func column(header string, bins int, value func(i int) string) *fstest.MapFile {
	var b strings.Builder
	fmt.Fprintln(&b, header)
	for i := range bins {
		fmt.Fprintf(&b, "%d,%s\n", 60*i, value(i))
	}
	return &fstest.MapFile{Data: []byte(b.String())}
}

func TestRun(t *testing.T) {
	t.Parallel()
	dir := fstest.MapFS{
		"busy.csv": column("t_seconds,requests", 90, func(i int) string { return fmt.Sprint(40 + i%30) }),
		"rare.csv": column("t_seconds,a,b", 60, func(i int) string {
			if i%7 == 0 {
				return "3,0"
			}
			return "0,0"
		}),
	}
	s := scenario.Default()
	s.Name, s.PeakReplicas = "quick", 5
	kpa, err := plan.ParsePolicy(catalog.Default(), "kpa")
	if err != nil {
		t.Fatal(err)
	}
	ours, err := suite.Subject(catalog.Default(), "lookahead:label=ours", []plan.Policy{kpa})
	if err != nil {
		t.Fatal(err)
	}
	cfg := suite.Config{
		Traces: dir, Scenarios: []scenario.Scenario{s}, Subjects: []plan.Policy{ours}, Classics: []plan.Policy{kpa},
		Loads: []suite.Load{
			{File: "busy.csv", Last: 30 * time.Minute, History: time.Hour},
			{File: "rare.csv", Column: "a", Sparse: true},
			{File: "rare.csv", Column: "b", Sparse: true},
		},
		Seeds: 2, Budget: 3, Bounds: true, Workers: 2,
	}
	var mu sync.Mutex
	got := map[int]score.Result{}
	notes, err := suite.Run(t.Context(), cfg, func(n int, run score.Run) error {
		mu.Lock()
		defer mu.Unlock()
		if _, twice := got[n]; twice {
			t.Errorf("the number %d was given twice", n)
		}
		got[n] = run.Result
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	count, cost := map[string]int{}, map[string]float64{}
	for _, r := range got {
		count[r.Trace+" "+r.Policy]++
		cost[r.Trace+" "+r.Policy] += r.PodSeconds
		if r.Trace == "busy" && r.Policy == "kpa" && r.Length > 31*60 {
			t.Errorf("busy: %v s were simulated, want the last half hour", r.Length)
		}
	}
	for what, want := range map[string]int{
		"busy ours": 2, "busy ours (told the rates)": 2, "busy kpa": 2, "busy kpa (tuned)": 2, "busy clairvoyant": 1, "busy lower bound": 1,
		"rare.a ours": 2, "rare.a ours (told the rates)": 0, "rare.a kpa": 2, "rare.a kpa (tuned)": 0, "rare.b ours": 0,
	} {
		if count[what] != want {
			t.Errorf("%d results of %s, want %d", count[what], what, want)
		}
	}
	if cost["busy ours"] == cost["busy ours"+suite.Told] {
		t.Error("who was told the rates did the same as who was not")
	}
	if !slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, "rare.csv#b was left out") }) ||
		!slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, "busy, quick: tuning found kpa") }) {
		t.Errorf("notes = %q: want what was left out and what tuning found", notes)
	}
	t.Run("with what is known", func(t *testing.T) { again(t, cfg, got) })
	if want := []string{"kpa", "kpa (tuned)"}; !slices.Equal(cfg.Rivals(), want) {
		t.Errorf("rivals = %q, want %q", cfg.Rivals(), want)
	}
	if _, err := suite.Subject(catalog.Default(), "kpa", []plan.Policy{kpa}); err == nil {
		t.Error("a classic was taken as the policy that is judged: their results would mix")
	}
}

// again holds a contest in which the runs of an earlier one are known: only the policy that is
// judged is run.
func again(t *testing.T, cfg suite.Config, earlier map[int]score.Result) {
	known := map[string]score.Run{}
	name := func(policy, trace, scenario string, seed uint64) string {
		return fmt.Sprint(policy, "|", trace, "|", scenario, "|", seed)
	}
	for _, r := range earlier {
		r.Requests = -r.Requests // tells them from new ones
		known[name(r.Policy, r.Trace, r.Scenario, r.Seed)] = score.Run{Result: r}
	}
	cfg.Known = func(policy, trace, scenario string, seed uint64) (score.Run, bool) {
		if policy == "ours" {
			t.Error("the policy that is judged was asked for")
		}
		run, ok := known[name(policy, trace, scenario, seed)]
		return run, ok && policy != "kpa" // which must be run then
	}
	var mu sync.Mutex
	got := map[int]score.Result{}
	notes, err := suite.Run(t.Context(), cfg, func(n int, run score.Run) error {
		mu.Lock()
		defer mu.Unlock()
		got[n] = run.Result
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(earlier) {
		t.Errorf("%d results, want the %d of before", len(got), len(earlier))
	}
	for n, r := range got {
		if old := r.Requests < 0; old == slices.Contains([]string{"ours", "ours" + suite.Told, "kpa"}, r.Policy) {
			t.Errorf("%s on %s: known %v", r.Policy, r.Trace, old)
		}
		if b := earlier[n]; b.Policy != r.Policy || b.Trace != r.Trace || b.Seed != r.Seed {
			t.Errorf("number %d is %s on %s, seed %d; was %s on %s, seed %d", n, r.Policy, r.Trace, r.Seed, b.Policy, b.Trace, b.Seed)
		}
	}
	if slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, suite.Found) }) {
		t.Errorf("notes = %q: it tuned again", notes)
	}
}

// Every load of the suite is in the shared traces, and names each of them once.
func TestLoads(t *testing.T) {
	t.Parallel()
	folder := os.Getenv("SLUICE_TRACES")
	if folder == "" {
		folder = "../../../shared/traces"
	}
	if _, err := os.Stat(folder); err != nil {
		t.Skipf("no shared traces at %s: say where they are by SLUICE_TRACES", folder)
	}
	sparse, err := suite.Sparse(os.DirFS(folder))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, l := range slices.Concat(suite.Dense(), sparse) {
		if seen[l.Name()] {
			t.Errorf("%s is there twice", l.Name())
		}
		seen[l.Name()] = true
		if _, err := os.Stat(folder + "/" + l.File); err != nil {
			t.Errorf("%s: %v", l.Name(), err)
		}
	}
	if len(seen) < 30 {
		t.Errorf("%d loads, want at least 30", len(seen))
	}
}
