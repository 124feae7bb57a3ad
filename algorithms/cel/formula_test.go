package cel_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
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
	for expression, want := range map[string]string{
		"a +": "Syntax error", "a + c": "<input>:1:5", "a > b": "gives bool", "a ?? 1": "Syntax error",
		`double(size("abc" + "d")) > 3 ? a : b`: "<input>:1:13: is string: want numbers only",
		`[a, b].exists(x, x > 1) ? a : b`:       "want numbers only",
		`"a".matches("((a|b){1000})") ? a : b`:  "want numbers only",
		`double("1") + a`:                       "want numbers only",
		`double(timestamp("2026-01-01T00:00:00Z").getHours("Europe/Berlin")) > 1 ? a : b`: "want numbers only",
	} {
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

// Any formula either does not compile or gives a finite number, at a small cost.
func FuzzFormula(f *testing.F) {
	f.Add("(a + b)/2", 1.0, 2.0)
	f.Add("max(a, b, 10) > 3 ? min(a, 1) : round(b) % 2", math.NaN(), math.Inf(1))
	f.Add(`double(size("a" + "b")) + [a, b].map(x, [x])[0][0]`, 1e308, -1e308)
	f.Fuzz(func(t *testing.T, expression string, a, b float64) {
		formula, err := cel.NewFormula(expression, []string{"a", "b"})
		if err != nil {
			return
		}
		var v float64
		begin := time.Now()
		n := allocated(func() { v, err = formula.Value([]float64{a, b}) })
		took := time.Since(begin)
		if err == nil && !algorithms.Finite(v) {
			t.Errorf("%s = %v of %v and %v, want a finite number or an error", expression, v, a, b)
		}
		if n > 16<<20 || took > 5*time.Second {
			t.Errorf("%s allocates %d bytes in %s, want at most 16 MiB", expression, n, took)
		}
	})
}
