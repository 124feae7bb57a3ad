// Package backtest runs policies on the recorded demand of a workload, and reports what each would
// have cost.
package backtest

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/history"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/summary"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// Backtest is a history with the policies that are tried on it, the current one first, and the
// scenarios in which they are.
type Backtest struct {
	Past      *history.Past
	Policies  []plan.Policy
	Scenarios []scenario.Scenario
	// Model is how requests fall within the bins of the history.
	Model trace.Model
	// Keep says what of the scenarios stays whatever the history says.
	Keep history.Keep
	// Seeds is how many runs each policy gets, with seeds from FirstSeed on.
	Seeds     int
	FirstSeed uint64
	// PodHour is the price of a pod for an hour in Currency; 0 shows no prices.
	PodHour  float64
	Currency string
}

// Jobs lays out the runs, and sets in the scenarios what follows from the history.
func (b *Backtest) Jobs() ([]plan.Job, error) {
	var jobs []plan.Job
	for i := range b.Scenarios {
		run, err := b.Past.In(b.Scenarios[i], b.Model, b.Keep)
		if err != nil {
			return nil, err
		}
		if b.PodHour > 0 {
			run.Scenario.Cost.PodSecond = b.PodHour / 3600
		}
		b.Scenarios[i] = run.Scenario
		for _, p := range b.Policies {
			for k := range b.Seeds {
				jobs = append(jobs, plan.Job{
					Source: run.Source, Scenario: run.Scenario, Policy: p, Seed: b.FirstSeed + uint64(k),
					Start: b.Past.Demand.Start, History: run.Before,
				})
			}
		}
	}
	return jobs, nil
}

// WriteDemand writes what stands above the tables: what the demand was.
func (b *Backtest) WriteDemand(w io.Writer) error {
	unit := "requests in flight"
	if b.Past.Kind == history.Requests {
		unit = "requests per second"
	}
	_, err := fmt.Fprintf(w, "%s of history from %s on, in steps of %v: %.4g %s in the mean, %.4g at the peak\n\n", history.FormatLong(b.Past.Demand.End().Sub(b.Past.Demand.Start)),
		b.Past.Demand.Start.UTC().Format("2006-01-02 15:04:05"), b.Past.Demand.Step, b.Past.Demand.Mean(), unit, b.Past.Demand.Peak())
	return err
}

// bill is the cost of one way to run the workload.
type bill struct {
	name    string
	seconds []float64 // pod-seconds, by seed
	late    []float64
}

// WriteCosts writes the table of what it would have cost, with what really ran.
func (b *Backtest) WriteCosts(w io.Writer, s summary.Summary) error {
	length := b.Past.Demand.End().Sub(b.Past.Demand.Start)
	month := float64(30*24*time.Hour) / float64(length)
	priced := b.PodHour > 0
	currency := strings.ToUpper(b.Currency)
	ran, known := b.ranSeconds()
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	hours := summary.Metric{Name: "podHours", Title: "pod-hours"}
	for _, group := range byScenario(s.Results) {
		fmt.Fprintf(tw, "\n%s\tPOD-HOURS", group[0].Scenario)
		if priced {
			fmt.Fprintf(tw, "\t%s", strings.TrimSpace("COST "+currency))
		}
		fmt.Fprint(tw, "\tPOD-HOURS IN 30 DAYS")
		if priced {
			fmt.Fprintf(tw, "\t%s", strings.TrimSpace("COST IN 30 DAYS "+currency))
		}
		fmt.Fprintln(tw, "\t× CURRENT\tSLO VIOLATIONS")
		bills := billsOf(group)
		row := func(name string, seconds []float64, late, ratio string) {
			in := func(factor float64) string { return hours.Format(times(seconds, factor/3600)) }
			fmt.Fprintf(tw, "  %s\t%s", name, in(1))
			if priced {
				fmt.Fprintf(tw, "\t%s", in(b.PodHour))
			}
			fmt.Fprintf(tw, "\t%s", in(month))
			if priced {
				fmt.Fprintf(tw, "\t%s", in(month*b.PodHour))
			}
			fmt.Fprintf(tw, "\t%s\t%s\n", ratio, late)
		}
		current := average(bills[0].seconds)
		for i, one := range bills {
			name := one.name
			if i == 0 {
				name += " (current)"
			}
			row(name, one.seconds, summary.MetricNamed("sloViolations").Format(one.late), ratioOf(one.seconds, bills[0].seconds))
		}
		if known > 0 {
			row("what really ran", []float64{ran}, "not in the history", fmt.Sprintf("%.2f", ran/current))
		}
	}
	if known > 0 && known < 0.9995 {
		fmt.Fprintf(tw, "\nWhat really ran is known for %.1f %% of the time; the rest counts as its mean.\n", 100*known)
	}
	return tw.Flush()
}

// ranSeconds are the pod-seconds that really ran, with unknown time at the mean, and the share of
// the time that is known; 0 if none is.
func (b *Backtest) ranSeconds() (seconds, known float64) {
	if len(b.Past.Ran.Values) == 0 {
		return 0, 0
	}
	known = 1 - b.Past.Ran.Gaps().Share
	if known == 0 {
		return 0, 0
	}
	return b.Past.Ran.Mean() * b.Past.Demand.End().Sub(b.Past.Demand.Start).Seconds(), known
}

func byScenario(results []score.Result) [][]score.Result {
	var out [][]score.Result
	for _, r := range results {
		i := slices.IndexFunc(out, func(g []score.Result) bool { return g[0].Scenario == r.Scenario })
		if i < 0 {
			i = len(out)
			out = append(out, nil)
		}
		out[i] = append(out[i], r)
	}
	return out
}

func billsOf(results []score.Result) []bill {
	var out []bill
	for _, r := range results {
		i := slices.IndexFunc(out, func(b bill) bool { return b.name == r.Policy })
		if i < 0 {
			i = len(out)
			out = append(out, bill{name: r.Policy})
		}
		out[i].seconds = append(out[i].seconds, r.PodSeconds)
		out[i].late = append(out[i].late, r.SLOViolations)
	}
	return out
}

func times(values []float64, factor float64) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = v * factor
	}
	return out
}

// ratioOf is the geometric mean of the ratios seed by seed, as in the tables above.
func ratioOf(a, b []float64) string {
	ratios := make([]float64, min(len(a), len(b)))
	for i := range ratios {
		ratios[i] = a[i] / b[i]
	}
	r, err := score.GeometricMean(ratios, score.Confidence95)
	if err != nil {
		return "–"
	}
	return fmt.Sprintf("%.2f", r.Mean)
}

func average(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// Record is backtest.json.
type Record struct {
	Kind        string       `json:"kind"`
	Query       string       `json:"query,omitempty"`
	Record      string       `json:"record,omitempty"`
	Start       time.Time    `json:"start"`
	End         time.Time    `json:"end"`
	StepSeconds float64      `json:"stepSeconds"`
	Gaps        int          `json:"gaps"`
	GapShare    float64      `json:"gapShare"`
	Fill        history.Fill `json:"fill"`
	Mean        float64      `json:"mean"`
	Peak        float64      `json:"peak"`
	PodHourCost float64      `json:"podHourCost,omitempty"`
	Currency    string       `json:"currency,omitempty"`
	Current     string       `json:"current"`
	// RanPodSeconds is what really ran, over the share RanKnown of the time.
	RanPodSeconds *float64 `json:"ranPodSeconds,omitempty"`
	RanKnown      float64  `json:"ranKnown,omitempty"`
	Notes         []string `json:"notes"`
}

// Save writes backtest.json: what the history was, beside summary.json, which has the results.
// Query and record say where the history is from; notes are those of the summary.
func (b *Backtest) Save(name, query, record string, notes []string) error {
	demand := &b.Past.Demand
	r := Record{
		Kind: b.Past.Kind, Query: query, Record: record,
		Start: demand.Start.UTC(), End: demand.End().UTC(), StepSeconds: demand.Step.Seconds(),
		Gaps: b.Past.Gaps.Count, GapShare: b.Past.Gaps.Share, Fill: b.Past.Fill, Mean: demand.Mean(), Peak: demand.Peak(),
		PodHourCost: b.PodHour, Currency: b.Currency, Current: b.Policies[0].Label, Notes: notes,
	}
	if ran, known := b.ranSeconds(); known > 0 {
		r.RanPodSeconds, r.RanKnown = &ran, known
	}
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return os.WriteFile(name, append(raw, '\n'), 0o644)
}
