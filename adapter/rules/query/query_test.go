package query_test

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/sluice-autoscaler/sluice/adapter/rules/query"
	"github.com/sluice-autoscaler/sluice/prom/promql"
)

func TestRender(t *testing.T) {
	t.Parallel()
	pods := query.Request{Series: "up", NamespaceLabel: "ns", Namespace: "shop", Label: "pod", Names: []string{"a"}}
	two, dotted, all, utf8, core := pods, pods, pods, pods, pods
	two.Names = []string{"a", "b"}
	dotted.Names = []string{"a.1", "b+c"}
	all.All, all.Names = true, nil
	quotes := utf8
	quotes.Series = `a.'b"`
	utf8.Series, utf8.Label = "http.requests", "k8s.pod.name"
	core.Series, core.ExtraGroupBy = "cpu", []string{"container"}
	external := query.Request{Series: "up"}
	selected := external
	selected.Selector = parse(t, "topic in (v1.2,a),app.kubernetes.io/name=x,!gone,there")
	for _, c := range []struct {
		name, template string
		request        query.Request
		want           string
	}{
		{"one name", `sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)`, pods, `sum(up{ns="shop",pod="a"}) by (pod)`},
		{"two names", `<<.Series>>{<<.LabelMatchers>>}`, two, `up{ns="shop",pod=~"a|b"}`},
		{"names with dots", `<<.Series>>{<<.LabelMatchers>>}`, dotted, `up{ns="shop",pod=~"a\\.1|b\\+c"}`},
		{"names with dots by name", `<<.Series>>{pod=~'<<index .LabelValuesByName "pod">>'}`, dotted, `up{pod=~'a[.]1|b[+]c'}`},
		{"all names", `<<.Series>>{<<.LabelMatchers>>}`, all, `up{ns="shop",pod!=""}`},
		{"labels by slice", `by (<<range $i, $l := .GroupBySlice>><<if $i>>,<<end>><<$l>><<end>>)`, core, `by (pod,container)`},
		{"UTF-8 names", `sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)`, utf8, `sum({"http.requests",ns="shop","k8s.pod.name"="a"}) by ("k8s.pod.name")`},
		{"a UTF-8 name without braces", `rate(<<.Series>>[5m]) # <<.Series>>`, utf8, `rate({"http.requests"}[5m]) # http.requests`},
		{"a UTF-8 name in a string", `{__name__="<<.Series>>",<<.LabelMatchers>>}`, utf8, `{__name__="http.requests",ns="shop","k8s.pod.name"="a"}`},
		{"a UTF-8 name in other quotes", "{__name__='<<.Series>>'} or {__name__=`<<.Series>>`} or <<.Series>> { }", quotes, "{__name__='a.\\'b\"'} or {__name__=`a.'b\"`} or {\"a.'b\\\"\"}"},
		{"no matcher before others", `<<.Series>>{<<.LabelMatchers>>, q=~"a,,b{,"}`, external, `up{q=~"a,,b{,"}`},
		{"no matcher between others", `<<.Series>>{a="1",<<.LabelMatchers>>,b="2"}`, external, `up{a="1",b="2"}`},
		{"no matcher after others", `<<.Series>>{a="1",<<.LabelMatchers>>}`, external, `up{a="1",}`},
		{"no label to group by", `sum(up) by (<<.GroupBy>>, le)`, external, `sum(up) by (le)`},
		{"the selector", `<<.Series>>{<<.LabelMatchers>>}`, selected, `up{"app.kubernetes.io/name"="x",gone="",there!="",topic=~"a|v1\\.2"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			compiled, err := query.Compile(c.template)
			if err != nil {
				t.Fatal(err)
			}
			got, err := compiled.Render(c.request)
			if err != nil || got != c.want {
				t.Errorf("Render = %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func parse(t testing.TB, text string) labels.Selector {
	t.Helper()
	s, err := labels.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What an older Prometheus cannot be asked is an error that names it.
func TestLegacyNames(t *testing.T) {
	t.Parallel()
	compiled, err := query.Compile("<<.Series>>{<<.LabelMatchers>>}")
	if err != nil {
		t.Fatal(err)
	}
	_, err = compiled.Render(query.Request{Series: "up", LegacyNames: true, Selector: parse(t, "app.kubernetes.io/name=x")})
	if fault, ok := errors.AsType[*query.SelectorError](err); !ok || !strings.Contains(fault.Error(), `"app.kubernetes.io/name"`) {
		t.Errorf("a selector key with dots: %v", err)
	}
	for _, r := range []query.Request{{Series: "a.b"}, {Series: "up", Label: "k8s.pod", Names: []string{"a"}}} {
		r.LegacyNames = true
		if _, err := compiled.Render(r); err == nil || !strings.Contains(err.Error(), "from version 3 on") {
			t.Errorf("Render(%+v): %v", r, err)
		}
	}
}

func TestSelectorFaults(t *testing.T) {
	t.Parallel()
	compiled, err := query.Compile("<<.Series>>{<<.LabelMatchers>>}")
	if err != nil {
		t.Fatal(err)
	}
	for _, selector := range []string{"part>3", "part<3"} {
		_, err := compiled.Render(query.Request{Series: "up", Selector: parse(t, selector)})
		if fault, ok := errors.AsType[*query.SelectorError](err); !ok || fault.Requirement != selector {
			t.Errorf("%s: %v", selector, err)
		}
	}
}

// A template cannot run for long or write much.
func TestBounded(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"a long loop":        `<<range 1000000000000>><<end>>x`,
		"loops in loops":     strings.Repeat(`<<range .GroupBySlice>><<range .>>`, 0) + strings.Repeat(`<<range 1000>>`, 5) + "x" + strings.Repeat(`<<end>>`, 5),
		"recursion":          `<<define "a">><<template "a">><<template "a">><<end>><<template "a">>`,
		"a wide number":      `<<printf "%900000d" 1>>`,
		"a doubled text":     `<<$a := printf "%1000d" 1>><<range 20>><<$a = printf "%s%s" $a $a>><<end>>`,
		"much output":        `<<range 9000>><<printf "%60000d" 1>><<end>>`,
		"a loop of branches": `<<range 1000000>><<if false>><<end>><<end>>x`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compiled, err := query.Compile(text)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			out, err := compiled.Render(query.Request{Series: "up"})
			if err == nil {
				t.Errorf("it is rendered, to %d bytes", len(out))
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

func TestUses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"<<.Series>>": false, "<<.LabelMatchers>>": true, `<<if .LabelMatchers>>x<<end>>`: true, "<<.>>": true, `<<printf "%v" .LabelMatchers>>`: true,
		`<<$.LabelMatchers>>`: true, `<<$x := .>><<$x.LabelMatchers>>`: true, `<<with .LabelMatchers>>x<<end>>`: true, `<<define "a">><<.LabelMatchers>><<end>><<template "a" .>>`: true,
	} {
		compiled, err := query.Compile(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := compiled.Uses("LabelMatchers"); got != want {
			t.Errorf("%s uses LabelMatchers: %v, want %v", text, got, want)
		}
	}
}

// FuzzSelector: whatever selector an HorizontalPodAutoscaler may have, the query is PromQL, or the
// selector is at fault.
func FuzzSelector(f *testing.F) {
	for _, seed := range []string{"a=b", "topic in (v1.2,v1.3),!x", "part>3", "app.kubernetes.io/name notin (a)", "a!=b,c", "x in ()"} {
		f.Add(seed, "up", "web-1")
	}
	f.Add("a=b", "http.requests", "a.b")
	f.Add("a=b", "été{", "a\"\\")
	templates := make([]*query.Template, 0, 3)
	for _, text := range []string{
		`sum(rate(<<.Series>>{<<.LabelMatchers>>}[5m])) by (<<.GroupBy>>)`, `<<.Series>>{a="b", <<.LabelMatchers>> , c=~"d"}`, `sum by (<<.GroupBy>>, le) (<<.Series>>{<<.LabelMatchers>>,x="y"})`,
	} {
		compiled, err := query.Compile(text)
		if err != nil {
			f.Fatal(err)
		}
		templates = append(templates, compiled)
	}
	f.Fuzz(func(t *testing.T, selector, series, name string) {
		parsed, err := labels.Parse(selector)
		if err != nil || series == "" || !utf8.ValidString(series+name) || len(selector)+len(series)+len(name) > 4096 {
			return
		}
		for _, names := range [][]string{nil, {name}, {name, "b"}} {
			r := query.Request{Series: series, Selector: parsed, Label: "pod", Names: names, NamespaceLabel: "ns", Namespace: "shop"}
			if names == nil {
				r.Label = ""
			}
			for _, compiled := range templates {
				text, err := compiled.Render(r)
				if err != nil {
					if _, ok := errors.AsType[*query.SelectorError](err); !ok {
						t.Errorf("Render(%+v): %v", r, err)
					}
					continue
				}
				if _, err := promql.Parse(text); err != nil && !reserved(series) {
					t.Errorf("%s: %v", text, err)
				}
			}
		}
	})
}

// reserved reports whether a series has the name of a word of PromQL, which cannot stand bare.
func reserved(series string) bool {
	switch strings.ToLower(series) {
	case "inf", "nan", "bool", "on", "by", "and", "or", "unless", "offset", "without", "ignoring", "group_left", "group_right", "atan2", "start", "end", "anchored", "smoothed",
		"sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "topk", "bottomk", "limitk", "limit_ratio", "quantile", "count_values":
		return true
	}
	return false
}
