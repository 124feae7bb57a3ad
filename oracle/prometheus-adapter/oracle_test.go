// Package adapter_test is the oracle of adapter/rules: it runs prometheus-adapter v0.12.0's own
// packages (config, naming, custom-provider, external-provider, resourceprovider) with a fake
// Prometheus, and Sluice's beside them, on the shared cases and on random sets of rules, and
// demands the same names, queries, statuses, errors and values. Where they differ, the difference
// must be of a documented kind, and each kind must come up.
//
//	go test -v                            10,000 random sets of rules, the seed is printed
//	go test -v -short                     1,000
//	go test -v -args -seed 7 -sets 1e5    the same again, or more of it
package adapter_test

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-autoscaler/sluice/adapter/rules/config"
	"github.com/sluice-autoscaler/sluice/adapter/rules/mapping"
	"github.com/sluice-autoscaler/sluice/adapter/rules/naming"
	"github.com/sluice-autoscaler/sluice/adapter/rules/ruletest"
	"github.com/sluice-autoscaler/sluice/prom/promql"
)

var (
	seedFlag = flag.Uint64("seed", 0, "seed of the random sets, 0 draws one")
	setsFlag = flag.Float64("sets", 10_000, "random sets of rules to compare")
)

func resourcesOf(t *testing.T, c *ruletest.Case) []mapping.Resource {
	t.Helper()
	all := mapping.Kubernetes()
	for _, word := range c.ExtraResources {
		more, err := mapping.Custom(fmt.Sprint(word))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, more...)
	}
	return all
}

// TestCases compares on the shared cases, three ways: v0.12.0 answers what the file says, and
// Sluice differs from it as adapter/rules/ruletest/testdata/differences.yaml says.
func TestCases(t *testing.T) {
	name := os.Getenv("SLUICE_CASES")
	if name == "" {
		name = "../../../shared/cases"
	}
	text, err := os.ReadFile(name + "/prometheus_adapter_rules.yaml")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("no cases at %s: say where they are by SLUICE_CASES", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	file, _, err := ruletest.Read(text)
	if err != nil {
		t.Fatal(err)
	}
	for i := range file.Cases {
		c := &file.Cases[i]
		out := theirs(t, c, resourcesOf(t, c))
		ruletest.Compare(c, out)
		if len(out.Differences) > 0 {
			t.Errorf("v0.12.0 does not answer %s as the file says:\n%s", c.ID, ruletest.Diff(out, c))
		}
		ours, err := ruletest.Run(c)
		if err != nil {
			t.Fatal(err)
		}
		p := pair{t: t, c: c, theirs: out, ours: ours, seen: map[string]int{}}
		p.reduce(t)
		p.compare()
		if c.Wrong == "" && len(p.seen) > 0 {
			t.Errorf("%s: Sluice differs (%v), and nothing is said to be wrong with v0.12.0", c.ID, p.seen)
		}
	}
}

// TestRandom compares on random sets of rules.
func TestRandom(t *testing.T) {
	seed, sets := *seedFlag, int(*setsFlag)
	if seed == 0 {
		seed = rand.Uint64()
	}
	if testing.Short() {
		sets = min(sets, 1000)
	}
	t.Logf("seed %d, %d sets of rules", seed, sets)
	rng := rand.New(rand.NewPCG(seed, 0x52))
	seen := map[string]int{}
	promql, values, started := 0, 0, 0
	for i := range sets {
		c := randomCase(rng, i)
		first, err := ruletest.Run(c)
		if err != nil {
			t.Fatalf("%v\n%s", err, c.Config)
		}
		c.Requests = randomRequests(rng, first.CustomMetrics, first.ExternalMetrics, strings.Contains(c.Config, "resourceRules"))
		if first, err = ruletest.Run(c); err != nil {
			t.Fatalf("%v\n%s", err, c.Config)
		}
		randomAnswers(rng, c.Requests, first)
		ours, err := ruletest.Run(c)
		if err != nil {
			t.Fatalf("%v\n%s", err, c.Config)
		}
		p := pair{t: t, c: c, theirs: theirs(t, c, resourcesOf(t, c)), ours: ours, seen: seen}
		p.reduce(t)
		p.compare()
		if ours.Startup == "ok" {
			started++
		}
		for _, r := range ours.Requests {
			promql += len(r.PromQL)
			values += len(r.Values)
		}
		if t.Failed() {
			t.Fatalf("seed %d, set %d:\n%s\nseries %q", seed, i, c.Config, c.Series)
		}
	}
	t.Logf("%d sets started, %d queries and %d values; differences by kind: %v", started, promql, values, seen)
	if sets < 10_000 {
		return
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		if seen[kind] == 0 {
			t.Errorf("the documented difference %q did not come up", kind)
		}
	}
}

// TestKindsAreDocumented demands that docs/from-prometheus-adapter.md has a section for each kind.
func TestKindsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/from-prometheus-adapter.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]bool{}
	drop := regexp.MustCompile(`[^a-z0-9 -]`)
	for line := range strings.SplitSeq(string(text), "\n") {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			sections[strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(title), ""), " ", "-")] = true
		}
	}
	for kind, anchor := range kinds {
		if !sections[anchor] {
			t.Errorf("the kind %q has no section %q", kind, anchor)
		}
	}
}

// TestMutantsAreCaught alters one side and demands that the comparison notices.
func TestMutantsAreCaught(t *testing.T) {
	c := &ruletest.Case{
		Config: `
rules:
- seriesQuery: 'http_requests_total{namespace!=""}'
  resources: {template: "<<.Resource>>"}
  name: {matches: "^(.*)_total$"}
  metricsQuery: 'sum(rate(<<.Series>>{<<.LabelMatchers>>}[5m])) by (<<.GroupBy>>)'
`,
		Series: []string{`http_requests_total{namespace="shop",pod="web-1"}`},
		Requests: []ruletest.Request{
			{API: "custom", Resource: "pods", Namespace: "shop", Name: "web-1", Metric: "http_requests", Answer: []ruletest.Sample{{Labels: map[string]string{"pod": "web-1"}, Value: "2"}}},
			{API: "custom", Resource: "pods", Namespace: "shop", Name: "web-1", Metric: "none"},
		},
	}
	for name, mutate := range map[string]func(*ruletest.Outcome){
		"startup": func(o *ruletest.Outcome) { o.Startup = "fails: x" },
		"metrics": func(o *ruletest.Outcome) { o.CustomMetrics = o.CustomMetrics[1:] },
		"more":    func(o *ruletest.Outcome) { o.ExternalMetrics = append(o.ExternalMetrics, "x") },
		"promql":  func(o *ruletest.Outcome) { o.Requests[0].PromQL[0] += " " },
		"status":  func(o *ruletest.Outcome) { o.Requests[0].Status = 503 },
		"value":   func(o *ruletest.Outcome) { o.Requests[0].Values[0] += "m" },
		"error":   func(o *ruletest.Outcome) { o.Requests[1].Error += "." },
	} {
		ours, err := ruletest.Run(c)
		if err != nil {
			t.Fatal(err)
		}
		mutate(ours)
		quiet := &recorder{}
		p := pair{t: quiet, c: c, theirs: theirs(t, c, mapping.Kubernetes()), ours: ours, seen: map[string]int{}}
		p.compare()
		if !quiet.failed {
			t.Errorf("a changed %s was not noticed", name)
		}
	}
}

// reduce runs v0.12.0 again without the rules that wait for a resource, or whose selector
// Prometheus refuses: they stop v0.12.0, and harm no other rule of Sluice's.
func (p *pair) reduce(t *testing.T) {
	t.Helper()
	text := p.c.Config
	p.again = func(q *ruletest.Request) ruletest.RequestOutcome {
		c := *p.c
		c.Config, c.Requests = text, []ruletest.Request{*q}
		return theirs(t, &c, resourcesOf(t, p.c)).Requests[0]
	}
	if p.ours.Startup != "ok" {
		return
	}
	cfg, err := config.Parse([]byte(p.c.Config))
	if err != nil {
		return
	}
	mapper := mapping.New(resourcesOf(t, p.c))
	without := func(all []config.DiscoveryRule) []config.DiscoveryRule {
		return slices.DeleteFunc(all, func(r config.DiscoveryRule) bool {
			_, waits, err := naming.NewLabels(r.Resources, mapper)
			_, refused := promql.ParseSelector(r.SeriesQuery)
			switch {
			case err != nil:
				return false
			case waits != nil:
				p.reason = "waits"
			case refused != nil:
				p.reason = "selector"
			}
			return waits != nil || refused != nil
		})
	}
	cfg.Rules, cfg.ExternalRules = without(cfg.Rules), without(cfg.ExternalRules)
	if p.reason == "" {
		return
	}
	written, err := config.Write(cfg)
	if err != nil {
		t.Fatal(err)
	}
	text = string(written)
	reduced := *p.c
	reduced.Config = text
	p.reduced = theirs(t, &reduced, resourcesOf(t, p.c))
}

// recorder notes failures.
type recorder struct{ failed bool }

func (r *recorder) Errorf(string, ...any) { r.failed = true }
func (r *recorder) Helper()               {}
