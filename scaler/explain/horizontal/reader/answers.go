package reader

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	customv1beta2 "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	externalv1beta1 "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/sluice-autoscaler/sluice/scaler/explain/horizontal"
)

// age makes the answer as old as the oldest value in it.
func age(a *horizontal.Answer, at time.Time, over time.Duration) {
	if a.At.IsZero() || at.Before(a.At) {
		a.At = at
	}
	a.Over = max(a.Over, over)
}

// ofResource is what metrics.k8s.io answers of a resource, of one container or of all. A pod counts
// only where each of its containers has a value.
func ofResource(items []metricsv1beta1.PodMetrics, r corev1.ResourceName, container string) horizontal.Answer {
	if len(items) == 0 {
		return horizontal.Answer{Trouble: &horizontal.Trouble{Cause: "metrics.k8s.io answers for none of the pods", Remedy: "see kubectl top pods, and the log of the metrics server"}}
	}
	a := horizontal.Answer{PerPod: make(map[string]horizontal.Reading, len(items))}
	for i := range items {
		m := &items[i]
		value, ok := usage(m, r, container)
		if !ok {
			continue
		}
		a.PerPod[m.Name] = horizontal.Reading{Value: value, At: m.Timestamp.Time, Over: m.Window.Duration}
		age(&a, m.Timestamp.Time, m.Window.Duration)
	}
	return a
}

// usage is what a pod, or one of its containers, uses of a resource, in thousandths.
func usage(m *metricsv1beta1.PodMetrics, r corev1.ResourceName, container string) (milli int64, ok bool) {
	for i := range m.Containers {
		c := &m.Containers[i]
		if container != "" && c.Name != container {
			continue
		}
		q, has := c.Usage[r]
		if !has {
			return 0, false
		}
		milli, ok = milli+q.MilliValue(), true
		if container != "" {
			break
		}
	}
	return milli, ok
}

// ofPods is what custom.metrics.k8s.io answers for the pods of a selector.
func ofPods(items []customv1beta2.MetricValue) horizontal.Answer {
	if len(items) == 0 {
		return horizontal.Answer{Trouble: &horizontal.Trouble{Cause: "custom.metrics.k8s.io answers, with no value for any of the pods", Remedy: "see sluice explain metric NAME --object pods/POD"}}
	}
	a := horizontal.Answer{PerPod: make(map[string]horizontal.Reading, len(items))}
	for i := range items {
		m := &items[i]
		over := seconds(m.WindowSeconds)
		a.PerPod[m.DescribedObject.Name] = horizontal.Reading{Value: m.Value.MilliValue(), At: m.Timestamp.Time, Over: over}
		age(&a, m.Timestamp.Time, over)
	}
	return a
}

// ofObject is what custom.metrics.k8s.io answers for one object.
func ofObject(m *customv1beta2.MetricValue) horizontal.Answer {
	a := horizontal.Answer{Totals: []int64{m.Value.MilliValue()}}
	age(&a, m.Timestamp.Time, seconds(m.WindowSeconds))
	return a
}

// ofExternal is what external.metrics.k8s.io answers.
func ofExternal(name string, items []externalv1beta1.ExternalMetricValue) horizontal.Answer {
	if len(items) == 0 {
		return horizontal.Answer{Trouble: &horizontal.Trouble{Cause: fmt.Sprintf("external.metrics.k8s.io answers, with no value of %s", name), Remedy: "see which series the metric's selector leaves"}}
	}
	var a horizontal.Answer
	for i := range items {
		m := &items[i]
		a.Totals = append(a.Totals, m.Value.MilliValue())
		age(&a, m.Timestamp.Time, seconds(m.WindowSeconds))
	}
	return a
}

func seconds(n *int64) time.Duration {
	if n == nil || *n < 0 || *n > int64(24*time.Hour/time.Second) {
		return 0
	}
	return time.Duration(*n) * time.Second
}
