package plan_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sluice-autoscaler/sluice/bench/plan"
)

func TestDistinct(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what              string
		names, from, want []string
		fault             string
	}{
		{"all differ", []string{"a", "b"}, []string{"a.csv", "b.csv"}, []string{"a", "b"}, ""},
		{"two folders", []string{"x", "x", "y"}, []string{"mon/x.csv", "tue/x.csv", "y.csv"}, []string{"x (mon/x.csv)", "x (tue/x.csv)", "y"}, ""},
		{"they part above", []string{"x", "x"}, []string{"p/mon/x.csv", "q/mon/x.csv"}, []string{"x (p/mon/x.csv)", "x (q/mon/x.csv)"}, ""},
		{"one is the end of the other", []string{"x", "x"}, []string{"x.csv", "mon/x.csv"}, []string{"x (x.csv)", "x (mon/x.csv)"}, ""},
		{"two endings", []string{"x", "x"}, []string{"x.csv", "x.txt"}, []string{"x (x.csv)", "x (x.txt)"}, ""},
		{"three, two with the same end", []string{"x", "x", "x"}, []string{"a/x", "b/x", "b/x/x"}, []string{"x (a/x)", "x (b/x)", "x (x/x)"}, ""},
		{"specifications", []string{"mine", "mine"}, []string{"kpa:label=mine", "hpa:label=mine"}, []string{"mine (kpa:label=mine)", "mine (hpa:label=mine)"}, ""},
		{"the same", []string{"x", "x"}, []string{"mon/x.csv", "./mon/x.csv"}, nil, "--trace ./mon/x.csv is given twice"},
	} {
		got, err := plan.Distinct("--trace", c.names, c.from)
		switch {
		case c.fault != "":
			if err == nil || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%s: %v, %v; want a fault with %q", c.what, got, err, c.fault)
			}
		case err != nil || !slices.Equal(got, c.want):
			t.Errorf("%s: %q, %v; want %q", c.what, got, err, c.want)
		}
	}
}
