package chart_test

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/sluice-autoscaler/sluice/bench/chart"
	"github.com/sluice-autoscaler/sluice/bench/page"
	"github.com/sluice-autoscaler/sluice/bench/report"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/summary"
	"github.com/sluice-autoscaler/sluice/bench/summarytest"
)

// picture draws and reads what was drawn.
func picture(t *testing.T, draw func(io.Writer) error) image.Image {
	t.Helper()
	var b bytes.Buffer
	if err := draw(&b); err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(&b)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// pixels counts the pixels of a colour in a picture without transparency.
func pixels(t *testing.T, img image.Image, want color.NRGBA) (n int) {
	t.Helper()
	rgba, ok := img.(*image.RGBA)
	if !ok {
		t.Fatalf("the picture is a %T", img)
	}
	for i := 0; i < len(rgba.Pix); i += 4 {
		if rgba.Pix[i] == want.R && rgba.Pix[i+1] == want.G && rgba.Pix[i+2] == want.B {
			n++
		}
	}
	return n
}

func TestPictures(t *testing.T) {
	t.Parallel()
	s, runs := summarytest.Small()
	order := []string{"kpa", "hpa", "keda"}
	colours := []color.NRGBA{{0, 0x72, 0xb2, 0xff}, {0xd5, 0x5e, 0, 0xff}, {0, 0x9e, 0x73, 0xff}}
	for name, draw := range map[string]func(io.Writer) error{
		"time":    func(w io.Writer) error { return chart.Time(w, "day", order, runs[:3]) },
		"pareto":  func(w io.Writer) error { return chart.Pareto(w, "day", order, s.Comparison[:3]) },
		"overall": func(w io.Writer) error { return chart.OverallPareto(w, "all", "kpa", order, s.Overall) },
	} {
		img := picture(t, draw)
		for i, c := range colours {
			if n := pixels(t, img, c); n < 100 {
				t.Errorf("%s: the colour of %s has %d pixels, want hundreds", name, order[i], n)
			}
		}
	}
	one := picture(t, func(w io.Writer) error { return chart.Time(w, "day", order, runs[1:2]) })
	if pixels(t, one, colours[0]) > 0 || pixels(t, one, colours[1]) < 100 {
		t.Error("a policy alone has another colour than among others")
	}
}

func TestOddPictures(t *testing.T) {
	t.Parallel()
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	odd := []float32{nan, inf, -1, 0, 3e38, 1}
	long := make([]float32, 300_000)
	for name, run := range map[string]score.Run{
		"empty":  {},
		"odd":    {Series: score.Series{Step: 1, Arrivals: odd, Demand: odd, Waiting: odd, Wanted: odd, Ready: odd, Starting: odd, ColdStarts: odd, Violations: odd, WaitMax: odd}},
		"step 0": {Series: score.Series{Arrivals: odd, Demand: odd, Wanted: odd, Ready: odd}},
		"single": {Series: score.Series{Step: 1, Arrivals: odd[:1], Demand: odd[:1], Wanted: odd[:1], Ready: odd[:1]}},
		"long":   {Series: score.Series{Step: 60, Arrivals: long, Demand: long, Wanted: long, Ready: long}},
		"uneven": {Series: score.Series{Step: 60, Arrivals: long[:9], Ready: odd}},
	} {
		picture(t, func(w io.Writer) error { return chart.Time(w, name, nil, []score.Run{run, run}) })
		s, runs := summarytest.Bench([]score.Run{run, run}, "")
		if err := page.HTML(io.Discard, s, runs, page.Options{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := report.Sparklines(io.Discard, run, 80); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := chart.Time(io.Discard, "", nil, nil); err != nil {
		t.Error(err)
	}
	picture(t, func(w io.Writer) error { return chart.Pareto(w, "none", nil, nil) })
	same := summary.Compare([]score.Result{result("a", "t", 1, 0, 0, 0), result(strings.Repeat("long name ", 20), "t", 1, 0, 0, 0), result("c", "t", 1, 1e300, 1, 0)}, "a")
	picture(t, func(w io.Writer) error { return chart.Pareto(w, "same", nil, same) })
	picture(t, func(w io.Writer) error { return chart.Pareto(w, "one", nil, same[:1]) })
}

func result(policy, trace string, seed uint64, pods, violations float64, cold int64) score.Result {
	return score.Result{Policy: policy, Trace: trace, Scenario: "s", Seed: seed, PodSeconds: pods, SLOViolations: violations, ColdStarts: cold}
}
