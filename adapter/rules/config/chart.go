package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v2"
)

// chartKeys are the keys below rules in the values of prometheus-adapter's Helm chart.
var chartKeys = []string{"custom", "default", "existing", "external", "resource"} //nolint:gochecknoglobals // a constant list

// values is what the chart's values have that matters; other keys are the chart's own affair.
type values struct {
	Rules chartRules     `yaml:"rules"`
	Other map[string]any `yaml:",inline"`
}

// chartRules is the key rules of the chart's values.
type chartRules struct {
	// Default adds the chart's six rules; it does unless it is set to false.
	Default *bool `yaml:"default"`
	// Custom, External and Resource are rules, externalRules and resourceRules.
	Custom   []DiscoveryRule `yaml:"custom"`
	External []DiscoveryRule `yaml:"external"`
	Resource *ResourceRules  `yaml:"resource"`
	// Existing names a ConfigMap that takes the place of all of it.
	Existing string `yaml:"existing"`
}

// chartValues reads the chart's values; ours is false where the text is something else.
func chartValues(text []byte) (cfg *MetricsDiscoveryConfig, ours bool, err error) {
	var top struct {
		Rules yaml.MapSlice `yaml:"rules"`
		// Nested are the values of the chart as a part of another one.
		Nested yaml.MapSlice  `yaml:"prometheus-adapter"`
		Other  map[string]any `yaml:",inline"`
	}
	if yaml.Unmarshal(text, &top) != nil {
		return nil, false, nil //nolint:nilerr // then it is something else, whose reader says what is wrong
	}
	if len(top.Rules) == 0 {
		inner, err := yaml.Marshal(top.Nested)
		if err != nil || len(top.Nested) == 0 {
			return nil, false, nil //nolint:nilerr // as above
		}
		return chartValues(inner)
	}
	for _, item := range top.Rules {
		if key, _ := item.Key.(string); !slices.Contains(chartKeys, key) {
			return nil, false, nil
		}
	}
	var v values
	if err := yaml.UnmarshalStrict(text, &v); err != nil {
		return nil, true, err
	}
	if v.Rules.Existing != "" {
		return nil, true, fmt.Errorf("rules.existing = %q: the chart takes its rules from that ConfigMap; give its config.yaml instead", v.Rules.Existing)
	}
	cfg = &MetricsDiscoveryConfig{ExternalRules: v.Rules.External}
	if v.Rules.Default == nil || *v.Rules.Default {
		cfg.Rules = ChartDefaults()
	}
	cfg.Rules = append(cfg.Rules, v.Rules.Custom...)
	if r := v.Rules.Resource; r != nil && !reflect.DeepEqual(*r, ResourceRules{}) {
		cfg.ResourceRules = r
	}
	return cfg, true, nil
}

// configMap returns the rules that a ConfigMap holds, nil if the text is none.
func configMap(text []byte) ([]byte, error) {
	var m struct {
		Kind  string            `yaml:"kind"`
		Data  map[string]string `yaml:"data"`
		Other map[string]any    `yaml:",inline"`
	}
	if yaml.Unmarshal(text, &m) != nil || m.Kind != "ConfigMap" {
		return nil, nil //nolint:nilerr // then it is something else, whose reader says what is wrong
	}
	if inner, ok := m.Data["config.yaml"]; ok {
		return []byte(inner), nil
	}
	if len(m.Data) == 1 {
		for _, inner := range m.Data {
			return []byte(inner), nil
		}
	}
	return nil, fmt.Errorf("the ConfigMap has the keys %s: want config.yaml among them, or only one", strings.Join(slices.Sorted(maps.Keys(m.Data)), ", "))
}

// Flags are those of prometheus-adapter 0.2, which had no rules yet.
type Flags struct {
	// RateInterval is the range of rates, 5m by default.
	RateInterval time.Duration
	// LabelPrefix comes before each label that names an object, such as kube_.
	LabelPrefix string
}

// Validate names every fault of the flags.
func (f Flags) Validate() error {
	var errs []error
	if f.RateInterval < time.Second || f.RateInterval > 24*time.Hour || f.RateInterval%time.Millisecond != 0 {
		errs = append(errs, fmt.Errorf("rate-interval = %s: want 1s–24h in whole milliseconds", f.RateInterval))
	}
	if f.LabelPrefix != "" && !model.LegacyValidation.IsValidLabelName(f.LabelPrefix+"pod") {
		errs = append(errs, fmt.Errorf("label-prefix = %q: want letters, digits and underscores, with no digit first", f.LabelPrefix))
	}
	return errors.Join(errs...)
}

// Rules returns the rules that do what valid flags did.
func (f Flags) Rules() *MetricsDiscoveryConfig {
	rate := model.Duration(f.RateInterval).String()
	rules := append(containerRules(rate), anyRules(f.LabelPrefix, rate)...)
	figures := func(container, node string) ResourceRule {
		return ResourceRule{
			ContainerQuery: container, NodeQuery: node, ContainerLabel: f.LabelPrefix + "container",
			Resources: ResourceMapping{Overrides: map[string]GroupResource{
				"instance": {Resource: "node"}, "namespace": {Resource: "namespace"}, "pod": {Resource: "pod"},
			}},
		}
	}
	return &MetricsDiscoveryConfig{Rules: rules, ResourceRules: &ResourceRules{
		CPU: figures(`sum(rate(container_cpu_usage_seconds_total{<<.LabelMatchers>>}[`+rate+`])) by (<<.GroupBy>>)`,
			`sum(rate(container_cpu_usage_seconds_total{<<.LabelMatchers>>, id='/'}[`+rate+`])) by (<<.GroupBy>>)`),
		Memory: figures(`sum(container_memory_working_set_bytes{<<.LabelMatchers>>}) by (<<.GroupBy>>)`,
			`sum(container_memory_working_set_bytes{<<.LabelMatchers>>,id='/'}) by (<<.GroupBy>>)`),
		Window: model.Duration(f.RateInterval),
	}}
}

// ChartDefaults returns the six rules of the chart's rules.default.
func ChartDefaults() []DiscoveryRule { return append(containerRules("5m"), anyRules("", "5m")...) }

// containerRules are those of cAdvisor's series: seconds, other counters, and gauges.
func containerRules(rate string) []DiscoveryRule {
	rule := func(filter, matches, query string) DiscoveryRule {
		r := DiscoveryRule{
			SeriesQuery: `{__name__=~"^container_.*",container!="POD",namespace!="",pod!=""}`,
			Resources: ResourceMapping{Overrides: map[string]GroupResource{
				"namespace": {Resource: "namespace"}, "pod": {Resource: "pod"},
			}},
			Name: NameMapping{Matches: matches}, MetricsQuery: query,
		}
		if filter != "" {
			r.SeriesFilters = []RegexFilter{{IsNot: filter}}
		}
		return r
	}
	increase := `sum(rate(<<.Series>>{<<.LabelMatchers>>,container!="POD"}[` + rate + `])) by (<<.GroupBy>>)`
	return []DiscoveryRule{
		rule("", "^container_(.*)_seconds_total$", increase),
		rule("^container_.*_seconds_total$", "^container_(.*)_total$", increase),
		rule("^container_.*_total$", "^container_(.*)$", `sum(<<.Series>>{<<.LabelMatchers>>,container!="POD"}) by (<<.GroupBy>>)`),
	}
}

// anyRules are those of all other series: gauges, counters, and seconds.
func anyRules(prefix, rate string) []DiscoveryRule {
	rule := func(filter, matches, query string) DiscoveryRule {
		r := DiscoveryRule{
			SeriesQuery: `{` + prefix + `namespace!="",__name__!~"^container_.*"}`,
			Resources:   ResourceMapping{Template: prefix + "<<.Resource>>"},
			Name:        NameMapping{Matches: matches}, MetricsQuery: query,
		}
		if filter != "" {
			r.SeriesFilters = []RegexFilter{{IsNot: filter}}
		}
		return r
	}
	increase := `sum(rate(<<.Series>>{<<.LabelMatchers>>}[` + rate + `])) by (<<.GroupBy>>)`
	return []DiscoveryRule{
		rule(".*_total$", "", `sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)`),
		rule(".*_seconds_total", "^(.*)_total$", increase),
		rule("", "^(.*)_seconds_total$", increase),
	}
}
