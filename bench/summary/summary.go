// Package summary holds the results of a bench: those of its runs, their comparison with a
// baseline, and the Pareto fronts. It is pure, and the same results give the same summary.
package summary

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/sluice-autoscaler/sluice/bench/score"
)

// Version is the version of the folder's format that this package writes, and the only one that it
// reads.
const Version = 1

// Summary is what summary.json holds: what was run, and the results. The zero value is an empty
// bench.
type Summary struct {
	// Version is the format's; Create and Decode care for it.
	Version int `json:"version"`
	// Unfinished is true while runs are still being added, and stays so if the bench was killed.
	// Open then reads the raw records.
	Unfinished bool `json:"unfinished,omitempty"`
	// Sluice and Commit say which program it was.
	Sluice string `json:"sluice"`
	Commit string `json:"commit"`
	// Command is the command line, its first word included.
	Command []string `json:"command"`
	// Baseline is the policy that ratios are to; empty means that there are none.
	Baseline string `json:"baseline,omitempty"`
	// Scenarios are the scenarios with all their values, in any form. One with a "name" and an
	// "slo" of {"wait":"500ms","share":0.01} gets lines for these in the charts.
	Scenarios []json.RawMessage `json:"scenarios"`
	// Results are in the order of the runs' numbers; Raw names the file under raw/ of each.
	Results []score.Result `json:"results"`
	Raw     []string       `json:"raw"`
	// Comparison has a row for each trace, scenario and policy; Overall one for each scenario and
	// policy if there are several traces.
	Comparison []Row     `json:"comparison"`
	Overall    []Overall `json:"overall,omitempty"`
	// Pareto has the front of pod-seconds against violations for each trace and scenario.
	Pareto []Front `json:"pareto"`
	// Notes are sentences that a reader must know: what was left out, what was thinned, what
	// failed.
	Notes []string `json:"notes"`
}

// Source gives the raw record that belongs to a summary's i-th result. A missing one is an error
// that errors.Is fs.ErrNotExist.
type Source interface {
	Run(i int) (score.Run, error)
}

// ErrNoRun is returned by a Source that has no such run.
var ErrNoRun = fmt.Errorf("no such run: %w", fs.ErrNotExist)

// Runs is a Source in memory.
type Runs []score.Run

// Run implements Source.
func (r Runs) Run(i int) (score.Run, error) {
	if i < 0 || i >= len(r) {
		return score.Run{}, fmt.Errorf("run %d of %d: %w", i, len(r), ErrNoRun)
	}
	return r[i], nil
}

// Summarize fills what follows from the results: Comparison, Overall, Pareto, Version. The baseline
// is taken from s; if no result has that policy, a note says so.
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

// DefaultBaseline is the policy that ratios are to unless another is named: kpa, with or without
// parameters, else the first policy.
func DefaultBaseline(results []score.Result) string {
	names := Policies(results)
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

// Distinct are the values of a key in the order of their first appearance.
func Distinct[T any](all []T, key func(T) string) []string {
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

// Policies are the policies of results in the order of their first appearance.
func Policies(results []score.Result) []string {
	return Distinct(results, func(r score.Result) string { return r.Policy })
}

// GroupEnd is where the rows of the trace and scenario end that begin at start.
func GroupEnd(rows []Row, start int) int {
	end := start
	for end < len(rows) && rows[end].Trace == rows[start].Trace && rows[end].Scenario == rows[start].Scenario {
		end++
	}
	return end
}

// Places are the places of names in a list.
func Places(names []string) map[string]int {
	m := make(map[string]int, len(names))
	for i, n := range names {
		m[n] = i
	}
	return m
}
