package discover

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-autoscaler/sluice/adapter/scrape/preset"
	"github.com/sluice-autoscaler/sluice/adapter/store"
)

// endpoint says where a preset reads a pod, nil for nowhere. The pod's annotation chooses the
// preset, else its workload's, else a preset's selector.
func (d *Discoverer) endpoint(pod *corev1.Pod) *store.Endpoint {
	presets := d.Presets
	if presets == nil {
		return nil
	}
	name, annotated := pod.Annotations[preset.Annotation]
	if !annotated && d.PresetOf != nil {
		name, annotated = d.PresetOf(pod)
	}
	var p *preset.Preset
	switch {
	case !annotated:
		if p = presets.Selecting(pod.Labels); p == nil {
			return nil
		}
	case name == "":
		return nil // says: none, whatever a selector says
	default:
		p = presets.Get(name)
	}
	if p == nil {
		return &store.Endpoint{Preset: name, Fault: fmt.Sprintf("annotation %s = %.80q: there is no such preset; there are %s",
			preset.Annotation, name, strings.Join(presets.Names(), ", "))}
	}
	e := &store.Endpoint{Preset: p.Name, Scheme: p.Scheme, Path: p.Path, MinReadyAge: time.Duration(p.MinPodReadyAge)}
	if path, ok := pod.Annotations[preset.PathAnnotation]; ok {
		if e.Path = path; !preset.ValidPath(path) {
			e.Fault = fmt.Sprintf("annotation %s = %.80q: want a path such as /metrics", preset.PathAnnotation, path)
			return e
		}
	}
	ports := []string(p.Port)
	if own, ok := pod.Annotations[preset.PortAnnotation]; ok {
		ports = []string{own}
	}
	number, container := presetPort(pod, ports)
	if number == 0 {
		e.Fault = fmt.Sprintf("it has no container port named %.200s, where preset %s is read; annotation %s names another",
			strings.Join(ports, " or "), p.Name, preset.PortAnnotation)
		return e
	}
	e.Address = net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(number))
	e.Running = running(pod, container)
	e.Started = startedAt(pod, container)
	return e
}

// presetPort finds the first of several ports that the pod has, and its container's name, "" when
// no container declares it.
func presetPort(pod *corev1.Pod, ports []string) (number int, container string) {
	for _, p := range ports {
		if n := preset.PortNumber(p); n != 0 {
			return n, declaring(pod, n)
		}
		if n, c := port(pod, p); n != 0 {
			return n, c
		}
	}
	return 0, ""
}

// declaring is the container that declares a port.
func declaring(pod *corev1.Pod, number int) string {
	for _, all := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range all {
			for _, p := range all[i].Ports {
				if int(p.ContainerPort) == number {
					return all[i].Name
				}
			}
		}
	}
	return ""
}

// startedAt is since when a container runs, by the API's clock; the zero time when it does not, or
// without a name.
func startedAt(pod *corev1.Pod, container string) time.Time {
	for _, all := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range all {
			if r := all[i].State.Running; r != nil && container != "" && all[i].Name == container {
				return r.StartedAt.Time
			}
		}
	}
	return time.Time{}
}

// presetAnnotations keeps those of a pod's annotations that choose how it is read.
func presetAnnotations(pod *corev1.Pod) map[string]string {
	var kept map[string]string
	for _, key := range []string{preset.Annotation, preset.PortAnnotation, preset.PathAnnotation} {
		if v, ok := pod.Annotations[key]; ok {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[key] = v[:min(len(v), 2048)]
		}
	}
	return kept
}
