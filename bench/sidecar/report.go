package main

import (
	"fmt"
	"image/color"
	"io"
	"slices"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// means are a target's figures over all rounds: weighted by requests where they are per request.
type means struct {
	rate, perRequest, share float64
	idle, rss               int64
	failed                  int64
	n                       int
}

func (r *result) mean(target, kind string, connections int) (m means) {
	var cpu, requests float64
	for _, x := range r.Measurements {
		if x.Target != target || x.Kind != kind || x.Connections != connections {
			continue
		}
		m.n++
		m.rate += x.Rate
		m.share += x.Share
		cpu += x.CPU
		requests += float64(x.Requests)
		m.idle, m.rss = max(m.idle, x.IdleRSS), max(m.rss, x.RSS)
		m.failed += x.Failed
	}
	if m.n > 0 {
		m.rate /= float64(m.n)
		m.share /= float64(m.n)
		m.perRequest = cpu / max(requests, 1) * 1e6
	}
	return m
}

// added is the mean over rounds of a target's latency less the direct one's of the same round.
func (r *result) added(target string) (p50, p99 time.Duration, rate float64, ok bool) {
	n := time.Duration(0)
	for _, x := range r.Latencies {
		for _, d := range r.Latencies {
			if x.Target == target && d.Target == "direct" && x.Round == d.Round {
				p50 += x.P50 - d.P50
				p99 += x.P99 - d.P99
				rate += x.Rate
				n++
			}
		}
	}
	if n == 0 {
		return 0, 0, 0, false
	}
	return p50 / n, p99 / n, rate / float64(n), true
}

func (r *result) names() (all []string) {
	for _, x := range r.Measurements {
		if !slices.Contains(all, x.Target) {
			all = append(all, x.Target)
		}
	}
	return all
}

const mebi = 1 << 20

func (r *result) print(w io.Writer) {
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
	p("\n%s, %s; %d rounds of %v. CPU and memory are the proxy's.\n", r.Machine, r.Go, r.Rounds, r.Length)
	p("%-11s %5s  %-14s %11s %15s %10s %10s %7s\n", "requests", "conns", "target", "requests/s", "CPU µs/request", "idle MiB", "after MiB", "failed")
	for _, k := range kinds() {
		for _, n := range []int{1, openConnections, 64} {
			for _, name := range r.names() {
				if m := r.mean(name, k.name, n); m.n > 0 {
					p("%-11s %5d  %-14s %11.0f %15.1f %10.1f %10.1f %7d\n", k.name, n, name, m.rate, m.perRequest, float64(m.idle)/mebi, float64(m.rss)/mebi, m.failed)
				}
			}
		}
	}
	p("\nadded latency at half load, small answers, %d connections, from intended instants\n", openConnections)
	for _, name := range r.names() {
		if p50, p99, rate, ok := r.added(name); ok && name != "direct" {
			p("%-14s at %6.0f requests/s: p50 +%v  p99 +%v\n", name, rate, p50.Round(time.Microsecond), p99.Round(time.Microsecond))
		}
	}
	p("\nratios, %d connections\n", openConnections)
	ratio := func(what, a, b, kind string, want float64) {
		x, y := r.mean(a, kind, openConnections).perRequest, r.mean(b, kind, openConnections).perRequest
		if x > 0 && y > 0 {
			p("%-40s %.2f × %s (wanted: ≤ %.2f)\n", what, x/y, b, want)
		}
	}
	ratio("proxy, CPU per small request", "sluice-proxy", "haproxy", "small", 1.25)
	ratio("proxy, CPU per small request", "sluice-proxy", "queue-proxy", "small", 0.25)
	ratio("proxy, CPU per gRPC call", "sluice-proxy", "queue-proxy", "grpc", 0.5)
	_, ours, _, ok := r.added("sluice-proxy")
	_, theirs, _, ok2 := r.added("haproxy")
	if ok && ok2 && theirs > 0 {
		p("%-40s %.2f × haproxy (wanted: ≤ 1.50)\n", "proxy, added p99", float64(ours)/float64(theirs))
	}
	if m := r.mean("sluice-proxy", "small", openConnections); m.n > 0 {
		p("%-40s %.1f MiB idle (wanted: ≤ 10), %.1f MiB after (wanted: ≤ 16)\n", "proxy, RSS", float64(m.idle)/mebi, float64(m.rss)/mebi)
	}
	if o := r.Observer; o != nil {
		p("%-40s %.2f %% of a core (wanted: ≤ 1)\n", fmt.Sprintf("observe at %.0f requests/s, 64 connections", o.Rate), 100*o.Share)
	}
}

// draw draws CPU per request by target and kind of request.
func (r *result) draw(path string) error {
	c := plot.New()
	c.Title.Text = fmt.Sprintf("CPU of the proxy per request, %d connections", openConnections)
	c.Y.Label.Text = "µs per request"
	c.Y.Min = 0
	c.Legend.Top = true
	c.Legend.Left = true
	var labels []string
	colors := []color.Color{
		color.RGBA{0x00, 0x96, 0x39, 0xff},
		color.RGBA{0x5b, 0x9b, 0xd5, 0xff},
		color.RGBA{0xd9, 0x53, 0x4f, 0xff},
		color.RGBA{0x6f, 0x42, 0xc1, 0xff},
		color.RGBA{0xf0, 0xad, 0x4e, 0xff},
	}
	names := slices.DeleteFunc(r.names(), func(s string) bool { return s == "direct" })
	slices.Sort(names)
	const width = 14
	for i, name := range names {
		var values plotter.Values
		for _, k := range kinds() {
			if i == 0 {
				labels = append(labels, k.name)
			}
			values = append(values, r.mean(name, k.name, openConnections).perRequest)
		}
		bars, err := plotter.NewBarChart(values, vg.Points(width))
		if err != nil {
			return fmt.Errorf("draw %s: %w", name, err)
		}
		bars.Color = colors[i%len(colors)]
		bars.LineStyle.Width = 0
		bars.Offset = vg.Points(width * (float64(i) - float64(len(names)-1)/2))
		c.Add(bars)
		c.Legend.Add(name, bars)
	}
	c.NominalX(labels...)
	if err := c.Save(20*vg.Centimeter, 12*vg.Centimeter, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
