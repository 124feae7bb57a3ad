package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sluice-autoscaler/sluice/bench/flags"
	"github.com/sluice-autoscaler/sluice/bench/folder"
	"github.com/sluice-autoscaler/sluice/bench/report"
	"github.com/sluice-autoscaler/sluice/bench/runner"
)

const benchLong = `Simulate policies on recorded or generated load, before they touch production.

Loads are traces (values over time), request logs or generators; files may have any format that "import" lists. A scenario says how long
requests and starts take, how many requests a pod takes and what is promised; flags override it. The policies and their guard
are the very code that runs in the cluster ("sluice policies" lists them).`

func bench() *cobra.Command {
	c := &cobra.Command{
		Use: "bench", Short: "Simulate policies on recorded or generated load", Long: benchLong,
		RunE: func(*cobra.Command, []string) error { return fmt.Errorf("no bench command given: %w", errUsage) },
	}
	c.AddCommand(benchRun(), benchCompare(), benchSuite(), benchTune(), benchBacktest(), benchReplay(), benchReport(), benchImport())
	return c
}

func benchRun() *cobra.Command {
	var f simulation
	c := &cobra.Command{
		Use: "run --policy NAME… (--trace FILE|--generate SPEC|--log FILE)…", Short: "Simulate, and print what came out", Args: usage(cobra.NoArgs),
		Example: `  sluice bench run --generate poisson:rate=8,duration=1000000s --policy fixed:replicas=10 --service exp:1s --pod-concurrency 1 --startup const:0s
  sluice bench run --trace requests.csv --policy kpa --policy hpa --scenario service --seeds 5 --out out/mine`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd)
		},
	}
	f.Add(c.Flags(), 1)
	return c
}

func benchCompare() *cobra.Command {
	var f simulation
	c := &cobra.Command{
		Use: "compare --policy NAME… (--trace FILE|--generate SPEC|--log FILE)…", Short: "Compare policies × loads × scenarios, with intervals over paired seeds", Args: usage(cobra.NoArgs),
		Example: `  sluice bench compare --trace requests.csv --scenario small --scenario heavy --policy kpa --policy hpa --policy keda --out out/compare`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd)
		},
	}
	f.Add(c.Flags(), 5)
	return c
}

func benchReport() *cobra.Command {
	var o report.Options
	c := &cobra.Command{
		Use: "report DIR", Short: "Make the report of a bench folder again, from its raw records", Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			opened, err := folder.Open(args[0])
			if err != nil {
				return err
			}
			r := runner.Runner{Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr()}
			return r.Present(opened.Summary, opened, o)
		},
	}
	c.Flags().IntVar(&o.Page.MaxRuns, "runs", 0, "most runs whose series the page holds; 0 is 160")
	c.Flags().StringVar(&o.Trace, "picture-trace", "", "the load that load.png and pareto.png show (default: the first)")
	c.Flags().StringVar(&o.Scenario, "picture-scenario", "", "the scenario that they show (default: the first)")
	c.Flags().StringArrayVar(&o.Policies, "picture-policy", nil, "a policy that load.png shows; repeatable (default: the first five)")
	return c
}

// simulation is the flags of run and compare.
type simulation struct{ flags.Bench }

// run runs all jobs, writes the folder if one is asked for, and prints the table.
func (f *simulation) run(cmd *cobra.Command) error {
	f.Stdin, f.Stderr = cmd.InOrStdin(), cmd.ErrOrStderr()
	jobs, scenes, err := f.Jobs(known())
	if err != nil {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	head, err := f.Head(scenes)
	if err != nil {
		return err
	}
	return f.Runner(cmd.OutOrStdout(), cmd.ErrOrStderr()).Run(cmd.Context(), head, jobs)
}
