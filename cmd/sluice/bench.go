package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/report"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/trace"
	"github.com/sluice-autoscaler/sluice/internal/cli"
)

const benchLong = `Simulate policies on recorded or generated load, before they touch production.

Loads are traces (CSV: t_seconds and requests or concurrency per bin), request logs or generators. A scenario says how long
requests and starts take, how many requests a pod takes and what is promised; flags override it. The policies and their guard
are the very code that runs in the cluster ("sluice policies" lists them).`

func bench() *cobra.Command {
	c := &cobra.Command{
		Use: "bench", Short: "Simulate policies on recorded or generated load", Long: benchLong,
		RunE: func(*cobra.Command, []string) error { return fmt.Errorf("no bench command given: %w", errUsage) },
	}
	c.AddCommand(benchRun(), benchCompare(), benchSuite(), benchTune(), benchBacktest(), benchReplay(), benchReport())
	return c
}

// benchFlags are what the commands that simulate have in common.
type benchFlags struct {
	traces, generators, logs []string
	model, zeros             string
	from, to                 string
	scenarios                []string
	sets                     []string
	over                     map[string]*string
	policies                 []string
	seeds                    int
	firstSeed                uint64
	out                      string
	overwrite                bool
	workers, points          int
	explain                  bool
	baseline                 string
}

// overrides are the scenario's fields that have a flag of their own, with the field's JSON name.
func overrides() [][3]string {
	return [][3]string{
		{"service", "service", "time that a pod works on a request, as `DIST`: const:100ms, exp:100ms, lognormal:100ms,cv=1, gamma:…, uniform:50ms,150ms, empirical:1ms,2ms,… or empirical:@FILE"},
		{"pod-concurrency", "podConcurrency", "requests that a pod works on at a time, 0 for no limit"},
		{"startup", "startup", "time from a pod's creation until it answers, as `DIST`"},
		{"routing", "routing", "how requests find a pod: shared (one queue before all), random or leastOfTwo (a queue at each)"},
		{"hold-requests", "holdRequests", "most requests that the gateway holds"},
		{"hold-timeout", "holdTimeout", "longest time that it holds one"},
		{"peak-replicas", "peakReplicas", "scale traces so that their busiest bin keeps that many pods busy; 0 takes them as they are"},
		{"min-replicas", "minReplicas", "least pods"},
		{"max-replicas", "maxReplicas", "most pods"},
		{"initial-replicas", "initialReplicas", "pods at the beginning"},
		{"target", "target", "requests in flight per pod that policies aim at, unless they say so themselves; 0 is 0.7 of --pod-concurrency"},
		{"scale-to-zero-after", "scaleToZeroAfter", "idle time before the last pod goes"},
		{"tick", "tick", "time between two decisions"},
	}
}

func (f *benchFlags) add(c *cobra.Command, seeds int) {
	f.addLoads(c)
	f.addRuns(c, seeds)
}

// addLoads are the flags of loads from files and generators.
func (f *benchFlags) addLoads(c *cobra.Command) {
	fl := c.Flags()
	fl.StringArrayVar(&f.traces, "trace", nil, "a trace `FILE`; FILE#COLUMN or FILE#all of a wide one; repeatable")
	fl.StringArrayVar(&f.generators, "generate", nil, "generated load, `SPEC`: "+strings.Join(generatorNames(), ", ")+"; repeatable")
	fl.StringArrayVar(&f.logs, "log", nil, "a request log `FILE`: t_seconds[,service_seconds], a line per request; repeatable")
	fl.StringVar(&f.zeros, "zeros", "idle", "what empty bins of traces are: idle, or missing data that is interpolated or hold")
	fl.StringVar(&f.from, "from", "", "begin that far into traces (such as 36h or 3d)")
	fl.StringVar(&f.to, "to", "", "end that far into traces")
}

// addRuns are the flags of everything else.
func (f *benchFlags) addRuns(c *cobra.Command, seeds int) {
	f.addScenario(c, "; repeatable")
	fl := c.Flags()
	fl.StringArrayVar(&f.policies, "policy", nil, "a policy, `NAME[:key=value,…]`, with its parameters, tick=… and guard={…}; repeatable")
	fl.IntVar(&f.seeds, "seeds", seeds, "runs of each combination, with seeds of their own")
	fl.Uint64Var(&f.firstSeed, "seed", 1, "the first seed")
	fl.IntVar(&f.workers, "workers", 0, "runs at once; 0 is one per core")
	fl.StringVar(&f.baseline, "baseline", "", "the policy that others are compared with (default: kpa if it is there, else the first)")
	f.addOut(c)
}

// addScenario are the flags of the scenario, and of how requests fall; again is said of the flag that may be repeated.
func (f *benchFlags) addScenario(c *cobra.Command, again string) {
	fl := c.Flags()
	fl.StringVar(&f.model, "arrivals", "poisson", "how requests fall within a trace's bins: poisson, even, exact, gamma:cv=N or weibull:cv=N")
	fl.StringArrayVar(&f.scenarios, "scenario", []string{"web"}, "a scenario: "+strings.Join(scenario.Names(), ", ")+", or a YAML `FILE`"+again)
	fl.StringArrayVar(&f.sets, "set", nil, "another field of the scenario, `NAME=JSON`; repeatable")
	f.over = map[string]*string{}
	for _, o := range overrides() {
		f.over[o[0]] = fl.String(o[0], "", o[2]+" (default: the scenario's)")
	}
	fl.String("slo-wait", "", "longest wait for a pod that keeps the promise (default: the scenario's)")
	fl.String("slo-share", "", "share of requests (0–1) that may break it (default: the scenario's)")
}

// addOut are the flags of what is kept.
func (f *benchFlags) addOut(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.out, "out", "", "write summary.json, results.csv, report.html and raw records to this `DIR`")
	fl.BoolVar(&f.overwrite, "overwrite", false, "replace the bench that is in --out")
	fl.IntVar(&f.points, "points", 2000, "most rows in the series of a run")
	fl.BoolVar(&f.explain, "explain", false, "record a sentence with each change, which takes longer")
}

func generatorNames() []string {
	var names []string
	for _, g := range trace.Generators() {
		names = append(names, g.Name)
	}
	return names
}

// jobs turns the flags into runs.
func (f *benchFlags) jobs(c *cobra.Command) ([]plan.Job, []scenario.Scenario, error) {
	var errs []error
	if len(f.policies) == 0 {
		errs = append(errs, errors.New("--policy is missing: want at least one"))
	}
	if f.seeds < 1 || f.seeds > 10_000 {
		errs = append(errs, fmt.Errorf("--seeds = %d: want 1–10000", f.seeds))
	}
	scenes, err := f.scenes(c)
	errs = append(errs, err)
	loads, err := f.loads()
	errs = append(errs, err)
	var policies []plan.Policy
	for _, spec := range f.policies {
		p, err := plan.ParsePolicy(known(), spec)
		errs = append(errs, err)
		policies = append(policies, p)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	jobs, err := plan.Matrix(scenes, loads, policies, f.firstSeed, f.seeds)
	return jobs, scenes, err
}

// scenes reads the scenarios and lays the flags over them.
func (f *benchFlags) scenes(c *cobra.Command) ([]scenario.Scenario, error) {
	over := map[string]json.RawMessage{}
	for _, set := range f.sets {
		k, v, ok := strings.Cut(set, "=")
		if !ok {
			return nil, fmt.Errorf("--set %q: want NAME=JSON", set)
		}
		over[k] = plan.Literal(v)
	}
	for _, o := range overrides() {
		if v := *f.over[o[0]]; c.Flags().Changed(o[0]) {
			over[o[1]] = plan.Literal(v)
		}
	}
	slo := map[string]json.RawMessage{}
	for flag, key := range map[string]string{"slo-wait": "wait", "slo-share": "share"} {
		if c.Flags().Changed(flag) {
			v, err := c.Flags().GetString(flag)
			if err != nil {
				return nil, err
			}
			slo[key] = plan.Literal(v)
		}
	}
	if len(slo) > 0 {
		raw, err := json.Marshal(slo)
		if err != nil {
			return nil, fmt.Errorf("--slo-wait, --slo-share: %w", err)
		}
		over["slo"] = raw
	}
	var out []scenario.Scenario
	var errs []error
	for _, name := range f.scenarios {
		s, err := readScenario(name, over)
		if err != nil {
			errs = append(errs, fmt.Errorf("--scenario %s: %w", name, err))
		}
		out = append(out, s)
	}
	return out, errors.Join(errs...)
}

// readScenario reads a scenario that comes with the bench, or a file, and lays over's fields over it.
func readScenario(name string, over map[string]json.RawMessage) (scenario.Scenario, error) {
	var err error
	raw, ok := scenario.Standard(name)
	if !ok {
		raw, err = os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("neither a file nor one of %s", strings.Join(scenario.Names(), ", "))
		}
	}
	if err != nil {
		return scenario.Scenario{}, err
	}
	if raw, err = yaml.YAMLToJSONStrict(raw); err != nil {
		return scenario.Scenario{}, err
	}
	if raw, err = measured(raw); err != nil {
		return scenario.Scenario{}, err
	}
	s, err := scenario.Parse(scenario.Default(), raw)
	if err != nil || len(over) == 0 {
		return s, err
	}
	patch, err := json.Marshal(over)
	if err == nil {
		patch, err = measured(patch)
	}
	if err != nil {
		return s, fmt.Errorf("flags: %w", err)
	}
	return scenario.Parse(s, patch)
}

// mostMeasured bounds the times of one file.
const mostMeasured = 100_000

// measured puts the times of files in the place of "empirical:@FILE": a duration or a number of seconds a line.
func measured(raw []byte) ([]byte, error) {
	var errs []error
	out := regexp.MustCompile(`"empirical:@[^"]+"`).ReplaceAllFunc(raw, func(m []byte) []byte {
		file := strings.TrimSuffix(strings.TrimPrefix(string(m), `"empirical:@`), `"`)
		text, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, fmt.Errorf("empirical: %w", err))
			return m
		}
		var times []string
		for n, line := range strings.Split(string(text), "\n") {
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			d, err := time.ParseDuration(line)
			if s, numErr := strconv.ParseFloat(line, 64); numErr == nil && s >= 0 && s < 1e9 {
				d, err = time.Duration(s*float64(time.Second)), nil
			}
			if err != nil || len(times) == mostMeasured {
				errs = append(errs, fmt.Errorf("empirical: %s: line %d: %q: want a duration such as 120ms, or seconds, and at most %d of them", file, n+1, line, mostMeasured))
				return m
			}
			times = append(times, d.String())
		}
		return []byte(`"empirical:` + strings.Join(times, ",") + `"`)
	})
	return out, errors.Join(errs...)
}

// loads reads the traces, logs and generators.
func (f *benchFlags) loads() ([]plan.Load, error) {
	if len(f.traces)+len(f.generators)+len(f.logs) == 0 {
		return nil, errors.New("no load: want --trace, --generate or --log")
	}
	model, err := trace.ParseModel(f.model)
	if err != nil {
		return nil, fmt.Errorf("--arrivals: %w", err)
	}
	var loads []plan.Load
	var errs []error
	for _, t := range f.traces {
		ls, err := f.traceLoads(t, model)
		if err != nil {
			errs = append(errs, fmt.Errorf("--trace %s: %w", t, err))
		}
		loads = append(loads, ls...)
	}
	for _, g := range f.generators {
		l, err := plan.Generated(g)
		if err != nil {
			errs = append(errs, fmt.Errorf("--generate: %w", err))
		}
		loads = append(loads, l)
	}
	for _, name := range f.logs {
		src, err := trace.Log(name, func() (io.ReadCloser, error) { return os.Open(name) }, trace.LogOptions{})
		if err != nil {
			errs = append(errs, fmt.Errorf("--log %s: %w", name, err))
		}
		loads = append(loads, func(*scenario.Scenario) (trace.Source, error) { return src, nil })
	}
	return loads, errors.Join(errs...)
}

// traceLoads is one load, or one for each column of a wide file.
func (f *benchFlags) traceLoads(spec string, model trace.Model) ([]plan.Load, error) {
	file, column, _ := strings.Cut(spec, "#")
	opts := trace.Options{Column: column}
	switch f.zeros {
	case "idle":
	case "interpolate":
		opts.Zeros = trace.ZerosInterpolate
	case "hold":
		opts.Zeros = trace.ZerosHold
	default:
		return nil, fmt.Errorf("--zeros = %q: want idle, interpolate or hold", f.zeros)
	}
	columns := []string{column}
	if column == "all" {
		var err error
		if columns, err = traceColumns(file); err != nil {
			return nil, err
		}
	}
	var loads []plan.Load
	for _, col := range columns {
		opts := opts
		opts.Column = col
		l := plan.Recorded(cached(func(service time.Duration) (*trace.Trace, error) { return f.readTrace(file, opts, service) }), model)
		if _, err := l(&scenario.Scenario{Service: someWork()}); err != nil {
			return nil, err
		}
		loads = append(loads, l)
	}
	return loads, nil
}

// someWork is a mean work for reading a trace only to see whether it can be read.
func someWork() scenario.Dist {
	d, err := scenario.ParseDist("1s")
	if err != nil {
		return scenario.Dist{}
	}
	return d
}

// cached remembers the traces read by work.
func cached(read func(time.Duration) (*trace.Trace, error)) func(time.Duration) (*trace.Trace, error) {
	seen := map[time.Duration]*trace.Trace{}
	return func(service time.Duration) (*trace.Trace, error) {
		if t := seen[service]; t != nil {
			return t, nil
		}
		t, err := read(service)
		if err == nil {
			seen[service] = t
		}
		return t, err
	}
}

func (f *benchFlags) readTrace(file string, opts trace.Options, service time.Duration) (t *trace.Trace, err error) {
	r, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	opts.Service = service
	if t, err = trace.Read(r, file, opts); err != nil {
		return nil, err
	}
	from, to := time.Duration(0), t.Length()
	if f.from != "" {
		if from, err = trace.ParseDuration(f.from); err != nil {
			return nil, fmt.Errorf("--from: %w", err)
		}
	}
	if f.to != "" {
		if to, err = trace.ParseDuration(f.to); err != nil {
			return nil, fmt.Errorf("--to: %w", err)
		}
	}
	if from > 0 || to < t.Length() {
		return t.Slice(from, min(to, t.Length()))
	}
	return t, nil
}

// traceColumns lists the columns of a file but the first.
func traceColumns(file string) (columns []string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return trace.Columns(f, file)
}

func benchRun() *cobra.Command {
	var f benchFlags
	c := &cobra.Command{
		Use: "run --policy NAME… (--trace FILE|--generate SPEC|--log FILE)…", Short: "Simulate, and print what came out", Args: usage(cobra.NoArgs),
		Example: `  sluice bench run --generate poisson:rate=8,duration=1000000s --policy fixed:replicas=10 --service exp:1s --pod-concurrency 1 --startup const:0s
  sluice bench run --trace requests.csv --policy kpa --policy hpa --scenario service --seeds 5 --out out/mine`,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.simulate(cmd) },
	}
	f.add(c, 1)
	return c
}

func benchCompare() *cobra.Command {
	var f benchFlags
	c := &cobra.Command{
		Use: "compare --policy NAME… (--trace FILE|--generate SPEC|--log FILE)…", Short: "Compare policies × loads × scenarios, with intervals over paired seeds", Args: usage(cobra.NoArgs),
		Example: `  sluice bench compare --trace requests.csv --scenario small --scenario heavy --policy kpa --policy hpa --policy keda --out out/compare`,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.simulate(cmd) },
	}
	f.add(c, 5)
	return c
}

func benchReport() *cobra.Command {
	var o report.RenderOptions
	c := &cobra.Command{
		Use: "report DIR", Short: "Make the report of a bench folder again, from its raw records", Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			folder, err := report.Open(args[0])
			if err != nil {
				return err
			}
			return present(cmd, folder.Summary, folder, o)
		},
	}
	c.Flags().IntVar(&o.Page.MaxRuns, "runs", 0, "most runs whose series the page holds; 0 is 160")
	c.Flags().StringVar(&o.Trace, "picture-trace", "", "the load that load.png and pareto.png show (default: the first)")
	c.Flags().StringVar(&o.Scenario, "picture-scenario", "", "the scenario that they show (default: the first)")
	c.Flags().StringArrayVar(&o.Policies, "picture-policy", nil, "a policy that load.png shows; repeatable (default: the first five)")
	return c
}

// simulate runs all jobs, writes the folder if one is asked for, and prints the table.
func (f *benchFlags) simulate(cmd *cobra.Command) error {
	jobs, scenes, err := f.jobs(cmd)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	head, err := f.head(scenes)
	if err != nil {
		return err
	}
	return f.carryOut(cmd, head, jobs)
}

// head is what a summary says before anything has run.
func (f *benchFlags) head(scenes []scenario.Scenario) (report.Summary, error) {
	number, commit := buildInfo()
	head := report.Summary{Sluice: number, Commit: commit, Command: append([]string{"sluice"}, os.Args[1:]...), Baseline: f.baseline}
	for i := range scenes {
		raw, err := json.Marshal(scenes[i])
		if err != nil {
			return head, fmt.Errorf("write scenario %s: %w", scenes[i].Name, err)
		}
		head.Scenarios = append(head.Scenarios, raw)
	}
	return head, nil
}

// carryOut runs jobs into the folder that is asked for, or into memory, and presents them. What was done when it is interrupted
// is kept and presented.
func (f *benchFlags) carryOut(cmd *cobra.Command, head report.Summary, jobs []plan.Job) error {
	var folder *report.Writer
	var err error
	if f.out != "" {
		if folder, err = report.Create(f.out, head, f.overwrite); err != nil {
			return err
		}
	}
	runs := make([]*score.Run, len(jobs))
	p := newProgress(cmd.ErrOrStderr(), len(jobs))
	opts := plan.Options{Workers: workers(f.workers), Points: f.points, Explain: f.explain, Share: p.share}
	simErr := plan.Run(cmd.Context(), jobs, opts, func(i int, run score.Run) error {
		if folder != nil {
			return folder.Put(i, run)
		}
		if len(jobs) > 1 { // only a single run is drawn
			run = score.Run{Result: run.Result}
		}
		runs[i] = &run
		return nil
	})
	p.end()
	if folder == nil {
		var got report.Runs
		for _, run := range runs {
			if run != nil {
				got = append(got, *run)
				head.Results = append(head.Results, run.Result)
			}
		}
		if head.Baseline == "" {
			head.Baseline = report.DefaultBaseline(head.Results)
		}
		return errors.Join(simErr, present(cmd, report.Summarize(head), got, report.RenderOptions{}))
	}
	var notes []string
	if simErr != nil {
		notes = append(notes, "It ended early: "+simErr.Error())
	}
	summary, err := folder.Finish(notes...)
	if err != nil {
		return errors.Join(simErr, err)
	}
	written, err := report.Open(f.out)
	if err == nil {
		err = present(cmd, summary, written, report.RenderOptions{})
	}
	return errors.Join(simErr, err)
}

// present prints the table and a sketch of a single run, and makes the reports of a folder.
func present(cmd *cobra.Command, s report.Summary, src report.Source, o report.RenderOptions) error {
	out := cmd.OutOrStdout()
	if len(s.Results) == 0 {
		return nil
	}
	if err := report.Text(out, s); err != nil {
		return err
	}
	if len(s.Results) == 1 {
		if run, err := src.Run(0); err == nil {
			if err := report.Sparklines(out, run, 100); err != nil {
				return err
			}
		}
	}
	folder, ok := src.(*report.Folder)
	if !ok {
		return nil
	}
	files, err := folder.Render(o)
	for _, file := range files {
		fmt.Fprintln(cmd.ErrOrStderr(), "wrote", file)
	}
	return err
}

// buildInfo is the program's version and the commit it was built from.
func buildInfo() (number, commit string) {
	commit = "unknown"
	number = cli.Version()
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = s.Value
			}
		}
	}
	return number, commit
}

func workers(n int) int {
	if n > 0 {
		return n
	}
	return runtime.GOMAXPROCS(0)
}

// progress tells on standard error how far a long bench is: after two seconds, and then each five.
type progress struct {
	mu    sync.Mutex
	w     io.Writer
	begun time.Time
	last  time.Time
	jobs  int
	told  bool
}

func newProgress(w io.Writer, jobs int) *progress {
	now := time.Now()
	return &progress{w: w, begun: now, last: now.Add(-3 * time.Second), jobs: jobs}
}

func (p *progress) share(done float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Sub(p.last) < 5*time.Second {
		return
	}
	p.last, p.told = now, true
	took := now.Sub(p.begun)
	left := "?"
	if done > 0.01 {
		left = (time.Duration(float64(took)/done) - took).Round(time.Second).String()
	}
	fmt.Fprintf(p.w, "%3.0f %% of %d runs after %v, %s to go\n", 100*done, p.jobs, took.Round(time.Second), left)
}

func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.told {
		fmt.Fprintf(p.w, "%d runs in %v\n", p.jobs, time.Since(p.begun).Round(time.Millisecond))
	}
}
