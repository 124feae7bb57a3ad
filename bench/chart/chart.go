package chart

import (
	"errors"
	"image/color"
	"image/png"
	"io"
	"math"
	"strconv"

	"github.com/sluice-autoscaler/sluice/bench/text"
)

// The pictures are drawn with image/png and golang.org/x/image (its rasterizer and the Go fonts),
// one small module. gonum/plot would do too, and does in testbed and bench/sidecar, which are
// modules of their own; here it would bring a PDF library, a TeX layout engine and several fonts
// into the module of the product, for two charts.

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

// legend writes entries at the left and breaks the line where they meet the margin. It returns the
// last base line.
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
	s.write(marginLeft-38, 36, text.Plain(title), style{size: 20, bold: true, col: ink()})
	return s, nil
}

// finite is the value, or 0 if it is none.
func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}
