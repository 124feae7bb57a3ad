package benchlive

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/folder"
	"github.com/sluice-autoscaler/sluice/bench/live"
	"github.com/sluice-autoscaler/sluice/bench/load"
	"github.com/sluice-autoscaler/sluice/bench/report"
	"github.com/sluice-autoscaler/sluice/bench/summary"
)

// goal is how far apart the two may be, as a share of the live figure.
type goal struct {
	figure string
	within float64
}

func goals() []goal {
	return []goal{{"pod-seconds", 0.10}, {"p99 wait (s)", 0.25}, {"cold starts", 0.10}}
}

// met says that a figure is within its goal.
func (g goal) met(l live.Line) bool { return math.Abs(l.Ratio()-1) <= g.within }

// line finds a figure.
func line(lines []live.Line, name string) live.Line {
	i := slices.IndexFunc(lines, func(l live.Line) bool { return l.Name == name })
	if i < 0 {
		return live.Line{Name: name, Simulated: math.NaN(), Live: math.NaN()}
	}
	return lines[i]
}

// median lays the medians of the simulations beside the live run.
func (x outcome) median() []live.Line {
	lines := live.Compare(x.runs[0].Result, x.runs[1].Result, true)
	values := make([][]float64, len(lines))
	for _, r := range x.others {
		for i, l := range live.Compare(r, r, true) {
			values[i] = append(values[i], l.Simulated)
		}
	}
	for i := range lines {
		slices.Sort(values[i])
		lines[i].Simulated = load.Quantile(values[i], 0.5)
	}
	return lines
}

// write makes the bench folder of all runs, and the report, and prints its table.
func (o Options) write(all []outcome, phases live.Phases) error {
	head := summary.Summary{Command: []string{"make", "bench-live"}}
	for _, x := range all {
		raw, err := json.Marshal(x.scenario)
		if err != nil {
			return fmt.Errorf("write scenario %s: %w", x.trial.name, err)
		}
		head.Scenarios = append(head.Scenarios, raw)
	}
	dir := filepath.Join(o.Out, "all")
	writer, err := folder.Create(dir, head, true)
	if err != nil {
		return err
	}
	for i, x := range all {
		for k, run := range x.runs {
			if err := writer.Put(2*i+k, run); err != nil {
				return err
			}
		}
	}
	if _, err := writer.Finish("Policies that end in \" live\" were replayed on the testbed, the others simulated on the same requests."); err != nil {
		return err
	}
	read, err := folder.Open(dir)
	if err != nil {
		return err
	}
	if _, err := report.Render(read, report.Options{}); err != nil {
		return err
	}
	var b strings.Builder
	o.text(&b, all, phases)
	fmt.Fprint(o.Stdout, b.String())
	targets := []string{filepath.Join(o.Out, "simulated-vs-live.md")}
	if o.Report != "" {
		targets = append(targets, filepath.Join(o.Report, "simulated-vs-live.md"))
		raw, err := os.ReadFile(filepath.Join(dir, "summary.json"))
		if err != nil {
			return err
		}
		if err := errors.Join(os.MkdirAll(o.Report, 0o755), os.WriteFile(filepath.Join(o.Report, "simulated-vs-live.json"), raw, 0o644)); err != nil {
			return err
		}
	}
	for _, path := range targets {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// text is the report.
func (o Options) text(w io.Writer, all []outcome, phases live.Phases) {
	fmt.Fprintln(w, "# Simulated against live")
	fmt.Fprintln(w)
	fmt.Fprintf(w, "Made by `make bench-live`; the numbers of all runs are in simulated-vs-live.json, for `sluice bench report` in out/bench-live/all.\n")
	fmt.Fprintf(w, "Each load was sent once to a Deployment under Sluice on the testbed (real etcd, API server, controllers, scheduler and kube-proxy;\n")
	fmt.Fprintf(w, "pods are local processes). The same requests under the same policy were simulated %d times with other draws of everything else (which pod, how\nlong a start, when rounds and readings fall); \"sim\" is the median of those. Ratios are simulated / live. CPUs: %d.\n\n", draws, runtime.NumCPU())
	if o.Note != "" {
		fmt.Fprintf(w, "%s\n\n", o.Note)
	}
	fmt.Fprint(w, "| trial | policy | pod-seconds sim / live | ratio | p99 wait sim / live (s) | ratio | cold starts sim / live | ratio | violations sim / live | load average |\n")
	fmt.Fprint(w, "|---|---|---|---|---|---|---|---|---|---|\n")
	reached, asked := 0, 0
	for _, x := range all {
		lines := x.median()
		cell := func(name, format string) string {
			l := line(lines, name)
			out := fmt.Sprintf(format+" / "+format, l.Simulated, l.Live)
			k := slices.IndexFunc(goals(), func(g goal) bool { return g.figure == name })
			if k < 0 {
				return out
			}
			mark := "✗"
			asked++
			if goals()[k].met(l) {
				mark = "✓"
				reached++
			}
			ratio := "–"
			if q := l.Ratio(); !math.IsInf(q, 0) {
				ratio = fmt.Sprintf("%.3f", q)
			}
			return out + " | " + ratio + " " + mark
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s |\n", x.trial.name, x.trial.label(), cell("pod-seconds", "%.0f"), cell("p99 wait (s)", "%.3f"), cell("cold starts", "%.0f"),
			cell("SLO violations", "%.4f"), o.loads(x.trial))
	}
	fmt.Fprintf(w, "\nGoals: pod-seconds within 10 %%, p99 wait within 25 %%, cold starts within 10 %%. %d of %d were met; by one simulation of the replay's own seed, as `sluice bench replay`\nprints it, %d.\n\n", reached, asked, single(all))
	fmt.Fprint(w, "How far the simulations are apart, from the 5th to the 95th of a hundred: what no simulator can tell of one run.\n\n")
	fmt.Fprint(w, "| trial | pod-seconds: live, simulated | p99 wait (s): live, simulated | cold starts: live, simulated |\n|---|---|---|---|\n")
	for _, x := range all {
		fmt.Fprintf(w, "| %s", x.trial.name)
		for _, g := range goals() {
			var v []float64
			for _, r := range x.others {
				v = append(v, line(live.Compare(r, r, true), g.figure).Live)
			}
			slices.Sort(v)
			seen := line(live.Compare(x.runs[0].Result, x.runs[1].Result, true), g.figure)
			fmt.Fprintf(w, " | %.*f, %.*f–%.*f", seen.Decimals, seen.Live, seen.Decimals, load.Quantile(v, 0.05), seen.Decimals, load.Quantile(v, 0.95))
		}
		fmt.Fprintln(w, " |")
	}
	fmt.Fprint(w, "\n## The trials\n\n")
	for _, x := range all {
		fmt.Fprintf(w, "**%s**: %s. `%s`, policy `%s`, start delay %v, seed %d, %d requests. Median latency beyond the work while pods were ready: %v.\n\n",
			x.trial.name, x.trial.about, x.load, x.trial.policy, x.trial.delay, x.trial.seed, x.runs[1].Result.Requests, x.overhead.Round(100*time.Microsecond))
		fmt.Fprint(w, "One simulation, of the same seed, in full:\n\n```\n")
		// a strings.Builder takes everything
		_ = live.Text(w, live.Compare(x.runs[0].Result, x.runs[1].Result, true))
		fmt.Fprint(w, "```\n\n")
	}
	fmt.Fprint(w, "## The testbed's own times\n\nMeasured by the calibration, which is replayed first, and put into the scenarios:\n\n| time | n | least | median | most |\n|---|---|---|---|---|\n")
	row := func(name string, v []time.Duration) {
		at := func(q float64) time.Duration { return load.Quantile(v, q).Round(100 * time.Microsecond) }
		fmt.Fprintf(w, "| %s | %d | %v | %v | %v |\n", name, len(v), at(0), at(0.5), at(1))
	}
	row("first request at zero → spec.replicas", phases.Woken)
	row("spec.replicas → pod created", phases.Created)
	row("pod created → ready", phases.Ready)
	row("a wake-up's first pod begins to work → ready", phases.Answered)
	row("ready pod deleted → gone, of which 3 s lame duck", phases.Ended)
	row("latency beyond the work while pods are ready", phases.Overhead)
}

// single counts the goals that the one simulation of the replay's own seed meets.
func single(all []outcome) int {
	n := 0
	for _, x := range all {
		lines := live.Compare(x.runs[0].Result, x.runs[1].Result, true)
		for _, g := range goals() {
			if g.met(line(lines, g.figure)) {
				n++
			}
		}
	}
	return n
}

// loads is the machine's load average before and after a trial.
func (o Options) loads(t trial) string {
	raw, err := os.ReadFile(filepath.Join(o.Out, t.name, "loadavg.txt"))
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Split(strings.TrimSpace(string(raw)), "\n"), ", ")
}
