package preset_test

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/sluice-autoscaler/sluice/adapter/fetch/preset"
	"github.com/sluice-autoscaler/sluice/prom"
	"github.com/sluice-autoscaler/sluice/prom/promql"
)

func web() prom.Workload {
	return prom.Workload{Namespace: "shop", Kind: "Deployment", Name: "web", Services: []string{"web", "web.internal"}}
}

// Each built-in preset is sound, makes a concurrency, and is in the docs.
func TestBuiltin(t *testing.T) {
	t.Parallel()
	all, err := preset.Builtin()
	if err != nil || len(all) < 6 {
		t.Fatalf("there are %d presets, %v", len(all), err)
	}
	docs, err := os.ReadFile("../../../docs/prometheus-signals.md")
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		p := &all[i]
		if err := p.Validate(); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		if p.Signals["concurrency"] == "" || p.About == "" {
			t.Errorf("%s has no concurrency, or does not say what it counts", p.Name)
		}
		if !strings.Contains(string(docs), "\n| `"+p.Name+"` |") {
			t.Errorf("docs/prometheus-signals.md has no row for %s", p.Name)
		}
	}
}

// No selector of a preset's query reads another namespace than the workload's, whatever the names
// of the workload, its Services and its metric are.
func TestPresetsReadTheirNamespace(t *testing.T) {
	t.Parallel()
	set, err := preset.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := preset.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		annotations := map[string]string{preset.Annotation: all[i].Name}
		if all[i].Parameter {
			annotations[preset.MetricAnnotation] = "http_request_duration_seconds"
		}
		w := web()
		w.Services = append(w.Services, `x"} or up{a="`)
		c, err := set.Choose(w, annotations, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Sorted(maps.Keys(all[i].Signals)) {
			q, err := c.Query(name)
			if err != nil {
				t.Errorf("%s: %s: %v", all[i].Name, name, err)
				continue
			}
			if len(q.Parsed.Selectors()) == 0 {
				t.Errorf("%s reads no series", q.PromQL)
			}
			for _, s := range q.Parsed.Selectors() {
				if !slices.ContainsFunc(s.Matchers(), func(m promql.Matcher) bool { return m.Operator == "=" && m.Value == "shop" }) {
					t.Errorf("%s: a selector of %s reads all namespaces", all[i].Name, q.PromQL)
				}
			}
			if keeps := q.Parsed.Keeps(); keeps.Only == nil || len(keeps.Only) > 0 {
				t.Errorf("%s can give several series", q.PromQL)
			}
		}
	}
}

// Faults name field, value and remedy.
func TestValidate(t *testing.T) {
	t.Parallel()
	for want, p := range map[string]preset.Preset{
		`name = ""`:                         {},
		"window = 1s: want 10s–1h":          {Name: "a", Window: model.Duration(time.Second)},
		"maxAge = 2h0m0s: want 1s–1h":       {Name: "a", MaxAge: model.Duration(2 * time.Hour)},
		"signals is empty":                  {Name: "a"},
		"signals.depth: want one of":        {Name: "a", Signals: map[string]prom.Template{"depth": "up"}},
		"signals.rate: a selector has no":   {Name: "a", Signals: map[string]prom.Template{"rate": `sum(a{namespace="{namespace}"}) / sum(b)`}},
		"signals.concurrency: a selector":   {Name: "a", Signals: map[string]prom.Template{"concurrency": `sum(a{namespace=~"{namespace}"})`}},
		"signals.duration: the query is no": {Name: "a", Signals: map[string]prom.Template{"duration": `sum(`}},
		"{name} stands outside of a string": {Name: "a", Signals: map[string]prom.Template{"rate": `sum({name}{namespace="{namespace}"})`}},
	} {
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", p, err, want)
		}
	}
	own := preset.Preset{Name: "istio", Window: model.Duration(time.Minute), Signals: map[string]prom.Template{"rate": `sum(own{ns="{namespace}"})`}}
	set, err := preset.New([]preset.Preset{own})
	if err != nil {
		t.Fatal(err)
	}
	c, err := set.Choose(web(), map[string]string{preset.Annotation: "istio"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if q, err := c.Query("rate"); err != nil || q.PromQL != `sum(own{ns="shop"})` {
		t.Errorf("an own preset of a built-in's name gives %v, %v", q, err)
	}
	if _, err := preset.New([]preset.Preset{own, own}); err == nil || !strings.Contains(err.Error(), `presets[1].name = "istio": want a name of its own`) {
		t.Errorf("two of one name: %v", err)
	}
}

// The workload's annotation comes before its namespace's, and a wrong one is told with the remedy.
func TestChoose(t *testing.T) {
	t.Parallel()
	set, err := preset.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	a := func(pairs ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	for _, c := range []struct {
		workload, namespace map[string]string
		want, fault         string
	}{
		{},
		{namespace: a(preset.Annotation, "istio"), want: "istio"},
		{workload: a(preset.Annotation, "linkerd"), namespace: a(preset.Annotation, "istio"), want: "linkerd"},
		{workload: a(preset.Annotation, "in-flight", preset.MetricAnnotation, "app_in_flight"), want: "in-flight"},
		{workload: a(preset.MetricAnnotation, "app_in_flight"), namespace: a(preset.Annotation, "in-flight"), want: "in-flight"},
		{workload: a(preset.Annotation, "istio"), namespace: a(preset.Annotation, "in-flight", preset.MetricAnnotation, "x"), want: "istio"},
		{workload: a(preset.Annotation, "istoi"), fault: `sluice.dev/prometheus-preset = "istoi": want one of envoy, histogram, in-flight, istio, linkerd, nginx-ingress`},
		{workload: a(preset.Annotation, "in-flight"), fault: `sluice.dev/prometheus-metric = "": want the name of a metric`},
		{workload: a(preset.Annotation, "in-flight", preset.MetricAnnotation, `x"} or up{a="`), fault: "want the name of a metric"},
		{workload: a(preset.Annotation, "istio", preset.MetricAnnotation, "x"), fault: "takes none"},
	} {
		got, err := set.Choose(web(), c.workload, c.namespace)
		switch {
		case c.fault != "":
			if err == nil || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%v: %v, want %q", c.workload, err, c.fault)
			}
		case err != nil:
			t.Errorf("%v: %v", c.workload, err)
		case c.want == "" && got != nil, c.want != "" && (got == nil || got.Preset.Name != c.want):
			t.Errorf("%v over %v chooses %v, want %s", c.workload, c.namespace, got, c.want)
		}
	}
	nobody := web()
	nobody.Services = nil
	c, err := set.Choose(nobody, a(preset.Annotation, "nginx-ingress"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Query("concurrency"); err == nil || !strings.Contains(err.Error(), "asks by Service") {
		t.Errorf("without a Service: %v", err)
	}
	if _, err := c.Query("duration"); err == nil || !strings.Contains(err.Error(), "has no signal duration: it has concurrency, rate") {
		t.Errorf("a signal that it has not: %v", err)
	}
}
