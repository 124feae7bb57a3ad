package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestMetricsAreNotOpen: the port of the probes, which every pod can reach, shows no metrics unless
// it is told to.
func TestMetricsAreNotOpen(t *testing.T) {
	for open, want := range map[bool]int{false: http.StatusNotFound, true: http.StatusOK} {
		s := &starting{fault: errors.New("not yet"), metrics: prometheus.NewRegistry()}
		rec := httptest.NewRecorder()
		s.handler(open).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		if rec.Code != want {
			t.Errorf("open %v: GET /metrics = %d, want %d", open, rec.Code, want)
		}
	}
}
