package signal_test

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
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/fetch"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/preset"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/signal"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/source"
	"github.com/sluice-autoscaler/sluice/adapter/rules/mapping"
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/internal/promtest"
	"github.com/sluice-autoscaler/sluice/prom/promql"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakePrometheus speaks the part of the API that is used, and is strict about it. Questions for the
// times of samples are answered by age.
type fakePrometheus struct {
	*httptest.Server
	t *testing.T

	mu     sync.Mutex
	series []map[string]string
	answer func(w http.ResponseWriter, query string)
	age    time.Duration
	asked  map[string]int
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

func (f *fakePrometheus) queries() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.asked))
}

func (f *fakePrometheus) serve(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		f.t.Errorf("%s: %v", r.URL, err)
	}
	f.mu.Lock()
	answer, age, series := f.answer, f.age, f.series
	f.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/api/v1/query":
		query := r.PostForm.Get("query")
		if _, err := promql.Parse(query); err != nil {
			f.t.Errorf("%s: %v", query, err)
		}
		if strings.Contains(query, "timestamp(") {
			at := float64(time.Now().Add(-age).UnixMilli()) / 1000
			if strings.Contains(query, "by (") {
				var all []string
				for _, name := range []string{"web-0", "web-1", "web-2"} {
					all = append(all, promtest.Sample(`pod="`+name+`"`, strconv.FormatFloat(at, 'f', 3, 64)))
				}
				fmt.Fprint(w, promtest.Vector(append(all, promtest.Sample(`deployment="web"`, strconv.FormatFloat(at, 'f', 3, 64)))...))
				return
			}
			fmt.Fprint(w, promtest.Vector(promtest.Sample("", strconv.FormatFloat(at, 'f', 3, 64))))
			return
		}
		f.set(func() { f.asked[query]++ })
		answer(w, query)
	case "/api/v1/label/__name__/values", "/api/v1/labels":
		selector, err := promql.ParseSelector(r.Form.Get("match[]"))
		if err != nil {
			f.t.Errorf("%v: %v", r.Form, err)
		}
		found := map[string]bool{}
		for _, s := range series {
			if !selector.Matches(s) {
				continue
			}
			if strings.HasSuffix(r.URL.Path, "values") {
				found[strconv.Quote(s["__name__"])] = true
				continue
			}
			for label := range s {
				found[strconv.Quote(label)] = true
			}
		}
		fmt.Fprintf(w, `{"status":"success","data":[%s]}`, strings.Join(slices.Sorted(maps.Keys(found)), ","))
	default:
		f.t.Errorf("unexpected %s %s", r.Method, r.URL)
	}
}

// always answers every query alike.
func always(text string) func(http.ResponseWriter, string) {
	return func(w http.ResponseWriter, _ string) { fmt.Fprint(w, text) }
}

// fixed is a mapper that never changes.
type fixed struct{ meta.RESTMapper }

// Refresh implements Mapper.
func (fixed) Refresh() (bool, error) { return false, nil }

// Get implements Mapper.
func (f fixed) Get() meta.RESTMapper { return f.RESTMapper }

// noObjects lists nothing.
type noObjects struct{}

func (noObjects) Names(context.Context, schema.GroupVersionResource, string, labels.Selector) ([]string, error) {
	return nil, nil
}

func (noObjects) Pods(labels.Selector) (map[string][]string, error) { return nil, nil }

const rulesText = `
rules:
- seriesQuery: '{__name__=~"jobs|orders"}'
  resources: {template: "<<.Resource>>"}
  metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'
externalRules:
- seriesQuery: queue_depth
  resources: {template: "<<.Resource>>"}
  metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (queue)'
`

func ruleSeries() []map[string]string {
	return []map[string]string{
		{"__name__": "jobs", "namespace": "shop", "pod": "web-0"},
		{"__name__": "orders", "namespace": "shop", "deployment": "web", "pod": "web-0"},
		{"__name__": "queue_depth", "namespace": "shop", "queue": "mail"},
	}
}

// setup is what signals are made of.
type setup struct {
	sources []source.Prometheus
	choice  *preset.Choice
	fault   error
	// ready and others are the pods of every workload.
	ready, others []string
	clock         func() time.Time
	// interval is that of queries that are not rules'; 0 means 100ms.
	interval time.Duration
}

// start runs signals over an engine of rules until the test ends.
func start(t *testing.T, s setup) *signal.Signals {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(rulesText), 0o600); err != nil {
		t.Fatal(err)
	}
	config := source.Default()
	config.Interval = model.Duration(time.Second)
	config.Relist = model.Duration(10 * time.Second)
	config.Sources = s.sources
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	engine, err := fetch.New(fetch.Options{
		Config: config, Rules: file, Mapper: fixed{mapping.New(mapping.Kubernetes())}, Objects: noObjects{}, Log: log, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	config.Interval = model.Duration(100 * time.Millisecond)
	if s.interval > 0 {
		config.Interval = model.Duration(s.interval)
	}
	signals, err := signal.New(signal.Options{
		Tick: 20 * time.Millisecond, Config: config, Rules: engine, Observe: engine.Observe, Log: log, Registerer: prometheus.NewRegistry(), Clock: s.clock,
		Pods:   func(loop.Ref) ([]string, []string) { return s.ready, s.others },
		Choose: func(signal.Workload) (*preset.Choice, error) { return s.choice, s.fault },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return engine.Run(ctx) })
	g.Go(func() error { return signals.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	return signals
}

func ref(name string) loop.Ref {
	return loop.Ref{Driver: "kubernetes", Namespace: "shop", Kind: "Autoscaler", Name: name}
}

// web is a Deployment of shop.
func web(queries ...signal.Query) signal.Workload {
	return signal.Workload{Namespace: "shop", Kind: schema.GroupKind{Group: "apps", Kind: "Deployment"}, Name: "web", Queries: queries}
}

// read reads a signal, and requires that Prometheus is to answer it.
func read(t *testing.T, s *signal.Signals, of loop.Ref, name string, window time.Duration) signal.Value {
	t.Helper()
	v, ok := s.Signal(time.Now(), of, algorithms.Need{Name: name, Window: window})
	if !ok {
		t.Fatalf("%s is not for Prometheus to answer", name)
	}
	return v
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() error) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-ticker.C {
		if err = holds(); err == nil {
			return
		}
	}
	t.Fatalf("not after 30 s: %s: %v", what, err)
}

// becomes waits until a signal is known and has a value.
func becomes(t *testing.T, s *signal.Signals, of loop.Ref, name string, window time.Duration, want float64) signal.Value {
	t.Helper()
	var v signal.Value
	eventually(t, fmt.Sprintf("%s is %v", name, want), func() error {
		if v = read(t, s, of, name, window); !v.Known || v.Value != want {
			return fmt.Errorf("it is %+v", v)
		}
		return nil
	})
	return v
}
