// Command sluice is the user's tool: it explains decisions, lists policies, tries them on
// observations and simulates them on load.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/internal/cli"
	"github.com/sluice-autoscaler/sluice/scaler/explain"
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
	root.AddCommand(bench(), decide(), explainer(), policies())
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

func explainer() *cobra.Command {
	var kubeconfig, namespace, record string
	var last int
	var every time.Duration
	var terms bool
	c := &cobra.Command{
		Use: "explain AUTOSCALER", Short: "Say what an Autoscaler last decided, and why",
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if every != 0 && (every < time.Second || every > time.Hour || record == "") {
				return fmt.Errorf("--every = %v: want 1s–1h, with --record: %w", every, errUsage)
			}
			rules := clientcmd.NewDefaultClientConfigLoadingRules()
			rules.ExplicitPath = kubeconfig
			loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{})
			rest, err := loader.ClientConfig()
			if err != nil {
				return fmt.Errorf("load the kubeconfig: %w", err)
			}
			if namespace == "" {
				if namespace, _, err = loader.Namespace(); err != nil {
					return fmt.Errorf("find the namespace: %w", err)
				}
			}
			scheme := runtime.NewScheme()
			if err := v1alpha1.AddToScheme(scheme); err != nil {
				return fmt.Errorf("register the Autoscaler type: %w", err)
			}
			cl, err := client.New(rest, client.Options{Scheme: scheme})
			if err != nil {
				return fmt.Errorf("reach the cluster: %w", err)
			}
			get := func(ctx context.Context) (*v1alpha1.Autoscaler, error) {
				ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
				defer cancel()
				as := &v1alpha1.Autoscaler{}
				if err := cl.Get(ctx, types.NamespacedName{Namespace: namespace, Name: args[0]}, as); err != nil {
					return nil, fmt.Errorf("read Autoscaler %s/%s: %w", namespace, args[0], err)
				}
				return as, nil
			}
			as, err := get(cmd.Context())
			if err != nil {
				return err
			}
			if err := explain.Write(cmd.OutOrStdout(), as, time.Now(), last, terms); err != nil || record == "" {
				return err
			}
			return keepRecord(cmd.Context(), record, every, get, cmd.ErrOrStderr())
		},
	}
	c.Flags().StringVar(&kubeconfig, "kubeconfig", "", "path of the kubeconfig (default: as kubectl)")
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace (default: as kubectl)")
	c.Flags().IntVar(&last, "last", 10, "how many decisions to show, at most 10 are kept")
	c.Flags().StringVar(&record, "record", "", "append what the status says as an observation to this `FILE`, for sluice bench backtest and sluice decide")
	c.Flags().DurationVar(&every, "every", 0, "go on recording with this period until interrupted")
	c.Flags().BoolVar(&terms, "terms", false, "show the numbers behind each decision")
	return c
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
