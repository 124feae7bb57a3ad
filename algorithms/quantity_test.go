package algorithms_test

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

func TestQuantity(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]struct {
		milli int64
		value float64
	}{
		"0": {0, 0}, "10": {10_000, 10}, "+1": {1000, 1}, "-2.5": {-2500, -2.5}, ".5": {500, 0.5}, "5.": {5000, 5},
		"500m": {500, 0.5}, "1500u": {2, 0.0015}, "-1500u": {-2, -0.0015}, "1n": {1, 1e-9}, "2k": {2_000_000, 2000}, "1M": {1e9, 1e6},
		"1e3": {1_000_000, 1000}, "1.5E-1": {150, 0.15}, "1Ki": {1_024_000, 1024}, "1.5Gi": {1_610_612_736_000, 1610612736},
		"0.1":    {100, 0.1}, // in float64 as Kubernetes computes it:
		"1.2345": {1235, 12345 * math.Pow10(-4)},
	} {
		q, err := algorithms.ParseQuantity(in)
		if err != nil || q.Milli() != want.milli || q.Float() != want.value {
			t.Errorf("ParseQuantity(%q) = %d thousandths, %v, %v; want %d, %v", in, q.Milli(), q.Float(), err, want.milli, want.value)
		}
	}
	for _, in := range []string{"", "m", "1 ", "1x", "0x10", "--1", "1e", "1e3k", "1.2.3", "NaN", "Inf", "1e99", "2E", "99999999999999999999999999999999999999999"} {
		if q, err := algorithms.ParseQuantity(in); err == nil {
			t.Errorf("ParseQuantity(%q) = %v, want an error", in, q)
		}
	}
}

func TestQuantityJSON(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{`"500m"`: `"500m"`, `2.5`: `"2.5"`, `7`: `"7"`} {
		var q algorithms.Quantity
		if err := json.Unmarshal([]byte(in), &q); err != nil {
			t.Errorf("Unmarshal(%s): %v", in, err)
			continue
		}
		if b, err := json.Marshal(q); err != nil || string(b) != want {
			t.Errorf("Marshal(Unmarshal(%s)) = %s, %v, want %s", in, b, err, want)
		}
	}
	for _, in := range []string{`true`, `null`, `{}`, `"ten"`} {
		var q algorithms.Quantity
		if err := json.Unmarshal([]byte(in), &q); err == nil {
			t.Errorf("Unmarshal(%s) = %v, want an error", in, q)
		}
	}
}

func FuzzQuantity(f *testing.F) {
	for _, s := range []string{"10", "-1.5Gi", "1e-3", "500m", ".", "1E"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := algorithms.ParseQuantity(s)
		if err != nil {
			return
		}
		if !algorithms.Finite(q.Float()) {
			t.Fatalf("ParseQuantity(%q) is %v", s, q.Float())
		}
		again, err := algorithms.ParseQuantity(q.String())
		if err != nil || again != q {
			t.Fatalf("ParseQuantity(%q).String() = %q, which reads as %+v, %v", s, q, again, err)
		}
	})
}
