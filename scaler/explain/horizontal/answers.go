package horizontal

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	customv1beta2 "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	externalv1beta1 "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// age makes the answer as old as the oldest value in it.
func (a *Answer) age(at time.Time, over time.Duration) {
	if a.At.IsZero() || at.Before(a.At) {
		a.At = at
	}
	a.Over = max(a.Over, over)
}

// OfResource is what metrics.k8s.io answers of a resource, of one container or of all. A pod counts
// only where each of its containers has a value.
func OfResource(items []metricsv1beta1.PodMetrics, r corev1.ResourceName, container string) Answer {
	if len(items) == 0 {
		return Answer{Trouble: &Trouble{Cause: "metrics.k8s.io answers for none of the pods", Remedy: "see kubectl top pods, and the log of the metrics server"}}
	}
	a := Answer{PerPod: make(map[string]Reading, len(items))}
	for i := range items {
		m := &items[i]
		value, ok := usage(m, r, container)
		if !ok {
			continue
		}
		a.PerPod[m.Name] = Reading{Value: value, At: m.Timestamp.Time, Over: m.Window.Duration}
		a.age(m.Timestamp.Time, m.Window.Duration)
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

// OfPods is what custom.metrics.k8s.io answers for the pods of a selector.
func OfPods(items []customv1beta2.MetricValue) Answer {
	if len(items) == 0 {
		return Answer{Trouble: &Trouble{Cause: "custom.metrics.k8s.io answers, with no value for any of the pods", Remedy: "see sluice explain metric NAME --object pods/POD"}}
	}
	a := Answer{PerPod: make(map[string]Reading, len(items))}
	for i := range items {
		m := &items[i]
		over := seconds(m.WindowSeconds)
		a.PerPod[m.DescribedObject.Name] = Reading{Value: m.Value.MilliValue(), At: m.Timestamp.Time, Over: over}
		a.age(m.Timestamp.Time, over)
	}
	return a
}

// OfObject is what custom.metrics.k8s.io answers for one object.
func OfObject(m *customv1beta2.MetricValue) Answer {
	a := Answer{Totals: []int64{m.Value.MilliValue()}}
	a.age(m.Timestamp.Time, seconds(m.WindowSeconds))
	return a
}

// OfExternal is what external.metrics.k8s.io answers.
func OfExternal(name string, items []externalv1beta1.ExternalMetricValue) Answer {
	if len(items) == 0 {
		return Answer{Trouble: &Trouble{Cause: fmt.Sprintf("external.metrics.k8s.io answers, with no value of %s", name), Remedy: "see which series the metric's selector leaves"}}
	}
	var a Answer
	for i := range items {
		m := &items[i]
		a.Totals = append(a.Totals, m.Value.MilliValue())
		a.age(m.Timestamp.Time, seconds(m.WindowSeconds))
	}
	return a
}

func seconds(n *int64) time.Duration {
	if n == nil || *n < 0 || *n > int64(24*time.Hour/time.Second) {
		return 0
	}
	return time.Duration(*n) * time.Second
}
