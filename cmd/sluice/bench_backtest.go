package main

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/bench/backtest"
	"github.com/sluice-autoscaler/sluice/bench/flags"
	"github.com/sluice-autoscaler/sluice/bench/folder"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/report"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

const backtestLong = `Ask what the current policy (the first --policy) and others would have done with what your workload went through, and what it would have
cost. The demand comes from a Prometheus, from a saved answer of its query_range (--saved), or from recorded observations (sluice explain --record, sluice decide's input).

--query gives one series: with --kind concurrency the mean number of requests in flight, in pods and before them; with --kind requests
the requests per second. A value stands for the --step that ends at its time, so query means over the step:
  sum(rate(sluice_request_concurrency_seconds_total{workload="web"}[30s]))
  sum(rate(http_requests_total{app="web"}[1m]))

What Prometheus does not know is not zero: gaps are reported, and filled by --gaps. History shows demand as it was served: what was
refused then is not in it, and requests that waited are in the concurrency for as long as they waited.`

func benchBacktest() *cobra.Command {
	var f backtestFlags
	c := &cobra.Command{
		Use: "backtest (--prometheus URL --query PROMQL|--saved FILE|--record FILE) --policy NAME...", Short: "Ask what policies would have done with your own history, and what it would have cost",
		Long: backtestLong, Args: usage(cobra.NoArgs),
		Example: `  sluice bench backtest --prometheus http://prometheus:9090 --range 30d --scenario service --policy kpa --policy hpa --policy lookahead \
    --query 'sum(rate(sluice_request_concurrency_seconds_total{workload="web"}[30s]))' --replicas-query 'kube_deployment_status_replicas{deployment="web"}' \
    --pod-hour-cost 0.08 --currency EUR --out out/backtest
  sluice bench backtest --record observations.jsonl --policy kpa --policy target --step 10s`,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.AddRuns(c.Flags(), 3)
	fl := c.Flags()
	f.past.Add(c.Flags())
	fl.StringVar(&f.replicas, "replicas-query", "", "the pods that really ran, as `PROMQL`, to be shown beside")
	fl.Float64Var(&f.podHour, "pod-hour-cost", 0, "price of a pod for an hour")
	fl.StringVar(&f.currency, "currency", "", "what prices are in, such as EUR")
	return c
}

type backtestFlags struct {
	flags.Bench
	past               flags.History
	replicas, currency string
	podHour            float64
}

func (f *backtestFlags) run(cmd *cobra.Command) error {
	scenes, policies, err := f.check()
	if err != nil {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	model, err := trace.ParseModel(f.Model)
	if err != nil {
		return fmt.Errorf("--arrivals: %w", err)
	}
	past, err := f.past.Read(cmd.Context(), f.replicas)
	if err != nil {
		return err
	}
	b := backtest.Backtest{
		Past: past, Policies: policies, Scenarios: scenes, Model: model, Keep: f.Keeps(), Seeds: f.Seeds, FirstSeed: f.FirstSeed,
		PodHour: f.podHour, Currency: f.currency,
	}
	jobs, err := b.Jobs()
	if err != nil {
		return err
	}
	head, err := f.Head(b.Scenarios)
	if err != nil {
		return err
	}
	head.Baseline = cmp.Or(f.Baseline, policies[0].Label)
	if f.Out != "" {
		if _, err := folder.Create(f.Out, head, f.Overwrite); err != nil {
			return err
		}
	}
	head.Notes = append(head.Notes, past.Notes()...)
	summary, simErr := f.Runner(cmd.OutOrStdout(), cmd.ErrOrStderr()).Keep(cmd.Context(), head, jobs)
	if len(summary.Results) == 0 {
		return simErr
	}
	out := cmd.OutOrStdout()
	if err := b.WriteDemand(out); err != nil {
		return err
	}
	if err := report.Text(out, summary); err != nil {
		return err
	}
	err = b.WriteCosts(out, summary)
	if f.Out != "" {
		name := filepath.Join(f.Out, "backtest.json")
		if errSave := b.Save(name, f.past.Query, f.past.Record, head.Notes); errSave != nil {
			err = errors.Join(err, errSave)
		} else {
			fmt.Fprintln(cmd.ErrOrStderr(), "wrote", name)
		}
	}
	return errors.Join(simErr, err)
}

// check reads the flags that need no history.
func (f *backtestFlags) check() ([]scenario.Scenario, []plan.Policy, error) {
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	errs = append(errs, f.past.Check())
	bad(f.podHour >= 0 && algorithms.Finite(f.podHour), "--pod-hour-cost = %v: want a price ≥ 0", f.podHour)
	bad(f.Seeds >= 1 && f.Seeds <= 10_000, "--seeds = %d: want 1–10000", f.Seeds)
	errs = append(errs, f.CheckWorkers())
	bad(len(f.Policies) > 0, "--policy is missing: want the current policy, and others after it")
	if _, err := trace.ParseModel(f.Model); err != nil {
		errs = append(errs, fmt.Errorf("--arrivals: %w", err))
	}
	var policies []plan.Policy
	for _, spec := range f.Policies {
		p, err := plan.ParsePolicy(known(), spec)
		errs = append(errs, err)
		policies = append(policies, p)
	}
	scenes, err := f.ReadScenarios()
	errs = append(errs, err)
	return scenes, policies, errors.Join(errs...)
}
