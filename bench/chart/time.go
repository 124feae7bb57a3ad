package chart

import (
	"io"
	"math"
	"slices"

	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/summary"
	"github.com/sluice-autoscaler/sluice/bench/text"
)

// Time draws runs of one trace over time as PNG: the load above, and below it the demand in pods
// and what each policy made of it. Order are all policies of the bench, so that each has the colour
// that it has on the page; a policy that is not in it is added. Give it at most five or six runs,
// since more cannot be told apart.
func Time(w io.Writer, title string, order []string, runs []score.Run) error {
	s, err := newSheet(700, title)
	if err != nil {
		return err
	}
	c := newTimeChart(s, order, runs)
	if c.length == 0 {
		s.write(marginLeft, 100, "There is nothing to draw.", style{size: 15, col: dim()})
		return s.encode(w)
	}
	top := c.writeLegend() + 44
	load := c.panel("Load", "requests/s", top, top+150, c.load)
	s.line(c.path(load, 0, runs[0].Series.Arrivals, false), 1.6, ink())
	replicas := c.panel("Replicas", "pods", top+220, 660, c.pods)
	area := c.path(replicas, 0, runs[0].Series.Demand, false)
	if len(area) > 1 {
		outline := append(slices.Clone(area), point{area[len(area)-1].x, replicas.from}, point{area[0].x, replicas.from})
		s.fill(outline, shade())
		s.line(area, 1, edge())
	}
	for i, r := range runs {
		s.line(c.path(replicas, i, r.Series.Wanted, true), 1.2, paletteOf(c.position[r.Result.Policy]), 5, 4)
	}
	for i, r := range runs {
		s.line(c.path(replicas, i, r.Series.Ready, true), 2.2, paletteOf(c.position[r.Result.Policy]))
	}
	return s.encode(w)
}

// timeChart is a sheet with an axis of time.
type timeChart struct {
	*sheet
	runs []score.Run
	// per is how many steps of a run are drawn as one, position the place of a policy's colour.
	per      []int
	position map[string]int
	// length is the longest run in seconds; load and pods are the highest values.
	length, load, pods float64
	x                  axis
	ticks              []float64
}

func newTimeChart(s *sheet, order []string, runs []score.Run) *timeChart {
	c := &timeChart{sheet: s, runs: runs, per: make([]int, len(runs))}
	order = slices.Clone(order)
	for i, r := range runs {
		if !slices.Contains(order, r.Result.Policy) {
			order = append(order, r.Result.Policy)
		}
		n := len(r.Series.Arrivals)
		c.per[i] = max(1, n/1000)
		if d := r.Series.Step * float64(n); d > c.length && !math.IsInf(d, 0) {
			c.length = d
		}
		for _, f := range [][]float32{r.Series.Ready, r.Series.Wanted, r.Series.Demand} {
			for _, v := range score.Shrink(f, c.per[i], score.MeanOf) {
				c.pods = max(c.pods, finite(v))
			}
		}
		for _, v := range score.Shrink(r.Series.Arrivals, c.per[i], score.MeanOf) {
			c.load = max(c.load, finite(v))
		}
	}
	c.position = summary.Places(order)
	c.x = axis{low: 0, high: c.length, from: marginLeft, to: pictureWidth - marginRight}
	if c.length > 0 {
		for step, t := timeStep(c.length/9), 0.0; t <= c.length; t += step {
			c.ticks = append(c.ticks, t)
		}
	}
	return c
}

// writeLegend returns where it ends.
func (c *timeChart) writeLegend() float64 {
	entries := []entry{{text: "demand", col: shade(), area: true}}
	for _, r := range c.runs {
		entries = append(entries, entry{text: text.Plain(r.Result.Policy), col: paletteOf(c.position[r.Result.Policy])})
	}
	entries = append(entries, entry{text: "ready", col: ink()}, entry{text: "wanted", col: ink(), dashes: []float64{5, 4}})
	return c.legend(64, entries)
}

// panel draws the frame of a chart between two heights, and returns its axis of values.
func (c *timeChart) panel(title, unit string, top, bottom, high float64) axis {
	if high <= 0 {
		high = 1
	}
	a := axis{low: 0, high: high * 1.06, from: bottom, to: top}
	n := c.write(marginLeft, top-10, title, style{size: 14, bold: true, col: ink()})
	c.write(marginLeft+n+8, top-10, unit, style{size: tickSize, col: dim()})
	c.grid(c.x, a, c.ticks, a.ticks(4), func(t float64) string { return clock(t, c.length) }, text.Count)
	return a
}

// path is the line of a run's values on an axis, with a corner at each change if it has stairs.
func (c *timeChart) path(a axis, run int, values []float32, stairs bool) []point {
	step := c.runs[run].Series.Step * float64(c.per[run])
	var out []point
	for i, v := range score.Shrink(values, c.per[run], score.MeanOf) {
		p := point{c.x.at(min(float64(i)*step, c.length)), a.at(min(max(finite(v), 0), a.high))}
		if stairs && len(out) > 0 {
			if p.y == out[len(out)-1].y {
				continue
			}
			out = append(out, point{p.x, out[len(out)-1].y})
		}
		out = append(out, p)
	}
	if len(out) > 0 {
		end := min(step*math.Ceil(float64(len(values))/float64(c.per[run])), c.length)
		out = append(out, point{c.x.at(end), out[len(out)-1].y})
	}
	return out
}
