package record_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/record"
)

func at(seconds float64) time.Time { return time.UnixMicro(int64(seconds * 1e6)).UTC() }

func TestDecode(t *testing.T) {
	t.Parallel()
	limits := algorithms.Limits{Max: 1_000_000}
	tests := map[string]struct {
		in   string
		want algorithms.Observation
	}{
		"counts and windows": {
			`{"t": 30, "current": 10, "ready": 10, "starting": 0, "signals": {"concurrency": {"60s": 1, "6s": 2}}}`,
			algorithms.Observation{
				Now: at(30), Limits: limits, Replicas: algorithms.Replicas{Current: 10, Ready: 10},
				Signals: []algorithms.Signal{
					{Name: "concurrency", Window: 6 * time.Second, Value: 2, Known: true, Coverage: 1},
					{Name: "concurrency", Window: time.Minute, Value: 1, Known: true, Coverage: 1},
				},
			},
		},
		"pods, counted": {
			`{"t": 32.5, "current": 3, "pods": [{"state": "ready", "values": {"qps": 50}}, {"state": "ready", "values": {"qps": null}}, {"state": "pending"}]}`,
			algorithms.Observation{
				Now: at(32.5), Limits: limits, Replicas: algorithms.Replicas{Current: 3, Ready: 2, Starting: 1},
				Pods: []algorithms.Pod{{State: algorithms.PodReady, Values: map[string]float64{"qps": 50}}, {State: algorithms.PodReady}, {State: algorithms.PodPending}},
			},
		},
		"no counts but the current": {
			`{"t": 1, "current": 4}`,
			algorithms.Observation{Now: at(1), Limits: limits, Replicas: algorithms.Replicas{Current: 4, Ready: 4}},
		},
		"unknown, and all that can be said of a value": {
			`{"t": 1, "current": 0, "activeSince": 0.5, "limits": {"min": 1, "max": 5}, "signals": {"q": {"0s": null, "1m": {"value": 3, "known": false, "age": 2, "coverage": 0.5, "source": "x"}}}}`,
			algorithms.Observation{
				Now: at(1), ActiveSince: at(0.5), Limits: algorithms.Limits{Min: 1, Max: 5},
				Signals: []algorithms.Signal{
					{Name: "q"},
					{Name: "q", Window: time.Minute, Value: 3, Age: 2 * time.Second, Coverage: 0.5, Source: "x"},
				},
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := record.Unmarshal([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Unmarshal (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecoderNamesTheLine(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ in, want string }{
		"unknown field":           {`{"t":1,"current":1,"replicas":2}`, `unknown field "replicas"`},
		"unknown field of a pod":  {`{"t":1,"current":1,"pods":[{"state":"ready","value":2}]}`, `unknown field "value"`},
		"unknown field of value":  {`{"t":1,"current":1,"signals":{"a":{"1s":{"val":2}}}}`, `unknown field "val"`},
		"not JSON":                {`t=1`, "invalid character"},
		"cut off":                 {`{"t":1,`, "not a whole JSON object"},
		"two values":              {`{"t":1,"current":1} {}`, "more than one JSON value"},
		"no t":                    {`{"current":1}`, "t is missing"},
		"no current":              {`{"t":1}`, "current is missing"},
		"time going back":         {`{"t":-1,"current":1}`, "t = -1"},
		"behind the line before":  {`{"t":4,"current":1}`, "no less than the line before"},
		"negative count":          {`{"t":9,"current":-1}`, "current = -1"},
		"fraction of a pod":       {`{"t":9,"current":1.5}`, "current is a number 1.5: want a number"},
		"window without unit":     {`{"t":9,"current":1,"signals":{"a":{"60":2}}}`, `window "60"`},
		"the same window twice":   {`{"t":9,"current":1,"signals":{"a":{"60s":2,"1m":3}}}`, "twice"},
		"value of the wrong kind": {`{"t":9,"current":1,"signals":{"a":{"60s":"2"}}}`, "want a number, null or an object"},
		"known without a value":   {`{"t":9,"current":1,"signals":{"a":{"60s":{"known":true}}}}`, "known without a value"},
		"coverage over one":       {`{"t":9,"current":1,"signals":{"a":{"60s":{"value":1,"coverage":2}}}}`, "coverage = 2"},
		"no such state":           {`{"t":9,"current":1,"pods":[{"state":"gone"}]}`, `pods[0].state = "gone"`},
		"max below min":           {`{"t":9,"current":1,"limits":{"min":3,"max":2}}`, "limits.min = 3, limits.max = 2"},
		"more ages than starting": {`{"t":9,"current":1,"startingAges":[1]}`, "startingAges has 1"},
		"every fault at once":     {`{"t":9,"current":-1,"ready":-2}`, "ready = -2"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := record.NewDecoder(strings.NewReader("{\"t\":5,\"current\":1}\n\n" + tt.in + "\n"))
			if _, err := d.Next(); err != nil {
				t.Fatal(err)
			}
			_, err := d.Next()
			if err == nil || !strings.HasPrefix(err.Error(), "line 3: ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Next() = %v, want an error of line 3 that says %q", err, tt.want)
			}
		})
	}
	d := record.NewDecoder(strings.NewReader("\n \n"))
	if _, err := d.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("Next() of blank lines = %v, want io.EOF", err)
	}
}

// FuzzRoundTrip checks that what can be read is written such that it is read as the same.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte(`{"t": 30, "current": 10, "ready": 10, "starting": 0, "signals": {"concurrency": {"60s": 1, "6s": null}}}`))
	f.Add([]byte(`{"t":1784000000.123456,"current":3,"pods":[{"state":"terminating","stillReady":true,"values":{"qps":50},"requests":{"cpu":0.5},"started":3,"changed":4.5,"readAt":5,"readOver":0.25},{"state":"failed"}]}`))
	f.Add([]byte(`{"t":0,"current":0,"starting":2,"startingAges":[1,2.5],"limits":{"max":3,"podConcurrency":2},"startUp":{"p50":1,"p90":2,"p99":3,"samples":4},"cost":{"podSecond":1,"coldStart":2,"waitSecond":3},"activeSince":0,"signals":{"x":{"0s":{"value":-0,"known":false,"age":1e-6,"coverage":0.25,"source":"s"}}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := record.Unmarshal(raw)
		if err != nil {
			return
		}
		again, err := record.Marshal(o)
		if err != nil {
			t.Fatalf("Marshal(Unmarshal(%q)): %v", raw, err)
		}
		p, err := record.Unmarshal(again)
		if err != nil {
			t.Fatalf("Unmarshal(%q), written from %q: %v", again, raw, err)
		}
		if diff := cmp.Diff(o, p); diff != "" {
			t.Fatalf("%q written as %q differs (-first +again):\n%s", raw, again, diff)
		}
	})
}
