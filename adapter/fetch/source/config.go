// Package source asks live Prometheis for what rules need: names of series and of labels, and the
// values of queries. What may be partial is an error.
package source

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v2"

	"github.com/sluice-autoscaler/sluice/adapter/fetch/preset"
	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
	"github.com/sluice-autoscaler/sluice/prom"
)

// Config says which Prometheis there are and how they are asked.
type Config struct {
	// Sources are asked by rules that name them; the first is asked by rules that name none.
	Sources []Prometheus `yaml:"sources"`
	// Interval is the time between two fetches of a query, 1s–5m. A shorter one gives fresher
	// values and asks more; 10 s is below the period of a HorizontalPodAutoscaler.
	Interval model.Duration `yaml:"interval"`
	// Relist is the time between two lists of names, 10s–1h. A shorter one finds new series sooner.
	Relist model.Duration `yaml:"relist"`
	// Lookback is how far back a series may have had its last sample to be listed, 1m–24h. A longer
	// one keeps the metrics of jobs that run rarely.
	Lookback model.Duration `yaml:"lookback"`
	// KeepNames is how long names are kept when they cannot be listed, 0s–24h.
	KeepNames model.Duration `yaml:"keepNames"`
	// KeepQueries is how long a query is repeated that nobody asks for, 15s–1h. A longer one has
	// answers ready for rare callers and asks Prometheus more.
	KeepQueries model.Duration `yaml:"keepQueries"`
	// Presets are added to the built-in ones, and replace those of their names.
	Presets []preset.Preset `yaml:"presets,omitempty"`
}

// Prometheus is one Prometheus, or Thanos or Mimir in its place.
type Prometheus struct {
	// Name is how rules name it, with source.
	Name string `yaml:"name"`
	// URL is http or https, with the path before /api/v1 if there is one.
	URL string `yaml:"url"`
	// BearerTokenFile, CAFile, CertFile and KeyFile are read again when they change.
	BearerTokenFile string `yaml:"bearerTokenFile,omitempty"`
	CAFile          string `yaml:"caFile,omitempty"`
	CertFile        string `yaml:"certFile,omitempty"`
	KeyFile         string `yaml:"keyFile,omitempty"`
	ServerName      string `yaml:"serverName,omitempty"`
	// Headers and Parameters are added to each request.
	Headers    map[string]string `yaml:"headers,omitempty"`
	Parameters map[string]string `yaml:"parameters,omitempty"`
	// Timeout bounds a request, 100ms–2m; 0 means 10s.
	Timeout model.Duration `yaml:"timeout,omitempty"`
	// MaxConcurrent bounds the requests at once, 1–256; 0 means 8.
	MaxConcurrent int `yaml:"maxConcurrent,omitempty"`
	// AllowWarnings takes answers with warnings, which partial answers of Thanos and Mimir have. A
	// sum over a part of the series is too low, so that by default such an answer is unknown.
	AllowWarnings bool `yaml:"allowWarnings,omitempty"`
	// Tenants lets Autoscalers have queries of their own, made with this source's credentials. Each
	// selector of such a query is narrowed to the Autoscaler's namespace.
	Tenants bool `yaml:"tenants,omitempty"`
	// NamespaceLabel is the label by which series of this source tell their namespace, for Tenants;
	// empty means namespace.
	NamespaceLabel string `yaml:"namespaceLabel,omitempty"`
}

// Label is NamespaceLabel with its default.
func (s *Prometheus) Label() string {
	if s.NamespaceLabel == "" {
		return "namespace"
	}
	return s.NamespaceLabel
}

// Default has no source.
func Default() Config {
	return Config{
		Interval: model.Duration(10 * time.Second), Relist: model.Duration(time.Minute), Lookback: model.Duration(10 * time.Minute),
		KeepNames: model.Duration(30 * time.Minute), KeepQueries: model.Duration(5 * time.Minute),
	}
}

// maxSources bounds the sources.
const maxSources = 32

// Load reads a file over the defaults.
func Load(file string) (Config, error) {
	c := Default()
	text, err := os.ReadFile(file)
	if err != nil {
		return c, fmt.Errorf("read the sources: %w", err)
	}
	if err := yaml.UnmarshalStrict(text, &c); err != nil {
		return c, fmt.Errorf("read the sources of %s: %w", file, err)
	}
	return c, nil
}

// Validate names every fault.
func (c *Config) Validate() error {
	var errs []error
	for _, d := range []struct {
		key    string
		value  model.Duration
		lo, hi time.Duration
	}{
		{"interval", c.Interval, time.Second, 5 * time.Minute},
		{"relist", c.Relist, 10 * time.Second, time.Hour},
		{"lookback", c.Lookback, time.Minute, 24 * time.Hour},
		{"keepNames", c.KeepNames, 0, 24 * time.Hour},
		{"keepQueries", c.KeepQueries, 15 * time.Second, time.Hour},
	} {
		if v := time.Duration(d.value); v < d.lo || v > d.hi {
			errs = append(errs, fmt.Errorf("%s = %v: want %v–%v", d.key, v, d.lo, d.hi))
		}
	}
	if n := len(c.Sources); n < 1 || n > maxSources {
		errs = append(errs, fmt.Errorf("sources has %d entries: want 1–%d", n, maxSources))
	}
	if _, err := preset.New(c.Presets); err != nil {
		errs = append(errs, err)
	}
	for i := range c.Presets {
		if from := c.Presets[i].Source; from != "" && !slices.ContainsFunc(c.Sources, func(s Prometheus) bool { return s.Name == from }) {
			errs = append(errs, fmt.Errorf("presets[%d].source = %q: want the name of a source", i, from))
		}
	}
	seen := map[string]bool{}
	for i := range c.Sources {
		s := &c.Sources[i]
		if seen[s.Name] || s.Name == "" && len(c.Sources) > 1 {
			errs = append(errs, fmt.Errorf("sources[%d].name = %q: want a name of its own", i, s.Name))
		}
		seen[s.Name] = true
		endpoint := s.endpoint()
		if err := endpoint.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("sources[%d]: %w", i, err))
		}
		if !model.LegacyValidation.IsValidLabelName(s.Label()) {
			errs = append(errs, fmt.Errorf("sources[%d].namespaceLabel = %q: want a label's name, such as namespace", i, s.NamespaceLabel))
		}
		for _, k := range slices.Sorted(maps.Keys(s.Headers)) {
			if k == "" || s.Headers[k] == "" {
				errs = append(errs, fmt.Errorf("sources[%d].headers: %q = %q: want a name and a value", i, k, s.Headers[k]))
			}
		}
	}
	return errors.Join(errs...)
}

// endpoint is the source as package prom takes it.
func (s *Prometheus) endpoint() prom.EndpointConfig {
	e := prom.EndpointConfig{
		URL: s.URL, BearerTokenFile: s.BearerTokenFile, CAFile: s.CAFile, CertFile: s.CertFile, KeyFile: s.KeyFile, ServerName: s.ServerName,
		Headers: s.Headers, Parameters: s.Parameters, Timeout: time.Duration(s.Timeout), MaxConcurrent: s.MaxConcurrent, MaxBytes: answer.MaxBytes / 2,
	}
	if e.Timeout == 0 {
		e.Timeout = 10 * time.Second
	}
	if e.MaxConcurrent == 0 {
		e.MaxConcurrent = 8
	}
	return e
}
