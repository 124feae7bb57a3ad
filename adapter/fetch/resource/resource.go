// Package resource puts the CPU and memory that rules give into the words of metrics.k8s.io.
package resource

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
)

// Pod is a pod's usage over a window.
func Pod(namespace string, u answer.Usage, window time.Duration) metricsv1beta1.PodMetrics {
	m := metricsv1beta1.PodMetrics{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: u.Name, CreationTimestamp: metav1.NewTime(u.Time)},
		Timestamp:  metav1.NewTime(u.Time), Window: metav1.Duration{Duration: window},
	}
	for _, c := range u.Containers {
		m.Containers = append(m.Containers, metricsv1beta1.ContainerMetrics{Name: c.Name, Usage: resources(c)})
	}
	return m
}

// Node is a node's; it has one container, which stands for all.
func Node(u answer.Usage, window time.Duration) metricsv1beta1.NodeMetrics {
	return metricsv1beta1.NodeMetrics{
		ObjectMeta: metav1.ObjectMeta{Name: u.Name, CreationTimestamp: metav1.NewTime(u.Time)},
		Timestamp:  metav1.NewTime(u.Time), Window: metav1.Duration{Duration: window}, Usage: resources(u.Containers[0]),
	}
}

func resources(c answer.Container) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: c.CPU, corev1.ResourceMemory: c.Memory}
}

// Missing says why no pod of those that were asked for has usage.
func Missing(of string, results [2]answer.Result) error {
	cpu, memory := len(results[0].Samples), len(results[1].Samples)
	why := "Prometheus has no sample"
	if cpu+memory > 0 {
		why = fmt.Sprintf("Prometheus has %d samples of CPU and %d of memory, and of no pod a number of both: they are NaN, infinite, too large, or of other pods", cpu, memory)
	}
	return answer.Unknown("usage", of, why)
}
