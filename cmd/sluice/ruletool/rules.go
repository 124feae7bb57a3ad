// Package ruletool has the commands that work with prometheus-adapter's rules: sluice rules and
// sluice check.
package ruletool

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-autoscaler/sluice/adapter/rules/config"
	"github.com/sluice-autoscaler/sluice/adapter/rules/ruletest"
	"github.com/sluice-autoscaler/sluice/internal/cli"
)

const rulesLong = `Work with prometheus-adapter's rules, without a cluster.

A FILE is a config.yaml, the values of the Helm chart (rules.default, custom, external, resource), or a ConfigMap with either.`

// Rules is the command that works with rules.
func Rules() *cobra.Command {
	c := &cobra.Command{
		Use: "rules", Short: "Test, render and convert prometheus-adapter's rules", Long: rulesLong,
		RunE: func(*cobra.Command, []string) error { return fmt.Errorf("no rules command given: %w", cli.ErrUsage) },
	}
	c.AddCommand(rulesTest(), rulesRender(), rulesConvert())
	return c
}

const rulesTestLong = `Test rules as promtool tests Prometheus' rules: no cluster and no Prometheus is needed.

A FILE has cases: a config, the series that Prometheus has, requests with Prometheus' answers, and what is expected of each. What comes out
differently is printed as a diff, - for what is expected and + for what came out, and the exit status is 1. --differences names a file with
answers that take the place of those expected, each with a reason: so a file that prometheus-adapter's own answers were recorded in can be
used as it is.

-o json prints what came out of each case: id, startup, relistError, ruleErrors, customMetrics and externalMetrics, and for each request promql,
status, error, cause and values; with differences, where there are some. docs/rules.md has the format.`

// testFlags are those of rules test.
type testFlags struct{ output, differences string }

func rulesTest() *cobra.Command {
	var f testFlags
	c := &cobra.Command{
		Use: "test FILE…", Short: "Run test cases of rules", Long: rulesTestLong, Args: usage(cobra.MinimumNArgs(1)),
		Example: `  sluice rules test cases.yaml
  sluice rules test -o json --differences differences.yaml cases.yaml`,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	c.Flags().StringVarP(&f.output, "output", "o", "", "json prints what came out of each case")
	c.Flags().StringVar(&f.differences, "differences", "", "a `FILE` of answers that take the place of those expected")
	return c
}

// errDifferent says that something came out differently.
var errDifferent = errors.New("not as expected")

func (f *testFlags) run(cmd *cobra.Command, args []string) error {
	if f.output != "" && f.output != "json" {
		return fmt.Errorf("--output = %q: want json: %w", f.output, cli.ErrUsage)
	}
	var cases []ruletest.Case
	for _, name := range args {
		text, err := readFile(name, cmd.InOrStdin(), ruletest.MaxBytes)
		if err != nil {
			return err
		}
		file, unknown, err := ruletest.Read(text)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, u := range unknown {
			fmt.Fprintf(cmd.ErrOrStderr(), "sluice: %s: %s is not known, and not read\n", name, u)
		}
		cases = append(cases, file.Cases...)
	}
	if f.differences != "" {
		text, err := readFile(f.differences, cmd.InOrStdin(), ruletest.MaxBytes)
		if err != nil {
			return err
		}
		d, err := ruletest.ReadDifferences(text)
		if err == nil {
			err = d.Apply(cases)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.differences, err)
		}
	}
	return f.print(cmd, cases)
}

// print runs the cases and prints what came out.
func (f *testFlags) print(cmd *cobra.Command, cases []ruletest.Case) error {
	stdout := cmd.OutOrStdout()
	sum := ruletest.Summary{Cases: len(cases)}
	outcomes := make([]*ruletest.Outcome, 0, len(cases))
	for i := range cases {
		c := &cases[i]
		out, err := ruletest.Run(c)
		if err != nil {
			return fmt.Errorf("case %s: %w", c.ID, err)
		}
		ruletest.Compare(c, out)
		outcomes = append(outcomes, out)
		sum.Requests += len(c.Requests)
		switch {
		case out.Unsupported != "":
			sum.Unsupported++
			if f.output == "" {
				fmt.Fprintf(stdout, "%s: not run: %s\n", out.ID, out.Unsupported)
			}
		case len(out.Differences) > 0:
			sum.Different++
			if f.output == "" {
				fmt.Fprintf(stdout, "%s:\n%s", out.ID, ruletest.Diff(out, c))
			}
		}
	}
	if f.output == "" {
		fmt.Fprintln(stdout, sum)
	} else if err := writeJSON(stdout, map[string]any{"cases": outcomes}); err != nil {
		return err
	}
	if sum.Different > 0 {
		return fmt.Errorf("%d of %d cases are %w", sum.Different, sum.Cases, errDifferent)
	}
	return nil
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// readFile reads a file, - for the standard input, up to so many bytes.
func readFile(name string, stdin io.Reader, limit int64) ([]byte, error) {
	from := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }() // it was only read
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return text, nil
}

// readRules reads a file of rules; its errors say where the fault is and what to do.
func readRules(cmd *cobra.Command, name string) (*config.MetricsDiscoveryConfig, error) {
	text, err := readFile(name, cmd.InOrStdin(), config.MaxBytes)
	if err != nil {
		return nil, err
	}
	c, err := config.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", name, strings.Join(config.Explain(err), "\n"))
	}
	return c, nil
}

func rulesConvert() *cobra.Command {
	f := config.Flags{RateInterval: 5 * time.Minute}
	c := &cobra.Command{
		Use: "convert [FILE]", Short: "Write a config.yaml from a chart's values, or from the flags of version 0.2", Args: usage(cobra.MaximumNArgs(1)),
		Example: `  sluice rules convert values.yaml > config.yaml
  sluice rules convert --rate-interval 1m --label-prefix kube_ > config.yaml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var c *config.MetricsDiscoveryConfig
			if len(args) == 1 {
				for _, flag := range []string{"rate-interval", "label-prefix"} {
					if cmd.Flags().Changed(flag) {
						return fmt.Errorf("--%s with a FILE: want one of them: %w", flag, cli.ErrUsage)
					}
				}
				var err error
				if c, err = readRules(cmd, args[0]); err != nil {
					return err
				}
			} else {
				if err := f.Validate(); err != nil {
					return fmt.Errorf("%w: %w", err, cli.ErrUsage)
				}
				c = f.Rules()
			}
			text, err := config.Write(c)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	c.Flags().DurationVar(&f.RateInterval, "rate-interval", f.RateInterval, "the range of rates, as version 0.2 took it")
	c.Flags().StringVar(&f.LabelPrefix, "label-prefix", "", "what comes before labels that name objects, as version 0.2 took it")
	return c
}

// usage marks an argument check's faults as wrong use.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return fmt.Errorf("%w: %w", err, cli.ErrUsage)
		}
		return nil
	}
}
