package main

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/sluice-autoscaler/sluice/bench/live"
)

// What happens to a Deployment's pods and its count is noted, in order, and nothing of other pods.
func TestWatchWorkload(t *testing.T) {
	t.Parallel()
	labels := map[string]string{"app": "web"}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "web"},
		Spec:       appsv1.DeploymentSpec{Replicas: new(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: labels}},
	}
	kube := fake.NewClientset(d)
	rec := &live.Recorder{}
	start := time.Now()
	stop, err := watchWorkload(t.Context(), kube, "demo", "web", rec)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pods := kube.CoreV1().Pods("demo")
	d.Spec.Replicas = new(int32(1))
	_, err = kube.AppsV1().Deployments("demo").Update(ctx, d, metav1.UpdateOptions{})
	check(err)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "web-1", UID: "1", Labels: labels}}
	_, err = pods.Create(ctx, p, metav1.CreateOptions{})
	check(err)
	see := func(steps int) {
		t.Helper()
		for range 1000 {
			if c := rec.Cluster(start); len(c.Pods) == 1 && len(c.Pods[0].Steps) == steps {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Fatalf("%+v, want %d steps", rec.Cluster(start), steps)
	}
	see(1)
	for i, change := range []func(){
		func() {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}}
		},
		func() {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		},
		func() {
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue})
		},
		func() { p.DeletionTimestamp = &metav1.Time{Time: time.Now()} },
	} {
		change()
		_, err := pods.Update(ctx, p, metav1.UpdateOptions{})
		check(err)
		see(i + 2)
	}
	check(pods.Delete(ctx, "web-1", metav1.DeleteOptions{}))
	see(6)
	c := rec.Cluster(start)
	var states []live.State
	for _, s := range c.Pods[0].Steps {
		states = append(states, s.State)
	}
	if diff := cmp.Diff([]live.State{live.Created, live.Scheduled, live.Started, live.Ready, live.Ending, live.Gone}, states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	if len(c.Wanted) != 2 || c.Wanted[1].Replicas != 1 {
		t.Errorf("wanted %+v, want 0 and then 1", c.Wanted)
	}
}

func TestWatchWorkloadWithoutIt(t *testing.T) {
	t.Parallel()
	if _, err := watchWorkload(context.WithoutCancel(t.Context()), fake.NewClientset(), "demo", "web", &live.Recorder{}); err == nil {
		t.Error("watched a Deployment that is not there")
	}
}
