package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestMetricsAreNotOpen: the port of the probes, which every pod can reach, shows no metrics unless
// it is told to.
func TestMetricsAreNotOpen(t *testing.T) {
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "sluice_some 1\n") })
	for open, want := range map[bool]int{false: http.StatusNotFound, true: http.StatusOK} {
		p := &process{options: options{openMetrics: open}}
		rec := httptest.NewRecorder()
		p.health(metrics).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		if rec.Code != want {
			t.Errorf("open %v: GET /metrics = %d, want %d", open, rec.Code, want)
		}
	}
}
