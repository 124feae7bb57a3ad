package catalog_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/params"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
)

// What a policy may cost whatever its parameters are, in bytes allocated: to make it, and for one
// decision.
const (
	mostToMake   = 64 << 20
	mostToDecide = 1 << 20
	// mostTime is for either, on a machine that does much else.
	mostTime = 10 * time.Second
)

// allocated is how many bytes something allocates.
func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// checkCost makes a policy of hostile parameters, and asks it some times.
func checkCost(t *testing.T, c catalog.Catalog, name string, raw json.RawMessage) {
	t.Helper()
	var p algorithms.Policy
	var err error
	begin := time.Now()
	bytes := allocated(func() { p, err = c.New(name, 10, raw) })
	if took := time.Since(begin); bytes > mostToMake || took > mostTime {
		t.Errorf("%s %.200s: New allocates %d bytes in %s, want at most %d", name, raw, bytes, took, mostToMake)
	}
	if err != nil {
		return
	}
	seq := policytest.Sequence(rand.New(rand.NewPCG(1, 2)), p.Needs(), 20)
	for i := range seq {
		begin := time.Now()
		bytes := allocated(func() { p.Decide(seq[i]) })
		if took := time.Since(begin); bytes > mostToDecide || took > mostTime {
			t.Fatalf("%s %.200s: decision %d allocates %d bytes in %s, want at most %d", name, raw, i, bytes, took, mostToDecide)
		}
	}
	for _, n := range p.Needs() {
		if n.Window < 0 || n.Window > 2*time.Hour {
			t.Errorf("%s %.200s needs %s over %s, want a window of at most 2h: the store keeps no more", name, raw, n.Name, n.Window)
		}
	}
}

// Every number at the ends of its range, and lists that are as long as they can be, cost little.
func TestCost(t *testing.T) {
	repeat := func(before, one string, n int, after string) string {
		return before + strings.Repeat(one+",", n) + one + after
	}
	c := catalog.Default()
	for _, e := range c.All() {
		for _, p := range e.Parameters {
			if p.Bounds == nil {
				continue
			}
			for _, v := range []float64{p.Bounds.Lo, p.Bounds.Hi} {
				if math.IsInf(v, 0) {
					v = math.Copysign(1e9, v)
				}
				value := fmt.Sprint(v)
				if p.Kind == params.Span {
					value = fmt.Sprintf("%q", time.Duration(v))
				}
				checkCost(t, c, e.Name, fmt.Appendf(nil, `{%q: %s}`, p.Name, value))
			}
		}
	}
	const external = `{"type":"External","external":{"metric":{"name":"a"},"target":{"type":"Value","value":"1"}}}`
	for _, h := range []struct{ name, params string }{
		{"schedule", repeat(`{"rules":[`, `{"start":"* * * * *","duration":"1h","replicas":9}`, 3000, `]}`)},
		{"schedule", `{"rules":[{"start":"0 0 29 2 *","duration":"1h","replicas":9},{"start":"0 0 31 2 *","duration":"1h","replicas":9}]}`},
		{"schedule", `{"timeZone":"../../etc/passwd"}`},
		{"step", repeat(`{"scaleOut":[`, `{"lower":0,"adjustment":1}`, 8000, `]}`)},
		{"hpa", repeat(`{"metrics":[`, external, 99, `]}`)},
		{"hpa", repeat(`{"metrics":[`, external, 2500, `]}`)},
		{"keda", repeat(`{"triggers":[`, `{"signal":"a","threshold":1}`, 8000, `]}`)},
		{"keda", `{"triggers":[{"signal":"a","threshold":1}],"advanced":{"scalingModifiers":{"target":1,"formula":"` + strings.Repeat("(", 90) + "a" + strings.Repeat(")", 90) + `"}}}`},
		{"keda", `{"triggers":[{"signal":"a","threshold":1}],"advanced":{"scalingModifiers":{"target":1,"formula":"` + strings.Repeat("max(a,", 90) + "a" + strings.Repeat(")", 90) + `"}}}`},
		{"keda", `{"triggers":[{"signal":"a","threshold":1}],"advanced":{"scalingModifiers":{"target":1,"formula":"[a]` + strings.Repeat(".map(x, [[x]])", 90) + `.size()"}}}`},
		{"portfolio", repeat(`{"experts":[`, `{"name":"lookahead"}`, 15, `]}`)},
		{"portfolio", `{"experts":[{"name":"portfolio"},{"name":"portfolio"}]}`},
		{"portfolio", repeat(`{"experts":[`, `{"name":"histogram","parameters":{"bin":"1s","range":"24h"}}`, 15, `]}`)},
		{"histogram", `{"bin":"1s","range":"24h"}`},
		{"cel", `{"expression":"[[1]]` + strings.Repeat(`.map(a,[[[[a]]]])`, 75) + `.size()"}`},
		{"fixed", `{"replicas":` + strings.Repeat("1", 300_000) + `}`},
	} {
		checkCost(t, c, h.name, json.RawMessage(h.params))
	}
}
