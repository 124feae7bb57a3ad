package benchadapter

import (
	"errors"
	"fmt"
	"io"
)

// The goals of the whole measurement.
const (
	mostP99Share, mostP99Ms     = 0.1, 2.0
	mostQueryShare              = 1.0 / 50
	mostRSSShare, mostRSSMiB    = 0.25, 150.0
	smallSeries, largeSeries    = 300_000, 1_000_000
	fewSidecars, manySidecars   = 1000, 10_000
	mostCoresFew, mostCoresMany = 0.08, 0.8
	mostCollectMiB              = 250.0
)

// Goal is one row of goals.
type Goal struct {
	Goal string `json:"goal"`
	Of   string `json:"of"`
	Got  string `json:"got"`
	Met  bool   `json:"met"`
}

// goals judges what was measured. Sluice is judged against prometheus-adapter as its vendor ships
// it, run by run. Where each HPA metric has a name of its own no goal is set.
func goals(s *Summary) []Goal {
	all := []Goal{}
	for i := range s.Runs {
		ours := &s.Runs[i]
		theirs := s.beside(ours, upstream)
		if ours.Adapter != sluice || theirs == nil {
			continue
		}
		of := fmt.Sprintf("%d metrics, %d pods, %d series, %d ms", ours.Metrics, ours.Pods, ours.Series, ours.PrometheusLatencyMs)
		all = append(
			all,
			Goal{
				"GET p99 ≤ 1/10 of prometheus-adapter's and ≤ 2 ms, all answered", of,
				fmt.Sprintf("%.2f ms, %.2f ms, %d failed", ours.GetP99Ms, theirs.GetP99Ms, ours.Failed),
				ours.GetP99Ms <= mostP99Share*theirs.GetP99Ms && ours.GetP99Ms <= mostP99Ms && ours.Failed == 0,
			},
			// A prometheus-adapter that answers few GETs asks little, so that the GETs count.
			Goal{
				"queries ≤ 1/50 of the GETs, each of which prometheus-adapter asks", of, fmt.Sprintf("%d queries, %d GETs", ours.Queries, ours.Gets),
				float64(ours.Queries) <= mostQueryShare*float64(ours.Gets),
			},
		)
		switch ours.Series {
		case smallSeries:
			all = append(all, Goal{
				"peak RSS ≤ 1/4 at 300,000 series", of, fmt.Sprintf("%.0f MiB, %.0f MiB", ours.RSSMiB, theirs.RSSMiB), ours.RSSMiB <= mostRSSShare*theirs.RSSMiB,
			})
		case largeSeries:
			all = append(all, Goal{"peak RSS ≤ 150 MiB at 1,000,000 series", of, fmt.Sprintf("%.0f MiB, %.0f MiB", ours.RSSMiB, theirs.RSSMiB), ours.RSSMiB <= mostRSSMiB})
		}
	}
	for _, c := range s.Collection {
		got := fmt.Sprintf("%.2f cores, %.0f MiB, %.0f reads/s", c.Cores, c.RSSMiB, c.ReadsPerSecond)
		whole := c.ReadsPerSecond >= 0.98*float64(c.Sidecars)
		switch c.Sidecars {
		case fewSidecars:
			all = append(all, Goal{"collection ≤ 0.08 core", "1,000 sidecars", got, c.Cores <= mostCoresFew && whole})
		case manySidecars:
			all = append(all, Goal{"collection ≤ 0.8 core and ≤ 250 MiB", "10,000 sidecars", got, c.Cores <= mostCoresMany && c.RSSMiB <= mostCollectMiB && whole})
		}
	}
	return all
}

// beside is another adapter's run of the same kind, nil for none.
func (s *Summary) beside(r *Run, adapter string) *Run {
	for i := range s.Runs {
		o := &s.Runs[i]
		if o.Adapter == adapter && o.Metrics == r.Metrics && o.Pods == r.Pods && o.Series == r.Series && o.Names == r.Names && o.PrometheusLatencyMs == r.PrometheusLatencyMs {
			return o
		}
	}
	return nil
}

// report prints the tables and returns the goals that were missed.
func report(w io.Writer, s *Summary) error {
	fmt.Fprintf(w, "\nGETs\n%-31s %7s %5s %6s %8s %5s %9s %9s %7s %8s %9s %9s %7s\n", "adapter", "metrics", "names", "pods", "series", "ms", "p50 ms", "p99 ms", "failed", "queries",
		"RSS MiB", "CPU s/k", "disc B")
	for _, r := range s.Runs {
		fmt.Fprintf(w, "%-31s %7d %5d %6d %8d %5d %9.2f %9.2f %7d %8d %9.0f %9.3f %7d\n", r.Adapter, r.Metrics, r.Names, r.Pods, r.Series, r.PrometheusLatencyMs, r.GetP50Ms, r.GetP99Ms,
			r.Failed, r.Queries, r.RSSMiB, r.CPUSecondsPer1000Gets, r.DiscoveryBytes)
	}
	fmt.Fprintf(w, "\nfrom a new series to the first answer with it\n")
	for _, n := range s.NewSeries {
		got := fmt.Sprintf("none within %.0f s", n.BoundSeconds)
		if n.Seconds != nil {
			got = fmt.Sprintf("%.1f s", *n.Seconds)
		}
		fmt.Fprintf(w, "%-31s %-26s %s\n", n.Adapter, n.What, got)
	}
	fmt.Fprintf(w, "\ncollection from sidecars\n%10s %10s %8s %9s\n", "sidecars", "reads/s", "cores", "RSS MiB")
	for _, c := range s.Collection {
		fmt.Fprintf(w, "%10d %10.0f %8.3f %9.0f\n", c.Sidecars, c.ReadsPerSecond, c.Cores, c.RSSMiB)
	}
	fmt.Fprintln(w, "\ngoals (Sluice's figure first)")
	var errs []error
	for _, g := range s.Goals {
		word := "met"
		if !g.Met {
			word = "MISSED"
			errs = append(errs, fmt.Errorf("%s (%s): %s", g.Goal, g.Of, g.Got))
		}
		fmt.Fprintf(w, "%-6s %s (%s): %s\n", word, g.Goal, g.Of, g.Got)
	}
	for _, what := range s.Skipped {
		fmt.Fprintf(w, "left out, the time was up: %s\n", what)
	}
	return errors.Join(errs...)
}
