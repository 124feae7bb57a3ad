package sidecar_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-autoscaler/sluice/sidecar"
)

// TestLiveness has a sidecar whose loops never began to turn.
func TestLiveness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := sidecar.New(sidecar.Default(), "test", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ask := func() (int, string) {
			rec := httptest.NewRecorder()
			s.MetricsHandler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/healthz", nil))
			return rec.Code, rec.Body.String()
		}
		time.Sleep(19 * time.Second)
		if code, text := ask(); code != http.StatusOK || text != "[+] connections\n[+] drain\n" {
			t.Errorf("/healthz before two periods = %d %q, want 200", code, text)
		}
		time.Sleep(time.Second)
		if code, text := ask(); code != http.StatusServiceUnavailable || !strings.HasPrefix(text, "[-] connections: no step has begun for 20s") {
			t.Errorf("/healthz after two periods = %d %q, want 503", code, text)
		}
	})
}

// TestLivenessRunning asks one that runs.
func TestLivenessRunning(t *testing.T) {
	app := serveApp(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	r := start(t, app, nil)
	if resp, text := r.get("metrics:/healthz"); resp.StatusCode != http.StatusOK || text != "[+] connections\n[+] drain\n" {
		t.Errorf("/healthz = %d %q, want 200", resp.StatusCode, text)
	}
}
