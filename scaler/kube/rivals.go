package kube

import (
	"cmp"
	"context"
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
)

// rivals are others that claim the same target or Service.
type rivals struct {
	// winner says who has precedence, "" for nobody: any HPA, or an older Autoscaler. loser says
	// which younger Autoscaler yields, "" for none.
	winner, loser string
	// object is the winner.
	object runtime.Object
}

// neighbours are what a round must know of others in its namespace. They are looked for again when
// one of them has changed.
type neighbours struct {
	rivals
	// surplus says that the namespace has more Autoscalers than are driven in one.
	surplus bool
	// at is the count of changes at which they were found, generation that of the Autoscaler.
	at         uint64
	generation int64
	known      bool
}

// look finds the neighbours of an Autoscaler.
func (r *Reconciler) look(ctx context.Context, w *workload, as *v1alpha1.Autoscaler) (*neighbours, error) {
	at := r.changes.Load() // before the cache is read: what changes meanwhile is looked for again
	if n := &w.neighbours; n.known && n.at == at && n.generation == as.Generation {
		return n, nil
	}
	n := neighbours{at: at, generation: as.Generation, known: r.noting.Load()}
	var err error
	if n.surplus, err = r.surplus(ctx, as); err != nil {
		return nil, err
	}
	if !n.surplus {
		if n.rivals, err = r.rivals(ctx, as, w.object); err != nil {
			return nil, err
		}
	}
	w.neighbours = n
	return &w.neighbours, nil
}

// rivals finds the other writers of the same target, and the other Autoscalers of the same Service.
// A dry run has none.
func (r *Reconciler) rivals(ctx context.Context, as *v1alpha1.Autoscaler, object loop.Ref) (rivals, error) {
	var out rivals
	if as.Spec.Mode == v1alpha1.ModeDryRun {
		return out, nil
	}
	target := client.MatchingFields{ByTarget: targetKey(object)}
	var hpas autoscalingv2.HorizontalPodAutoscalerList
	if err := r.Client.List(ctx, &hpas, client.InNamespace(as.Namespace), target, client.UnsafeDisableDeepCopy); err != nil {
		return out, fmt.Errorf("find HPAs of %s: %w", object, err)
	}
	if len(hpas.Items) > 0 {
		h := &hpas.Items[0]
		return rivals{winner: "HorizontalPodAutoscaler " + h.Name + " scales the same target", object: h}, nil
	}
	out, err := r.contest(ctx, as, target, "scales the same target")
	if err != nil || out.winner != "" || as.Spec.ServiceRef == nil {
		return out, err
	}
	name := as.Spec.ServiceRef.Name
	ofService, err := r.contest(ctx, as, client.MatchingFields{ByService: name}, "names the same Service "+name)
	ofService.loser = cmp.Or(out.loser, ofService.loser)
	return ofService, err
}

// contest finds the other Autoscalers that an index finds for the same.
func (r *Reconciler) contest(ctx context.Context, as *v1alpha1.Autoscaler, by client.MatchingFields, what string) (rivals, error) {
	var out rivals
	var others v1alpha1.AutoscalerList
	if err := r.Client.List(ctx, &others, client.InNamespace(as.Namespace), by, client.UnsafeDisableDeepCopy); err != nil {
		return out, fmt.Errorf("find Autoscalers by %v: %w", by, err)
	}
	for i := range others.Items {
		o := &others.Items[i]
		if o.Name == as.Name || o.Spec.Mode == v1alpha1.ModeDryRun || !o.DeletionTimestamp.IsZero() {
			continue
		}
		text := "Autoscaler " + o.Name + " " + what
		if older(o, as) {
			return rivals{winner: text, object: o}, nil
		}
		out.loser = cmp.Or(out.loser, text)
	}
	return out, nil
}

// older tells which of two Autoscalers has precedence.
func older(a, b *v1alpha1.Autoscaler) bool {
	at, bt := a.CreationTimestamp.Time, b.CreationTimestamp.Time
	return at.Before(bt) || at.Equal(bt) && a.Name < b.Name
}

// tellRivals records an event on the winner when one yields to it: who looks at the HPA, or at the
// older Autoscaler, learns that there are two. The younger one's condition says it there.
func (r *Reconciler) tellRivals(w *workload, as *v1alpha1.Autoscaler, now rivals) {
	if now.winner != "" && now.winner != w.told.winner {
		r.Recorder.Eventf(now.object, as, corev1.EventTypeWarning, "AnotherAutoscaler", "Yield",
			"Autoscaler %s names the same target or Service; it does nothing while this object exists", as.Name)
	}
	now.object = nil
	w.told = now
}

// surplus tells whether a namespace has more Autoscalers than are driven in one, and this is one of
// the youngest.
func (r *Reconciler) surplus(ctx context.Context, as *v1alpha1.Autoscaler) (bool, error) {
	if r.MaxPerNamespace <= 0 {
		return false, nil
	}
	var all v1alpha1.AutoscalerList
	if err := r.Client.List(ctx, &all, client.InNamespace(as.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return false, fmt.Errorf("list Autoscalers of %s: %w", as.Namespace, err)
	}
	n := 0
	for i := range all.Items {
		if o := &all.Items[i]; o.Name != as.Name && older(o, as) {
			n++
		}
	}
	return n >= r.MaxPerNamespace, nil
}
