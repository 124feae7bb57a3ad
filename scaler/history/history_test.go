package history_test

import (
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/prom"
	"github.com/sluice-autoscaler/sluice/scaler/history"
	"github.com/sluice-autoscaler/sluice/wire"
)

// TestFetch asks a Prometheus that has gaps, refuses, and wants a token.
func TestFetch(t *testing.T) {
	t.Parallel()
	until := time.Date(2026, 3, 2, 1, 0, 20, 0, time.UTC)
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.FormValue("query")+" "+r.FormValue("start")+" "+r.FormValue("end")+" "+r.FormValue("step"))
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get("Authorization") != "Bearer secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		at := until.Truncate(time.Minute).Unix()
		values := []string{}
		for i := int64(20); i >= 0; i-- { // the last 21 minutes, two of them unknown
			if i != 10 {
				v := strconv.FormatInt(i, 10)
				if i == 5 {
					v = "NaN"
				}
				values = append(values, "["+strconv.FormatInt(at-60*i, 10)+`,"`+v+`"]`)
			}
		}
		_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[` + strings.Join(values, ",") + `]}]}}`))
	}))
	defer s.Close()
	reader := func(token string) *history.Reader {
		c, err := prom.NewClient(s.URL, prom.Auth{BearerTokenFile: token})
		if err != nil {
			t.Fatal(err)
		}
		return history.NewReader(history.Config{
			Client: c, Setting: "--url", Range: time.Hour, Step: time.Minute, Log: slog.New(slog.DiscardHandler),
			Queries: []history.Query{
				{Signal: algorithms.Concurrency, Template: prom.Rate(wire.ConcurrencySeconds), Setting: "--query"},
				{Signal: algorithms.Rate, Template: prom.Rate(wire.Requests), Setting: "--rate-query"},
			},
		})
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	db := prom.Workload{Namespace: "shop", Kind: "StatefulSet", Name: "db"}
	h := reader(token)
	got, err := h.Fetch(t.Context(), db, []string{algorithms.Rate, algorithms.Concurrency, "waiting"}, until)
	if err != nil {
		t.Fatal(err)
	}
	if err := algorithms.CheckHistory(got, until.Add(-time.Hour)); err != nil {
		t.Error(err)
	}
	// Of 21 minutes two are unknown, and so are the two beside each and the first, whose window is
	// only partly covered.
	if len(got) != 2*14 || got[0].Signal != algorithms.Concurrency || got[1].Signal != algorithms.Rate || !got[0].At.Equal(got[1].At) {
		t.Errorf("%d samples, the first %+v; want 14 of both signals, in order of time", len(got), got[:min(2, len(got))])
	}
	for _, s := range got {
		if m := until.Sub(s.At).Truncate(time.Minute).Minutes(); math.IsNaN(s.Value) || s.Value != m {
			t.Errorf("%+v, want %v", s, m)
		}
	}
	const from = " 1772409660 1772413200 60"
	if len(asked) != 2 || asked[0] != `sum(rate(sluice_request_concurrency_seconds_total{namespace="shop",pod=~"db-[0-9]+"}[60s]))`+from ||
		asked[1] != `sum(rate(sluice_requests_total{namespace="shop",pod=~"db-[0-9]+"}[60s]))`+from {
		t.Errorf("asked %q", asked)
	}
	h = reader("")
	if _, err := h.Fetch(t.Context(), db, []string{algorithms.Rate}, until); err == nil || !strings.Contains(err.Error(), "rate of StatefulSet shop/db: ") ||
		!strings.Contains(err.Error(), "see --url and --rate-query") {
		t.Errorf("without a token: %v, want a fault that names workload and settings", err)
	}
}
