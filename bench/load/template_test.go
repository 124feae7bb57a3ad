package load_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/bench/load"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

func TestTemplate(t *testing.T) {
	t.Parallel()
	r := trace.Request{At: 3 * second, Service: 123456 * time.Microsecond}
	tests := []struct {
		name string
		from load.Template
		want load.Call
	}{
		{"milliseconds are what the server is told", load.Template{URL: "http://web/?ms={work_ms}"}, load.Call{At: 3 * second, URL: "http://web/?ms=123", Work: 123 * time.Millisecond}},
		{
			"seconds and number, in a header",
			load.Template{URL: "http://web/{n}", Header: http.Header{"Work": {"{work_s} s"}}},
			load.Call{At: 3 * second, URL: "http://web/7", Header: http.Header{"Work": {"0.123456 s"}}, Work: 123456 * time.Microsecond},
		},
		{"microseconds", load.Template{URL: "http://web/?us={work_us}"}, load.Call{At: 3 * second, URL: "http://web/?us=123456", Work: 123456 * time.Microsecond}},
		{"a server that is not told works for 0", load.Template{URL: "http://web/"}, load.Call{At: 3 * second, URL: "http://web/"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := tt.from.Validate(); err != nil {
				t.Errorf("Validate() = %v", err)
			}
			if diff := cmp.Diff(tt.want, tt.from.Call(7, r)); diff != "" {
				t.Errorf("Call(7, %+v) (-want +got):\n%s", r, diff)
			}
		})
	}
	if err := (load.Template{URL: "http://web/?ms={ms}"}).Validate(); err == nil || !strings.Contains(err.Error(), "{ms}") || !strings.Contains(err.Error(), "{work_ms}") {
		t.Errorf("Validate of {ms} = %v, want an error that names it and {work_ms}", err)
	}
}

// instants are arrivals, each of as many milliseconds of work as its number.
type instants struct {
	at   []time.Duration
	next int
}

func (a *instants) Read(dst []trace.Request) int {
	n := 0
	for n < len(dst) && n < 2 && a.next < len(a.at) { // a short read is no end
		dst[n] = trace.Request{At: a.at[a.next], Service: time.Duration(a.next) * time.Millisecond}
		a.next++
		n++
	}
	return n
}

func TestFollowSendsArrivalsAtTheirInstants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		got := map[string]time.Duration{}
		begun := time.Now()
		cfg := load.Default()
		cfg.URL = "http://web/"
		cfg.RoundTripper = roundTripper(func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			got[r.URL.RawQuery+r.Header.Get("N")] = time.Since(begun)
			return &http.Response{StatusCode: 200, Body: http.NoBody, Request: r}, nil
		})
		g, err := load.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		at := []time.Duration{0, second, 1001 * time.Millisecond, 2500 * time.Millisecond, 4 * second}
		cut := false
		calls := load.Template{URL: "http://web/?{work_ms}", Header: http.Header{"N": {" {n}"}}}.Calls(&instants{at: at}, 4, func() { cut = true })
		r := g.Follow(t.Context(), 5*second, calls)
		want := map[string]time.Duration{"0 0": 0, "1 1": second, "2 2": 1001 * time.Millisecond, "3 3": 2500 * time.Millisecond}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("requests and their instants (-want +got):\n%s", diff)
		}
		if !cut {
			t.Error("the plan had a request more than the bound, and nobody was told")
		}
		if took := time.Since(begun); took != 5*second {
			t.Errorf("it took %v, want the plan's length, 5s", took)
		}
		var work []time.Duration
		for _, q := range r.Records {
			work = append(work, q.Work)
		}
		if !slices.Equal(work, []time.Duration{0, time.Millisecond, 2 * time.Millisecond, 3 * time.Millisecond}) {
			t.Errorf("work of the records %v, want 0–3 ms", work)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
