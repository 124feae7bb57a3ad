package promql_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/prom/promql"
)

func TestGroupable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		query string
		why   string // "" where one query serves all pods
	}{
		{`sum(rate(x{ns="a",pod!=""}[5m])) by (pod)`, ""},
		{`x{pod!=""}`, ""},
		{`max by (pod, le) (x{pod!=""}) / 2 + 1`, ""},
		{`sum without (method) (x{pod!=""})`, ""},
		{`sum by (namespace) (llm_waiting)`, ""}, // the same whoever asks
		{`histogram_quantile(0.99, sum(rate(x_bucket{pod!=""}[2m])) by (le, pod))`, ""},
		{`sum by (pod) (x{pod!=""}) / on (pod) sum by (pod) (y{pod!=""})`, ""},
		{`sum by (pod) (x{pod!=""}) / on (pod) group_left sum by (pod) (y)`, ""},
		{`sum by (pod) (x{pod!=""}) / ignoring (a) sum by (pod) (y{pod!=""})`, ""},
		{`sum by (pod) (x{pod!=""} or y{pod!=""} unless z)`, ""},
		{`sum by (pod) (max_over_time(rate(x{pod!=""}[1m])[5m:1m]))`, ""},
		{`label_replace(x{pod!=""}, "a", "$1", "b", "(.*)")`, ""},
		{`x{pod!=""} > bool 1`, ""},
		{`x{pod!=""} / scalar(sum(y))`, ""},
		{`sum by (pod) (x{pod!=""}) or vector(0)`, ""},

		{`sum(x{pod!=""})`, "sum does not keep the label pod"},
		{`sum by (ns) (x{pod!=""})`, "sum does not keep the label pod"},
		{`sum without (pod) (x{pod!=""})`, "sum does not keep the label pod"},
		{`topk(3, x{pod!=""})`, "topk stands over the objects"},
		{`bottomk by (pod) (3, x{pod!=""})`, "bottomk stands over the objects"},
		{`limitk(3, x{pod!=""})`, "limitk stands over the objects"},
		{`limit_ratio(0.5, x{pod!=""})`, "limit_ratio stands over the objects"},
		{`quantile by (pod) (0.5, x{pod!=""})`, "quantile stands over the objects"},
		{`count_values by (pod) ("v", x{pod!=""})`, "count_values stands over the objects"},
		{`absent(x{pod!=""})`, "absent stands over the objects"},
		{`absent_over_time(x{pod!=""}[5m])`, "absent_over_time stands over the objects"},
		{`vector(scalar(x{pod!=""}))`, "scalar stands over the objects"},
		{`topk(scalar(x{pod!=""}), y)`, "scalar stands over the objects"},
		{`x{pod!=""} / on (ns) y{pod!=""}`, "the match of / does not include the label pod"},
		{`x{pod!=""} / on (ns) group_left sum by (ns) (y)`, "the match of / does not include the label pod"},
		{`x{pod!=""} / ignoring (pod) y{pod!=""}`, "the match of / does not include the label pod"},
		{`sum by (pod) (x{pod!=""}) or on () vector(0)`, "the match of or does not include the label pod"},
		{`label_replace(x{pod!=""}, "pod", "$1", "b", "(.*)")`, "label_replace writes the label pod"},
		{`label_join(x{pod!=""}, "pod", "-", "a", "b")`, "label_join writes the label pod"},
		{`info(x{pod!=""})`, "info stands over the objects"},
	} {
		q, err := promql.Parse(c.query)
		if err != nil {
			t.Errorf("%s: %v", c.query, err)
			continue
		}
		ok, why := q.Groupable("pod")
		if ok != (c.why == "") || why != c.why {
			t.Errorf("%s: groupable %v, %q; want %q", c.query, ok, why, c.why)
		}
	}
	q, err := promql.Parse(`histogram_quantile(0.9, x{le!=""})`)
	if err != nil {
		t.Fatal(err)
	}
	if ok, why := q.Groupable("le"); ok {
		t.Errorf("a quantile by le is groupable: %s", why)
	}
}

func TestKeeps(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ query, has, lacks, names string }{
		{`x`, "pod,le", "__name__", ""},
		{`sum(x)`, "", "pod", ""},
		{`sum by (pod, ns) (x)`, "pod,ns", "le", "ns,pod"},
		{`sum without (le) (x)`, "pod", "le", ""},
		{`sum by (pod) (sum by (ns) (x))`, "", "pod,ns", ""},
		{`topk by (ns) (1, sum by (pod) (x))`, "pod", "ns", "pod"},
		{`histogram_quantile(0.9, sum by (le, pod) (x))`, "pod", "le", "pod"},
		{`label_replace(sum by (pod) (x), "svc", "a", "pod", ".*")`, "pod,svc", "ns", "pod,svc"},
		{`count_values by (pod) ("v", x)`, "pod,v", "ns", "pod,v"},
		{`sum by (pod) (x) / on (pod) group_left (node) y`, "pod,node", "ns", "node,pod"},
		{`x / on (pod) y`, "pod", "ns", "pod"},
		{`x / ignoring (le) y`, "pod", "le", ""},
		{`sum by (pod) (x) or sum by (ns) (y)`, "pod,ns", "le", "ns,pod"},
		{`sum by (pod) (x) and y`, "pod", "ns", "pod"},
		{`2 * sum by (pod) (x)`, "pod", "ns", "pod"},
		{`vector(1)`, "", "pod", ""},
		{`-(sum by (pod) (rate(x[5m])))`, "pod", "ns", "pod"},
	} {
		q, err := promql.Parse(c.query)
		if err != nil {
			t.Errorf("%s: %v", c.query, err)
			continue
		}
		keeps := q.Keeps()
		for name := range strings.SplitSeq(c.has, ",") {
			if name != "" && !keeps.Has(name) {
				t.Errorf("%s: the label %s is lost", c.query, name)
			}
		}
		for name := range strings.SplitSeq(c.lacks, ",") {
			if keeps.Has(name) {
				t.Errorf("%s: the label %s is kept", c.query, name)
			}
		}
		if got := strings.Join(keeps.Names(), ","); got != c.names {
			t.Errorf("%s: the labels are %s, want %s", c.query, got, c.names)
		}
	}
}

func TestInspect(t *testing.T) {
	t.Parallel()
	q, err := promql.Parse(`sum by (pod) (rate(x{a="b"}[2m]) / y) / 2 + max_over_time(z[1h:1m])`)
	if err != nil {
		t.Fatal(err)
	}
	if got := q.NaN(); len(got) != 1 || got[0] != "… / y" {
		t.Errorf("NaN comes from %q", got)
	}
	if got := q.Window(); got != time.Hour {
		t.Errorf("the window is %s", got)
	}
	if got := q.Selectors(); len(got) != 3 || got[0].Name() != "x" {
		t.Errorf("the selectors are %v", got)
	}
	if q.Scalar() {
		t.Error("it is a scalar")
	}
}

func TestSelectors(t *testing.T) {
	t.Parallel()
	series, err := promql.ParseSeries(`http.requests{}`)
	if err == nil {
		t.Errorf("a bare name with dots gives %v", series)
	}
	if series, err = promql.ParseSeries(`{"http.requests",pod="a","k8s.x"="y"}`); err != nil || series["__name__"] != "http.requests" || series["k8s.x"] != "y" {
		t.Errorf("ParseSeries = %v, %v", series, err)
	}
	s, err := promql.ParseSelector(`{__name__=~"http.*",pod!="",gone=""}`)
	if err != nil || !s.Matches(series) || s.Name() != "" {
		t.Errorf("it does not match: %v", err)
	}
	if got, want := s.Named("a.b"), `{__name__="a.b",pod!="",gone=""}`; got != want {
		t.Errorf("Named = %s, want %s", got, want)
	}
	for text, want := range map[string]string{
		`{a=~".*"}`: "match[] must contain at least one non-empty matcher", `{`: `invalid parameter "match[]": 1:2: parse error`, "sum(up)": "invalid parameter",
		strings.Repeat("(", 500): "nested deeper than 200", strings.Repeat("x", 2<<20): "want at most",
	} {
		if _, err := promql.ParseSelector(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseSelector(%.20s): %v, want %s", text, err, want)
		}
	}
}

// FuzzParse: no text makes the analysis panic or run on.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{`sum(rate(x{pod!=""}[5m])) by (pod)`, `topk(1, x) or on() vector(0)`, `x @ end() offset 5m`, `{"a.b"}`, `histogram_quantile(0.9, x)`} {
		f.Add(seed)
	}
	f.Fuzz(func(_ *testing.T, text string) {
		if len(text) > 4096 {
			return
		}
		if q, err := promql.Parse(text); err == nil {
			q.Groupable("pod")
			q.Keeps()
			q.NaN()
			q.Window()
			q.Selectors()
		}
		if s, err := promql.ParseSelector(text); err == nil {
			s.Matches(map[string]string{"pod": "a"})
			s.Named("x")
		}
	})
}
