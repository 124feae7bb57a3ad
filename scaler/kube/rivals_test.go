package kube

import (
	"context"
	"fmt"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
)

// TestSpread sees that rounds that end together come at instants of their own, each within a tick
// and then once in a tick.
func TestSpread(t *testing.T) {
	t.Parallel()
	const tick = 2 * time.Second
	now := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	var buckets [20]int
	for i := range 10000 {
		phase := phaseOf(types.NamespacedName{Namespace: "shop", Name: fmt.Sprintf("web-%05d", i)}, tick)
		d := spread(now, tick, phase)
		if d <= 0 || d > tick {
			t.Fatalf("spread of phase %v = %v, want within the tick", phase, d)
		}
		for _, late := range []time.Duration{0, time.Millisecond, 700 * time.Millisecond} {
			if got, want := spread(now.Add(d+late), tick, phase), tick-late; got != want {
				t.Fatalf("a round %v late is followed after %v, want %v", late, got, want)
			}
		}
		buckets[int(int64(len(buckets))*int64(d-1)/int64(tick))]++
	}
	for i, n := range buckets {
		if n < 400 || n > 600 {
			t.Errorf("%d of 10,000 rounds in twentieth %d of the tick, want about 500", n, i)
		}
	}
}

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
