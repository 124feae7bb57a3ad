package ruletool

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sluice-autoscaler/sluice/adapter/rules"
	"github.com/sluice-autoscaler/sluice/adapter/rules/check"
	"github.com/sluice-autoscaler/sluice/adapter/rules/config"
	"github.com/sluice-autoscaler/sluice/adapter/rules/mapping"
	"github.com/sluice-autoscaler/sluice/cmd/sluice/clustercheck"
	"github.com/sluice-autoscaler/sluice/internal/cli"
	"github.com/sluice-autoscaler/sluice/scaler/explain"
)

const checkLong = `Say what of prometheus-adapter's rules cannot work, or may be wrong, and why. No cluster and no Prometheus is needed.

Each rule's query is rendered for one object and for two, and read with Prometheus' parser. An error cannot work, and makes the exit status 1;
a warning may give wrong values or none; a note is worth knowing. Resources are those of Kubernetes 1.37: a rule for a custom resource waits
for it, and says so.

With --kubeconfig, or --cluster, it looks at a cluster as well, and changes nothing: whether APIServices lead to a provider that answers
(service, port, endpoints, caBundle, requestheader), and whether KEDA will write to one of Sluice.`

// kinds lists the kinds of findings.
func kinds() string {
	var b strings.Builder
	b.WriteString("\n\nEach finding ends with its kind:\n")
	all := check.Kinds()
	maps.Copy(all, clustercheck.Kinds())
	for _, kind := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "  %-15s %s\n", kind, all[kind])
	}
	return strings.TrimRight(b.String(), "\n")
}

// checkFlags are those of check.
type checkFlags struct {
	files      []string
	output     string
	kubeconfig string
	cluster    bool
}

// Check is the command that says what of rules cannot work.
func Check() *cobra.Command {
	var f checkFlags
	c := &cobra.Command{
		Use: "check [-f FILE] [--cluster]", Short: "Say what of prometheus-adapter's rules cannot work, and why", Long: checkLong + kinds(), Args: usage(cobra.NoArgs),
		Example: `  sluice check -f config.yaml
  sluice check --cluster`,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	c.Flags().StringArrayVarP(&f.files, "filename", "f", nil, "a `FILE` of rules: a config.yaml, the chart's values, or a ConfigMap; repeatable")
	c.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", "look at the cluster of this kubeconfig")
	c.Flags().BoolVar(&f.cluster, "cluster", false, "look at the cluster that kubectl uses")
	c.Flags().StringVarP(&f.output, "output", "o", "", "json prints the findings as JSON")
	return c
}

func (f *checkFlags) run(cmd *cobra.Command) error {
	switch {
	case len(f.files) == 0 && f.kubeconfig == "" && !f.cluster:
		return fmt.Errorf("--filename is missing: want rules, or a cluster by --kubeconfig or --cluster: %w", cli.ErrUsage)
	case f.output != "" && f.output != "json":
		return fmt.Errorf("--output = %q: want json: %w", f.output, cli.ErrUsage)
	}
	all := []check.Finding{}
	for _, name := range f.files {
		found, err := checkFile(cmd, name)
		if err != nil {
			return err
		}
		all = append(all, found...)
	}
	if f.kubeconfig != "" || f.cluster {
		found, err := f.checkCluster(cmd.Context())
		if err != nil {
			return err
		}
		all = append(all, found...)
	}
	if f.output == "json" {
		if err := writeJSON(cmd.OutOrStdout(), all); err != nil {
			return err
		}
	} else {
		for _, l := range all {
			fmt.Fprintf(cmd.OutOrStdout(), "%-7s  %s: %s (%s)\n", l.Level, l.Field, explain.Printable(l.Text), l.Kind)
		}
		if len(all) == 0 {
			fmt.Fprintln(cmd.OutOrStdout(), "nothing to say")
		}
	}
	n := 0
	for _, l := range all {
		if l.Level == check.Fault {
			n++
		}
	}
	if n > 0 {
		if len(f.files) == 0 {
			return fmt.Errorf("%d errors in the cluster", n)
		}
		return fmt.Errorf("%d errors in the rules", n)
	}
	return nil
}

// checkCluster looks at a cluster.
func (f *checkFlags) checkCluster(ctx context.Context) ([]check.Finding, error) {
	loading := clientcmd.NewDefaultClientConfigLoadingRules()
	loading.ExplicitPath = f.kubeconfig
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(loading, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("load the kubeconfig: %w", err)
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	if err := client.Discovery().RESTClient().Get().AbsPath("/version").Do(ctx).Error(); err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	return clustercheck.Look(ctx, client, client.Discovery().RESTClient(), time.Now()), nil
}

// checkFile checks one file. What makes the whole file bad is an error.
func checkFile(cmd *cobra.Command, name string) ([]check.Finding, error) {
	c, err := readRules(cmd, name)
	if err != nil {
		return nil, err
	}
	set, err := rules.Compile(c, rules.Options{Mapper: mapping.New(mapping.Kubernetes())})
	if err != nil {
		return nil, fmt.Errorf("%s: %s", name, strings.Join(config.Explain(err), "\n"))
	}
	found := check.Set(set)
	rank := []check.Level{check.Fault, check.Doubt, check.Remark}
	slices.SortStableFunc(found, func(a, b check.Finding) int {
		return slices.Index(rank, a.Level) - slices.Index(rank, b.Level)
	})
	return found, nil
}
