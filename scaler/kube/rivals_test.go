package kube

import (
	"context"
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
)

// TestNeighboursAreLookedForOnce sees that rounds look for others once, and again when somebody
// changed; without anybody who counts changes, in each round.
func TestNeighboursAreLookedForOnce(t *testing.T) {
	t.Parallel()
	scheme := runtime.NewScheme()
	if err := autoscalingv2.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	ref := autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"}
	as := &v1alpha1.Autoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Generation: 1}, Spec: v1alpha1.AutoscalerSpec{ScaleTargetRef: ref}}
	lists := 0
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(as).
		WithIndex(&autoscalingv2.HorizontalPodAutoscaler{}, ByTarget, TargetOfHPA).
		WithIndex(&v1alpha1.Autoscaler{}, ByTarget, TargetOfAutoscaler).
		WithInterceptorFuncs(interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, o ...client.ListOption) error {
			lists++
			return c.List(ctx, l, o...)
		}}).Build()
	r := New(Options{Client: c})
	w := &workload{object: TargetRef("shop", ref)}
	look := func(what string, searched bool, winner bool) {
		t.Helper()
		before := lists
		n, err := r.look(t.Context(), w, as)
		if err != nil {
			t.Fatal(err)
		}
		if (lists > before) != searched || (n.winner != "") != winner {
			t.Errorf("%s: %d lists, winner %q; want lists %v, a winner %v", what, lists-before, n.winner, searched, winner)
		}
	}
	look("nobody counts", true, false)
	look("nobody counts, again", true, false)
	note := r.noteChange()
	r.noting.Store(true)
	look("the first with a count", true, false)
	look("nothing changed", false, false)

	hpa := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{ScaleTargetRef: ref}}
	if err := c.Create(t.Context(), hpa); err != nil {
		t.Fatal(err)
	}
	if !note.Create(event.CreateEvent{Object: hpa}) {
		t.Error("an event is held back, want it passed on")
	}
	look("an HPA came", true, true)
	look("the HPA stands", false, true)
	if err := c.Delete(t.Context(), hpa); err != nil {
		t.Fatal(err)
	}
	note.Delete(event.DeleteEvent{Object: hpa})
	look("the HPA went", true, false)
	as.Generation++
	look("its own spec changed", true, false)
}
