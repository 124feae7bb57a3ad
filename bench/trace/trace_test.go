package trace_test

import (
	"strings"

	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// example is a generator's usage without what may be left out.
func example(g trace.Generator) string {
	s, _, _ := strings.Cut(g.Usage, "[")
	s, _, _ = strings.Cut(s, " ")
	return s
}
