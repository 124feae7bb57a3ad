package horizontal_test

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-autoscaler/sluice/scaler/explain/horizontal"
)

var now = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func amount(s string) *resource.Quantity { return new(resource.MustParse(s)) }

// external is an External metric with an AverageValue.
func external(name, target string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
		Metric: autoscalingv2.MetricIdentifier{Name: name}, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: amount(target)},
	}}
}

// cpu is the resource with a target of 50 percent, of one container or of all.
func cpu(container string) autoscalingv2.MetricSpec {
	t := autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: new(int32(50))}
	if container != "" {
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ContainerResourceMetricSourceType, ContainerResource: &autoscalingv2.ContainerResourceMetricSource{Name: "cpu", Container: container, Target: t}}
	}
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: "cpu", Target: t}}
}

// pod is a ready pod that requests half a core.
func pod(name string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
	p.Spec.Containers = []corev1.Container{{Name: "app", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("500m")}}}}
	p.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, StartTime: &metav1.Time{Time: now.Add(-time.Hour)},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour))}},
	}
	return p
}

// looked are the conditions of a controller that has looked.
func looked(able, limited string) []autoscalingv2.HorizontalPodAutoscalerCondition {
	held := corev1.ConditionFalse
	if limited != "DesiredWithinRange" {
		held = corev1.ConditionTrue
	}
	return []autoscalingv2.HorizontalPodAutoscalerCondition{
		{Type: autoscalingv2.AbleToScale, Status: corev1.ConditionTrue, Reason: able},
		{Type: autoscalingv2.ScalingActive, Status: corev1.ConditionTrue, Reason: "ValidMetricFound"},
		{Type: autoscalingv2.ScalingLimited, Status: held, Reason: limited},
	}
}

// input is an HPA at 4 of 1 to 10 pods that was steady.
func input(specs ...autoscalingv2.MetricSpec) *horizontal.Input {
	h := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
	h.Spec = autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"}, MinReplicas: new(int32(1)), MaxReplicas: 10, Metrics: specs,
	}
	h.Status = autoscalingv2.HorizontalPodAutoscalerStatus{CurrentReplicas: 4, DesiredReplicas: 4, Conditions: looked("ReadyForNewScale", "DesiredWithinRange")}
	in := &horizontal.Input{Now: now, Settings: horizontal.Default(), HPA: h, Scale: &autoscalingv1.Scale{
		Spec: autoscalingv1.ScaleSpec{Replicas: 4}, Status: autoscalingv1.ScaleStatus{Replicas: 4, Selector: "app=web"},
	}}
	for _, name := range []string{"web-1", "web-2", "web-3", "web-4"} {
		in.Pods = append(in.Pods, pod(name))
	}
	return in
}

func totals(milli ...int64) horizontal.Answer {
	return horizontal.Answer{Totals: milli, At: now.Add(-3 * time.Second)}
}

// uses are readings of the pods in thousandths.
func uses(milli ...int64) horizontal.Answer {
	a := horizontal.Answer{PerPod: map[string]horizontal.Reading{}, At: now.Add(-9 * time.Second), Over: 15 * time.Second}
	for i, v := range milli {
		a.PerPod["web-"+string(rune('1'+i))] = horizontal.Reading{Value: v, At: a.At, Over: a.Over}
	}
	return a
}

func TestSentence(t *testing.T) {
	t.Parallel()
	lost := horizontal.Answer{Trouble: &horizontal.Trouble{Cause: "nothing serves it"}}
	hidden := horizontal.Answer{Trouble: &horizontal.Trouble{Cause: "you may not read it", Hidden: true}}
	for _, c := range []struct {
		name    string
		in      *horizontal.Input
		change  func(*horizontal.Input)
		answers []horizontal.Answer
		state   horizontal.State
		want    string
	}{
		{
			"tolerated", input(cpu("")), nil,
			[]horizontal.Answer{uses(260, 260, 260, 260)},
			horizontal.Steady,
			"Deployment shop/web stays at 4 replicas: cpu is 52% where the target is 50%, a ratio of 1.04, within the tolerance (0.9 to 1.1).",
		},
		{
			"up", input(external("jobs", "10")), nil,
			[]horizontal.Answer{totals(30_000, 29_000)},
			horizontal.Up,
			"Deployment shop/web goes from 4 to 6 replicas: external jobs is 59 where the target is 10 a pod; it asks for 6.",
		},
		{
			"up to the rate", input(external("jobs", "1")), nil,
			[]horizontal.Answer{totals(59_000)},
			horizontal.Up,
			"Deployment shop/web goes from 4 to 8 replicas: external jobs is 59 where the target is 1 a pod; it asks for 59; the rate of scaling up allows 8 now.",
		},
		{
			"at the maximum", input(external("jobs", "1")), func(in *horizontal.Input) { in.HPA.Spec.MaxReplicas = 4 },
			[]horizontal.Answer{totals(59_000)},
			horizontal.Held,
			"Deployment shop/web stays at 4 replicas: external jobs is 59 where the target is 1 a pod; it asks for 59; maxReplicas is 4.",
		},
		{
			"held by what was asked for at the last look", input(external("jobs", "10")), nil,
			[]horizontal.Answer{totals(9_000)},
			horizontal.Held,
			"Deployment shop/web stays at 4 replicas: external jobs is 9 where the target is 10 a pod; it asks for 1; the highest recommendation of the last 5 min counts, which gives 4.",
		},
		{
			"the window may end", input(external("jobs", "10")), func(in *horizontal.Input) {
				in.HPA.Status.Conditions = looked("ScaleDownStabilized", "DesiredWithinRange")
			},
			[]horizontal.Answer{totals(9_000)},
			horizontal.Open,
			"Deployment shop/web has 4 replicas, and its HPA's next count is from 1 to 4: external jobs is 9 where the target is 10 a pod; it asks for 1, and whether it may go to 1 already is for what the controller remembers (likely 4).",
		},
		{
			"one of two is lost, down", input(external("jobs", "10"), external("mails", "1")), nil,
			[]horizontal.Answer{totals(9_000), lost},
			horizontal.SomeMetricsFailed,
			"Deployment shop/web stays at 4 replicas: external jobs, the highest metric, is 9 where the target is 10 a pod; it asks for 1, but external mails has no value (nothing serves it), and an HPA does not scale down while a metric has no value.",
		},
		{
			"one of two is lost, up", input(external("jobs", "10"), external("mails", "1")), nil,
			[]horizontal.Answer{totals(59_000), lost},
			horizontal.Up,
			"Deployment shop/web goes from 4 to 6 replicas: external jobs is 59 where the target is 10 a pod; it asks for 6 (external mails has no value (nothing serves it)).",
		},
		{
			"all are lost", input(cpu(""), external("mails", "1")), nil,
			[]horizontal.Answer{lost, lost},
			horizontal.NoMetrics,
			"Deployment shop/web stays at 4 replicas: 2 metrics have no value, the first of them cpu (nothing serves it), and without a metric an HPA changes nothing.",
		},
		{
			"not for this reader", input(external("jobs", "10"), external("mails", "1")), nil,
			[]horizontal.Answer{totals(9_000), hidden},
			horizontal.Hidden,
			"Deployment shop/web has 4 replicas: what the controller reads cannot be told: you may not read it.",
		},
		{
			"disabled", input(external("jobs", "10")), func(in *horizontal.Input) { in.Scale.Spec.Replicas, in.Scale.Status.Replicas, in.Pods = 0, 0, nil },
			[]horizontal.Answer{totals(9_000)},
			horizontal.Disabled,
			"Deployment shop/web stays at 0 replicas: an HPA leaves a target at 0 that it did not scale to 0 itself, and reads no metric; scale it to 1 or more to start it.",
		},
		{
			"from zero", input(external("jobs", "10")), func(in *horizontal.Input) {
				in.Scale.Spec.Replicas, in.Scale.Status.Replicas, in.Pods = 0, 0, nil
				in.HPA.Spec.MinReplicas = new(int32(0))
				in.HPA.Status.Conditions = append(looked("SucceededRescale", "DesiredWithinRange"), autoscalingv2.HorizontalPodAutoscalerCondition{Type: autoscalingv2.ScaledToZero, Status: corev1.ConditionTrue})
				in.HPA.Status.DesiredReplicas = 0
			},
			[]horizontal.Answer{totals(9_000)},
			horizontal.Up,
			"Deployment shop/web goes from 0 to 1 replica: external jobs is 9 where the target is 10 a pod; it asks for 1.",
		},
		{
			"above the maximum", input(external("jobs", "10")), func(in *horizontal.Input) { in.Scale.Spec.Replicas = 12 },
			[]horizontal.Answer{lost},
			horizontal.OutOfBounds,
			"Deployment shop/web goes from 12 to 10 replicas: maxReplicas is 10, which counts before any metric is read.",
		},
		{
			"no pods", input(cpu("")), func(in *horizontal.Input) { in.Pods = nil },
			[]horizontal.Answer{uses()},
			horizontal.NoMetrics,
			"Deployment shop/web stays at 4 replicas: cpu has no value (no pods match the selector app=web), and without a metric an HPA changes nothing.",
		},
		{
			"no requests", input(cpu("app")), func(in *horizontal.Input) { in.Pods[2].Spec.Containers[0].Resources.Requests = nil },
			[]horizontal.Answer{uses(260, 260, 260, 260)},
			horizontal.NoMetrics,
			"Deployment shop/web stays at 4 replicas: cpu of container app has no value (container app of pod web-3 requests no cpu), and without a metric an HPA changes nothing.",
		},
		{
			"unready", input(cpu("")), func(in *horizontal.Input) {
				for _, p := range in.Pods {
					p.Status.Conditions[0].Status = corev1.ConditionFalse
					p.Status.StartTime = &metav1.Time{Time: now.Add(-time.Minute)}
				}
			},
			[]horizontal.Answer{uses(260, 260, 260)},
			horizontal.NoMetrics,
			"Deployment shop/web stays at 4 replicas: cpu has no value (no pod has a value that counts: 1 has none and 3 are not ready), and without a metric an HPA changes nothing.",
		},
		{
			"a pod without a value", input(cpu("")), nil,
			[]horizontal.Answer{uses(600, 600, 600)},
			horizontal.Up,
			"Deployment shop/web goes from 4 to 8 replicas: cpu is 120% where the target is 50% (1 pod has no value); it asks for 8.",
		},
		{
			"no selector", input(external("jobs", "10")), func(in *horizontal.Input) { in.Scale.Status.Selector = "" },
			[]horizontal.Answer{totals(9_000)},
			horizontal.BadSelector,
			"Deployment shop/web stays at 4 replicas: the scale of Deployment web names no selector.",
		},
		{
			"the controller cannot write", input(external("jobs", "10")), func(in *horizontal.Input) {
				in.HPA.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: autoscalingv2.AbleToScale, Status: corev1.ConditionFalse, Reason: "FailedUpdateScale", Message: "no."}}
			},
			[]horizontal.Answer{totals(59_000)},
			horizontal.Open,
			"Deployment shop/web has 4 replicas, and its HPA's next count is from 6 to 8: external jobs is 59 where the target is 10 a pod; it asks for 6, and how far it may go is for what the controller remembers (likely 6); at its last look the controller could not: FailedUpdateScale: no.",
		},
		{
			"never looked", input(external("jobs", "10")), func(in *horizontal.Input) { in.HPA.Status = autoscalingv2.HorizontalPodAutoscalerStatus{} },
			[]horizontal.Answer{lost},
			horizontal.NoMetrics,
			"Deployment shop/web stays at 4 replicas: external jobs has no value (nothing serves it), and without a metric an HPA changes nothing; the controller has not looked at this HPA yet.",
		},
		{
			"kubernetes#138505", input(external("jobs", "10")), func(in *horizontal.Input) { in.Scale.Status.Replicas = 5 },
			[]horizontal.Answer{totals(50_000)},
			horizontal.Up,
			"Deployment shop/web goes from 4 to 5 replicas: external jobs is 50 where the target is 10 a pod, a ratio of 1, within the tolerance (0.9 to 1.1), and then an HPA answers the 5 pods that exist.",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.change != nil {
				c.change(c.in)
			}
			c.in.Answers = c.answers
			if x := horizontal.Explain(c.in); x.Sentence != c.want || x.State != c.state {
				t.Errorf("Explain says %s:\n%s\nwant %s:\n%s", x.State, x.Sentence, c.state, c.want)
			}
		})
	}
}

// TestBehavior shows what behavior with rates leaves open after a change.
func TestBehavior(t *testing.T) {
	t.Parallel()
	in := input(external("jobs", "1"))
	in.HPA.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: &autoscalingv2.HPAScalingRules{
		Policies: []autoscalingv2.HPAScalingPolicy{{Type: autoscalingv2.PodsScalingPolicy, Value: 2, PeriodSeconds: 60}},
	}}
	in.Answers = []horizontal.Answer{totals(9_000)}
	for _, c := range []struct {
		name     string
		scaled   time.Duration
		lo, hi   int
		likely   int
		disabled bool
	}{
		{"long ago", time.Hour, 6, 6, 0, false},
		{"just now", 10 * time.Second, 4, 9, 4, false},
		{"disabled", 10 * time.Second, 4, 4, 0, true},
	} {
		in.HPA.Status.LastScaleTime = &metav1.Time{Time: now.Add(-c.scaled)}
		in.Events = []corev1.Event{
			{Reason: "SuccessfulRescale", Message: "New size: 4; reason: external metric jobs(nil) above target", Count: 1, LastTimestamp: metav1.NewTime(now.Add(-c.scaled))},
			{Reason: "SuccessfulRescale", Message: "New size: 2; reason: All metrics below target", Count: 1, LastTimestamp: metav1.NewTime(now.Add(-c.scaled - time.Hour))},
		}
		if c.disabled {
			in.HPA.Spec.Behavior.ScaleUp.SelectPolicy = new(autoscalingv2.DisabledPolicySelect)
		}
		x := horizontal.Explain(in)
		likely := 0
		if x.Likely != nil {
			likely = *x.Likely
		}
		if *x.Lowest != c.lo || *x.Highest != c.hi || likely != c.likely {
			t.Errorf("%s: Explain says %d to %d, likely %d, want %d to %d, %d: %s", c.name, *x.Lowest, *x.Highest, likely, c.lo, c.hi, c.likely, x.Sentence)
		}
	}
}

// TestText is the golden text of one explanation.
func TestText(t *testing.T) {
	t.Parallel()
	in := input(cpu(""), external("mails", "1"))
	in.Answers = []horizontal.Answer{uses(600, 600, 600), {Trouble: &horizontal.Trouble{Cause: "a \x1b[31mcause", Remedy: "a remedy"}}}
	in.HPA.Status.LastScaleTime = &metav1.Time{Time: now.Add(-2 * time.Minute)}
	var b strings.Builder
	if err := horizontal.Explain(in).Write(&b, now); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/text.txt")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		err = os.WriteFile("testdata/text.txt", []byte(b.String()), 0o644)
		want = []byte(b.String())
	}
	if err != nil || b.String() != string(want) {
		t.Errorf("Write wrote\n%s\nwant\n%s, %v", b.String(), want, err)
	}
}

// TestDocs demands that the page names each field of the JSON.
func TestDocs(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../../docs/explain-hpa.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range []any{horizontal.Explanation{}, horizontal.Target{}, horizontal.PodCounts{}, horizontal.Metric{}, horizontal.Clamp{}, horizontal.Controller{}, horizontal.Condition{}, horizontal.Trouble{}} {
		kind := reflect.TypeOf(of)
		for f := range kind.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.IsExported() && !strings.Contains(string(page), "`"+name+"`") {
				t.Errorf("docs/explain-hpa.md does not name `%s` of %s", name, kind.Name())
			}
		}
	}
	for _, state := range []horizontal.State{
		horizontal.NoTarget, horizontal.Disabled, horizontal.OutOfBounds, horizontal.BadSelector, horizontal.NoMetrics, horizontal.SomeMetricsFailed,
		horizontal.Hidden, horizontal.Steady, horizontal.Up, horizontal.Down, horizontal.Held, horizontal.Open,
	} {
		if !strings.Contains(string(page), "`"+string(state)+"`") {
			t.Errorf("docs/explain-hpa.md does not name the state %s", state)
		}
	}
}
