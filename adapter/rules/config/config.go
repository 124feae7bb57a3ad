// Package config reads rules: prometheus-adapter's config.yaml, the values of its Helm chart, a
// ConfigMap that holds either, and the flags of its version 0.2.
//
// The types have prometheus-adapter's names and fields, since the YAML library writes them into its
// error messages: a file that v0.12.0 refuses is refused with the same words. Fields that only
// Sluice has are marked as such.
package config

import (
	"errors"
	"fmt"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v2"
)

// Bounds of a file. A larger one is refused, since every part of it costs memory and time.
const (
	// MaxBytes bounds a file.
	MaxBytes = 4 << 20
	// MaxRules bounds the rules of each list.
	MaxRules = 2000
	// MaxText bounds a template or a regular expression, in bytes.
	MaxText = 64 << 10
)

// MetricsDiscoveryConfig is a file of rules.
type MetricsDiscoveryConfig struct {
	// Rules make custom metrics, which belong to objects.
	Rules []DiscoveryRule `yaml:"rules"`
	// ResourceRules make the CPU and memory figures of metrics.k8s.io; nil serves none.
	ResourceRules *ResourceRules `yaml:"resourceRules,omitempty"`
	// ExternalRules make external metrics, which belong to a namespace.
	ExternalRules []DiscoveryRule `yaml:"externalRules,omitempty"`
}

// DiscoveryRule makes metrics of all series that it selects.
type DiscoveryRule struct {
	// SeriesQuery is a PromQL series selector.
	SeriesQuery string `yaml:"seriesQuery"`
	// SeriesFilters must all hold for a series' name.
	SeriesFilters []RegexFilter `yaml:"seriesFilters,omitempty"`
	// Resources says which labels name which objects.
	Resources ResourceMapping `yaml:"resources,omitempty"`
	// Name makes the metric's name of the series' name.
	Name NameMapping `yaml:"name,omitempty"`
	// MetricsQuery is a template of PromQL with the delimiters << and >>.
	MetricsQuery string `yaml:"metricsQuery,omitempty"`

	// Source names the Prometheus to ask, "" is the first. Only Sluice has it.
	Source string `yaml:"source,omitempty"`
	// OnEmpty says what an object without a sample is: omit (the default, as prometheus-adapter),
	// error, or zero. Only Sluice has it.
	OnEmpty string `yaml:"onEmpty,omitempty"`
	// OnNaN says what NaN is: error (the default) or zero. Only Sluice has it.
	OnNaN string `yaml:"onNaN,omitempty"`
	// OnInf says what an infinite value is: error (the default), max (the largest quantity of its
	// sign) or zero. Only Sluice has it.
	OnInf string `yaml:"onInf,omitempty"`
	// MaxAge makes an older sample unknown; 0 sets no bound. A short one turns scrape gaps into
	// errors, a long one lets old values decide. Only Sluice has it.
	MaxAge model.Duration `yaml:"maxAge,omitempty"`
	// Hold answers with the last known value for so long when there is none now; 0 does not. A long
	// one bridges outages and hides them. Only Sluice has it.
	Hold model.Duration `yaml:"hold,omitempty"`
	// Duplicates says what several samples of one object are: error (the default), sum, max or
	// first. Only Sluice has it.
	Duplicates string `yaml:"duplicates,omitempty"`
}

// RegexFilter holds where a name matches Is, or where it does not match IsNot. One of them is set.
type RegexFilter struct {
	Is    string `yaml:"is,omitempty"`
	IsNot string `yaml:"isNot,omitempty"`
}

// ResourceMapping says which label names which kind of object.
type ResourceMapping struct {
	// Template makes the label of a resource: << .Group >> with _ for dots and dashes, and
	// << .Resource >> in the singular.
	Template string `yaml:"template,omitempty"`
	// Overrides are labels that Template does not cover. They come first.
	Overrides map[string]GroupResource `yaml:"overrides,omitempty"`
	// Namespaced false leaves the caller's namespace out of the queries of external metrics.
	Namespaced *bool `yaml:"namespaced,omitempty"`
	// NamespaceMatcher false leaves it out of the queries of custom metrics, for series without a
	// label for namespaces. Only Sluice has it.
	NamespaceMatcher *bool `yaml:"namespaceMatcher,omitempty"`
}

// GroupResource names a kind of object, in the singular or the plural.
type GroupResource struct {
	Group    string `yaml:"group,omitempty"`
	Resource string `yaml:"resource"`
}

// NameMapping makes a metric's name.
type NameMapping struct {
	// Matches is a regular expression that series' names must match; "" is all.
	Matches string `yaml:"matches,omitempty"`
	// As is the metric's name, with $0, $1 or ${1} for what Matches has caught. "" is $1 where
	// Matches has one group, and $0 where it has none.
	As string `yaml:"as,omitempty"`
}

// ResourceRules make the figures of metrics.k8s.io.
type ResourceRules struct {
	CPU    ResourceRule `yaml:"cpu"`
	Memory ResourceRule `yaml:"memory"`
	// Window is the time over which the queries take their means.
	Window model.Duration `yaml:"window"`
}

// ResourceRule makes the figures of one resource.
type ResourceRule struct {
	// ContainerQuery and NodeQuery are templates as MetricsQuery is.
	ContainerQuery string `yaml:"containerQuery"`
	NodeQuery      string `yaml:"nodeQuery"`
	// Resources has labels for nodes, namespaces and pods.
	Resources ResourceMapping `yaml:"resources"`
	// ContainerLabel is the label that names the container.
	ContainerLabel string `yaml:"containerLabel"`
}

// Parse reads a config.yaml, the chart's values, or a ConfigMap with either. The error is a
// *SyntaxError where the text is the cause.
func Parse(text []byte) (*MetricsDiscoveryConfig, error) {
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("the file of rules has %d bytes: want at most %d", len(text), MaxBytes)
	}
	inner, err := configMap(text)
	if err != nil {
		return nil, err
	}
	if inner != nil {
		text = inner
	}
	cfg, ours, err := chartValues(text)
	if !ours {
		cfg = &MetricsDiscoveryConfig{}
		err = yaml.UnmarshalStrict(text, cfg)
	}
	if err != nil {
		return nil, syntaxError(text, err)
	}
	return cfg, cfg.bounds()
}

// bounds refuses what is too large.
func (c *MetricsDiscoveryConfig) bounds() error {
	var errs []error
	for _, list := range []struct {
		field string
		rules []DiscoveryRule
	}{{"rules", c.Rules}, {"externalRules", c.ExternalRules}} {
		if n := len(list.rules); n > MaxRules {
			errs = append(errs, fmt.Errorf("%s has %d entries: want at most %d", list.field, n, MaxRules))
		}
		for i := range list.rules {
			r := &list.rules[i]
			errs = append(errs, long(fmt.Sprintf("%s[%d].metricsQuery", list.field, i), r.MetricsQuery),
				long(fmt.Sprintf("%s[%d].seriesQuery", list.field, i), r.SeriesQuery),
				long(fmt.Sprintf("%s[%d].name.matches", list.field, i), r.Name.Matches),
				long(fmt.Sprintf("%s[%d].name.as", list.field, i), r.Name.As),
				long(fmt.Sprintf("%s[%d].resources.template", list.field, i), r.Resources.Template))
		}
	}
	if r := c.ResourceRules; r != nil {
		for _, q := range []struct{ field, text string }{
			{"cpu.containerQuery", r.CPU.ContainerQuery},
			{"cpu.nodeQuery", r.CPU.NodeQuery},
			{"memory.containerQuery", r.Memory.ContainerQuery},
			{"memory.nodeQuery", r.Memory.NodeQuery},
		} {
			errs = append(errs, long("resourceRules."+q.field, q.text))
		}
	}
	return errors.Join(errs...)
}

func long(field, text string) error {
	if len(text) > MaxText {
		return fmt.Errorf("%s has %d bytes: want at most %d", field, len(text), MaxText)
	}
	return nil
}

// Write writes rules as a config.yaml.
func Write(c *MetricsDiscoveryConfig) ([]byte, error) {
	text, err := yaml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("write the rules: %w", err)
	}
	return text, nil
}
