package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/bench/history"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/report"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

const backtestLong = `Ask what the current policy (the first --policy) and others would have done with what your workload went through, and what it would have
cost. The demand comes from a Prometheus, or from recorded observations (sluice explain --record, sluice decide's input).

--query gives one series: with --kind concurrency the mean number of requests in flight, in pods and before them; with --kind requests
the requests per second. A value stands for the --step that ends at its time, so query means over the step:
  sum(rate(sluice_request_concurrency_seconds_total{workload="web"}[30s]))
  sum(rate(http_requests_total{app="web"}[1m]))

What Prometheus does not know is not zero: gaps are reported, and filled by --gaps. History shows demand as it was served: what was
refused then is not in it, and requests that waited are in the concurrency for as long as they waited.`

func benchBacktest() *cobra.Command {
	var f backtestFlags
	c := &cobra.Command{
		Use: "backtest (--prometheus URL --query PROMQL|--record FILE) --policy NAME...", Short: "Ask what policies would have done with your own history, and what it would have cost",
		Long: backtestLong, Args: usage(cobra.NoArgs),
		Example: `  sluice bench backtest --prometheus http://prometheus:9090 --range 30d --scenario service --policy kpa --policy hpa --policy lookahead \
    --query 'sum(rate(sluice_request_concurrency_seconds_total{workload="web"}[30s]))' --replicas-query 'kube_deployment_status_replicas{deployment="web"}' \
    --pod-hour-cost 0.08 --currency EUR --out out/backtest
  sluice bench backtest --record observations.jsonl --policy kpa --policy target --step 10s`,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.addRuns(c, 3)
	fl := c.Flags()
	f.past.add(c)
	fl.StringVar(&f.replicas, "replicas-query", "", "the pods that really ran, as `PROMQL`, to be shown beside")
	fl.Float64Var(&f.podHour, "pod-hour-cost", 0, "price of a pod for an hour")
	fl.StringVar(&f.currency, "currency", "", "what prices are in, such as EUR")
	return c
}

type backtestFlags struct {
	benchFlags
	past               historyFlags
	replicas, currency string
	podHour            float64
}

func (f *backtestFlags) run(cmd *cobra.Command) error {
	scenes, policies, err := f.check(cmd)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	b, err := f.past.read(cmd, f.replicas)
	if err != nil {
		return err
	}
	jobs, err := f.backtestJobs(cmd, b, scenes, policies)
	if err != nil {
		return err
	}
	for i := range scenes { // with what follows from the history
		scenes[i] = jobs[i*len(policies)*f.seeds].Scenario
	}
	head, err := f.head(scenes)
	if err != nil {
		return err
	}
	head.Baseline = policies[0].Label
	if f.baseline != "" {
		head.Baseline = f.baseline
	}
	if f.out != "" {
		if _, err := report.Create(f.out, head, f.overwrite); err != nil {
			return err
		}
	}
	head.Notes = append(head.Notes, b.notes()...)
	summary, simErr := f.keep(cmd, head, jobs)
	if len(summary.Results) == 0 {
		return simErr
	}
	out := cmd.OutOrStdout()
	if err := b.write(out); err != nil {
		return err
	}
	if err := report.Text(out, summary); err != nil {
		return err
	}
	err = f.costs(out, b, summary)
	if f.out != "" {
		name := filepath.Join(f.out, "backtest.json")
		if errSave := f.save(name, b, head, policies); errSave != nil {
			err = errors.Join(err, errSave)
		} else {
			fmt.Fprintln(cmd.ErrOrStderr(), "wrote", name)
		}
	}
	return errors.Join(simErr, err)
}

// check reads the flags that need no history.
func (f *backtestFlags) check(cmd *cobra.Command) ([]scenario.Scenario, []plan.Policy, error) {
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	errs = append(errs, f.past.check(cmd))
	bad(f.podHour >= 0 && algorithms.Finite(f.podHour), "--pod-hour-cost = %v: want a price ≥ 0", f.podHour)
	bad(f.seeds >= 1 && f.seeds <= 10_000, "--seeds = %d: want 1–10000", f.seeds)
	bad(len(f.policies) > 0, "--policy is missing: want the current policy, and others after it")
	if _, err := trace.ParseModel(f.model); err != nil {
		errs = append(errs, fmt.Errorf("--arrivals: %w", err))
	}
	var policies []plan.Policy
	for _, spec := range f.policies {
		p, err := plan.ParsePolicy(known(), spec)
		errs = append(errs, err)
		policies = append(policies, p)
	}
	scenes, err := f.scenes(cmd)
	errs = append(errs, err)
	return scenes, policies, errors.Join(errs...)
}

// backtestJobs lays out the runs.
func (f *backtestFlags) backtestJobs(cmd *cobra.Command, b *past, scenes []scenario.Scenario, policies []plan.Policy) ([]plan.Job, error) {
	model, err := trace.ParseModel(f.model)
	if err != nil {
		return nil, fmt.Errorf("--arrivals: %w", err)
	}
	var jobs []plan.Job
	for i := range scenes {
		src, s, before, err := b.load(cmd, scenes[i], model)
		if err != nil {
			return nil, err
		}
		if f.podHour > 0 {
			s.Cost.PodSecond = f.podHour / 3600
		}
		for _, p := range policies {
			for k := range f.seeds {
				jobs = append(jobs, plan.Job{Source: src, Scenario: s, Policy: p, Seed: f.firstSeed + uint64(k), Start: b.demand.Start, History: before})
			}
		}
	}
	return jobs, nil
}

// write is what stands above the tables.
func (b *past) write(w io.Writer) error {
	unit := "requests in flight"
	if b.kind == "requests" {
		unit = "requests per second"
	}
	_, err := fmt.Fprintf(w, "%s of history from %s on, in steps of %v: %.4g %s in the mean, %.4g at the peak\n\n", words(b.demand.End().Sub(b.demand.Start)),
		b.demand.Start.UTC().Format("2006-01-02 15:04:05"), b.demand.Step, b.demand.Mean(), unit, b.demand.Peak())
	return err
}

// bill is the cost of one way to run the workload.
type bill struct {
	name    string
	seconds []float64 // pod-seconds, by seed
	late    []float64
}

// costs is the table of what it would have cost, with what really ran.
func (f *backtestFlags) costs(w io.Writer, b *past, s report.Summary) error {
	length := b.demand.End().Sub(b.demand.Start)
	month := float64(30*24*time.Hour) / float64(length)
	priced := f.podHour > 0
	currency := strings.ToUpper(f.currency)
	ran, known := b.ranSeconds()
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	hours := report.Metric{Name: "podHours", Title: "pod-hours"}
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
				fmt.Fprintf(tw, "\t%s", in(f.podHour))
			}
			fmt.Fprintf(tw, "\t%s", in(month))
			if priced {
				fmt.Fprintf(tw, "\t%s", in(month*f.podHour))
			}
			fmt.Fprintf(tw, "\t%s\t%s\n", ratio, late)
		}
		current := average(bills[0].seconds)
		for i, one := range bills {
			name := one.name
			if i == 0 {
				name += " (current)"
			}
			row(name, one.seconds, show("sloViolations", one.late), ratioOf(one.seconds, bills[0].seconds))
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

// ranSeconds are the pod-seconds that really ran, with unknown time at the mean, and the share of the time that is known; 0 if none is.
func (b *past) ranSeconds() (seconds, known float64) {
	if len(b.ran.Values) == 0 {
		return 0, 0
	}
	known = 1 - b.ran.Gaps().Share
	if known == 0 {
		return 0, 0
	}
	return b.ran.Mean() * b.demand.End().Sub(b.demand.Start).Seconds(), known
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

// backtestRecord is backtest.json.
type backtestRecord struct {
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

// save writes backtest.json: what the history was, beside summary.json, which has the results.
func (f *backtestFlags) save(name string, b *past, head report.Summary, policies []plan.Policy) error {
	r := backtestRecord{
		Kind: b.kind, Query: f.past.query, Record: f.past.record, Start: b.demand.Start.UTC(), End: b.demand.End().UTC(), StepSeconds: b.demand.Step.Seconds(),
		Gaps: b.gaps.Count, GapShare: b.gaps.Share, Fill: b.fill, Mean: b.demand.Mean(), Peak: b.demand.Peak(), PodHourCost: f.podHour, Currency: f.currency,
		Current: policies[0].Label, Notes: head.Notes,
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
