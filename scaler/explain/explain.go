// Package explain turns an Autoscaler's status into sentences for people.
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
)

// Write explains the Autoscaler at an instant: its state, what keeps it from scaling, its latest
// wake-up and its last n decisions that changed something, newest first; with terms, the numbers
// behind each.
func Write(w io.Writer, as *v1alpha1.Autoscaler, now time.Time, n int, terms bool) error {
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
			fmt.Fprintf(&b, "%s is %s since %s ago: %s: %s\n", kind, c.Status, ago(now, c.LastTransitionTime.Time), c.Reason, c.Message)
		}
	}
	if c := st.LastColdStart; c != nil {
		fmt.Fprintf(&b, "last cold start, %s ago, %d held, seconds after the first request:", ago(now, c.Detected.Time), c.Held)
		for _, p := range []struct{ name, value string }{
			{"decided", c.Decided}, {"pod created", c.PodCreated}, {"scheduled", c.Scheduled}, {"started", c.Started}, {"answering", c.Answering}, {"released", c.Released},
		} {
			if p.value != "" {
				fmt.Fprintf(&b, " %s %s", p.name, p.value)
			}
		}
		b.WriteString("\n")
	}
	if len(st.Decisions) == 0 {
		b.WriteString("no decision has changed anything yet\n")
	}
	for i, d := range st.Decisions {
		if i == n {
			break
		}
		verb := "scaled"
		if !d.Applied {
			verb = "would scale"
		}
		fmt.Fprintf(&b, "%s  %s %d → %d  %s: %s\n", d.Time.UTC().Format("15:04:05.000"), verb, d.From, d.To, d.Reason, d.Message)
		if terms {
			for _, k := range slices.Sorted(maps.Keys(d.Terms)) {
				fmt.Fprintf(&b, "    %s = %s\n", k, d.Terms[k])
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func ago(now, then time.Time) string { return now.Sub(then).Round(time.Second).String() }
