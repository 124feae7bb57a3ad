package node

import (
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// containerRecord is what a worker knows of one container; it is data, owned by the worker's lock.
type containerRecord struct {
	ID       string
	State    v1.ContainerState // exactly one part set
	Last     v1.ContainerState
	Restarts int32
	Started  bool // running, and its startup probe (if any) has passed
	Ready    bool // its readiness probe (if any) has passed; an init container: it has succeeded
}

// podRecord is what a worker knows of its pod.
type podRecord struct {
	StartTime  time.Time
	Sandbox    bool // the network exists
	PodIP      string
	HostIP     string
	Containers map[string]*containerRecord
	// Final holds the phase back until everything has stopped, as a kubelet does not call a pod
	// over while one of its containers runs.
	Final bool
	// Reason and Message end a pod from outside (deadline exceeded); the phase is then Failed.
	Reason, Message string
}

func newPodRecord(pod *v1.Pod, hostIP string, now time.Time) podRecord {
	r := podRecord{StartTime: now, HostIP: hostIP, Containers: map[string]*containerRecord{}}
	waiting := "ContainerCreating"
	if len(pod.Spec.InitContainers) > 0 {
		waiting = "PodInitializing"
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		r.Containers[c.Name] = &containerRecord{State: v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: waiting}}}
	}
	return r
}

func isSidecar(c *v1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
}

// buildStatus is the status a pod has by what is known of it. old is the status the API server has:
// times of conditions that have not turned and conditions of others are taken from it.
func buildStatus(pod *v1.Pod, old *v1.PodStatus, r *podRecord, images map[string]string, now time.Time) v1.PodStatus {
	s := v1.PodStatus{
		ObservedGeneration: pod.Generation,
		HostIP:             r.HostIP,
		HostIPs:            []v1.HostIP{{IP: r.HostIP}},
		StartTime:          new(metav1.NewTime(r.StartTime)),
		QOSClass:           qosClass(pod),
		Reason:             r.Reason,
		Message:            r.Message,
		NominatedNodeName:  old.NominatedNodeName,
	}
	if old.QOSClass != "" {
		s.QOSClass = old.QOSClass
	}
	if r.PodIP != "" {
		s.PodIP, s.PodIPs = r.PodIP, []v1.PodIP{{IP: r.PodIP}}
	}
	for i := range pod.Spec.InitContainers {
		s.InitContainerStatuses = append(s.InitContainerStatuses, containerStatus(&pod.Spec.InitContainers[i], r, images))
	}
	for i := range pod.Spec.Containers {
		s.ContainerStatuses = append(s.ContainerStatuses, containerStatus(&pod.Spec.Containers[i], r, images))
	}
	s.Phase = podPhase(pod, r)
	s.Conditions = conditions(pod, old, r, s.Phase, now)
	return s
}

func containerStatus(c *v1.Container, r *podRecord, images map[string]string) v1.ContainerStatus {
	rec := r.Containers[c.Name]
	s := v1.ContainerStatus{
		Name: c.Name, Image: c.Image, State: rec.State, LastTerminationState: rec.Last, RestartCount: rec.Restarts,
		Started: new(rec.Started), Ready: rec.Ready,
	}
	if _, ok := findImage(images, c.Image); ok && rec.ID != "" {
		s.ImageID = "sluice://" + c.Image
	}
	if rec.ID != "" {
		s.ContainerID = "sluice://" + rec.ID
	}
	if len(c.Resources.Requests)+len(c.Resources.Limits) > 0 {
		s.Resources = c.Resources.DeepCopy()
		s.AllocatedResources = c.Resources.Requests.DeepCopy()
	}
	return s
}

// restartable tells whether a container that ended with this code is started again.
func restartable(pod *v1.Pod, c *v1.Container, code int32) bool {
	policy := pod.Spec.RestartPolicy
	if c.RestartPolicy != nil {
		policy = v1.RestartPolicy(*c.RestartPolicy)
	}
	switch policy {
	case v1.RestartPolicyNever:
		return false
	case v1.RestartPolicyOnFailure:
		return code != 0
	case v1.RestartPolicyAlways:
	}
	return true
}

// podPhase follows the rules of a kubelet: a pod is pending until its init containers are through
// and none of its containers waits for its first start, and over when all of them have ended for
// good.
func podPhase(pod *v1.Pod, r *podRecord) v1.PodPhase {
	if r.Reason != "" {
		return v1.PodFailed
	}
	pending := 0
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		rec := r.Containers[c.Name]
		if isSidecar(c) {
			if rec.State.Running != nil && !rec.Started || rec.State.Waiting != nil && rec.Last.Terminated == nil {
				pending++
			}
			continue
		}
		if end := ended(rec); rec.State.Running != nil || end == nil || end.ExitCode != 0 {
			pending++
		}
	}
	running, waiting, stopped, succeeded := 0, 0, 0, 0
	for i := range pod.Spec.Containers {
		rec := r.Containers[pod.Spec.Containers[i].Name]
		end := ended(rec)
		switch {
		case rec.State.Running != nil:
			running++
		case end == nil:
			waiting++
		default:
			stopped++
			if end.ExitCode == 0 {
				succeeded++
			}
		}
	}
	switch {
	case r.Final && waiting == 0 && succeeded == stopped:
		return v1.PodSucceeded
	case r.Final:
		return v1.PodFailed
	case pending > 0 && running+stopped == 0, waiting > 0:
		return v1.PodPending
	}
	return v1.PodRunning
}

// ended is how a container that does not run ended last, nil if it has not run yet.
func ended(rec *containerRecord) *v1.ContainerStateTerminated {
	if rec.State.Terminated != nil {
		return rec.State.Terminated
	}
	return rec.Last.Terminated
}

func conditions(pod *v1.Pod, old *v1.PodStatus, r *podRecord, phase v1.PodPhase, now time.Time) []v1.PodCondition {
	own := []v1.PodCondition{
		{Type: v1.PodReadyToStartContainers, Status: truth(r.Sandbox)},
		initialized(pod, r, phase),
	}
	ready := containersReady(pod, r, phase)
	podReady := ready
	podReady.Type = v1.PodReady
	if ready.Status == v1.ConditionTrue {
		podReady = gatesReady(pod, old)
	}
	own = append(own, podReady, ready)
	if !slices.ContainsFunc(old.Conditions, func(c v1.PodCondition) bool { return c.Type == v1.PodScheduled }) {
		own = append(own, v1.PodCondition{Type: v1.PodScheduled, Status: v1.ConditionTrue})
	}
	for i := range own {
		c := &own[i]
		c.ObservedGeneration = pod.Generation
		c.LastTransitionTime = metav1.NewTime(now)
		for _, was := range old.Conditions {
			if was.Type == c.Type && was.Status == c.Status {
				c.LastTransitionTime = was.LastTransitionTime
			}
		}
	}
	for _, was := range old.Conditions {
		if !slices.ContainsFunc(own, func(c v1.PodCondition) bool { return c.Type == was.Type }) {
			own = append(own, was)
		}
	}
	return own
}

func truth(b bool) v1.ConditionStatus {
	if b {
		return v1.ConditionTrue
	}
	return v1.ConditionFalse
}

func initialized(pod *v1.Pod, r *podRecord, phase v1.PodPhase) v1.PodCondition {
	cond := v1.PodCondition{Type: v1.PodInitialized, Status: v1.ConditionTrue}
	if phase == v1.PodSucceeded {
		cond.Reason = "PodCompleted"
		return cond
	}
	for i := range pod.Spec.Containers {
		// Once a main container has run, a restart of a sidecar does not undo it.
		if rec := r.Containers[pod.Spec.Containers[i].Name]; rec.State.Running != nil || ended(rec) != nil {
			return cond
		}
	}
	var open []string
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if rec := r.Containers[c.Name]; isSidecar(c) && !rec.Started || !isSidecar(c) && !rec.Ready {
			open = append(open, c.Name)
		}
	}
	if len(open) > 0 {
		cond.Status, cond.Reason = v1.ConditionFalse, "ContainersNotInitialized"
		cond.Message = fmt.Sprintf("containers with incomplete status: [%s]", strings.Join(open, " "))
	}
	return cond
}

func containersReady(pod *v1.Pod, r *podRecord, phase v1.PodPhase) v1.PodCondition {
	cond := v1.PodCondition{Type: v1.ContainersReady, Status: v1.ConditionFalse}
	switch phase {
	case v1.PodSucceeded:
		cond.Reason = "PodCompleted"
		return cond
	case v1.PodFailed:
		cond.Reason = "PodFailed"
		return cond
	case v1.PodPending, v1.PodRunning, v1.PodUnknown:
	}
	var unready []string
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; isSidecar(c) && !r.Containers[c.Name].Ready {
			unready = append(unready, c.Name)
		}
	}
	for i := range pod.Spec.Containers {
		if c := &pod.Spec.Containers[i]; !r.Containers[c.Name].Ready {
			unready = append(unready, c.Name)
		}
	}
	if len(unready) > 0 {
		cond.Reason = "ContainersNotReady"
		cond.Message = fmt.Sprintf("containers with unready status: [%s]", strings.Join(unready, " "))
		return cond
	}
	cond.Status = v1.ConditionTrue
	return cond
}

// gatesReady is the Ready condition of a pod whose containers are all ready.
func gatesReady(pod *v1.Pod, old *v1.PodStatus) v1.PodCondition {
	cond := v1.PodCondition{Type: v1.PodReady, Status: v1.ConditionTrue}
	var missing []string
	for _, gate := range pod.Spec.ReadinessGates {
		i := slices.IndexFunc(old.Conditions, func(c v1.PodCondition) bool { return c.Type == gate.ConditionType })
		switch {
		case i < 0:
			missing = append(missing, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate.ConditionType))
		case old.Conditions[i].Status != v1.ConditionTrue:
			missing = append(missing, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", gate.ConditionType, old.Conditions[i].Status))
		}
	}
	if len(missing) > 0 {
		cond.Status, cond.Reason, cond.Message = v1.ConditionFalse, "ReadinessGatesNotReady", strings.Join(missing, ", ")
	}
	return cond
}

// qosClass is computed for pods that do not have it yet; the API server usually sets it.
func qosClass(pod *v1.Pod) v1.PodQOSClass {
	any, all := false, true
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		any = any || len(c.Resources.Requests)+len(c.Resources.Limits) > 0
		for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
			limit, ok := c.Resources.Limits[name]
			request, requested := c.Resources.Requests[name]
			if !ok || limit.IsZero() || requested && request.Cmp(limit) != 0 {
				all = false
			}
		}
	}
	switch {
	case all:
		return v1.PodQOSGuaranteed
	case any:
		return v1.PodQOSBurstable
	}
	return v1.PodQOSBestEffort
}
