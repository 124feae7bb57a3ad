// Package contest judges one policy against rivals, trace by trace, from the comparison of a bench.
package contest

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/sluice-autoscaler/sluice/bench/summary"
	"github.com/sluice-autoscaler/sluice/bench/text"
)

// Contest sets one policy against others, trace by trace.
type Contest struct {
	// Subject is the policy that is judged.
	Subject string
	// Rivals are the policies of which the best is taken for each trace and scenario: the cheapest
	// in pod-seconds of those whose share of violations is within the budget, or if none is, the
	// one with the fewest violations.
	Rivals []string
	// Bound is the policy that knows the future; empty if there is none.
	Bound string
	// Budget is the share of requests that may violate the SLO, within 0–1.
	Budget float64
}

// Verdict is how the subject did on one trace in one scenario.
type Verdict struct {
	Trace    string
	Scenario string
	// Rival is the best rival's name; Ours, Theirs and Bound are rows of the comparison. Bound has
	// no policy if there is none.
	Rival               string
	Ours, Theirs, Bound summary.Row
	// Ratio is our pod-seconds to the rival's, ToBound to the bound's (NaN if it is unknown).
	Ratio, ToBound float64
	// Fewer says that our share of violations is no higher than the rival's or within the budget.
	Fewer bool
	// Lost says that the rival wins: it costs less, or has fewer violations while ours are above
	// the budget.
	Lost bool
}

// Judge holds the contest on the rows of a comparison. Traces where the subject or all rivals are
// missing are left out. Losses come first, the worst of them first, and then wins from the
// narrowest on.
func Judge(rows []summary.Row, c Contest) []Verdict {
	var out []Verdict
	for start := 0; start < len(rows); {
		end := summary.GroupEnd(rows, start)
		if v, ok := judge(rows[start:end], c); ok {
			out = append(out, v)
		}
		start = end
	}
	slices.SortStableFunc(out, func(a, b Verdict) int {
		switch {
		case a.Lost != b.Lost:
			if a.Lost {
				return -1
			}
			return 1
		case a.Fewer != b.Fewer:
			if !a.Fewer {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.Ratio, a.Ratio)
	})
	return out
}

func judge(group []summary.Row, c Contest) (Verdict, bool) {
	v := Verdict{Trace: group[0].Trace, Scenario: group[0].Scenario, ToBound: math.NaN()}
	cost := func(r summary.Row) float64 { return r.Mean["podSeconds"].Mean }
	loss := func(r summary.Row) float64 { return r.Mean["sloViolations"].Mean }
	found, rival := false, false
	for _, r := range group {
		switch {
		case r.Policy == c.Subject:
			v.Ours, found = r, true
		case c.Bound != "" && r.Policy == c.Bound:
			v.Bound = r
		case slices.Contains(c.Rivals, r.Policy):
			in, best := loss(r) <= c.Budget, loss(v.Theirs) <= c.Budget
			if !rival || (in && !best) || (in && best && cost(r) < cost(v.Theirs)) || (!in && !best && loss(r) < loss(v.Theirs)) {
				v.Theirs, rival = r, true
			}
		}
	}
	if !found || !rival {
		return v, false
	}
	v.Rival = v.Theirs.Policy
	v.Ratio = quotient(cost(v.Ours), cost(v.Theirs))
	if v.Bound.Policy != "" {
		v.ToBound = quotient(cost(v.Ours), cost(v.Bound))
	}
	v.Fewer = loss(v.Ours) <= max(loss(v.Theirs), c.Budget)
	v.Lost = v.Ratio > 1 || !v.Fewer
	return v, true
}

// quotient is a/b; two zeros are as good as each other.
func quotient(a, b float64) float64 {
	if a == 0 && b == 0 {
		return 1
	}
	return a / b
}

// Markdown writes the verdicts as a table with a summary above it: how many were won, and the
// geometric means of the ratios.
func Markdown(w io.Writer, verdicts []Verdict, c Contest) error {
	if len(verdicts) == 0 {
		_, err := fmt.Fprintln(w, "No trace was run with both the policy and a rival.")
		return err
	}
	losses, over := 0, 0
	var ratios, bounds []float64
	for _, v := range verdicts {
		if v.Lost {
			losses++
		}
		if !v.Fewer {
			over++
		}
		ratios = append(ratios, v.Ratio)
		bounds = append(bounds, v.ToBound)
	}
	fmt.Fprintf(w, "**%s** against the best of %s on each trace, at a budget of %s violations: %d won, **%d lost**, %d of these by violations. Pod-seconds, geometric mean: **%s** × the best rival",
		escapeMarkdown(c.Subject), escapeMarkdown(strings.Join(c.Rivals, ", ")), text.Percent(c.Budget), len(verdicts)-losses, losses, over, mean(ratios))
	if c.Bound != "" {
		fmt.Fprintf(w, ", **%s** × %s", mean(bounds), escapeMarkdown(c.Bound))
	}
	fmt.Fprint(w, ".\n\n|  | trace | scenario | pod-seconds | best rival | its pod-seconds | ratio | × bound | violations | its violations | cold starts | its cold starts |\n|---|---|---|--:|---|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, v := range verdicts {
		outcome := "won"
		if v.Lost {
			outcome = "**lost**"
		}
		value := func(r summary.Row, name string) string {
			for _, m := range summary.Metrics() {
				if m.Name == name {
					return m.Cell(r, math.NaN())
				}
			}
			return ""
		}
		ours := value(v.Ours, "sloViolations")
		if !v.Fewer {
			ours = "**" + ours + "**"
		}
		if _, err := fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", outcome, escapeMarkdown(v.Trace), escapeMarkdown(v.Scenario),
			value(v.Ours, "podSeconds"), escapeMarkdown(v.Rival), value(v.Theirs, "podSeconds"), two(v.Ratio), two(v.ToBound),
			ours, value(v.Theirs, "sloViolations"), value(v.Ours, "coldStarts"), value(v.Theirs, "coldStarts")); err != nil {
			return err
		}
	}
	return nil
}

// mean is the geometric mean of the positive ratios; it says how many there were if not all are.
func mean(ratios []float64) string {
	var g geometricMean
	for _, r := range ratios {
		g.add(r)
	}
	if g.n == 0 || g.n == len(ratios) {
		return two(g.value())
	}
	return fmt.Sprintf("%s (of %d of %d)", two(g.value()), g.n, len(ratios))
}

func two(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "–"
	}
	return fmt.Sprintf("%.2f", v)
}

// escapeMarkdown keeps a name in its cell, and from being read as markup.
func escapeMarkdown(s string) string {
	return strings.NewReplacer("\\", "\\\\", "|", "\\|", "*", "\\*", "_", "\\_", "`", "\\`", "<", "&lt;", ">", "&gt;", "&", "&amp;", "[", "\\[").Replace(text.Plain(s))
}
