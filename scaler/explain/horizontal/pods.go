package horizontal

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/hpa"
	"github.com/sluice-autoscaler/sluice/scaler/explain/horizontal/requests"
)

// readiness is a pod's condition Ready, nil when it has none.
func readiness(pod *corev1.Pod) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == corev1.PodReady {
			return c
		}
	}
	return nil
}

// state is where a pod is in its life, as the HPA's controller sees it.
func state(pod *corev1.Pod) algorithms.PodState {
	c := readiness(pod)
	switch {
	case pod.DeletionTimestamp != nil:
		return algorithms.PodTerminating
	case pod.Status.Phase == corev1.PodFailed:
		return algorithms.PodFailed
	case pod.Status.Phase == corev1.PodSucceeded:
		return algorithms.PodSucceeded
	case pod.Status.Phase == corev1.PodPending:
		return algorithms.PodPending
	case c == nil || c.Status == corev1.ConditionFalse:
		return algorithms.PodStarting
	case c.Status != corev1.ConditionTrue || pod.Status.Phase != corev1.PodRunning:
		return algorithms.PodUnknown
	}
	return algorithms.PodReady
}

// observed is a pod without readings.
func observed(pod *corev1.Pod) algorithms.Pod {
	p := algorithms.Pod{Name: pod.Name, State: state(pod)}
	c := readiness(pod)
	p.StillReady = p.State == algorithms.PodTerminating && pod.Status.Phase == corev1.PodRunning && c != nil && c.Status == corev1.ConditionTrue
	if pod.Status.StartTime != nil {
		p.Started = pod.Status.StartTime.Time
	}
	if c != nil {
		p.Changed = c.LastTransitionTime.Time
	}
	return p
}

// count sorts the pods by state.
func count(pods []*corev1.Pod) *PodCounts {
	n := &PodCounts{Matched: len(pods)}
	for _, p := range pods {
		switch state(p) {
		case algorithms.PodReady:
			n.Ready++
		case algorithms.PodTerminating:
			n.Terminating++
		case algorithms.PodFailed, algorithms.PodSucceeded, algorithms.PodGone:
			n.Ended++
		case algorithms.PodPending:
			n.Pending++
		case algorithms.PodStarting, algorithms.PodUnknown:
			n.Unready++
		}
	}
	return n
}

// resourceName is what the arithmetic calls a resource.
func resourceName(r corev1.ResourceName) string {
	if r == corev1.ResourceCPU {
		return "cpu" // its readings are doubted early in a pod's life
	}
	return "metric"
}

// podObservation is the pods with the readings of one metric. Of a target of type Utilization it
// has the requests too.
func podObservation(in *Input, m *source, readings map[string]Reading) (pods []algorithms.Pod, missing []string, fault *Trouble) {
	pods = make([]algorithms.Pod, 0, len(in.Pods))
	known := make(map[string]bool, len(in.Pods))
	for _, pod := range in.Pods {
		known[pod.Name] = true
		p := observed(pod)
		if m.key == "cpu" && p.State == algorithms.PodReady && p.Started.IsZero() {
			p.State = algorithms.PodStarting // the controller takes it for unready
		}
		if m.aim == hpa.Utilization {
			v, lack := requests.Of(pod, m.container, m.resource, in.Settings.Release == hpa.Release137)
			if lack != "" {
				return nil, nil, &Trouble{Cause: lack, Remedy: "set resources.requests." + string(m.resource) + " of every container, or give the metric a target of type AverageValue"}
			}
			p.Requests = map[string]float64{m.key: float64(v) / 1000}
		}
		if r, ok := readings[pod.Name]; ok {
			read(&p, m.key, r)
		} else if p.State != algorithms.PodTerminating && p.State != algorithms.PodFailed && p.State != algorithms.PodPending &&
			(p.State != algorithms.PodSucceeded || in.Settings.Release == hpa.Release137) {
			missing = append(missing, pod.Name)
		}
		pods = append(pods, p)
	}
	for name, r := range readings {
		if !known[name] {
			p := algorithms.Pod{Name: name, State: algorithms.PodGone}
			read(&p, m.key, r)
			pods = append(pods, p)
		}
	}
	return pods, missing, nil
}

func read(p *algorithms.Pod, key string, r Reading) {
	p.Values = map[string]float64{key: float64(r.Value) / 1000}
	if p.ReadAt, p.ReadOver = r.At, r.Over; r.At.IsZero() {
		p.ReadAt = time.Unix(0, 0) // no instant is old, where the zero time would mean now
	}
}
