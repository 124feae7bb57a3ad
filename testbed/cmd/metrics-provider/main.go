// Command metrics-provider is another provider of external metrics, as people run them beside
// Sluice: it stands on sigs.k8s.io/custom-metrics-apiserver with its usual flags, and has the
// cluster say who asks and whether they may. As KEDA's it has one name for many metrics, which only
// the key scaledobject.keda.sh/name of the selector tells apart.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/metrics/pkg/apis/external_metrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/cmd"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
)

// key is the key of KEDA's selectors.
const key = "scaledobject.keda.sh/name"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "metrics-provider:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &cmd.AdapterBase{Name: "metrics-provider"}
	values := a.Flags().StringToString("values", nil, "quantities by ScaledObject, such as web=42,mail=2500m")
	if err := a.Flags().Parse(args); err != nil {
		return err
	}
	p := external{}
	for name, text := range *values {
		q, err := resource.ParseQuantity(text)
		if err != nil {
			return fmt.Errorf("--values: %s = %q: %w", name, text, err)
		}
		p[name] = q
	}
	a.WithExternalMetrics(p)
	return a.Run(ctx)
}

// external has the metric s0-prometheus for each ScaledObject, and any that Datadog could have.
type external map[string]resource.Quantity

// ListAllExternalMetrics lists what the provider has.
func (external) ListAllExternalMetrics() []provider.ExternalMetricInfo {
	return []provider.ExternalMetricInfo{{Metric: "s0-prometheus"}}
}

// GetExternalMetric answers one request.
func (p external) GetExternalMetric(_ context.Context, namespace string, selector labels.Selector, info provider.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error) {
	value := external_metrics.ExternalMetricValue{MetricName: info.Metric, Timestamp: metav1.NewTime(time.Now())}
	if strings.HasPrefix(info.Metric, "datadogmetric@") {
		value.Value = resource.MustParse("7")
		return &external_metrics.ExternalMetricValueList{Items: []external_metrics.ExternalMetricValue{value}}, nil
	}
	name, ok := selector.RequiresExactMatch(key)
	if !ok {
		return nil, fmt.Errorf("the selector %q of %s in %s has no %s", selector, info.Metric, namespace, key)
	}
	if value.Value, ok = p[name]; !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{Group: external_metrics.GroupName, Resource: info.Metric}, name)
	}
	return &external_metrics.ExternalMetricValueList{Items: []external_metrics.ExternalMetricValue{value}}, nil
}
