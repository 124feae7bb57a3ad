package provider

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"

	"github.com/sluice-autoscaler/sluice/adapter/scrape/preset"
)

// presetAnnotation keeps of annotations the one that chooses a preset.
func presetAnnotation(all map[string]string) map[string]string {
	if name, ok := all[preset.Annotation]; ok {
		return map[string]string{preset.Annotation: name}
	}
	return nil
}

// PresetOf is the annotation that chooses a preset of the workload that a pod is of; ok is false
// when it has none.
func (i *Informers) PresetOf(pod *corev1.Pod) (name string, ok bool) {
	w, ok := i.controller(pod.Namespace, pod)
	if !ok {
		return "", false
	}
	return i.presetOf(w)
}

// presetOf is the annotation of a workload, else of the Deployment that a ReplicaSet is of.
func (i *Informers) presetOf(w workload) (name string, ok bool) {
	if name, ok = w.meta.Annotations[preset.Annotation]; ok {
		return name, true
	}
	owner, ok := i.controller(w.meta.Namespace, w.meta)
	if !ok {
		return "", false
	}
	name, ok = owner.meta.Annotations[preset.Annotation]
	return name, ok
}

// controller finds the workload that controls an object.
func (i *Informers) controller(namespace string, o metav1.Object) (workload, bool) {
	c := metav1.GetControllerOfNoCopy(o)
	if c == nil {
		return workload{}, false
	}
	for _, w := range i.watches[1:] {
		if (c.Kind == "Deployment" && w.resource != deployments) || (c.Kind == "ReplicaSet" && w.resource != replicasets) ||
			(c.Kind == "StatefulSet" && w.resource != statefulsets) {
			continue
		}
		if found, ok, err := w.informer.GetIndexer().GetByKey(namespace + "/" + c.Name); ok && err == nil {
			return workloadOf(found)
		}
	}
	return workload{}, false
}

// OnPreset has refresh called with the pods of each workload whose annotation that chooses a preset
// appears, changes or goes. It is to be called before Run.
func (i *Informers) OnPreset(refresh func(namespace string, pods labels.Selector)) error {
	tell := func(o any) {
		w, ok := workloadOf(o)
		if !ok || w.selector == nil {
			return
		}
		if pods, err := metav1.LabelSelectorAsSelector(w.selector); err == nil {
			refresh(w.meta.Namespace, pods)
		}
	}
	for _, w := range i.watches[1:] {
		_, err := w.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(o any) {
				if w, ok := workloadOf(o); ok {
					if _, chosen := i.presetOf(w); chosen {
						tell(o)
					}
				}
			},
			UpdateFunc: func(before, after any) {
				was, _ := workloadOf(before)
				is, _ := workloadOf(after)
				a, hadOne := was.meta.Annotations[preset.Annotation]
				b, hasOne := is.meta.Annotations[preset.Annotation]
				if a != b || hadOne != hasOne {
					tell(after)
				}
			},
		})
		if err != nil {
			return err
		}
	}
	return nil
}
