package suite

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-autoscaler/sluice/bench/folder"
	"github.com/sluice-autoscaler/sluice/bench/score"
)

// Reuse makes the runs of earlier contests known, as far as they were in the same scenarios, which
// are given as summary.json has them. Notes tell of it.
func (c *Config) Reuse(scenarios []json.RawMessage, dirs []string) (notes []string, err error) {
	type key struct {
		policy, trace, scenario string
		seed                    uint64
	}
	type place struct {
		folder *folder.Folder
		n      int
	}
	places := map[key]place{}
	for _, dir := range dirs {
		folder, err := folder.Open(dir)
		if err != nil {
			return nil, fmt.Errorf("--reuse: %w", err)
		}
		same := map[string]bool{}
		for i, mine := range scenarios {
			if slices.ContainsFunc(folder.Summary.Scenarios, func(theirs json.RawMessage) bool { return bytes.Equal(compactJSON(mine), compactJSON(theirs)) }) {
				same[c.Scenarios[i].Name] = true
			}
		}
		if len(same) == 0 {
			return nil, fmt.Errorf("--reuse = %q: none of the scenarios is in it, or they were others then: leave it out", dir)
		}
		for i, r := range folder.Summary.Results {
			if same[r.Scenario] {
				places[key{r.Policy, r.Trace, r.Scenario, r.Seed}] = place{folder, i}
			}
		}
		notes = append(notes, fmt.Sprintf("Classics and the clairvoyant in %s are, where possible, from a contest of commit %s: %s",
			strings.Join(slices.Sorted(maps.Keys(same)), " and "), folder.Summary.Commit, strings.Join(folder.Summary.Command, " ")))
		for _, note := range folder.Summary.Notes {
			if strings.Contains(note, Found) {
				notes = append(notes, note)
			}
		}
	}
	c.Known = func(policy, trace, scenario string, seed uint64) (score.Run, bool) {
		at, ok := places[key{policy, trace, scenario, seed}]
		if !ok {
			return score.Run{}, false
		}
		run, err := at.folder.Run(at.n)
		return run, err == nil // a broken record is made again
	}
	return notes, nil
}

func compactJSON(raw json.RawMessage) []byte {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return raw
	}
	return b.Bytes()
}
