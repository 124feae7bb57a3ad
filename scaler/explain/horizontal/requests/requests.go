// Package requests tells what pods request of a resource, as the HPA's controller counts it for a
// target of type Utilization. It is pure.
package requests

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// supported tells whether a pod can request the resource as a whole.
func supported(r corev1.ResourceName) bool {
	return r == corev1.ResourceCPU || r == corev1.ResourceMemory || strings.HasPrefix(string(r), corev1.ResourceHugePagesPrefix)
}

// Of is what a pod, or one of its containers, requests of a resource, in thousandths. Lack says
// what requests none. Overhead adds the pod's to what it requests as a whole.
func Of(pod *corev1.Pod, container string, r corev1.ResourceName, overhead bool) (milli int64, lack string) {
	if container == "" && pod.Spec.Resources != nil {
		for name := range pod.Spec.Resources.Requests {
			if supported(name) {
				return podLevel(pod, r, overhead)
			}
		}
	}
	for _, c := range scaled(pod) {
		if container != "" && c.Name != container {
			continue
		}
		q, ok := c.Resources.Requests[r]
		if !ok {
			return 0, fmt.Sprintf("container %s of pod %s requests no %s", c.Name, pod.Name, r)
		}
		if milli += q.MilliValue(); container != "" {
			return milli, ""
		}
	}
	if container != "" {
		return 0, fmt.Sprintf("pod %s has no container %s", pod.Name, container)
	}
	return milli, ""
}

// restarts tells whether an init container runs beside the others.
func restarts(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// scaled are the containers whose requests count.
func scaled(pod *corev1.Pod) []corev1.Container {
	all := append([]corev1.Container(nil), pod.Spec.Containers...)
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; restarts(c) {
			all = append(all, *c)
		}
	}
	return all
}

// podLevel is what a pod with requests of its own requests of a resource: those, or where they do
// not name it what its containers need at once.
func podLevel(pod *corev1.Pod, r corev1.ResourceName, overhead bool) (milli int64, lack string) {
	q, ok := pod.Spec.Resources.Requests[r]
	if milli = q.MilliValue(); !ok || !supported(r) {
		milli, ok = atOnce(pod, r)
	}
	if o, has := pod.Spec.Overhead[r]; has && overhead {
		milli, ok = milli+o.MilliValue(), true
	}
	if !ok {
		return 0, fmt.Sprintf("pod %s requests no %s", pod.Name, r)
	}
	return milli, ""
}

// atOnce is the most that a pod's containers request at one time: while it runs, or while one of
// its init containers does.
func atOnce(pod *corev1.Pod, r corev1.ResourceName) (milli int64, ok bool) {
	var beside, most int64
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		q, has := c.Resources.Requests[r]
		ok = ok || has
		if restarts(c) {
			beside += q.MilliValue()
			most = max(most, beside)
		} else {
			most = max(most, beside+q.MilliValue())
		}
	}
	milli = beside
	for i := range pod.Spec.Containers {
		q, has := pod.Spec.Containers[i].Resources.Requests[r]
		ok = ok || has
		milli += q.MilliValue()
	}
	return max(milli, most), ok
}
