package main

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-autoscaler/sluice/bench/flags"
	"github.com/sluice-autoscaler/sluice/bench/folder"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/runner"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/space"
	"github.com/sluice-autoscaler/sluice/bench/trace"
	"github.com/sluice-autoscaler/sluice/bench/tune"
)

const tuneLong = `Search a policy's parameters: the least of an objective while limits hold, on the first part of a load's time. The rest is held back:
what is found is scored on it once, beside the parameters as they were given, since a setting that fits the past is not yet one that
fits the future. Policies meet the held-back part with the memory of the first, which does not count there.

A range is NAME=LOW..HIGH (numbers, durations, or 30%..95% of what a pod takes at a time), with :log for an even spacing in the
logarithm and :whole for whole numbers, or NAME=A|B|C. Dots lead into objects, guard.NAME is a parameter of the guard, and tick is
the time between decisions. Without --search each well-known policy has ranges of its own.`

func benchTune() *cobra.Command {
	f := tuneFlags{}
	c := &cobra.Command{
		Use: "tune --policy NAME [--search RANGE]... (--trace FILE|--generate SPEC|--log FILE|--prometheus URL --query PROMQL)...", Short: "Search a policy's parameters on one part of a load, and judge them on the rest",
		Long: tuneLong, Args: usage(cobra.NoArgs),
		Example: `  sluice bench tune --policy kpa --trace requests.csv --scenario small --out out/tune
  sluice bench tune --policy kpa --search 'target=30%..95%' --search 'stableWindow=6s..10m:log' --search 'panicThresholdPercentage=110|200|400' --trace requests.csv
  sluice bench tune --policy hpa --generate diurnal:mean=50,duration=2d --objective cost --limit sloViolations=0.005 --limit waitP99=1`,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.Add(c.Flags(), 3)
	fl := c.Flags()
	fl.StringArrayVar(&f.search, "search", nil, "a parameter and its `RANGE`; repeatable")
	fl.StringVar(&f.objective, "objective", "podSeconds", "what is to be least: "+metricNames())
	fl.StringArrayVar(&f.limits, "limit", nil, "what must hold, `METRIC=NUMBER`; repeatable (default: sloViolations at the scenario's share)")
	fl.Float64Var(&f.train, "train", 0.5, "share of the time that is searched on; 1 holds nothing back")
	fl.IntVar(&f.budget, "budget", 60, "work to do, in runs of one setting on the whole first part with all seeds")
	f.past.Add(c.Flags())
	fl.Uint64Var(&f.searchSeed, "search-seed", 1, "seed of the search itself")
	for _, name := range []string{"baseline", "explain"} {
		fl.Lookup(name).Hidden = true
	}
	return c
}

func metricNames() string {
	var names []string
	for _, m := range tune.Metrics() {
		names = append(names, m.Name)
	}
	return strings.Join(names, ", ")
}

type tuneFlags struct {
	flags.Bench
	past           flags.History
	search, limits []string
	objective      string
	train          float64
	budget         int
	searchSeed     uint64
}

// tuning is a search that is ready to run, and the scenarios that it is run in.
type tuning struct {
	tune.Tuning
	scenes []scenario.Scenario
}

func (f *tuneFlags) run(cmd *cobra.Command) error {
	t, loads, err := f.prepare(cmd)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	work, err := f.work(cmd, t, loads)
	if err != nil {
		return err
	}
	if err := f.place(t, work); err != nil {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	head, err := f.Head(t.scenes)
	if err != nil {
		return err
	}
	if f.Out != "" { // before hours of searching
		if _, err := folder.Create(f.Out, head, f.Overwrite); err != nil {
			return err
		}
	}
	progress := runner.NewSearchProgress(cmd.ErrOrStderr())
	t.Config.Progress = func(spent float64, best *tune.Trial) {
		progress.Tell(func() string { return t.Describe(spent, best) })
	}
	var searchErr error
	if t.Found, searchErr = tune.Search(cmd.Context(), t.Config); t.Found.Best.Results == nil {
		return cmp.Or(searchErr, errors.New("no setting could be scored"))
	}
	if searchErr != nil {
		searchErr = fmt.Errorf("the search ended early: %w", searchErr)
	}
	err = errors.Join(t.Judge(cmd.Context(), head, f.Out != "", f.Runner(cmd.OutOrStdout(), cmd.ErrOrStderr()).Keep), t.Write(cmd.OutOrStdout()))
	if f.Out != "" {
		name := filepath.Join(f.Out, "tune.json")
		if errWrite := t.Save(name, head); errWrite != nil {
			err = errors.Join(err, errWrite)
		} else {
			fmt.Fprintln(cmd.ErrOrStderr(), "wrote", name)
		}
	}
	return errors.Join(searchErr, err)
}

// prepare reads the flags.
func (f *tuneFlags) prepare(cmd *cobra.Command) (*tuning, []plan.Load, error) {
	t := &tuning{Tuning: tune.Tuning{Train: f.train}}
	var errs []error
	if len(f.Policies) != 1 {
		errs = append(errs, fmt.Errorf("--policy is given %d times: want the one policy to tune", len(f.Policies)))
	} else {
		var err error
		t.Policy, err = plan.ParsePolicy(known(), f.Policies[0])
		errs = append(errs, err)
	}
	var err error
	if t.scenes, err = f.ReadScenarios(); err != nil {
		errs = append(errs, err)
	}
	for i := range t.scenes {
		if t.scenes[i].PodConcurrency != t.scenes[0].PodConcurrency || t.scenes[i].PerPod() != t.scenes[0].PerPod() {
			errs = append(errs, fmt.Errorf("scenarios %s and %s differ in podConcurrency or target: tune for each by itself", t.scenes[0].Name, t.scenes[i].Name))
		}
	}
	var loads []plan.Load
	f.Stdin, f.Stderr = cmd.InOrStdin(), cmd.ErrOrStderr()
	errs = append(errs, f.CheckWorkers())
	if f.past.Given() {
		errs = append(errs, f.past.Check())
		if len(f.Traces)+len(f.Generators)+len(f.Logs) > 0 {
			errs = append(errs, errors.New("a history and --trace, --generate or --log are given: want one of them"))
		}
	} else if loads, err = f.ReadLoads(); err != nil {
		errs = append(errs, err)
	}
	t.Config = tune.Config{Budget: f.budget, Seed: f.searchSeed, Workers: f.Runner(cmd.OutOrStdout(), cmd.ErrOrStderr()).Places()}
	if f.budget < 1 || f.budget > tune.MaxBudget {
		errs = append(errs, fmt.Errorf("--budget = %d: want 1–%d runs", f.budget, tune.MaxBudget))
	}
	if t.Config.Objective, err = tune.FindMetric(f.objective); err != nil {
		errs = append(errs, fmt.Errorf("--objective: %w", err))
	}
	for _, spec := range f.limits {
		l, err := tune.ParseLimit(spec)
		if err != nil {
			errs = append(errs, fmt.Errorf("--limit: %w", err))
		}
		t.Config.Limits = append(t.Config.Limits, l)
	}
	if len(f.limits) == 0 && len(t.scenes) > 0 {
		l, err := tune.FindMetric("sloViolations")
		errs = append(errs, err)
		least := t.scenes[0].SLO.Share // the strictest, since limits hold for each scenario
		for i := range t.scenes {
			least = min(least, t.scenes[i].SLO.Share)
		}
		t.Config.Limits = []tune.Limit{{Metric: l, Most: least}}
	}
	return t, loads, errors.Join(errs...)
}

// place makes the bench and the space to search.
func (f *tuneFlags) place(t *tuning, work []tune.Work) (err error) {
	if t.Bench, err = tune.NewBench(work, f.train, f.FirstSeed, f.Seeds); err != nil {
		return err
	}
	t.Config.Evaluate, t.Config.LeastShare = t.Bench.Evaluate, t.Bench.LeastShare()
	t.Config.Space, err = space.New(t.Policy, &t.scenes[0], f.search)
	return err
}

// work is what settings are tried on: the history, or each load in each scenario.
func (f *tuneFlags) work(cmd *cobra.Command, t *tuning, loads []plan.Load) ([]tune.Work, error) {
	var work []tune.Work
	if f.past.Given() {
		model, err := trace.ParseModel(f.Model)
		if err != nil {
			return nil, fmt.Errorf("--arrivals: %w", err)
		}
		past, err := f.past.Read(cmd.Context(), "")
		if err != nil {
			return nil, err
		}
		for i := range t.scenes {
			run, err := past.In(t.scenes[i], model, f.Keeps())
			if err != nil {
				return nil, err
			}
			work = append(work, tune.Work{Source: run.Source, Scenario: run.Scenario, Start: past.Demand.Start, History: run.Before})
		}
		t.Notes = past.Notes()
		return work, nil
	}
	for i := range t.scenes {
		for _, l := range loads {
			src, err := l(&t.scenes[i])
			if err != nil {
				return nil, fmt.Errorf("scenario %s: %w", t.scenes[i].Name, err)
			}
			work = append(work, tune.Work{Source: src, Scenario: t.scenes[i]})
		}
	}
	return work, nil
}
