package endpoints_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-autoscaler/sluice/gateway/endpoints"
)

// flaky fails so many times.
type flaky struct{ left int }

var errAway = errors.New("connection refused")

func (f *flaky) RoundTrip(*http.Request) (*http.Response, error) {
	if f.left--; f.left >= 0 {
		return nil, errAway
	}
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
}

func TestPatience(t *testing.T) {
	tests := []struct {
		name, method, url string
		fails             int
		cancel            bool
		want              error
	}{
		{name: "a watch waits", method: http.MethodGet, url: "http://api/pods?watch=true", fails: 50},
		{name: "a list waits", method: http.MethodGet, url: "http://api/pods?resourceVersion=0", fails: 50},
		{name: "a get fails at once", method: http.MethodGet, url: "http://api/pods/a", fails: 50, want: errAway},
		{name: "a write fails at once", method: http.MethodPatch, url: "http://api/pods?watch=true", fails: 50, want: errAway},
		{name: "whoever waits may leave", method: http.MethodGet, url: "http://api/pods?watch=true", fails: 1 << 30, cancel: true, want: errAway},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if test.cancel {
					short, cancel := context.WithTimeout(ctx, time.Minute)
					defer cancel()
					ctx = short
				}
				req, err := http.NewRequestWithContext(ctx, test.method, test.url, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				res, err := endpoints.Patient(&flaky{left: test.fails}).RoundTrip(req)
				if !errors.Is(err, test.want) {
					t.Errorf("RoundTrip: %v, want %v", err, test.want)
				}
				if err == nil {
					_ = res.Body.Close()
				}
			})
		})
	}
}
