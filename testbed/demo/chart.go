package demo

import (
	"bytes"
	"fmt"
	"html/template"
	"image/color"
	"io"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The size of the chart.
const (
	chartWidth  = 12 * vg.Inch
	chartHeight = 7.2 * vg.Inch
)

// Colours of the series.
func grey() color.Color   { return color.NRGBA{0x9a, 0xa0, 0xa6, 0xff} }
func blue() color.Color   { return color.NRGBA{0x1a, 0x73, 0xe8, 0xff} }
func red() color.Color    { return color.NRGBA{0xd9, 0x30, 0x25, 0xff} }
func amber() color.Color  { return color.NRGBA{0xf9, 0xab, 0x00, 0xff} }
func green() color.Color  { return color.NRGBA{0x18, 0x80, 0x38, 0xff} }
func pale() color.Color   { return color.NRGBA{0xce, 0xea, 0xd6, 0xff} }
func shade() color.Color  { return color.NRGBA{0xe8, 0xf0, 0xfe, 0xff} }
func violet() color.Color { return color.NRGBA{0x93, 0x34, 0xe6, 0xff} }

// writePNG draws the chart as PNG.
func writePNG(w io.Writer, r Report) error {
	canvas := vgimg.NewWith(vgimg.UseWH(chartWidth, chartHeight), vgimg.UseDPI(144))
	if err := drawChart(draw.New(canvas), r); err != nil {
		return err
	}
	_, err := vgimg.PngCanvas{Canvas: canvas}.WriteTo(w)
	return err
}

// writeHTML writes a page that needs nothing else: the numbers and the chart.
func writeHTML(w io.Writer, r Report) error {
	canvas := vgsvg.NewWith(vgsvg.UseWH(chartWidth, chartHeight))
	if err := drawChart(draw.New(canvas), r); err != nil {
		return err
	}
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return err
	}
	// An XML declaration has no place inside HTML.
	_, image, _ := strings.Cut(svg.String(), "<svg")
	page, err := template.New("page").Funcs(template.FuncMap{
		"clock": clock, "short": short, "offset": offset, "share": share, "took": took,
	}).Parse(pageTemplate)
	if err != nil {
		return fmt.Errorf("parse the page: %w", err)
	}
	return page.Execute(w, struct {
		Report
		Chart template.HTML
	}{r, template.HTML("<svg" + image)}) //nolint:gosec // drawn above
}

// drawChart draws load above, and pods below, over one axis of time.
func drawChart(canvas draw.Canvas, r Report) error {
	top, err := loadPlot(r)
	if err != nil {
		return err
	}
	bottom, err := podPlot(r)
	if err != nil {
		return err
	}
	plots := [][]*plot.Plot{{top}, {bottom}}
	canvas.SetColor(color.White)
	canvas.Fill(canvas.Path())
	tiles := draw.Tiles{Rows: 2, Cols: 1, PadX: vg.Points(8), PadY: vg.Points(10), PadTop: vg.Points(8), PadBottom: vg.Points(6), PadLeft: vg.Points(8), PadRight: vg.Points(14)}
	for row, line := range plot.Align(plots, tiles, canvas) {
		plots[row][0].Draw(line[0])
	}
	return nil
}

// basic is a plot with the acts shaded and named.
func basic(r Report, y string, height float64) (*plot.Plot, error) {
	p := plot.New()
	p.Y.Label.Text = y
	p.Y.Min, p.Y.Max = 0, height
	p.X.Min, p.X.Max = r.Samples[0].At.Seconds(), r.Samples[len(r.Samples)-1].At.Seconds()
	p.X.Tick.Marker = minutes{}
	p.Legend.Top = true
	p.Legend.Left = true
	p.Legend.XOffs = vg.Points(8)
	p.Legend.Padding = vg.Points(2)
	p.Legend.YOffs = vg.Points(-6)
	for _, style := range []*text.Style{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle} {
		sans(style, 10)
	}
	p.X.Tick.Color, p.Y.Tick.Color = grey(), grey()
	p.X.Color, p.Y.Color = grey(), grey()
	for i, a := range r.Acts {
		if i%2 == 0 {
			box, err := plotter.NewPolygon(plotter.XYs{{X: a.From.Seconds(), Y: 0}, {X: a.To.Seconds(), Y: 0}, {X: a.To.Seconds(), Y: height}, {X: a.From.Seconds(), Y: height}})
			if err != nil {
				return nil, fmt.Errorf("shade act %d: %w", i+1, err)
			}
			box.Color, box.Width = shade(), 0
			p.Add(box)
		}
	}
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	grid.Horizontal.Color = color.NRGBA{0xda, 0xdc, 0xe0, 0xff}
	p.Add(grid)
	return p, nil
}

func loadPlot(r Report) (*plot.Plot, error) {
	most := 1.0
	for _, s := range r.Samples {
		most = max(most, s.Wanted, s.Answered)
		if s.Waiting != nil {
			most = max(most, float64(*s.Waiting))
		}
	}
	sent, _, lost := r.Requests()
	height := max(most, float64(lost)) * 1.3
	p, err := basic(r, "requests", height)
	if err != nil {
		return nil, err
	}
	p.Title.Text = fmt.Sprintf("Sluice on a real control plane: %d requests, %d lost", sent, lost)
	sans(&p.Title.TextStyle, 15)
	p.Y.Tick.Marker = every(50)
	p.Title.Padding = vg.Points(6)
	held, err := line(r.Samples, amber(), func(s Sample) (float64, bool) { return float(s.Waiting) })
	if err != nil {
		return nil, err
	}
	held.FillColor = color.NRGBA{0xfe, 0xef, 0xc3, 0xff}
	wanted, err := line(r.Samples, grey(), func(s Sample) (float64, bool) { return s.Wanted, true })
	if err != nil {
		return nil, err
	}
	answered, err := line(r.Samples, blue(), func(s Sample) (float64, bool) { return s.Answered, true })
	if err != nil {
		return nil, err
	}
	p.Add(held, wanted, answered)
	p.Legend.Add("wanted per second", wanted)
	p.Legend.Add("answered per second", answered)
	p.Legend.Add("held at the gateways (most at once)", held)
	if lost > 0 {
		total, err := line(r.Samples, red(), func(s Sample) (float64, bool) { return float64(s.Lost), true })
		if err != nil {
			return nil, err
		}
		p.Add(total)
		p.Legend.Add("lost in all", total)
	}
	var names plotter.XYLabels
	for i, a := range r.Acts {
		names.XYs = append(names.XYs, plotter.XY{X: (a.From + (a.To-a.From)/2).Seconds(), Y: height * 0.95})
		names.Labels = append(names.Labels, fmt.Sprintf("Act %d: %s", i+1, a.Name))
	}
	labels, err := plotter.NewLabels(names)
	if err != nil {
		return nil, fmt.Errorf("name the acts: %w", err)
	}
	for i := range labels.TextStyle {
		sans(&labels.TextStyle[i], 13)
		labels.TextStyle[i].XAlign, labels.TextStyle[i].YAlign = draw.XCenter, draw.YCenter
	}
	p.Add(labels)
	return p, nil
}

func podPlot(r Report) (*plot.Plot, error) {
	most := 1.0
	for _, s := range r.Samples {
		for _, n := range []*int{s.Replicas, s.Ready} {
			if n != nil {
				most = max(most, float64(*n))
			}
		}
		if s.Concurrency != nil {
			most = max(most, *s.Concurrency/podTarget)
		}
	}
	p, err := basic(r, "pods", most*1.4)
	if err != nil {
		return nil, err
	}
	p.X.Label.Text = "minutes since the first act began"
	p.Y.Tick.Marker = every(2)
	ready, err := line(r.Samples, green(), func(s Sample) (float64, bool) { return float(s.Ready) })
	if err != nil {
		return nil, err
	}
	ready.StepStyle, ready.FillColor = plotter.PostStep, pale()
	replicas, err := line(r.Samples, grey(), func(s Sample) (float64, bool) { return float(s.Replicas) })
	if err != nil {
		return nil, err
	}
	replicas.StepStyle = plotter.PostStep
	replicas.Dashes = []vg.Length{vg.Points(3), vg.Points(3)}
	replicas.Color = color.Black
	needed, err := line(r.Samples, violet(), func(s Sample) (float64, bool) {
		if s.Concurrency == nil {
			return 0, false
		}
		return *s.Concurrency / podTarget, true
	})
	if err != nil {
		return nil, err
	}
	p.Add(ready, needed, replicas)
	p.Legend.Add("ready", ready)
	p.Legend.Add("replicas asked for", replicas)
	p.Legend.Add(fmt.Sprintf("metrics API: concurrency / %d", podTarget), needed)
	return p, nil
}

// line draws the known values of a series.
func line(samples []Sample, c color.Color, value func(Sample) (float64, bool)) (*plotter.Line, error) {
	var points plotter.XYs
	for _, s := range samples {
		if y, ok := value(s); ok {
			points = append(points, plotter.XY{X: s.At.Seconds(), Y: y})
		}
	}
	if len(points) == 0 {
		points = plotter.XYs{{}}
	}
	l, err := plotter.NewLine(points)
	if err != nil {
		return nil, fmt.Errorf("draw a line: %w", err)
	}
	l.Color, l.Width = c, vg.Points(1.6)
	return l, nil
}

func float(n *int) (float64, bool) {
	if n == nil {
		return 0, false
	}
	return float64(*n), true
}

// sans sets a style in a sans-serif font of a size in points.
func sans(s *text.Style, points float64) {
	s.Font.Variant = "Sans"
	s.Font.Size = vg.Points(points)
}

// every marks the multiples of a number, or of twice, four times … of it if that were too many.
type every float64

// Ticks implements plot.Ticker.
func (e every) Ticks(low, high float64) []plot.Tick {
	step := float64(e)
	for (high-low)/step > 10 {
		step *= 2
	}
	var ticks []plot.Tick
	for y := 0.0; y <= high; y += step {
		if y >= low {
			ticks = append(ticks, plot.Tick{Value: y, Label: fmt.Sprintf("%.0f", y)})
		}
	}
	return ticks
}

// minutes marks each half minute and names it m:ss.
type minutes struct{}

// Ticks implements plot.Ticker.
func (minutes) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for x := 0.0; x <= high; x += 30 {
		if x >= low {
			ticks = append(ticks, plot.Tick{Value: x, Label: clock(time.Duration(x * float64(time.Second)))})
		}
	}
	return ticks
}

// took is how long a cold start's phase lasted.
func took(c ColdStart, i int) time.Duration {
	if i == 0 {
		return c.Phases[0].Until
	}
	return max(0, c.Phases[i].Until-c.Phases[i-1].Until)
}

// offset and share place a phase in its cold start, in percent.
func offset(c ColdStart, i int) float64 {
	if i == 0 {
		return 0
	}
	return percent(c.Phases[i-1].Until, c)
}

func share(c ColdStart, i int) float64 { return percent(took(c, i), c) }

func percent(d time.Duration, c ColdStart) float64 {
	total := c.Phases[len(c.Phases)-1].Until
	if total <= 0 {
		return 0
	}
	return 100 * float64(d) / float64(total)
}

const pageTemplate = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Sluice demo</title>
<style>
body{font:15px/1.45 system-ui,sans-serif;max-width:1180px;margin:2em auto;padding:0 1em;color:#202124}
svg{width:100%;height:auto} svg text{font-family:system-ui,sans-serif!important} table{border-collapse:collapse;margin:.4em 0} td,th{padding:.15em .8em .15em 0;text-align:left;vertical-align:top}
.n{text-align:right;font-variant-numeric:tabular-nums} .bar{background:#e8eaed;width:26em;padding:0} .bar i{display:block;height:.9em;background:#1a73e8;min-width:2px}
.ok{color:#188038} .bad{color:#d93025} h2{margin-bottom:.2em} small{color:#5f6368}
</style></head><body>
<h1>Sluice demo</h1>
<p>{{with .Failures}}<b class="bad">{{range .}}{{.}}<br>{{end}}</b>{{else}}<b class="ok">Every request was answered, and every replica count reached.</b>{{end}}{{if .Interrupted}} The demo was stopped before its end.{{end}}
<small>Started {{.Start.UTC.Format "2006-01-02 15:04:05"}} UTC.</small></p>
{{.Chart}}
{{range $n, $a := .Acts}}<h2>Act {{$a.Name}}</h2>
<p>{{$a.Load}}. Latency from the intended instant: median {{short $a.Load.P50}}, 90 % {{short $a.Load.P90}}, 99 % {{short $a.Load.P99}}, longest {{short $a.Load.Max}}.</p>
<table>{{range $a.Milestones}}<tr><td class="{{if .Reached}}ok{{else}}bad{{end}}">{{if .Reached}}✓{{else}}✗{{end}}</td><td class="n">{{if .Reached}}{{clock .At}}{{end}}</td><td>{{.What}}</td></tr>{{end}}</table>
{{range $a.ColdStarts}}{{$c := .}}<h3>Cold start, {{.Held}} waited</h3>
<table><tr><th>phase</th><th>took</th><th>over after</th><th></th></tr>{{range $i, $p := .Phases}}<tr><td>{{$p.Name}}</td><td class="n">{{short (took $c $i)}}</td><td class="n">{{short $p.Until}}</td><td class="bar"><i style="margin-left:{{offset $c $i}}%;width:{{share $c $i}}%"></i></td></tr>{{end}}</table>{{end}}
{{end}}<p><small>Raw data is beside this page: samples.csv (one line a second), requests-1.csv and requests-2.csv (one line a request), report.json.</small></p>
</body></html>
`
