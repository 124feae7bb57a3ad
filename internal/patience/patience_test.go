package patience

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestWaitsForTheAPIServer takes the API server away under watches and other requests, and
// gives it back after a time, at first without its knowledge of who may do what.
func TestWaitsForTheAPIServer(t *testing.T) {
	t.Parallel()
	refused := errors.New("connection refused")
	answer := func(code int) *http.Response {
		return &http.Response{StatusCode: code, Body: io.NopCloser(strings.NewReader("{}"))}
	}
	cases := []struct {
		name, method, target string
		// away answers for 90 s; then, where early is set, early for 3 s.
		away, early func() (*http.Response, error)
		want        int
		// within is how long after the return the answer may come; 0 means at once, with away's.
		within time.Duration
	}{
		{
			name: "a watch waits", method: http.MethodGet, target: "/api/v1/pods?watch=true&resourceVersion=7",
			away: func() (*http.Response, error) { return nil, refused }, want: 200, within: time.Second,
		},
		{
			name: "a list of an informer waits for etcd", method: http.MethodGet, target: "/api/v1/pods?limit=500&resourceVersion=0",
			away: func() (*http.Response, error) { return answer(500), nil }, want: 200, within: time.Second,
		},
		{
			name: "a refusal right after the return is not believed", method: http.MethodGet, target: "/api/v1/pods?watch=true",
			away:  func() (*http.Response, error) { return nil, refused },
			early: func() (*http.Response, error) { return answer(403), nil }, want: 200, within: 4 * time.Second,
		},
		{
			name: "a refusal that stays is", method: http.MethodGet, target: "/api/v1/pods?watch=true",
			away:  func() (*http.Response, error) { return nil, refused },
			early: func() (*http.Response, error) { return answer(403), nil }, want: 403, within: refusedFor + 2*time.Second,
		},
		{
			name: "a read fails", method: http.MethodGet, target: "/api/v1/namespaces/shop/secrets/x",
			away: func() (*http.Response, error) { return nil, refused },
		},
		{
			name: "a write fails", method: http.MethodPatch, target: "/apis/apps/v1/namespaces/shop/deployments/web/scale?resourceVersion=7",
			away: func() (*http.Response, error) { return nil, refused },
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const outage = 90 * time.Second
				began := time.Now()
				rt := New(slog.New(slog.DiscardHandler)).Wrap(roundTripper(func(*http.Request) (*http.Response, error) {
					switch since := time.Since(began); {
					case since < outage:
						return c.away()
					case c.early != nil && (since < outage+3*time.Second || c.want != 200):
						return c.early()
					}
					return answer(200), nil
				}))
				res, err := rt.RoundTrip(httptest.NewRequest(c.method, c.target, nil))
				took := time.Since(began)
				if c.within == 0 {
					if !errors.Is(err, refused) || took > 0 {
						t.Errorf("error %v after %v, want %v at once", err, took, refused)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close() //nolint:errcheck // a string
				if late := took - outage; res.StatusCode != c.want || late < 0 || late > c.within {
					t.Errorf("status %d %v after the return, want %d within %v", res.StatusCode, late, c.want, c.within)
				}
			})
		})
	}
}

// TestEnds sees that a watch that is given up does not go on waiting.
func TestEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rt := New(slog.New(slog.DiscardHandler)).Wrap(roundTripper(func(*http.Request) (*http.Response, error) {
			return nil, errors.New("connection refused")
		}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		_, err := rt.RoundTrip(httptest.NewRequest(http.MethodGet, "/api/v1/pods?watch=true", nil).WithContext(ctx)) //nolint:bodyclose // there is none
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took > time.Minute {
			t.Errorf("error %v after %v, want that of the context after a minute", err, took)
		}
	})
}

// TestBlind sees for how long others may be blind after outages of some lengths.
func TestBlind(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ outage, want time.Duration }{
		{outage: 0, want: 0},
		{outage: time.Second, want: 4 * time.Second},
		{outage: 10 * time.Second, want: 22 * time.Second},
		{outage: time.Hour, want: time.Minute},
	} {
		t.Run(c.outage.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				p := New(slog.New(slog.DiscardHandler))
				rt := p.Wrap(roundTripper(func(*http.Request) (*http.Response, error) {
					if time.Since(began) < c.outage {
						return nil, errors.New("connection refused")
					}
					return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
				}))
				for range 2 { // one that waited, and one that did not
					res, err := rt.RoundTrip(httptest.NewRequest(http.MethodGet, "/api/v1/pods?watch=true", nil))
					if err != nil {
						t.Fatal(err)
					}
					_ = res.Body.Close()
				}
				got := max(0, time.Until(p.BlindUntil()))
				if more := got - c.want; more < 0 || more > 2*time.Second {
					t.Errorf("blind for %v after an outage of %v, want %v", got, c.outage, c.want)
				}
			})
		})
	}
}

// TestBlindAfterGivingUp sees that whoever gives up waiting has not seen an API server come back.
func TestBlindAfterGivingUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := New(slog.New(slog.DiscardHandler))
		rt := p.Wrap(roundTripper(func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := rt.RoundTrip(httptest.NewRequest(http.MethodGet, "/api/v1/pods?watch=true", nil).WithContext(ctx)) //nolint:bodyclose // there is none
		if until := p.BlindUntil(); err == nil || !until.IsZero() {
			t.Errorf("error %v, blind until %v, want an error and no time", err, until)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
