// Package hpatool is sluice explain hpa/NAME.
package hpatool

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/sluice-autoscaler/sluice/internal/cli"
	"github.com/sluice-autoscaler/sluice/scaler/explain/horizontal"
	"github.com/sluice-autoscaler/sluice/scaler/explain/horizontal/reader"
)

// Flags are the settings of the HPA's controller, which no API shows.
type Flags struct {
	settings   horizontal.Settings
	syncPeriod time.Duration
}

// flagNames are those that only an HPA has.
var flagNames = []string{"tolerance", "downscale-stabilization", "cpu-initialization-period", "initial-readiness-delay", "sync-period"} //nolint:gochecknoglobals // a constant

// Add adds the flags to the command.
func (f *Flags) Add(c *cobra.Command) {
	f.settings = horizontal.Default()
	s, of := &f.settings, "of an HPA's controller: its --horizontal-pod-autoscaler-"
	c.Flags().Float64Var(&s.Tolerance, "tolerance", s.Tolerance, of+"tolerance")
	c.Flags().DurationVar(&s.DownscaleStabilization, "downscale-stabilization", s.DownscaleStabilization, of+"downscale-stabilization")
	c.Flags().DurationVar(&s.CPUInitializationPeriod, "cpu-initialization-period", s.CPUInitializationPeriod, of+"cpu-initialization-period")
	c.Flags().DurationVar(&s.InitialReadinessDelay, "initial-readiness-delay", s.InitialReadinessDelay, of+"initial-readiness-delay")
	c.Flags().DurationVar(&f.syncPeriod, "sync-period", s.Look/2, of+"sync-period")
}

// Name is the name of the HPA that is meant, where one is.
func Name(arg string) (name string, ok bool) {
	kind, name, ok := strings.Cut(arg, "/")
	if !ok || name == "" {
		return "", false
	}
	switch kind, _, _ := strings.Cut(strings.ToLower(kind), "."); kind {
	case "hpa", "horizontalpodautoscaler", "horizontalpodautoscalers":
		return name, true
	}
	return "", false
}

// Validate reports the first fault of the flags, and those that do not go with what is explained.
func (f *Flags) Validate(cmd *cobra.Command, arg, record string) error {
	_, ok := Name(arg)
	if !ok && strings.Contains(arg, "/") {
		return fmt.Errorf("%q: want the name of an Autoscaler, or hpa/NAME: %w", arg, cli.ErrUsage)
	}
	for _, name := range flagNames {
		if !ok && cmd.Flags().Changed(name) {
			return fmt.Errorf("--%s is for hpa/NAME: %w", name, cli.ErrUsage)
		}
	}
	s := &f.settings
	for _, name := range []string{"last", "all", "terms"} {
		if ok && cmd.Flags().Changed(name) {
			return fmt.Errorf("--%s is for an Autoscaler: %w", name, cli.ErrUsage)
		}
	}
	switch {
	case ok && record != "":
		return fmt.Errorf("--record is for an Autoscaler: %w", cli.ErrUsage)
	case !(s.Tolerance >= 0 && s.Tolerance <= 10):
		return fmt.Errorf("--tolerance = %v: want a share, 0–10: %w", s.Tolerance, cli.ErrUsage)
	case s.DownscaleStabilization < 0 || s.DownscaleStabilization > time.Hour:
		return fmt.Errorf("--downscale-stabilization = %v: want 0s–1h: %w", s.DownscaleStabilization, cli.ErrUsage)
	case s.CPUInitializationPeriod < 0:
		return fmt.Errorf("--cpu-initialization-period = %v: want 0s or more: %w", s.CPUInitializationPeriod, cli.ErrUsage)
	case s.InitialReadinessDelay < 0:
		return fmt.Errorf("--initial-readiness-delay = %v: want 0s or more: %w", s.InitialReadinessDelay, cli.ErrUsage)
	case f.syncPeriod <= 0 || f.syncPeriod > time.Hour:
		return fmt.Errorf("--sync-period = %v: want more than 0s, at most 1h: %w", f.syncPeriod, cli.ErrUsage)
	}
	return nil
}

// Run explains a HorizontalPodAutoscaler.
func (f *Flags) Run(cmd *cobra.Command, cfg *rest.Config, namespace, name, output string) error {
	klog.SetLogger(logr.Discard()) // what a call ran into is told in the explanation
	f.settings.Look = 2 * f.syncPeriod
	r, err := reader.New(cfg)
	if err != nil {
		return err
	}
	in, err := r.Read(cmd.Context(), namespace, name, f.settings)
	if err != nil {
		return err
	}
	x := horizontal.Explain(in)
	if output == "" {
		return x.Write(cmd.OutOrStdout(), in.Now)
	}
	e := json.NewEncoder(cmd.OutOrStdout())
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(x)
}
