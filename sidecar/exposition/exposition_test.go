package exposition_test

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/sluice-autoscaler/sluice/proxy/inflight"
	"github.com/sluice-autoscaler/sluice/proxy/request"
	"github.com/sluice-autoscaler/sluice/sidecar/exposition"
	"github.com/sluice-autoscaler/sluice/wire"
)

var update = flag.Bool("update", false, "rewrite golden files")

// source is a fixed life: started 10 s ago, two requests in flight since its 4th second, some ended.
func source(t *testing.T) (*exposition.Metrics, http.Handler) {
	t.Helper()
	var c inflight.Counter
	c.Begin(4 * time.Second)
	c.Begin(4 * time.Second)
	m := exposition.New(exposition.Options{
		Start: time.Unix(1_700_000_000, 250_000_000), Now: func() time.Duration { return 10 * time.Second }, InFlight: &c,
		Queued: func() int { return 1 }, Limit: func() int { return 8 }, Draining: func() bool { return true }, Version: "v0",
	})
	for _, code := range []int{101, 200, 204, 304, 404, 499, 502, 999} {
		m.Finished(code, 20*time.Millisecond, 30*time.Microsecond)
	}
	m.Refused(request.AppUnreachable)
	m.Ignored()
	h, err := m.Handler(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return m, h
}

func scrape(t *testing.T, h http.Handler, accept string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", accept)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec
}

func TestGolden(t *testing.T) {
	_, h := source(t)
	got, err := io.ReadAll(scrape(t, h, "text/plain").Body)
	if err != nil {
		t.Fatal(err)
	}
	got = regexp.MustCompile(`goversion="[^"]*"`).ReplaceAll(got, []byte(`goversion="X"`))
	golden := filepath.Join("testdata", "metrics.txt")
	if *update {
		if err := os.WriteFile(golden, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("/metrics (-want +got):\n%s", d)
	}
}

func TestLint(t *testing.T) {
	m, _ := source(t)
	problems, err := testutil.CollectAndLint(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestFormats reads the same numbers back from every format.
func TestFormats(t *testing.T) {
	_, h := source(t)
	accepts := map[string]string{
		"text":     "text/plain;version=0.0.4",
		"protobuf": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
	}
	for name, accept := range accepts {
		t.Run(name, func(t *testing.T) {
			resp := scrape(t, h, accept)
			decode := expfmt.NewDecoder(resp.Body, expfmt.ResponseFormat(resp.Header()))
			families := map[string]*dto.MetricFamily{}
			for {
				f := new(dto.MetricFamily)
				err := decode.Decode(f)
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				families[f.GetName()] = f
			}
			want := map[string]float64{
				wire.ConcurrencySeconds: 12, wire.MonotonicSeconds: 10, wire.InFlight: 2, wire.Queued: 1, wire.ConcurrencyLimit: 8,
				wire.StartTime: 1_700_000_000.25,
			}
			for metric, v := range want {
				m := families[metric].GetMetric()
				if len(m) != 1 || m[0].GetGauge().GetValue()+m[0].GetCounter().GetValue() != v {
					t.Errorf("%s = %v, want %v", metric, m, v)
				}
			}
			classes := map[string]float64{}
			for _, m := range families[wire.Requests].GetMetric() {
				classes[m.GetLabel()[0].GetName()+"="+m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
			if d := cmp.Diff(map[string]float64{"code=1xx": 1, "code=2xx": 2, "code=3xx": 1, "code=4xx": 2, "code=5xx": 2}, classes); d != "" {
				t.Errorf("%s (-want +got):\n%s", wire.Requests, d)
			}
			if name == "protobuf" && families["sluice_sidecar_request_duration_seconds"].GetMetric()[0].GetHistogram().GetSchema() == 0 {
				t.Error("the duration histogram is not native")
			}
		})
	}
	t.Run("openmetrics", func(t *testing.T) {
		resp := scrape(t, h, "application/openmetrics-text;version=1.0.0")
		if got := resp.Header().Get("Content-Type"); !strings.HasPrefix(got, "application/openmetrics-text") {
			t.Errorf("content type %q", got)
		}
		var last string
		lines := bufio.NewScanner(resp.Body)
		values := bytes.Buffer{}
		for lines.Scan() {
			last = lines.Text()
			values.WriteString(last + "\n")
		}
		if last != "# EOF" || !strings.Contains(values.String(), "\n"+wire.ConcurrencySeconds+" 12.0\n") {
			t.Errorf("last line %q of:\n%s", last, values.String())
		}
	})
}
