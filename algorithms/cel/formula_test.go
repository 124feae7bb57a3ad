package cel_test

import (
	"strings"
	"testing"

	"github.com/sluice-autoscaler/sluice/algorithms/cel"
)

func TestFormula(t *testing.T) {
	t.Parallel()
	for expression, want := range map[string]float64{
		"(a + b)/2":         3,
		"a > 1 ? a : b * 3": 2,
		"max(a, b, 10) - 1": 9,
		"ceil(a/3) + min(a, b) + abs(0-b) + floor(2.7) + round(2.5)": 1 + 2 + 4 + 2 + 3,
	} {
		f, err := cel.NewFormula(expression, []string{"a", "b"})
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		if got, err := f.Value([]float64{2, 4}); err != nil || got != want {
			t.Errorf("%s = %v, %v, want %v", expression, got, err, want)
		}
	}
	for expression, want := range map[string]string{"a +": "Syntax error", "a + c": "<input>:1:5", "a > b": "gives bool", "a ?? 1": "Syntax error"} {
		if _, err := cel.NewFormula(expression, []string{"a", "b"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewFormula(%s) = %v, want an error with %q", expression, err, want)
		}
	}
	f, err := cel.NewFormula("a / b", []string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Value([]float64{1, 0}); err == nil {
		t.Error("1/0 is no error")
	}
}
