package prom_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluice-autoscaler/sluice/prom"
)

var begin = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

func nan() float64 { return math.NaN() }

func known(v float64) bool { return !math.IsNaN(v) }

// fake is a Prometheus that knows functions of time. A value of nil is no sample.
type fake struct {
	*httptest.Server
	requests atomic.Int64
	// fail is asked first; a status other than 0 is answered with an error of the API.
	fail func(n int64) int
	seen http.Header
}

func prometheus(t *testing.T, series map[string]func(at float64) any) *fake {
	t.Helper()
	f := &fake{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := f.requests.Add(1)
		f.seen = r.Header
		answer := func(code int, v any) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			if err := json.NewEncoder(w).Encode(v); err != nil {
				t.Error(err)
			}
		}
		bad := func(code int, kind, text string) {
			answer(code, map[string]string{"status": "error", "errorType": kind, "error": text})
		}
		if f.fail != nil {
			if code := f.fail(n); code == http.StatusBadRequest {
				bad(code, "bad_data", "parse error")
				return
			} else if code != 0 {
				w.WriteHeader(code)
				return
			}
		}
		number := func(name string) float64 {
			v, err := strconv.ParseFloat(r.FormValue(name), 64)
			if err != nil {
				t.Errorf("%s = %q", name, r.FormValue(name))
			}
			return v
		}
		from, to, step := number("start"), number("end"), number("step")
		if (to-from)/step > 11_000 {
			bad(http.StatusBadRequest, "bad_data", "exceeded maximum resolution of 11,000 points per timeseries")
			return
		}
		var result []any
		for name := range strings.SplitSeq(r.FormValue("query"), " or ") {
			var values []any
			for at := from; at <= to; at += step {
				if v := series[name](at); v != nil {
					values = append(values, []any{at, fmt.Sprint(v)})
				}
			}
			if values != nil {
				result = append(result, map[string]any{"metric": map[string]string{"name": name}, "values": values})
			}
		}
		answer(http.StatusOK, map[string]any{"status": "success", "data": map[string]any{"resultType": "matrix", "result": result}, "warnings": []string{"mind the gap"}})
	}))
	t.Cleanup(f.Close)
	return f
}

func client(t *testing.T, f *fake, auth prom.Auth) *prom.Client {
	t.Helper()
	p, err := prom.NewClient(f.URL, auth)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestQuery(t *testing.T) {
	t.Parallel()
	second := func(at float64) any { return at - float64(begin.Unix()) }
	f := prometheus(t, map[string]func(float64) any{
		"seconds": second, "other": second,
		"holes": func(at float64) any {
			switch k := int(at-float64(begin.Unix())) / 30; k {
			case 2:
				return nil
			case 3:
				return "NaN"
			case 4:
				return "+Inf"
			case 5:
				return -1
			default:
				return k
			}
		},
		"nothing": func(float64) any { return nil },
	})
	p := client(t, f, prom.Auth{})
	ask := func(promQL string, span, step time.Duration) (prom.Series, error) {
		s, warnings, err := p.Query(t.Context(), prom.Range{PromQL: promQL, From: begin.Add(7 * time.Second), To: begin.Add(span + 7*time.Second), Step: step})
		if err == nil && (len(warnings) == 0 || warnings[0] != "mind the gap") {
			t.Errorf("warnings %q: want Prometheus's", warnings)
		}
		return s, err
	}
	got, err := ask("holes", 4*time.Minute, 30*time.Second)
	want := prom.Series{Start: begin, Step: 30 * time.Second, Values: []float64{1, nan(), nan(), nan(), nan(), 6, 7, 8}, Odd: 2}
	if diff := cmp.Diff(want, got, cmpopts.EquateNaNs()); err != nil || diff != "" {
		t.Errorf("Query(holes): %v\n%s", err, diff)
	}
	// Longer than one request may be, to the second, and nothing twice or left out.
	before := f.requests.Load()
	if got, err = ask("seconds", 25_000*time.Second, time.Second); err != nil || len(got.Values) != 25_000 || f.requests.Load()-before != 3 {
		t.Fatalf("Query of 25,000 points: %d in %d requests, %v", len(got.Values), f.requests.Load()-before, err)
	}
	for i, v := range got.Values {
		if v != float64(i+8) {
			t.Fatalf("value %d = %v, want the second at its end", i, v)
		}
	}
	if got, err = ask("nothing", time.Hour, time.Minute); err != nil || len(got.Values) != 60 || slices.ContainsFunc(got.Values, known) {
		t.Errorf("Query(nothing) = %v, %v: want 60 unknown values", got.Values, err)
	}
	if _, err = ask("seconds or other", time.Hour, time.Minute); err == nil || !strings.Contains(err.Error(), `2 series, {name="seconds"} and {name="other"}`) {
		t.Errorf("two series: %v, want a fault that names them", err)
	}
	if _, err = ask("seconds", time.Hour, time.Millisecond); err == nil || !strings.Contains(err.Error(), "step = 1ms: want 1s–24h") {
		t.Errorf("a step of 1ms: %v", err)
	}
	if _, err = ask("seconds", 365*24*time.Hour, time.Second); err == nil || !strings.Contains(err.Error(), "31536000 points") {
		t.Errorf("a year of seconds: %v", err)
	}
}

func TestQueryTriesAgain(t *testing.T) {
	t.Parallel()
	f := prometheus(t, map[string]func(float64) any{"one": func(float64) any { return 1 }})
	p := client(t, f, prom.Auth{})
	r := prom.Range{PromQL: "one", From: begin, To: begin.Add(time.Hour), Step: time.Minute}
	f.fail = func(n int64) int {
		if n < 3 {
			return http.StatusServiceUnavailable
		}
		return 0
	}
	if s, _, err := p.Query(t.Context(), r); err != nil || s.Values[0] != 1 || f.requests.Load() != 3 {
		t.Errorf("after two failures: %v in %d requests, want success in 3", err, f.requests.Load())
	}
	f.fail = func(int64) int { return http.StatusBadRequest }
	before := f.requests.Load()
	if _, _, err := p.Query(t.Context(), r); err == nil || !strings.Contains(err.Error(), "parse error") || f.requests.Load()-before != 1 {
		t.Errorf("a query that is refused: %v in %d requests, want one", err, f.requests.Load()-before)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f.fail = func(int64) int { cancel(); return http.StatusServiceUnavailable }
	if _, _, err := p.Query(ctx, r); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v, want context canceled", err)
	}
}

func TestAuth(t *testing.T) {
	t.Parallel()
	f := prometheus(t, map[string]func(float64) any{"one": func(float64) any { return 1 }})
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("first\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := client(t, f, prom.Auth{BearerTokenFile: token, Headers: http.Header{"X-Scope-Orgid": {"team"}}})
	for _, want := range []string{"first", "second"} {
		if err := os.WriteFile(token, []byte(want+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := p.Query(t.Context(), prom.Range{PromQL: "one", From: begin, To: begin.Add(time.Hour), Step: time.Minute}); err != nil {
			t.Fatal(err)
		}
		if got := f.seen.Get("Authorization"); got != "Bearer "+want || f.seen.Get("X-Scope-OrgID") != "team" {
			t.Errorf("Authorization = %q, want %s's token, and the header: %v", got, want, f.seen)
		}
	}
	for address, want := range map[string]string{"prometheus:9090": "want the URL", "ftp://x": "want the URL", "http://": "want the URL"} {
		if _, err := prom.NewClient(address, prom.Auth{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewClient(%q) = %v, want %q", address, err, want)
		}
	}
	if _, err := prom.NewClient(f.URL, prom.Auth{BearerTokenFile: "nowhere"}); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("a token file that is not there: %v", err)
	}
}

func TestWiden(t *testing.T) {
	t.Parallel()
	wide := prom.Series{Start: begin, Step: time.Minute, Values: []float64{1, 2, nan(), nan(), 5, 6, 7, 8, nan()}}
	if diff := cmp.Diff([]float64{1, nan(), nan(), nan(), nan(), 6, 7, nan(), nan()}, wide.Widen(50*time.Second).Values, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("Widen by a step:\n%s", diff)
	}
	if diff := cmp.Diff(wide, wide.Widen(0), cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("Widen by nothing:\n%s", diff)
	}
}

func TestKnown(t *testing.T) {
	t.Parallel()
	s := prom.Series{Start: begin, Step: time.Minute, Values: []float64{nan(), 3, nan(), 0}}
	got := maps.Collect(s.Known())
	if diff := cmp.Diff(map[time.Time]float64{begin.Add(2 * time.Minute): 3, begin.Add(4 * time.Minute): 0}, got); diff != "" {
		t.Errorf("Known:\n%s", diff)
	}
}
