package prom

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// EndpointConfig says how a Prometheus, or what speaks its API, is asked at once and often. Client
// reads long ranges instead.
type EndpointConfig struct {
	// URL is http or https, with the path before /api/v1 if there is one.
	URL string
	// BearerTokenFile holds a token. CAFile holds the authorities that sign the server's
	// certificate; empty means the system's. CertFile and KeyFile are the client's certificate. All
	// are read again when they change.
	BearerTokenFile, CAFile, CertFile, KeyFile string
	// ServerName is the name in the server's certificate; empty means the URL's host.
	ServerName string
	// Headers are added to each request, such as X-Scope-OrgID of Mimir.
	Headers map[string]string
	// Parameters are added to each request, such as dedup of Thanos.
	Parameters map[string]string
	// Timeout bounds a request, 100ms–2m. A longer one waits for slow queries and delays what else
	// waits.
	Timeout time.Duration
	// MaxConcurrent bounds the requests at once, 1–256. More answer sooner and load Prometheus.
	MaxConcurrent int
	// MaxBytes bounds an answer, ≥ 1 KiB.
	MaxBytes int64
	// Clock tells the time; nil means time.Now.
	Clock func() time.Time
	// Observe, when given, is told of each request: what was asked (query, names or labels), the
	// result (ok, rejected, failed or not_sent) and how long it took.
	Observe func(kind, result string, d time.Duration)
}

// Validate names every fault.
func (c *EndpointConfig) Validate() error {
	var errs []error
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		errs = append(errs, fmt.Errorf("url = %q: want the URL of a Prometheus, such as http://prometheus:9090", c.URL))
	}
	if c.Timeout < 100*time.Millisecond || c.Timeout > 2*time.Minute {
		errs = append(errs, fmt.Errorf("timeout = %v: want 100ms–2m", c.Timeout))
	}
	if c.MaxConcurrent < 1 || c.MaxConcurrent > 256 {
		errs = append(errs, fmt.Errorf("maxConcurrent = %d: want 1–256 (requests)", c.MaxConcurrent))
	}
	if c.MaxBytes < 1<<10 {
		errs = append(errs, fmt.Errorf("maxBytes = %d: want ≥ 1024", c.MaxBytes))
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		errs = append(errs, errors.New("certFile and keyFile: want both or neither"))
	}
	return errors.Join(errs...)
}

// Endpoint asks one Prometheus. It bounds time, concurrency and size, and stops asking for a while
// after failures in a row. It is safe for concurrent use.
type Endpoint struct {
	config EndpointConfig
	base   *url.URL
	slots  chan struct{}

	mu sync.Mutex
	// client is made of files with that sum; checked is when the files were last read.
	client  *http.Client
	sum     [sha256.Size]byte
	checked time.Time
	breaker breaker
}

// Bounds of an Endpoint.
const (
	// FailuresToOpen is how many failures in a row stop requests.
	FailuresToOpen = 5
	// firstPause and longestPause bound the time without requests; it doubles.
	firstPause, longestPause = 2 * time.Second, 30 * time.Second
	// filesPeriod is how often certificates are read.
	filesPeriod = 10 * time.Second
	// shownBody bounds what an error shows of an answer.
	shownBody = 200
)

// breaker stops requests after failures in a row. Once a pause is over one request may try.
type breaker struct {
	failures int
	pause    time.Duration
	until    time.Time
	trying   bool
	last     error
	// success is when the last request succeeded.
	success time.Time
}

// StatusError is an answer that is no success.
type StatusError struct {
	Status int
	// Type is Prometheus' errorType, "" where the answer was not Prometheus' own.
	Type, Message string
}

// Error implements error.
func (e *StatusError) Error() string {
	if e.Type != "" {
		return e.Type + ": " + e.Message
	}
	if e.Message == "" {
		return fmt.Sprintf("status %d", e.Status)
	}
	return fmt.Sprintf("status %d: %s", e.Status, e.Message)
}

// OfQuery reports whether the query is at fault, and not the Prometheus.
func (e *StatusError) OfQuery() bool {
	return e.Status == http.StatusBadRequest || e.Status == http.StatusUnprocessableEntity
}

// PausedError means that a Prometheus is not asked for a while, since it failed several times.
type PausedError struct {
	Failures int
	Until    time.Time
	Last     error
}

// Error implements error.
func (e *PausedError) Error() string {
	return fmt.Sprintf("not asked until %s after %d failures in a row: %v", e.Until.UTC().Format(time.TimeOnly), e.Failures, e.Last)
}

// Unwrap gives the last failure.
func (e *PausedError) Unwrap() error { return e.Last }

// NewEndpoint makes an Endpoint. Files are read with the first request.
func NewEndpoint(c EndpointConfig) (*Endpoint, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Observe == nil {
		c.Observe = func(string, string, time.Duration) {}
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, err
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	return &Endpoint{config: c, base: u, slots: make(chan struct{}, c.MaxConcurrent)}, nil
}

// URL is the address without credentials.
func (e *Endpoint) URL() string {
	u := *e.base
	u.User = nil
	return u.String()
}

// Health is how the last requests went.
type Health struct {
	// Failures are those since the last success; Last is the last of them, nil for none.
	Failures int
	Last     error
	// Success is when a request last succeeded, zero for never.
	Success time.Time
	// PausedUntil is when it is asked again, zero if it is asked.
	PausedUntil time.Time
}

// Health tells how the last requests went.
func (e *Endpoint) Health() Health {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := Health{Failures: e.breaker.failures, Last: e.breaker.last, Success: e.breaker.success}
	if e.breaker.failures >= FailuresToOpen {
		h.PausedUntil = e.breaker.until
	}
	return h
}

// Query asks for the value of a query now, by POST. The answer's text is as Prometheus wrote it.
func (e *Endpoint) Query(ctx context.Context, promQL string) ([]byte, error) {
	return e.do(ctx, "query", http.MethodPost, "/api/v1/query", url.Values{"query": {promQL}, "timeout": {seconds(e.config.Timeout)}})
}

// Names lists the names of the series that match, without the series.
func (e *Endpoint) Names(ctx context.Context, match string, from, to time.Time) (names, warnings []string, err error) {
	return e.list(ctx, "names", http.MethodGet, "/api/v1/label/__name__/values", match, from, to)
}

// Labels lists the names of the labels that matching series have, without the series.
func (e *Endpoint) Labels(ctx context.Context, match string, from, to time.Time) (labels, warnings []string, err error) {
	return e.list(ctx, "labels", http.MethodPost, "/api/v1/labels", match, from, to)
}

func (e *Endpoint) list(ctx context.Context, kind, method, path, match string, from, to time.Time) (all, warnings []string, err error) {
	body, err := e.do(ctx, kind, method, path, url.Values{
		"match[]": {match}, "start": {strconv.FormatInt(from.Unix(), 10)}, "end": {strconv.FormatInt(to.Unix(), 10)},
	})
	if err != nil {
		return nil, nil, err
	}
	var answer struct {
		Status   string
		Data     []string
		Warnings []string
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, nil, fmt.Errorf("read the list: %w", err)
	}
	if answer.Status != "success" {
		return nil, nil, fmt.Errorf("read the list: its status is %q", answer.Status)
	}
	return answer.Data, answer.Warnings, nil
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s" }

// do makes a request when there is a slot, unless the breaker stops it.
func (e *Endpoint) do(ctx context.Context, kind, method, path string, form url.Values) ([]byte, error) {
	for k, v := range e.config.Parameters {
		form.Set(k, v)
	}
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for %d other requests: %w", e.config.MaxConcurrent, context.Cause(ctx))
	}
	client, err := e.begin()
	if err != nil {
		e.config.Observe(kind, "not_sent", 0)
		return nil, err
	}
	began := e.config.Clock()
	bounded, cancel := context.WithTimeout(ctx, e.config.Timeout)
	defer cancel()
	body, err := e.send(bounded, client, method, path, form)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("no answer within %v", e.config.Timeout)
	}
	result := "ok"
	status, answered := errors.AsType[*StatusError](err)
	switch {
	case err != nil && ctx.Err() != nil: // the caller gave up, which says nothing
		e.end(nil, false)
		result = "failed"
	case err == nil:
		e.end(nil, true)
	case answered && status.OfQuery():
		e.end(nil, true)
		result = "rejected"
	default:
		e.end(err, false)
		result = "failed"
	}
	e.config.Observe(kind, result, e.config.Clock().Sub(began))
	return body, err
}

// begin asks the breaker, and gives the client.
func (e *Endpoint) begin() (*http.Client, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b, now := &e.breaker, e.config.Clock()
	if b.failures >= FailuresToOpen && (b.trying || now.Before(b.until)) {
		return nil, &PausedError{Failures: b.failures, Until: b.until, Last: b.last}
	}
	if e.client == nil || now.Sub(e.checked) >= filesPeriod {
		if err := e.renew(now); err != nil {
			return nil, err
		}
	}
	b.trying = b.failures >= FailuresToOpen
	return e.client, nil
}

// end tells the breaker how a request went. Neither an error nor a success says nothing.
func (e *Endpoint) end(err error, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b, now := &e.breaker, e.config.Clock()
	b.trying = false
	switch {
	case ok:
		*b = breaker{success: now}
	case err != nil:
		b.failures++
		b.last = err
		if b.failures >= FailuresToOpen && !now.Before(b.until) {
			b.pause = min(max(2*b.pause, firstPause), longestPause)
			b.until = now.Add(b.pause)
		}
	}
}

// renew makes a client when the files of certificates have changed.
func (e *Endpoint) renew(now time.Time) error {
	c := &e.config
	var files [3][]byte
	for i, name := range []string{c.CAFile, c.CertFile, c.KeyFile} {
		if name == "" {
			continue
		}
		var err error
		if files[i], err = os.ReadFile(name); err != nil {
			return fmt.Errorf("read a certificate: %w", err)
		}
	}
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%d ", len(f))
		h.Write(f)
	}
	sum := [sha256.Size]byte(h.Sum(nil))
	e.checked = now
	if e.client != nil && sum == e.sum {
		return nil
	}
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: c.MaxConcurrent, IdleConnTimeout: 90 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName},
	}
	if c.CAFile != "" {
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(files[0]) {
			return fmt.Errorf("caFile %s: want certificates in PEM", c.CAFile)
		}
	}
	if c.CertFile != "" {
		cert, err := tls.X509KeyPair(files[1], files[2])
		if err != nil {
			return fmt.Errorf("certFile %s: %w", c.CertFile, err)
		}
		t.TLSClientConfig.Certificates = []tls.Certificate{cert}
	}
	if e.client != nil {
		e.client.CloseIdleConnections()
	}
	// A redirect could carry the token to another host.
	e.client, e.sum = &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, sum
	return nil
}

// Close ends idle connections.
func (e *Endpoint) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.client != nil {
		e.client.CloseIdleConnections()
	}
}

// send makes one request and reads its answer.
func (e *Endpoint) send(ctx context.Context, client *http.Client, method, path string, form url.Values) ([]byte, error) {
	u := *e.base
	u.Path += path
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader(form.Encode())
	} else {
		u.RawQuery = form.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for k, v := range e.config.Headers {
		r.Header.Set(k, v)
	}
	if e.config.BearerTokenFile != "" {
		token, err := os.ReadFile(e.config.BearerTokenFile)
		if err != nil {
			return nil, fmt.Errorf("bearer token: %w", err)
		}
		r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	resp, err := client.Do(r)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok { // its text has the query
			err = u.Err
		}
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(io.LimitReader(resp.Body, e.config.MaxBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the answer: %w", err)
	case int64(len(text)) > e.config.MaxBytes:
		return nil, &StatusError{Status: http.StatusUnprocessableEntity, Message: fmt.Sprintf("the answer is larger than %d bytes; want a query that aggregates", e.config.MaxBytes)}
	case resp.StatusCode == http.StatusOK:
		return text, nil
	}
	var answer struct{ Status, ErrorType, Error string }
	if json.Unmarshal(text, &answer) == nil && answer.Status == "error" {
		return nil, &StatusError{Status: resp.StatusCode, Type: answer.ErrorType, Message: answer.Error}
	}
	shown := strings.ToValidUTF8(strings.TrimSpace(string(text[:min(len(text), shownBody)])), "")
	return nil, &StatusError{Status: resp.StatusCode, Message: shown}
}
