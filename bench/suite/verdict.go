package suite

import (
	"fmt"
	"io"

	"github.com/sluice-autoscaler/sluice/bench/contest"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/summary"
)

// WriteVerdicts writes the tables of the contest, as Markdown, for each policy that is judged.
func (c *Config) WriteVerdicts(w io.Writer, s summary.Summary) error {
	for _, p := range c.Subjects {
		for _, part := range c.parts(p) {
			rows := part.rows(s.Comparison)
			verdicts, standings := contest.Judge(rows, part.contest), contest.Standings(rows, part.contest)
			if len(verdicts) == 0 {
				continue
			}
			fmt.Fprintf(w, "## %s\n\n", part.title)
			if err := contest.StandingsTable(w, standings, part.contest); err != nil {
				return err
			}
			if err := contest.Markdown(w, verdicts, part.contest); err != nil {
				return err
			}
			fmt.Fprintln(w)
		}
	}
	return nil
}

// part is one table of a contest.
type part struct {
	title   string
	contest contest.Contest
	traces  map[string]bool
	inside  bool
}

func (p *part) rows(all []summary.Row) []summary.Row {
	var out []summary.Row
	for _, r := range all {
		if p.traces[r.Trace] == p.inside {
			out = append(out, r)
		}
	}
	return out
}

// parts are dense loads against the best classic, again for the policy with their rates as its
// forecast, and sparse ones against kpa with its defaults.
func (c *Config) parts(p plan.Policy) []part {
	sparse := map[string]bool{}
	for _, l := range c.Loads {
		if l.Sparse {
			sparse[l.Name()] = true
		}
	}
	budget := 0.01
	if len(c.Scenarios) > 0 {
		budget = c.Scenarios[0].SLO.Share
	}
	bound := ""
	if c.Bounds {
		bound = Bound
	}
	dense := func(subject string) part {
		return part{subject + " on loads that keep several pods busy", contest.Contest{Subject: subject, Rivals: c.Rivals(), Bound: bound, Budget: budget}, sparse, false}
	}
	return []part{
		dense(p.Label),
		dense(p.Label + Told),
		{p.Label + " on sparse loads, against kpa as it comes", contest.Contest{Subject: p.Label, Rivals: []string{"kpa"}, Bound: bound, Budget: budget}, sparse, true},
	}
}
