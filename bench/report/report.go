// Package report keeps what a bench found and shows it: a folder with a summary and one raw record a run, and derived from those,
// a CSV, tables for terminals and Markdown, pictures and one HTML page that needs nothing else. All but the folder's Writer and
// Folder are pure: they write to the io.Writer that they are given, and the same input makes the same bytes.
package report

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-autoscaler/sluice/bench/score"
)

// Version is the version of the folder's format that this package writes, and the only one that it reads.
const Version = 1

// Summary is what summary.json holds: what was run, and what came out. The zero value is an empty bench.
type Summary struct {
	// Version is the format's; Create and Decode care for it.
	Version int `json:"version"`
	// Unfinished is true while runs are still being added, and stays so if the bench was killed. Open then reads the raw records.
	Unfinished bool `json:"unfinished,omitempty"`
	// Sluice and Commit say which program it was.
	Sluice string `json:"sluice"`
	Commit string `json:"commit"`
	// Command is the command line, its first word included.
	Command []string `json:"command"`
	// Baseline is the policy that ratios are to; empty means that there are none.
	Baseline string `json:"baseline,omitempty"`
	// Scenarios are the scenarios with all their values, in any form. One with a "name" and an "slo" of {"wait":"500ms","share":0.01}
	// gets lines for these in the charts.
	Scenarios []json.RawMessage `json:"scenarios"`
	// Results are in the order of the runs' numbers; Raw names the file under raw/ of each.
	Results []score.Result `json:"results"`
	Raw     []string       `json:"raw"`
	// Comparison has a row for each trace, scenario and policy; Overall one for each scenario and policy if there are several traces.
	Comparison []Row     `json:"comparison"`
	Overall    []Overall `json:"overall,omitempty"`
	// Pareto has the front of pod-seconds against violations for each trace and scenario.
	Pareto []Front `json:"pareto"`
	// Notes are sentences that a reader must know: what was left out, what was thinned, what failed.
	Notes []string `json:"notes"`
}

// Source gives the raw record that belongs to a summary's i-th result. A missing one is an error that errors.Is fs.ErrNotExist.
type Source interface {
	Run(i int) (score.Run, error)
}

// Runs is a Source in memory.
type Runs []score.Run

// Run implements Source.
func (r Runs) Run(i int) (score.Run, error) {
	if i < 0 || i >= len(r) {
		return score.Run{}, fmt.Errorf("run %d of %d: %w", i, len(r), errNoRun)
	}
	return r[i], nil
}

// Summarize fills what follows from the results: Comparison, Overall, Pareto, Version. The baseline is taken from s; if no result
// has that policy, a note says so.
func Summarize(s Summary) Summary {
	s.Version = Version
	s.Notes = slices.Clone(s.Notes)
	if s.Baseline != "" && len(s.Results) > 0 && !slices.ContainsFunc(s.Results, func(r score.Result) bool { return r.Policy == s.Baseline }) {
		s.Notes = append(s.Notes, fmt.Sprintf("No run has the baseline policy %q, so there are no ratios.", s.Baseline))
	}
	s.Comparison = Compare(s.Results, s.Baseline)
	s.Overall = OverTraces(s.Comparison)
	s.Pareto = Fronts(s.Comparison)
	return s
}

// DefaultBaseline is the policy that ratios are to if nobody said: kpa, with or without parameters, else the first policy.
func DefaultBaseline(results []score.Result) string {
	names := policies(results)
	for _, n := range names {
		if base, _, _ := strings.Cut(n, ":"); base == "kpa" {
			return n
		}
	}
	if len(names) == 0 {
		return ""
	}
	return names[0]
}

// distinct are the values of a key in the order of their first appearance.
func distinct[T any](all []T, key func(T) string) []string {
	var out []string
	seen := map[string]bool{}
	for _, x := range all {
		if k := key(x); !seen[k] {
			seen[k] = true
			out = append(out, k)
		}
	}
	return out
}

func policies(results []score.Result) []string {
	return distinct(results, func(r score.Result) string { return r.Policy })
}
