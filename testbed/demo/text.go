package demo

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/guptarohit/asciigraph"
	"github.com/sluice-autoscaler/sluice/bench/load"
)

// printer writes to people. Write errors are not its business: who cannot print can still finish.
type printer struct {
	w io.Writer
	// color is for terminals.
	color bool
}

func (p printer) line(format string, args ...any) {
	_, _ = fmt.Fprintf(p.w, format+"\n", args...)
}

func (p printer) paint(code, text string) string {
	if !p.color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p printer) title(text string) {
	p.line("\n%s", p.paint("1", "── "+text+" ──"))
}

// command shows what a user would type and what came of it.
func (p printer) command(output, format string, args ...any) {
	var b strings.Builder
	b.WriteString("  " + p.paint("36", "$ "+fmt.Sprintf(format, args...)))
	for l := range strings.Lines(strings.TrimRight(output, "\n")) {
		b.WriteString("\n    " + strings.TrimRight(l, "\n"))
	}
	p.line("%s", b.String()) // at once, so that a sample does not come between
}

// header names the columns of sample.
func (p printer) header() {
	p.line("%s", p.paint("2", fmt.Sprintf("%5s  %-26s %7s %9s %9s %8s %12s  %-13s %-13s", "time", "load", "wanted", "answered", "in flight", "held", "concurrency", "replicas", "state")))
}

// sample is the line of one second. Bars stand for pods: full ones are ready, the others on their
// way (or, at the end of a bar of full ones, asked away).
func (p printer) sample(s Sample) {
	replicas := "?"
	bar := ""
	if s.Replicas != nil && s.Ready != nil {
		replicas = fmt.Sprintf("%d, %d ready", *s.Replicas, *s.Ready)
		bar = p.paint("32", strings.Repeat("●", *s.Ready)) + strings.Repeat("○", max(0, *s.Replicas-*s.Ready))
	}
	waiting := fmt.Sprintf("%8s", whole(s.Waiting, "?"))
	if s.Waiting != nil && *s.Waiting > 0 {
		waiting = p.paint("33", waiting)
	}
	lost := ""
	if s.Lost > 0 {
		lost = p.paint("31", fmt.Sprintf("  %d LOST", s.Lost))
	}
	p.line("%5s  %-26s %5.0f/s %7.0f/s %9d %s %12s  %-13s %-13s %s%s",
		clock(s.At), s.Stage, s.Wanted, s.Answered, s.InFlight, waiting, decimal(s.Concurrency, "?"), replicas, s.Phase, bar, lost)
}

// clock writes a time as m:ss.
func clock(d time.Duration) string {
	d = d.Round(time.Second)
	return fmt.Sprintf("%d:%02d", d/time.Minute, d%time.Minute/time.Second)
}

// summary writes the outcome.
func (p printer) summary(r Report) {
	p.title("Summary")
	if r.Interrupted {
		p.line("The demo was stopped before its end.")
	}
	for i, a := range r.Acts {
		p.line("")
		p.line("%s", p.paint("1", fmt.Sprintf("Act %d: %s (%s to %s)", i+1, a.Name, clock(a.From), clock(a.To))))
		p.line("  requests    %v", a.Load)
		p.line("  latency     median %s, 90 %% %s, 99 %% %s, longest %s, from the intended instant; each request takes the app %d ms",
			short(a.Load.P50), short(a.Load.P90), short(a.Load.P99), short(a.Load.Max), requestMillis)
		if a.Load.Late*20 > a.Load.Sent {
			p.line("  client      %d sent more than %d ms late: this machine was short of CPU time", a.Load.Late, load.LateAfter.Milliseconds())
		}
		if a.Load.Resent > 0 {
			p.line("  client      %d sent again on a new connection, because a pooled one was closed", a.Load.Resent)
		}
		for k, m := range a.Milestones {
			label := ""
			if k == 0 {
				label = "replicas"
			}
			switch {
			case m.Reached:
				p.line("  %-10s  %s %5s  %s", label, p.paint("32", "✓"), clock(m.At), m.What)
			case r.Interrupted:
				p.line("  %-10s  - %5s  %s", label, "", m.What)
			default:
				p.line("  %-10s  %s %5s  %s", label, p.paint("31", "✗"), "—", m.What)
			}
		}
		for k, c := range a.ColdStarts {
			p.coldStart(k+1, c)
		}
	}
	if len(r.Samples) > 1 {
		p.line("")
		p.charts(r.Samples)
	}
}

// coldStart draws a wake-up as a staircase, each phase from where the one before ended.
func (p printer) coldStart(n int, c ColdStart) {
	if len(c.Phases) == 0 {
		return
	}
	const width = 48
	total := c.Phases[len(c.Phases)-1].Until
	p.line("  cold start %d: %s from the first request to the first release; %d waited", n, short(total), c.Held)
	var before time.Duration
	for _, phase := range c.Phases {
		end := max(phase.Until, before)
		from, to := column(before, total, width), column(end, total, width)
		p.line("    %-23s +%-8s %8s  %s%s", phase.Name, short(end-before), short(end), strings.Repeat(" ", from), p.paint("34", strings.Repeat("█", max(1, to-from))))
		before = end
	}
}

func column(d, total time.Duration, width int) int {
	if total <= 0 {
		return 0
	}
	return int(int64(width) * int64(d) / int64(total))
}

// short writes a duration to about three digits.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	default:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
}

// charts draws load and replicas over one axis of time.
func (p printer) charts(samples []Sample) {
	var wanted, answered, replicas, ready []float64
	for _, s := range samples {
		wanted, answered = append(wanted, s.Wanted), append(answered, s.Answered)
		replicas, ready = append(replicas, carry(replicas, s.Replicas)), append(ready, carry(ready, s.Ready))
	}
	const width = 110
	end := samples[len(samples)-1].At.Seconds()
	axis := []asciigraph.Option{
		asciigraph.Width(width), asciigraph.LowerBound(0), asciigraph.Precision(0), asciigraph.XAxisRange(samples[0].At.Seconds(), end), asciigraph.XAxisTickCount(9),
		asciigraph.XAxisValueFormatter(func(x float64) string { return clock(time.Duration(x * float64(time.Second))) }),
		// Both charts must begin at the same column.
		asciigraph.YAxisValueFormatter(func(y float64) string { return fmt.Sprintf("%4.0f", y) }),
	}
	// A row stands for step, or for a multiple of it that keeps the chart low, so that the axis has
	// whole numbers.
	plot := func(title string, step float64, series [][]float64, names []string, colors []asciigraph.AnsiColor) {
		most := step
		for _, values := range series {
			most = max(most, slices.Max(values))
		}
		for most/step > 10 {
			step *= 2
		}
		rows := math.Ceil(most / step)
		o := append([]asciigraph.Option{asciigraph.Height(int(rows)), asciigraph.UpperBound(rows * step)}, axis...)
		if p.color {
			o = append(o, asciigraph.SeriesColors(colors...), asciigraph.SeriesLegends(names...))
		} else {
			title += ": " + strings.Join(names, " and ")
		}
		p.line("  %s", title)
		p.line("%s\n", asciigraph.PlotMany(series, o...))
	}
	plot("requests per second", 25, [][]float64{wanted, answered}, []string{"wanted", "answered"}, []asciigraph.AnsiColor{asciigraph.Gray, asciigraph.Blue})
	plot("pods", 1, [][]float64{replicas, ready}, []string{"replicas", "ready"}, []asciigraph.AnsiColor{asciigraph.Orange, asciigraph.Green})
}

// carry is a value, or the one before where it is unknown.
func carry(before []float64, n *int) float64 {
	switch {
	case n != nil:
		return float64(*n)
	case len(before) > 0:
		return before[len(before)-1]
	default:
		return 0
	}
}
