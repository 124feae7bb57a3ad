package report

import (
	"errors"
	"image/color"
	"image/png"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/sluice-autoscaler/sluice/bench/score"
)

// The pictures are drawn with image/png and golang.org/x/image (its rasterizer and the Go fonts), one small module. gonum/plot would
// do too, and does in testbed and bench/sidecar, which are modules of their own; here it would bring a PDF library, a TeX layout
// engine and several fonts into the module of the product, for two charts.

// paletteOf are the page's colours on a light ground, Okabe and Ito's first.
func paletteOf(i int) color.NRGBA {
	all := []color.NRGBA{
		{0x00, 0x72, 0xb2, 0xff},
		{0xd5, 0x5e, 0x00, 0xff},
		{0x00, 0x9e, 0x73, 0xff},
		{0xc0, 0x4d, 0x93, 0xff},
		{0xb0, 0x79, 0x00, 0xff},
		{0x2f, 0x9b, 0xd8, 0xff},
		{0x6b, 0x4f, 0xb3, 0xff},
		{0x6b, 0x6b, 0x00, 0xff},
		{0x8c, 0x1d, 0x45, 0xff},
		{0x3d, 0x48, 0x52, 0xff},
	}
	return all[i%len(all)]
}

func ink() color.NRGBA   { return color.NRGBA{0x1b, 0x1f, 0x24, 0xff} }
func dim() color.NRGBA   { return color.NRGBA{0x59, 0x63, 0x6e, 0xff} }
func rule() color.NRGBA  { return color.NRGBA{0xe3, 0xe6, 0xea, 0xff} }
func shade() color.NRGBA { return color.NRGBA{0xdd, 0xe1, 0xe5, 0xff} }
func edge() color.NRGBA  { return color.NRGBA{0x8a, 0x94, 0x9e, 0xff} }

const (
	pictureWidth = 1200
	tickSize     = 13
	marginLeft   = 62
	marginRight  = 40
)

// axis maps values to places. Log scales need low > 0.
type axis struct {
	low, high float64
	from, to  float64
	log       bool
}

func (a axis) at(v float64) float64 {
	low, high := a.low, a.high
	if a.log {
		v, low, high = math.Log(max(v, a.low)), math.Log(low), math.Log(high)
	}
	return a.from + (v-low)/(high-low)*(a.to-a.from)
}

// ticks are round values, about n of them.
func (a axis) ticks(n int) []float64 {
	var out []float64
	if a.log {
		between := []float64{1}
		if math.Log10(a.high/a.low) <= 2 {
			between = []float64{1, 2, 5}
		}
		for d := math.Floor(math.Log10(a.low)); d <= math.Ceil(math.Log10(a.high)); d++ {
			for _, k := range between {
				if v := k * math.Pow(10, d); v >= a.low*0.999 && v <= a.high*1.001 {
					out = append(out, v)
				}
			}
		}
		return out
	}
	step := roundStep((a.high - a.low) / float64(n))
	for k := math.Ceil(a.low/step - 1e-9); k*step <= a.high+step*1e-6; k++ {
		out = append(out, k*step)
	}
	return out
}

// roundStep is the least of 1, 2, 5 × 10ⁿ that is not below v.
func roundStep(v float64) float64 {
	if !(v > 0) || math.IsInf(v, 0) {
		return 1
	}
	mag := math.Pow(10, math.Floor(math.Log10(v)))
	for _, k := range []float64{1, 2, 5} {
		if k*mag >= v*0.999 {
			return k * mag
		}
	}
	return 10 * mag
}

// timeStep is a step of time in seconds that clocks and calendars know.
func timeStep(v float64) float64 {
	for _, s := range []float64{1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 345600, 604800, 1209600} {
		if s >= v {
			return s
		}
	}
	return roundStep(v/86400) * 86400
}

// clock writes an instant of a run of a length, both in seconds.
func clock(t, length float64) string {
	s := int64(math.Round(t))
	two := func(n int64) string {
		text := strconv.FormatInt(n, 10)
		if len(text) < 2 {
			return "0" + text
		}
		return text
	}
	out := two(s/60%60) + ":" + two(s%60)
	if length >= 3600 {
		out = two(s/3600%24) + ":" + out
	}
	if length >= 86400 {
		out = strconv.FormatInt(s/86400, 10) + "d " + out
	}
	return out
}

// sheet is a canvas that remembers its first error, so that charts read as a list of strokes.
type sheet struct {
	*canvas
	err error
}

func (s *sheet) write(x, y float64, text string, st style) float64 {
	w, err := s.words(point{x, y}, text, st)
	s.err = errors.Join(s.err, err)
	return w
}

// grid draws a panel's grid and the words at its sides.
func (s *sheet) grid(x, y axis, xs, ys []float64, xText, yText func(float64) string) {
	for _, v := range ys {
		s.line([]point{{x.from, y.at(v)}, {x.to, y.at(v)}}, 1, rule())
		s.write(x.from-9, y.at(v)+4.5, yText(v), style{size: tickSize, align: toRight, col: dim()})
	}
	for _, v := range xs {
		s.line([]point{{x.at(v), y.from}, {x.at(v), y.to}}, 1, rule())
		s.write(x.at(v), y.from+20, xText(v), style{size: tickSize, align: centred, col: dim()})
	}
	s.line([]point{{x.from, y.from}, {x.to, y.from}}, 1, edge())
}

// entry is one entry of a legend.
type entry struct {
	text   string
	col    color.Color
	dashes []float64
	area   bool
}

// legend writes entries at the left and breaks the line where they meet the margin. It returns the last base line.
func (s *sheet) legend(y float64, entries []entry) float64 {
	st := style{size: tickSize, col: ink()}
	const x = marginLeft - 38
	at := float64(x)
	for _, e := range entries {
		if at > x && at+32+s.measure(e.text, st) > s.width-marginRight {
			at, y = x, y+20
		}
		if e.area {
			s.fill([]point{{at, y - 10}, {at + 22, y - 10}, {at + 22, y}, {at, y}}, e.col)
		} else {
			s.line([]point{{at, y - 4.5}, {at + 22, y - 4.5}}, 2.4, e.col, e.dashes...)
		}
		at += 28 + s.write(at+28, y, e.text, st) + 20
	}
	return y
}

func (s *sheet) encode(w io.Writer) error {
	if s.err != nil {
		return s.err
	}
	return png.Encode(w, s.img)
}

func newSheet(height float64, title string) (*sheet, error) {
	c, err := newCanvas(pictureWidth, height)
	if err != nil {
		return nil, err
	}
	s := &sheet{canvas: c}
	s.write(marginLeft-38, 36, plain(title), style{size: 20, bold: true, col: ink()})
	return s, nil
}

// TimeChart draws runs of one trace over time as PNG: the load above, and below it the demand in pods and what each policy made of
// it. Order are all policies of the bench, so that each has the colour that it has on the page; a policy that is not in it is added.
// Give it at most five or six runs, or nobody can tell them apart.
func TimeChart(w io.Writer, title string, order []string, runs []score.Run) error {
	s, err := newSheet(700, title)
	if err != nil {
		return err
	}
	order = slices.Clone(order)
	length, load, pods := 0.0, 0.0, 0.0
	per := make([]int, len(runs))
	for i, r := range runs {
		if !slices.Contains(order, r.Result.Policy) {
			order = append(order, r.Result.Policy)
		}
		n := len(r.Series.Arrivals)
		per[i] = max(1, n/1000)
		if d := r.Series.Step * float64(n); d > length && !math.IsInf(d, 0) {
			length = d
		}
		for _, f := range [][]float32{r.Series.Ready, r.Series.Wanted, r.Series.Demand} {
			for _, v := range shrink(f, per[i], meanOf) {
				pods = max(pods, finite(v))
			}
		}
		for _, v := range shrink(r.Series.Arrivals, per[i], meanOf) {
			load = max(load, finite(v))
		}
	}
	if length == 0 {
		s.write(marginLeft, 100, "There is nothing to draw.", style{size: 15, col: dim()})
		return s.encode(w)
	}
	position := places(order)
	legend := []entry{{text: "demand", col: shade(), area: true}}
	for _, r := range runs {
		legend = append(legend, entry{text: plain(r.Result.Policy), col: paletteOf(position[r.Result.Policy])})
	}
	legend = append(legend, entry{text: "ready", col: ink()}, entry{text: "wanted", col: ink(), dashes: []float64{5, 4}})
	y := s.legend(64, legend)

	x := axis{low: 0, high: length, from: marginLeft, to: pictureWidth - marginRight}
	var xs []float64
	for step, t := timeStep(length/9), 0.0; t <= length; t += step {
		xs = append(xs, t)
	}
	when := func(t float64) string { return clock(t, length) }
	panel := func(title, unit string, top, bottom, high float64) axis {
		if high <= 0 {
			high = 1
		}
		a := axis{low: 0, high: high * 1.06, from: bottom, to: top}
		n := s.write(marginLeft, top-10, title, style{size: 14, bold: true, col: ink()})
		s.write(marginLeft+n+8, top-10, unit, style{size: tickSize, col: dim()})
		s.grid(x, a, xs, a.ticks(4), when, count)
		return a
	}
	first := runs[0]
	trace := func(a axis, r int, values []float32, stairs bool) []point {
		step := runs[r].Series.Step * float64(per[r])
		var out []point
		for i, v := range shrink(values, per[r], meanOf) {
			p := point{x.at(min(float64(i)*step, length)), a.at(min(max(finite(v), 0), a.high))}
			if stairs && len(out) > 0 {
				if p.y == out[len(out)-1].y {
					continue
				}
				out = append(out, point{p.x, out[len(out)-1].y})
			}
			out = append(out, p)
		}
		if len(out) > 0 {
			end := min(step*math.Ceil(float64(len(values))/float64(per[r])), length)
			out = append(out, point{x.at(end), out[len(out)-1].y})
		}
		return out
	}
	top := y + 44
	above := panel("Load", "requests/s", top, top+150, load)
	s.line(trace(above, 0, first.Series.Arrivals, false), 1.6, ink())
	below := panel("Replicas", "pods", top+220, 660, pods)
	area := trace(below, 0, first.Series.Demand, false)
	if len(area) > 1 {
		outline := append(slices.Clone(area), point{area[len(area)-1].x, below.from}, point{area[0].x, below.from})
		s.fill(outline, shade())
		s.line(area, 1, edge())
	}
	for i, r := range runs {
		s.line(trace(below, i, r.Series.Wanted, true), 1.2, paletteOf(position[r.Result.Policy]), 5, 4)
	}
	for i, r := range runs {
		s.line(trace(below, i, r.Series.Ready, true), 2.2, paletteOf(position[r.Result.Policy]))
	}
	return s.encode(w)
}

// finite is the value, or 0 if it is none.
func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}

// dotted is one policy of a Pareto chart.
type dotted struct {
	policy     string
	cost, loss score.Interval
}

// ParetoChart draws the policies of one trace and scenario as PNG: pod-seconds to the right, the share of SLO violations upwards on a
// log scale, with 95 % intervals and the front. Order is as for TimeChart.
func ParetoChart(w io.Writer, title string, order []string, rows []Row) error {
	var points []dotted
	for _, r := range rows {
		points = append(points, dotted{r.Policy, r.Mean["podSeconds"], r.Mean["sloViolations"]})
	}
	return pareto(w, title, "pod-seconds", count, order, points)
}

// OverallParetoChart draws the policies of one scenario over all traces: multiples of the baseline's pod-seconds, and mean violations.
func OverallParetoChart(w io.Writer, title, baseline string, order []string, overall []Overall) error {
	var points []dotted
	for _, o := range overall {
		if q, ok := o.Ratio["podSeconds"]; ok {
			v := o.Mean["sloViolations"]
			points = append(points, dotted{o.Policy, q, score.Interval{Mean: v, Low: v, High: v, N: 1}})
		}
	}
	return pareto(w, title, "pod-seconds × "+plain(baseline)+", geometric mean over traces", digits, order, points)
}

func pareto(w io.Writer, title, unit string, text func(float64) string, order []string, points []dotted) error {
	s, err := newSheet(640, title)
	if err != nil {
		return err
	}
	if len(points) == 0 {
		s.write(marginLeft, 100, "There is nothing to draw.", style{size: 15, col: dim()})
		return s.encode(w)
	}
	order = slices.Clone(order)
	low, high, least, most, zero := math.Inf(1), 0.0, math.Inf(1), 0.0, false
	at := make([]score.Point, len(points))
	for i, p := range points {
		if !slices.Contains(order, p.policy) {
			order = append(order, p.policy)
		}
		at[i] = score.Point{Cost: finite(p.cost.Mean), Violations: finite(p.loss.Mean)}
		low, high, most = min(low, at[i].Cost), max(high, at[i].Cost), max(most, at[i].Violations)
		if at[i].Violations > 0 {
			least = min(least, at[i].Violations)
		} else {
			zero = true
		}
	}
	position := places(order)
	pad := max((high-low)*0.12, high*0.04, 1e-9)
	x := axis{low: max(0, low-pad), high: high + pad, from: marginLeft + 12, to: pictureWidth - marginRight}
	if math.IsInf(least, 0) {
		least = 0.01
	}
	floor := math.Pow(10, math.Floor(math.Log10(least)))
	if zero {
		floor /= 3
	}
	y := axis{low: floor, high: max(min(1, math.Pow(10, math.Ceil(math.Log10(max(most, floor))+1e-9))), floor*10), from: 570, to: 100, log: true}
	s.write(marginLeft-38, 66, "share of requests that violate the SLO, against "+unit+"; bars are 95 % intervals, the dashed line is the front", style{size: tickSize, col: dim()})
	ys := y.ticks(5)
	yText := func(v float64) string { return digits(v*100) + " %" }
	s.grid(x, y, x.ticks(8), ys, text, yText)
	if zero {
		s.write(x.from-9, y.from+4.5, "0", style{size: tickSize, align: toRight, col: dim()})
	}
	s.write((x.from+x.to)/2, 622, unit, style{size: 14, align: centred, col: ink()})

	var stairs []point
	for _, i := range score.Pareto(at) {
		px, py := x.at(at[i].Cost), y.at(at[i].Violations)
		if len(stairs) == 0 {
			stairs = append(stairs, point{px, y.to})
		} else {
			stairs = append(stairs, point{px, stairs[len(stairs)-1].y})
		}
		stairs = append(stairs, point{px, py})
	}
	stairs = append(stairs, point{x.to, stairs[len(stairs)-1].y})
	s.line(stairs, 1.4, edge(), 6, 5)

	type box struct{ x0, y0, x1, y1 float64 }
	var taken []box
	within := func(v, a, b float64) float64 { return min(max(v, min(a, b)), max(a, b)) }
	for i, p := range points {
		px, py, col := x.at(at[i].Cost), y.at(at[i].Violations), paletteOf(position[p.policy])
		if known(p.cost) {
			s.line([]point{{within(x.at(p.cost.Low), x.from, x.to), py}, {within(x.at(p.cost.High), x.from, x.to), py}}, 1.4, col)
		}
		if known(p.loss) {
			s.line([]point{{px, within(y.at(max(p.loss.Low, y.low)), y.from, y.to)}, {px, within(y.at(max(p.loss.High, y.low)), y.from, y.to)}}, 1.4, col)
		}
		taken = append(taken, box{px - 9, py - 9, px + 9, py + 9})
	}
	for i, p := range points {
		middle := point{x.at(at[i].Cost), y.at(at[i].Violations)}
		s.fill(disc(middle, 8.5, 40), color.White)
		s.fill(disc(middle, 7, 40), paletteOf(position[p.policy]))
	}
	for i, p := range points {
		st := style{size: 14, bold: true, col: paletteOf(position[p.policy])}
		name := plain(p.policy)
		if r := []rune(name); len(r) > 40 {
			name = string(r[:39]) + "…"
		}
		px, py, n := x.at(at[i].Cost), y.at(at[i].Violations), s.measure(name, st)
		for _, spot := range []point{{px + 9, py - 9}, {px + 9, py + 19}, {px - n - 9, py - 9}, {px - n - 9, py + 19}, {px + 13, py + 5}, {px - n - 13, py + 5}} {
			b := box{spot.x, spot.y - 12, spot.x + n, spot.y + 4}
			if b.x0 < x.from || b.x1 > pictureWidth || b.y0 < 70 || slices.ContainsFunc(taken, func(o box) bool { return b.x0 < o.x1 && b.x1 > o.x0 && b.y0 < o.y1 && b.y1 > o.y0 }) {
				continue
			}
			halo := st
			halo.col = color.White
			for _, d := range disc(spot, 2, 8) {
				s.write(d.x, d.y, name, halo)
			}
			s.write(spot.x, spot.y, name, st)
			taken = append(taken, b)
			break
		}
	}
	return s.encode(w)
}
