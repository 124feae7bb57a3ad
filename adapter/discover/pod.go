package discover

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/wire"
)

// Strip is a transform for informers that keeps of a pod what is looked at, so that a cluster's
// pods fit in little memory. Objects of other types lose their managed fields only.
func Strip(obj any) (any, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		if m, ok := obj.(metav1.Object); ok {
			m.SetManagedFields(nil)
		}
		return obj, nil
	}
	lean := &corev1.Pod{
		TypeMeta: pod.TypeMeta,
		ObjectMeta: metav1.ObjectMeta{
			Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID, ResourceVersion: pod.ResourceVersion, Labels: pod.Labels,
			CreationTimestamp: pod.CreationTimestamp, DeletionTimestamp: pod.DeletionTimestamp,
			Annotations: presetAnnotations(pod), OwnerReferences: controller(pod),
		},
		Status: corev1.PodStatus{
			Phase: pod.Status.Phase, PodIP: pod.Status.PodIP, Conditions: pod.Status.Conditions,
			ContainerStatuses: statuses(pod.Status.ContainerStatuses), InitContainerStatuses: statuses(pod.Status.InitContainerStatuses),
		},
	}
	lean.Spec.ServiceAccountName = pod.Spec.ServiceAccountName // it tells gateways from impostors
	lean.Spec.Containers = containers(pod.Spec.Containers)
	lean.Spec.InitContainers = containers(pod.Spec.InitContainers)
	return lean, nil
}

// containers keeps the names and ports of those with ports: a preset, which may be chosen later,
// finds one by name.
func containers(all []corev1.Container) []corev1.Container {
	var kept []corev1.Container
	for i := range all {
		if len(all[i].Ports) > 0 {
			kept = append(kept, corev1.Container{Name: all[i].Name, Ports: all[i].Ports})
		}
	}
	return kept
}

// controller keeps of a pod's owners the one that controls it.
func controller(pod *corev1.Pod) []metav1.OwnerReference {
	c := metav1.GetControllerOfNoCopy(pod)
	if c == nil {
		return nil
	}
	return []metav1.OwnerReference{{Kind: c.Kind, Name: c.Name, Controller: c.Controller}}
}

func statuses(all []corev1.ContainerStatus) []corev1.ContainerStatus {
	kept := make([]corev1.ContainerStatus, 0, len(all))
	for i := range all {
		kept = append(kept, corev1.ContainerStatus{Name: all[i].Name, State: all[i].State})
	}
	return kept
}

// podOf returns the pod of an informer's object, nil for anything else. An object whose deletion
// was missed comes wrapped.
func podOf(obj any) *corev1.Pod {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	pod, _ := obj.(*corev1.Pod)
	return pod
}

func finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// port finds a container port by name, and the container's name.
func port(pod *corev1.Pod, name string) (number int, container string) {
	for _, all := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range all {
			for _, p := range all[i].Ports {
				if p.Name == name {
					return int(p.ContainerPort), all[i].Name
				}
			}
		}
	}
	return 0, ""
}

// running tells whether a container runs; without a name, whether any does.
func running(pod *corev1.Pod, container string) bool {
	for _, all := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range all {
			if (container == "" || all[i].Name == container) && all[i].State.Running != nil {
				return true
			}
		}
	}
	return false
}

// describe turns a pod as seen at now into what the store keeps. When old, the pod was there before
// this process looked, and its instants are what the API says rather than when they were seen.
func describe(pod *corev1.Pod, now time.Time, old bool) store.Pod {
	seen := func(told time.Time) time.Time {
		if old && !told.IsZero() {
			return told
		}
		return now
	}
	p := store.Pod{
		Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, Labels: pod.Labels, IP: pod.Status.PodIP, State: algorithms.PodStarting,
		Created: seen(pod.CreationTimestamp.Time),
	}
	var container string
	p.MetricsPort, container = port(pod, wire.MetricsPortName)
	p.Running = running(pod, container)
	for i := range pod.Status.Conditions {
		c := &pod.Status.Conditions[i]
		if c.Status != corev1.ConditionTrue {
			continue
		}
		switch c.Type {
		case corev1.PodScheduled:
			p.Scheduled = seen(c.LastTransitionTime.Time)
		case corev1.PodReady:
			p.State, p.Ready = algorithms.PodReady, seen(c.LastTransitionTime.Time)
		default:
		}
	}
	for i := range pod.Status.ContainerStatuses {
		if r := pod.Status.ContainerStatuses[i].State.Running; r != nil {
			if at := seen(r.StartedAt.Time); p.Started.IsZero() || at.Before(p.Started) {
				p.Started = at
			}
		}
	}
	if pod.DeletionTimestamp != nil {
		p.State = algorithms.PodTerminating
	}
	p.Trouble = trouble(pod)
	return p
}

// trouble says why a container cannot start without somebody's help.
func trouble(pod *corev1.Pod) string {
	for _, all := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range all {
			w := all[i].State.Waiting
			if w == nil {
				continue
			}
			switch w.Reason {
			case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CrashLoopBackOff",
				"CreateContainerConfigError", "CreateContainerError", "RunContainerError":
				if w.Message == "" {
					return fmt.Sprintf("%s: container %s", w.Reason, all[i].Name)
				}
				return fmt.Sprintf("%s: container %s: %s", w.Reason, all[i].Name, w.Message)
			}
		}
	}
	return ""
}
