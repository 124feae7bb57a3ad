package tune

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/summary"
)

// Tuning is a search, and its outcome: the setting that was found on the first part of a load,
// judged on the rest.
type Tuning struct {
	Config Config
	Bench  *Bench
	// Policy is the one as it was given.
	Policy plan.Policy
	// Train is the share of the time that is searched on.
	Train float64
	// Notes are sentences that a reader must know.
	Notes []string
	// Found is set before Judge.
	Found Result

	// heldDefault and heldBest are the held-back scores of the policy as given and as tuned.
	heldDefault, heldBest []score.Result
}

// Describe says how far the search is: what was spent of the budget, and the best setting so far,
// if there is one.
func (t *Tuning) Describe(spent float64, best *Trial) string {
	line := fmt.Sprintf("%.0f of %d runs", spent, t.Config.Budget)
	if best != nil {
		objective := t.Config.Objective.Name
		line += fmt.Sprintf(", the best so far has %s %s: %s", objective, format(objective, []float64{best.Objective}), best.Policy.Label)
	}
	return line
}

// Keep runs jobs, and keeps their records if that was asked for. Results are in the order of the
// jobs.
type Keep func(ctx context.Context, head summary.Summary, jobs []plan.Job) (summary.Summary, error)

// Judge runs the best setting and the given one on what was held back. Without a held-back part it
// runs them on all of the load, for the records alone, if records says that there are any. A search
// that was interrupted is not judged.
func (t *Tuning) Judge(ctx context.Context, head summary.Summary, records bool, keep Keep) error {
	if interrupted(ctx) { // the search's own error says so
		return nil
	}
	jobs := func(p plan.Policy) ([]plan.Job, error) {
		switch {
		case t.Train < 1:
			return t.Bench.HeldBack(p), nil
		case records:
			return t.Bench.Train(p)
		}
		return nil, nil
	}
	all, err := jobs(t.Policy)
	if err != nil {
		return err
	}
	if tuned := t.Found.Best; tuned.Values != nil {
		more, err := jobs(tuned.Policy)
		if err != nil {
			return err
		}
		all = append(all, more...)
	}
	head.Baseline = t.Policy.Label
	head.Notes = append(head.Notes, t.Notes...)
	if t.Train < 1 {
		head.Notes = append(head.Notes, fmt.Sprintf("Runs are of the last %.0f %% of the time, which was held back from the search; what came before warmed the policies up.", 100*(1-t.Train)))
	}
	summary, err := keep(ctx, head, all)
	if t.Train == 1 || err != nil {
		return err
	}
	results := summary.Results
	t.heldDefault, t.heldBest = results[:len(results)/2], results[len(results)/2:]
	if t.Found.Best.Values == nil {
		t.heldDefault, t.heldBest = results, results
	}
	return nil
}

func interrupted(ctx context.Context) bool { return ctx.Err() != nil }

// broken names the limits that results break.
func (t *Tuning) broken(results []score.Result) []string {
	var out []string
	for _, l := range t.Config.Limits {
		if l.Metric.Worst(results) > l.Most {
			out = append(out, l.Metric.Name)
		}
	}
	return out
}

const (
	// fades is the share of what tuning gained on the first part that may be missing on the rest
	// before it is called overfitted.
	fades = 0.5
	// gain is the share of the objective from which on tuning is said to have gained anything.
	gain = 0.02
)

// warnings are what a user must know before pasting.
func (t *Tuning) warnings() []string {
	var out []string
	r := &t.Found
	if !r.Best.Feasible() {
		out = append(out, fmt.Sprintf("no setting keeps the limits (%s); this one breaks them least. Widen the ranges, or allow more.", strings.Join(t.broken(r.Best.Results), ", ")))
	}
	for _, e := range r.Edges {
		out = append(out, e+": a wider range may hold better ones.")
	}
	if t.Train == 1 {
		out = append(out, "nothing was held back (--train 1), so these are scores with hindsight.")
		return out
	}
	if t.heldBest == nil {
		out = append(out, "the held-back part was not reached, so these are scores with hindsight.")
		return out
	}
	if broken := t.broken(t.heldBest); len(broken) > 0 && r.Best.Feasible() {
		for _, l := range t.Config.Limits {
			if slices.Contains(broken, l.Metric.Name) {
				out = append(out, fmt.Sprintf("overfitted, or the load has changed: on the held-back part %s is %s, above the limit of %s.",
					l.Metric.Name, format(l.Metric.Name, []float64{l.Metric.Worst(t.heldBest)}), format(l.Metric.Name, []float64{l.Most})))
			}
		}
	}
	if r.Best.Values == nil {
		return out
	}
	onTrain := r.Best.Objective / r.Default.Objective
	onRest := t.Config.Objective.Value(t.heldBest) / t.Config.Objective.Value(t.heldDefault)
	if onTrain < 1-gain && onRest > 1-(1-onTrain)*fades {
		out = append(out, fmt.Sprintf("overfitted, or the load has changed: %s is %.2f of the given setting's on the first part, and %.2f on the held-back one.",
			t.Config.Objective.Name, onTrain, onRest))
	}
	return out
}

// Record is json.
type Record struct {
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
	Default   Trial                 `json:"default"`
	Top       []Trial               `json:"top"`
	HeldBack  map[string]heldScores `json:"heldBack,omitempty"`
	Warnings  []string              `json:"warnings"`
}

type heldScores struct {
	Policy  plan.Policy    `json:"policy"`
	Results []score.Result `json:"results"`
}

// Save writes json.
func (t *Tuning) Save(name string, head summary.Summary) error {
	r := Record{
		Sluice: head.Sluice, Commit: head.Commit, Command: head.Command, Objective: t.Config.Objective.Name, Search: t.Config.Space.Dimensions(), Train: t.Train,
		Budget: t.Config.Budget, Seed: t.Config.Seed, Evaluated: t.Found.Evaluated, Spent: t.Found.Spent, Default: t.Found.Default, Top: t.Found.Top, Warnings: t.warnings(),
	}
	for _, l := range t.Config.Limits {
		r.Limits = append(r.Limits, l.String())
	}
	if t.heldBest != nil {
		r.HeldBack = map[string]heldScores{"asGiven": {t.Policy, t.heldDefault}, "tuned": {t.Found.Best.Policy, t.heldBest}}
	}
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return os.WriteFile(name, append(raw, '\n'), 0o644)
}

// specYAML is the policy as YAML for an Autoscaler's spec. Parameters of the guard are fields of
// the spec.
func specYAML(p plan.Policy) (string, error) {
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
