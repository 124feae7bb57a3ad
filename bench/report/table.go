package report

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	"github.com/sluice-autoscaler/sluice/bench/score"
)

// tableMetrics are the columns of the text tables.
func tableMetrics() []Metric {
	var out []Metric
	for _, m := range Metrics() {
		switch m.Name {
		case "podSeconds", "sloViolations", "waitP99", "coldStarts", "lost", "reversals", "peakReplicas":
			out = append(out, m)
		}
	}
	return out
}

// Text writes a table for terminals: one block for each scenario and trace, one line for each policy, with half the 95 % interval
// behind ± if there are several seeds, and a block over all traces at the end. A star marks the lowest value of a block; a policy
// on the Pareto front of pod-seconds and violations has a dot before its name.
func Text(w io.Writer, s Summary) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	metrics := tableMetrics()
	for start := 0; start < len(s.Comparison); {
		end := groupEnd(s.Comparison, start)
		group := s.Comparison[start:end]
		first := group[0]
		if start > 0 {
			fmt.Fprintln(t)
		}
		fmt.Fprintf(t, "%s  %s requests, %s\n", heading(first.Trace, first.Scenario), count(float64(first.Requests)/float64(max(first.Seeds, 1))), plural(first.Seeds, "seed"))
		fmt.Fprint(t, "  POLICY")
		for _, m := range metrics {
			fmt.Fprintf(t, "\t%s", strings.ToUpper(m.Title))
			if m.Name == "podSeconds" && s.Baseline != "" {
				fmt.Fprintf(t, "\t× %s", plain(s.Baseline))
			}
		}
		fmt.Fprintln(t)
		onFront := frontOf(s.Pareto, first.Trace, first.Scenario)
		for _, r := range group {
			mark := " "
			if onFront[r.Policy] {
				mark = "•"
			}
			fmt.Fprintf(t, "%s %s", mark, plain(r.Policy))
			for _, m := range metrics {
				fmt.Fprintf(t, "\t%s", cell(m, r, lowest(group, m.Name)))
				if m.Name == "podSeconds" && s.Baseline != "" {
					q, ok := r.Ratio[m.Name]
					fmt.Fprintf(t, "\t%s", ratio(q, ok))
				}
			}
			fmt.Fprintln(t)
		}
		start = end
	}
	for i, o := range s.Overall {
		if i == 0 || o.Scenario != s.Overall[i-1].Scenario {
			fmt.Fprintf(t, "\n%s  each trace counts the same; ratios are geometric means\n", heading("all traces", o.Scenario))
			fmt.Fprintf(t, "  POLICY\tTRACES\tPOD-SECONDS × %s\tCOST ×\tCOLD STARTS ×\tSLO VIOLATIONS\tWORST TRACE\n", plain(s.Baseline))
		}
		fmt.Fprintf(t, "  %s\t%d", plain(o.Policy), o.Traces)
		for _, name := range ratioMetrics() {
			q, ok := o.Ratio[name]
			fmt.Fprintf(t, "\t%s", ratio(q, ok))
			if ok && q.N < o.Traces {
				fmt.Fprintf(t, " (%s)", plural(q.N, "trace"))
			}
		}
		fmt.Fprintf(t, "\t%s\t%s (%s)\n", percent(o.Mean["sloViolations"]), percent(o.Worst), plain(o.WorstTrace))
	}
	for i, n := range s.Notes {
		if i == 0 {
			fmt.Fprintln(t)
		}
		fmt.Fprintf(t, "Note: %s\n", plain(n))
	}
	return t.Flush()
}

// groupEnd is where the rows of the trace and scenario end that begin at start.
func groupEnd(rows []Row, start int) int {
	end := start
	for end < len(rows) && rows[end].Trace == rows[start].Trace && rows[end].Scenario == rows[start].Scenario {
		end++
	}
	return end
}

func heading(trace, scenario string) string {
	if scenario == "" {
		return plain(trace)
	}
	return plain(trace) + ", " + plain(scenario)
}

func frontOf(fronts []Front, trace, scenario string) map[string]bool {
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
func lowest(group []Row, name string) float64 {
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

func cell(m Metric, r Row, best float64) string {
	i, ok := r.Mean[m.Name]
	if !ok {
		return "–"
	}
	s := show(m, i.Mean, i.Mean)
	if spread(i) {
		s += " ± " + show(m, half(i), i.Mean)
	}
	if i.Mean == best {
		s += " *"
	}
	return s
}

// plain makes a name safe for a terminal and for one cell of a table: control characters, tabs and line ends become spaces.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || (r >= 0x7f && r < 0xa0) {
			return ' '
		}
		return r
	}, s)
}

// Sparklines writes a run over time as rows of block characters, width columns wide: arrivals, pods and the longest wait. Every
// line has its own scale, whose top is written behind it; a column shows its highest step, so that no peak is lost.
func Sparklines(w io.Writer, run score.Run, width int) error {
	s := run.Series
	width = min(max(width, 10), 500)
	fmt.Fprintf(w, "%s  %s  seed %d  %s\n", heading(run.Result.Trace, run.Result.Scenario), plain(run.Result.Policy), run.Result.Seed, duration(s.Step*float64(len(s.Arrivals))))
	pods := peak(s.Ready, s.Wanted, s.Demand)
	for _, l := range []struct {
		name   string
		values []float32
		top    float64
		unit   string
	}{
		{"load", s.Arrivals, peak(s.Arrivals), "requests/s"},
		{"demand", s.Demand, pods, "pods"},
		{"ready", s.Ready, pods, "pods"},
		{"wanted", s.Wanted, pods, "pods"},
		{"waiting", s.Waiting, peak(s.Waiting), "requests"},
	} {
		if _, err := fmt.Fprintf(w, "  %-8s%s  0–%s %s\n", l.name, spark(l.values, l.top, width), count(l.top), l.unit); err != nil {
			return err
		}
	}
	return nil
}

// peak is the highest value, at least 0.
func peak(all ...[]float32) float64 {
	top := 0.0
	for _, values := range all {
		for _, v := range values {
			if x := float64(v); x > top && !math.IsInf(x, 0) {
				top = x
			}
		}
	}
	return top
}

// spark draws values on a scale from 0 to top. Zero is a blank; whatever is above zero shows at least the lowest block.
func spark(values []float32, top float64, width int) string {
	blocks := []rune(" ▁▂▃▄▅▆▇█")
	width = min(width, len(values))
	out := make([]rune, width)
	for c := range out {
		v := peak(values[c*len(values)/width : (c+1)*len(values)/width])
		k := 0
		if v > 0 && top > 0 {
			k = min(max(int(math.Round(v/top*8)), 1), 8)
		}
		out[c] = blocks[k]
	}
	return string(out)
}
