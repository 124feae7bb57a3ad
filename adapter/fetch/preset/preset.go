// Package preset makes queries for the requests of a workload, of templates by what measures them:
// a mesh, an ingress, or the app itself. The templates are data, in presets.yaml. It is pure.
package preset

import (
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v2"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/prom"
	"github.com/sluice-autoscaler/sluice/prom/promql"
)

// Annotations of a workload or of its namespace. The workload's come first.
const (
	// Annotation names the preset.
	Annotation = "sluice.dev/prometheus-preset"
	// MetricAnnotation names the metric of a preset with a parameter.
	MetricAnnotation = "sluice.dev/prometheus-metric"
)

// Duration is the signal of the mean time that a request took, in seconds.
const Duration = "duration"

// Preset is how the requests of a workload are asked for.
type Preset struct {
	Name string `yaml:"name"`
	// About says what is counted, for people.
	About string `yaml:"about,omitempty"`
	// Source names the Prometheus to ask, "" is the first.
	Source string `yaml:"source,omitempty"`
	// Parameter says that the workload names a metric.
	Parameter bool `yaml:"parameter,omitempty"`
	// Window is what {step} stands for, 10s–1h. A longer one is calmer and later; a shorter one
	// than two scrapes finds nothing.
	Window model.Duration `yaml:"window"`
	// MaxAge makes an older sample unknown, 1s–1h; 0 means 2m.
	MaxAge model.Duration `yaml:"maxAge,omitempty"`
	// Signals are the queries by signal.
	Signals map[string]prom.Template `yaml:"signals"`
}

//go:embed presets.yaml
var builtin []byte

// maxPresets bounds the presets.
const maxPresets = 100

// Builtin returns the presets that are part of Sluice.
func Builtin() ([]Preset, error) {
	var all []Preset
	if err := yaml.UnmarshalStrict(builtin, &all); err != nil {
		return nil, fmt.Errorf("read the built-in presets: %w", err)
	}
	return all, nil
}

// names of signals that a preset may have.
func signals() []string {
	return []string{algorithms.Concurrency, algorithms.Rate, Duration}
}

// Set has presets by name. It does not change.
type Set struct{ of map[string]*Preset }

// New makes a Set of the built-in presets and of more, which replace those of their names. The
// error names every fault.
func New(more []Preset) (*Set, error) {
	all, err := Builtin()
	if err != nil {
		return nil, err
	}
	s := &Set{of: map[string]*Preset{}}
	var errs []error
	if len(more) > maxPresets {
		errs = append(errs, fmt.Errorf("presets has %d entries: want at most %d", len(more), maxPresets))
	}
	for i := range all {
		s.of[all[i].Name] = &all[i]
	}
	seen := map[string]bool{}
	for i := range more {
		p := &more[i]
		if seen[p.Name] {
			errs = append(errs, fmt.Errorf("presets[%d].name = %q: want a name of its own", i, p.Name))
		}
		seen[p.Name] = true
		if err := p.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("presets[%d]: %w", i, err))
		}
		s.of[p.Name] = p
	}
	return s, errors.Join(errs...)
}

// Validate names every fault: field, value and remedy.
func (p *Preset) Validate() error {
	var errs []error
	if p.Name == "" || strings.ContainsAny(p.Name, " \t\n") {
		errs = append(errs, fmt.Errorf("name = %q: want a word", p.Name))
	}
	if w := time.Duration(p.Window); w < 10*time.Second || w > time.Hour {
		errs = append(errs, fmt.Errorf("window = %v: want 10s–1h", w))
	}
	if a := time.Duration(p.MaxAge); a != 0 && (a < time.Second || a > time.Hour) {
		errs = append(errs, fmt.Errorf("maxAge = %v: want 1s–1h", a))
	}
	if len(p.Signals) == 0 {
		errs = append(errs, fmt.Errorf("signals is empty: want PromQL for some of %s", strings.Join(signals(), ", ")))
	}
	for _, name := range slices.Sorted(maps.Keys(p.Signals)) {
		if !slices.Contains(signals(), name) {
			errs = append(errs, fmt.Errorf("signals.%s: want one of %s", name, strings.Join(signals(), ", ")))
			continue
		}
		if err := p.check(name); err != nil {
			errs = append(errs, fmt.Errorf("signals.%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// probe is the namespace by which check finds where a template puts it.
const probe = "sluice-probe-namespace"

// check refuses a template of which a selector could read another namespace.
func (p *Preset) check(name string) error {
	c := Choice{p, prom.Workload{Namespace: probe, Kind: "Deployment", Name: "web", Metric: "metric", Services: []string{"web"}}}
	q, err := c.Query(name)
	if err != nil {
		return err
	}
	for _, s := range q.Parsed.Selectors() {
		if !slices.ContainsFunc(s.Matchers(), func(m promql.Matcher) bool { return m.Operator == "=" && m.Value == probe }) {
			return fmt.Errorf(`a selector has no condition such as namespace="{namespace}": want one in each, so that it reads the workload's namespace alone`)
		}
	}
	return nil
}

// Find finds a preset by its name.
func (s *Set) Find(name string) (*Preset, error) {
	if p := s.of[name]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%s = %q: want one of %s", Annotation, name, strings.Join(slices.Sorted(maps.Keys(s.of)), ", "))
}

// Choice is a preset for a workload.
type Choice struct {
	*Preset
	prom.Workload
}

// Choose reads the annotations of a workload, or else of its namespace; nil without any.
func (s *Set) Choose(w prom.Workload, workload, namespace map[string]string) (*Choice, error) {
	from := workload
	if from[Annotation] == "" {
		from = namespace
	}
	name := from[Annotation]
	if name == "" {
		return nil, nil //nolint:nilnil // no preset is no fault
	}
	p, err := s.Find(name)
	if err != nil {
		return nil, err
	}
	c := &Choice{p, w}
	if c.Metric = workload[MetricAnnotation]; c.Metric == "" {
		c.Metric = namespace[MetricAnnotation]
	}
	switch {
	case p.Parameter && !model.LegacyValidation.IsValidMetricName(c.Metric):
		return nil, fmt.Errorf("%s = %q: want the name of a metric for the preset %s, without _sum and _count", MetricAnnotation, c.Metric, name)
	case !p.Parameter && workload[MetricAnnotation] != "":
		return nil, fmt.Errorf("%s = %q: the preset %s takes none; want it left out", MetricAnnotation, workload[MetricAnnotation], name)
	case !p.Parameter:
		c.Metric = ""
	}
	return c, nil
}

// Query is a query of a preset.
type Query struct {
	PromQL string
	Parsed *promql.Query
}

// errNoService is why a query cannot be made.
var errNoService = errors.New("the preset asks by Service, and none selects the pods of the workload")

// Query makes the query for a signal. The error says that there is none.
func (c *Choice) Query(signal string) (Query, error) {
	t, ok := c.Signals[signal]
	if !ok {
		return Query{}, fmt.Errorf("the preset %s has no signal %s: it has %s", c.Preset.Name, signal, strings.Join(slices.Sorted(maps.Keys(c.Signals)), ", "))
	}
	if strings.Contains(string(t), "{services}") && len(c.Services) == 0 {
		return Query{}, errNoService
	}
	text, err := t.Expand(c.Workload, time.Duration(c.Window))
	if err != nil {
		return Query{}, err
	}
	text = strings.TrimSpace(text)
	parsed, err := promql.Parse(text)
	if err != nil {
		return Query{}, fmt.Errorf("the query is no PromQL: %w", err)
	}
	return Query{PromQL: text, Parsed: parsed}, nil
}
