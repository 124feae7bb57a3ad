package signal_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/sluice-autoscaler/sluice/adapter/fetch/preset"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/signal"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/source"
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/internal/promtest"
	"github.com/sluice-autoscaler/sluice/prom"
)

// choice is the preset of a name for Deployment web.
func choice(t *testing.T, name, metric string) *preset.Choice {
	t.Helper()
	set, err := preset.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := set.Choose(prom.Workload{Namespace: "shop", Kind: "Deployment", Name: "web", Services: []string{"web"}},
		map[string]string{preset.Annotation: name, preset.MetricAnnotation: metric}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A metric of a rule is that of the workload's object, else the sum over its pods, else that of the
// namespace. Its age is that of the sample.
func TestRuleSignals(t *testing.T) {
	t.Parallel()
	f := newFake(t, ruleSeries()...)
	f.age = 25 * time.Second
	pods := []string{promtest.Sample(`pod="web-0"`, "1.5"), promtest.Sample(`pod="web-1"`, "0.0004"), promtest.Sample(`pod="other"`, "50")}
	f.answer = func(w http.ResponseWriter, query string) {
		switch {
		case strings.Contains(query, "queue_depth"):
			fmt.Fprint(w, promtest.Vector(promtest.Sample(`queue="mail"`, "40"), promtest.Sample(`queue="sms"`, "2.5")))
		case strings.Contains(query, `deployment`):
			fmt.Fprint(w, promtest.Vector(promtest.Sample(`deployment="web"`, "61"), promtest.Sample(`deployment="other"`, "1000")))
		default:
			f.mu.Lock()
			text := promtest.Vector(pods...)
			f.mu.Unlock()
			fmt.Fprint(w, text)
		}
	}
	s := start(t, setup{sources: []source.Prometheus{{Name: "main", URL: f.URL}}, ready: []string{"web-1", "web-0"}, others: []string{"web-2"}})
	s.Declare(ref("web"), web())
	if _, ok := s.Signal(time.Now(), ref("none"), algorithms.Need{Name: "jobs"}); ok {
		t.Error("a workload that nobody declared has a signal")
	}
	if _, ok := s.Signal(time.Now(), ref("web"), algorithms.Need{Name: algorithms.Concurrency}); ok {
		t.Error("concurrency is Prometheus' without a preset")
	}
	v := becomes(t, s, ref("web"), "queue_depth", 0, 42.5)
	if v.Age < 24*time.Second || v.Age > 40*time.Second || v.Coverage != 1 {
		t.Errorf("it is %+v, want the age of the sample", v)
	}
	becomes(t, s, ref("web"), "orders", 0, 61)
	becomes(t, s, ref("web"), "jobs", 0, 1.5004)
	// a ready pod without a sample: what is left is a lower bound, and not known
	f.set(func() { pods = pods[:1] })
	eventually(t, "the sum is partial", func() error {
		if v := read(t, s, ref("web"), "jobs", 0); v.Known || v.Value != 1.5 || v.Coverage != 0.5 || !strings.Contains(v.Missing, "1 of 2 ready pods") {
			return fmt.Errorf("it is %+v", v)
		}
		return nil
	})
	if v := read(t, s, ref("web"), "nothing_makes_it", 0); v.Known {
		t.Errorf("a metric of no rule is %+v", v)
	}
	eventually(t, "the cause is told", func() error {
		if v := read(t, s, ref("web"), "nothing_makes_it", 0); !strings.Contains(v.Missing, "no rule makes a metric nothing_makes_it") {
			return errors.New(v.Missing)
		}
		return nil
	})
	// Windows grow with what was watched: a window of 6 s is known once 3 s were.
	f.set(func() { f.age = 0 })
	becomes(t, s, ref("web"), "queue_depth", 4*time.Second, 42.5)
	if v := read(t, s, ref("web"), "queue_depth", time.Hour); v.Known || !strings.Contains(v.Missing, "less than half of the last 1h0m0s") {
		t.Errorf("an hour after seconds is %+v", v)
	}
}

// The outage matrix: whatever Prometheus does, a signal of a rule, of a query and of a preset is
// unknown and never a number, also after it was known, and is known again afterwards.
func TestOutages(t *testing.T) {
	t.Parallel()
	value := func(v string) string { return promtest.Vector(promtest.Sample("", v)) }
	status := func(code int, text string) func(http.ResponseWriter, string) {
		return func(w http.ResponseWriter, _ string) { w.WriteHeader(code); fmt.Fprint(w, text) }
	}
	good := always(value("7"))
	for name, c := range map[string]struct {
		answer  func(http.ResponseWriter, string)
		age     time.Duration
		message string
	}{
		"empty":       {answer: always(promtest.Vector()), message: "no sample"},
		"null":        {answer: always(`{"status":"success","data":{"resultType":"vector","result":null}}`), message: "no sample"},
		"nan":         {answer: always(value("NaN")), message: "NaN"},
		"inf":         {answer: always(value("+Inf")), message: "+Inf"},
		"minus inf":   {answer: always(value("-Inf")), message: "-Inf"},
		"1e17":        {answer: always(value("1e17")), message: "Prometheus answered"},
		"negative":    {answer: always(value("-3")), message: "-3"},
		"truncated":   {answer: always(value("7")[:40]), message: ""},
		"html":        {answer: always("<html>login</html>"), message: ""},
		"401":         {answer: status(401, "no token for http://inside:9090"), message: ""},
		"503":         {answer: status(503, "down"), message: ""},
		"refused":     {answer: status(422, `{"status":"error","errorType":"execution","error":"many-to-many"}`), message: "many-to-many"},
		"partial":     {answer: always(strings.Replace(value("7"), "{", `{"warnings":["store down"],`, 1)), message: ""},
		"hanging":     {message: ""},
		"5 min stale": {answer: good, age: 5 * time.Minute, message: "old"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, ruleSeries()...)
			f.answer = good
			answer, timeout := c.answer, 20*time.Second // a busy machine is not to run into it
			if name == "hanging" {
				timeout = 2 * time.Second
				hang := make(chan struct{})
				t.Cleanup(func() { close(hang) }) // before the server is closed
				answer = func(http.ResponseWriter, string) { <-hang }
			}
			s := start(t, setup{
				sources: []source.Prometheus{{Name: "main", URL: f.URL, Tenants: true, Timeout: model.Duration(timeout)}},
				ready:   []string{"web-0"}, choice: choice(t, "istio", ""),
			})
			s.Declare(ref("web"), web(signal.Query{Signal: "own", PromQL: "sum(queue)", Interval: 100 * time.Millisecond}))
			names := []string{"queue_depth", "own", algorithms.Concurrency}
			eventually(t, "the preset is chosen", func() error {
				if _, ok := s.Signal(time.Now(), ref("web"), algorithms.Need{Name: algorithms.Concurrency}); !ok {
					return errors.New("it is not")
				}
				return nil
			})
			for _, signal := range names {
				becomes(t, s, ref("web"), signal, 0, 7)
			}
			f.set(func() { f.answer, f.age = answer, c.age })
			for _, signal := range names {
				eventually(t, signal+" is unknown", func() error {
					if v := read(t, s, ref("web"), signal, 0); v.Known || v.Value != 0 || v.Coverage != 0 || v.Missing == "" || !strings.Contains(v.Missing, c.message) {
						return fmt.Errorf("it is %+v", v)
					}
					return nil
				})
				if v := read(t, s, ref("web"), signal, time.Second); v.Known {
					t.Errorf("%s over a second is %+v", signal, v)
				}
			}
			if v := read(t, s, ref("web"), "own", 0); strings.Contains(v.Missing, "inside") || strings.Contains(v.Missing, f.URL) {
				t.Errorf("a tenant is told %q", v.Missing)
			}
		})
	}
}

// A signal that comes back is known again, and the time without it is not covered.
func TestRecovery(t *testing.T) {
	t.Parallel()
	f := newFake(t, ruleSeries()...)
	good := always(promtest.Vector(promtest.Sample(`queue="mail"`, "3")))
	f.answer = good
	s := start(t, setup{sources: []source.Prometheus{{Name: "main", URL: f.URL}}})
	s.Declare(ref("web"), web())
	becomes(t, s, ref("web"), "queue_depth", 4*time.Second, 3)
	f.set(func() { f.answer = func(w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusBadGateway) } })
	eventually(t, "it is unknown", func() error {
		if v := read(t, s, ref("web"), "queue_depth", 4*time.Second); v.Known {
			return fmt.Errorf("it is %+v", v)
		}
		return nil
	})
	f.set(func() { f.answer = good })
	becomes(t, s, ref("web"), "queue_depth", 0, 3)
	if v := read(t, s, ref("web"), "queue_depth", 30*time.Second); v.Known {
		t.Errorf("30 s with a gap are %+v", v)
	}
	becomes(t, s, ref("web"), "queue_depth", 4*time.Second, 3)
}

// Without a source that takes them a workload's own queries are not asked; with one they read its
// namespace alone, and what costs too much is refused before anybody is asked.
func TestTenantQueriesAreNarrowed(t *testing.T) {
	t.Parallel()
	f := newFake(t, ruleSeries()...)
	f.answer = always(promtest.Vector(promtest.Sample("", "7")))
	closed := start(t, setup{sources: []source.Prometheus{{Name: "main", URL: f.URL}}})
	closed.Declare(ref("web"), web(signal.Query{Signal: "own", PromQL: "sum(queue)"}))
	if v := read(t, closed, ref("web"), "own", 0); v.Known || !strings.Contains(v.Missing, "no Prometheus takes queries of Autoscalers") {
		t.Errorf("without permission it is %+v", v)
	}
	s := start(t, setup{sources: []source.Prometheus{{Name: "main", URL: f.URL}, {Name: "open", URL: f.URL, Tenants: true, NamespaceLabel: "kubernetes_namespace"}}})
	s.Declare(ref("web"), web(
		signal.Query{Signal: "own", PromQL: `sum(queue{kubernetes_namespace="bank",ns="$namespace"}) + scalar(up)`},
		signal.Query{Signal: "closed", PromQL: "up", Source: "main"},
		signal.Query{Signal: "costly", PromQL: "max_over_time(up[1h:1s])"},
		signal.Query{Signal: "broken", PromQL: "sum("},
		signal.Query{Signal: "range", PromQL: "up[5m]"},
	))
	becomes(t, s, ref("web"), "own", 0, 7)
	for name, want := range map[string]string{
		"closed": `source "main" takes no queries of Autoscalers`, "costly": "3600 steps: want at most 720", "broken": "no PromQL", "range": "range vector",
	} {
		if v := read(t, s, ref("web"), name, 0); v.Known || !strings.Contains(v.Missing, want) {
			t.Errorf("%s is %+v, want %q", name, v, want)
		}
	}
	want := []string{`sum(queue{kubernetes_namespace="bank",kubernetes_namespace="shop",ns="shop"}) + scalar(up{kubernetes_namespace="shop"})`}
	if got := f.queries(); !slices.Equal(got, want) {
		t.Errorf("Prometheus was asked %q, want %q", got, want)
	}
}

// Queries of one namespace that never end, however many, delay no other's and no rule's, and a
// namespace has a bound.
func TestTenantsShareASource(t *testing.T) {
	t.Parallel()
	f := newFake(t, ruleSeries()...)
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	f.answer = func(w http.ResponseWriter, query string) {
		if strings.Contains(query, `namespace="evil"`) && strings.Contains(query, "slow") {
			<-hang
		}
		fmt.Fprint(w, promtest.Vector(promtest.Sample("", "7")))
	}
	s := start(t, setup{sources: []source.Prometheus{{Name: "main", URL: f.URL, Tenants: true, MaxConcurrent: 4, Timeout: model.Duration(300 * time.Millisecond)}}})
	evil := web()
	evil.Namespace = "evil"
	for i := range 60 {
		evil.Queries = append(evil.Queries, signal.Query{Signal: fmt.Sprintf("slow_%d", i), PromQL: fmt.Sprintf("slow_%d", i), Interval: 100 * time.Millisecond})
	}
	s.Declare(ref("evil"), evil)
	refused := 0
	for _, q := range evil.Queries {
		if v := read(t, s, ref("evil"), q.Signal, 0); strings.Contains(v.Missing, "want at most 2000 and 50") {
			refused++
		}
	}
	if refused != 10 {
		t.Errorf("%d of 60 queries were refused, want those beyond 50", refused)
	}
	s.Declare(ref("web"), web(signal.Query{Signal: "own", PromQL: "fast", Interval: 100 * time.Millisecond}))
	begin := time.Now()
	becomes(t, s, ref("web"), "own", 0, 7)
	becomes(t, s, ref("web"), "queue_depth", 0, 7)
	// The pause of one namespace after its failures is not another's.
	eventually(t, "evil is not asked any more", func() error {
		for _, q := range evil.Queries[:50] {
			if v := read(t, s, ref("evil"), q.Signal, 0); strings.Contains(v.Missing, "not asked for a while") {
				return nil
			}
		}
		return errors.New("it is")
	})
	t.Logf("after %v", time.Since(begin))
	f.set(func() { f.answer = always(promtest.Vector(promtest.Sample("", "9"))) })
	becomes(t, s, ref("web"), "own", 0, 9)
	s.Forget(ref("evil"))
	s.Declare(ref("evil"), evil)
	if v := read(t, s, ref("evil"), "slow_55", 0); strings.Contains(v.Missing, "want at most") {
		t.Errorf("what was forgotten counts: %+v", v)
	}
}

// A preset answers signals of requests of a workload with pods. A fault of its annotation is told
// and makes them unknown, not the sidecars'.
func TestPresetSignals(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.age = 12 * time.Second
	f.answer = func(w http.ResponseWriter, query string) {
		switch {
		case strings.Contains(query, "/ sum(rate(app_seconds_count"):
			fmt.Fprint(w, promtest.Vector(promtest.Sample("", "NaN")))
		case strings.Contains(query, "app_seconds_sum"):
			fmt.Fprint(w, promtest.Vector(promtest.Sample("", "12.5")))
		default:
			fmt.Fprint(w, promtest.Vector(promtest.Sample("", "30")))
		}
	}
	sources := []source.Prometheus{{Name: "main", URL: f.URL}}
	c := choice(t, "histogram", "app_seconds")
	s := start(t, setup{sources: sources, ready: []string{"web-0"}, choice: c})
	s.Declare(ref("web"), web())
	eventually(t, "the preset is chosen", func() error {
		if _, ok := s.Signal(time.Now(), ref("web"), algorithms.Need{Name: algorithms.Concurrency}); !ok {
			return errors.New("it is not")
		}
		return nil
	})
	if v := becomes(t, s, ref("web"), algorithms.Concurrency, 0, 12.5); v.Age < 11*time.Second || v.Age > 30*time.Second {
		t.Errorf("it is %+v, want the age of the sample", v)
	}
	becomes(t, s, ref("web"), algorithms.Rate, 0, 30)
	eventually(t, "the duration of no requests is unknown", func() error {
		if v := read(t, s, ref("web"), preset.Duration, 0); v.Known || v.Missing == "" {
			return fmt.Errorf("it is %+v", v)
		}
		return nil
	})
	if _, ok := s.Signal(time.Now(), ref("web"), algorithms.Need{Name: algorithms.Waiting}); ok {
		t.Error("what gateways hold is Prometheus'")
	}
	if v := s.Object(time.Now(), c, algorithms.Need{Name: algorithms.Rate}); !v.Known || v.Value != 30 {
		t.Errorf("the object has %+v, want what the workload has", v)
	}
	want := `sum(rate({__name__="app_seconds_sum",namespace="shop",pod=~"web-[bcdfghjklmnpqrstvwxz2456789]{6,10}-[bcdfghjklmnpqrstvwxz2456789]{5}"}[60s]))`
	if got := f.queries(); !slices.Contains(got, want) {
		t.Errorf("Prometheus was asked %q, want %s", got, want)
	}

	faulty := start(t, setup{sources: sources, ready: []string{"web-0"}, fault: errors.New(`sluice.dev/prometheus-preset = "istoi": want one of envoy`)})
	faulty.Declare(ref("web"), web())
	eventually(t, "the fault is told", func() error {
		v, ok := faulty.Signal(time.Now(), ref("web"), algorithms.Need{Name: algorithms.Concurrency})
		if !ok || v.Known || !strings.Contains(v.Missing, "istoi") {
			return fmt.Errorf("it is %+v", v)
		}
		return nil
	})
}
