package policytest

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/params"
)

// Bounds checks that make takes each number at the ends of its stated range and refuses it just
// beyond. beside holds the other parameters that a value needs, as a JSON object by "NAME lo" or
// "NAME hi".
func Bounds(t *testing.T, list []params.Parameter, beside map[string]string, make func(json.RawMessage) error) {
	t.Helper()
	seen := 0
	for _, p := range list {
		if p.Bounds == nil {
			continue
		}
		seen++
		inside, outside := ends(*p.Bounds, p.Kind)
		for end := range inside {
			others := beside[p.Name+" "+end]
			if raw := object(t, p, inside[end], others); make(raw) != nil {
				t.Errorf("New(%s) = %v, want it taken: the range is %s", raw, make(raw), p.Allowed())
			}
			v, ok := outside[end]
			if !ok {
				continue
			}
			if raw := object(t, p, v, others); make(raw) == nil || !strings.Contains(make(raw).Error(), p.Name+" = ") {
				t.Errorf("New(%s) = %v, want a fault of %s: the range is %s", raw, make(raw), p.Name, p.Allowed())
			}
		}
	}
	if seen == 0 {
		t.Error("no parameter has bounds")
	}
}

// ends are the outermost numbers inside a range and the first outside, by "lo" and "hi".
func ends(r params.Range, k params.Kind) (inside, outside map[string]float64) {
	inside, outside = map[string]float64{"hi": 1e6}, map[string]float64{}
	step := func(v float64, to float64) float64 {
		if k == params.Number {
			return math.Nextafter(v, to)
		}
		return v + math.Copysign(1, to)
	}
	set := func(end string, at float64, open bool, beyond float64) {
		if open {
			inside[end], outside[end] = step(at, -beyond), at
			return
		}
		inside[end], outside[end] = at, step(at, beyond)
	}
	if !math.IsInf(r.Lo, -1) {
		set("lo", r.Lo, r.LoOpen, math.Inf(-1))
	}
	if !math.IsInf(r.Hi, 1) {
		set("hi", r.Hi, r.HiOpen, math.Inf(1))
	}
	if r.Single != nil {
		inside["single"], outside["single"] = *r.Single, step(*r.Single, math.Inf(-1))
	}
	return inside, outside
}

// object writes the parameter with a value, and others beside it.
func object(t *testing.T, p params.Parameter, v float64, others string) json.RawMessage {
	t.Helper()
	var value any = v
	switch p.Kind {
	case params.Whole:
		value = int64(v)
	case params.Span:
		value = time.Duration(v).String()
	case params.Number, params.None:
	}
	all := map[string]any{}
	if others != "" {
		if err := json.Unmarshal([]byte(others), &all); err != nil {
			t.Fatal(err)
		}
	}
	if outer, inner, ok := strings.Cut(p.Name, "."); ok {
		maps.Copy(all, map[string]any{outer: map[string]any{inner: value}})
	} else {
		all[p.Name] = value
	}
	raw, err := json.Marshal(all)
	if err != nil {
		t.Fatal(fmt.Errorf("%s = %v: %w", p.Name, v, err))
	}
	return raw
}
