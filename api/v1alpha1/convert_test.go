package v1alpha1_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
)

func spec(change func(*v1alpha1.AutoscalerSpec)) *v1alpha1.AutoscalerSpec {
	s := &v1alpha1.AutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
		ServiceRef:     &v1alpha1.ServiceReference{Name: "web"}, MaxReplicas: 10,
	}
	change(s)
	return s
}

func TestFaultsAreNamed(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*v1alpha1.AutoscalerSpec)
		want   []string
	}{
		"nothing wrong": {func(*v1alpha1.AutoscalerSpec) {}, nil},
		"several at once": {
			func(s *v1alpha1.AutoscalerSpec) { s.ScaleTargetRef.Name, s.MaxReplicas, s.ServiceRef = "", 0, nil },
			[]string{"spec.scaleTargetRef", "spec.maxReplicas = 0", "spec.serviceRef is missing"},
		},
		"unknown policy": {func(s *v1alpha1.AutoscalerSpec) { s.Policy.Name = "guess" }, []string{`"guess"`, "kpa", "target"}},
		"unknown parameter": {
			func(s *v1alpha1.AutoscalerSpec) {
				s.Policy.Parameters = &runtime.RawExtension{Raw: []byte(`{"stableWindo":"6s"}`)}
			}, []string{"stableWindo", "stableWindow"},
		},
		"idle time": {
			func(s *v1alpha1.AutoscalerSpec) {
				s.ScaleToZero = &v1alpha1.ScaleToZeroSpec{After: &metav1.Duration{Duration: time.Millisecond}}
			}, []string{"1ms", "1s"},
		},
		"behavior": {
			func(s *v1alpha1.AutoscalerSpec) {
				s.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: new(int32(5000))}}
			}, []string{"5000", "3600"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := spec(tt.change)
			err := s.Validate()
			if err == nil {
				var l *loop.Loop
				if l, err = newLoop(s); err == nil {
					l.Close()
				}
			}
			if (err == nil) != (tt.want == nil) {
				t.Fatalf("fault = %v, want one: %v", err, tt.want != nil)
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("fault %q does not name %q", err, w)
				}
			}
		})
	}
}

// TestBehaviorIsHeeded disables scaling down as an HPA can.
func TestBehaviorIsHeeded(t *testing.T) {
	t.Parallel()
	s := spec(func(s *v1alpha1.AutoscalerSpec) {
		s.MinReplicas = new(int32(1))
		s.Policy = v1alpha1.PolicySpec{Name: "target", Parameters: &runtime.RawExtension{Raw: []byte(`{"stabilizationWindow":"0s"}`)}}
		s.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleDown: &autoscalingv2.HPAScalingRules{SelectPolicy: new(autoscalingv2.DisabledPolicySelect)}}
	})
	l, err := newLoop(s)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	v := loop.View{Now: time.Unix(1_000_000, 0), Replicas: 5}
	for _, n := range l.Needs() {
		v.Signals = append(v.Signals, algorithms.Signal{Name: n.Name, Window: n.Window, Value: 70, Known: true, Coverage: 1})
	}
	if c := l.Step(v); c.Scale != nil || !c.Record.Valid {
		t.Errorf("with scaling down disabled Step = %+v, want no change", c)
	}
}

func newLoop(s *v1alpha1.AutoscalerSpec) (*loop.Loop, error) {
	spec, err := s.Loop()
	if err != nil {
		return nil, err
	}
	return loop.New(spec, catalog.Default(), loop.DefaultTiming())
}

// TestSpecsHaveOneVocabulary reads one JSON as the API's spec and as the loop's: both are the same.
func TestSpecsHaveOneVocabulary(t *testing.T) {
	t.Parallel()
	const text = `{"serviceRef":{"name":"web"},"minReplicas":1,"maxReplicas":9,"mode":"DryRun",
		"signals":[{"name":"concurrency","target":{"averageValue":"2500m"}}],
		"policy":{"name":"kpa","parameters":{"stableWindow":"30s"}},
		"behavior":{"scaleUp":{"stabilizationWindowSeconds":3,"selectPolicy":"Min","policies":[{"type":"Pods","value":2,"periodSeconds":15}],"tolerance":"50m"}},
		"onMissingData":{"hold":"5m0s","replicas":4},"scaleToZero":{"after":"2m0s"},
		"hold":{"maxRequests":7,"timeout":"9s","podConcurrency":3}}`
	var want loop.Spec
	if err := algorithms.Strict(json.RawMessage(text), &want); err != nil {
		t.Fatal(err)
	}
	var s v1alpha1.AutoscalerSpec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	s.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: "web"}
	got, err := s.Loop()
	if err != nil {
		t.Fatal(err)
	}
	a, b := mustJSON(t, want), mustJSON(t, got)
	if a != b {
		t.Errorf("as the loop's spec:\n%s\nas the Autoscaler's:\n%s", a, b)
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
