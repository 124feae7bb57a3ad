package benchadapter

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/sluice-autoscaler/sluice/wire"
)

// The HPA metrics of a shape are different ones, of all workloads, and as many as it says.
func TestAsks(t *testing.T) {
	for _, quick := range []bool{false, true} {
		shapes, _ := plan(quick)
		for i := range shapes {
			s := &shapes[i]
			seen, names, of := map[ask]bool{}, map[string]bool{}, map[int]bool{}
			for _, a := range s.asks() {
				seen[a], names[a.name], of[a.workload] = true, true, true
			}
			if len(seen) != s.metrics || len(names) != s.names() || len(of) != workloads {
				t.Errorf("%s: %d metrics, %d names, %d workloads", s, len(seen), len(names), len(of))
			}
			// All names that are asked for have series of all pods.
			each := s.pods * workloads
			if s.own {
				each = s.pods
			}
			if s.series%each != 0 || s.series/each < s.names() {
				t.Errorf("%s: %d series of each name", s, each)
			}
		}
	}
}

func TestQuantile(t *testing.T) {
	values := make([]float64, 100)
	for i := range values {
		values[i] = float64(100 - i)
	}
	if p50, p99 := quantile(values, 0.5), quantile(values, 0.99); p50 != 51 || p99 != 100 {
		t.Errorf("the quantiles of 1 to 100 are %v and %v, want 51 and 100", p50, p99)
	}
	if got := quantile(nil, 0.99); got != 0 {
		t.Errorf("the quantile of nothing is %v", got)
	}
}

// A way counts what goes to Prometheus' API and makes it wait.
func TestWay(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) }))
	defer server.Close()
	w, err := newWay(t.Context(), server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	const latency = 20 * time.Millisecond
	w.latency.Store(int64(latency))
	for _, path := range []string{"/api/v1/query", "/-/ready"} {
		began := time.Now()
		got, err := get(t.Context(), http.DefaultClient, w.url+path, nil)
		if err != nil || string(got.body) != path {
			t.Errorf("%s answers %q, %v", path, got.body, err)
		}
		if took := time.Since(began); strings.HasPrefix(path, "/api/") && took < latency {
			t.Errorf("%s took %v, want at least %v", path, took, latency)
		}
	}
	if n := w.count.Load(); n != 1 {
		t.Errorf("%d requests were counted, want 1", n)
	}
}

// What the sidecars answer is a sidecar's exposition whose clock and integral go on together.
func TestSidecars(t *testing.T) {
	s, err := newSidecars(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	read := func() map[string]float64 {
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		decoder, all := expfmt.NewDecoder(bytes.NewReader(rec.Body.Bytes()), expfmt.ResponseFormat(rec.Header())), map[string]float64{}
		for {
			var family dto.MetricFamily
			if err := decoder.Decode(&family); errors.Is(err, io.EOF) {
				return all
			} else if err != nil {
				t.Fatal(err)
			}
			m := family.GetMetric()[0]
			all[family.GetName()] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	first, second := read(), read()
	for _, name := range []string{wire.ConcurrencySeconds, wire.MonotonicSeconds} {
		if first[name] >= second[name] {
			t.Errorf("%s is %v and then %v", name, first[name], second[name])
		}
	}
	if second[wire.ConcurrencySeconds] != second[wire.MonotonicSeconds] || second[wire.InFlight] != 1 || second[wire.Requests] != 0 && second[wire.Requests] != 1000 {
		t.Errorf("the exposition says %v", second)
	}
	if n := s.reads.Load(); n != 2 {
		t.Errorf("%d reads were counted, want 2", n)
	}
}

// Sluice is judged against prometheus-adapter with default flags, of the same run.
func TestGoals(t *testing.T) {
	run := func(adapter string, metrics int, p99 float64, queries int, rss float64) Run {
		return Run{Adapter: adapter, Metrics: metrics, Names: metrics / 100, Pods: 10, Series: smallSeries, GetP99Ms: p99, Queries: queries, Gets: 1000, RSSMiB: rss}
	}
	s := Summary{
		Runs: []Run{
			run(sluice, 100, 1.5, 20, 25), run(upstream, 100, 15, 1000, 100),
			run(sluice, 1000, 1.6, 21, 26), run(upstream, 1000, 15, 1000, 100), run(unthrottled, 1000, 900, 1000, 900),
			run(sluice, 5000, 1.6, 21, 26),
		},
		Collection: []Collection{{Sidecars: 1000, ReadsPerSecond: 1000, Cores: 0.08}, {Sidecars: 3000, ReadsPerSecond: 3000, Cores: 9}, {Sidecars: 10_000, ReadsPerSecond: 9000, Cores: 0.1}},
	}
	s.Goals = goals(&s)
	var met []bool
	for _, g := range s.Goals {
		met = append(met, g.Met)
	}
	if len(met) != 8 || !met[0] || !met[1] || !met[2] || met[3] || met[4] || met[5] || !met[6] || met[7] {
		t.Errorf("met are %v of %+v", met, s.Goals)
	}
	var text bytes.Buffer
	if err := report(&text, &s); err == nil || strings.Count(text.String(), "MISSED") != 4 {
		t.Errorf("the report says %v and\n%s", err, &text)
	}
}
