package config_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/adapter/rules/config"
)

func TestSyntaxErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, message, explain string }{
		{
			"double quotes in double quotes", "rules:\n- seriesQuery: up\n  metricsQuery: \"sum(x{a=\"b\"})\"\n",
			"unable to parse metrics discovery config: yaml: line 2: did not find expected key",
			"line 3, column 26: the text in \" quotes ends here; put the whole query in single quotes, or on a line of its own after |",
		},
		{
			"single quotes in single quotes", "rules:\n- seriesQuery: 'up{a='b'}'\n",
			"unable to parse metrics discovery config: yaml: line 1: did not find expected key",
			"line 2, column 22: the text in ' quotes ends here; put the whole query in double quotes, or on a line of its own after |",
		},
		{
			"backslash in double quotes", "rules:\n- seriesQuery: \"{__name__=~'a\\.b'}\"\n",
			"unable to parse metrics discovery config: yaml: line 2: found unknown escape character",
			"line 2, column 30: a backslash in double quotes is an escape of YAML; put the text in single quotes, where \\ stands for itself",
		},
		{
			"a selector without quotes", "rules:\n- seriesQuery: {__name__=~\"a\",b!=\"\"}\n  metricsQuery: x\n",
			"unable to parse metrics discovery config: yaml: unmarshal errors:\n  line 2: cannot unmarshal !!map into string",
			"line 2, column 16: a text that begins with { is a mapping in YAML; put it in single quotes",
		},
		{
			"a tab", "rules:\n- seriesQuery: up\n\tname: {}\n",
			"unable to parse metrics discovery config: yaml: line 3: found a tab character that violates indentation",
			"line 3, column 1: a tab cannot indent YAML; use spaces",
		},
		{
			"an unknown key", "rules:\n- seriesquery: up\n",
			"unable to parse metrics discovery config: yaml: unmarshal errors:\n  line 2: field seriesquery not found in type config.DiscoveryRule",
			"line 2, column 3: there is no seriesquery; seriesQuery is meant, perhaps",
		},
		{
			"a key twice", "rules: []\nrules: []\n",
			"unable to parse metrics discovery config: yaml: unmarshal errors:\n  line 2: field rules already set in type config.MetricsDiscoveryConfig",
			"",
		},
		{
			"an unlike key", "rules:\n- resources: {overrides: {pod: {resource: pod, kind: Pod}}}\n",
			"unable to parse metrics discovery config: yaml: unmarshal errors:\n  line 2: field kind not found in type config.GroupResource",
			"line 2, column 48: there is no kind; there are group, resource",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := config.Parse([]byte(c.text))
			syntax, ok := errors.AsType[*config.SyntaxError](err)
			if !ok {
				t.Fatalf("Parse gives %v, want a SyntaxError", err)
			}
			if syntax.Error() != c.message || syntax.Explain() != c.explain {
				t.Errorf("Parse says %q and explains %q; want %q and %q", syntax, syntax.Explain(), c.message, c.explain)
			}
		})
	}
}

// The chart's values make the rules that the chart writes of them.
func TestChartValues(t *testing.T) {
	t.Parallel()
	const custom = "{seriesQuery: up, metricsQuery: up}"
	for _, c := range []struct {
		name, text            string
		rules, external       int
		resource, wantFailure bool
	}{
		{name: "defaults", text: "prometheus: {url: http://p}\nrules: {existing: ''}\n", rules: 6},
		{name: "the chart's own values", text: "rules: {default: true, custom: [], existing: , external: [], resource: {}}\n", rules: 6},
		{name: "without defaults", text: "rules: {default: false, custom: [" + custom + "], external: [" + custom + "]}\n", rules: 1, external: 1},
		{name: "within another chart's values", text: "grafana: {}\nprometheus-adapter: {rules: {default: false, external: [" + custom + "]}}\n", external: 1},
		{name: "defaults and more", text: "rules: {custom: [" + custom + "], resource: {window: 3m}}\n", rules: 7, resource: true},
		{name: "an unknown key within", text: "rules: {custom: [{seriesquery: up}]}\n", wantFailure: true},
		{name: "elsewhere", text: "rules: {existing: mine}\n", wantFailure: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg, err := config.Parse([]byte(c.text))
			if c.wantFailure {
				if err == nil {
					t.Fatal("Parse takes it")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(cfg.Rules) != c.rules || len(cfg.ExternalRules) != c.external || (cfg.ResourceRules != nil) != c.resource {
				t.Errorf("Parse gives %d rules, %d external ones, resourceRules %v", len(cfg.Rules), len(cfg.ExternalRules), cfg.ResourceRules)
			}
		})
	}
}

// What is written is read back.
func TestWrite(t *testing.T) {
	t.Parallel()
	f := config.Flags{RateInterval: time.Minute, LabelPrefix: "kube_"}
	if err := f.Validate(); err != nil {
		t.Fatal(err)
	}
	want := f.Rules()
	text, err := config.Write(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := config.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(got.Rules) != 6 || got.ResourceRules == nil || !strings.Contains(got.Rules[3].SeriesQuery, "kube_namespace") {
		t.Errorf("the rules are %s", text)
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	long := "rules:\n- metricsQuery: " + strings.Repeat("x", config.MaxText+1) + "\n"
	if _, err := config.Parse([]byte(long)); err == nil || !strings.Contains(err.Error(), "rules[0].metricsQuery has 65537 bytes: want at most 65536") {
		t.Errorf("a long query: %v", err)
	}
	many := "rules:\n" + strings.Repeat("- {seriesQuery: up}\n", config.MaxRules+1)
	if _, err := config.Parse([]byte(many)); err == nil || !strings.Contains(err.Error(), "rules has 2001 entries") {
		t.Errorf("many rules: %v", err)
	}
	for _, f := range []config.Flags{{}, {RateInterval: time.Minute, LabelPrefix: "a-b"}} {
		if f.Validate() == nil {
			t.Errorf("Validate takes %+v", f)
		}
	}
}

// FuzzParse: no text makes the reader panic, and what it takes it writes and reads again.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"rules:\n- {seriesQuery: up, metricsQuery: 'sum(up)'}\n", "rules: {default: true}\n", "kind: ConfigMap\ndata: {config.yaml: 'rules: []'}\n",
		"rules:\n- seriesQuery: \"a\"b\"\n", "resourceRules: {window: 5m}\n", "a: &a [*a]\n", "\trules",
	} {
		f.Add([]byte(seed))
	}
	if text, err := os.ReadFile("../../../../../shared/cases/prometheus_adapter_rules.yaml"); err == nil && len(text) > 4096 {
		f.Add(text[:4096])
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<16 {
			return
		}
		cfg, err := config.Parse(text)
		if err != nil {
			if len(config.Explain(err)) == 0 {
				t.Errorf("nothing is said of %v", err)
			}
			return
		}
		again, err := config.Write(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := config.Parse(again); err != nil {
			t.Fatalf("what was written is not read: %v\n%s", err, again)
		}
	})
}
