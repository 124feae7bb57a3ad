package history_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/bench/history"
)

var begin = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

func nan() float64 { return math.NaN() }

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

func client(t *testing.T, f *fake, auth history.Auth) *history.Prometheus {
	t.Helper()
	p, err := history.NewPrometheus(f.URL, auth)
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
	p := client(t, f, history.Auth{})
	ask := func(promQL string, span, step time.Duration) (history.Series, error) {
		s, warnings, err := p.Query(t.Context(), history.Range{PromQL: promQL, From: begin.Add(7 * time.Second), To: begin.Add(span + 7*time.Second), Step: step})
		if err == nil && (len(warnings) == 0 || warnings[0] != "mind the gap") {
			t.Errorf("warnings %q: want Prometheus's", warnings)
		}
		return s, err
	}
	got, err := ask("holes", 4*time.Minute, 30*time.Second)
	want := history.Series{Start: begin, Step: 30 * time.Second, Values: []float64{1, nan(), nan(), nan(), nan(), 6, 7, 8}, Odd: 2}
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
	if got, err = ask("nothing", time.Hour, time.Minute); err != nil || got.Gaps().Share != 1 {
		t.Errorf("Query(nothing) = %+v, %v: want all unknown", got.Gaps(), err)
	}
	if _, ok := got.Trim(); ok {
		t.Error("Trim of nothing is ok")
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
	p := client(t, f, history.Auth{})
	r := history.Range{PromQL: "one", From: begin, To: begin.Add(time.Hour), Step: time.Minute}
	f.fail = func(n int64) int {
		if n < 3 {
			return http.StatusServiceUnavailable
		}
		return 0
	}
	if s, _, err := p.Query(t.Context(), r); err != nil || s.Mean() != 1 || f.requests.Load() != 3 {
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
	p := client(t, f, history.Auth{BearerTokenFile: token, Headers: http.Header{"X-Scope-Orgid": {"team"}}})
	for _, want := range []string{"first", "second"} {
		if err := os.WriteFile(token, []byte(want+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := p.Query(t.Context(), history.Range{PromQL: "one", From: begin, To: begin.Add(time.Hour), Step: time.Minute}); err != nil {
			t.Fatal(err)
		}
		if got := f.seen.Get("Authorization"); got != "Bearer "+want || f.seen.Get("X-Scope-OrgID") != "team" {
			t.Errorf("Authorization = %q, want %s's token, and the header: %v", got, want, f.seen)
		}
	}
	for address, want := range map[string]string{"prometheus:9090": "want the URL", "ftp://x": "want the URL", "http://": "want the URL"} {
		if _, err := history.NewPrometheus(address, history.Auth{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewPrometheus(%q) = %v, want %q", address, err, want)
		}
	}
	if _, err := history.NewPrometheus(f.URL, history.Auth{BearerTokenFile: "nowhere"}); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("a token file that is not there: %v", err)
	}
}

func TestGapsAndFill(t *testing.T) {
	t.Parallel()
	s := history.Series{Start: begin, Step: 6 * time.Hour, Values: []float64{nan(), 1, 2, 3, 10, nan(), nan(), 40, nan()}}
	if got, want := s.Gaps(), (history.Gaps{Count: 3, Total: 24 * time.Hour, Longest: 12 * time.Hour, Share: 4.0 / 9}); got != want {
		t.Errorf("Gaps = %+v, want %+v", got, want)
	}
	for rule, want := range map[history.Fill][]float64{
		history.FillInterpolate: {1, 1, 2, 3, 10, 20, 30, 40, 40},
		history.FillHold:        {1, 1, 2, 3, 10, 10, 10, 40, 40},
		history.FillDay:         {10, 1, 2, 3, 10, 1, 2, 40, 10},
	} {
		got, err := s.Fill(rule)
		if diff := cmp.Diff(want, got.Values); err != nil || diff != "" {
			t.Errorf("Fill(%s): %v\n%s", rule, err, diff)
		}
		if parsed, err := history.ParseFill(string(rule)); err != nil || parsed != rule {
			t.Errorf("ParseFill(%s) = %s, %v", rule, parsed, err)
		}
	}
	if _, err := history.ParseFill("zero"); err == nil || !strings.Contains(err.Error(), "want interpolate, hold or day") {
		t.Errorf("ParseFill(zero) = %v: want a fault, since unknown is not zero", err)
	}
	if _, err := (history.Series{Step: time.Hour, Values: []float64{nan()}}).Fill(history.FillHold); err == nil {
		t.Error("Fill of nothing is accepted")
	}
	wide := history.Series{Start: begin, Step: time.Minute, Values: []float64{1, 2, nan(), nan(), 5, 6, 7, 8, nan()}}
	if diff := cmp.Diff([]float64{1, nan(), nan(), nan(), nan(), 6, 7, nan(), nan()}, wide.Widen(50*time.Second).Values, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("Widen by a step:\n%s", diff)
	}
	if diff := cmp.Diff(wide, wide.Widen(0), cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("Widen by nothing:\n%s", diff)
	}
	trimmed, ok := s.Trim()
	if !ok || !trimmed.Start.Equal(begin.Add(6*time.Hour)) || len(trimmed.Values) != 7 {
		t.Errorf("Trim = %+v, %v", trimmed, ok)
	}
	if got := s.Cut(begin.Add(12*time.Hour), begin.Add(19*time.Hour)); len(got.Values) != 1 || got.Values[0] != 2 {
		t.Errorf("Cut = %+v, want the one whole step", got)
	}
	if got := s.Samples("x"); len(got) != 5 || got[0] != (algorithms.Sample{At: begin.Add(12 * time.Hour), Signal: "x", Value: 1}) {
		t.Errorf("Samples = %+v: want what is known, at the end of each step", got)
	}
	if s.Peak() != 40 || s.Mean() != 56.0/5 {
		t.Errorf("peak %v, mean %v", s.Peak(), s.Mean())
	}
}

func TestReadRecords(t *testing.T) {
	t.Parallel()
	at := begin.Unix()
	line := func(s int64, current int, signals string) string {
		return fmt.Sprintf(`{"t": %d, "current": %d, "signals": {%s}}`, at+s, current, signals)
	}
	in := strings.Join([]string{
		line(0, 1, `"concurrency": {"10s": 5}`),
		line(10, 1, `"concurrency": {"10s": 2, "60s": 9}`),
		line(20, 2, `"concurrency": {"10s": 4}`),
		line(40, 2, `"concurrency": {"10s": null}`),
		line(60, 2, `"concurrency": {"10s": 6}`),
		line(400, 3, `"concurrency": {"10s": 1}`), // speaks for a minute
	}, "\n")
	demand, pods, err := history.ReadRecords(strings.NewReader(in), 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	n := nan()
	want := []float64{3, n, 6, n, n, n, n, n, n, n, n, n, n, n, n, n, n, 1, 1, 1}
	if diff := cmp.Diff(want, demand.Values, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("concurrency:\n%s", diff)
	}
	if !demand.Start.Equal(begin) || pods.Values[0] != 1.5 || pods.Values[1] != 2 || pods.Values[19] != 3 {
		t.Errorf("from %v, pods %v: want 1.5, 2, …, 3", demand.Start, pods.Values)
	}
	if _, _, err := history.ReadRecords(strings.NewReader(in+"\n{}"), 20*time.Second); err == nil || !strings.Contains(err.Error(), "line 7") {
		t.Errorf("a broken line: %v, want its number", err)
	}
	if demand, _, err = history.ReadRecords(strings.NewReader(""), time.Minute); err != nil || len(demand.Values) != 0 {
		t.Errorf("nothing: %v, %v", demand, err)
	}
}
