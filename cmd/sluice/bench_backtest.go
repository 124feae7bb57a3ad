package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
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
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/sim"
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
	fl.StringVar(&f.url, "prometheus", "", "`URL` of a Prometheus, or of what speaks its API")
	fl.StringVar(&f.query, "query", "", "the demand, as `PROMQL` with one series as its result")
	fl.StringVar(&f.replicas, "replicas-query", "", "the pods that really ran, as `PROMQL`, to be shown beside")
	fl.StringVar(&f.kind, "kind", "concurrency", "what the demand is: concurrency or requests (per second)")
	fl.StringVar(&f.span, "range", "7d", "how far back from --end")
	fl.StringVar(&f.end, "end", "", "end of the range, `TIME` as 2026-03-01T00:00:00Z (default: now)")
	fl.DurationVar(&f.step, "step", 30*time.Second, "length of a bin of demand")
	fl.StringVar(&f.past, "history", "", "how much before the range policies that learn are given, such as 14d")
	fl.StringVar(&f.gaps, "gaps", "interpolate", "how unknown demand is filled: interpolate, hold, or day (the same time of the nearest known day)")
	fl.Float64Var(&f.maxGaps, "max-gaps", 0.5, "most of the range (a share) that may be unknown")
	fl.StringVar(&f.token, "bearer-token-file", "", "a `FILE` with a token for Prometheus, read again for each request")
	fl.StringArrayVar(&f.headers, "header", nil, "a header for Prometheus, `NAME: VALUE`; repeatable")
	fl.StringVar(&f.record, "record", "", "recorded observations, a `FILE` of JSON Lines, instead of a Prometheus")
	fl.Float64Var(&f.podHour, "pod-hour-cost", 0, "price of a pod for an hour")
	fl.StringVar(&f.currency, "currency", "", "what prices are in, such as EUR")
	return c
}

type backtestFlags struct {
	benchFlags
	url, query, replicas, kind, span, end, past, gaps, token, record, currency string
	headers                                                                    []string
	step                                                                       time.Duration
	maxGaps, podHour                                                           float64
}

// backtest is what is known before anything is simulated.
type backtest struct {
	kind string
	// demand is trimmed to what is known, and filled; before is what came before the range, ran the pods that really ran.
	demand, before, ran history.Series
	gaps                history.Gaps
	fill                history.Fill
	odd                 int
	// asked is the whole range, which may be longer than demand.
	asked    time.Duration
	warnings []string
}

func (f *backtestFlags) run(cmd *cobra.Command) error {
	fill, scenes, policies, err := f.check(cmd)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	head, err := f.head(scenes)
	if err != nil {
		return err
	}
	head.Baseline = policies[0].Label
	if f.baseline != "" {
		head.Baseline = f.baseline
	}
	b := &backtest{kind: f.kind, fill: fill}
	if err := f.read(cmd, b); err != nil {
		return err
	}
	if err := b.prepare(f.maxGaps); err != nil {
		return err
	}
	jobs, err := f.backtestJobs(cmd, b, scenes, policies)
	if err != nil {
		return err
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
	if err := b.write(out, f.step); err != nil {
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
func (f *backtestFlags) check(cmd *cobra.Command) (history.Fill, []sim.Scenario, []plan.Policy, error) {
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	live := f.url != "" || f.query != ""
	bad(live || f.record != "", "no history: want --prometheus URL with --query PROMQL, or --record FILE")
	bad(!live || f.record == "", "--record and --prometheus are both given: want one of them")
	bad(!live || f.url != "" && f.query != "", "--prometheus and --query go together: want both")
	if f.record != "" {
		bad(f.kind == "concurrency", "--kind = %q: records hold concurrency", f.kind)
		for _, name := range []string{"replicas-query", "range", "end", "history", "bearer-token-file", "header"} {
			bad(!cmd.Flags().Changed(name), "--%s is for a Prometheus, not for --record", name)
		}
	}
	bad(f.kind == "concurrency" || f.kind == "requests", "--kind = %q: want concurrency or requests", f.kind)
	bad(f.step >= time.Second && f.step <= 24*time.Hour, "--step = %v: want 1s–24h", f.step)
	bad(f.maxGaps >= 0 && f.maxGaps < 1, "--max-gaps = %v: want a share, 0 up to below 1", f.maxGaps)
	bad(f.podHour >= 0 && algorithms.Finite(f.podHour), "--pod-hour-cost = %v: want a price ≥ 0", f.podHour)
	bad(f.seeds >= 1 && f.seeds <= 10_000, "--seeds = %d: want 1–10000", f.seeds)
	bad(len(f.policies) > 0, "--policy is missing: want the current policy, and others after it")
	fill, err := history.ParseFill(f.gaps)
	if err != nil {
		errs = append(errs, fmt.Errorf("--gaps: %w", err))
	}
	if _, err := trace.ParseModel(f.model); err != nil {
		errs = append(errs, fmt.Errorf("--arrivals: %w", err))
	}
	var policies []plan.Policy
	for _, spec := range f.policies {
		p, err := plan.ParsePolicy(spec)
		errs = append(errs, err)
		policies = append(policies, p)
	}
	scenes, err := f.scenes(cmd)
	errs = append(errs, err)
	return fill, scenes, policies, errors.Join(errs...)
}

// headerOf reads NAME: VALUE.
func headerOf(given []string) (http.Header, error) {
	h := http.Header{}
	for _, g := range given {
		name, value, ok := strings.Cut(g, ":")
		name = strings.TrimSpace(name)
		if !ok || name == "" || strings.ContainsAny(g, "\r\n") {
			return nil, errors.New("--header: want NAME: VALUE on one line")
		}
		h.Add(name, strings.TrimSpace(value))
	}
	return h, nil
}

// read reads the history.
func (f *backtestFlags) read(cmd *cobra.Command, b *backtest) (err error) {
	if f.record != "" {
		file, err := os.Open(f.record)
		if err != nil {
			return fmt.Errorf("--record: %w", err)
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		if b.demand, b.ran, err = history.ReadRecords(file, f.step); err != nil {
			return fmt.Errorf("--record %s: %w", f.record, err)
		}
		b.asked = b.demand.End().Sub(b.demand.Start)
		return nil
	}
	span, err := trace.ParseDuration(f.span)
	if err != nil || span < 2*f.step {
		return fmt.Errorf("--range = %q: want a time of at least two steps, such as 30d: %w", f.span, errUsage)
	}
	var past time.Duration
	if f.past != "" {
		if past, err = trace.ParseDuration(f.past); err != nil || past < 0 {
			return fmt.Errorf("--history = %q: want a time, such as 14d: %w", f.past, errUsage)
		}
	}
	end := time.Now()
	if f.end != "" {
		if end, err = time.Parse(time.RFC3339, f.end); err != nil {
			return fmt.Errorf("--end = %q: want a time such as 2026-03-01T00:00:00Z: %w", f.end, errUsage)
		}
	}
	headers, err := headerOf(f.headers)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	p, err := history.NewPrometheus(f.url, history.Auth{BearerTokenFile: f.token, Headers: headers})
	if err != nil {
		return fmt.Errorf("--prometheus: %w: %w", err, errUsage)
	}
	begin := end.Add(-span).Truncate(f.step)
	all, warnings, err := p.Query(cmd.Context(), history.Range{PromQL: f.query, From: begin.Add(-past), To: end, Step: f.step})
	if err != nil {
		return err
	}
	b.warnings = warnings
	b.demand, b.before, b.odd = all.Cut(begin, end), all.Cut(begin.Add(-past), begin), all.Odd
	b.asked = b.demand.End().Sub(b.demand.Start)
	if f.replicas != "" {
		var more []string
		b.ran, more, err = p.Query(cmd.Context(), history.Range{PromQL: f.replicas, From: begin, To: end, Step: f.step})
		b.warnings = append(b.warnings, more...)
	}
	return err
}

// prepare trims and fills.
func (b *backtest) prepare(maxGaps float64) error {
	trimmed, ok := b.demand.Trim()
	if !ok {
		return fmt.Errorf("nothing is known of the demand from %s on for %v: want a query that has results there; an empty one is not taken for zero",
			b.demand.Start.UTC().Format(time.RFC3339), b.asked)
	}
	if b.gaps = trimmed.Gaps(); b.gaps.Share > maxGaps {
		return fmt.Errorf("%.1f %% of the demand is unknown (%d gaps, %v in all): want at most --max-gaps %v, another --query, or another --range", 100*b.gaps.Share,
			b.gaps.Count, b.gaps.Total, maxGaps)
	}
	var err error
	if b.demand, err = trimmed.Fill(b.fill); err != nil {
		return err
	}
	if b.demand.Peak() == 0 {
		return fmt.Errorf("the demand is 0 all the time from %s to %s: there is nothing to scale for", b.demand.Start.UTC().Format(time.RFC3339), b.demand.End().UTC().Format(time.RFC3339))
	}
	if len(b.ran.Values) > 0 {
		b.ran = b.ran.Cut(b.demand.Start, b.demand.End())
	}
	return nil
}

// backtestJobs lays out the runs. They begin at the range's own instant, with as many pods as its first bin asks for; a scenario's peak
// scales nothing, as the load is what it was.
func (f *backtestFlags) backtestJobs(cmd *cobra.Command, b *backtest, scenes []sim.Scenario, policies []plan.Policy) ([]plan.Job, error) {
	model, err := trace.ParseModel(f.model)
	if err != nil {
		return nil, fmt.Errorf("--arrivals: %w", err)
	}
	var all []plan.Job
	for _, s := range scenes {
		if !cmd.Flags().Changed("peak-replicas") {
			s.PeakReplicas = 0
		}
		if f.podHour > 0 {
			s.Cost.PodSecond = f.podHour / 3600
		}
		work := s.Service.Mean().Seconds()
		rate, concurrency, past := b.demand, b.demand, b.before
		if b.kind == "concurrency" {
			rate = b.demand.Times(1 / work)
		} else {
			concurrency, past = b.demand.Times(work), b.before.Times(work)
		}
		t, err := rate.Trace("history")
		if err != nil {
			return nil, fmt.Errorf("scenario %s: %w", s.Name, err)
		}
		if !cmd.Flags().Changed("initial-replicas") {
			s.InitialReplicas = min(max(algorithms.Pods(math.Ceil(concurrency.Values[0]/s.PerPod())), s.MinReplicas), s.MaxReplicas)
		}
		load := plan.Recorded(func(time.Duration) (*trace.Trace, error) { return t, nil }, model)
		jobs, err := plan.Matrix([]sim.Scenario{s}, []plan.Load{load}, policies, f.firstSeed, f.seeds)
		if err != nil {
			return nil, err
		}
		samples := past.Samples(algorithms.Concurrency)
		for i := range jobs {
			jobs[i].Start, jobs[i].History = b.demand.Start, samples
		}
		all = append(all, jobs...)
		if pods := concurrency.Peak() / s.PerPod(); pods > float64(s.MaxReplicas) {
			b.warnings = append(b.warnings, fmt.Sprintf("the busiest bin asks for %.0f pods in scenario %s, which has at most %d (--max-replicas)", math.Ceil(pods), s.Name, s.MaxReplicas))
		}
	}
	return all, nil
}

// notes are what a reader of the results must know.
func (b *backtest) notes() []string {
	out := []string{fmt.Sprintf("Demand is %s from %s to %s in steps of %v, as it was served: what was refused then is not in it, and its waiting may be.",
		b.kind, b.demand.Start.UTC().Format(time.RFC3339), b.demand.End().UTC().Format(time.RFC3339), b.demand.Step)}
	if length := b.demand.End().Sub(b.demand.Start); length < b.asked {
		out = append(out, fmt.Sprintf("Of the %s asked for, the first and last %s are unknown and left out.", words(b.asked), words(b.asked-length)))
	}
	if b.gaps.Count > 0 {
		out = append(out, fmt.Sprintf("%.2f %% of the demand is unknown: %d gaps, %s in all, the longest %s. They were filled (%s), and count in the scores.",
			100*b.gaps.Share, b.gaps.Count, words(b.gaps.Total), words(b.gaps.Longest), b.fill))
	}
	if b.odd > 0 {
		out = append(out, fmt.Sprintf("%d values were negative or infinite and taken for unknown.", b.odd))
	}
	if len(b.before.Values) > 0 {
		out = append(out, fmt.Sprintf("Policies that learn were given what is known of the %s before (%.1f %%).", words(b.before.End().Sub(b.before.Start)), 100*(1-b.before.Gaps().Share)))
	}
	for _, w := range b.warnings {
		out = append(out, "Warning: "+w)
	}
	return out
}

// words writes a long duration for people.
func words(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%.4g d", d.Hours()/24)
	}
	return d.String()
}

// write is what stands above the tables.
func (b *backtest) write(w io.Writer, step time.Duration) error {
	unit := "requests in flight"
	if b.kind == "requests" {
		unit = "requests per second"
	}
	_, err := fmt.Fprintf(w, "%s of history from %s on, in steps of %v: %.4g %s in the mean, %.4g at the peak\n\n", words(b.demand.End().Sub(b.demand.Start)),
		b.demand.Start.UTC().Format("2006-01-02 15:04:05"), step, b.demand.Mean(), unit, b.demand.Peak())
	return err
}

// bill is the cost of one way to run the workload.
type bill struct {
	name    string
	seconds []float64 // pod-seconds, by seed
	late    []float64
}

// costs is the table of what it would have cost, with what really ran.
func (f *backtestFlags) costs(w io.Writer, b *backtest, s report.Summary) error {
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
			row(name, one.seconds, show("sloViolations", one.late), fmt.Sprintf("%.2f", average(one.seconds)/current))
		}
		if known > 0 {
			row("what really ran", []float64{ran}, "not in the history", fmt.Sprintf("%.2f", ran/current))
		}
	}
	if known > 0 && known < 0.9995 {
		fmt.Fprintf(tw, "\nThe pods that really ran are known for %.1f %% of the time; the rest counts as their mean.\n", 100*known)
	}
	return tw.Flush()
}

// ranSeconds are the pod-seconds that really ran, with unknown time at the mean, and the share of the time that is known; 0 if none is.
func (b *backtest) ranSeconds() (seconds, known float64) {
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
func (f *backtestFlags) save(name string, b *backtest, head report.Summary, policies []plan.Policy) error {
	r := backtestRecord{
		Kind: b.kind, Query: f.query, Record: f.record, Start: b.demand.Start.UTC(), End: b.demand.End().UTC(), StepSeconds: b.demand.Step.Seconds(),
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
