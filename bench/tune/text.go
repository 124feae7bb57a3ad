package tune

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/summary"
)

func format(metric string, values []float64) string {
	return summary.MetricNamed(metric).Format(values)
}

// Write writes the report for terminals.
func (t *Tuning) Write(w io.Writer) error {
	var b strings.Builder
	r := &t.Found
	var limits []string
	for _, l := range t.Config.Limits {
		limits = append(limits, fmt.Sprintf("%s ≤ %s", l.Metric.Name, format(l.Metric.Name, []float64{l.Most})))
	}
	fmt.Fprintf(&b, "%s: the least %s with %s, on the first %.4g %% of the time\n", t.Policy.Label, t.Config.Objective.Name, strings.Join(limits, " and "), 100*t.Train)
	fmt.Fprintf(&b, "searched %s; scored %d settings in the work of %.0f runs", strings.Join(t.Config.Space.Dimensions(), ", "), r.Evaluated, r.Spent)
	if r.Invalid > 0 {
		fmt.Fprintf(&b, ", and left out %d that the policy refuses", r.Invalid)
	}
	b.WriteString("\n\n")
	if r.Excerpt != nil {
		fmt.Fprintf(&b, "The search ended early; the best on %.0f %% of the work was %s.\n", 100*r.Excerpt.Share, r.Excerpt.Policy.Label)
	}
	if r.Best.Values == nil {
		b.WriteString("No setting was better than the one given.\n\n")
	} else {
		fmt.Fprintf(&b, "The best: %s\n\n", r.Best.Policy.Label)
	}
	t.scores(&b)
	t.top(&b)
	for _, note := range t.Notes {
		fmt.Fprintf(&b, "Note: %s\n", note)
	}
	for _, warning := range t.warnings() {
		fmt.Fprintf(&b, "Warning: %s\n", warning)
	}
	text, err := specYAML(r.Best.Policy)
	if err != nil {
		return err
	}
	fmt.Fprintf(&b, "\nFor the spec of an Autoscaler:\n\n%s", text)
	_, err = io.WriteString(w, b.String())
	return err
}

// columns are the metrics of the tables: the objective, what is limited, and what one wants to see
// anyway.
func (t *Tuning) columns() []Metric {
	out := []Metric{t.Config.Objective}
	add := func(m Metric) {
		if !slices.ContainsFunc(out, func(o Metric) bool { return o.Name == m.Name }) {
			out = append(out, m)
		}
	}
	for _, l := range t.Config.Limits {
		add(l.Metric)
	}
	for _, m := range Metrics() {
		switch m.Name {
		case "podSeconds", "sloViolations", "waitP99", "coldStarts":
			add(m)
		}
	}
	return out
}

// scores is the table of both settings on both parts.
func (t *Tuning) scores(b *strings.Builder) {
	columns := t.columns()
	tw := tabwriter.NewWriter(b, 0, 4, 2, ' ', 0)
	fmt.Fprint(tw, "PART\tSETTING")
	for _, m := range columns {
		fmt.Fprintf(tw, "\t%s", strings.ToUpper(summary.MetricNamed(m.Name).Title))
	}
	fmt.Fprintln(tw, "\tLIMITS")
	row := func(part, setting string, results []score.Result) {
		for _, g := range Groups(results) {
			name := part
			if len(Groups(results)) > 1 {
				name += " " + g[0].Trace + ", " + g[0].Scenario
			}
			fmt.Fprintf(tw, "%s\t%s", name, setting)
			for _, m := range columns {
				var values []float64
				for i := range g {
					values = append(values, m.Of(&g[i]))
				}
				fmt.Fprintf(tw, "\t%s", format(m.Name, values))
			}
			verdict := "kept"
			if broken := t.broken(g); len(broken) > 0 {
				verdict = "broken: " + strings.Join(broken, ", ")
			}
			fmt.Fprintf(tw, "\t%s\n", verdict)
		}
	}
	row("train", "as given", t.Found.Default.Results)
	if t.Found.Best.Values != nil {
		row("train", "tuned", t.Found.Best.Results)
	}
	if t.heldDefault != nil {
		row("held back", "as given", t.heldDefault)
		if t.Found.Best.Values != nil {
			row("held back", "tuned", t.heldBest)
		}
	}
	if err := tw.Flush(); err != nil {
		return // a strings.Builder takes all
	}
	b.WriteString("\n")
}

// top is the table of the best.
func (t *Tuning) top(b *strings.Builder) {
	fmt.Fprintf(b, "The best %d on the first part:\n", len(t.Found.Top))
	tw := tabwriter.NewWriter(b, 0, 4, 2, ' ', 0)
	fmt.Fprintf(tw, "\t%s", strings.ToUpper(summary.MetricNamed(t.Config.Objective.Name).Title))
	for _, l := range t.Config.Limits {
		fmt.Fprintf(tw, "\t%s", strings.ToUpper(summary.MetricNamed(l.Metric.Name).Title))
	}
	names := slices.Sorted(maps.Keys(t.Config.Space.Values(make([]float64, len(t.Config.Space.Dimensions())))))
	for _, n := range names {
		fmt.Fprintf(tw, "\t%s", n[strings.LastIndex(n, ".")+1:])
	}
	fmt.Fprintln(tw)
	for i, trial := range t.Found.Top {
		fmt.Fprintf(tw, "%d\t%s", i+1, format(t.Config.Objective.Name, []float64{trial.Objective}))
		for _, l := range t.Config.Limits {
			fmt.Fprintf(tw, "\t%s", format(l.Metric.Name, []float64{l.Metric.Worst(trial.Results)}))
		}
		for _, n := range names {
			v := "as given"
			if trial.Values != nil {
				v = strings.Trim(string(trial.Values[n]), `"`)
			}
			fmt.Fprintf(tw, "\t%s", v)
		}
		fmt.Fprintln(tw)
	}
	if err := tw.Flush(); err != nil {
		return // a strings.Builder takes all
	}
	b.WriteString("\n")
}
