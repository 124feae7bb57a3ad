// Package runner carries out a bench: it runs jobs, keeps their records in a folder if one is asked
// for, reports progress, and presents the results.
package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"github.com/sluice-autoscaler/sluice/bench/folder"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/report"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/summary"
	"github.com/sluice-autoscaler/sluice/internal/cli"
)

// Runner carries out benches. Stdout and Stderr are required.
type Runner struct {
	// Out is the folder that records and reports are written to; empty keeps all in memory.
	// Overwrite allows one that has a bench already.
	Out       string
	Overwrite bool
	// Workers is how many runs go on at once; 0 is one per core.
	Workers int
	// Points bounds the rows of a run's series; Explain records a sentence with each change.
	Points  int
	Explain bool
	// Stdout gets tables, Stderr progress and the names of files.
	Stdout, Stderr io.Writer
}

// Places is how many runs go on at once.
func (r *Runner) Places() int {
	if r.Workers > 0 {
		return r.Workers
	}
	return runtime.GOMAXPROCS(0)
}

// Head is what a summary says before anything has run: the program, its command line and the
// scenarios.
func Head(command []string, baseline string, scenes []scenario.Scenario) (summary.Summary, error) {
	number, commit := buildInfo()
	head := summary.Summary{Sluice: number, Commit: commit, Command: command, Baseline: baseline}
	for i := range scenes {
		raw, err := json.Marshal(scenes[i])
		if err != nil {
			return head, fmt.Errorf("write scenario %s: %w", scenes[i].Name, err)
		}
		head.Scenarios = append(head.Scenarios, raw)
	}
	return head, nil
}

// buildInfo is the program's version and the commit it was built from.
func buildInfo() (number, commit string) {
	commit = "unknown"
	number = cli.Version()
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = s.Value
			}
		}
	}
	return number, commit
}

// Run runs jobs and presents them. What was done when it is interrupted is kept and presented.
func (r *Runner) Run(ctx context.Context, head summary.Summary, jobs []plan.Job) error {
	b, err := r.execute(ctx, head, jobs, r.Overwrite)
	if b == nil {
		return err
	}
	return errors.Join(err, r.Present(b.summary, b.runs, report.Options{}))
}

// Keep runs jobs and sums up. The folder, if one is asked for, is replaced and gets its reports;
// whether it may be replaced was asked before. Results are those of the jobs that were done, in
// their order.
func (r *Runner) Keep(ctx context.Context, head summary.Summary, jobs []plan.Job) (summary.Summary, error) {
	b, err := r.execute(ctx, head, jobs, true)
	if b == nil {
		return head, err
	}
	return b.summary, errors.Join(err, r.render(b.runs, report.Options{}))
}

// bench is the outcome of jobs.
type bench struct {
	summary summary.Summary
	runs    summary.Source
}

// execute runs jobs. The bench is nil when nothing can be presented; else the error says why jobs
// were not all done.
func (r *Runner) execute(ctx context.Context, head summary.Summary, jobs []plan.Job, overwrite bool) (*bench, error) {
	var writer *folder.Writer
	var err error
	if r.Out != "" {
		if writer, err = folder.Create(r.Out, head, overwrite); err != nil {
			return nil, err
		}
	}
	runs := make([]*score.Run, len(jobs))
	p := NewProgress(r.Stderr, len(jobs))
	opts := plan.Options{Workers: r.Places(), Points: r.Points, Explain: r.Explain, Share: p.Share}
	var ended atomic.Int64
	simErr := plan.Run(ctx, jobs, opts, func(i int, run score.Run) error {
		ended.Add(1)
		if writer != nil {
			return writer.Put(i, run)
		}
		if len(jobs) > 1 { // only a single run is drawn
			run = score.Run{Result: run.Result}
		}
		runs[i] = &run
		return nil
	})
	p.End(int(ended.Load()))
	if writer == nil {
		return inMemory(head, runs), simErr
	}
	var notes []string
	if simErr != nil {
		notes = append(notes, EndedEarly(simErr))
	}
	summary, err := writer.Finish(notes...)
	if err != nil {
		return nil, errors.Join(simErr, err)
	}
	written, err := folder.Open(r.Out)
	if err != nil {
		return nil, errors.Join(simErr, err)
	}
	return &bench{summary, written}, simErr
}

// inMemory sums up the runs that were done.
func inMemory(head summary.Summary, runs []*score.Run) *bench {
	var done summary.Runs
	for _, run := range runs {
		if run != nil {
			done = append(done, *run)
			head.Results = append(head.Results, run.Result)
		}
	}
	if head.Baseline == "" {
		head.Baseline = summary.DefaultBaseline(head.Results)
	}
	return &bench{summary.Summarize(head), done}
}

// EndedEarly is the note that a bench was not completed.
func EndedEarly(err error) string { return "It ended early: " + err.Error() }

// Present prints the table and a sketch of a single run, and makes the reports of a folder.
func (r *Runner) Present(s summary.Summary, runs summary.Source, o report.Options) error {
	if len(s.Results) == 0 {
		return nil
	}
	if err := report.Text(r.Stdout, s); err != nil {
		return err
	}
	if len(s.Results) == 1 {
		if run, err := runs.Run(0); err == nil {
			if err := report.Sparklines(r.Stdout, run, 100); err != nil {
				return err
			}
		}
	}
	return r.render(runs, o)
}

// render makes the reports of a folder, and names their files.
func (r *Runner) render(runs summary.Source, o report.Options) error {
	written, ok := runs.(*folder.Folder)
	if !ok {
		return nil
	}
	files, err := report.Render(written, o)
	for _, file := range files {
		fmt.Fprintln(r.Stderr, "wrote", file)
	}
	return err
}
