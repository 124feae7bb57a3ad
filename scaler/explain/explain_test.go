package explain_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
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
	if err := explain.Write(&b, as, at, 5, true); err != nil {
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
