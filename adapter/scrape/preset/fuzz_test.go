package preset_test

import (
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/adapter/scrape/preset"
	"github.com/sluice-autoscaler/sluice/algorithms/window"
)

// FuzzAnswer gives any answer to each built-in preset, and to one of JSON: no panic, and no value
// that is no amount.
func FuzzAnswer(f *testing.F) {
	set, err := preset.New([]byte(`presets: [{name: json, port: 80, signals: {a: {gauge: "$..a", over: avg}, b: {counter: "$.b"}}}]`))
	if err != nil {
		f.Fatal(err)
	}
	names := set.Names()
	f.Add(uint8(0), "text/plain", "http_requests_in_flight 1\n")
	f.Add(uint8(5), "application/openmetrics-text; version=1.0.0", "http_requests_total 1 # {a=\"b\"} 1\n# EOF\n")
	f.Add(uint8(3), "text/plain", "vllm:num_requests_running{a=\"\\\"\"} NaN 5\n{\"x.y\", a=\"b\"} 3\r\n")
	f.Add(uint8(9), "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited", "\x05\x0a\x03abc")
	f.Add(uint8(6), "application/json", `{"a": [1, {"a": -2}], "b": 1e308}`)
	f.Fuzz(func(t *testing.T, which uint8, content, body string) {
		p := set.Get(names[int(which)%len(names)])
		var track preset.Track
		var series window.Series
		for i := range 2 {
			now := at.Add(time.Duration(i) * time.Second)
			r, err := p.Read(t.Context(), http.Header{"Content-Type": {content}}, strings.NewReader(body), now)
			if err != nil {
				return
			}
			for _, pt := range track.Add(now, r, at, 5*time.Second) {
				ok := func(v float64) bool { return v >= 0 && !math.IsInf(v, 0) }
				if pt.Missing == "" && (!ok(pt.Value.Value) || !ok(pt.Per) || pt.HasInstant && !ok(pt.Instant)) {
					t.Errorf("%s: %+v is no amount", p.Name, pt)
				}
				series.Add(pt.Reading)
			}
		}
	})
}

// FuzzFile gives any file: no panic, and what is taken can be read.
func FuzzFile(f *testing.F) {
	f.Add("presets:\n- name: x\n  port: [a, 80]\n  signals:\n    q: {gauge: 'max(g{a=~\"b\"}) - 1', zeroIf: up}\n")
	f.Add("presets: [{name: x, port: 80, selector: 'a in (b)', minPodReadyAge: 30s, signals: {a: {gauge: \"$..a[?@.b > 1]\", over: sum}}}]")
	f.Add("presets: [{name: x, port: 80, signals: {a: {counter: (a + b) * 2 / 3, per: c}}}]")
	f.Fuzz(func(t *testing.T, text string) {
		set, err := preset.New([]byte(text))
		if err != nil {
			return
		}
		for _, name := range set.Names() {
			p := set.Get(name)
			_, _ = p.Read(t.Context(), http.Header{}, strings.NewReader("a 1\nb 2\nc 0\ng NaN\n"), at)
			if p.Accept(false) == "" || len(p.Describe()) == 0 {
				t.Errorf("preset %s reads nothing", name)
			}
		}
	})
}
