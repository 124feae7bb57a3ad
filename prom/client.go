// Package prom is a client of Prometheus: it queries ranges of one series over the HTTP API, and
// fills in the placeholders of PromQL templates safely. Unknown values stay unknown.
package prom

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

const (
	// MaxPoints bounds a series, in steps: a year of steps of 30 s is about a million.
	MaxPoints = 5_000_000
	// chunk is how many points one request asks for; Prometheus refuses more than 11,000.
	chunk = 10_000
	// tries bounds how often a request is made; pause comes before the second attempt, and doubles.
	tries = 4
	pause = 500 * time.Millisecond
	// maxAnswer bounds one answer, in bytes: 10,000 points of one series are below 1 MB.
	maxAnswer = 64 << 20
	// maxWarnings bounds what is kept of the warnings of all requests.
	maxWarnings = 10
	// timeout bounds one request.
	timeout = 2 * time.Minute
)

// Client reads from the HTTP API of one Prometheus, or of what speaks its API. It is safe for
// concurrent use.
type Client struct {
	api v1.API
	url string
}

// Auth is what a Prometheus may ask for. The zero value is nothing.
type Auth struct {
	// BearerTokenFile holds a token, read again for each request since tokens change.
	BearerTokenFile string
	// Headers are added to each request.
	Headers http.Header
}

// NewClient makes a client of the Prometheus at a URL (http or https, with the path before /api/v1
// if there is one).
func NewClient(address string, auth Auth) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q: want the URL of a Prometheus, such as http://prometheus:9090", address)
	}
	shown := *u
	shown.User = nil
	if auth.BearerTokenFile != "" {
		if _, err := os.ReadFile(auth.BearerTokenFile); err != nil {
			return nil, fmt.Errorf("bearer token: %w", err)
		}
	}
	h, err := api.NewClient(api.Config{Address: address, RoundTripper: &transport{auth: auth, next: api.DefaultRoundTripper}})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", shown.Redacted(), err)
	}
	return &Client{api: v1.NewAPI(h), url: shown.String()}, nil
}

// transport adds what authentication needs and bounds answers.
type transport struct {
	auth Auth
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	maps.Copy(r.Header, t.auth.Headers)
	if t.auth.BearerTokenFile != "" {
		token, err := os.ReadFile(t.auth.BearerTokenFile)
		if err != nil {
			return nil, fmt.Errorf("bearer token: %w", err)
		}
		r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	resp, err := t.next.RoundTrip(r)
	if err == nil {
		resp.Body = &bounded{ReadCloser: resp.Body, left: maxAnswer}
	}
	return resp, err
}

var errTooLarge = fmt.Errorf("the answer is larger than %d MB: want a query with one series as its result, such as sum(…)", maxAnswer>>20)

// bounded is a body that ends with an error when it is too large.
type bounded struct {
	io.ReadCloser
	left int64
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLarge
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// Range is what is asked.
type Range struct {
	// PromQL gives one series, or none where nothing is known.
	PromQL string
	// From and To are cut to whole steps of the Unix epoch.
	From, To time.Time
	Step     time.Duration
}

// Query reads a range, in as many requests as Prometheus's limit of points takes. The value at an
// instant stands for the step that ends there. An empty answer, NaN, infinite and negative values
// are unknown, never zero. Warnings are Prometheus's own.
func (c *Client) Query(ctx context.Context, q Range) (s Series, warnings []string, err error) {
	if q.Step < time.Second || q.Step > 24*time.Hour {
		return s, nil, fmt.Errorf("step = %v: want 1s–24h", q.Step)
	}
	from, to := q.From.Truncate(q.Step), q.To.Truncate(q.Step)
	points := int(to.Sub(from) / q.Step)
	if points < 1 || points > MaxPoints {
		return s, nil, fmt.Errorf("%s–%s in steps of %v are %d points: want 1–%d", from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339), q.Step, points, MaxPoints)
	}
	s = Series{Start: from, Step: q.Step, Values: make([]float64, points)}
	for i := range s.Values {
		s.Values[i] = math.NaN()
	}
	for first := 0; first < points; first += chunk {
		n := min(chunk, points-first)
		r := v1.Range{Start: from.Add(time.Duration(first+1) * q.Step), End: from.Add(time.Duration(first+n) * q.Step), Step: q.Step}
		matrix, warned, err := c.ask(ctx, q.PromQL, r)
		if err != nil {
			return s, warnings, fmt.Errorf("ask %s for %s from %s to %s: %w",
				c.url, q.PromQL, r.Start.UTC().Format(time.RFC3339), r.End.UTC().Format(time.RFC3339), err)
		}
		warnings = append(warnings, warned[:min(len(warned), maxWarnings-len(warnings))]...)
		if len(matrix) > 0 {
			s.fill(matrix[0].Values)
		}
	}
	return s, warnings, nil
}

// ask makes one request, and repeats it when it failed for a reason that may pass.
func (c *Client) ask(ctx context.Context, promQL string, r v1.Range) (model.Matrix, v1.Warnings, error) {
	wait := pause
	for n := 1; ; n++ {
		value, warnings, err := c.once(ctx, promQL, r)
		switch {
		case ctx.Err() != nil:
			return nil, nil, context.Cause(ctx)
		case err != nil && (n == tries || !passing(err)):
			if n > 1 {
				err = fmt.Errorf("%w (tried %d times)", err, n)
			}
			return nil, nil, err
		case err != nil:
			select {
			case <-ctx.Done():
				return nil, nil, context.Cause(ctx)
			case <-time.After(wait):
			}
			wait *= 2
			continue
		}
		matrix, ok := value.(model.Matrix)
		if !ok {
			return nil, nil, fmt.Errorf("the result is a %s: want numbers over time", value.Type())
		}
		if len(matrix) > 1 {
			return nil, nil, fmt.Errorf("the result has %d series, %s and %s among them: want one, such as sum(…)", len(matrix), matrix[0].Metric, matrix[1].Metric)
		}
		return matrix, warnings, nil
	}
}

func (c *Client) once(ctx context.Context, promQL string, r v1.Range) (model.Value, v1.Warnings, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	value, warnings, notes, err := c.api.QueryRange(ctx, promQL, r)
	return value, append(warnings, notes...), err
}

// passing reports whether the same request may succeed later: the network or the server failed, not
// the query.
func passing(err error) bool {
	if errors.Is(err, errTooLarge) {
		return false
	}
	e, ok := errors.AsType[*v1.Error](err)
	return !ok || e.Type == v1.ErrServer || e.Type == v1.ErrTimeout
}
