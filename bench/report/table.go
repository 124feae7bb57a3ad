package report

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/summary"
	"github.com/sluice-autoscaler/sluice/bench/text"
)

// tableMetrics are the columns of the text tables.
func tableMetrics() []summary.Metric {
	var out []summary.Metric
	for _, m := range summary.Metrics() {
		switch m.Name {
		case "podSeconds", "sloViolations", "waitP99", "coldStarts", "lost", "reversals", "peakReplicas":
			out = append(out, m)
		}
	}
	return out
}

// Text writes a table for terminals: one block for each scenario and trace, one line for each
// policy, with half the 95 % interval behind ± if there are several seeds, and a block over all
// traces at the end. A star marks the lowest value of a block; a policy on the Pareto front of
// pod-seconds and violations has a dot before its name.
func Text(w io.Writer, s summary.Summary) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	metrics := tableMetrics()
	for start := 0; start < len(s.Comparison); {
		end := summary.GroupEnd(s.Comparison, start)
		group := s.Comparison[start:end]
		first := group[0]
		if start > 0 {
			fmt.Fprintln(t)
		}
		fmt.Fprintf(t, "%s  %s requests, %s\n", text.Heading(first.Trace, first.Scenario), text.Count(float64(first.Requests)/float64(max(first.Seeds, 1))), text.Plural(first.Seeds, "seed"))
		fmt.Fprint(t, "  POLICY")
		for _, m := range metrics {
			fmt.Fprintf(t, "\t%s", strings.ToUpper(m.Title))
			if m.Name == "podSeconds" && s.Baseline != "" {
				fmt.Fprintf(t, "\t× %s", text.Plain(s.Baseline))
			}
		}
		fmt.Fprintln(t)
		onFront := frontOf(s.Pareto, first.Trace, first.Scenario)
		for _, r := range group {
			mark := " "
			if onFront[r.Policy] {
				mark = "•"
			}
			fmt.Fprintf(t, "%s %s", mark, text.Plain(r.Policy))
			for _, m := range metrics {
				fmt.Fprintf(t, "\t%s", m.Cell(r, lowest(group, m.Name)))
				if m.Name == "podSeconds" && s.Baseline != "" {
					q, ok := r.Ratio[m.Name]
					fmt.Fprintf(t, "\t%s", summary.FormatRatio(q, ok))
				}
			}
			fmt.Fprintln(t)
		}
		start = end
	}
	for i, o := range s.Overall {
		if i == 0 || o.Scenario != s.Overall[i-1].Scenario {
			fmt.Fprintf(t, "\n%s  each trace counts the same; ratios are geometric means\n", text.Heading("all traces", o.Scenario))
			fmt.Fprintf(t, "  POLICY\tTRACES\tPOD-SECONDS × %s\tCOST ×\tCOLD STARTS ×\tSLO VIOLATIONS\tWORST TRACE\n", text.Plain(s.Baseline))
		}
		fmt.Fprintf(t, "  %s\t%d", text.Plain(o.Policy), o.Traces)
		for _, name := range summary.RatioMetrics() {
			q, ok := o.Ratio[name]
			fmt.Fprintf(t, "\t%s", summary.FormatRatio(q, ok))
			if ok && q.N < o.Traces {
				fmt.Fprintf(t, " (%s)", text.Plural(q.N, "trace"))
			}
		}
		fmt.Fprintf(t, "\t%s\t%s (%s)\n", text.Percent(o.Mean["sloViolations"]), text.Percent(o.Worst), text.Plain(o.WorstTrace))
	}
	for i, n := range s.Notes {
		if i == 0 {
			fmt.Fprintln(t)
		}
		fmt.Fprintf(t, "Note: %s\n", text.Plain(n))
	}
	return t.Flush()
}

func frontOf(fronts []summary.Front, trace, scenario string) map[string]bool {
	on := map[string]bool{}
	for _, f := range fronts {
		if f.Trace == trace && f.Scenario == scenario {
			for _, p := range f.Policies {
				on[p] = true
			}
		}
	}
	return on
}

// lowest is the lowest mean of a metric within a group; NaN if all are equal, as then none is best.
func lowest(group []summary.Row, name string) float64 {
	low, high := math.Inf(1), math.Inf(-1)
	for _, r := range group {
		if i, ok := r.Mean[name]; ok {
			low, high = min(low, i.Mean), max(high, i.Mean)
		}
	}
	if low >= high {
		return math.NaN()
	}
	return low
}

// Sparklines writes a run over time as rows of block characters, width columns wide: arrivals, pods
// and the longest wait. Every line has its own scale, whose top is written behind it; a column
// shows its highest step, so that no peak is lost.
func Sparklines(w io.Writer, run score.Run, width int) error {
	s := run.Series
	width = min(max(width, 10), 500)
	fmt.Fprintf(w, "%s  %s  seed %d  %s\n", text.Heading(run.Result.Trace, run.Result.Scenario), text.Plain(run.Result.Policy), run.Result.Seed, text.Duration(s.Step*float64(len(s.Arrivals))))
	pods := score.PeakOf(s.Ready, s.Wanted, s.Demand)
	for _, l := range []struct {
		name   string
		values []float32
		top    float64
		unit   string
	}{
		{"load", s.Arrivals, score.PeakOf(s.Arrivals), "requests/s"},
		{"demand", s.Demand, pods, "pods"},
		{"ready", s.Ready, pods, "pods"},
		{"wanted", s.Wanted, pods, "pods"},
		{"waiting", s.Waiting, score.PeakOf(s.Waiting), "requests"},
	} {
		if _, err := fmt.Fprintf(w, "  %-8s%s  0–%s %s\n", l.name, spark(l.values, l.top, width), text.Count(l.top), l.unit); err != nil {
			return err
		}
	}
	return nil
}

// spark draws values on a scale from 0 to top. Zero is a blank; whatever is above zero shows at
// least the lowest block.
func spark(values []float32, top float64, width int) string {
	blocks := []rune(" ▁▂▃▄▅▆▇█")
	width = min(width, len(values))
	out := make([]rune, width)
	for c := range out {
		v := score.PeakOf(values[c*len(values)/width : (c+1)*len(values)/width])
		k := 0
		if v > 0 && top > 0 {
			k = min(max(int(math.Round(v/top*8)), 1), 8)
		}
		out[c] = blocks[k]
	}
	return string(out)
}
