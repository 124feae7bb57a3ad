package contest

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/sluice-autoscaler/sluice/bench/summary"
)

// Standing is how a contest stands in one scenario. Ratios are geometric means over the traces, of
// pod-seconds unless said otherwise; NaN where there is nothing to compare with.
type Standing struct {
	// Scenario is its name, "all" for all of them.
	Scenario string
	// Traces is how many were judged; of these Lost were lost, Over of them by violations.
	Traces, Lost, Over int
	// Ratio is to the best rival, First to the first of the rivals, ToBound to the bound,
	// RivalToBound the best rival's to the bound.
	Ratio, First, ToBound, RivalToBound float64
	// Kept is on how many traces the violations are within the budget, KeptRatio and KeptToBound
	// the ratios on those; RivalsKept is Kept of each rival, in their order.
	Kept                   int
	KeptRatio, KeptToBound float64
	RivalsKept             []int
	// ColdStarts is the sum of cold starts as a share of that of the first rival.
	ColdStarts float64
}

// Standings sums up the contest on the rows of a comparison by scenario, in their order, and where
// there are several over all of them.
func Standings(rows []summary.Row, c Contest) []Standing {
	var out []Standing
	var order []string
	groups := map[string][][]summary.Row{}
	for start := 0; start < len(rows); {
		end := summary.GroupEnd(rows, start)
		name := rows[start].Scenario
		if _, known := groups[name]; !known {
			order = append(order, name)
		}
		groups[name] = append(groups[name], rows[start:end])
		start = end
	}
	var all [][]summary.Row
	add := func(name string, groups [][]summary.Row) {
		if s := stand(groups, c); s.Traces > 0 {
			s.Scenario = name
			out = append(out, s)
		}
	}
	for _, name := range order {
		add(name, groups[name])
		all = append(all, groups[name]...)
	}
	if len(out) > 1 {
		add("all", all)
	}
	return out
}

func stand(groups [][]summary.Row, c Contest) Standing {
	s := Standing{RivalsKept: make([]int, len(c.Rivals))}
	var ratio, first, bound, theirs, keptRatio, keptBound geometricMean
	var ours, firsts float64
	for _, group := range groups {
		v, ok := judge(group, c)
		if !ok {
			continue
		}
		s.Traces++
		if v.Lost {
			s.Lost++
		}
		if !v.Fewer {
			s.Over++
		}
		kept := v.Ours.Mean["sloViolations"].Mean <= c.Budget
		ratio.add(v.Ratio)
		bound.add(v.ToBound)
		theirs.add(v.ToBound / v.Ratio)
		if kept {
			s.Kept++
			keptRatio.add(v.Ratio)
			keptBound.add(v.ToBound)
		}
		for _, r := range group {
			i := slices.Index(c.Rivals, r.Policy)
			if i < 0 {
				continue
			}
			if r.Mean["sloViolations"].Mean <= c.Budget {
				s.RivalsKept[i]++
			}
			if i == 0 {
				first.add(quotient(v.Ours.Mean["podSeconds"].Mean, r.Mean["podSeconds"].Mean))
				ours += v.Ours.Mean["coldStarts"].Mean
				firsts += r.Mean["coldStarts"].Mean
			}
		}
	}
	s.Ratio, s.First, s.ToBound, s.RivalToBound = ratio.value(), first.value(), bound.value(), theirs.value()
	s.KeptRatio, s.KeptToBound, s.ColdStarts = keptRatio.value(), keptBound.value(), quotient(ours, firsts)
	return s
}

// geometricMean is the geometric mean of what is positive and finite.
type geometricMean struct {
	logs float64
	n    int
}

func (m *geometricMean) add(v float64) {
	if v > 0 && !math.IsInf(v, 0) {
		m.logs += math.Log(v)
		m.n++
	}
}

// value is NaN of nothing.
func (m *geometricMean) value() float64 { return math.Exp(m.logs / float64(m.n)) }

// StandingsTable writes the sums as a table in Markdown.
func StandingsTable(w io.Writer, standings []Standing, c Contest) error {
	if len(standings) == 0 {
		return nil
	}
	first := escapeMarkdown(c.Rivals[0])
	fmt.Fprintf(w, "| scenario | won | lost (by violations) | × best rival | × %s | × bound | best rival × bound | budget kept: %s; %s | where it kept it: × best rival, × bound | cold starts × %s's |\n",
		first, escapeMarkdown(c.Subject), escapeMarkdown(strings.Join(c.Rivals, ", ")), first)
	fmt.Fprint(w, "|---|--:|--:|--:|--:|--:|--:|---|--:|--:|\n")
	for _, s := range standings {
		rivals := make([]string, len(s.RivalsKept))
		for i, n := range s.RivalsKept {
			rivals[i] = fmt.Sprint(n)
		}
		if _, err := fmt.Fprintf(w, "| %s | %d | %d (%d) | %s | %s | %s | %s | %d of %d; %s | %s, %s | %s |\n", escapeMarkdown(s.Scenario), s.Traces-s.Lost, s.Lost, s.Over,
			two(s.Ratio), two(s.First), two(s.ToBound), two(s.RivalToBound), s.Kept, s.Traces, strings.Join(rivals, ", "), two(s.KeptRatio), two(s.KeptToBound), two(s.ColdStarts)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w)
	return err
}
