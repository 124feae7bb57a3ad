package score_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/score"
)

// Every quantile of random values over many decades is within 0.4 % of the exact one.
func TestHistogramAgainstSorting(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 1))
	var h score.Histogram
	var all []time.Duration
	sum := 0.0
	for range 50_000 {
		v := time.Duration(math.Exp(r.Float64() * 40)) // up to seven years
		if r.IntN(10) == 0 {
			v = time.Duration(r.IntN(300))
		}
		h.Add(v)
		all = append(all, v)
		sum += v.Seconds()
	}
	h.AddZeros(10_000)
	all = append(all, make([]time.Duration, 10_000)...)
	slices.Sort(all)
	for _, q := range []float64{0, 0.1, 0.166, 0.17, 0.5, 0.9, 0.99, 0.999, 0.99999, 1} {
		want := all[min(max(int(math.Ceil(q*float64(len(all))))-1, 0), len(all)-1)]
		if got := h.Quantile(q); math.Abs(float64(got-want)) > 0.004*float64(want)+0.5 {
			t.Errorf("Quantile(%v) = %v, want %v within 0.4 %%", q, got, want)
		}
	}
	if h.Count() != 60_000 || h.Max() != all[len(all)-1] || math.Abs(h.MeanSeconds()-sum/60_000) > 1e-9*sum {
		t.Errorf("count %d, max %v, mean %v: want 60000, %v, %v", h.Count(), h.Max(), h.MeanSeconds(), all[len(all)-1], sum/60_000)
	}
	n, last := int64(0), -1.0
	for _, b := range h.Buckets() {
		if b.Upper <= last || b.Count <= 0 {
			t.Fatalf("bar up to %v after one up to %v with %d values: want rising bars that are not empty", b.Upper, last, b.Count)
		}
		n, last = n+b.Count, b.Upper
	}
	if n != 60_000 {
		t.Errorf("the bars hold %d values, want 60000", n)
	}
}

func TestHistogramEmpty(t *testing.T) {
	t.Parallel()
	var h score.Histogram
	if h.Quantile(0.5) != 0 || h.MeanSeconds() != 0 || len(h.Buckets()) != 0 {
		t.Error("an empty histogram has values")
	}
	h.Add(-time.Second)
	if h.Quantile(1) != 0 || h.Count() != 1 {
		t.Errorf("a negative value counts as %v, %d of them: want one 0", h.Quantile(1), h.Count())
	}
}
