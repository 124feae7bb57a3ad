package ruletool_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/adapter/fetch"
	"github.com/sluice-autoscaler/sluice/cmd/sluice/ruletool"
)

// An explanation tells the rule, the query, the samples, their age, and the answer or why none.
func TestWriteExplanation(t *testing.T) {
	t.Parallel()
	asked := time.Unix(1000, 0)
	var b strings.Builder
	err := ruletool.WriteExplanation(&b, fetch.Explanation{
		Metric: "jobs", Rule: "rules[1]", Series: "jobs_total", Source: "main", Query: `sum(jobs_total{pod!=""}) by (pod)`, Grouped: true,
		Asked: &asked, AgeSeconds: 2.5, TookSeconds: 0.004, SampleCount: 2,
		Samples: []fetch.ExplainedSample{{Labels: `{pod="a"}`, Value: "NaN", Time: asked}}, Status: 503, Error: "the metric is unknown\x1b[31m",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"metric:   jobs\n", "rule:     rules[1], of the series jobs_total\n", "query:    sum(jobs_total{pod!=\"\"}) by (pod)\n", "serves:   everybody",
		"asked:    Prometheus main 2.5s ago, which took 4ms\n", "sample:   {pod=\"a\"} NaN at 1970-01-01T00:16:40Z\n", "sample:   and 1 more\n", "answer:   503, the metric is unknown",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "\x1b") {
		t.Error("what Prometheus says can steer a terminal")
	}
}
