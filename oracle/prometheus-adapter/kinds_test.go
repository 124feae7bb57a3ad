package adapter_test

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-autoscaler/sluice/adapter/rules/config"
	"github.com/sluice-autoscaler/sluice/adapter/rules/ruletest"
	"github.com/sluice-autoscaler/sluice/prom/promql"
)

// kinds are the documented differences, each with its anchor in docs/from-prometheus-adapter.md.
var kinds = map[string]string{
	"waits":       "a-resource-that-is-not-installed",
	"selector":    "a-selector-that-prometheus-refuses",
	"no-query":    "a-rule-without-a-query",
	"empty-name":  "a-metric-without-a-name",
	"group-label": "groups-in-labels",
	"root":        "objects-outside-of-namespaces",
	"clash":       "two-series-for-one-name",
	"quoted":      "values-after-a-regular-expression-operator",
	"promql":      "queries-that-were-no-promql",
	"operator":    "operators-that-prometheus-does-not-have",
	"not-equal":   "selectors-with-",
	"cause":       "errors-with-their-cause",
	"no-matchers": "queries-that-need-no-namespace",
	"duplicates":  "several-series-for-one-object",
	"namespaces":  "one-name-in-two-namespaces",
	"nan":         "nan-and-infinite-values",
	"saturated":   "values-too-large",
	"scalar":      "numbers-without-labels",
	"figures":     "resource-rules",
}

// failer is what a comparison tells.
type failer interface {
	Errorf(format string, args ...any)
	Helper()
}

// pair is what came out of one case on both sides.
type pair struct {
	t            failer
	c            *ruletest.Case
	theirs, ours *ruletest.Outcome
	// reduced is what v0.12.0 makes of the rules without those that it stops at and Sluice does
	// not; nil if there are none. reason is the kind of difference.
	reduced *ruletest.Outcome
	reason  string
	// again answers another request by v0.12.0.
	again func(q *ruletest.Request) ruletest.RequestOutcome
	seen  map[string]int
}

// compare demands that all is equal, or differs in a documented way.
func (p *pair) compare() {
	p.t.Helper()
	if p.reduced != nil {
		p.seen[p.reason]++
		if p.theirs.Startup == "ok" && p.theirs.RelistError == "" {
			p.t.Errorf("%s: v0.12.0 takes a rule that Sluice does not", p.c.ID)
		}
		p.theirs = p.reduced
		p.ours.RelistError = p.reduced.RelistError // Sluice's names the first of the bad rules
	}
	if strings.Contains(p.theirs.Startup, "unable to normalize group-resource") && strings.HasPrefix(p.ours.Startup, "fails: ") {
		p.seen["waits"]++ // the rule has another fault besides, and that one stops both
		return
	}
	if p.theirs.Startup != p.ours.Startup {
		p.t.Errorf("%s: startup is %q, want %q", p.c.ID, p.ours.Startup, p.theirs.Startup)
		return
	}
	if p.ours.Startup != "ok" {
		return
	}
	if p.theirs.RelistError != p.ours.RelistError {
		p.t.Errorf("%s: relistError is %q, want %q", p.c.ID, p.ours.RelistError, p.theirs.RelistError)
	}
	p.names("customMetrics", p.theirs.CustomMetrics, p.ours.CustomMetrics)
	p.names("externalMetrics", p.theirs.ExternalMetrics, p.ours.ExternalMetrics)
	for i := range p.c.Requests {
		p.request(&p.c.Requests[i], &p.theirs.Requests[i], &p.ours.Requests[i], i)
	}
}

// rule reports whether a text stands in the rules.
func (p *pair) rule(text string) bool { return strings.Contains(p.c.Config, text) }

// blank reports whether a rule has no query.
func (p *pair) blank() bool {
	c, err := config.Parse([]byte(p.c.Config))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(slices.Concat(c.Rules, c.ExternalRules), func(r config.DiscoveryRule) bool { return strings.TrimSpace(r.MetricsQuery) == "" })
}

// names compares lists of metrics.
func (p *pair) names(field string, theirs, ours []string) {
	for _, m := range theirs {
		if slices.Contains(ours, m) {
			continue
		}
		root := strings.Replace(m, " (namespaced)", " (root)", 1)
		switch {
		case strings.Contains(m, "/ (") || m == "":
			p.seen["empty-name"]++
		case root != m && slices.Contains(ours, root):
			p.seen["root"]++
		case p.blank():
			p.seen["no-query"]++
		default:
			p.t.Errorf("%s: %s lack %s; they are %q", p.c.ID, field, m, ours)
		}
	}
	for _, m := range ours {
		if slices.Contains(theirs, m) {
			continue
		}
		namespaced := strings.Replace(m, " (root)", " (namespaced)", 1)
		switch {
		case namespaced != m && slices.Contains(theirs, namespaced):
		case field == "customMetrics" && p.rule(".Group"):
			p.seen["group-label"]++
		default:
			p.t.Errorf("%s: %s have %s, which v0.12.0 does not", p.c.ID, field, m)
		}
	}
}

var escaped = regexp.MustCompile(`\\\\([.+|])|\[([.+|])\]`)

// request compares one request.
func (p *pair) request(q *ruletest.Request, theirs, ours *ruletest.RequestOutcome, i int) {
	fail := func(what string) {
		p.t.Errorf("%s: requests[%d] %+v: %s:\nhave %+v\nwant %+v", p.c.ID, i, *q, what, *ours, *theirs)
	}
	if theirs.Status == ours.Status && theirs.Error == ours.Error && slices.Equal(theirs.Values, ours.Values) && slices.Equal(theirs.PromQL, ours.PromQL) {
		return
	}
	if q.API == "resource" {
		p.figures(q, theirs, ours, fail)
		return
	}
	// Which query was sent.
	if !slices.Equal(theirs.PromQL, ours.PromQL) {
		switch {
		case ours.Status == 400 && len(ours.PromQL) == 0:
			p.seen["operator"]++ // v0.12.0 fails as well, with another status
			if theirs.Status == 200 {
				fail("refused, though v0.12.0 answers")
			}
			return
		case len(theirs.PromQL) == 1 && len(ours.PromQL) == 1 && invalid(theirs.PromQL[0]):
			p.seen["promql"]++
			return
		case len(theirs.PromQL) == 1 && len(ours.PromQL) == 1 && theirs.PromQL[0] == escaped.ReplaceAllString(ours.PromQL[0], "$1$2"):
			p.seen["quoted"]++
		case len(ours.PromQL) == 0 && strings.Contains(ours.Error+ours.Cause, "both make it"):
			p.seen["clash"]++
			return
		case len(theirs.PromQL) == 0 && theirs.Status != 200 && p.blank():
			p.seen["no-query"]++ // the rule without a query came last
			return
		case len(theirs.PromQL) == 0 && theirs.Status == 404 && q.Namespace == "" && strings.HasPrefix(q.Resource, "tenants"):
			p.seen["root"]++
			return
		case len(theirs.PromQL) == 0 && theirs.Status == 404 && p.rule(".Group"):
			p.seen["group-label"]++
			return
		case len(theirs.PromQL) == 0 && len(ours.PromQL) == 1 && !strings.Contains(ours.PromQL[0], "namespace=\"") && (theirs.Status == 500 || theirs.Status == 404):
			p.seen["no-matchers"]++
			return
		default:
			fail("another query")
			return
		}
	}
	if theirs.Status == ours.Status && theirs.Error == ours.Error && slices.Equal(theirs.Values, ours.Values) {
		return
	}
	p.answer(q, theirs, ours, fail)
}

func invalid(text string) bool {
	_, err := promql.Parse(text)
	return err != nil
}

// answer compares what an equal query's answer was made of.
func (p *pair) answer(q *ruletest.Request, theirs, ours *ruletest.RequestOutcome, fail func(string)) {
	unusual := unusual(q)
	text := ours.Error + ours.Cause
	switch {
	case strings.HasPrefix(ours.Error, theirs.Error+": ") && ours.Status == theirs.Status:
		p.seen["cause"]++
	case strings.Contains(text, "both make it"):
		p.seen["clash"]++
	case strings.Contains(theirs.Error, "is not a valid label selector operator") && strings.Contains(q.MetricSelector, "!="):
		p.seen["not-equal"]++
	case ours.Status == 400:
		p.seen["operator"]++
		if theirs.Status == 200 {
			fail("refused, though v0.12.0 answers")
		}
	case q.ScalarAnswer != nil && q.API == "custom":
		p.seen["scalar"]++
	case ours.Status == 500 && strings.Contains(text, "samples for it"):
		p.seen["duplicates"]++
	case q.API == "external" && unusual && ours.Status == 503 && nan(q):
		p.seen["nan"]++
	case q.API == "external" && unusual && !nan(q) && ours.Status == 200:
		p.without(q, ours, fail, "saturated")
	case q.API == "custom" && (unusual || p.elsewhere(q)):
		p.without(q, ours, fail, "")
	default:
		fail("another answer")
	}
}

// without runs v0.12.0 again without the samples that Sluice does not take for values of the
// objects asked for: those that are no number, and those of other namespaces, by each label that may name
// them. Values too large are replaced by a mark. Then the answers must be
// equal, or Sluice's says that what is left is not known.
func (p *pair) without(q *ruletest.Request, ours *ruletest.RequestOutcome, fail func(string), kind string) {
	got := strings.Join(ours.Values, "\n")
	got = strings.ReplaceAll(strings.ReplaceAll(got, "-9223372036854775808m", "-424242424242"), "9223372036854775807m", "424242424242")
	for _, label := range []string{"", "namespace", "kube_namespace", "exported_namespace", "k8s.namespace.name", "namespaces"} {
		less := *q
		less.Answer = nil
		if text := q.ScalarAnswer; text != nil && !finite(*text) {
			largest := "424242424242"
			if strings.HasPrefix(*text, "-") {
				largest = "-" + largest
			}
			less.ScalarAnswer = &largest
		}
		unknown := false
		for _, s := range q.Answer {
			v, err := strconv.ParseFloat(s.Value, 64)
			ns, has := s.Labels[label]
			switch {
			case label != "" && has && ns != q.Namespace:
				continue
			case err != nil || math.IsNaN(v) || math.IsInf(v, 0):
				unknown = true
				continue
			case !finite(s.Value):
				s.Value = "424242424242"
				if v < 0 {
					s.Value = "-424242424242"
				}
			}
			less.Answer = append(less.Answer, s)
		}
		again := p.again(&less)
		switch {
		case again.Status == ours.Status && again.Error == ours.Error && strings.Join(again.Values, "\n") == got:
		case unknown && ours.Status == 503 && (again.Status == 404 || slices.Equal(again.Values, []string{"(empty list)"})):
		default:
			continue
		}
		switch {
		case kind != "":
		case label != "":
			kind = "namespaces"
		case unknown:
			kind = "nan"
		default:
			kind = "saturated"
		}
		p.seen[kind]++
		return
	}
	fail("another answer, also without the samples that are no values")
}

// elsewhere reports whether a sample may be of another namespace.
func (p *pair) elsewhere(q *ruletest.Request) bool {
	return q.Namespace != "" && slices.ContainsFunc(q.Answer, func(s ruletest.Sample) bool {
		for _, l := range []string{"namespace", "kube_namespace", "exported_namespace", "k8s.namespace.name", "namespaces"} {
			if v, ok := s.Labels[l]; ok && v != q.Namespace {
				return true
			}
		}
		return false
	})
}

// nan reports whether an answer has a value that is no number.
func nan(q *ruletest.Request) bool {
	not := func(text string) bool {
		v, err := strconv.ParseFloat(text, 64)
		return err != nil || math.IsNaN(v) || math.IsInf(v, 0)
	}
	return slices.ContainsFunc(q.Answer, func(s ruletest.Sample) bool { return not(s.Value) }) || q.ScalarAnswer != nil && not(*q.ScalarAnswer)
}

// unusual reports whether an answer has a value that is no quantity.
func unusual(q *ruletest.Request) bool {
	return slices.ContainsFunc(q.Answer, func(s ruletest.Sample) bool { return !finite(s.Value) }) || q.ScalarAnswer != nil && !finite(*q.ScalarAnswer)
}

// figures compares the answers to resource requests.
func (p *pair) figures(q *ruletest.Request, theirs, ours *ruletest.RequestOutcome, fail func(string)) {
	switch {
	case theirs.Status == 404 && ours.Status == 404:
	case ours.Status == 500 && theirs.Status == 200:
		p.seen["figures"]++
	case ours.Status == 200 && theirs.Status == 200 && slices.Equal(theirs.PromQL, ours.PromQL) && unusual(q):
		p.seen["figures"]++ // what is not known is left out
		for _, v := range ours.Values {
			if !slices.Contains(theirs.Values, v) && !strings.Contains(v, "9223372036854775807m") {
				fail("another figure")
			}
		}
	case escaped.ReplaceAllString(strings.Join(ours.PromQL, "\n"), "$1$2") == strings.Join(theirs.PromQL, "\n"):
		p.seen["quoted"]++
	default:
		fail("other figures")
	}
}
