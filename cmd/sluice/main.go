// Command sluice is the user's tool: it explains decisions, lists policies, tries them on
// observations and simulates them on load.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/cmd/sluice/ruletool"
	"github.com/sluice-autoscaler/sluice/internal/cli"
)

func main() { cli.Main("sluice", run) }

// errUsage marks faults of the command line.
var errUsage = cli.ErrUsage

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return execute(ctx, args, os.Stdin, stdout, stderr)
}

// execute is run with a standard input.
func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	root := command() //nolint:contextcheck // ExecuteContext gives commands the context
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use: "sluice", Short: "Explain what Sluice decides, list its policies, try and simulate them",
		SilenceUsage: true, SilenceErrors: true, Version: cli.Version(),
		RunE: func(*cobra.Command, []string) error { return fmt.Errorf("no command given: %w", errUsage) },
	}
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.Flags().Bool("version", false, "print the version and exit")
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", err, errUsage) })
	root.AddCommand(bench(), ruletool.Check(), decide(), explainer(), policies(), ruletool.Rules())
	return root
}

func policies() *cobra.Command {
	return &cobra.Command{
		Use: "policies [NAME]", Short: "List the policies, or one with its parameters",
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
			if len(args) == 0 {
				fmt.Fprintln(w, "NAME\tSUMMARY\tSOURCE")
				for _, e := range append(known().All(), catalog.Guard()) {
					fmt.Fprintf(w, "%s\t%s\t%s\n", e.Name, e.Summary, e.Source)
				}
				return w.Flush()
			}
			e := catalog.Guard()
			if args[0] != e.Name {
				var err error
				if e, err = known().Find(args[0]); err != nil {
					return fmt.Errorf("%w: %w", err, errUsage)
				}
			}
			fmt.Fprintf(w, "%s: %s\nsource: %s\n", e.Name, e.Summary, e.Source)
			if e.Note != "" {
				fmt.Fprintln(w, e.Note)
			}
			fmt.Fprintln(w, "\nPARAMETER\tRANGE\tDEFAULT\tMEANING")
			for _, p := range e.Parameters {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Name, p.Allowed(), p.Default, p.Meaning)
			}
			return w.Flush()
		},
	}
}

// usage marks an argument check's faults as wrong use.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return fmt.Errorf("%w: %w", err, errUsage)
		}
		return nil
	}
}
