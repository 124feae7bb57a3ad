package catalog_test

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/cel"
	"github.com/sluice-autoscaler/sluice/algorithms/fixed"
	"github.com/sluice-autoscaler/sluice/algorithms/histogram"
	"github.com/sluice-autoscaler/sluice/algorithms/hpa"
	"github.com/sluice-autoscaler/sluice/algorithms/keda"
	"github.com/sluice-autoscaler/sluice/algorithms/kpa"
	"github.com/sluice-autoscaler/sluice/algorithms/lookahead"
	"github.com/sluice-autoscaler/sluice/algorithms/pid"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
	"github.com/sluice-autoscaler/sluice/algorithms/portfolio"
	"github.com/sluice-autoscaler/sluice/algorithms/schedule"
	"github.com/sluice-autoscaler/sluice/algorithms/seasonal"
	"github.com/sluice-autoscaler/sluice/algorithms/staffing"
	"github.com/sluice-autoscaler/sluice/algorithms/step"
	"github.com/sluice-autoscaler/sluice/algorithms/target"
)

// configs are the Configs of the policies with their defaults.
func configs() map[string]any {
	return map[string]any{
		"aws": target.AWS(), "cel": cel.Default(), "fixed": fixed.Default(), "hpa": hpa.Default(), "keda": keda.Default(), "kpa": kpa.Default(), "pid": pid.Default(),
		"histogram": histogram.Default(), "lookahead": lookahead.Default(), "portfolio": portfolio.Default(), "seasonal": seasonal.Default(),
		"schedule": schedule.Default(), "staffing": staffing.Default(), "step": step.Default(), "target": target.Default(),
	}
}

// Every policy documents exactly the parameters that it reads.
func TestParametersAreDocumented(t *testing.T) {
	t.Parallel()
	known := configs()
	for _, e := range catalog.Default().All() {
		var documented []string
		for _, p := range e.Parameters {
			if p.Range == "" || p.Default == "" || p.Meaning == "" {
				t.Errorf("%s: parameter %s lacks range, default or meaning", e.Name, p.Name)
			}
			documented = append(documented, p.Name)
		}
		c, ok := known[e.Name]
		if !ok {
			t.Errorf("%s is not in this test", e.Name)
			continue
		}
		delete(known, e.Name)
		read := fields(c)
		slices.Sort(documented)
		slices.Sort(read)
		if diff := cmp.Diff(read, documented); diff != "" {
			t.Errorf("%s: read (−) and documented (+) parameters differ:\n%s", e.Name, diff)
		}
	}
	if len(known) > 0 {
		t.Errorf("not in the catalog: %v", known)
	}
}

// Every policy works with its defaults, and the target reaches those that have one.
func TestDefaults(t *testing.T) {
	t.Parallel()
	for _, e := range catalog.Default().All() {
		mk := func() (algorithms.Policy, error) { return catalog.Default().New(e.Name, 0, nil) }
		if _, err := mk(); err != nil {
			t.Errorf("%s: %v", e.Name, err)
			continue
		}
		if e.Name == "kpa" {
			continue // it leaves the upper limit to guard; their own tests say what they keep to
		}
		policytest.Check(t, 91, 3, mk)
	}
	for _, name := range []string{"cel", "histogram", "hpa", "kpa", "seasonal", "target"} {
		p, err := catalog.Default().New(name, 5, nil)
		if err != nil {
			t.Fatal(err)
		}
		o := algorithms.Observation{Now: policytest.Epoch(), Limits: algorithms.Limits{Max: 100}, Replicas: algorithms.Replicas{Current: 1, Ready: 1}}
		for _, n := range p.Needs() {
			o.Signals = append(o.Signals, algorithms.Signal{Name: n.Name, Window: n.Window, Value: 20, Known: true, Coverage: 1})
		}
		if d := p.Decide(o); d.Replicas != 4 {
			t.Errorf("%s at target 5 with a load of 20 answers %+v, want 4", name, d)
		}
	}
}

// Every policy that can learn says what.
func TestLearners(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, params string
		want         []string
	}{
		{"histogram", ``, []string{algorithms.Concurrency}},
		{"lookahead", ``, []string{algorithms.Concurrency}},
		{"lookahead", `{"seasonal": false}`, []string{algorithms.Concurrency}},
		{"seasonal", `{"signal": "rate"}`, []string{algorithms.Rate}},
		{"portfolio", `{"experts": [{"name": "kpa"}, {"name": "seasonal", "parameters": {"signal": "rate"}}, {"name": "lookahead"}, {"name": "histogram"}]}`, []string{algorithms.Rate, algorithms.Concurrency}},
		{"portfolio", `{"experts": [{"name": "kpa"}, {"name": "target"}]}`, nil},
	} {
		p, err := catalog.Default().New(c.name, 5, json.RawMessage(c.params))
		if err != nil {
			t.Fatal(err)
		}
		l, ok := p.(algorithms.Learner)
		if !ok {
			t.Errorf("%s %s is no Learner", c.name, c.params)
			continue
		}
		if diff := cmp.Diff(c.want, l.Learns()); diff != "" {
			t.Errorf("%s %s learns (−want +got):\n%s", c.name, c.params, diff)
		}
	}
	for _, e := range catalog.Default().All() {
		p, err := catalog.Default().New(e.Name, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, has := reflect.TypeOf(p).MethodByName("Learn")
		if _, ok := p.(algorithms.Learner); has != ok {
			t.Errorf("%s has a method Learn: %v, and is a Learner: %v", e.Name, has, ok)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	extra := catalog.Entry{Name: "mine", New: func(float64, json.RawMessage) (algorithms.Policy, error) { return fixed.New(fixed.Default()) }}
	if _, err := catalog.Default(extra).New("mine", 0, nil); err != nil {
		t.Errorf("an extra entry: %v", err)
	}
	for _, c := range []struct{ name, params, want string }{
		{"nope", ``, `policy "nope": unknown; known are aws, cel, fixed, histogram, hpa, keda, kpa, lookahead, pid, portfolio, schedule, seasonal, staffing, step, target`},
		{"fixed", `{"replica": 1}`, `policy fixed: unknown parameter "replica" (parameters: replicas)`},
		{"fixed", `{"replicas": "1"}`, `replicas = string: want a whole number`},
		{"target", `{"window": 30, "disableScaleIn": "no"}`, `disableScaleIn = string: want true or false
window: duration 30: want a string with a unit`},
		{"target", `{"tolerance": -1, "target": -1}`, `target = -1: want`},
		{"step", `{"scaleOut": {"stepAdjustments": {}}}`, `scaleOut.stepAdjustments = object: want a list`},
		{"keda", `[]`, `want an object`},
		{"keda", `{"triggers": [{"signal": "q", "threshold": 1}], "advanced": {"scalingModifiers": {"formula": "q +", "target": 1}}}`, `formula: ERROR`},
	} {
		p, err := catalog.Default().New(c.name, 0, json.RawMessage(c.params))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("New(%s, %s) = %v, want an error with %q", c.name, c.params, err, c.want)
		}
		if p != nil {
			t.Errorf("New(%s, %s) gives a policy beside its error", c.name, c.params)
		}
	}
}

func TestExtraEntries(t *testing.T) {
	t.Parallel()
	var got []string
	named := func(name, summary string, err error) catalog.Entry {
		return catalog.Entry{Name: name, Summary: summary, New: func(float64, json.RawMessage) (algorithms.Policy, error) { return nil, err }}
	}
	c := catalog.Default(named("kpa", "another", nil), named("zzz", "first", nil), named("zzz", "last", catalog.Temporary(os.ErrNotExist)))
	for _, e := range c.All() {
		got = append(got, e.Name)
	}
	if !slices.IsSorted(got) || len(got) != len(catalog.Default().All())+1 {
		t.Errorf("All lists %v, want each name once, sorted", got)
	}
	for name, want := range map[string]string{"kpa": "another", "zzz": "last"} {
		if e, err := c.Find(name); err != nil || e.Summary != want {
			t.Errorf("Find(%s) = %q, %v, want the last entry of that name, %q", name, e.Summary, err, want)
		}
	}
	if _, err := c.New("zzz", 0, nil); !errors.Is(err, catalog.ErrTemporary) || !errors.Is(err, os.ErrNotExist) || err.Error() != "policy zzz: file does not exist" {
		t.Errorf("New = %v, want the entry's error with its text, and temporary", err)
	}
	if catalog.Temporary(nil) != nil {
		t.Error("Temporary(nil) is an error")
	}
	if _, err := (catalog.Catalog{}).New("kpa", 0, nil); err == nil {
		t.Error("the zero Catalog makes a policy")
	}
}

// Fewer than no requests are unknown to every policy that reads them, but to keda, as in KEDA.
func TestFewerThanNoRequests(t *testing.T) {
	t.Parallel()
	for _, e := range catalog.Default().All() {
		if e.Name == "cel" || e.Name == "fixed" || e.Name == "schedule" {
			continue // they read none by default
		}
		p, err := catalog.Default().New(e.Name, 5, nil)
		if err != nil {
			t.Fatal(err)
		}
		o := algorithms.Observation{Now: policytest.Epoch(), Limits: algorithms.Limits{Min: 0, Max: 100}, Replicas: algorithms.Replicas{Current: 3, Ready: 3}}
		for _, n := range p.Needs() {
			o.Signals = append(o.Signals, algorithms.Signal{Name: n.Name, Window: n.Window, Value: -30, Known: true, Coverage: 1})
		}
		if d := p.Decide(o); d.Valid != (e.Name == "keda") {
			t.Errorf("%s takes -30 requests for %d pods, valid %t (%s)", e.Name, d.Replicas, d.Valid, d.Reason)
		}
	}
}
