// Package explain turns an Autoscaler's status and journal into sentences for people.
package explain

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/scaler"
)

// Options say how much is written.
type Options struct {
	// Now is the instant from which ages count.
	Now time.Time
	// Last is how many decisions are shown, newest first.
	Last int
	// All shows rounds that changed nothing, too; the latest round is shown in any case.
	All bool
	// Terms shows the numbers behind each decision.
	Terms bool
}

// Write explains the Autoscaler: its state, what keeps it from scaling, its latest wake-up and
// its last decisions, newest first. They are those of its journal, oldest first, and those of its
// status from before that; without a journal, those of its status.
func Write(w io.Writer, as *v1alpha1.Autoscaler, journal []scaler.Entry, o Options) error {
	var b strings.Builder
	st := &as.Status
	phase := st.Phase
	if phase == "" {
		phase = "not seen by the controller yet"
	}
	fmt.Fprintf(&b, "%s/%s scales %s %s: %s, %d replicas (%d ready), %d wanted", as.Namespace, as.Name,
		as.Spec.ScaleTargetRef.Kind, as.Spec.ScaleTargetRef.Name, phase, st.CurrentReplicas, st.ReadyReplicas, st.DesiredReplicas)
	if st.Concurrency != "" {
		fmt.Fprintf(&b, ", concurrency %s at %g a pod", st.Concurrency, as.Spec.TargetPerPod())
	}
	b.WriteString("\n")
	for _, kind := range []string{v1alpha1.ConditionAbleToScale, v1alpha1.ConditionScalingActive} {
		if c := meta.FindStatusCondition(st.Conditions, kind); c != nil && c.Status != metav1.ConditionTrue {
			fmt.Fprintf(&b, "%s is %s since %s ago: %s: %s\n", kind, c.Status, ago(o.Now, c.LastTransitionTime.Time), c.Reason, c.Message)
		}
	}
	if c := st.LastColdStart; c != nil {
		fmt.Fprintf(&b, "last cold start, %s ago, %d held, seconds after the first request:", ago(o.Now, c.Detected.Time), c.Held)
		for _, p := range []struct{ name, value string }{
			{"decided", c.Decided}, {"pod created", c.PodCreated}, {"scheduled", c.Scheduled}, {"started", c.Started}, {"answering", c.Answering}, {"released", c.Released},
		} {
			if p.value != "" {
				fmt.Fprintf(&b, " %s %s", p.name, p.value)
			}
		}
		b.WriteString("\n")
	}
	left := o.Last
	writeJournal(&b, journal, &left, o)
	older := st.Decisions
	if len(journal) > 0 {
		older = slices.DeleteFunc(slices.Clone(older), func(d v1alpha1.DecisionRecord) bool { return !d.Time.Time.Before(journal[0].Since) })
	}
	if len(journal) == 0 && len(older) == 0 {
		b.WriteString("no decision has changed anything yet\n")
	}
	for _, d := range older[:min(len(older), left)] {
		verb := "scaled"
		if !d.Applied {
			verb = "would scale"
		}
		fmt.Fprintf(&b, "%s  %s %d → %d  %s: %s\n", clock(d.Time.Time), verb, d.From, d.To, d.Reason, d.Message)
		if o.Terms {
			for _, k := range slices.Sorted(maps.Keys(d.Terms)) {
				fmt.Fprintf(&b, "    %s = %s\n", k, d.Terms[k])
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// clock is an instant of today.
func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }

func ago(now, then time.Time) string { return now.Sub(then).Round(time.Second).String() }
