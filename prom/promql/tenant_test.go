package promql_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/prom/promql"
)

func bounds() promql.Bounds {
	return promql.Bounds{Selectors: 3, Range: time.Hour, Steps: 400}
}

// Every selector, wherever it stands, gets the condition.
func TestNarrow(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`queue`:                                      `queue{namespace="shop"}`,
		`sum(queue{queue="mail"}) / 2`:               `sum(queue{namespace="shop",queue="mail"}) / 2`,
		`queue{namespace="other"}`:                   `queue{namespace="other",namespace="shop"}`,
		`queue{namespace=~".*"} or up`:               `queue{namespace="shop",namespace=~".*"} or up{namespace="shop"}`,
		`{__name__=~".+"}`:                           `{__name__=~".+",namespace="shop"}`,
		`sum(rate(a[5m] offset 1m))`:                 `sum(rate(a{namespace="shop"}[5m] offset 1m))`,
		`max_over_time(sum(a)[10m:30s])`:             `max_over_time(sum(a{namespace="shop"})[10m:30s])`,
		`absent(a) * on() group_left() b`:            `absent(a{namespace="shop"}) * on () group_left () b{namespace="shop"}`,
		`scalar(a) + 1`:                              `scalar(a{namespace="shop"}) + 1`,
		`vector(3)`:                                  `vector(3)`,
		`label_replace(a,"namespace","other","","")`: `label_replace(a{namespace="shop"}, "namespace", "other", "", "")`,
		`topk(scalar(b), a)`:                         `topk(scalar(b{namespace="shop"}), a{namespace="shop"})`,
		`{"utf.8", x="1"}`:                           `{__name__="utf.8",namespace="shop",x="1"}`,
		`count_values("n", a)`:                       `count_values("n", a{namespace="shop"})`,
	} {
		q, err := promql.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		before := q.String()
		n, err := q.Narrow("namespace", "shop", bounds())
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := n.String(); got != want {
			t.Errorf("%s becomes %s, want %s", text, got, want)
		}
		if q.String() != before {
			t.Errorf("%s was changed to %s", before, q)
		}
	}
}

// What costs too much, or reads what it does not name, is refused, and the error says why.
func TestNarrowRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`info(a)`:                                       "calls info",
		`info(a, {k8s_namespace_name="x"})`:             "calls info",
		`a + b + c + d`:                                 "4 selectors: want at most 3",
		`sum(rate(a[2h]))`:                              "reads 2h0m0s back",
		`a offset 61m`:                                  "reads 1h1m0s back",
		`max_over_time(rate(a[40m])[40m:10m])`:          "reads 1h20m0s back",
		`max_over_time(a[50m:1s])`:                      "3000 steps",
		`max_over_time(max_over_time(a[5m:5s])[5m:5s])`: "3600 steps",
		`max_over_time(a[50m:])`:                        "3000 steps",
		`a @ 1`:                                         "instant of its own",
		`sum_over_time(a[5m:1m] @ 1)`:                   "instant of its own",
		`a offset -1m`:                                  "the offset -1m",
		`a[5m]`:                                         "gives a range vector",
		`"text"`:                                        "gives a string",
	} {
		q, err := promql.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if n, err := q.Narrow("namespace", "shop", bounds()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s becomes %v, %v; want an error with %q", text, n, err, want)
		}
	}
}

// FuzzNarrow: whatever a query is, no selector of what comes of it is without the condition.
func FuzzNarrow(f *testing.F) {
	for _, text := range []string{
		"a", "sum(rate(a{b=~`x`}[5m]))", `{__name__!="a"}`, "a and on(x) b", `{"a b"}`, "info(a)", "a[5m:1m]", "-a ^ 2", "a @ end()", `quantile(0.5, a) by (x)`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		q, err := promql.Parse(text)
		if err != nil {
			return
		}
		n, err := q.Narrow("namespace", "shop", bounds())
		if err != nil {
			return
		}
		again, err := promql.Parse(n.String())
		if err != nil {
			t.Fatalf("%q becomes %q: %v", text, n, err)
		}
		for _, s := range again.Selectors() {
			found := false
			for _, m := range s.Matchers() {
				found = found || m == promql.Matcher{Label: "namespace", Operator: "=", Value: "shop"}
			}
			if !found {
				t.Errorf("%q becomes %q, of which a selector reads all namespaces", text, n)
			}
		}
		if strings.Contains(n.String(), "info(") && len(again.Selectors()) == 0 {
			t.Errorf("%q becomes %q", text, n)
		}
	})
}
