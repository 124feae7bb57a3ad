package explain_test

import (
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/scaler"
	"github.com/sluice-autoscaler/sluice/scaler/explain"
)

func TestWrite(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	as := &v1alpha1.Autoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec:       v1alpha1.AutoscalerSpec{ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: "web"}},
		Status: v1alpha1.AutoscalerStatus{
			Phase: "Awake", CurrentReplicas: 3, ReadyReplicas: 2, DesiredReplicas: 3, Concurrency: "25.00",
			Conditions:    []metav1.Condition{{Type: v1alpha1.ConditionScalingActive, Status: metav1.ConditionFalse, Reason: "PartialData", Message: "half is known", LastTransitionTime: metav1.NewTime(at.Add(-time.Minute))}},
			LastColdStart: &v1alpha1.ColdStartStatus{Detected: metav1.NewMicroTime(at.Add(-10 * time.Second)), Decided: "0.004", Released: "0.900", Held: 7},
			Decisions: []v1alpha1.DecisionRecord{
				{Time: metav1.NewMicroTime(at), From: 1, To: 3, Reason: "Panic", Message: "25 requests", Applied: true, Terms: map[string]string{"target": "10"}},
				{Time: metav1.NewMicroTime(at), From: 0, To: 1, Reason: "Wake", Message: "7 wait"},
			},
		},
	}
	var b strings.Builder
	if err := explain.Write(&b, as, nil, explain.Options{Now: at, Last: 5, Terms: true}); err != nil {
		t.Fatal(err)
	}
	want := `shop/web scales Deployment web: Awake, 3 replicas (2 ready), 3 wanted, concurrency 25.00 at 70 a pod
ScalingActive is False since 1m0s ago: PartialData: half is known
last cold start, 10s ago, 7 held, seconds after the first request: decided 0.004 released 0.900
12:00:00.000  scaled 1 → 3  Panic: 25 requests
    target = 10
12:00:00.000  would scale 0 → 1  Wake: 7 wait
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("Write (-want +got):\n%s", diff)
	}
}

// TestWriteJournal has a journal that began when a decision of the status was already made.
func TestWriteJournal(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	entry := func(after time.Duration, rounds int, r loop.Record) scaler.Entry {
		r.At = at.Add(after)
		return scaler.Entry{Record: r, Since: r.At.Add(-2 * time.Second * time.Duration(rounds-1)), Rounds: rounds}
	}
	seen := func(value float64, known bool) []algorithms.Signal {
		s := algorithms.Signal{Name: algorithms.Concurrency, Window: 6 * time.Second, Value: value, Known: known, Coverage: 1}
		if !known {
			s.Coverage, s.Age = 0.4, 3*time.Second
		}
		return []algorithms.Signal{s, {Name: algorithms.Waiting, Value: 2, Known: true, Coverage: 1}}
	}
	journal := []scaler.Entry{
		entry(time.Second, 1, loop.Record{From: 0, To: 0, Reason: "Idle", Message: "nobody comes", Valid: true, Signals: seen(0, true)}),
		entry(3*time.Second, 1, loop.Record{
			From: 1, To: 10, Applied: true, Reason: "Panic", Message: "125 requests", Valid: true, Signals: seen(125, true),
			Clamps: []algorithms.Clamp{{Rule: "MaxReplicas", From: 13, To: 10}}, Terms: []algorithms.Term{{Name: "target", Value: 10}},
			Replicas: algorithms.Replicas{Ready: 1, Starting: 2, Terminating: 3},
		}),
		entry(5*time.Second, 1, loop.Record{From: 10, To: 12, Reason: "Panic", Message: "m", Fault: "the API server is away", Mode: loop.ModeApply}),
		entry(7*time.Second, 1, loop.Record{From: 10, To: 12, Reason: "Panic", Message: "m", Mode: loop.ModeDryRun}),
		entry(67*time.Second, 30, loop.Record{
			From: 10, To: 10, Reason: "NoData", Message: "half is unknown", Waiting: "the change has to settle",
			Clamps: []algorithms.Clamp{{Rule: "MissingData", From: -1, To: 10}}, Signals: seen(7, false), Replicas: algorithms.Replicas{Ready: 10},
		}),
	}
	as := &v1alpha1.Autoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Status: v1alpha1.AutoscalerStatus{
		Phase: "Awake",
		Decisions: []v1alpha1.DecisionRecord{ // the first is in the journal, too
			{Time: metav1.NewMicroTime(at.Add(3 * time.Second)), From: 1, To: 10, Reason: "Panic", Message: "125 requests", Applied: true},
			{Time: metav1.NewMicroTime(at), From: 0, To: 1, Reason: "Wake", Message: "7 wait", Applied: true, Terms: map[string]string{"waiting": "7"}},
		},
	}}
	latest := `12:01:07.000  kept 10  NoData: half is unknown; the change has to settle (30 rounds since 12:00:09.000)
    rule MissingData: no answer → 10
    seen: concurrency over 6s unknown (3s old, 40 % known), waiting 2, 10 ready
`
	changes := `12:00:07.000  would scale 10 → 12  Panic: m
    seen: 0 ready
12:00:05.000  could not scale 10 → 12  Panic: m
    not carried out: the API server is away
    seen: 0 ready
`
	panicked := `12:00:03.000  scaled 1 → 10  Panic: 125 requests
    rule MaxReplicas: 13 → 10
    seen: concurrency over 6s 125, waiting 2, 1 ready, 2 starting, 3 terminating
`
	for _, c := range []struct {
		name string
		o    explain.Options
		want string
	}{
		{"changes", explain.Options{Last: 10}, latest + changes + panicked + "12:00:00.000  scaled 0 → 1  Wake: 7 wait\n"},
		{"few", explain.Options{Last: 1}, latest},
		{"terms", explain.Options{Last: 10, Terms: true}, latest + changes + panicked + "    target = 10\n12:00:00.000  scaled 0 → 1  Wake: 7 wait\n    waiting = 7\n"},
		{"all", explain.Options{Last: 5, All: true}, latest + changes + panicked + "12:00:01.000  kept 0  Idle: nobody comes\n    seen: concurrency over 6s 0, waiting 2, 0 ready\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			if err := explain.Write(&b, as, journal, c.o); err != nil {
				t.Fatal(err)
			}
			_, got, _ := strings.Cut(b.String(), "\n") // the first line is about the status
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("Write (-want +got):\n%s", diff)
			}
		})
	}
}

// What an Autoscaler's owner writes into it is printed, and is no command to a terminal and no line
// of its own.
func TestNothingSpeaksToTheTerminal(t *testing.T) {
	t.Parallel()
	const evil = "a\x1b[2J\x1b]0;x\a\r\nweb/web scales fine\u009b31m\u202e\x00\x7fz"
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	as := &v1alpha1.Autoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: evil, Name: evil},
		Spec:       v1alpha1.AutoscalerSpec{ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: evil, Name: evil}},
		Status: v1alpha1.AutoscalerStatus{
			Phase: evil, Concurrency: evil,
			Conditions:    []metav1.Condition{{Type: v1alpha1.ConditionScalingActive, Status: evil, Reason: evil, Message: evil}},
			LastColdStart: &v1alpha1.ColdStartStatus{Decided: evil, Answering: evil},
			Decisions:     []v1alpha1.DecisionRecord{{Time: metav1.NewMicroTime(at.Add(-time.Hour)), Reason: evil, Message: evil, Terms: map[string]string{evil: evil}}},
		},
	}
	journal := []scaler.Entry{{Since: at, Rounds: 2, Record: loop.Record{
		At: at, Reason: evil, Message: evil, Waiting: evil, Fault: evil, Clamps: []algorithms.Clamp{{Rule: evil}}, Terms: []algorithms.Term{{Name: evil}},
		Signals: []algorithms.Signal{{Name: evil, Source: evil}},
	}}}
	var b strings.Builder
	if err := explain.Write(&b, as, journal, explain.Options{Now: at, Last: 10, Terms: true, All: true}); err != nil {
		t.Fatal(err)
	}
	got := b.String()
	if strings.ContainsFunc(got, func(r rune) bool { return r != '\n' && !unicode.IsGraphic(r) }) {
		t.Errorf("Write gives %q, want nothing that does not print", got)
	}
	if n := strings.Count(got, "\n"); n != 10 {
		t.Errorf("Write gives %d lines, want 10:\n%s", n, got)
	}
	if !strings.Contains(got, `a\x1b[2J`) {
		t.Errorf("Write gives %q, want the text escaped", got)
	}
}
