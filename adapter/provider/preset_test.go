package provider_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	metricsapi "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/sluice-autoscaler/sluice/adapter/provider"
	"github.com/sluice-autoscaler/sluice/adapter/store"
)

// presets answers 12.5 for workloads with the annotation of a name.
type presets map[string]store.Value

func (p presets) Workload(_ time.Time, _ string, t provider.Target, _ string, window time.Duration) (store.Value, bool) {
	v, ok := p[t.Workload.Annotations["preset"]]
	v.Window = window
	return v, ok
}

// A Deployment without a sidecar answers by its preset, with what gateways hold; sidecars win, and
// a Deployment that wants no pods has what is held alone.
func TestPresetsServeWorkloadsWithoutSidecars(t *testing.T) {
	t.Parallel()
	of := func(preset string, sidecar, atZero bool) *provider.TargetWorkload {
		return &provider.TargetWorkload{Kind: "Deployment", Sidecar: sidecar, AtZero: atZero, Annotations: map[string]string{"preset": preset}}
	}
	const bare = "its pod template has no port"
	m := &memory{workloads: map[string]store.Value{
		labels.Nothing().String(): {Value: 2, Known: true, At: read},
		"app=web":                 {Value: 7, Known: true, At: read},
		"app=asleep":              {Value: 3, Known: true, At: read},
	}}
	s := &shelf{targets: map[schema.GroupResource][]provider.Target{deployments: {
		{Name: "mesh", Pods: app("mesh"), Services: []string{"mesh"}, Fault: bare, Workload: of("istio", false, false)},
		{Name: "faulty", Pods: app("mesh"), Fault: bare, Workload: of("istoi", false, false)},
		{Name: "none", Pods: app("mesh"), Fault: bare, Workload: of("", false, false)},
		{Name: "web", Pods: app("web"), Services: []string{"web"}, Workload: of("istio", true, false)},
		{Name: "asleep", Pods: app("asleep"), Fault: bare, Workload: of("istio", false, true)},
	}}}
	p, err := provider.New(provider.Options{
		Metrics: provider.RequestMetrics(m, s, presets{
			"istio": {Value: 12.5, Known: true, At: read, Source: "prometheus"}, "istoi": {Missing: "want one of istio"},
		}), DefaultWindow: 15 * time.Second, Clock: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, metric, want, fault string }{
		{"mesh", provider.Concurrency, "14500m", ""},
		{"mesh", provider.Rate, "12500m", ""},
		{"mesh", provider.Waiting, "2", ""},
		{"web", provider.Concurrency, "7", ""},
		{"asleep", provider.Concurrency, "3", ""},
		{"faulty", provider.Concurrency, "", "want one of istio"},
		{"none", provider.Concurrency, "", bare},
	} {
		v, err := p.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: c.name}, metricsapi.CustomMetricInfo{GroupResource: deployments, Namespaced: true, Metric: c.metric}, labels.Everything())
		switch {
		case c.fault != "":
			if err == nil || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%s of %s: %v, %v; want %q", c.metric, c.name, v, err, c.fault)
			}
		case err != nil:
			t.Errorf("%s of %s: %v", c.metric, c.name, err)
		case v.Value.String() != c.want || !v.Timestamp.Time.Equal(read):
			t.Errorf("%s of %s is %s at %v, want %s at the sample's time", c.metric, c.name, v.Value.String(), v.Timestamp, c.want)
		}
	}
}

// Of annotations those that are asked for are kept, of workloads and of their namespaces.
func TestAnnotationsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deployment("web", "web", 0, false)
		d.Annotations["sluice.dev/preset"] = "istio"
		space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Annotations: map[string]string{"sluice.dev/metric": "x", "other": "y"}}}
		i, err := provider.NewInformers(fake.NewClientset(d, deployment("measured", "measured", 1, true), space), slog.New(slog.DiscardHandler), nil, "sluice.dev/preset", "sluice.dev/metric")
		if err != nil {
			t.Fatal(err)
		}
		run(t, i)
		got, ok, err := i.Get(deployments, "shop", "web")
		want := &provider.TargetWorkload{
			Kind: "Deployment", AtZero: true, Annotations: map[string]string{"sluice.dev/preset": "istio"}, NamespaceAnnotations: map[string]string{"sluice.dev/metric": "x"},
		}
		if diff := cmp.Diff(want, got.Workload); !ok || err != nil || diff != "" {
			t.Errorf("web is %v, %v\n%s", ok, err, diff)
		}
		if got, _, _ := i.Get(deployments, "shop", "measured"); got.Workload == nil || !got.Workload.Sidecar || got.Workload.AtZero {
			t.Errorf("measured is %+v", got.Workload)
		}
	})
}

// run runs informers until the test ends, and waits until they are ready.
func run(t *testing.T, i *provider.Informers) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- i.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for range 100 {
		if i.Ready() == nil {
			return
		}
		synctest.Wait()
	}
	t.Fatal(i.Ready())
}
