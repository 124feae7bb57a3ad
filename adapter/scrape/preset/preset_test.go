package preset_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/sluice-autoscaler/sluice/adapter/scrape/preset"
	"github.com/sluice-autoscaler/sluice/algorithms/window"
)

// TestFaults: each names the field, its value and what to do.
func TestFaults(t *testing.T) {
	t.Parallel()
	entry := func(more string) string { return "presets:\n- name: x\n  port: 80\n  " + more }
	signal := func(s string) string { return entry("signals: {a: " + s + "}") }
	cases := []struct{ name, text, want string }{
		{"an unknown key", entry("prot: 80\n  signals: {a: {gauge: g}}"), `unknown field "presets[0].prot"`},
		{"an unknown key of a signal", signal("{gage: g}"), `unknown field`},
		{"no list", "presets: 5", "presets"},
		{"a key twice", entry("port: 81\n  signals: {a: {gauge: g}}"), `"port" already set`},
		{"no name", "presets:\n- port: 80\n  signals: {a: {gauge: g}}", `presets[0].name = ""`},
		{"twice", "presets:\n- {name: x, port: 80, signals: {a: {gauge: g}}}\n- {name: x, port: 80, signals: {a: {gauge: g}}}", `presets[1].name = "x": presets[0] has it too`},
		{"no port", "presets:\n- {name: x, signals: {a: {gauge: g}}}", "presets[0].port is missing"},
		{"a port too large", "presets:\n- {name: x, port: 70000, signals: {a: {gauge: g}}}", `presets[0].port = "70000": want`},
		{"a port of a bool", "presets:\n- {name: x, port: true, signals: {a: {gauge: g}}}", "want a text, a number"},
		{"a path", entry("path: metrics\n  signals: {a: {gauge: g}}"), `presets[0].path = "metrics": want a path such as /metrics`},
		{"a scheme", entry("scheme: ftp\n  signals: {a: {gauge: g}}"), `presets[0].scheme = "ftp": want http or https`},
		{"an age", entry("minPodReadyAge: 48h\n  signals: {a: {gauge: g}}"), `presets[0].minPodReadyAge = 48h0m0s: want 0s–24h`},
		{"a selector", entry("selector: 'a in ('\n  signals: {a: {gauge: g}}"), `presets[0].selector = "a in (": want a label selector`},
		{"no signals", entry("signals: {}"), "presets[0].signals has 0 entries"},
		{"a signal's name", entry("signals: {A: {gauge: g}}"), `presets[0].signals."A": want a name`},
		{"waiting", entry("signals: {waiting: {gauge: g}}"), "want another name, such as queue"},
		{"an empty signal", entry("signals: {a: }"), "presets[0].signals.a is empty"},
		{"two kinds", signal("{gauge: g, counter: c}"), "presets[0].signals.a has 2 of gauge, counter, integral, durations"},
		{"per of a gauge", signal("{gauge: g, per: c}"), "presets[0].signals.a.per stands with gauge"},
		{"no PromQL", signal("{gauge: 'g{'}"), `presets[0].signals.a.gauge = "g{": want names of samples`},
		{"a range", signal("{gauge: 'rate(g[5m])'}"), "want selectors such as"},
		{"a function", signal("{gauge: abs(g)}"), "want selectors such as"},
		{"grouping", signal("{gauge: sum by (a) (g)}"), "want selectors such as"},
		{"matching", signal("{gauge: g + on (a) h}"), "want selectors such as"},
		{"no name of a sample", signal(`{gauge: '{a="b"}'}`), "want selectors such as"},
		{"an offset", signal("{gauge: g offset 5m}"), "want selectors such as"},
		{"max of a counter", signal("{counter: max(c)}"), "want selectors such as"},
		{"a quotient of counters", signal("{counter: c / d}"), "want a factor that is a number, or per"},
		{"over", signal("{gauge: g, over: sum}"), "want it with a JSON path alone"},
		{"another over", signal(`{gauge: "$.a", over: p99}`), `over = "p99": want sum, avg, max or min`},
		{"a JSON path", signal(`{gauge: "$.["}`), "want a JSON path such as"},
		{"two descents", signal(`{gauge: "$..a..b"}`), `want at most one ".."`},
		{"both", entry(`signals: {a: {gauge: "$.a"}, b: {gauge: g}}`), "want one of them, since a pod's answer is JSON or an exposition"},
		{"a long expression", signal("{gauge: " + strings.Repeat("g", 5000) + "}"), "want at most 4096"},
	}
	for _, tt := range cases {
		_, err := preset.New([]byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: New = %v\nwant it to say %q", tt.name, err, tt.want)
		}
	}
	_, err := preset.New([]byte("presets:\n- {name: X, port: 0, signals: {a: {gauge: g}}}"))
	if err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("New = %v: want both faults", err)
	}
}

// TestFiveLines is a new preset, and a built-in one that a file replaces.
func TestFiveLines(t *testing.T) {
	t.Parallel()
	set, err := preset.New([]byte(`presets:
- name: jobs
  port: 8080
  signals:
    queue: {gauge: jobs_queued}
- name: vllm
  port: 9000
  signals: {queue: {gauge: q}}
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := set.Get("vllm").Port[0]; got != "9000" {
		t.Errorf("vllm's port = %s, want that of the file", got)
	}
	if values, _, _ := read(t, set.Get("jobs"), "jobs_queued 4\n"); values["queue"] != 4 {
		t.Errorf("jobs = %v, want a queue of 4", values)
	}
	if set.Get("istio") == nil || set.Get("nosuch") != nil {
		t.Error("the built-in presets are not there, or others are")
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	cases := []struct {
		signal, body string
		want         float64
		missing      string
	}{
		{`{gauge: "$.http_server.rps"}`, `{"http_server": {"rps": 12.5}}`, 12.5, ""},
		{`{gauge: "$['http_server']['rps']"}`, `{"http_server": {"rps": 1e3}}`, 1000, ""},
		{`{gauge: "$.a[*].q", over: sum}`, `{"a": [{"q": 1}, {"q": 2}]}`, 3, ""},
		{`{gauge: "$.a", over: avg}`, `{"a": [1, 2, 6]}`, 3, ""},
		{`{gauge: "$.a", over: max}`, `{"a": [1, 7, 6]}`, 7, ""},
		{`{gauge: "$.a", over: min}`, `{"a": [1, 7, 6]}`, 1, ""},
		{`{gauge: "$.a"}`, `{"a": [1, 7, 6]}`, 0, "3 values at $.a: say over"},
		{`{gauge: "$.a"}`, `{"a": "12"}`, 0, "no number at $.a"},
		{`{gauge: "$.a"}`, `{"a": null}`, 0, "no number at $.a"},
		{`{gauge: "$.a"}`, `{"a": 1e999}`, 0, "no number at $.a"},
		{`{gauge: "$.a"}`, `{"a": -1}`, 0, "no amount"},
		{`{gauge: "$.a"}`, `[]`, 0, "nothing at $.a"},
		{`{gauge: ["$.a", "$.b"]}`, `{"b": 5}`, 5, ""},
		{`{gauge: "$.a", zeroIf: "$.up"}`, `{"up": 1}`, 0, ""},
		{`{gauge: "$..depth"}`, strings.Repeat(`{"x":`, 5000) + `{"depth": 3}` + strings.Repeat("}", 5000), 3, ""},
	}
	for _, tt := range cases {
		set, err := preset.New([]byte("presets: [{name: x, port: 80, signals: {a: " + tt.signal + "}}]"))
		if err != nil {
			t.Fatalf("%s: %v", tt.signal, err)
		}
		r, err := set.Get("x").Read(t.Context(), http.Header{"Content-Type": {"application/json"}}, strings.NewReader(tt.body), at)
		if err != nil {
			t.Errorf("%s: %v", tt.signal, err)
			continue
		}
		v := r.Values[0]
		if v.Value != tt.want || (v.Missing == "") != (tt.missing == "") || !strings.Contains(v.Missing, tt.missing) {
			t.Errorf("%s of %.40s = %v, %q; want %v, %q", tt.signal, tt.body, v.Value, v.Missing, tt.want, tt.missing)
		}
	}
	set, _ := preset.New([]byte(`presets: [{name: x, port: 80, signals: {a: {gauge: "$.a"}}}]`))
	for _, body := range []string{"", "<html>", strings.Repeat(`{"x":`, 20_000), `{"a":` + strings.Repeat(" ", 300<<10) + "1}"} {
		if _, err := set.Get("x").Read(t.Context(), http.Header{}, strings.NewReader(body), at); err == nil {
			t.Errorf("Read(%.20q) has no error", body)
		}
	}
}

// TestProtobuf reads a histogram from its message as from its samples.
func TestProtobuf(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	enc := expfmt.NewEncoder(&b, expfmt.NewFormat(expfmt.TypeProtoDelim))
	for _, f := range []*dto.MetricFamily{
		{Name: new("http_request_duration_seconds"), Type: dto.MetricType_HISTOGRAM.Enum(), Metric: []*dto.Metric{
			{Histogram: &dto.Histogram{SampleSum: new(3.0), SampleCount: new(uint64(6))}},
			{Histogram: &dto.Histogram{SampleSum: new(4.0), SampleCount: new(uint64(8))}},
		}},
		{Name: new("http_requests_total"), Type: dto.MetricType_COUNTER.Enum(), Metric: []*dto.Metric{{Counter: &dto.Counter{Value: new(14.0)}}}},
		{Name: new("http_requests_in_flight"), Type: dto.MetricType_GAUGE.Enum(), Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: new(2.0)}}}},
		{Name: new("process_start_time_seconds"), Type: dto.MetricType_GAUGE.Enum(), Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: new(1e9)}}}},
	} {
		if err := enc.Encode(f); err != nil {
			t.Fatal(err)
		}
	}
	header := http.Header{"Content-Type": {"application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"}}
	r, err := builtin(t).Get("of-watchdog").Read(t.Context(), header, strings.NewReader(b.String()), at)
	if err != nil {
		t.Fatal(err)
	}
	want := "[concurrency=2/0 duration=7/14 rate=14/0] 1e+09"
	got := []string{}
	for _, v := range r.Values {
		got = append(got, fmt.Sprintf("%s=%v/%v%s", v.Signal, v.Value, v.Per, v.Missing))
	}
	if text := fmt.Sprint(got, " ", r.Started); text != strings.Replace(want, "] ", "] ", 1) {
		t.Errorf("Read = %s, want %s", text, want)
	}
}

// TestHostileAnswers: what a pod may say costs a bounded amount, and is refused.
func TestHostileAnswers(t *testing.T) {
	set := builtin(t)
	p := set.Get("of-watchdog")
	text := http.Header{"Content-Type": {"text/plain"}}
	var labels strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&labels, `a%d="",`, i)
	}
	cases := []struct{ name, body, want string }{
		{"a label bomb", "http_requests_in_flight{" + labels.String() + "} 1\n", "or 128 labels"},
		{"a huge label", `http_requests_in_flight{a="` + strings.Repeat("x", 1<<20) + "\"} 1\n", "more than 16384 bytes"},
		{"many samples", strings.Repeat("http_requests_in_flight 1\n", 100_000), "more than 524288 bytes of samples"},
		{"many of others", strings.Repeat("other{a=\"b\"} 1\n", 1_000_000), "larger than 8388608 bytes"},
		{"no exposition", "http_requests_in_flight one\n", "parse the exposition"},
		{"HTML", "<html>", "begins with no name"},
	}
	for _, tt := range cases {
		_, err := p.Read(t.Context(), text, strings.NewReader(tt.body), at)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Read = %v, want %q", tt.name, err, tt.want)
		}
	}
	if _, err := p.Read(t.Context(), http.Header{"Content-Encoding": {"gzip"}}, strings.NewReader("x"), at); err == nil {
		t.Error("a compressed answer is read")
	}
	// A gigabyte, of which 8 MiB are read.
	endless := endlessReader("other 1\n")
	if _, err := p.Read(t.Context(), text, &endless, at); err == nil {
		t.Error("an answer without end is read")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Read(ctx, text, &endless, at); err == nil {
		t.Error("reading goes on after its context has ended")
	}
}

type endlessReader string

func (r *endlessReader) Read(p []byte) (int, error) { return copy(p, *r), nil }

// TestTrack turns a course of readings into windows.
func TestTrack(t *testing.T) {
	t.Parallel()
	const gap = 5 * time.Second
	type step struct {
		second, value float64
		started       float64
		restart       bool
	}
	cases := []struct {
		name  string
		kind  preset.Kind
		steps []step
		// of the window of 10 s that ends at second 110
		sum, covered, before float64
	}{
		{"a gauge is a trapezoid", preset.Gauge, []step{{100, 0, 0, false}, {105, 10, 0, false}, {110, 10, 0, false}}, 75, 10, 0},
		{"a gauge that was not read for long", preset.Gauge, []step{{100, 4, 0, false}, {101, 4, 0, false}, {108, 4, 0, false}, {110, 4, 0, false}}, 12, 3, 0},
		{"a counter", preset.Counter, []step{{100, 500, 0, false}, {110, 540, 0, false}}, 40, 10, 0},
		{"a first reading tells nothing", preset.Counter, []step{{105, 500, 0, false}}, 0, 0, 0},
		{"a counter that fell", preset.Counter, []step{{100, 500, 0, false}, {104, 504, 0, false}, {106, 1, 0, false}, {110, 5, 0, false}}, 8, 8, 0},
		{"another process", preset.Counter, []step{{100, 5, 50, false}, {104, 9, 50, false}, {106, 10, 105, false}, {110, 14, 105, false}}, 8, 8, 0},
		{"the container began anew", preset.Counter, []step{{100, 5, 0, false}, {104, 9, 0, false}, {106, 10, 0, true}, {110, 14, 0, false}}, 8, 8, 0},
		{"a pod that became ready within the window", preset.Integral, []step{{108, 0, 0, false}, {110, 6, 0, false}}, 6, 2, 7},
	}
	for _, tt := range cases {
		var track preset.Track
		var series window.Series
		born := time.Time{}
		if tt.before > 0 {
			born = at.Add(107 * time.Second)
		}
		for _, s := range tt.steps {
			if s.restart {
				track.Restart()
			}
			now := at.Add(time.Duration(s.second * 1e9))
			for _, p := range track.Add(now, preset.Reading{Started: s.started, Values: []preset.Value{{Signal: "a", Kind: tt.kind, Value: s.value}}}, born, gap) {
				if !series.Add(p.Reading) {
					t.Errorf("%s: the reading at %v was refused", tt.name, s.second)
				}
			}
		}
		got := series.Over(at.Add(110*time.Second), 10*time.Second, 0)
		near := func(a, b float64) bool { return a-b < 1e-3 && b-a < 1e-3 }
		if !near(got.Sum, tt.sum) || !near(got.Covered, tt.covered) || !near(got.Before, tt.before) && tt.before > 0 {
			t.Errorf("%s: %+v, want sum %v of %v s, %v s before", tt.name, got, tt.sum, tt.covered, tt.before)
		}
	}
	var track preset.Track
	points := track.Add(at, preset.Reading{Values: []preset.Value{{Signal: "a", Kind: preset.Counter, Missing: "no sample"}}}, time.Time{}, gap)
	if len(points) != 1 || points[0].Missing == "" || points[0].HasInstant {
		t.Errorf("what is missing gives %+v", points)
	}
}
