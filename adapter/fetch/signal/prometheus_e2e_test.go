//go:build e2e

package signal_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
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

// app is a program whose load is a function of time: from began on 10 requests are in flight that
// take 2 s each, and after calm 40. Its queue steps each 4 s.
type app struct{ began, calm time.Time }

const took = 2.0

// inFlight is what is in flight at an instant.
func (a *app) inFlight(at time.Time) float64 {
	if at.Before(a.calm) {
		return 10
	}
	return 40
}

// ended are the requests that have ended by then: those that began took before.
func (a *app) ended(at time.Time) float64 {
	n := 0.0
	for s := a.began; s.Before(at); s = s.Add(100 * time.Millisecond) {
		n += a.inFlight(s.Add(-time.Duration(took*float64(time.Second)))) / took * math.Min(0.1, at.Sub(s).Seconds())
	}
	return n
}

// queue is the depth of the queue.
func (a *app) queue(at time.Time) float64 {
	return float64(at.Sub(a.began)/(4*time.Second)%7) * 5
}

const podOf = "web-bcdfgh-bcdfg"

// ServeHTTP implements http.Handler: it answers /metrics.
func (a *app) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	now := time.Now()
	const of = `{namespace="shop",pod="` + podOf + `"}`
	fmt.Fprintf(w, "# TYPE queue_depth gauge\nqueue_depth{namespace=\"shop\",queue=\"mail\"} %g\n", a.queue(now))
	fmt.Fprintf(w, "queue_depth{namespace=\"bank\",queue=\"mail\"} 100000\n")
	fmt.Fprintf(w, "# TYPE app_in_flight gauge\napp_in_flight%s %g\n", of, a.inFlight(now))
	fmt.Fprintf(w, "# TYPE app_seconds summary\napp_seconds_sum%s %g\napp_seconds_count%s %g\n", of, took*a.ended(now), of, a.ended(now))
}

// TestSignalsOfARealPrometheus scrapes a program each second and checks each signal by the time of
// its sample. It prints what is lost against the truth, for docs/prometheus-signals.md.
func TestSignalsOfARealPrometheus(t *testing.T) {
	a := &app{began: time.Now(), calm: time.Now().Add(40 * time.Second)}
	target := httptest.NewServer(a)
	defer target.Close()
	url := promtest.Scraping(t, promtest.Loopback, strings.TrimPrefix(target.URL, "http://"), time.Second)
	eventually(t, "the first scrape", func() error {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/api/v1/query?query=queue_depth", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close() //nolint:errcheck // it was read
		text, err := io.ReadAll(resp.Body)
		if err == nil && !strings.Contains(string(text), "mail") {
			err = errors.New(string(text))
		}
		return err
	})
	http.DefaultClient.CloseIdleConnections()
	set, err := preset.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	chosen := func(name, metric string) *preset.Choice {
		c, err := set.Choose(prom.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"}, map[string]string{preset.Annotation: name, preset.MetricAnnotation: metric}, nil)
		if err != nil {
			t.Fatal(err)
		}
		short := *c.Preset
		short.Window = model.Duration(10 * time.Second)
		c.Preset = &short
		return c
	}
	gauge, little := chosen("in-flight", "app_in_flight"), chosen("histogram", "app_seconds")
	s := start(t, setup{sources: []source.Prometheus{{Name: "real", URL: url, Tenants: true}}, ready: []string{podOf}, interval: time.Second})
	s.Declare(ref("web"), web(signal.Query{Signal: "own", PromQL: "sum(queue_depth)", Interval: 5 * time.Second}))
	eventually(t, "everything is known", func() error {
		var errs []error
		for _, name := range []string{"queue_depth", "own"} {
			if v := read(t, s, ref("web"), name, 10*time.Second); !v.Known {
				errs = append(errs, errors.New(name+": "+v.Missing))
			}
		}
		for _, c := range []*preset.Choice{gauge, little} {
			if v := s.Object(time.Now(), c, algorithms.Need{Name: algorithms.Concurrency, Window: 5 * time.Second}); !v.Known {
				errs = append(errs, errors.New(c.Preset.Name+": "+v.Missing))
			}
		}
		return errors.Join(errs...)
	})
	var oldest, worst time.Duration
	var worstMean float64
	seen := map[string]time.Duration{}
	checked := 0
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for end := a.calm.Add(25 * time.Second); time.Now().Before(end); <-ticker.C {
		for _, name := range []string{"queue_depth", "own"} {
			v := read(t, s, ref("web"), name, algorithms.Instant)
			if !v.Known {
				t.Fatalf("%s is %+v", name, v)
			}
			if name == "queue_depth" {
				oldest = max(oldest, v.Age)
			}
			since := v.At.Sub(a.began) % (4 * time.Second)
			if since < 300*time.Millisecond || since > 3700*time.Millisecond {
				continue // the scrape began before the step, and read after it
			}
			if checked++; v.Value != a.queue(v.At) {
				t.Errorf("%s is %v at %v, want %v", name, v.Value, v.At.Sub(a.began), a.queue(v.At))
			}
		}
		mean := read(t, s, ref("web"), "queue_depth", 10*time.Second)
		want := 0.0
		for i := range 1000 {
			want += a.queue(mean.At.Add(-time.Duration(i)*10*time.Millisecond)) / 1000
		}
		if worstMean = max(worstMean, math.Abs(mean.Value-want)); math.Abs(mean.Value-want) > 8 {
			t.Errorf("the mean of 10 s is %v at %v, want %v", mean.Value, mean.At.Sub(a.began), want)
		}
		for _, c := range []*preset.Choice{gauge, little} {
			v := s.Object(time.Now(), c, algorithms.Need{Name: algorithms.Concurrency, Window: time.Second})
			if !v.Known {
				t.Fatalf("%s is %+v", c.Preset.Name, v)
			}
			worst = max(worst, v.Age)
			if _, ok := seen[c.Preset.Name]; !ok && v.Value >= 0.9*40 {
				seen[c.Preset.Name] = time.Since(a.calm)
			}
		}
	}
	for _, c := range []*preset.Choice{gauge, little} {
		if v := s.Object(time.Now(), c, algorithms.Need{Name: algorithms.Concurrency, Window: time.Second}); math.Abs(v.Value-40) > 0.4 {
			t.Errorf("%s says %v of 40 requests in flight", c.Preset.Name, v.Value)
		}
		if seen[c.Preset.Name] == 0 || seen[c.Preset.Name] > 22*time.Second {
			t.Errorf("%s saw the step after %v", c.Preset.Name, seen[c.Preset.Name])
		}
	}
	if checked < 100 || oldest > 6*time.Second {
		t.Errorf("%d values were checked, the oldest was %v old", checked, oldest)
	}
	t.Logf("with a scrape and a query each second: samples are at most %.1f s old (presets %.1f s); the mean of 10 s of a queue that steps by 5 each 4 s is off by at most %.1f; "+
		"a step from 10 to 40 requests of 2 s in flight is seen to 90 %% after %.1f s by the gauge, after %.1f s by Little's law over 10 s",
		oldest.Seconds(), worst.Seconds(), worstMean, seen["in-flight"].Seconds(), seen["histogram"].Seconds())
}
