package chart

import (
	"image/color"
	"io"
	"math"
	"slices"

	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/summary"
	"github.com/sluice-autoscaler/sluice/bench/text"
)

// dotted is one policy of a Pareto chart.
type dotted struct {
	policy     string
	cost, loss score.Interval
}

// Pareto draws the policies of one trace and scenario as PNG: pod-seconds to the right, the share
// of SLO violations upwards on a log scale, with 95 % intervals and the front. Order is as for
// Time.
func Pareto(w io.Writer, title string, order []string, rows []summary.Row) error {
	var points []dotted
	for _, r := range rows {
		points = append(points, dotted{r.Policy, r.Mean["podSeconds"], r.Mean["sloViolations"]})
	}
	return pareto(w, title, "pod-seconds", text.Count, order, points)
}

// OverallPareto draws the policies of one scenario over all traces: multiples of the baseline's
// pod-seconds, and mean violations.
func OverallPareto(w io.Writer, title, baseline string, order []string, overall []summary.Overall) error {
	var points []dotted
	for _, o := range overall {
		if q, ok := o.Ratio["podSeconds"]; ok {
			v := o.Mean["sloViolations"]
			points = append(points, dotted{o.Policy, q, score.Interval{Mean: v, Low: v, High: v, N: 1}})
		}
	}
	return pareto(w, title, "pod-seconds × "+text.Plain(baseline)+", geometric mean over traces", text.Digits, order, points)
}

func pareto(w io.Writer, title, unit string, value func(float64) string, order []string, points []dotted) error {
	s, err := newSheet(640, title)
	if err != nil {
		return err
	}
	if len(points) == 0 {
		s.write(marginLeft, 100, "There is nothing to draw.", style{size: 15, col: dim()})
		return s.encode(w)
	}
	c := newParetoChart(s, order, points)
	s.write(marginLeft-38, 66, "share of requests that violate the SLO, against "+unit+"; bars are 95 % intervals, the dashed line is the front", style{size: tickSize, col: dim()})
	ys := c.y.ticks(5)
	s.grid(c.x, c.y, c.x.ticks(8), ys, value, func(v float64) string { return text.Digits(v*100) + " %" })
	if c.zero {
		s.write(c.x.from-9, c.y.from+4.5, "0", style{size: tickSize, align: toRight, col: dim()})
	}
	s.write((c.x.from+c.x.to)/2, 622, unit, style{size: 14, align: centred, col: ink()})
	c.drawFront()
	c.drawPoints()
	c.drawNames()
	return s.encode(w)
}

// paretoChart is a sheet with cost to the right and violations upwards.
type paretoChart struct {
	*sheet
	points   []dotted
	at       []score.Point
	position map[string]int
	x, y     axis
	// zero says that a policy has no violations, which a log scale has no place for.
	zero bool
	// taken are the places that names must leave free.
	taken []box
}

type box struct{ x0, y0, x1, y1 float64 }

func (b box) overlaps(o box) bool { return b.x0 < o.x1 && b.x1 > o.x0 && b.y0 < o.y1 && b.y1 > o.y0 }

func newParetoChart(s *sheet, order []string, points []dotted) *paretoChart {
	c := &paretoChart{sheet: s, points: points, at: make([]score.Point, len(points))}
	order = slices.Clone(order)
	low, high, least, most := math.Inf(1), 0.0, math.Inf(1), 0.0
	for i, p := range points {
		if !slices.Contains(order, p.policy) {
			order = append(order, p.policy)
		}
		at := score.Point{Cost: finite(p.cost.Mean), Violations: finite(p.loss.Mean)}
		c.at[i] = at
		low, high, most = min(low, at.Cost), max(high, at.Cost), max(most, at.Violations)
		if at.Violations > 0 {
			least = min(least, at.Violations)
		} else {
			c.zero = true
		}
	}
	c.position = summary.Places(order)
	pad := max((high-low)*0.12, high*0.04, 1e-9)
	c.x = axis{low: max(0, low-pad), high: high + pad, from: marginLeft + 12, to: pictureWidth - marginRight}
	if math.IsInf(least, 0) {
		least = 0.01
	}
	floor := math.Pow(10, math.Floor(math.Log10(least)))
	if c.zero {
		floor /= 3
	}
	ceiling := max(min(1, math.Pow(10, math.Ceil(math.Log10(max(most, floor))+1e-9))), floor*10)
	c.y = axis{low: floor, high: ceiling, from: 570, to: 100, log: true}
	return c
}

// place is the middle of a policy's dot.
func (c *paretoChart) place(i int) point {
	return point{c.x.at(c.at[i].Cost), c.y.at(c.at[i].Violations)}
}

func (c *paretoChart) drawFront() {
	var stairs []point
	for _, i := range score.Pareto(c.at) {
		p := c.place(i)
		if len(stairs) == 0 {
			stairs = append(stairs, point{p.x, c.y.to})
		} else {
			stairs = append(stairs, point{p.x, stairs[len(stairs)-1].y})
		}
		stairs = append(stairs, p)
	}
	stairs = append(stairs, point{c.x.to, stairs[len(stairs)-1].y})
	c.line(stairs, 1.4, edge(), 6, 5)
}

// drawPoints draws the intervals, and dots over all of them.
func (c *paretoChart) drawPoints() {
	within := func(v, a, b float64) float64 { return min(max(v, min(a, b)), max(a, b)) }
	for i, p := range c.points {
		at, col := c.place(i), paletteOf(c.position[p.policy])
		if summary.Known(p.cost) {
			c.line([]point{{within(c.x.at(p.cost.Low), c.x.from, c.x.to), at.y}, {within(c.x.at(p.cost.High), c.x.from, c.x.to), at.y}}, 1.4, col)
		}
		if summary.Known(p.loss) {
			c.line([]point{{at.x, within(c.y.at(max(p.loss.Low, c.y.low)), c.y.from, c.y.to)}, {at.x, within(c.y.at(max(p.loss.High, c.y.low)), c.y.from, c.y.to)}}, 1.4, col)
		}
		c.taken = append(c.taken, box{at.x - 9, at.y - 9, at.x + 9, at.y + 9})
	}
	for i, p := range c.points {
		middle := c.place(i)
		c.fill(disc(middle, 8.5, 40), color.White)
		c.fill(disc(middle, 7, 40), paletteOf(c.position[p.policy]))
	}
}

// drawNames writes each policy's name beside its dot, where there is room; else it is left out.
func (c *paretoChart) drawNames() {
	for i, p := range c.points {
		st := style{size: 14, bold: true, col: paletteOf(c.position[p.policy])}
		name := text.Plain(p.policy)
		if r := []rune(name); len(r) > 40 {
			name = string(r[:39]) + "…"
		}
		at, n := c.place(i), c.measure(name, st)
		px, py := at.x, at.y
		for _, spot := range []point{{px + 9, py - 9}, {px + 9, py + 19}, {px - n - 9, py - 9}, {px - n - 9, py + 19}, {px + 13, py + 5}, {px - n - 13, py + 5}} {
			b := box{spot.x, spot.y - 12, spot.x + n, spot.y + 4}
			if b.x0 < c.x.from || b.x1 > pictureWidth || b.y0 < 70 || slices.ContainsFunc(c.taken, b.overlaps) {
				continue
			}
			halo := st
			halo.col = color.White
			for _, d := range disc(spot, 2, 8) {
				c.write(d.x, d.y, name, halo)
			}
			c.write(spot.x, spot.y, name, st)
			c.taken = append(c.taken, b)
			break
		}
	}
}
