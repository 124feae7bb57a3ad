package report

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/sluice-autoscaler/sluice/bench/score"
)

// RenderOptions choose what Render draws. The zero value is the first trace, scenario and seed, and the first five policies.
type RenderOptions struct {
	Page PageOptions
	// Trace, Scenario and Policies choose the runs of load.png, and the first two the points of pareto.png: all traces together if
	// there are several and Trace is empty.
	Trace, Scenario string
	Policies        []string
	// Title is of the pictures; empty means the trace and the scenario.
	Title string
}

// Render makes the folder's reports anew from its summary and raw records: results.csv, report.html, load.png and pareto.png. It
// returns the paths that it wrote. Each is written whole or not at all.
func (f *Folder) Render(o RenderOptions) ([]string, error) {
	s := f.Summary
	var written []string
	file := func(name string, write func(io.Writer) error) error {
		path := filepath.Join(f.Dir, name)
		if err := writeFile(path, write); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		written = append(written, path)
		return nil
	}
	if err := file(csvFile, func(w io.Writer) error { return CSV(w, s.Results) }); err != nil {
		return written, err
	}
	if err := file(pageFile, func(w io.Writer) error { return HTML(w, s, f, o.Page) }); err != nil {
		return written, err
	}
	if len(s.Results) == 0 {
		return written, nil
	}
	together := o.Trace == "" && len(s.Overall) > 0 && s.Baseline != ""
	if o.Trace == "" {
		o.Trace = s.Results[0].Trace
	}
	if o.Scenario == "" {
		o.Scenario = s.Results[0].Scenario
	}
	order := policies(s.Results)
	if len(o.Policies) == 0 {
		o.Policies = Chosen(order, s.Baseline, 5)
	}
	title := o.Title
	if title == "" {
		title = heading(o.Trace, o.Scenario)
	}
	runs := f.pick(o)
	if len(runs) > 0 {
		if err := file(loadFile, func(w io.Writer) error { return TimeChart(w, title, order, runs) }); err != nil {
			return written, err
		}
	}
	var rows []Row
	for _, r := range s.Comparison {
		if r.Trace == o.Trace && r.Scenario == o.Scenario {
			rows = append(rows, r)
		}
	}
	if together {
		all := o.Title
		if all == "" {
			all = heading("all traces", o.Scenario)
		}
		var overall []Overall
		for _, v := range s.Overall {
			if v.Scenario == o.Scenario {
				overall = append(overall, v)
			}
		}
		err := file(paretoFile, func(w io.Writer) error { return OverallParetoChart(w, all, s.Baseline, order, overall) })
		return written, err
	}
	err := file(paretoFile, func(w io.Writer) error { return ParetoChart(w, title, order, rows) })
	return written, err
}

// pick reads the raw records of the first seed of the chosen trace and scenario that has any, one of each chosen policy.
func (f *Folder) pick(o RenderOptions) []score.Run {
	var out []score.Run
	for _, name := range o.Policies {
		for i, r := range f.Summary.Results {
			if r.Policy != name || r.Trace != o.Trace || r.Scenario != o.Scenario || (len(out) > 0 && r.Seed != out[0].Result.Seed) {
				continue
			}
			if run, err := f.Run(i); err == nil && len(run.Series.Arrivals) > 0 {
				out = append(out, run)
				break
			}
		}
	}
	return out
}

// Chosen are the first n policies, the baseline before the others if it is among them.
func Chosen(order []string, baseline string, n int) []string {
	var out []string
	if slices.Contains(order, baseline) {
		out = append(out, baseline)
	}
	for _, p := range order {
		if len(out) < n && p != baseline {
			out = append(out, p)
		}
	}
	return out
}
