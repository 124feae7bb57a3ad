package fetch_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	metricsapi "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/sluice-autoscaler/sluice/adapter/fetch"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/source"
	"github.com/sluice-autoscaler/sluice/internal/promtest"
)

const usageRule = `containerQuery: 'sum(%[1]s{<<.LabelMatchers>>}) by (<<.GroupBy>>)', nodeQuery: 'sum(%[1]s{<<.LabelMatchers>>}) by (<<.GroupBy>>)',
  resources: {template: <<.Resource>>}, containerLabel: container`

// readings reads a list of pods, one pod, an external metric and the usage of the pods; each is a
// value or an error.
func (r running) readings(t *testing.T) []string {
	t.Helper()
	var all []string
	add := func(value string, err error) {
		if err != nil {
			value = "unknown: " + err.Error()
		}
		all = append(all, value)
	}
	list, err := r.GetMetricBySelector(t.Context(), "shop", labels.Everything(), jobs, labels.Everything())
	if err != nil {
		add("", err)
	} else {
		add(list.Items[0].Value.String(), nil)
	}
	one, err := r.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: "a"}, jobs, labels.Everything())
	if err != nil {
		add("", err)
	} else {
		add(one.Value.String(), nil)
	}
	external, err := r.GetExternalMetric(t.Context(), "shop", labels.Everything(), metricsapi.ExternalMetricInfo{Metric: "queue_depth"})
	if err != nil {
		add("", err)
	} else {
		add(external.Items[0].Value.String(), nil)
	}
	usage, err := r.PodMetrics(t.Context(), "shop", labels.Everything())
	if err != nil {
		add("", err)
	} else {
		add(usage[0].Containers[0].Usage.Memory().String(), nil)
	}
	return all
}

// Whatever befalls a Prometheus that was well, each reader is told why soon, never reads another
// number, and reads the right ones once it is well again. It is not parallel to tests whose
// timeouts are short: its rows are enough of a load.
func TestOutageOfARunningPrometheus(t *testing.T) {
	for _, o := range promtest.Outages() {
		t.Run(o.Name, func(t *testing.T) {
			t.Parallel()
			f, out := newFake(t, jobsAndQueue()...), &atomic.Bool{}
			f.Answer = func(w http.ResponseWriter, query string) {
				points := []promtest.Point{{Labels: `pod="a",container="app"`, Value: "7"}}
				if strings.Contains(query, "queue_depth") {
					points[0].Labels = `queue="mail"`
				}
				if !out.Load() {
					fmt.Fprint(w, promtest.VectorAt(time.Now(), points))
					return
				}
				points[0].Value = "1"
				o.Answer(w, f, points)
			}
			f.Fault = func(w http.ResponseWriter) bool {
				f.Set(func() {
					if f.Series = jobsAndQueue(); out.Load() && o.Forgets {
						f.Series = nil
					}
				})
				if !out.Load() || !o.All {
					return false
				}
				o.Answer(w, f, nil)
				return true
			}
			e := start(t, setup{
				rules:   rulesText + "resourceRules: {window: 1m, cpu: {" + fmt.Sprintf(usageRule, "cpu") + "}, memory: {" + fmt.Sprintf(usageRule, "memory") + "}}\n",
				sources: []source.Prometheus{{URL: f.URL, Timeout: model.Duration(time.Second)}}, pods: &podList{names: []string{"a"}},
				change: func(o *fetch.Options) { o.Config.Relist = model.Duration(10 * time.Second) },
			})
			well := []string{"7", "7", "7", "7"}
			if got := e.readings(t); !slices.Equal(got, well) {
				t.Fatalf("at first they read %q", got)
			}
			out.Store(true)
			await := func(what string, holds func(i int, reading string) bool) {
				eventually(t, what, func() error {
					for i, r := range e.readings(t) {
						if r != "7" && !strings.HasPrefix(r, "unknown: ") {
							t.Errorf("reader %d reads %s", i, r)
						}
						if !holds(i, r) {
							return errors.New(r)
						}
					}
					return nil
				})
			}
			await("all are told why", func(i int, r string) bool {
				if i == 3 && o.Usage != "" {
					return strings.Contains(r, o.Usage)
				}
				return strings.Contains(r, o.Cause)
			})
			out.Store(false)
			await("all read again", func(_ int, r string) bool { return r == "7" })
		})
	}
}
