package params_test

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/params"
)

type inner struct {
	Gain float64
}

type config struct {
	inner
	Wait  algorithms.Duration
	Count int
	Least *int
	Name  string
	Mode  string
	On    bool
}

func list() params.List[config] {
	l := params.List[config]{
		params.Of("wait", params.Spans(time.Millisecond, 90*time.Minute), "", "how long", func(c *config) *algorithms.Duration { return &c.Wait }),
		params.Of("count", params.AtLeast(0).Or(-1), "pods", "how many", func(c *config) *int { return &c.Count }).Zero("the limit"),
		params.Optional("least", params.Between(1, 5), "pods", "at least", func(c *config) *int { return c.Least }).
			Also("at most count", func(c *config) bool { return c.Least == nil || *c.Least <= c.Count }),
		params.Text("name", "a name", "who", func(c *config) *string { return &c.Name }),
		params.OneOf("mode", "which", func(c *config) *string { return &c.Mode }, "a", "b", "c"),
		params.Bool("on", "whether", func(c *config) *bool { return &c.On }),
		params.Other[config]("list", "a list", "empty", "what else"),
	}
	gain := params.List[inner]{params.Of("gain", params.Above(0).UpTo(2), "per second", "how fast", func(c *inner) *float64 { return &c.Gain }).After("the user's")}
	return append(l, params.In(gain, func(c *config) *inner { return &c.inner })...)
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	c := config{inner: inner{0.5}, Wait: algorithms.Duration(time.Second), Name: "web", Mode: "a", On: true}
	got := map[string][3]string{}
	for _, p := range list().Describe(c) {
		got[p.Name] = [3]string{p.Allowed(), p.Default, string(p.Value)}
	}
	want := map[string][3]string{
		"wait": {"1ms–1h30m", "1s", `"1s"`}, "count": {"-1 or ≥ 0 (pods)", "0: the limit", "0"}, "least": {"1–5 (pods), at most count", "none", ""},
		"name": {"a name", "web", `"web"`}, "mode": {"a, b or c", "a", `"a"`}, "on": {"true or false", "true", "true"},
		"list": {"a list", "empty", ""}, "gain": {"> 0 and ≤ 2 (per second)", "the user's, else 0.5", "0.5"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	c := config{inner: inner{0.5}, Wait: algorithms.Duration(time.Second), Name: "web", Mode: "a"}
	if err := list().Check(&c); err != nil {
		t.Errorf("Check = %v, want no fault", err)
	}
	c.Least = new(3)
	c.Count, c.Wait, c.Name, c.Mode, c.Gain = 2, 0, "", "d", math.NaN()
	const want = `wait = 0s: want 1ms–1h30m
least = 3: want 1–5 (pods), at most count
name = "": want a name
mode = "d": want a, b or c
gain = NaN: want > 0 and ≤ 2 (per second)`
	if err := list().Check(&c); err == nil || err.Error() != want {
		t.Errorf("Check = %v\nwant %s", err, want)
	}
	c.Count = -2
	if err := list().Check(&c); err == nil {
		t.Error("Check took a count of −2")
	}
}

func TestRange(t *testing.T) {
	t.Parallel()
	inf := math.Inf(1)
	for _, c := range []struct {
		r       params.Range
		in, out []float64
	}{
		{params.Finite(), []float64{-1e300, 0, 1e300}, []float64{inf, -inf, math.NaN()}},
		{params.Between(-1, 1), []float64{-1, 0, 1}, []float64{-1.1, 1.1, math.NaN()}},
		{params.AtLeast(2), []float64{2, 1e300}, []float64{1.9, inf}},
		{params.Above(2).Below(3), []float64{2.1, 2.9}, []float64{2, 3}},
		{params.Above(2).UpTo(3), []float64{3}, []float64{2, 3.1}},
		{params.AtLeast(0).Or(-1), []float64{-1, 0}, []float64{-0.5, -2}},
	} {
		for _, v := range c.in {
			if !c.r.Holds(v) {
				t.Errorf("%+v does not hold %v", c.r, v)
			}
		}
		for _, v := range c.out {
			if c.r.Holds(v) {
				t.Errorf("%+v holds %v", c.r, v)
			}
		}
	}
}
