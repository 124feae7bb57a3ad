// Package flags holds the flags that the commands of sluice bench share, and reads what they ask
// for.
package flags

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/runner"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/summary"
	"github.com/sluice-autoscaler/sluice/bench/trace"
	"github.com/sluice-autoscaler/sluice/internal/cli"
)

// ErrUsage marks faults of the command line.
var ErrUsage = cli.ErrUsage

// Bench is the flags of commands that simulate. Its fields are set by parsing.
type Bench struct {
	Traces, Generators, Logs []string
	Model                    string
	zeros, from, to          string
	format, unit             string
	bin                      time.Duration
	Scenarios                []string
	sets                     []string
	over                     map[string]*string
	Policies                 []string
	Seeds                    int
	FirstSeed                uint64
	Out                      string
	Overwrite                bool
	Workers, Points          int
	Explain                  bool
	Baseline                 string
	// Stdin is read for a load of the file "-". Stderr gets what was taken for what, and progress.
	Stdin  io.Reader
	Stderr io.Writer

	set *pflag.FlagSet
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

// Add adds all of them; seeds is how many runs of each combination there are unless it is said.
func (f *Bench) Add(fs *pflag.FlagSet, seeds int) {
	f.AddLoads(fs)
	f.AddRuns(fs, seeds)
}

// AddLoads are the flags of loads from files and generators.
func (f *Bench) AddLoads(fs *pflag.FlagSet) {
	fs.StringArrayVar(&f.Traces, "trace", nil, "a trace `FILE`, of any format of docs/loads.md, or - for standard input; FILE#COLUMN or FILE#all of one with several; repeatable")
	fs.StringArrayVar(&f.Generators, "generate", nil, "generated load, `SPEC`: "+strings.Join(generatorNames(), ", ")+"; repeatable")
	fs.StringArrayVar(&f.Logs, "log", nil, "a request log `FILE`, a line per request: t_seconds[,service_seconds], or any format of docs/loads.md; repeatable")
	fs.StringVar(&f.zeros, "zeros", "idle", "what empty bins of traces are: idle, or missing data that is interpolated or hold")
	fs.StringVar(&f.from, "from", "", "begin that far into traces and logs (such as 36h or 3d)")
	fs.StringVar(&f.to, "to", "", "end that far into traces and logs")
	AddReading(fs, &f.format, &f.unit, &f.bin)
}

// AddReading are the flags of how files are read.
func AddReading(fs *pflag.FlagSet, format, unit *string, bin *time.Duration) {
	fs.StringVar(format, "format", "", "what files are, a `NAME` that \"sluice bench import --help\" lists (default: recognised)")
	fs.StringVar(unit, "unit", "", "what values over time are: requests (in the bin), rate (per second), concurrency or counter (default: by their name)")
	fs.DurationVar(bin, "bin", 0, "width of bins (default: the file's, and 1s for requests one by one)")
}

// AddRuns are the flags of everything else.
func (f *Bench) AddRuns(fs *pflag.FlagSet, seeds int) {
	f.AddScenario(fs, "; repeatable")
	fs.StringArrayVar(&f.Policies, "policy", nil, "a policy, `NAME[:key=value,…]`, with its parameters, tick=… and guard={…}; repeatable")
	fs.IntVar(&f.Seeds, "seeds", seeds, "runs of each combination, with seeds of their own")
	fs.Uint64Var(&f.FirstSeed, "seed", 1, "the first seed")
	fs.IntVar(&f.Workers, "workers", 0, "runs at once; 0 is one per core")
	fs.StringVar(&f.Baseline, "baseline", "", "the policy that others are compared with (default: kpa if it is there, else the first)")
	f.AddOutput(fs)
}

// AddScenario are the flags of the scenario, and of how requests fall; again is said of the flag
// that may be repeated.
func (f *Bench) AddScenario(fs *pflag.FlagSet, again string) {
	fs.StringVar(&f.Model, "arrivals", "poisson", "how requests fall within a trace's bins: poisson, even, exact, gamma:cv=N or weibull:cv=N")
	fs.StringArrayVar(&f.Scenarios, "scenario", []string{"web"}, "a scenario: "+strings.Join(scenario.Names(), ", ")+", or a YAML `FILE`"+again)
	fs.StringArrayVar(&f.sets, "set", nil, "another field of the scenario, `NAME=JSON`; repeatable")
	f.set, f.over = fs, map[string]*string{}
	for _, o := range overrides() {
		f.over[o[0]] = fs.String(o[0], "", o[2]+" (default: the scenario's)")
	}
	fs.String("slo-wait", "", "longest wait for a pod that keeps the promise (default: the scenario's)")
	fs.String("slo-share", "", "share of requests (0–1) that may break it (default: the scenario's)")
}

// AddOutput are the flags of what is kept.
func (f *Bench) AddOutput(fs *pflag.FlagSet) {
	fs.StringVar(&f.Out, "out", "", "write summary.json, results.csv, report.html and raw records to this `DIR`")
	fs.BoolVar(&f.Overwrite, "overwrite", false, "replace the bench that is in --out")
	fs.IntVar(&f.Points, "points", 2000, "most rows in the series of a run")
	fs.BoolVar(&f.Explain, "explain", false, "record a sentence with each change, which takes longer")
}

func generatorNames() []string {
	var names []string
	for _, g := range trace.Generators() {
		names = append(names, g.Name)
	}
	return names
}

// Jobs turns the flags into runs, with policies of the catalog.
func (f *Bench) Jobs(known catalog.Catalog) ([]plan.Job, []scenario.Scenario, error) {
	var errs []error
	if len(f.Policies) == 0 {
		errs = append(errs, errors.New("--policy is missing: want at least one"))
	}
	if f.Seeds < 1 || f.Seeds > 10_000 {
		errs = append(errs, fmt.Errorf("--seeds = %d: want 1–10000", f.Seeds))
	}
	errs = append(errs, f.CheckWorkers())
	scenes, err := f.ReadScenarios()
	errs = append(errs, err)
	loads, err := f.ReadLoads()
	errs = append(errs, err)
	var policies []plan.Policy
	for _, spec := range f.Policies {
		p, err := plan.ParsePolicy(known, spec)
		errs = append(errs, err)
		policies = append(policies, p)
	}
	errs = append(errs, distinctPolicies(policies, f.Policies))
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	if b := f.Baseline; b != "" && !slices.ContainsFunc(policies, func(p plan.Policy) bool { return p.Label == b }) {
		return nil, nil, fmt.Errorf("--baseline %s: no --policy has that name; there are %s", b, strings.Join(labels(policies), ", "))
	}
	jobs, err := plan.Matrix(scenes, loads, policies, f.FirstSeed, f.Seeds)
	return jobs, scenes, err
}

// CheckWorkers says what is wrong with --workers and --points.
func (f *Bench) CheckWorkers() error {
	var errs []error
	if f.Workers < 0 || f.Workers > 10_000 {
		errs = append(errs, fmt.Errorf("--workers = %d: want 0–10000", f.Workers))
	}
	if f.Points < 0 {
		errs = append(errs, fmt.Errorf("--points = %d: want ≥ 0", f.Points))
	}
	return errors.Join(errs...)
}

func labels(policies []plan.Policy) []string {
	out := make([]string, 0, len(policies))
	for i := range policies {
		out = append(out, policies[i].Label)
	}
	return out
}

// distinctPolicies gives policies with one label what tells them apart, their specification.
func distinctPolicies(policies []plan.Policy, specs []string) error {
	for i := range policies {
		for j := range policies[:i] {
			if policies[i].Name != "" && policies[i].Label == policies[j].Label && policies[i].Same(&policies[j]) {
				return fmt.Errorf("--policy %s is given twice (as %s): it would count twice; leave one out", specs[i], specs[j])
			}
		}
	}
	distinct, err := plan.Distinct("--policy", labels(policies), specs)
	if err != nil {
		return err
	}
	for i := range policies {
		policies[i].Label = distinct[i]
	}
	return nil
}

// ReadScenarios reads the scenarios and lays the flags over them. Those with one name get what
// tells them apart.
func (f *Bench) ReadScenarios() ([]scenario.Scenario, error) {
	over := map[string]json.RawMessage{}
	for _, set := range f.sets {
		k, v, ok := strings.Cut(set, "=")
		if !ok {
			return nil, fmt.Errorf("--set %q: want NAME=JSON", set)
		}
		over[k] = plan.Literal(v)
	}
	for _, o := range overrides() {
		if v := *f.over[o[0]]; f.set.Changed(o[0]) {
			over[o[1]] = plan.Literal(v)
		}
	}
	slo := map[string]json.RawMessage{}
	for flag, key := range map[string]string{"slo-wait": "wait", "slo-share": "share"} {
		if f.set.Changed(flag) {
			v, err := f.set.GetString(flag)
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
	for _, name := range f.Scenarios {
		s, err := scenario.Load(name, over)
		if err != nil {
			errs = append(errs, fmt.Errorf("--scenario %s: %w", name, err))
		}
		out = append(out, s)
	}
	if err := errors.Join(errs...); err != nil {
		return out, err
	}
	names := make([]string, 0, len(out))
	for i := range out {
		names = append(names, out[i].Name)
	}
	distinct, err := plan.Distinct("--scenario", names, f.Scenarios)
	if err != nil {
		return out, err
	}
	for i := range out {
		out[i].Name = distinct[i]
	}
	return out, nil
}

// ReadLoads reads the traces, logs and generators.
func (f *Bench) ReadLoads() ([]plan.Load, error) {
	if len(f.Traces)+len(f.Generators)+len(f.Logs) == 0 {
		return nil, errors.New("no load: want --trace, --generate or --log")
	}
	model, err := trace.ParseModel(f.Model)
	if err != nil {
		return nil, fmt.Errorf("--arrivals: %w", err)
	}
	if (f.from != "" || f.to != "") && len(f.Traces)+len(f.Logs) == 0 {
		return nil, errors.New("--from and --to cut traces and logs: a generator takes duration=")
	}
	if (f.format != "" || f.unit != "" || f.bin != 0) && len(f.Traces)+len(f.Logs) == 0 {
		return nil, errors.New("--format, --unit and --bin are of files: there is no --trace and no --log")
	}
	files := plan.Files{Model: model, Zeros: f.zeros, From: f.from, To: f.to, Format: f.format, Unit: f.unit, Bin: f.bin, Stdin: f.Stdin}
	if f.Stderr != nil {
		files.Note = func(line string) { fmt.Fprintln(f.Stderr, line) }
		files.Progress = runner.ReadProgress(f.Stderr)
	}
	var loads []plan.Load
	var from []string // what each was given as
	var errs []error
	add := func(flag, spec string, ls []plan.Load, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s %s: %w", flag, spec, err))
		}
		for range ls {
			from = append(from, spec)
		}
		loads = append(loads, ls...)
	}
	for _, t := range f.Traces {
		ls, err := files.Traces(t)
		add("trace", t, ls, err)
	}
	for _, g := range f.Generators {
		l, err := plan.Generated(g)
		add("generate", g, []plan.Load{l}, err)
	}
	for _, name := range f.Logs {
		l, err := files.Log(name)
		add("log", name, []plan.Load{l}, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return distinctLoads(loads, from)
}

// distinctLoads gives loads with one name what tells them apart.
func distinctLoads(loads []plan.Load, from []string) ([]plan.Load, error) {
	names := make([]string, 0, len(loads))
	for i, l := range loads {
		name, err := plan.NameOf(l)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", from[i], err)
		}
		names = append(names, name)
	}
	distinct, err := plan.Distinct("the load", names, from)
	if err != nil {
		return nil, err
	}
	for i := range loads {
		if distinct[i] != names[i] {
			loads[i] = plan.Named(loads[i], distinct[i])
		}
	}
	return loads, nil
}

// Head is what a summary says before anything has run.
func (f *Bench) Head(scenes []scenario.Scenario) (summary.Summary, error) {
	return runner.Head(append([]string{"sluice"}, os.Args[1:]...), f.Baseline, scenes)
}

// Runner makes what carries out what the flags ask for.
func (f *Bench) Runner(stdout, stderr io.Writer) *runner.Runner {
	return &runner.Runner{
		Out: f.Out, Overwrite: f.Overwrite, Workers: f.Workers, Points: f.Points, Explain: f.Explain,
		Stdout: stdout, Stderr: stderr,
	}
}
