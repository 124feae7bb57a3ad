//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/internal/promtest"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-autoscaler/sluice/testbed/internal/network"
)

// Phases of the matrix.
const (
	before = iota // all is well
	during        // the outage
	after         // all is well again, and there is more to do
)

// outageNamespace is where the apps of the matrix are.
const outageNamespace = "outage"

// asked finds the outage that a query is about, and whether it is about CPU and memory.
var asked = regexp.MustCompile(`\b(?:(?:jobs|orders|depth|idle)_|resource-)([a-z]+)\b`)

// pointsOf are the samples for a query: 30 of what is to be done, which are 3 replicas, and nothing
// for who sleeps; during an outage little and much, so that who believes it acts; afterwards 5
// replicas and 2.
func pointsOf(query, name string, phase int32) []promtest.Point {
	awake, asleep := [...]string{"30", "0.001", "50"}[phase], [...]string{"0", "50", "20"}[phase]
	perPod := func(pod, more, value string) (all []promtest.Point) {
		for i := range 10 { // all of it at the first, whatever the count
			all = append(all, promtest.Point{Labels: fmt.Sprintf(`pod="%s-%s-%d"%s`, pod, name, i, more), Value: value})
			value = "0"
		}
		return all
	}
	switch {
	case strings.Contains(query, "jobs_"):
		return perPod("pods", "", awake)
	case strings.Contains(query, "orders_"):
		return []promtest.Point{{Labels: fmt.Sprintf(`service="shop-%s"`, name), Value: awake}, {Labels: fmt.Sprintf(`service="idle-%s"`, name), Value: asleep}}
	case strings.Contains(query, "depth_"):
		return []promtest.Point{{Value: awake}}
	case strings.Contains(query, "idle_"):
		return []promtest.Point{{Value: asleep}}
	}
	return perPod("resource", `,container="app"`, awake)
}

// prometheis are the Prometheis of the matrix: one for each outage, and one for CPU and memory,
// which fails by the pods that are asked for.
func prometheis(t *testing.T, all []promtest.Outage, phase *atomic.Int32) (urls map[string]string) {
	urls = map[string]string{}
	grammar := promtest.Grammar{
		Parse: func(query string) error {
			if !strings.HasPrefix(query, "sum(") || strings.Count(query, "(") != strings.Count(query, ")") || asked.FindString(query) == "" {
				return errors.New("want a sum of the matrix, not " + query)
			}
			return nil
		},
		Matches: func(selector string, series map[string]string) (bool, error) {
			return regexp.MatchString(`\b`+series["__name__"]+`\b`, selector)
		},
	}
	by := map[string]promtest.Outage{}
	for _, o := range append(all, promtest.Outage{Name: "main"}) {
		by[o.Name] = o
		var series []map[string]string
		for _, name := range []string{"jobs", "orders", "depth", "idle"} {
			label := map[string]string{"jobs": "pod", "orders": "service"}[name]
			s := map[string]string{"__name__": name + "_" + o.Name, "namespace": outageNamespace}
			if label != "" {
				s[label] = "any"
			}
			series = append(series, s)
		}
		f := promtest.NewFake(t, network.Host().String(), grammar, series...)
		urls[o.Name] = f.URL
		f.Answer = func(w http.ResponseWriter, query string) {
			name := asked.FindStringSubmatch(query)[1]
			now := phase.Load()
			if points := pointsOf(query, name, now); now == during {
				by[name].Answer(w, f, points)
			} else {
				fmt.Fprint(w, promtest.VectorAt(time.Now(), points))
			}
		}
		f.Fault = func(w http.ResponseWriter) bool {
			fails := phase.Load() == during
			if fails && o.All {
				o.Answer(w, f, nil)
			}
			f.Set(func() {
				f.Series = series
				if fails && o.Forgets {
					f.Series = nil
				}
			})
			return fails && o.All
		}
	}
	return urls
}

// outageValues are the chart's values: rules and a source for each outage.
func outageValues(t *testing.T, all []promtest.Outage, urls map[string]string) string {
	t.Helper()
	type object = map[string]any
	resources := object{"template": "<<.Resource>>"}
	sources := []object{{"name": "main", "url": urls["main"], "timeout": "1s"}}
	var custom, external []object
	for _, o := range all {
		sources = append(sources, object{"name": o.Name, "url": urls[o.Name], "timeout": "1s"})
		for _, name := range []string{"jobs_", "orders_"} {
			custom = append(custom, object{
				"seriesQuery": name + o.Name, "source": o.Name, "resources": resources, "metricsQuery": "sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)",
			})
		}
		for _, name := range []string{"depth_", "idle_"} {
			external = append(external, object{"seriesQuery": name + o.Name, "source": o.Name, "resources": resources, "metricsQuery": "sum(<<.Series>>{<<.LabelMatchers>>})"})
		}
	}
	usage := func(series string) object {
		q := "sum(" + series + "{<<.LabelMatchers>>}) by (<<.GroupBy>>)"
		return object{"containerQuery": q, "nodeQuery": q, "resources": resources, "containerLabel": "container"}
	}
	text, err := json.Marshal(object{
		"prometheus":  object{"interval": "1s", "relist": "10s", "sources": sources},
		"apiServices": object{"resource": true},
		"rules": object{
			"default": false, "custom": custom, "external": external, "resource": object{"window": "1m", "cpu": usage("cpu_cores"), "memory": usage("memory_bytes")},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// outageApps are an HPA of each kind for each outage, and two that sleep.
func outageApps(all []promtest.Outage) []app {
	var apps []app
	for _, o := range all {
		n := o.Name
		apps = append(apps,
			app{"pods-" + n, 1, 3, podsMetric("jobs_"+n, "10"), "labelSelector=app=pods-" + n},
			app{"object-" + n, 1, 3, serviceMetric("orders_"+n, "shop-"+n, "10"), "/services/shop-" + n + "/orders_" + n},
			app{"external-" + n, 1, 3, externalMetric("depth_"+n, nil, "10"), "/depth_" + n},
			app{"resource-" + n, 1, 3, memoryMetric("10"), "labelSelector=app=resource-" + n},
			app{"sleeper-object-" + n, 0, 1, serviceMetric("orders_"+n, "idle-"+n, "10"), "/services/idle-" + n + "/orders_" + n},
			app{"sleeper-external-" + n, 0, 1, externalMetric("idle_"+n, nil, "10"), "/idle_" + n},
		)
	}
	return apps
}

// TestOutages befalls the Prometheis behind HPAs of each kind with everything that goes wrong with
// one, all at once: nobody scales down or wakes, each HPA says why, and afterwards all are right
// again. It is not parallel: it restarts the controller.
func TestOutages(t *testing.T) {
	all := promtest.Outages()
	var phase atomic.Int32
	values := outageValues(t, all, prometheis(t, all, &phase))
	began := time.Now()
	lap := func(what string) { t.Logf("%4.1f s: %s", time.Since(began).Seconds(), what) }
	if err := cluster.Install(t.Context(), 2*time.Minute, "-f", values); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { uninstallRules(t) })
	lap("installed")
	f := startFleet(t, outageNamespace, outageApps(all))
	logsOnFailure(t, outageNamespace)
	expect := func(awake, asleep int32) func(*app) int32 {
		return func(a *app) int32 {
			if a.min == 0 {
				return asleep
			}
			return awake
		}
	}
	wait(t, time.Minute, "the counts before the outages", f.settled(expect(3, 0)))
	lap("the HPAs have their counts")
	f.forget()
	phase.Store(during)
	since := f.awaitUnknown(t, all)
	lap("each HPA says why it knows nothing")
	f.awaitReads(t, 2, func(a *app) time.Time { return since[a.name] })
	f.noneBelieves(t, since)
	outageState(t, all)
	changes, _ := f.seen()
	for _, c := range changes {
		t.Errorf("during the outage %s went from %d to %d replicas", c.name, c.from, c.to)
	}
	lap("two more reads of each, and sluice explain metric")
	phase.Store(after)
	wait(t, time.Minute, "the counts after the outages", f.settled(expect(5, 2)))
	lap("the HPAs are right again")
	changes, _ = f.seen()
	for _, c := range changes {
		if c.to < c.from {
			t.Errorf("%s went from %d to %d replicas", c.name, c.from, c.to)
		}
	}
}

// awaitUnknown waits until each HPA says the cause of its outage, and returns when it was seen to.
func (f *fleet) awaitUnknown(t *testing.T, all []promtest.Outage) map[string]time.Time {
	t.Helper()
	since := map[string]time.Time{}
	wait(t, time.Minute, "each HPA to say why", func(context.Context) (string, bool) {
		var not []string
		for _, o := range all {
			for i := range f.apps {
				a := &f.apps[i]
				if _, known := since[a.name]; known || !strings.HasSuffix(a.name, "-"+o.Name) {
					continue
				}
				want := o.Cause
				if a.metric.Resource != nil && o.Usage != "" {
					want = o.Usage
				}
				hpa, err := f.hpas.Get(a.name)
				if err != nil {
					return err.Error(), false
				}
				if active, why := scalingActive(hpa); active || !strings.Contains(why, want) {
					not = append(not, fmt.Sprintf("%s: active %t, %s", a.name, active, why))
					continue
				}
				since[a.name] = time.Now()
			}
		}
		return fmt.Sprintf("%d do not, such as %s", len(not), strings.Join(not[:min(len(not), 3)], "; ")), len(not) == 0
	})
	return since
}

// noneBelieves holds the API server's record against each HPA: what was read was an error.
func (f *fleet) noneBelieves(t *testing.T, since map[string]time.Time) {
	t.Helper()
	reads := 0
	for i := range f.apps {
		name := f.apps[i].name
		for _, r := range f.readsSince(name, since[name]) {
			reads++
			if r.code < 400 {
				t.Errorf("during the outage %s read %s: %d", name, r.uri, r.code)
			}
		}
	}
	t.Logf("%d reads during the outages, each an error", reads)
}

// outageState looks at what people look at: sluice explain metric, and the controller's metrics.
func outageState(t *testing.T, all []promtest.Outage) {
	t.Helper()
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(4)
	for _, o := range all {
		g.Go(func() error {
			said, err := cluster.Sluice(t.Context(), "explain", "metric", "jobs_"+o.Name, "-n", outageNamespace, "--object", "pods/pods-"+o.Name+"-0")
			mu.Lock()
			defer mu.Unlock()
			if !strings.Contains(said+fmt.Sprint(err), o.Cause) {
				t.Errorf("sluice explain metric of %s does not say %q, but %s, %v", o.Name, o.Cause, said, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	text, err := controllersMetrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range []string{"unauthorized", "unavailable", "hanging"} {
		if up := metricSum(text, "sluice_adapter_prometheus_up", `source="`+source+`"`); up != 0 {
			t.Errorf("sluice_adapter_prometheus_up of %s is %v", source, up)
		}
	}
	for _, api := range []string{"custom", "external", "resource"} {
		if n := metricSum(text, "sluice_adapter_rules_answers_total", `api="`+api+`"`, `result="503"`); n == 0 {
			t.Errorf("no answer 503 of the %s API is counted", api)
		}
	}
}

// uninstallRules installs the defaults again. They leave metrics.k8s.io out, and applying the chart
// prunes nothing.
func uninstallRules(t *testing.T) {
	ctx := context.WithoutCancel(t.Context())
	if out, err := cluster.Kubectl(ctx, "delete", "apiservice", "v1beta1.metrics.k8s.io", "--ignore-not-found"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if err := cluster.Install(ctx, 2*time.Minute); err != nil {
		t.Error(err)
	}
}
