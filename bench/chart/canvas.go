// Package chart draws the results of a bench as PNG pictures. The same input makes the same bytes.
package chart

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"math"
	"slices"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"
)

// density is how many pixels of the picture a unit of length has, in both directions.
const density = 2

// point is a place on a canvas, from the top left corner on.
type point struct{ x, y float64 }

// canvas is a picture with the few things on it that a chart needs: areas, lines and words.
type canvas struct {
	img           *image.RGBA
	width, height float64
	regular, bold *opentype.Font
	faces         map[faceKey]font.Face
	raster        *vector.Rasterizer
	shapes        [][]point
}

type faceKey struct {
	size float64
	bold bool
}

func newCanvas(width, height float64) (*canvas, error) {
	c := &canvas{width: width, height: height, faces: map[faceKey]font.Face{}}
	c.img = image.NewRGBA(image.Rect(0, 0, int(width*density), int(height*density)))
	c.raster = vector.NewRasterizer(c.img.Bounds().Dx(), c.img.Bounds().Dy())
	draw.Draw(c.img, c.img.Bounds(), image.White, image.Point{}, draw.Src)
	var err error
	if c.regular, err = opentype.Parse(goregular.TTF); err != nil {
		return nil, fmt.Errorf("parse the font: %w", err)
	}
	if c.bold, err = opentype.Parse(gobold.TTF); err != nil {
		return nil, fmt.Errorf("parse the font: %w", err)
	}
	return c, nil
}

// add remembers a closed shape, turned so that overlapping shapes add up rather than cancel each
// other out.
func (c *canvas) add(shape []point) {
	area := 0.0
	for i, p := range shape {
		q := shape[(i+1)%len(shape)]
		area += p.x*q.y - q.x*p.y
	}
	if area < 0 {
		slices.Reverse(shape)
	}
	c.shapes = append(c.shapes, shape)
}

// paint fills all that was added. Only the pixels around it are touched, as most shapes are small.
func (c *canvas) paint(col color.Color) {
	low, high := point{math.Inf(1), math.Inf(1)}, point{math.Inf(-1), math.Inf(-1)}
	for _, shape := range c.shapes {
		for _, p := range shape {
			low = point{min(low.x, p.x), min(low.y, p.y)}
			high = point{max(high.x, p.x), max(high.y, p.y)}
		}
	}
	if low.x > high.x {
		return
	}
	pixel := func(v float64) int { return int(math.Floor(min(max(v, -1), 1e5) * density)) }
	box := image.Rect(pixel(low.x)-1, pixel(low.y)-1, pixel(high.x)+2, pixel(high.y)+2).Intersect(c.img.Bounds())
	if box.Empty() {
		c.shapes = c.shapes[:0]
		return
	}
	c.raster.Reset(box.Dx(), box.Dy())
	for _, shape := range c.shapes {
		for i, p := range shape {
			x, y := float32(p.x*density-float64(box.Min.X)), float32(p.y*density-float64(box.Min.Y))
			if i == 0 {
				c.raster.MoveTo(x, y)
			} else {
				c.raster.LineTo(x, y)
			}
		}
		c.raster.ClosePath()
	}
	c.raster.Draw(c.img, box, image.NewUniform(col), image.Point{})
	c.shapes = c.shapes[:0]
}

// fill paints one shape.
func (c *canvas) fill(shape []point, col color.Color) {
	c.add(shape)
	c.paint(col)
}

// line draws a line through points, with round joints. Dashes are the lengths of stroke and gap in
// turn; none means a solid line.
func (c *canvas) line(points []point, width float64, col color.Color, dashes ...float64) {
	parts := [][]point{points}
	if len(dashes) > 0 {
		parts = dashed(points, dashes)
	}
	for _, part := range parts {
		for i, p := range part {
			if i > 0 {
				c.segment(part[i-1], p, width)
			}
			if i > 0 && i < len(part)-1 && width > 1 {
				c.add(disc(p, width/2, 8))
			}
		}
	}
	c.paint(col)
}

func (c *canvas) segment(a, b point, width float64) {
	dx, dy := b.x-a.x, b.y-a.y
	length := math.Hypot(dx, dy)
	if length == 0 {
		return
	}
	nx, ny := -dy/length*width/2, dx/length*width/2
	c.add([]point{{a.x + nx, a.y + ny}, {b.x + nx, b.y + ny}, {b.x - nx, b.y - ny}, {a.x - nx, a.y - ny}})
}

// disc is a regular polygon that stands for a circle.
func disc(p point, r float64, corners int) []point {
	out := make([]point, corners)
	for i := range out {
		a := 2 * math.Pi * float64(i) / float64(corners)
		out[i] = point{p.x + r*math.Cos(a), p.y + r*math.Sin(a)}
	}
	return out
}

// dashed cuts a line into strokes.
func dashed(points []point, dashes []float64) [][]point {
	var out [][]point
	k, left := 0, dashes[0]
	var stroke []point
	for i, p := range points {
		if i == 0 {
			stroke = []point{p}
			continue
		}
		a := points[i-1]
		for {
			length := math.Hypot(p.x-a.x, p.y-a.y)
			if length <= left {
				left -= length
				if k%2 == 0 {
					stroke = append(stroke, p)
				}
				break
			}
			a = point{a.x + (p.x-a.x)*left/length, a.y + (p.y-a.y)*left/length}
			if k%2 == 0 {
				out = append(out, append(stroke, a))
				stroke = nil
			} else {
				stroke = []point{a}
			}
			k++
			left = dashes[k%len(dashes)]
		}
	}
	if len(stroke) > 1 {
		out = append(out, stroke)
	}
	return out
}

func (c *canvas) face(size float64, bold bool) (font.Face, error) {
	k := faceKey{size, bold}
	if f := c.faces[k]; f != nil {
		return f, nil
	}
	parsed := c.regular
	if bold {
		parsed = c.bold
	}
	f, err := opentype.NewFace(parsed, &opentype.FaceOptions{Size: size * density, DPI: 72, Hinting: font.HintingNone})
	if err != nil {
		return nil, fmt.Errorf("make the font: %w", err)
	}
	c.faces[k] = f
	return f, nil
}

// Where words stand: to the right of their place, around it, or to the left of it.
const (
	fromLeft = iota
	centred
	toRight
)

// style is how words are drawn.
type style struct {
	size  float64
	bold  bool
	align int
	col   color.Color
}

// words writes one line, its base line at y, and returns its width.
func (c *canvas) words(at point, text string, s style) (float64, error) {
	f, err := c.face(s.size, s.bold)
	if err != nil {
		return 0, err
	}
	d := font.Drawer{Dst: c.img, Src: image.NewUniform(s.col), Face: f}
	width := float64(d.MeasureString(text)) / 64 / density
	x := at.x - width*float64(s.align)/2
	d.Dot = fixed.Point26_6{X: fixed.Int26_6(x * density * 64), Y: fixed.Int26_6(at.y * density * 64)}
	d.DrawString(text)
	return width, nil
}

// measure is how wide words would be.
func (c *canvas) measure(text string, s style) float64 {
	f, err := c.face(s.size, s.bold)
	if err != nil {
		return 0
	}
	return float64(font.MeasureString(f, text)) / 64 / density
}
