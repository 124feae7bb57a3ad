//go:build e2e

package fetch_test

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	metricsapi "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/sluice-autoscaler/sluice/adapter/fetch/source"
	"github.com/sluice-autoscaler/sluice/adapter/rules"
	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
	"github.com/sluice-autoscaler/sluice/adapter/rules/config"
	"github.com/sluice-autoscaler/sluice/adapter/rules/mapping"
	"github.com/sluice-autoscaler/sluice/internal/promtest"
)

const podCount = 12

// fill makes series of pods with known rates: pod i of shop does i jobs per second.
func fill(begin, now time.Time) []promtest.Series {
	all := []promtest.Series{}
	for _, namespace := range []string{"shop", "other"} {
		for i := range podCount {
			for _, code := range []string{"200", "500"} {
				factor := float64(i)
				if namespace == "other" {
					factor = 100
				}
				if code == "500" {
					factor /= 10
				}
				all = append(all, promtest.Series{
					Kind: "counter", Name: "jobs_total", Labels: fmt.Sprintf(`namespace=%q,pod="p%d",code=%q`, namespace, i, code),
					Value: func(at time.Time) (float64, bool) { return factor * at.Sub(begin).Seconds(), true },
				})
			}
		}
	}
	for i := range podCount {
		all = append(all, promtest.Series{
			Kind: "gauge", Name: "depth", Labels: fmt.Sprintf(`namespace="shop",pod="p%d",node="n%d"`, i, i%3),
			Value: func(at time.Time) (float64, bool) {
				return 3 * float64(i) * (1 + math.Sin(at.Sub(begin).Seconds()/60)), i != 7 || at.Before(now.Add(-3*time.Minute))
			},
		})
	}
	return append(all, promtest.Series{
		Kind: "gauge", Name: "queue_depth", Labels: `namespace="shop",queue="mail"`, Value: func(time.Time) (float64, bool) { return 42.5, true },
	})
}

// TestRealPrometheus serves rules from a real Prometheus: names, values, what is unknown, and what
// happens when it goes away.
func TestRealPrometheus(t *testing.T) {
	now := time.Now()
	begin := now.Add(-10 * time.Minute)
	address := promtest.Start(t, promtest.Loopback, begin, now, fill(begin, now)...)
	var names []string
	for i := range podCount {
		names = append(names, fmt.Sprintf("p%d", i))
	}
	slices.Sort(names)
	rule := func(as, query, more string) string {
		return fmt.Sprintf("- {seriesQuery: depth, resources: {template: <<.Resource>>}, name: {as: %s}, metricsQuery: '%s'%s}\n", as, query, more)
	}
	e := start(t, setup{
		rules: rulesText[:strings.Index(rulesText, "externalRules")] +
			rule("depth", "max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)", "") +
			rule("depth_fresh", "max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)", ", maxAge: 2m") +
			rule("nan", "max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>) * 0 / 0", "") +
			rule("inf", "max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>) * 0 + 1 / 0", "") +
			rule("minus_inf", "max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>) * 0 - 1 / 0", "") +
			rule("huge", "max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>) * 0 + 1e17", "") +
			rule("huge_max", "max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>) * 0 + 1e17", ", onInf: max") +
			rule("empty", "max(<<.Series>>{<<.LabelMatchers>>} > 1e9) by (<<.GroupBy>>)", "") +
			rule("refused", "max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>) + on(node) depth", "") +
			rulesText[strings.Index(rulesText, "externalRules"):],
		sources: []source.Prometheus{{Name: "real", URL: address}}, pods: &podList{names: names},
	})
	get := func(metric, pod string) (string, error) {
		v, err := e.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: pod}, metricsapi.CustomMetricInfo{GroupResource: pods, Metric: metric}, labels.Everything())
		if err != nil {
			return "", err
		}
		return v.Value.String(), nil
	}
	list, err := e.GetMetricBySelector(t.Context(), "shop", labels.Everything(), jobs, labels.Everything())
	if err != nil || len(list.Items) != podCount {
		t.Fatalf("the pods have %v, %v", list, err)
	}
	for _, item := range list.Items {
		i, _ := strconv.Atoi(item.DescribedObject.Name[1:])
		if got, want := item.Value.AsApproximateFloat64(), 1.1*float64(i); math.Abs(got-want) > 0.01*want+0.002 {
			t.Errorf("%s does %v jobs per second, want %v", item.DescribedObject.Name, got, want)
		}
		if age := time.Since(item.Timestamp.Time); age < -time.Second || age > 5*time.Second {
			t.Errorf("%s is %v old", item.DescribedObject.Name, age)
		}
	}
	ext, err := e.GetExternalMetric(t.Context(), "shop", labels.Everything(), metricsapi.ExternalMetricInfo{Metric: "queue_depth"})
	if err != nil || len(ext.Items) != 1 || ext.Items[0].Value.String() != "42500m" {
		t.Errorf("the queue has %v, %v", ext, err)
	}
	if v, err := get("huge_max", "p1"); err != nil || v != "9223372036854775807m" && v != "9223372036854775800m" {
		t.Errorf("1e17 is %s, %v", v, err)
	}
	if _, err := get("depth", "p7"); err != nil {
		t.Errorf("a sample of 3 minutes ago: %v", err)
	}
	for metric, want := range map[string]int{"nan": 503, "inf": 503, "minus_inf": 503, "huge": 503, "empty": 404, "refused": 500} {
		if v, err := get(metric, "p1"); code(err) != want {
			t.Errorf("%s answers %s, %v (%d), want %d", metric, v, err, code(err), want)
		}
	}
	if v, err := get("depth_fresh", "p7"); code(err) != 503 {
		t.Errorf("a sample older than maxAge answers %s, %v", v, err)
	}
	if _, err := get("depth_fresh", "p1"); err != nil {
		t.Errorf("a fresh sample: %v", err)
	}
}

// TestGroupedIsSingle asks a real Prometheus random queries: what serves all objects gives each of
// them, bit for bit, what a query for it alone gives.
func TestGroupedIsSingle(t *testing.T) {
	now := time.Now()
	begin := now.Add(-10 * time.Minute)
	address := promtest.Start(t, promtest.Loopback, begin, now, fill(begin, now)...)
	seed := uint64(now.UnixNano())
	if text := os.Getenv("SLUICE_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the seed is %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	grouped, ungrouped := 0, map[string]int{}
	for range 400 {
		text := expression(random, 3)
		cfg, err := config.Parse([]byte(fmt.Sprintf("rules:\n- {seriesQuery: jobs_total, resources: {template: <<.Resource>>}, metricsQuery: %q}\n", text)))
		if err != nil {
			t.Fatal(err)
		}
		set, err := rules.Compile(cfg, rules.Options{Mapper: mapping.New(mapping.Kubernetes())})
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		registry := set.Registry(map[*rules.Rule]rules.Listing{set.Custom[0]: {Series: []rules.Series{{Name: "jobs_total", Labels: []string{"code", "namespace", "pod"}}}}})
		m, err := registry.Describes(schema.GroupResource{Resource: "pods"}, true, "jobs_total")
		if err != nil {
			t.Fatal(err)
		}
		asked := rules.Asked{Namespace: "shop", Now: now}
		q, ok, why, err := m.Group(asked)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if !ok {
			ungrouped[why]++
			continue
		}
		all, err := instant(t.Context(), address, q.PromQL, now)
		if err != nil {
			continue // asked for singly then
		}
		grouped++
		for i := range podCount {
			asked.Names = []string{fmt.Sprintf("p%d", i)}
			single, err := m.Query(asked)
			if err != nil {
				t.Fatal(err)
			}
			one, err := instant(t.Context(), address, single.PromQL, now)
			if err != nil {
				t.Errorf("%s: %v, though for all it does", single.PromQL, err)
				continue
			}
			if got, want := only(all, asked.Names[0]), only(one, asked.Names[0]); got != want {
				t.Errorf("%s\n  gives %s for all, but alone\n  %s", single.PromQL, got, want)
			}
		}
	}
	t.Logf("%d queries serve all objects, %d reasons stand against others", grouped, len(ungrouped))
	if grouped < 50 || len(ungrouped) < 4 {
		t.Errorf("%d queries were grouped, and others not for %v: the generator is too narrow", grouped, ungrouped)
	}
}

// only writes the samples of a pod, with every bit of their values.
func only(r answer.Result, pod string) string {
	var all []string
	for _, s := range r.Samples {
		if r.Scalar || s.Labels["pod"] == pod {
			all = append(all, fmt.Sprintf("%s %x", answer.Text(s.Labels), math.Float64bits(s.Value)))
		}
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// instant asks for a value at an instant.
func instant(ctx context.Context, address, query string, at time.Time) (answer.Result, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/api/v1/query?"+url.Values{
		"query": {query}, "time": {strconv.FormatInt(at.Unix(), 10)},
	}.Encode(), nil)
	if err != nil {
		return answer.Result{}, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return answer.Result{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer.Result{}, err
	}
	result, _, err := answer.Decode(text)
	return result, err
}

// expression writes a random query that yields a vector.
func expression(random *rand.Rand, depth int) string {
	pick := func(words ...string) string { return words[random.IntN(len(words))] }
	if depth == 0 || random.IntN(4) == 0 {
		series := pick("<<.Series>>{<<.LabelMatchers>>}", "<<.Series>>{<<.LabelMatchers>>}", `<<.Series>>{<<.LabelMatchers>>,code="200"}`, "depth{<<.LabelMatchers>>}", `depth{namespace="shop"}`)
		switch random.IntN(3) {
		case 0:
			return series
		case 1:
			return pick("rate", "increase", "irate", "deriv", "max_over_time", "avg_over_time", "last_over_time", "delta", "resets", "stddev_over_time") + "(" + series + pick("[1m]", "[3m]", "[90s]") + ")"
		}
		return series + pick(" offset 1m", " @ end()", "")
	}
	inner := func() string { return expression(random, depth-1) }
	switch random.IntN(6) {
	case 0, 1:
		return pick("sum", "avg", "min", "max", "count", "stddev", "group") + pick(" by (<<.GroupBy>>) ", " by (<<.GroupBy>>) ", " by (<<.GroupBy>>, code) ", " without (code) ", " by (code) ", " ") + "(" + inner() + ")"
	case 2:
		return pick("topk(2, ", "bottomk(1, ", "quantile by (<<.GroupBy>>) (0.5, ", "quantile(0.9, ", "topk by (pod) (1, ") + inner() + ")"
	case 3:
		return "(" + inner() + pick(" + ", " - ", " * ", " / ", " > ", " >= bool ") + pick("2", "0.5", "-1") + ")"
	case 4:
		return "(" + inner() + pick(" + ", " / ", " or ", " and ", " unless ", " > ") + inner() + ")"
	}
	return pick("abs(", "sqrt(", "round(", "absent(", "-(", "sort(") + inner() + ")"
}
