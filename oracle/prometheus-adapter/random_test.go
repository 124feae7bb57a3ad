package adapter_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/sluice-autoscaler/sluice/adapter/rules/ruletest"
	"go.yaml.in/yaml/v2"
)

// pick returns one of its arguments.
func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

// chance is true once in n times.
func chance(rng *rand.Rand, n int) bool { return rng.IntN(n) == 0 }

// The names that random cases are made of. Labels and resources often fit.
var (
	seriesNames = []string{
		"http_requests_total", "http_request_duration_seconds_count", "container_cpu_usage_seconds_total", "container_memory_bytes",
		"queue_depth", "app_jobs_total", "app_jobs_count", "up", "ns:rate:sum5m", "http.server.active_requests", "node_load1", "tenant_requests_total", "été_total",
	}
	labelNames = []string{
		"namespace", "pod", "service", "node", "job", "instance", "container", "le", "deployment", "kube_namespace", "kube_pod", "kube_ingress",
		"kube_apps_deployment", "kube_networking_k8s_io_ingress", "kube__pod", "exported_namespace", "exported_pod", "tenant", "method", "endpoint",
		"persistentvolume", "persistentvolumeclaim", "statefulset", "cronjob", "event", "k8s.pod.name", "namespaces", "ingresses",
	}
	values   = []string{"shop", "web-1", "web-2", "GET", "a.b", "edge", "0.5", "acme", "x|y"}
	matchers = []string{`namespace!=""`, `pod!=""`, `pod=~"web-.*"`, `job="cart"`, `container!="POD"`, `method=~"GET|POST"`, `le!=""`, `tenant!=""`}
	matches  = []string{
		"", "", "", "^(.*)_total$", "^(.*)_total", "_total", "^container_(.*)_seconds_total$", "^(?P<base>.*)_total$", "(.*)", "^http.(.*)$", "ns:(.*):sum5m", "^(.*)$",
	}
	as        = []string{"", "", "", "$1", "${1}_per_second", "$1_per_second", "fixed", "${base}", "x_$1", "$0", "${2}", "a.b", "$$"}
	filters   = []string{"_total$", "^container_", ".*_seconds_total", "^http", "^$", "total", ".*"}
	templates = []string{
		"", "", "<<.Resource>>", "<<.Resource>>", "<<.Resource>>", "kube_<<.Resource>>", "kube_<<.Group>>_<<.Resource>>", "<<.Resource>>_x", "exported_<<.Resource>>",
		"<<if .Group>>kube_<<.Group>>_<<end>><<.Resource>>",
	}
	// Faults that stop v0.12.0 are rarer.
	badMatches   = []string{"^(.*)_(total|count)$", "(", "^(.*_)(.*)$", "^(.*)_(?:total)$"}
	badTemplates = []string{"kube_pod", "<<.Resource", "<<.Nothing>>_<<.Resource>>", "((<<.Resource>>"}
	badQueries   = []string{"<<range>>", "<<.Series", "<<nothing .Series>>"}
	badFilters   = []string{"[", "", "(?P<x"}
	resources    = [][2]string{
		{"", "namespace"},
		{"", "namespace"},
		{"", "pod"},
		{"", "pods"},
		{"", "service"},
		{"", "node"},
		{"apps", "deployment"},
		{"batch", "job"},
		{"", "ingress"},
		{"apps", "statefulsets"},
		{"tenancy.example.org", "tenant"},
		{"sqs.aws", "queue"},
		{"", "persistentvolume"},
		{"networking", "ingress"},
		{"serving.knative.dev", "service"},
	}
	queries = []string{
		"sum(rate(<<.Series>>{<<.LabelMatchers>>}[5m])) by (<<.GroupBy>>)",
		"sum(rate(<<.Series>>{<<.LabelMatchers>>}[5m])) by (<<.GroupBy>>)",
		"sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)",
		`sum(<<.Series>>{<<.LabelMatchers>>,container!="POD"}) by (<<.GroupBy>>)`,
		`sum(<<.Series>>{container!="POD",<<.LabelMatchers>>}) by (<<.GroupBy>>)`,
		"<<.Series>>{<<.LabelMatchers>>}",
		"<<.Series>>",
		"histogram_quantile(0.99, sum(rate(<<.Series>>{<<.LabelMatchers>>}[2m])) by (le, <<.GroupBy>>))",
		"sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>, le)",
		"sum(<<.Series>>{<<.LabelMatchers>>}) by (<<range $i, $l := .GroupBySlice>><<if $i>>,<<end>><<$l>><<end>>)",
		`sum(<<.Series>>{namespace="<<index .LabelValuesByName "namespace">>",pod=~"<<index .LabelValuesByName "pod">>"}) by (pod)`,
		"avg by (namespace, pod) (avg_over_time(<<.Series>>[1m]))",
		`sum(<<.Series>>{<<.LabelMatchers>>, topic=~"a|b"}) / sum(<<.Series>>{<<.LabelMatchers>>})`,
		"sum(<<.Series>>{<<.LabelMatchers>>}", "<<.Nothing>>", "", "sum(fixed_name{a=\"<<.Series>>\"})",
		`<<printf "sum(%s{%s})" .Series .LabelMatchers>> by (<<.GroupBy>>)`,
		"  sum by(<<.GroupBy>>)(\n  <<.Series>>{ <<.LabelMatchers>> } # , <<.Series>>\n)\n",
		"<<if .LabelMatchers>>sum(<<.Series>>{<<.LabelMatchers>>})<<else>>sum(<<.Series>>)<<end>>",
	}
	selectors = []string{
		"", "", "", "topic=a", "topic==a,zone!=z1", "topic in (b,a)", "topic in (a)", "topic notin (a,b)", "topic notin (a)", "topic", "!topic", "topic in (v1.2,v1.3)", "topic=v1.2",
		"part>3", "part<3", "app.kubernetes.io/name=x", "namespace=other", "topic in (v1.2)", "topic notin (v1.2)", "pod=web-1", "bad selector(",
	}
	numbers = []string{"0", "1", "12.34567", "-3.5", "1e3", "0.00049", "2.0005", "31.9996", "73400320", "NaN", "+Inf", "-Inf", "1e16", "1e17", "-1e17", "9223372036854775", "9223372036854775.9"}
	asked   = []string{"pods", "pod", "services", "nodes", "namespaces", "deployments.apps", "jobs.batch", "ingresses.networking.k8s.io", "statefulsets.apps", "tenants.tenancy.example.org", "persistentvolumes", "none"}
	names   = []string{"web-1", "web-2", "shop", "acme", "edge", "n1", "a.b", "web+x"}
)

// randomCase makes a case. Values and names often fit together, so that many requests find a
// metric.
func randomCase(rng *rand.Rand, id int) *ruletest.Case {
	c := &ruletest.Case{ID: fmt.Sprintf("random %d", id), ExtraResources: []any{"tenants", "knative"}}
	doc := yaml.MapSlice{}
	rules := func(n int) []any {
		all := []any{}
		for range n {
			all = append(all, randomRule(rng))
		}
		return all
	}
	if n := rng.IntN(3); n > 0 {
		doc = append(doc, yaml.MapItem{Key: "rules", Value: rules(n)})
	}
	if n := rng.IntN(3); n > 0 {
		doc = append(doc, yaml.MapItem{Key: "externalRules", Value: rules(n)})
	}
	if chance(rng, 8) {
		doc = append(doc, yaml.MapItem{Key: "resourceRules", Value: randomResourceRules(rng)})
	}
	if chance(rng, 100) {
		doc = append(doc, yaml.MapItem{Key: pick(rng, "Rules", "rule", "externalrules"), Value: rules(1)})
	}
	text, err := yaml.Marshal(doc)
	if err != nil {
		panic(err) // the values are fixed
	}
	c.Config = string(text)
	if chance(rng, 150) {
		c.Config = strings.Replace(c.Config, ":", pick(rng, "", ": :", ":\t"), 1)
	}
	c.SeriesAnswerIsNull = chance(rng, 100)
	for range 1 + rng.IntN(4) {
		c.Series = append(c.Series, randomSeries(rng))
	}
	return c
}

// rarely picks one of the bad once in forty times.
func rarely(rng *rand.Rand, good, bad []string) string {
	if chance(rng, 40) {
		return pick(rng, bad...)
	}
	return pick(rng, good...)
}

func randomSeries(rng *rand.Rand) string {
	var parts []string
	seen := map[string]bool{}
	for _, l := range distinct(rng, labelNames, 1+rng.IntN(5)) {
		if l = oddly(rng, 12, l, oddLabels); seen[l] {
			continue
		}
		seen[l] = true
		parts = append(parts, fmt.Sprintf("%q=%q", l, oddly(rng, 10, pick(rng, values...), oddValues)))
	}
	return fmt.Sprintf("{%q,%s}", oddly(rng, 6, pick(rng, seriesNames...), oddSeries), strings.Join(parts, ","))
}

func distinct(rng *rand.Rand, from []string, n int) []string {
	all := slices.Clone(from)
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:min(n, len(all))]
}

func randomRule(rng *rand.Rand) yaml.MapSlice {
	query := pick(rng, seriesNames[:9]...)
	switch rng.IntN(7) {
	case 4:
		query = fmt.Sprintf("{__name__=~%q}", oddRegexp(rng, oddly(rng, 2, pick(rng, seriesNames...), oddSeries)))
	case 0:
		query = fmt.Sprintf("{__name__=~%q,%s}", pick(rng, "^container_.*", ".*_total", "^.*$", "http.*"), pick(rng, matchers...))
	case 1:
		query = "{" + pick(rng, matchers...) + "}"
	case 2:
		query += "{" + pick(rng, matchers...) + "}"
	case 3:
		query = `{__name__!=""}`
		if chance(rng, 5) {
			query = pick(rng, `{__name__=~".*"}`, `{namespace=~".*"}`, "{")
		}
	}
	rule := yaml.MapSlice{{Key: "seriesQuery", Value: query}}
	if chance(rng, 3) {
		f := yaml.MapSlice{{Key: pick(rng, "is", "isNot"), Value: oddly(rng, 6, rarely(rng, filters, badFilters), oddFilters)}}
		if chance(rng, 60) {
			f = append(f, yaml.MapItem{Key: pick(rng, "is", "isNot", "isnot"), Value: "x"})
			if f[0].Key == f[1].Key {
				f = f[:1]
			}
		}
		rule = append(rule, yaml.MapItem{Key: "seriesFilters", Value: []any{f}})
	}
	rule = append(rule, yaml.MapItem{Key: "resources", Value: randomMapping(rng)})
	if name := (yaml.MapSlice{{Key: "matches", Value: oddly(rng, 6, rarely(rng, matches, badMatches), oddMatches)}, {Key: "as", Value: oddly(rng, 6, pick(rng, as...), oddAs)}}); !chance(rng, 4) {
		rule = append(rule, yaml.MapItem{Key: "name", Value: name})
	}
	text := rarely(rng, queries, badQueries)
	if chance(rng, 2) {
		text = (&grammar{rng: rng}).query()
	}
	return append(rule, yaml.MapItem{Key: "metricsQuery", Value: text})
}

func randomMapping(rng *rand.Rand) yaml.MapSlice {
	m := yaml.MapSlice{}
	if chance(rng, 10) {
		return m
	}
	template := oddly(rng, 10, rarely(rng, templates, badTemplates), oddTemplates)
	if template != "" {
		m = append(m, yaml.MapItem{Key: "template", Value: template})
	}
	if template == "" || chance(rng, 2) {
		over := yaml.MapSlice{}
		if !chance(rng, 4) {
			over = append(over, yaml.MapItem{Key: pick(rng, "namespace", "namespace", "kube_namespace", "exported_namespace", "k8s.namespace.name"), Value: yaml.MapSlice{{Key: "resource", Value: "namespace"}}})
		}
		// Two labels of one resource are left out: which of them v0.12.0 asks for is random.
		used := map[string]bool{"namespace": true}
		for _, l := range distinct(rng, labelNames[1:], rng.IntN(3)) {
			r := pick(rng, resources...)
			if r[1] == "queue" && !chance(rng, 4) {
				continue
			}
			singular := strings.TrimSuffix(r[1], "s")
			if l == "exported_namespace" || l == "kube_namespace" || used[singular] {
				continue
			}
			used[singular] = true
			over = append(over, yaml.MapItem{Key: oddly(rng, 15, l, oddLabels), Value: yaml.MapSlice{{Key: "group", Value: r[0]}, {Key: "resource", Value: r[1]}}})
		}
		m = append(m, yaml.MapItem{Key: "overrides", Value: over})
	}
	if chance(rng, 5) {
		m = append(m, yaml.MapItem{Key: "namespaced", Value: chance(rng, 2)})
	}
	return m
}

func randomResourceRules(rng *rand.Rand) yaml.MapSlice {
	rule := func() yaml.MapSlice {
		over := yaml.MapSlice{}
		for _, of := range [][2]string{{"instance", "node"}, {"namespace", "namespace"}, {"pod", "pod"}} {
			if !chance(rng, 12) {
				over = append(over, yaml.MapItem{Key: of[0], Value: yaml.MapSlice{{Key: "resource", Value: of[1]}}})
			}
		}
		return yaml.MapSlice{
			{Key: "containerQuery", Value: "sum by (<<.GroupBy>>) (rate(cpu{container!=\"\",<<.LabelMatchers>>}[3m]))"},
			{Key: "nodeQuery", Value: "sum(cpu{<<.LabelMatchers>>, id=\"/\"}) by (<<.GroupBy>>)"},
			{Key: "resources", Value: yaml.MapSlice{{Key: "overrides", Value: over}}},
			{Key: "containerLabel", Value: pick(rng, "container", "container", "")},
		}
	}
	return yaml.MapSlice{{Key: "cpu", Value: rule()}, {Key: "memory", Value: rule()}, {Key: "window", Value: pick(rng, "3m", "90s", "1h")}}
}

// randomRequests asks for metrics that there are, and for some that there are not.
func randomRequests(rng *rand.Rand, custom, external []string, figures bool) []ruletest.Request {
	var all []ruletest.Request
	for range 4 {
		q := ruletest.Request{API: "custom", MetricSelector: pick(rng, selectors...), Name: pick(rng, names...), Metric: pick(rng, "up", "http_requests", "queue_depth", "none")}
		q.Resource, q.Namespace = pick(rng, asked...), pick(rng, "", "shop", "default")
		switch {
		case len(external) > 0 && chance(rng, 3):
			q.API, q.Resource, q.Name, q.Metric, q.Namespace = "external", "", "", pick(rng, external...), pick(rng, "shop", "default")
		case figures && chance(rng, 2):
			q.API, q.Metric, q.MetricSelector, q.Name = "resource", "", "", ""
			q.Resource, q.Namespace = "pods", "shop"
			if chance(rng, 2) {
				q.Resource, q.Namespace = "nodes", ""
			}
			q.Objects = distinct(rng, names, 1+rng.IntN(3))
		case len(custom) > 0 && !chance(rng, 10):
			m := pick(rng, custom...)
			resource, rest, _ := strings.Cut(m, "/")
			metric, scope, _ := strings.Cut(rest, " ")
			q.Resource, q.Metric, q.Namespace = resource, metric, ""
			if scope == "(namespaced)" || chance(rng, 20) {
				q.Namespace = "shop"
			}
		}
		if q.API == "custom" && chance(rng, 2) {
			q.Name, q.Objects = "*", distinct(rng, names, rng.IntN(4))
		}
		all = append(all, q)
	}
	return all
}

// randomAnswers gives requests answers whose labels fit their queries more often than not.
func randomAnswers(rng *rand.Rand, all []ruletest.Request, outcome *ruletest.Outcome) {
	for i := range all {
		q := &all[i]
		if chance(rng, 12) {
			v := pick(rng, numbers...)
			q.ScalarAnswer = &v
			continue
		}
		text := ""
		if len(outcome.Requests) > i && len(outcome.Requests[i].PromQL) > 0 {
			text = outcome.Requests[i].PromQL[0]
		}
		seen := map[string]bool{}
		for range rng.IntN(5) {
			s := ruletest.Sample{Labels: map[string]string{}, Value: pick(rng, numbers...)}
			for _, l := range append(distinct(rng, labelNames, 1), "container", "instance") {
				if chance(rng, 3) {
					s.Labels[l] = pick(rng, names...)
				}
			}
			for _, l := range labelNames {
				if strings.Contains(text, "by ("+l) || strings.Contains(text, l+"=") && !chance(rng, 4) {
					s.Labels[l] = pick(rng, append(names, q.Name, "shop")...)
					if len(q.Objects) > 0 {
						s.Labels[l] = pick(rng, append(q.Objects, "shop")...)
					}
				}
			}
			if key := fmt.Sprint(s.Labels); !seen[key] { // Prometheus gives no two samples of the same labels
				seen[key] = true
				q.Answer = append(q.Answer, s)
			}
		}
	}
}
