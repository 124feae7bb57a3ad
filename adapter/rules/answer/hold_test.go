package answer_test

import (
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
)

func TestHold(t *testing.T) {
	t.Parallel()
	var m answer.Memory
	q, _ := answer.Quantity(5, resource.DecimalSI)
	known := []answer.Value{{Name: "a", Quantity: q, Time: now}}
	if _, ok := m.Hold("a", time.Minute, now, nil); ok {
		t.Error("a value that was never known is held")
	}
	if v, ok := m.Hold("a", time.Minute, now, known); !ok || v[0].String() != "5" {
		t.Errorf("a known value is %v, %v", v, ok)
	}
	if v, ok := m.Hold("a", time.Minute, now.Add(time.Minute), nil); !ok || v[0].String() != "5" || !v[0].Time.Equal(now) {
		t.Errorf("after a minute it is %v, %v", v, ok)
	}
	if _, ok := m.Hold("a", time.Minute, now.Add(time.Minute+1), nil); ok {
		t.Error("it is held for longer")
	}
	if _, ok := m.Hold("b", 0, now, known); !ok {
		t.Error("a known value is not given back without hold")
	}
	if _, ok := m.Hold("b", time.Hour, now, nil); ok {
		t.Error("a value is remembered without hold")
	}
}

// What is remembered is bounded, and what has run out makes room.
func TestHoldIsBounded(t *testing.T) {
	t.Parallel()
	m := answer.Memory{Most: 10}
	held := func(at time.Time) int {
		n := 0
		for i := range 30 {
			if _, ok := m.Hold(fmt.Sprint(i), time.Minute, at, nil); ok {
				n++
			}
		}
		return n
	}
	for i := range 20 {
		m.Hold(fmt.Sprint(i), time.Minute, now, []answer.Value{{}})
	}
	if n := held(now); n != 10 {
		t.Errorf("%d are held, want 10", n)
	}
	later := now.Add(time.Hour)
	for i := range 5 {
		m.Hold(fmt.Sprint(20+i), time.Minute, later, []answer.Value{{}})
	}
	if n := held(later); n != 5 {
		t.Errorf("%d are held later, want 5", n)
	}
}
