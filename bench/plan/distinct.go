package plan

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// Results are told apart by the names of load, scenario and policy. So names have to differ, and
// what is given twice would count twice.

// Named is a load under another name.
func Named(l Load, name string) Load {
	return func(s *scenario.Scenario) (trace.Source, error) {
		src, err := l(s)
		if err != nil {
			return nil, err
		}
		return named{src, name}, nil
	}
}

type named struct {
	trace.Source
	name string
}

// Name implements trace.Source.
func (n named) Name() string { return n.name }

// Distinct returns names that all differ: where several are alike, each gets what tells it apart,
// the end of its path or specification in from. The same thing given twice is an error that calls
// it by the flag.
func Distinct(flag string, names, from []string) ([]string, error) {
	out := slices.Clone(names)
	for i, name := range names {
		var alike []int
		for j := range names {
			if names[j] == name {
				alike = append(alike, j)
			}
		}
		if len(alike) < 2 || alike[0] != i {
			continue
		}
		for k, j := range alike {
			for _, earlier := range alike[:k] {
				if filepath.Clean(from[j]) == filepath.Clean(from[earlier]) {
					return nil, fmt.Errorf("%s %s is given twice: it would count twice; leave one out", flag, from[j])
				}
			}
			out[j] = fmt.Sprintf("%s (%s)", name, ending(from, alike, j))
		}
	}
	return out, nil
}

// ending is the shortest end of from[j], in whole elements of a path, that no other of alike has.
func ending(from []string, alike []int, j int) string {
	parts := strings.Split(filepath.ToSlash(filepath.Clean(from[j])), "/")
	for n := 1; n < len(parts); n++ {
		end := strings.Join(parts[len(parts)-n:], "/")
		if !slices.ContainsFunc(alike, func(k int) bool {
			other := filepath.ToSlash(filepath.Clean(from[k]))
			return k != j && (other == end || strings.HasSuffix(other, "/"+end))
		}) {
			return end
		}
	}
	return from[j]
}
