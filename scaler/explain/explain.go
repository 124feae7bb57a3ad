// Package explain turns an Autoscaler's status and journal into sentences for people.
package explain

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

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
	var b lines
	st := &as.Status
	phase := st.Phase
	if phase == "" {
		phase = "not seen by the controller yet"
	}
	state := fmt.Sprintf("%s/%s scales %s %s: %s, %d replicas (%d ready), %d wanted", as.Namespace, as.Name,
		as.Spec.ScaleTargetRef.Kind, as.Spec.ScaleTargetRef.Name, phase, st.CurrentReplicas, st.ReadyReplicas, st.DesiredReplicas)
	if st.Concurrency != "" {
		state += fmt.Sprintf(", concurrency %s at %g a pod", st.Concurrency, as.Spec.TargetPerPod())
	}
	b.add("%s", state)
	for _, kind := range []string{v1alpha1.ConditionAbleToScale, v1alpha1.ConditionScalingActive} {
		if c := meta.FindStatusCondition(st.Conditions, kind); c != nil && c.Status != metav1.ConditionTrue {
			b.add("%s is %s since %s ago: %s: %s", kind, c.Status, ago(o.Now, c.LastTransitionTime.Time), c.Reason, c.Message)
		}
	}
	if c := st.LastColdStart; c != nil {
		var start strings.Builder
		fmt.Fprintf(&start, "last cold start, %s ago, %d held, seconds after the first request:", ago(o.Now, c.Detected.Time), c.Held)
		for _, p := range []struct{ name, value string }{
			{"decided", c.Decided}, {"pod created", c.PodCreated}, {"scheduled", c.Scheduled}, {"started", c.Started}, {"answering", c.Answering}, {"released", c.Released},
		} {
			if p.value != "" {
				fmt.Fprintf(&start, " %s %s", p.name, p.value)
			}
		}
		b.add("%s", start.String())
	}
	left := o.Last
	writeJournal(&b, journal, &left, o)
	older := st.Decisions
	if len(journal) > 0 {
		older = slices.DeleteFunc(slices.Clone(older), func(d v1alpha1.DecisionRecord) bool { return !d.Time.Time.Before(journal[0].Since) })
	}
	if len(journal) == 0 && len(older) == 0 {
		b.add("no decision has changed anything yet")
	}
	for _, d := range older[:min(len(older), left)] {
		verb := "scaled"
		if !d.Applied {
			verb = "would scale"
		}
		b.add("%s  %s %d → %d  %s: %s", clock(d.Time.Time), verb, d.From, d.To, d.Reason, d.Message)
		if o.Terms {
			for _, k := range slices.Sorted(maps.Keys(d.Terms)) {
				b.add("    %s = %s", k, d.Terms[k])
			}
		}
	}
	_, err := io.WriteString(w, b.text.String())
	return err
}

// lines is a text of whole lines. Much of it is other people's: no part of a line makes another, or
// speaks to the terminal.
type lines struct{ text strings.Builder }

func (l *lines) add(format string, args ...any) {
	l.text.WriteString(Printable(fmt.Sprintf(format, args...)))
	l.text.WriteString("\n")
}

// Printable escapes what is not to reach a terminal as it is: all that does not print, line ends
// among it.
func Printable(s string) string {
	if strings.IndexFunc(s, hidden) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if hidden(r) {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func hidden(r rune) bool { return !unicode.IsGraphic(r) }

// clock is an instant of today.
func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }

func ago(now, then time.Time) string { return now.Sub(then).Round(time.Second).String() }
