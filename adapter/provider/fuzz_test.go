package provider_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	metricsapi "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/sluice-autoscaler/sluice/adapter/provider"
)

// FuzzSelectors asks with any metric selector and any window, of both APIs. What is answered is of
// a window that the API can tell, and what is refused is told as the caller's fault or as an
// unknown value, never as the server's. A question costs what its text costs.
func FuzzSelectors(f *testing.F) {
	for _, s := range []string{
		"", "window=30s", "window=1s", "window=1h", "window=0s", "window=1.5s", "window=-1s", "window=9223372036s", "window=1h1s", "window",
		"window!=30s", "!window", "window in (1s,2s)", "window in (1s)", "window=1s,window=2s", "window=1s,window=1s", "deployment=web", "deployment=web,window=30s",
		"service=web", "deployment=web,service=web", "deployment=", "deployment in (a,b)", "other=x", "deployment=bare", "deployment=lost",
	} {
		f.Add(s)
	}
	m, s := fixture()
	p, err := provider.New(provider.Options{Metrics: provider.RequestMetrics(m, s, nil), DefaultWindow: 15 * time.Second, Clock: func() time.Time { return now }})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		selector, err := labels.Parse(text)
		if err != nil {
			return // the server refuses it
		}
		check := func(api string, window *int64, err error) {
			t.Helper()
			if err == nil {
				if window == nil || *window < 1 || *window > 3600 {
					t.Errorf("%s of %q has the window %v, want 1–3600 s", api, text, window)
				}
				return
			}
			status, ok := errors.AsType[*apierrors.StatusError](err)
			if !ok || status.Status().Code != 400 && status.Status().Code != 404 && status.Status().Code != 503 {
				t.Errorf("%s of %q = %v, want 400, 404 or 503", api, text, err)
			}
			if len(err.Error()) > 10*len(text)+1000 {
				t.Errorf("%s of %d bytes is refused in %d", api, len(text), len(err.Error()))
			}
		}
		m.asked = nil
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		info := metricsapi.CustomMetricInfo{GroupResource: deployments, Namespaced: true, Metric: provider.Concurrency}
		one, errOne := p.GetMetricByName(t.Context(), types.NamespacedName{Namespace: "shop", Name: "web"}, info, selector)
		many, errMany := p.GetMetricBySelector(t.Context(), "shop", labels.Everything(), info, selector)
		external, errExternal := p.GetExternalMetric(t.Context(), "shop", selector, metricsapi.ExternalMetricInfo{Metric: provider.Concurrency})
		runtime.ReadMemStats(&after)
		// The fuzzer itself allocates meanwhile.
		if cost := after.TotalAlloc - before.TotalAlloc; cost > uint64(1<<20+2000*len(text)) {
			t.Errorf("%d bytes were allocated for %q", cost, text)
		}
		if errOne == nil {
			check("one", one.WindowSeconds, nil)
			if want := one.Metric.Selector; (want != nil) != strings.Contains(text, "window") {
				t.Errorf("one of %q echoes %v", text, want)
			}
		} else {
			check("one", nil, errOne)
		}
		if errMany == nil {
			for i := range many.Items {
				check("many", many.Items[i].WindowSeconds, nil)
			}
		} else {
			check("many", nil, errMany)
		}
		if errExternal == nil {
			for i := range external.Items {
				check("external", external.Items[i].WindowSeconds, nil)
			}
		} else {
			check("external", nil, errExternal)
		}
	})
}
