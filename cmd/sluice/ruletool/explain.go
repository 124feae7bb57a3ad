package ruletool

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sluice-autoscaler/sluice/adapter/fetch"
	"github.com/sluice-autoscaler/sluice/adapter/server"
	"github.com/sluice-autoscaler/sluice/internal/cli"
	"github.com/sluice-autoscaler/sluice/scaler/explain"
)

// explainTimeout bounds the call of the API server.
const explainTimeout = 30 * time.Second

// explainMetricFlags are those of explain metric.
type explainMetricFlags struct{ kubeconfig, namespace, object, selector, output string }

// ExplainMetric is the command explain metric.
func ExplainMetric() *cobra.Command {
	var f explainMetricFlags
	c := &cobra.Command{
		Use: "metric NAME", Short: "Say how a metric of a rule is answered, or why it is not",
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	c.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", "path of the kubeconfig (default: as kubectl)")
	c.Flags().StringVarP(&f.namespace, "namespace", "n", "", "namespace (default: as kubectl)")
	c.Flags().StringVar(&f.object, "object", "", "the object as `KIND/NAME`, such as pods/web-1 or ingresses.networking.k8s.io/web (default: an external metric)")
	c.Flags().StringVar(&f.selector, "selector", "", "the metric's label selector")
	c.Flags().StringVarP(&f.output, "output", "o", "", "json prints the explanation as it is")
	return c
}

func (f *explainMetricFlags) run(cmd *cobra.Command, metric string) error {
	resource, object, ok := strings.Cut(f.object, "/")
	switch {
	case f.object != "" && (!ok || resource == "" || object == ""):
		return fmt.Errorf("--object = %q: want KIND/NAME, such as pods/web-1: %w", f.object, cli.ErrUsage)
	case f.output != "" && f.output != "json":
		return fmt.Errorf("--output = %q: want json: %w", f.output, cli.ErrUsage)
	}
	loading := clientcmd.NewDefaultClientConfigLoadingRules()
	loading.ExplicitPath = f.kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(loading, &clientcmd.ConfigOverrides{})
	cfg, err := loader.ClientConfig()
	if err != nil {
		return fmt.Errorf("load the kubeconfig: %w", err)
	}
	if f.namespace == "" {
		if f.namespace, _, err = loader.Namespace(); err != nil {
			return fmt.Errorf("find the namespace: %w", err)
		}
	}
	client, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return fmt.Errorf("reach the cluster: %w", err)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), explainTimeout)
	defer cancel()
	raw, err := client.RESTClient().Get().AbsPath("/apis", server.JournalGroup, server.JournalVersion, "namespaces", f.namespace, "metrics", metric).
		Param("resource", resource).Param("object", object).Param("selector", f.selector).DoRaw(ctx)
	if err != nil {
		return fmt.Errorf("explain metric %s: %w", metric, err)
	}
	if f.output == "json" {
		var b bytes.Buffer
		if err := json.Indent(&b, raw, "", "  "); err != nil {
			return fmt.Errorf("read the explanation: %w", err)
		}
		_, err := fmt.Fprintln(cmd.OutOrStdout(), b.String())
		return err
	}
	var x fetch.Explanation
	if err := json.Unmarshal(raw, &x); err != nil {
		return fmt.Errorf("read the explanation: %w", err)
	}
	return WriteExplanation(cmd.OutOrStdout(), x)
}

// WriteExplanation writes an explanation for people.
func WriteExplanation(w io.Writer, x fetch.Explanation) error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-9s %s\n", name+":", explain.Printable(fmt.Sprintf(format, args...)))
	}
	line("metric", "%s", x.Metric)
	if x.Rule != "" {
		line("rule", "%s, of the series %s", x.Rule, x.Series)
	}
	if x.Delegate != "" {
		line("delegate", "%s", x.Delegate)
	}
	if x.Query != "" {
		line("query", "%s", x.Query)
		if x.Delegate != "" {
			// its answer is nobody else's
		} else if x.Grouped {
			line("serves", "everybody who asks in this namespace")
		} else {
			line("serves", "these objects alone: %s", x.Ungrouped)
		}
	}
	if x.Asked != nil {
		age := time.Duration(x.AgeSeconds * float64(time.Second)).Round(time.Millisecond)
		took := time.Duration(x.TookSeconds * float64(time.Second)).Round(time.Millisecond)
		where := "Prometheus"
		if x.Source != "" {
			where += " " + x.Source
		}
		line("asked", "%s %v ago, which took %v", where, age, took)
		for _, s := range x.Samples {
			line("sample", "%s %s at %s", s.Labels, s.Value, s.Time.UTC().Format(time.RFC3339))
		}
		if more := x.SampleCount - len(x.Samples); more > 0 {
			line("sample", "and %d more", more)
		}
	}
	for _, v := range x.Values {
		held := ""
		if x.Held {
			held = " (held: there is none now)"
		}
		line("answer", "%s%s", v, held)
	}
	switch {
	case x.Error != "":
		line("answer", "%d, %s", x.Status, x.Error)
	case len(x.Values) == 0:
		line("answer", "an empty list, which a HorizontalPodAutoscaler takes for no metrics")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
