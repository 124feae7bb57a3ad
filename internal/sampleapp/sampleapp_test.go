package sampleapp_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-autoscaler/sluice/internal/sampleapp"
	"github.com/sluice-autoscaler/sluice/internal/serve"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHandler(t *testing.T) {
	cases := []struct {
		name, method, target, body string
		code                       int
		want                       string
		took                       time.Duration
	}{
		{name: "at once", method: http.MethodGet, target: "/", code: 200, want: "ok\n"},
		{name: "any path", method: http.MethodGet, target: "/a/b", code: 200, want: "ok\n"},
		{name: "late", method: http.MethodGet, target: "/?ms=1500", code: 200, want: "ok\n", took: 1500 * time.Millisecond},
		{name: "a body", method: http.MethodPost, target: "/?ms=10", body: "hello", code: 200, want: "5\n", took: 10 * time.Millisecond},
		{name: "no number", method: http.MethodGet, target: "/?ms=x", code: 400, want: "ms = \"x\": want 0–3600000\n"},
		{name: "too long", method: http.MethodGet, target: "/?ms=3600001", code: 400, want: "ms = \"3600001\": want 0–3600000\n"},
		{name: "health", method: http.MethodGet, target: "/healthz?ms=100", code: 200, want: "ok\n"},
		{name: "another method", method: http.MethodDelete, target: "/", code: 405, want: "Method Not Allowed\n"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				rec := httptest.NewRecorder()
				sampleapp.Handler().ServeHTTP(rec, httptest.NewRequest(c.method, c.target, strings.NewReader(c.body)))
				if took := time.Since(start); rec.Code != c.code || rec.Body.String() != c.want || took != c.took {
					t.Errorf("answer %d %q after %v, want %d %q after %v", rec.Code, rec.Body, took, c.code, c.want, c.took)
				}
			})
		})
	}
}

func TestStopBeforeReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := sampleapp.Default()
		cfg.ReadyAfter = time.Hour
		var g serve.Group
		g.Add(sampleapp.Service(cfg))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := g.Run(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("Run = %v after %v, want %v after 1s", err, time.Since(start), context.DeadlineExceeded)
		}
	})
}

func TestValidate(t *testing.T) {
	if err := sampleapp.Default().Validate(); err != nil {
		t.Errorf("Validate of the defaults = %v", err)
	}
	err := sampleapp.Config{ReadyAfter: -1, Drain: -1}.Validate()
	if want := "listen = \"\": want an address\nready-after = -1ns: want ≥ 0\ndrain = -1ns: want ≥ 0"; err == nil || err.Error() != want {
		t.Errorf("Validate = %v, want %s", err, want)
	}
}
