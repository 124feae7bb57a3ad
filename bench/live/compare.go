package live

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"text/tabwriter"

	"github.com/sluice-autoscaler/sluice/bench/score"
)

// Line is one figure of both runs.
type Line struct {
	Name            string
	Simulated, Live float64
	// Decimals are how many to print.
	Decimals int
	// ofPods says that it takes a look at the pods to know it.
	ofPods bool
}

// Ratio is simulated / live; 1 where both are 0, infinite where live alone is.
func (l Line) Ratio() float64 {
	if l.Simulated == l.Live {
		return 1
	}
	return l.Simulated / l.Live
}

// Compare lays the figures of a simulated run beside those of a live one, the ones that matter
// first. Where the pods were not watched, those that need them are left out.
func Compare(simulated, live score.Result, watched bool) []Line {
	lines := figures(simulated, live)
	if watched {
		return lines
	}
	return slices.DeleteFunc(lines, func(l Line) bool { return l.ofPods })
}

func figures(simulated, live score.Result) []Line {
	requests := func(name string, decimals int, of func(score.Result) float64) Line {
		return Line{Name: name, Simulated: of(simulated), Live: of(live), Decimals: decimals}
	}
	figure := func(name string, decimals int, of func(score.Result) float64) Line {
		l := requests(name, decimals, of)
		l.ofPods = true
		return l
	}
	return []Line{
		figure("pod-seconds", 1, func(r score.Result) float64 { return r.PodSeconds }),
		requests("p99 wait (s)", 3, func(r score.Result) float64 { return r.WaitP99 }),
		figure("cold starts", 0, func(r score.Result) float64 { return float64(r.ColdStarts) }),
		requests("SLO violations", 4, func(r score.Result) float64 { return r.SLOViolations }),
		requests("mean wait (s)", 4, func(r score.Result) float64 { return r.WaitMean }),
		requests("p50 wait (s)", 3, func(r score.Result) float64 { return r.WaitP50 }),
		requests("longest wait (s)", 3, func(r score.Result) float64 { return r.WaitMax }),
		figure("ready pod-seconds", 1, func(r score.Result) float64 { return r.ReadySeconds }),
		figure("starting pod-seconds", 1, func(r score.Result) float64 { return r.StartingSeconds }),
		figure("terminating pod-seconds", 1, func(r score.Result) float64 { return r.TerminatingSeconds }),
		figure("pod starts", 0, func(r score.Result) float64 { return float64(r.Starts) }),
		figure("wake-ups", 0, func(r score.Result) float64 { return float64(r.WakeUps) }),
		figure("changes", 0, func(r score.Result) float64 { return float64(r.Changes) }),
		figure("reversals", 0, func(r score.Result) float64 { return float64(r.Reversals) }),
		figure("peak pods", 0, func(r score.Result) float64 { return float64(r.PeakReplicas) }),
		requests("lost", 0, func(r score.Result) float64 { return float64(r.Lost) }),
		requests("requests", 0, func(r score.Result) float64 { return float64(r.Requests) }),
	}
}

// Text writes the lines as a table.
func Text(w io.Writer, lines []Line) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "FIGURE\tSIMULATED\tLIVE\tSIMULATED/LIVE")
	for _, l := range lines {
		ratio := "–"
		if q := l.Ratio(); !math.IsInf(q, 0) && !math.IsNaN(q) {
			ratio = strconv.FormatFloat(q, 'f', 3, 64)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", l.Name, strconv.FormatFloat(l.Simulated, 'f', l.Decimals, 64), strconv.FormatFloat(l.Live, 'f', l.Decimals, 64), ratio)
	}
	return t.Flush()
}
