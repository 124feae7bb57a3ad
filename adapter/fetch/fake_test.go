package fetch_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/fetch"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/source"
	"github.com/sluice-autoscaler/sluice/adapter/rules/mapping"
	"github.com/sluice-autoscaler/sluice/prom/promql"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakePrometheus speaks the part of the API that is used, and is strict about it.
type fakePrometheus struct {
	*httptest.Server
	t *testing.T

	mu sync.Mutex
	// series are the labels of series, with __name__.
	series []map[string]string
	// answer answers a query; nil answers what series have, 1 each.
	answer func(w http.ResponseWriter, query string)
	asked  map[string]int
	// lists counts requests for names and labels.
	lists int
	fault func(w http.ResponseWriter) bool
}

func newFake(t *testing.T, series ...map[string]string) *fakePrometheus {
	t.Helper()
	f := &fakePrometheus{t: t, series: series, asked: map[string]int{}}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

func (f *fakePrometheus) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakePrometheus) queries() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.asked)
}

func (f *fakePrometheus) serve(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		f.t.Errorf("%s: %v", r.URL, err)
	}
	f.mu.Lock()
	fault, answer := f.fault, f.answer
	f.mu.Unlock()
	if fault != nil && fault(w) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.URL.Path == "/api/v1/query" && r.Method == http.MethodPost:
		query := r.PostForm.Get("query")
		if _, err := promql.Parse(query); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"status":"error","errorType":"bad_data","error":%q}`, err.Error())
			return
		}
		f.set(func() { f.asked[query]++ })
		if answer != nil {
			answer(w, query)
			return
		}
		fmt.Fprint(w, vector())
	case r.URL.Path == "/api/v1/label/__name__/values" && r.Method == http.MethodGet, r.URL.Path == "/api/v1/labels" && r.Method == http.MethodPost:
		selector, err := promql.ParseSelector(r.Form.Get("match[]"))
		_, bad := strconv.ParseInt(r.Form.Get("start"), 10, 64)
		if err != nil || bad != nil {
			f.t.Errorf("%s with %v: %v, %v", r.URL.Path, r.Form, err, bad)
		}
		found := map[string]bool{}
		f.set(func() {
			f.lists++
			for _, s := range f.series {
				if !selector.Matches(s) {
					continue
				}
				if r.Method == http.MethodGet {
					found[s["__name__"]] = true
					continue
				}
				for label := range s {
					found[label] = true
				}
			}
		})
		quoted := []string{}
		for _, v := range slices.Sorted(maps.Keys(found)) {
			quoted = append(quoted, strconv.Quote(v))
		}
		fmt.Fprintf(w, `{"status":"success","data":[%s]}`, strings.Join(quoted, ","))
	default:
		f.t.Errorf("unexpected %s %s", r.Method, r.URL)
		w.WriteHeader(http.StatusNotFound)
	}
}

// sample writes a sample for vector: labels such as pod="a", and a value.
func sample(labels, value string) string {
	var pairs []string
	for pair := range strings.SplitSeq(labels, ",") {
		if k, v, ok := strings.Cut(pair, "="); ok {
			pairs = append(pairs, strconv.Quote(k)+":"+v)
		}
	}
	return fmt.Sprintf(`{"metric":{%s},"value":[%d.25,%q]}`, strings.Join(pairs, ","), time.Now().Unix(), value)
}

func vector(samples ...string) string {
	return `{"status":"success","data":{"resultType":"vector","result":[` + strings.Join(samples, ",") + `]}}`
}

// podList is Objects with the same names for every selector.
type podList struct {
	mu    sync.Mutex
	names []string
}

func (p *podList) Names(_ context.Context, _ schema.GroupVersionResource, _ string, _ labels.Selector) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.names), nil
}

func (p *podList) Pods(labels.Selector) (map[string][]string, error) {
	names, err := p.Names(context.Background(), schema.GroupVersionResource{}, "", nil)
	return map[string][]string{"shop": names}, err
}

// setup is what an engine is made of.
type setup struct {
	rules   string
	sources []source.Prometheus
	pods    *podList
	demand  func() []*autoscalingv2.HorizontalPodAutoscaler
	change  func(*fetch.Options)
}

// running is an engine that runs until the test ends.
type running struct {
	*fetch.Engine
	file string
	reg  *prometheus.Registry
}

func start(t *testing.T, s setup) running {
	t.Helper()
	r := running{file: filepath.Join(t.TempDir(), "config.yaml"), reg: prometheus.NewRegistry()}
	if err := os.WriteFile(r.file, []byte(s.rules), 0o600); err != nil {
		t.Fatal(err)
	}
	o := fetch.Options{
		Config: source.Default(), Rules: r.file, Mapper: fixed{mapping.New(mapping.Kubernetes())}, Objects: s.pods, Demand: s.demand,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Registerer: r.reg,
	}
	if s.pods == nil {
		o.Objects = &podList{}
	}
	o.Config.Interval = model.Duration(time.Second)
	o.Config.Sources = s.sources
	if s.change != nil {
		s.change(&o)
	}
	var err error
	if r.Engine, err = fetch.New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the engine is ready", r.Ready)
	return r
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() error) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-ticker.C {
		if err = holds(); err == nil {
			return
		}
	}
	t.Fatalf("not after 20 s: %s: %v", what, err)
}

// metricValue reads a metric of the engine, summed over its series.
func (r running) metricValue(t *testing.T, name string) float64 {
	t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// fixed is a mapper that never changes.
type fixed struct{ meta.RESTMapper }

// Refresh implements Mapper.
func (fixed) Refresh() (bool, error) { return false, nil }

// Get implements Mapper.
func (f fixed) Get() meta.RESTMapper { return f.RESTMapper }
