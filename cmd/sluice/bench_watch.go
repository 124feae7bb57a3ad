package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sluice-autoscaler/sluice/bench/live"
)

// syncPatience is how long the first look at the cluster may take.
const syncPatience = 20 * time.Second

// kubeTarget is the workload that a replay watches.
type kubeTarget struct{ kubeconfig, namespace, deployment string }

func (t kubeTarget) config() (*rest.Config, string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = t.kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{})
	cfg, err := loader.ClientConfig()
	if err != nil {
		return nil, "", fmt.Errorf("load the kubeconfig: %w", err)
	}
	namespace := t.namespace
	if namespace == "" {
		if namespace, _, err = loader.Namespace(); err != nil {
			return nil, "", fmt.Errorf("find the namespace: %w", err)
		}
	}
	return cfg, namespace, nil
}

// watch follows the Deployment and its pods into rec, by watches rather than polls: a change is
// noted within milliseconds. It returns once the present state is known; stop ends it and waits.
func (t kubeTarget) watch(ctx context.Context, rec *live.Recorder) (stop func(), err error) {
	cfg, namespace, err := t.config()
	if err != nil {
		return nil, err
	}
	kube, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	return watchWorkload(ctx, kube, namespace, t.deployment, rec)
}

func watchWorkload(ctx context.Context, kube kubernetes.Interface, namespace, deployment string, rec *live.Recorder) (stop func(), err error) {
	asking, cancelAsking := context.WithTimeout(ctx, syncPatience)
	defer cancelAsking()
	d, err := kube.AppsV1().Deployments(namespace).Get(asking, deployment, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read Deployment %s/%s: %w", namespace, deployment, err)
	}
	selector := metav1.FormatLabelSelector(d.Spec.Selector)
	pods := informers.NewSharedInformerFactoryWithOptions(kube, 0, informers.WithNamespace(namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = selector }))
	deployments := informers.NewSharedInformerFactoryWithOptions(kube, 0, informers.WithNamespace(namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("metadata.name", deployment).String()
		}))
	podEvents, err := pods.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { notePod(rec, obj, false) },
		UpdateFunc: func(_, obj any) { notePod(rec, obj, false) },
		DeleteFunc: func(obj any) { notePod(rec, obj, true) },
	})
	if err != nil {
		return nil, fmt.Errorf("watch pods of %s/%s: %w", namespace, deployment, err)
	}
	countEvents, err := deployments.Apps().V1().Deployments().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { noteWanted(rec, obj) },
		UpdateFunc: func(_, obj any) { noteWanted(rec, obj) },
	})
	if err != nil {
		return nil, fmt.Errorf("watch Deployment %s/%s: %w", namespace, deployment, err)
	}
	running, cancel := context.WithCancel(ctx)
	pods.StartWithContext(running)
	deployments.StartWithContext(running)
	stop = func() {
		cancel()
		pods.Shutdown()
		deployments.Shutdown()
	}
	if !cache.WaitForCacheSync(asking.Done(), podEvents.HasSynced, countEvents.HasSynced) {
		stop()
		return nil, errors.Join(fmt.Errorf("watch %s/%s: nothing was heard of it for %v: check that the kubeconfig's user may list and watch pods and deployments", namespace, deployment, syncPatience), ctx.Err())
	}
	return stop, nil
}

func notePod(rec *live.Recorder, obj any, deleted bool) {
	now := time.Now()
	if last, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = last.Obj
	}
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	s := podState(p)
	if deleted {
		s = live.Gone
	}
	rec.Pod(now, string(p.UID), p.Name, s)
}

// podState is a pod's state by what its object says.
func podState(p *corev1.Pod) live.State {
	is := func(kind corev1.PodConditionType) bool {
		for _, c := range p.Status.Conditions {
			if c.Type == kind {
				return c.Status == corev1.ConditionTrue
			}
		}
		return false
	}
	running := len(p.Status.ContainerStatuses) > 0
	for _, c := range p.Status.ContainerStatuses {
		running = running && c.State.Running != nil
	}
	switch {
	case p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
		return live.Gone
	case p.DeletionTimestamp != nil:
		return live.Ending
	case is(corev1.PodReady):
		return live.Ready
	case running:
		return live.Started
	case is(corev1.PodScheduled):
		return live.Scheduled
	}
	return live.Created
}

func noteWanted(rec *live.Recorder, obj any) {
	now := time.Now()
	if d, ok := obj.(*appsv1.Deployment); ok && d.Spec.Replicas != nil {
		rec.Wanted(now, int(*d.Spec.Replicas))
	}
}
