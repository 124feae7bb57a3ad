package fixed_test

import (
	"testing"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/fixed"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
)

func TestFixed(t *testing.T) {
	t.Parallel()
	mk := func() (algorithms.Policy, error) { return fixed.New(fixed.Config{Replicas: 7}) }
	p, err := mk()
	if err != nil {
		t.Fatal(err)
	}
	if d := p.Decide(algorithms.Observation{}); !d.Valid || d.Replicas != 7 {
		t.Errorf("Decide = %+v, want 7 pods", d)
	}
	if d := p.Decide(algorithms.Observation{Limits: algorithms.Limits{Max: 3}, Quiet: true}); d.Replicas != 3 || d.Message != "" || d.Terms != nil {
		t.Errorf("Decide = %+v, want 3 pods and no explanation", d)
	}
	policytest.Check(t, 1, 5, mk)
	policytest.Monotone(t, 1, 50, mk)
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, n := range []int{-1, 1_000_001} {
		if _, err := fixed.New(fixed.Config{Replicas: n}); err == nil {
			t.Errorf("New(%d) took it", n)
		}
	}
}
