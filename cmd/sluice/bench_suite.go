package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/report"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/suite"
)

const suiteLong = `The standard contest: policies, one configuration each, on every shared trace that suits and in four scenarios, against kpa, hpa
and keda as they come and tuned to each trace with hindsight, and against what one who knew the future would pay.

It writes a bench folder, and in it contest.md: trace by trace, losses first.`

func benchSuite() *cobra.Command {
	var f benchFlags
	var dir, kind string
	var earlier []string
	var subjects []string
	var budget int
	var bounds bool
	var only []string
	c := &cobra.Command{
		Use: "suite --traces DIR --out DIR", Short: "The standard contest of policies over the shared traces", Long: suiteLong, Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" || f.out == "" {
				return fmt.Errorf("--traces and --out are needed: %w", errUsage)
			}
			cfg, err := suiteConfig(dir, kind, subjects, only, f.scenarios)
			if err != nil {
				return fmt.Errorf("%w: %w", err, errUsage)
			}
			cfg.Seeds, cfg.Budget, cfg.Bounds, cfg.Workers, cfg.Points = f.seeds, budget, bounds, workers(f.workers), f.points
			notes, err := reuse(&f, &cfg, earlier)
			if err != nil {
				return err
			}
			return runSuite(cmd, &f, cfg, notes)
		},
	}
	fl := c.Flags()
	fl.StringVar(&dir, "traces", "", "`DIR` of the shared traces")
	fl.StringVar(&kind, "loads", "all", "dense, sparse or all")
	fl.StringArrayVar(&only, "only", nil, "only the loads of this trace `FILE`; repeatable")
	fl.StringArrayVar(&subjects, "policy", []string{recommended}, "a policy that is judged, `NAME[:key=value,…]`; repeatable")
	fl.StringArrayVar(&f.scenarios, "scenario", suite.Scenarios(), "a scenario by name or YAML `FILE`; repeatable")
	fl.IntVar(&f.seeds, "seeds", 2, "seeds that score each policy")
	fl.IntVar(&budget, "budget", 24, "whole evaluations to tune one classic on one load; 0 leaves tuning out")
	fl.BoolVar(&bounds, "bounds", true, "work out what one who knew the future would pay, and a policy that was told the rates of the load")
	fl.StringArrayVar(&earlier, "reuse", nil, "take what classics and the clairvoyant did from the contest in this `DIR`, not made again; repeatable")
	fl.StringVar(&f.out, "out", "", "the bench folder, `DIR`")
	fl.BoolVar(&f.overwrite, "overwrite", false, "replace the bench that is in --out")
	fl.IntVar(&f.workers, "workers", 0, "loads at once; 0 is one per core")
	fl.IntVar(&f.points, "points", 300, "most rows in the series of a run")
	return c
}

// recommended is the policy that Sluice recommends, with its one configuration for all loads: the last pod is left to it.
const recommended = `lookahead:label=lookahead,guard={"scaleToZero":{"after":"1s"}}`

func suiteConfig(dir, kind string, subjects, only, scenes []string) (suite.Config, error) {
	cfg := suite.Config{Traces: os.DirFS(dir)}
	var errs []error
	sparse, err := suite.Sparse(cfg.Traces)
	errs = append(errs, err)
	switch kind {
	case "dense":
		cfg.Loads = suite.Dense()
	case "sparse":
		cfg.Loads = sparse
	case "all":
		cfg.Loads = slices.Concat(suite.Dense(), sparse)
	default:
		errs = append(errs, fmt.Errorf("--loads = %q: want dense, sparse or all", kind))
	}
	if len(only) > 0 {
		cfg.Loads = slices.DeleteFunc(cfg.Loads, func(l suite.Load) bool { return !slices.Contains(only, l.File) })
		if len(cfg.Loads) == 0 {
			errs = append(errs, fmt.Errorf("--only %v: no load of the suite is of these files", only))
		}
	}
	for _, name := range scenes {
		s, err := readScenario(name, nil)
		if err != nil {
			errs = append(errs, fmt.Errorf("--scenario %s: %w", name, err))
		}
		cfg.Scenarios = append(cfg.Scenarios, s)
	}
	if cfg.Classics, err = suite.Classics(known()); err != nil {
		errs = append(errs, err)
	}
	for _, spec := range subjects {
		p, err := suite.Subject(known(), spec, cfg.Classics)
		errs = append(errs, err)
		cfg.Subjects = append(cfg.Subjects, p)
	}
	return cfg, errors.Join(errs...)
}

// reuse lets cfg know the runs of earlier contests, as far as they were in the same scenarios; notes tell of it.
func reuse(f *benchFlags, cfg *suite.Config, dirs []string) (notes []string, err error) {
	head, err := f.head(cfg.Scenarios)
	if err != nil {
		return nil, err
	}
	type key struct {
		policy, trace, scenario string
		seed                    uint64
	}
	type place struct {
		folder *report.Folder
		n      int
	}
	places := map[key]place{}
	for _, dir := range dirs {
		if filepath.Clean(dir) == filepath.Clean(f.out) {
			return nil, fmt.Errorf("--reuse = %q: want another folder than --out: %w", dir, errUsage)
		}
		folder, err := report.Open(dir)
		if err != nil {
			return nil, fmt.Errorf("--reuse: %w", err)
		}
		same := map[string]bool{}
		for i, mine := range head.Scenarios {
			if slices.ContainsFunc(folder.Summary.Scenarios, func(theirs json.RawMessage) bool { return bytes.Equal(compactJSON(mine), compactJSON(theirs)) }) {
				same[cfg.Scenarios[i].Name] = true
			}
		}
		if len(same) == 0 {
			return nil, fmt.Errorf("--reuse = %q: none of the scenarios is in it, or they were others then: leave it out", dir)
		}
		for i, r := range folder.Summary.Results {
			if same[r.Scenario] {
				places[key{r.Policy, r.Trace, r.Scenario, r.Seed}] = place{folder, i}
			}
		}
		notes = append(notes, fmt.Sprintf("Classics and the clairvoyant in %s are, where possible, from a contest of commit %s: %s",
			strings.Join(slices.Sorted(maps.Keys(same)), " and "), folder.Summary.Commit, strings.Join(folder.Summary.Command, " ")))
		for _, note := range folder.Summary.Notes {
			if strings.Contains(note, suite.Found) {
				notes = append(notes, note)
			}
		}
	}
	cfg.Known = func(policy, trace, scenario string, seed uint64) (score.Run, bool) {
		at, ok := places[key{policy, trace, scenario, seed}]
		if !ok {
			return score.Run{}, false
		}
		run, err := at.folder.Run(at.n)
		return run, err == nil // a broken record is made again
	}
	return notes, nil
}

func compactJSON(raw json.RawMessage) []byte {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return raw
	}
	return b.Bytes()
}

func runSuite(cmd *cobra.Command, f *benchFlags, cfg suite.Config, known []string) error {
	f.baseline = "kpa"
	head, err := f.head(cfg.Scenarios)
	if err != nil {
		return err
	}
	folder, err := report.Create(f.out, head, f.overwrite)
	if err != nil {
		return err
	}
	p := newProgress(cmd.ErrOrStderr(), len(cfg.Loads)*len(cfg.Scenarios))
	cfg.Share = p.share
	notes, simErr := suite.Run(cmd.Context(), cfg, func(n int, run score.Run) error { return folder.Put(n, run) })
	p.end()
	notes = append(known, notes...)
	if simErr != nil {
		notes = append(notes, "It ended early: "+simErr.Error())
	}
	summary, err := folder.Finish(notes...)
	if err != nil {
		return errors.Join(simErr, err)
	}
	written, err := report.Open(f.out)
	if err == nil {
		_, err = written.Render(report.RenderOptions{})
	}
	return errors.Join(simErr, err, contest(cmd, f.out, cfg, summary))
}

// contest writes and prints the verdicts on each policy that is judged.
func contest(cmd *cobra.Command, dir string, cfg suite.Config, s report.Summary) (err error) {
	file, err := os.Create(filepath.Join(dir, "contest.md"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	for _, p := range cfg.Subjects {
		for _, part := range contests(cfg, p) {
			rows := part.rows(s.Comparison)
			verdicts, standings := report.Judge(rows, part.contest), report.Standings(rows, part.contest)
			if len(verdicts) == 0 {
				continue
			}
			for _, w := range []interface{ Write([]byte) (int, error) }{file, cmd.OutOrStdout()} {
				fmt.Fprintf(w, "## %s\n\n", part.title)
				if err := report.StandingsTable(w, standings, part.contest); err != nil {
					return err
				}
				if err := report.Markdown(w, verdicts, part.contest); err != nil {
					return err
				}
				fmt.Fprintln(w)
			}
		}
	}
	return nil
}

// part is one table of a contest.
type part struct {
	title   string
	contest report.Contest
	traces  map[string]bool
	inside  bool
}

func (p *part) rows(all []report.Row) []report.Row {
	var out []report.Row
	for _, r := range all {
		if p.traces[r.Trace] == p.inside {
			out = append(out, r)
		}
	}
	return out
}

// contests are dense loads against the best classic, again for the policy that was told their rates, and sparse ones against kpa as it comes.
func contests(cfg suite.Config, p plan.Policy) []part {
	sparse := map[string]bool{}
	for _, l := range cfg.Loads {
		if l.Sparse {
			sparse[l.Name()] = true
		}
	}
	budget := 0.01
	if len(cfg.Scenarios) > 0 {
		budget = cfg.Scenarios[0].SLO.Share
	}
	bound := ""
	if cfg.Bounds {
		bound = suite.Bound
	}
	dense := func(subject string) part {
		return part{subject + " on loads that keep several pods busy", report.Contest{Subject: subject, Rivals: cfg.Rivals(), Bound: bound, Budget: budget}, sparse, false}
	}
	return []part{
		dense(p.Label),
		dense(p.Label + suite.Told),
		{p.Label + " on sparse loads, against kpa as it comes", report.Contest{Subject: p.Label, Rivals: []string{"kpa"}, Bound: bound, Budget: budget}, sparse, true},
	}
}
