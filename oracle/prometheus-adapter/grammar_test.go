package adapter_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
)

// What people do not write, and a tenant who names series or labels may.
var (
	oddSeries = []string{
		"_", ":", "a:b:c", "__meta", "total", "_total", "x_total_total", strings.Repeat("long_", 60) + "total", "9lives", "http-requests", "sum", "by", "NaN", "quote\"d", "back\\slash",
		"new\nline", "sp ace", "日本_total", "<<.Series>>", "{}", "a{b=\"c\"}", "$1", "${1}_total", "#", "`",
	}
	oddLabels = []string{
		"__replica__", "_", "a:b", "k8s.namespace.name", "app.kubernetes.io/name", "Pod", "pods", "services", "nodes", "deployments", "kube_deployment", "kube_apps_deployments",
		"kube_batch_job", "exported_service", "sum", "by", "été", "sp ace", "quote\"d", "<<.GroupBy>>", "$1", "on", "le\n",
	}
	oddValues    = []string{"", "a\"b", "a\\b", "a\nb", "a|b", ".*", "[x]", "$1", "été", "<<.Series>>", "{}", "'", "`", strings.Repeat("v", 300)}
	oddMatches   = []string{`^(.*?)_total$`, `(a|b)`, `^(?i)HTTP_(.*)$`, `\w+$`, `^(_|:)`, `^.{3}(.*)$`, `^([a-z]+)_([a-z]+)_.*$`, `\d+`, `^$`, `^(long_)+(.*)$`}
	oddAs        = []string{"${1}_${2}", "$2_$1", "${1}${1}", "${0}_x", "$1$", "$$1", "é_$1", "a b", "a/b", "${1", "$", "$10", "per second"}
	oddFilters   = []string{`^[a-z]`, `_`, `[^a-z_:]`, `(?i)TOTAL`, `^.{1,10}$`, `"`, `\n`, `total$|count$`, `^(?:a|h)`}
	oddTemplates = []string{
		"<<.Resource>>_<<.Group>>", "<<.Group>>", "x_<<.Resource>>_y", "<<.Resource>><<.Resource>>", "<<printf \"%s\" .Resource>>", "<<if eq .Resource \"pod\">>p<<else>><<.Resource>><<end>>",
		"k8s.<<.Resource>>.name", "<<with .Group>><<.>>_<<end>><<.Resource>>", "<<.Resource>>.*", "^<<.Resource>>$", "_<<.Resource>>",
	}
)

// grammar makes the text of a template for a query. Depth bounds it.
type grammar struct {
	rng   *rand.Rand
	depth int
}

func (g *grammar) one(of ...string) string { return pick(g.rng, of...) }

// query is a whole template.
func (g *grammar) query() string {
	q := g.vector()
	switch g.rng.IntN(12) {
	case 0:
		q = "<<if .LabelMatchers>>" + q + "<<else>>" + g.vector() + "<<end>>"
	case 1:
		q = "<<with .Series>>" + strings.ReplaceAll(q, "<<.", "<<$.") + "<<end>>"
	case 2:
		q = "  " + strings.ReplaceAll(q, " ", "\n\t") + " # <<.Series>>, {<<.LabelMatchers>>}\n"
	case 3:
		q = "<<- /* a comment */ ->> " + q
	case 4:
		q = strings.ReplaceAll(q, "<<.", "<< .")
	}
	return q
}

// vector is an expression of samples.
func (g *grammar) vector() string {
	if g.depth++; g.depth > 4 {
		return g.selector()
	}
	switch g.rng.IntN(14) {
	case 0, 1, 2, 3:
		op := g.one("sum", "sum", "avg", "max", "min", "count", "stddev", "group")
		if chance(g.rng, 2) {
			return fmt.Sprintf("%s(%s) by (%s)", op, g.vector(), g.groups())
		}
		return fmt.Sprintf("%s by (%s) (%s)", op, g.groups(), g.vector())
	case 4, 5:
		return fmt.Sprintf("%s(%s[%s])", g.one("rate", "increase", "avg_over_time", "max_over_time", "deriv"), g.selector(), g.one("1m", "5m", "1h30m", "30s"))
	case 6:
		return fmt.Sprintf("%s %s %s", g.vector(), g.one("/", "*", "+", "-", "> bool", "or", "and", "unless", "/ ignoring(le)", "/ on(pod)", "* on(namespace) group_left"), g.vector())
	case 7:
		return fmt.Sprintf("%s(%s, %s)", g.one("topk", "bottomk", "quantile"), g.one("1", "0.9"), g.vector())
	case 8:
		return fmt.Sprintf("histogram_quantile(%s, sum(rate(%s[5m])) by (le, %s))", g.one("0.99", "0.5"), g.selector(), g.groups())
	case 9:
		return fmt.Sprintf("%s(%s)", g.one("abs", "ceil", "floor", "sqrt", "-", "scalar", "vector(1) * scalar", "absent", "sort_desc"), g.vector())
	case 10:
		return fmt.Sprintf(`label_replace(%s, %q, "$1", %q, "(.*)")`, g.vector(), g.one("pod", "namespace", "x"), g.one("pod", "job"))
	case 11:
		return fmt.Sprintf("(%s)", g.vector())
	case 12:
		return fmt.Sprintf("sum without (%s) (%s)", g.one("le", "instance, job", "<<.GroupBy>>"), g.vector())
	}
	return g.selector()
}

// groups are what is grouped by.
func (g *grammar) groups() string {
	return g.one("<<.GroupBy>>", "<<.GroupBy>>", "<<.GroupBy>>", "<<.GroupBy>>, le", "le,<<.GroupBy>>", "namespace, pod", "", "<<index .GroupBySlice 0>>",
		"<<range $i, $l := .GroupBySlice>><<if $i>>,<<end>><<$l>><<end>>", "<<len .GroupBySlice>>", "<<.GroupBy>>,<<.GroupBy>>", `<<printf "%s" .GroupBy>>`)
}

// selector is a selector of the series, or of another one.
func (g *grammar) selector() string {
	name := g.one("<<.Series>>", "<<.Series>>", "<<.Series>>", "<<.Series>>", "<<.Series>>", "other_total", "", "<<.Series>>_bucket", `<<printf "%s" .Series>>`)
	var parts []string
	for range g.rng.IntN(3) {
		parts = append(parts, g.one(`container!="POD"`, `job="a,b"`, `path=~"/api/.*"`, `q="{,}"`, `code!~"5.."`, `x='y'`, "z=`w`", `pod=~"<<index .LabelValuesByName "pod">>"`,
			`namespace="<<.LabelValuesByName.namespace>>"`, `<<range $k, $v := .LabelValuesByName>><<$k>>=~"<<$v>>",<<end>>`, `s="<<.Series>>"`))
	}
	if !chance(g.rng, 5) {
		at := g.rng.IntN(len(parts) + 1)
		parts = append(parts[:at], append([]string{g.one("<<.LabelMatchers>>", "<<.LabelMatchers>>", "<<.LabelMatchers>>", " <<.LabelMatchers>> ", "<<.LabelMatchers>>,")}, parts[at:]...)...)
	}
	if len(parts) == 0 && chance(g.rng, 2) {
		return name
	}
	return name + "{" + strings.Join(parts, g.one(",", ",", ", ")) + "}" + g.one("", "", "", "", " offset 5m", " @ 1700000000")
}

// oddly takes one of the odd ones instead, once in so many.
func oddly(rng *rand.Rand, n int, usual string, odd []string) string {
	if chance(rng, n) {
		return pick(rng, odd...)
	}
	return usual
}

// oddRegexp is an expression that matches a name literally, or nearly.
func oddRegexp(rng *rand.Rand, name string) string {
	return pick(rng, "^", "", "(?i)") + regexp.QuoteMeta(name) + pick(rng, "$", "", ".*")
}
