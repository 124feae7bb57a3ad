package fetch_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
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
	"github.com/sluice-autoscaler/sluice/internal/promtest"
	"github.com/sluice-autoscaler/sluice/prom/promql"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newFake runs a Prometheus that knows PromQL.
func newFake(t *testing.T, series ...map[string]string) *promtest.Fake {
	t.Helper()
	return promtest.NewFake(t, promtest.Loopback, promtest.Grammar{
		Parse: func(query string) error { _, err := promql.Parse(query); return err },
		Matches: func(selector string, series map[string]string) (bool, error) {
			s, err := promql.ParseSelector(selector)
			return err == nil && s.Matches(series), err
		},
	}, series...)
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

func (p *podList) set(names ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.names = names
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
