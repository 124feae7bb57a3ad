package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/cmd/sluice/hpatool"
	"github.com/sluice-autoscaler/sluice/cmd/sluice/journal"
	"github.com/sluice-autoscaler/sluice/cmd/sluice/ruletool"
	"github.com/sluice-autoscaler/sluice/scaler"
	"github.com/sluice-autoscaler/sluice/scaler/explain"
)

// explainFlags are those of explain.
type explainFlags struct {
	kubeconfig, namespace, record, output string
	every                                 time.Duration
	show                                  explain.Options
	hpa                                   hpatool.Flags
}

func explainer() *cobra.Command {
	var f explainFlags
	c := &cobra.Command{
		Use: "explain AUTOSCALER|hpa/NAME", Short: "Say what an Autoscaler last decided, or how a HorizontalPodAutoscaler stands, and why",
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	c.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", "path of the kubeconfig (default: as kubectl)")
	c.Flags().StringVarP(&f.namespace, "namespace", "n", "", "namespace (default: as kubectl)")
	c.Flags().IntVar(&f.show.Last, "last", 10, "how many decisions to show, at most 64 are kept")
	c.Flags().BoolVar(&f.show.All, "all", false, "show the rounds that changed nothing, too")
	c.Flags().BoolVar(&f.show.Terms, "terms", false, "show the numbers behind each decision")
	c.Flags().StringVarP(&f.output, "output", "o", "", "json prints the journal as it is kept, or the HorizontalPodAutoscaler's explanation")
	c.Flags().StringVar(&f.record, "record", "", "append what the status says as an observation to this `FILE`, for sluice bench backtest and sluice decide")
	c.Flags().DurationVar(&f.every, "every", 0, "go on recording with this period until interrupted")
	f.hpa.Add(c)
	c.AddCommand(ruletool.ExplainMetric())
	return c
}

func (f *explainFlags) validate() error {
	switch {
	case f.every != 0 && (f.every < time.Second || f.every > time.Hour || f.record == ""):
		return fmt.Errorf("--every = %v: want 1s–1h, with --record: %w", f.every, errUsage)
	case f.show.Last < 0:
		return fmt.Errorf("--last = %d: want a number ≥ 0: %w", f.show.Last, errUsage)
	case f.output != "" && f.output != "json":
		return fmt.Errorf("--output = %q: want json: %w", f.output, errUsage)
	case f.output != "" && f.record != "":
		return fmt.Errorf("--output with --record: want one of them: %w", errUsage)
	}
	return nil
}

func (f *explainFlags) run(cmd *cobra.Command, name string) error {
	if err := f.validate(); err != nil {
		return err
	}
	if err := f.hpa.Validate(cmd, name, f.record); err != nil {
		return err
	}
	ctx, key := cmd.Context(), types.NamespacedName{Namespace: f.namespace, Name: name}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{})
	cfg, err := loader.ClientConfig()
	if err != nil {
		return fmt.Errorf("load the kubeconfig: %w", err)
	}
	if key.Namespace == "" {
		if key.Namespace, _, err = loader.Namespace(); err != nil {
			return fmt.Errorf("find the namespace: %w", err)
		}
	}
	if hpa, ok := hpatool.Name(name); ok {
		return f.hpa.Run(cmd, cfg, key.Namespace, hpa, f.output)
	}
	raw, missing := journal.Read(ctx, cfg, key)
	if f.output != "" {
		if missing != nil {
			return missing
		}
		var b bytes.Buffer
		if err := json.Indent(&b, raw, "", "  "); err != nil {
			return fmt.Errorf("read the journal of %s: %w", key, err)
		}
		_, err := b.WriteTo(cmd.OutOrStdout())
		return err
	}
	get, err := getter(cfg, key)
	if err != nil {
		return err
	}
	as, err := get(ctx)
	if err != nil {
		return err
	}
	var kept scaler.WorkloadJournal
	if missing == nil {
		missing = json.Unmarshal(raw, &kept)
	}
	if missing != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "sluice: what follows is the status, with the last decisions that changed something: %s\n", explain.Printable(missing.Error()))
		kept.Entries = nil
	}
	f.show.Now = time.Now()
	if err := explain.Write(cmd.OutOrStdout(), as, kept.Entries, f.show); err != nil || f.record == "" {
		return err
	}
	return keepRecord(ctx, f.record, f.every, get, cmd.ErrOrStderr())
}

// callTimeout bounds one call of the API server.
const callTimeout = 30 * time.Second

// getter returns what reads an Autoscaler.
func getter(cfg *rest.Config, key types.NamespacedName) (func(context.Context) (*v1alpha1.Autoscaler, error), error) {
	s := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(s); err != nil {
		return nil, fmt.Errorf("register the Autoscaler type: %w", err)
	}
	cl, err := client.New(cfg, client.Options{Scheme: s})
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	return func(ctx context.Context) (*v1alpha1.Autoscaler, error) {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		as := &v1alpha1.Autoscaler{}
		if err := cl.Get(ctx, key, as); err != nil {
			return nil, fmt.Errorf("read Autoscaler %s: %w", key, err)
		}
		return as, nil
	}, nil
}
