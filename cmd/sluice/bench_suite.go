package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sluice-autoscaler/sluice/bench/flags"
	"github.com/sluice-autoscaler/sluice/bench/folder"
	"github.com/sluice-autoscaler/sluice/bench/report"
	"github.com/sluice-autoscaler/sluice/bench/runner"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/suite"
	"github.com/sluice-autoscaler/sluice/bench/summary"
)

const suiteLong = `The standard contest: policies, one configuration each, on every shared trace that suits and in four scenarios, against kpa, hpa
and keda as they come and tuned to each trace with hindsight, and against what one who knew the future would pay.

It writes a bench folder, and in it contest.md: trace by trace, losses first.`

func benchSuite() *cobra.Command {
	var f flags.Bench
	var dir, kind string
	var earlier []string
	var subjects []string
	var budget int
	var bounds bool
	var only []string
	c := &cobra.Command{
		Use: "suite --traces DIR --out DIR", Short: "The standard contest of policies over the shared traces", Long: suiteLong, Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" || f.Out == "" {
				return fmt.Errorf("--traces and --out are needed: %w", errUsage)
			}
			for _, dir := range earlier {
				if filepath.Clean(dir) == filepath.Clean(f.Out) {
					return fmt.Errorf("--reuse = %q: want another folder than --out: %w", dir, errUsage)
				}
			}
			if err := f.CheckWorkers(); err != nil {
				return fmt.Errorf("%w: %w", err, errUsage)
			}
			cfg, err := suite.Spec{Loads: kind, Only: only, Scenarios: f.Scenarios, Subjects: subjects}.Config(known(), os.DirFS(dir))
			if err != nil {
				return fmt.Errorf("%w: %w", err, errUsage)
			}
			cfg.Seeds, cfg.Budget, cfg.Bounds, cfg.Workers, cfg.Points = f.Seeds, budget, bounds, f.Runner(cmd.OutOrStdout(), cmd.ErrOrStderr()).Places(), f.Points
			return runSuite(cmd, &f, cfg, earlier)
		},
	}
	fl := c.Flags()
	fl.StringVar(&dir, "traces", "", "`DIR` of the shared traces")
	fl.StringVar(&kind, "loads", "all", "dense, sparse or all")
	fl.StringArrayVar(&only, "only", nil, "only the loads of this trace `FILE`; repeatable")
	fl.StringArrayVar(&subjects, "policy", []string{suite.Recommended}, "a policy that is judged, `NAME[:key=value,…]`; repeatable")
	fl.StringArrayVar(&f.Scenarios, "scenario", suite.Scenarios(), "a scenario by name or YAML `FILE`; repeatable")
	fl.IntVar(&f.Seeds, "seeds", 2, "seeds that score each policy")
	fl.IntVar(&budget, "budget", 24, "whole evaluations to tune one classic on one load; 0 leaves tuning out")
	fl.BoolVar(&bounds, "bounds", true, "work out what one who knew the future would pay, and a policy that was told the rates of the load")
	fl.StringArrayVar(&earlier, "reuse", nil, "take what classics and the clairvoyant did from the contest in this `DIR`, not made again; repeatable")
	fl.StringVar(&f.Out, "out", "", "the bench folder, `DIR`")
	fl.BoolVar(&f.Overwrite, "overwrite", false, "replace the bench that is in --out")
	fl.IntVar(&f.Workers, "workers", 0, "loads at once; 0 is one per core")
	fl.IntVar(&f.Points, "points", 300, "most rows in the series of a run")
	return c
}

// runSuite holds the contest into the folder, with what is known from earlier ones.
func runSuite(cmd *cobra.Command, f *flags.Bench, cfg suite.Config, earlier []string) error {
	f.Baseline = "kpa"
	head, err := f.Head(cfg.Scenarios)
	if err != nil {
		return err
	}
	known, err := cfg.Reuse(head.Scenarios, earlier)
	if err != nil {
		return err
	}
	writer, err := folder.Create(f.Out, head, f.Overwrite)
	if err != nil {
		return err
	}
	p := runner.NewProgress(cmd.ErrOrStderr(), len(cfg.Loads)*len(cfg.Scenarios))
	cfg.Share = p.Share
	notes, simErr := suite.Run(cmd.Context(), cfg, func(n int, run score.Run) error { return writer.Put(n, run) })
	done := len(cfg.Loads) * len(cfg.Scenarios)
	if simErr != nil {
		done = p.Done()
	}
	p.End(done)
	notes = append(known, notes...)
	if simErr != nil {
		notes = append(notes, runner.EndedEarly(simErr))
	}
	found, err := writer.Finish(notes...)
	if err != nil {
		return errors.Join(simErr, err)
	}
	written, err := folder.Open(f.Out)
	if err == nil {
		_, err = report.Render(written, report.Options{})
	}
	return errors.Join(simErr, err, writeContest(cmd.OutOrStdout(), filepath.Join(f.Out, "contest.md"), cfg, found))
}

// writeContest writes and prints the verdicts on each policy that is judged.
func writeContest(stdout io.Writer, name string, cfg suite.Config, s summary.Summary) (err error) {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return cfg.WriteVerdicts(io.MultiWriter(file, stdout), s)
}
