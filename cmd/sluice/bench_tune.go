package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/report"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/trace"
	"github.com/sluice-autoscaler/sluice/bench/tune"
)

const tuneLong = `Search a policy's parameters: the least of an objective while limits hold, on the first part of a load's time. The rest is held back:
what is found is scored on it once, beside the parameters as they were given, since a setting that fits the past is not yet one that
fits the future. Policies meet the held-back part with the memory of the first, which does not count there.

A range is NAME=LOW..HIGH (numbers, durations, or 30%..95% of what a pod takes at a time), with :log for an even spacing in the
logarithm and :whole for whole numbers, or NAME=A|B|C. Dots lead into objects, guard.NAME is a parameter of the guard, and tick is
the time between decisions. Without --search each well-known policy has ranges of its own.`

func benchTune() *cobra.Command {
	f := tuneFlags{}
	c := &cobra.Command{
		Use: "tune --policy NAME [--search RANGE]... (--trace FILE|--generate SPEC|--log FILE|--prometheus URL --query PROMQL)...", Short: "Search a policy's parameters on one part of a load, and judge them on the rest",
		Long: tuneLong, Args: usage(cobra.NoArgs),
		Example: `  sluice bench tune --policy kpa --trace requests.csv --scenario small --out out/tune
  sluice bench tune --policy kpa --search 'target=30%..95%' --search 'stableWindow=6s..10m:log' --search 'panicThresholdPercentage=110|200|400' --trace requests.csv
  sluice bench tune --policy hpa --generate diurnal:mean=50,duration=2d --objective cost --limit sloViolations=0.005 --limit waitP99=1`,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.add(c, 3)
	fl := c.Flags()
	fl.StringArrayVar(&f.search, "search", nil, "a parameter and its `RANGE`; repeatable")
	fl.StringVar(&f.objective, "objective", "podSeconds", "what is to be least: "+metricNames())
	fl.StringArrayVar(&f.limits, "limit", nil, "what must hold, `METRIC=NUMBER`; repeatable (default: sloViolations at the scenario's share)")
	fl.Float64Var(&f.train, "train", 0.5, "share of the time that is searched on; 1 holds nothing back")
	fl.IntVar(&f.budget, "budget", 60, "work to do, in runs of one setting on the whole first part with all seeds")
	f.past.add(c)
	fl.Uint64Var(&f.searchSeed, "search-seed", 1, "seed of the search itself")
	for _, name := range []string{"baseline", "explain"} {
		fl.Lookup(name).Hidden = true
	}
	return c
}

func metricNames() string {
	var names []string
	for _, m := range tune.Metrics() {
		names = append(names, m.Name)
	}
	return strings.Join(names, ", ")
}

type tuneFlags struct {
	benchFlags
	past           historyFlags
	search, limits []string
	objective      string
	train          float64
	budget         int
	searchSeed     uint64
}

// tuning is a search that is ready to run, and what came of it.
type tuning struct {
	cfg    tune.Config
	bench  *tune.Bench
	policy plan.Policy
	scenes []scenario.Scenario
	train  float64
	// notes are what the history says of itself.
	notes []string

	found tune.Result
	// held are the held-back scores of the policy as given and as tuned.
	heldDefault, heldBest []score.Result
}

func (f *tuneFlags) run(cmd *cobra.Command) error {
	t, loads, err := f.prepare(cmd)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	work, err := f.work(cmd, t, loads)
	if err != nil {
		return err
	}
	if err := f.place(t, work); err != nil {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	head, err := f.head(t.scenes)
	if err != nil {
		return err
	}
	if f.out != "" { // before hours of searching
		if _, err := report.Create(f.out, head, f.overwrite); err != nil {
			return err
		}
	}
	told := newTeller(cmd.ErrOrStderr())
	t.cfg.Progress = func(spent float64, best *tune.Trial) {
		told.say(func() string {
			line := fmt.Sprintf("%.0f of %d runs", spent, f.budget)
			if best != nil {
				line += fmt.Sprintf(", the best so far has %s %s: %s", t.cfg.Objective.Name, show(t.cfg.Objective.Name, []float64{best.Objective}), best.Policy.Label)
			}
			return line
		})
	}
	var searchErr error
	if t.found, searchErr = tune.Search(cmd.Context(), t.cfg); t.found.Best.Results == nil {
		return cmp.Or(searchErr, errors.New("no setting could be scored"))
	}
	if searchErr != nil {
		searchErr = fmt.Errorf("the search ended early: %w", searchErr)
	}
	err = errors.Join(f.judge(cmd, head, t), t.write(cmd.OutOrStdout()))
	if f.out != "" {
		name := filepath.Join(f.out, "tune.json")
		if errWrite := t.save(name, head); errWrite != nil {
			err = errors.Join(err, errWrite)
		} else {
			fmt.Fprintln(cmd.ErrOrStderr(), "wrote", name)
		}
	}
	return errors.Join(searchErr, err)
}

// prepare reads the flags.
func (f *tuneFlags) prepare(cmd *cobra.Command) (*tuning, []plan.Load, error) {
	t := &tuning{train: f.train}
	var errs []error
	if len(f.policies) != 1 {
		errs = append(errs, fmt.Errorf("--policy is given %d times: want the one policy to tune", len(f.policies)))
	} else {
		var err error
		t.policy, err = plan.ParsePolicy(known(), f.policies[0])
		errs = append(errs, err)
	}
	var err error
	if t.scenes, err = f.scenes(cmd); err != nil {
		errs = append(errs, err)
	}
	for i := range t.scenes {
		if t.scenes[i].PodConcurrency != t.scenes[0].PodConcurrency || t.scenes[i].PerPod() != t.scenes[0].PerPod() {
			errs = append(errs, fmt.Errorf("scenarios %s and %s differ in podConcurrency or target: tune for each by itself", t.scenes[0].Name, t.scenes[i].Name))
		}
	}
	var loads []plan.Load
	if f.past.given() {
		errs = append(errs, f.past.check(cmd))
		if len(f.traces)+len(f.generators)+len(f.logs) > 0 {
			errs = append(errs, errors.New("a history and --trace, --generate or --log are given: want one of them"))
		}
	} else if loads, err = f.loads(); err != nil {
		errs = append(errs, err)
	}
	t.cfg = tune.Config{Budget: f.budget, Seed: f.searchSeed, Workers: workers(f.workers)}
	if f.budget < 1 || f.budget > tune.MaxBudget {
		errs = append(errs, fmt.Errorf("--budget = %d: want 1–%d runs", f.budget, tune.MaxBudget))
	}
	if t.cfg.Objective, err = tune.FindMetric(f.objective); err != nil {
		errs = append(errs, fmt.Errorf("--objective: %w", err))
	}
	for _, spec := range f.limits {
		l, err := tune.ParseLimit(spec)
		if err != nil {
			errs = append(errs, fmt.Errorf("--limit: %w", err))
		}
		t.cfg.Limits = append(t.cfg.Limits, l)
	}
	if len(f.limits) == 0 && len(t.scenes) > 0 {
		l, err := tune.FindMetric("sloViolations")
		errs = append(errs, err)
		least := t.scenes[0].SLO.Share // the strictest, since limits hold for each scenario
		for i := range t.scenes {
			least = min(least, t.scenes[i].SLO.Share)
		}
		t.cfg.Limits = []tune.Limit{{Metric: l, Most: least}}
	}
	return t, loads, errors.Join(errs...)
}

// place makes the bench and the space to search.
func (f *tuneFlags) place(t *tuning, work []tune.Work) (err error) {
	if t.bench, err = tune.NewBench(work, f.train, f.firstSeed, f.seeds); err != nil {
		return err
	}
	t.cfg.Evaluate, t.cfg.LeastShare = t.bench.Evaluate, t.bench.LeastShare()
	t.cfg.Space, err = tune.NewSpace(t.policy, &t.scenes[0], f.search)
	return err
}

// work is what settings are tried on: the history, or each load in each scenario.
func (f *tuneFlags) work(cmd *cobra.Command, t *tuning, loads []plan.Load) ([]tune.Work, error) {
	var work []tune.Work
	if f.past.given() {
		model, err := trace.ParseModel(f.model)
		if err != nil {
			return nil, fmt.Errorf("--arrivals: %w", err)
		}
		b, err := f.past.read(cmd, "")
		if err != nil {
			return nil, err
		}
		for i := range t.scenes {
			src, s, before, err := b.load(cmd, t.scenes[i], model)
			if err != nil {
				return nil, err
			}
			work = append(work, tune.Work{Source: src, Scenario: s, Start: b.demand.Start, History: before})
		}
		t.notes = b.notes()
		return work, nil
	}
	for i := range t.scenes {
		for _, l := range loads {
			src, err := l(&t.scenes[i])
			if err != nil {
				return nil, fmt.Errorf("scenario %s: %w", t.scenes[i].Name, err)
			}
			work = append(work, tune.Work{Source: src, Scenario: t.scenes[i]})
		}
	}
	return work, nil
}

// judge runs the best setting and the given one on what was held back, into the folder if there is one. Without a held-back part the
// folder has the runs on all.
func (f *tuneFlags) judge(cmd *cobra.Command, head report.Summary, t *tuning) error {
	if stopped(cmd.Context()) { // the search's own error says so
		return nil
	}
	jobs := func(p plan.Policy) ([]plan.Job, error) {
		if f.train == 1 {
			if f.out == "" {
				return nil, nil
			}
			return t.bench.Train(p)
		}
		return t.bench.HeldBack(p), nil
	}
	all, err := jobs(t.policy)
	if err != nil {
		return err
	}
	if tuned := t.found.Best; tuned.Values != nil {
		more, err := jobs(tuned.Policy)
		if err != nil {
			return err
		}
		all = append(all, more...)
	}
	head.Baseline = t.policy.Label
	head.Notes = append(head.Notes, t.notes...)
	if f.train < 1 {
		head.Notes = append(head.Notes, fmt.Sprintf("Runs are of the last %.0f %% of the time, which was held back from the search; what came before warmed the policies up.", 100*(1-f.train)))
	}
	summary, err := f.keep(cmd, head, all)
	if f.train == 1 || err != nil {
		return err
	}
	results := summary.Results
	t.heldDefault, t.heldBest = results[:len(results)/2], results[len(results)/2:]
	if t.found.Best.Values == nil {
		t.heldDefault, t.heldBest = results, results
	}
	return nil
}

func stopped(ctx context.Context) bool { return ctx.Err() != nil }

// keep runs jobs, writes the folder with its reports if one is asked for, and sums up. Results are those of the jobs that were done, in
// their order.
func (f *benchFlags) keep(cmd *cobra.Command, head report.Summary, jobs []plan.Job) (report.Summary, error) {
	var folder *report.Writer
	var err error
	if f.out != "" {
		if folder, err = report.Create(f.out, head, true); err != nil { // whether it may be replaced was asked before
			return head, err
		}
	}
	results := make([]*score.Result, len(jobs))
	p := newProgress(cmd.ErrOrStderr(), len(jobs))
	opts := plan.Options{Workers: workers(f.workers), Points: f.points, Explain: f.explain, Share: p.share}
	err = plan.Run(cmd.Context(), jobs, opts, func(i int, run score.Run) error {
		results[i] = &run.Result
		if folder == nil {
			return nil
		}
		return folder.Put(i, run)
	})
	p.end()
	if folder == nil {
		for _, r := range results {
			if r != nil {
				head.Results = append(head.Results, *r)
			}
		}
		return report.Summarize(head), err
	}
	var notes []string
	if err != nil {
		notes = append(notes, "It ended early: "+err.Error())
	}
	summary, errFinish := folder.Finish(notes...)
	if errFinish != nil {
		return summary, errors.Join(err, errFinish)
	}
	written, errOpen := report.Open(f.out)
	if errOpen != nil {
		return summary, errors.Join(err, errOpen)
	}
	files, errRender := written.Render(report.RenderOptions{})
	for _, file := range files {
		fmt.Fprintln(cmd.ErrOrStderr(), "wrote", file)
	}
	return summary, errors.Join(err, errRender)
}

// metricOf is a metric with its unit, for writing.
func metricOf(name string) report.Metric {
	for _, m := range report.Metrics() {
		if m.Name == name {
			return m
		}
	}
	m := report.Metric{Name: name, Title: name}
	if of, ok := strings.CutSuffix(name, "Share"); ok {
		m.Title, m.Unit = strings.ReplaceAll(of, "coldStart", "cold start")+" share", "share"
	} else if of, ok := strings.CutPrefix(name, "waitP"); ok {
		m.Title, m.Unit = "p"+of+" wait", "s"
	}
	return m
}

func show(metric string, values []float64) string {
	return metricOf(metric).Format(values)
}

// columns are the metrics of the tables: the objective, what is limited, and what one wants to see anyway.
func (t *tuning) columns() []tune.Metric {
	out := []tune.Metric{t.cfg.Objective}
	add := func(m tune.Metric) {
		if !slices.ContainsFunc(out, func(o tune.Metric) bool { return o.Name == m.Name }) {
			out = append(out, m)
		}
	}
	for _, l := range t.cfg.Limits {
		add(l.Metric)
	}
	for _, m := range tune.Metrics() {
		switch m.Name {
		case "podSeconds", "sloViolations", "waitP99", "coldStarts":
			add(m)
		}
	}
	return out
}

// write is the report for terminals.
func (t *tuning) write(w io.Writer) error {
	var b strings.Builder
	r := &t.found
	var limits []string
	for _, l := range t.cfg.Limits {
		limits = append(limits, fmt.Sprintf("%s ≤ %s", l.Metric.Name, show(l.Metric.Name, []float64{l.Most})))
	}
	fmt.Fprintf(&b, "%s: the least %s with %s, on the first %.4g %% of the time\n", t.policy.Label, t.cfg.Objective.Name, strings.Join(limits, " and "), 100*t.train)
	fmt.Fprintf(&b, "searched %s; scored %d settings in the work of %.0f runs", strings.Join(t.cfg.Space.Dimensions(), ", "), r.Evaluated, r.Spent)
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
	for _, note := range t.notes {
		fmt.Fprintf(&b, "Note: %s\n", note)
	}
	for _, warning := range t.warnings() {
		fmt.Fprintf(&b, "Warning: %s\n", warning)
	}
	text, err := paste(r.Best.Policy)
	if err != nil {
		return err
	}
	fmt.Fprintf(&b, "\nFor the spec of an Autoscaler:\n\n%s", text)
	_, err = io.WriteString(w, b.String())
	return err
}

// scores is the table of both settings on both parts.
func (t *tuning) scores(b *strings.Builder) {
	columns := t.columns()
	tw := tabwriter.NewWriter(b, 0, 4, 2, ' ', 0)
	fmt.Fprint(tw, "PART\tSETTING")
	for _, m := range columns {
		fmt.Fprintf(tw, "\t%s", strings.ToUpper(metricOf(m.Name).Title))
	}
	fmt.Fprintln(tw, "\tLIMITS")
	row := func(part, setting string, results []score.Result) {
		for _, g := range tune.Groups(results) {
			name := part
			if len(tune.Groups(results)) > 1 {
				name += " " + g[0].Trace + ", " + g[0].Scenario
			}
			fmt.Fprintf(tw, "%s\t%s", name, setting)
			for _, m := range columns {
				var values []float64
				for i := range g {
					values = append(values, m.Of(&g[i]))
				}
				fmt.Fprintf(tw, "\t%s", show(m.Name, values))
			}
			verdict := "kept"
			if broken := t.broken(g); len(broken) > 0 {
				verdict = "broken: " + strings.Join(broken, ", ")
			}
			fmt.Fprintf(tw, "\t%s\n", verdict)
		}
	}
	row("train", "as given", t.found.Default.Results)
	if t.found.Best.Values != nil {
		row("train", "tuned", t.found.Best.Results)
	}
	if t.heldDefault != nil {
		row("held back", "as given", t.heldDefault)
		if t.found.Best.Values != nil {
			row("held back", "tuned", t.heldBest)
		}
	}
	if err := tw.Flush(); err != nil {
		return // a strings.Builder takes all
	}
	b.WriteString("\n")
}

// broken names the limits that results break.
func (t *tuning) broken(results []score.Result) []string {
	var out []string
	for _, l := range t.cfg.Limits {
		if l.Metric.Worst(results) > l.Most {
			out = append(out, l.Metric.Name)
		}
	}
	return out
}

// top is the table of the best.
func (t *tuning) top(b *strings.Builder) {
	fmt.Fprintf(b, "The best %d on the first part:\n", len(t.found.Top))
	tw := tabwriter.NewWriter(b, 0, 4, 2, ' ', 0)
	fmt.Fprintf(tw, "\t%s", strings.ToUpper(metricOf(t.cfg.Objective.Name).Title))
	for _, l := range t.cfg.Limits {
		fmt.Fprintf(tw, "\t%s", strings.ToUpper(metricOf(l.Metric.Name).Title))
	}
	names := slices.Sorted(maps.Keys(t.cfg.Space.Values(make([]float64, len(t.cfg.Space.Dimensions())))))
	for _, n := range names {
		fmt.Fprintf(tw, "\t%s", n[strings.LastIndex(n, ".")+1:])
	}
	fmt.Fprintln(tw)
	for i, trial := range t.found.Top {
		fmt.Fprintf(tw, "%d\t%s", i+1, show(t.cfg.Objective.Name, []float64{trial.Objective}))
		for _, l := range t.cfg.Limits {
			fmt.Fprintf(tw, "\t%s", show(l.Metric.Name, []float64{l.Metric.Worst(trial.Results)}))
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

const (
	// fades is the share of what tuning gained on the first part that may be missing on the rest before it is called overfitted.
	fades = 0.5
	// gain is the share of the objective from which on tuning is said to have gained anything.
	gain = 0.02
)

// warnings are what a user must know before pasting.
func (t *tuning) warnings() []string {
	var out []string
	r := &t.found
	if !r.Best.Feasible() {
		out = append(out, fmt.Sprintf("no setting keeps the limits (%s); this one breaks them least. Widen the ranges, or allow more.", strings.Join(t.broken(r.Best.Results), ", ")))
	}
	for _, e := range r.Edges {
		out = append(out, e+": a wider range may hold better ones.")
	}
	if t.train == 1 {
		out = append(out, "nothing was held back (--train 1), so these are scores with hindsight.")
		return out
	}
	if t.heldBest == nil {
		out = append(out, "the held-back part was not reached, so these are scores with hindsight.")
		return out
	}
	if broken := t.broken(t.heldBest); len(broken) > 0 && r.Best.Feasible() {
		for _, l := range t.cfg.Limits {
			if slices.Contains(broken, l.Metric.Name) {
				out = append(out, fmt.Sprintf("overfitted, or the load has changed: on the held-back part %s is %s, above the limit of %s.",
					l.Metric.Name, show(l.Metric.Name, []float64{l.Metric.Worst(t.heldBest)}), show(l.Metric.Name, []float64{l.Most})))
			}
		}
	}
	if r.Best.Values == nil {
		return out
	}
	onTrain := r.Best.Objective / r.Default.Objective
	onRest := t.cfg.Objective.Value(t.heldBest) / t.cfg.Objective.Value(t.heldDefault)
	if onTrain < 1-gain && onRest > 1-(1-onTrain)*fades {
		out = append(out, fmt.Sprintf("overfitted, or the load has changed: %s is %.2f of the given setting's on the first part, and %.2f on the held-back one.",
			t.cfg.Objective.Name, onTrain, onRest))
	}
	return out
}

// paste is the policy as YAML for an Autoscaler's spec. Parameters of the guard are fields of the spec.
func paste(p plan.Policy) (string, error) {
	policy := map[string]any{"name": p.Name}
	if len(p.Params) > 0 {
		policy["parameters"] = p.Params
	}
	spec := map[string]any{"policy": policy}
	if len(p.Guard) > 0 {
		var around map[string]json.RawMessage
		if err := json.Unmarshal(p.Guard, &around); err != nil {
			return "", fmt.Errorf("guard of %s: %w", p.Label, err)
		}
		for k, v := range around {
			spec[k] = v
		}
	}
	raw, err := json.Marshal(spec)
	if err == nil {
		raw, err = yaml.JSONToYAML(raw)
	}
	if err != nil {
		return "", fmt.Errorf("write %s as YAML: %w", p.Label, err)
	}
	var b bytes.Buffer
	for line := range strings.Lines(string(raw)) {
		b.WriteString("  " + line)
	}
	return b.String(), nil
}

// tuneRecord is tune.json.
type tuneRecord struct {
	Sluice    string                `json:"sluice"`
	Commit    string                `json:"commit"`
	Command   []string              `json:"command"`
	Objective string                `json:"objective"`
	Limits    []string              `json:"limits"`
	Search    []string              `json:"search"`
	Train     float64               `json:"train"`
	Budget    int                   `json:"budget"`
	Seed      uint64                `json:"searchSeed"`
	Evaluated int                   `json:"evaluated"`
	Spent     float64               `json:"spent"`
	Default   tune.Trial            `json:"default"`
	Top       []tune.Trial          `json:"top"`
	HeldBack  map[string]heldScores `json:"heldBack,omitempty"`
	Warnings  []string              `json:"warnings"`
}

type heldScores struct {
	Policy  plan.Policy    `json:"policy"`
	Results []score.Result `json:"results"`
}

// save writes tune.json.
func (t *tuning) save(name string, head report.Summary) error {
	r := tuneRecord{
		Sluice: head.Sluice, Commit: head.Commit, Command: head.Command, Objective: t.cfg.Objective.Name, Search: t.cfg.Space.Dimensions(), Train: t.train,
		Budget: t.cfg.Budget, Seed: t.cfg.Seed, Evaluated: t.found.Evaluated, Spent: t.found.Spent, Default: t.found.Default, Top: t.found.Top, Warnings: t.warnings(),
	}
	for _, l := range t.cfg.Limits {
		r.Limits = append(r.Limits, l.String())
	}
	if t.heldBest != nil {
		r.HeldBack = map[string]heldScores{"asGiven": {t.policy, t.heldDefault}, "tuned": {t.found.Best.Policy, t.heldBest}}
	}
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return os.WriteFile(name, append(raw, '\n'), 0o644)
}

// teller says on standard error how far something is: after two seconds, and then each five.
type teller struct {
	w           io.Writer
	begun, last time.Time
}

func newTeller(w io.Writer) *teller {
	now := time.Now()
	return &teller{w: w, begun: now, last: now.Add(-3 * time.Second)}
}

// say is not safe for concurrent use.
func (t *teller) say(line func() string) {
	now := time.Now()
	if now.Sub(t.last) < 5*time.Second {
		return
	}
	t.last = now
	fmt.Fprintf(t.w, "after %v: %s\n", now.Sub(t.begun).Round(time.Second), line())
}
