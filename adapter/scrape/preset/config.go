// Package preset says how pods are read that have no sidecar of Sluice: where their exposition is,
// and which of its samples give which signal. Presets are data; docs/presets.md has the format. The
// built-in ones are in builtin.yaml.
//
// It is pure but for the files that it loads: an exposition goes in as bytes and an instant, values
// and readings of window.Series come out.
package preset

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

//go:embed builtin.yaml
var builtin []byte

// Annotations of pods: which preset reads it, "" for none, and where in place of the preset's port
// and path.
const (
	Annotation     = "sluice.dev/preset"
	PortAnnotation = "sluice.dev/preset-port"
	PathAnnotation = "sluice.dev/preset-path"
)

// Bounds of what a file may hold.
const (
	maxFile         = 1 << 20 // bytes
	maxPresets      = 256
	maxSignals      = 16 // of a preset
	maxAlternatives = 8
	maxText         = 4096 // bytes of an expression
	maxPodReadyAge  = 24 * time.Hour
)

// File is a file of presets.
type File struct {
	Presets []Preset `json:"presets"`
}

// Preset is how one kind of pod is read. A Set has checked and compiled it.
type Preset struct {
	// Name is what the annotation sluice.dev/preset says.
	Name string `json:"name"`
	// Selector chooses pods by their labels, beside those that have the annotation; "" chooses
	// none.
	Selector string `json:"selector,omitempty"`
	// Port is where the exposition is: the name of a container port or a number, or several, of
	// which the first counts that the pod has. A number always counts.
	Port Strings `json:"port"`
	// Path is the exposition's path; /metrics by default.
	Path string `json:"path,omitempty"`
	// Scheme is http or https; http by default. Certificates are not verified, as the kubelet's
	// probes do not.
	Scheme string `json:"scheme,omitempty"`
	// MinPodReadyAge is how long a pod must have been ready to count, 0s–24h; higher leaves out
	// longer what a pod says while it warms up, and is later by that.
	MinPodReadyAge algorithms.Duration `json:"minPodReadyAge,omitempty"`
	// Signals are what is read, by name.
	Signals map[string]*Signal `json:"signals"`

	selector labels.Selector // nil chooses none
	json     bool
	wanted   map[string]bool // names of samples and, for protobuf, of families
}

// Signal is one value that is read. Exactly one of Gauge, Counter, Integral and Durations is given.
type Signal struct {
	// Gauge is the value itself: what is between two reads is not seen.
	Gauge Strings `json:"gauge,omitempty"`
	// Counter is a count, whose increase in a second is the value; Per, if given, divides that by
	// the increase of another one.
	Counter Strings `json:"counter,omitempty"`
	Per     Strings `json:"per,omitempty"`
	// Integral is a counter of value × seconds: its increase in a second is the exact mean.
	Integral Strings `json:"integral,omitempty"`
	// Durations is the sum of the durations of what has ended, in seconds. By Little's law its
	// increase in a second is the mean of what was at work, told when it ends.
	Durations Strings `json:"durations,omitempty"`
	// ZeroIf are selectors: where a sample of one of them is there, what has no samples is zero.
	ZeroIf Strings `json:"zeroIf,omitempty"`
	// Over says what several values of a JSON path give: sum, avg, max or min.
	Over string `json:"over,omitempty"`

	kind               Kind
	value, per, zeroIf []evaluator
}

// Kind is how a signal is measured.
type Kind string

// The kinds of signals.
const (
	Gauge     Kind = "gauge"
	Counter   Kind = "counter"
	Integral  Kind = "integral"
	Durations Kind = "durations"
)

// Quality says in one word how good a signal of the kind is: sampled, counted, exact or late.
func (k Kind) Quality() string {
	switch k {
	case Gauge:
		return "sampled"
	case Integral:
		return "exact"
	case Durations:
		return "late"
	case Counter:
	}
	return "counted"
}

// Strings is one text, or a list of them.
type Strings []string

// UnmarshalJSON takes a text, a number or a list of them.
func (s *Strings) UnmarshalJSON(b []byte) error {
	list := []json.RawMessage{b}
	if bytes.HasPrefix(b, []byte{'['}) {
		if err := json.Unmarshal(b, &list); err != nil {
			return err
		}
	}
	out := make(Strings, len(list))
	for i, e := range list {
		var number json.Number
		if err := json.Unmarshal(e, &out[i]); err == nil && !bytes.Equal(e, []byte("null")) {
			continue
		}
		if err := json.Unmarshal(e, &number); err != nil || number == "" {
			return fmt.Errorf("%s: want a text, a number, or a list of them", e)
		}
		out[i] = number.String()
	}
	*s = out
	return nil
}

// Set is the presets by name. It is immutable.
type Set struct {
	byName map[string]*Preset
	// selecting are those with a selector, by name.
	selecting []*Preset
	signals   []string
}

// Builtin returns the built-in presets.
func Builtin() (*Set, error) { return New(nil) }

// Load returns the built-in presets and those of a file, whose names win.
func Load(path string) (*Set, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return New(text)
}

// New returns the built-in presets and those of a file's text, whose names win. The error joins
// every fault, each with field, value and remedy.
func New(text []byte) (*Set, error) {
	s := &Set{byName: map[string]*Preset{}}
	for _, t := range [][]byte{builtin, text} {
		f, err := parse(t)
		if err != nil {
			return nil, err
		}
		for i := range f.Presets {
			s.byName[f.Presets[i].Name] = &f.Presets[i]
		}
	}
	names := map[string]bool{}
	for _, name := range s.Names() {
		p := s.byName[name]
		if p.selector != nil {
			s.selecting = append(s.selecting, p)
		}
		for signal := range p.Signals {
			names[signal] = true
		}
	}
	s.signals = slices.Sorted(maps.Keys(names))
	return s, nil
}

// Names lists the presets.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.byName)) }

// Signals lists the names of all presets' signals.
func (s *Set) Signals() []string { return s.signals }

// Get returns a preset, nil when there is none of that name.
func (s *Set) Get(name string) *Preset { return s.byName[name] }

// Selecting returns the first preset, by name, whose selector chooses a pod of these labels; nil
// for none.
func (s *Set) Selecting(pod map[string]string) *Preset {
	for _, p := range s.selecting {
		if p.selector.Matches(labels.Set(pod)) {
			return p
		}
	}
	return nil
}

// parse reads a file's text strictly and compiles what it holds.
func parse(text []byte) (*File, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("presets: the file has %d bytes: want at most %d", len(text), maxFile)
	}
	var f File
	asJSON, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, fmt.Errorf("presets: %w", err)
	}
	errs, err := kjson.UnmarshalStrict(asJSON, &f, kjson.DisallowUnknownFields, kjson.DisallowDuplicateFields)
	if err != nil {
		return nil, fmt.Errorf("presets: %w", err)
	}
	for i := range errs {
		errs[i] = fmt.Errorf("presets: %w: want a field of docs/presets.md", errs[i])
	}
	if len(f.Presets) > maxPresets {
		return nil, fmt.Errorf("presets has %d entries: want at most %d", len(f.Presets), maxPresets)
	}
	seen := map[string]int{}
	for i := range f.Presets {
		at := fmt.Sprintf("presets[%d]", i)
		p := &f.Presets[i]
		if first, ok := seen[p.Name]; ok {
			errs = append(errs, fmt.Errorf("%s.name = %q: presets[%d] has it too; want each once", at, p.Name, first))
		}
		seen[p.Name] = i
		errs = append(errs, p.compile(at))
	}
	return &f, errors.Join(errs...)
}

var (
	presetName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	signalName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)
	portName   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
)

// ValidPath says whether a path can be asked for.
func ValidPath(path string) bool {
	return strings.HasPrefix(path, "/") && len(path) <= 1024 &&
		!strings.ContainsFunc(path, func(c rune) bool { return c <= ' ' || c > '~' || c == '#' })
}

// PortNumber returns the number that a port is, 0 when it is a name.
func PortNumber(port string) int {
	n, err := strconv.Atoi(port)
	if err != nil || n < 1 || n > 65535 {
		return 0
	}
	return n
}

// compile checks a preset, whose place in the file is at, and makes it ready. It fills defaults in.
func (p *Preset) compile(at string) error {
	var errs []error
	fault := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s.%s", at, field+fmt.Sprintf(format, args...)))
	}
	if !presetName.MatchString(p.Name) {
		fault("name", " = %q: want lower-case letters, digits and -, at most 63", p.Name)
	}
	if p.Selector != "" {
		var err error
		if p.selector, err = labels.Parse(p.Selector); err != nil {
			fault("selector", " = %q: want a label selector, such as app=vllm: %v", p.Selector, err)
		}
	}
	if len(p.Port) == 0 {
		fault("port", " is missing: want the name of a container port or a number, or a list of them")
	}
	for _, port := range p.Port {
		if PortNumber(port) == 0 && (!portName.MatchString(port) || strings.Trim(port, "0123456789") == "") {
			fault("port", " = %q: want the name of a container port, or 1–65535", port)
		}
	}
	if p.Path == "" {
		p.Path = "/metrics"
	}
	if !ValidPath(p.Path) {
		fault("path", " = %q: want a path such as /metrics, at most 1024 printable characters", p.Path)
	}
	if p.Scheme == "" {
		p.Scheme = "http"
	}
	if p.Scheme != "http" && p.Scheme != "https" {
		fault("scheme", " = %q: want http or https", p.Scheme)
	}
	if d := time.Duration(p.MinPodReadyAge); d < 0 || d > maxPodReadyAge {
		fault("minPodReadyAge", " = %v: want 0s–24h", d)
	}
	if n := len(p.Signals); n == 0 || n > maxSignals {
		fault("signals", " has %d entries: want 1–%d, such as concurrency: {gauge: http_requests_in_flight}", n, maxSignals)
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, p.compileSignals(at+".signals"))...)
}

// compileSignals checks the signals and collects what is wanted of an exposition.
func (p *Preset) compileSignals(at string) error {
	var errs []error
	paths := 0
	p.wanted = map[string]bool{startTime: true}
	for _, name := range slices.Sorted(maps.Keys(p.Signals)) {
		here := at + "." + name
		switch {
		case !signalName.MatchString(name):
			errs = append(errs, fmt.Errorf("%s.%q: want a name of lower-case letters, digits, _ and -, at most 63", at, name))
			continue
		case name == algorithms.Waiting:
			errs = append(errs, fmt.Errorf("%s: waiting is what gateways hold; want another name, such as queue", here))
			continue
		case p.Signals[name] == nil:
			errs = append(errs, fmt.Errorf("%s is empty: want one of gauge, counter, integral, durations", here))
			continue
		}
		s := p.Signals[name]
		if err := s.compile(here); err != nil {
			errs = append(errs, err)
			continue
		}
		for _, e := range slices.Concat(s.value, s.per, s.zeroIf) {
			if _, ok := e.(jsonPath); ok {
				paths++
			}
			for _, n := range e.names() {
				p.want(n)
			}
		}
	}
	if p.json = paths > 0; p.json && len(p.wanted) > 1 {
		errs = append(errs, fmt.Errorf("%s has JSON paths and names of samples: want one of them, since a pod's answer is JSON or an exposition", at))
	}
	return errors.Join(errs...)
}

// want notes a sample's name, and those of families that may hold it in protobuf.
func (p *Preset) want(name string) {
	p.wanted[name] = true
	for _, suffix := range []string{"_sum", "_count", "_bucket"} {
		if family, ok := strings.CutSuffix(name, suffix); ok {
			p.wanted[family] = true
		}
	}
}

// compile checks a signal.
func (s *Signal) compile(at string) error {
	given := map[Kind]Strings{}
	for kind, texts := range map[Kind]Strings{Gauge: s.Gauge, Counter: s.Counter, Integral: s.Integral, Durations: s.Durations} {
		if len(texts) > 0 {
			given[kind], s.kind = texts, kind
		}
	}
	if len(given) != 1 {
		return fmt.Errorf("%s has %d of gauge, counter, integral, durations: want exactly one", at, len(given))
	}
	var errs []error
	if len(s.Per) > 0 && s.kind != Counter {
		errs = append(errs, fmt.Errorf("%s.per stands with %s: want it with counter alone", at, s.kind))
	}
	switch s.Over {
	case "", "sum", "avg", "max", "min":
	default:
		errs = append(errs, fmt.Errorf("%s.over = %q: want sum, avg, max or min", at, s.Over))
	}
	for _, f := range []struct {
		name string
		text Strings
		into *[]evaluator
	}{{string(s.kind), given[s.kind], &s.value}, {"per", s.Per, &s.per}, {"zeroIf", s.ZeroIf, &s.zeroIf}} {
		if len(f.text) > maxAlternatives {
			errs = append(errs, fmt.Errorf("%s.%s has %d entries: want at most %d", at, f.name, len(f.text), maxAlternatives))
			continue
		}
		for _, text := range f.text {
			e, err := newEvaluator(text, s.Over, s.kind == Gauge)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s.%s = %q: %w", at, f.name, text, err))
				continue
			}
			if _, isPath := e.(jsonPath); !isPath && s.Over != "" {
				errs = append(errs, fmt.Errorf("%s.over = %q: want it with a JSON path alone; max(…) and sum(…) do the same for samples", at, s.Over))
			}
			*f.into = append(*f.into, e)
		}
	}
	return errors.Join(errs...)
}
