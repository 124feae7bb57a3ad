// Package report shows the results of a bench: tables for terminals, and the files of a folder, a
// CSV, pictures and one HTML page. All of it is derived from the summary and the raw records, and
// can be made again.
package report

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/sluice-autoscaler/sluice/bench/chart"
	"github.com/sluice-autoscaler/sluice/bench/folder"
	"github.com/sluice-autoscaler/sluice/bench/page"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/summary"
	"github.com/sluice-autoscaler/sluice/bench/text"
)

// Options choose what Render draws. The zero value is the first trace, scenario and seed, and the
// first five policies.
type Options struct {
	Page page.Options
	// Trace, Scenario and Policies choose the runs of load.png, and the first two the points of
	// pareto.png: all traces together if there are several and Trace is empty.
	Trace, Scenario string
	Policies        []string
	// Title is of the pictures; empty means the trace and the scenario.
	Title string
}

// Render makes a folder's reports anew from its summary and raw records: results.csv, report.html,
// load.png and pareto.png. It returns the paths that it wrote. Each is written whole or not at all.
func Render(f *folder.Folder, o Options) ([]string, error) {
	s := f.Summary
	var written []string
	file := func(name string, write func(io.Writer) error) error {
		path := filepath.Join(f.Dir, name)
		if err := folder.WriteFile(path, write); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		written = append(written, path)
		return nil
	}
	if err := file(folder.CSVFile, func(w io.Writer) error { return folder.CSV(w, s.Results) }); err != nil {
		return written, err
	}
	if err := file(folder.PageFile, func(w io.Writer) error { return page.HTML(w, s, f, o.Page) }); err != nil {
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
	order := summary.Policies(s.Results)
	if len(o.Policies) == 0 {
		o.Policies = Chosen(order, s.Baseline, 5)
	}
	title := o.Title
	if title == "" {
		title = text.Heading(o.Trace, o.Scenario)
	}
	runs := pick(f, o)
	if len(runs) > 0 {
		if err := file(folder.LoadFile, func(w io.Writer) error { return chart.Time(w, title, order, runs) }); err != nil {
			return written, err
		}
	}
	var rows []summary.Row
	for _, r := range s.Comparison {
		if r.Trace == o.Trace && r.Scenario == o.Scenario {
			rows = append(rows, r)
		}
	}
	if together {
		all := o.Title
		if all == "" {
			all = text.Heading("all traces", o.Scenario)
		}
		var overall []summary.Overall
		for _, v := range s.Overall {
			if v.Scenario == o.Scenario {
				overall = append(overall, v)
			}
		}
		err := file(folder.ParetoFile, func(w io.Writer) error { return chart.OverallPareto(w, all, s.Baseline, order, overall) })
		return written, err
	}
	err := file(folder.ParetoFile, func(w io.Writer) error { return chart.Pareto(w, title, order, rows) })
	return written, err
}

// pick reads the raw records of the first seed of the chosen trace and scenario that has any, one
// of each chosen policy.
func pick(f *folder.Folder, o Options) []score.Run {
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
