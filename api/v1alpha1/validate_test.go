package v1alpha1_test

import (
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
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
				_, closer, policyErr := s.NewPolicy(catalog.Default())
				if err = policyErr; err == nil {
					closer()
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
	p, closer, err := s.NewPolicy(catalog.Default())
	if err != nil {
		t.Fatal(err)
	}
	defer closer()
	o := algorithms.Observation{Now: time.Unix(1_000_000, 0), Replicas: algorithms.Replicas{Current: 5, Ready: 5}, Limits: algorithms.Limits{Min: 1, Max: 10}}
	for _, n := range p.Needs() {
		o.Signals = append(o.Signals, algorithms.Signal{Name: n.Name, Window: n.Window, Value: 70, Known: true, Coverage: 1})
	}
	if d := p.Decide(o); !d.Valid || d.Replicas != 5 {
		t.Errorf("with scaling down disabled Decide = %d, valid %v (%s), want 5", d.Replicas, d.Valid, d.Message)
	}
}
