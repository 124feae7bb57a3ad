// Package remote asks one other provider of metrics: it writes requests, says who asks, bounds what
// is waited for and read, and checks what comes back.
package remote

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-autoscaler/sluice/adapter/delegate/config"
)

const (
	// filesPeriod is how often certificates are read.
	filesPeriod = 10 * time.Second
	// shownText bounds what an error shows of an answer.
	shownText = 512
	// maxRetryAfter bounds how long a provider may have readers wait.
	maxRetryAfter = 10 * time.Minute
)

// Options are what all providers have in common. All are needed.
type Options struct {
	Clock func() time.Time
	// UserAgent names Sluice.
	UserAgent string
	// DiscoverPeriod is the time between two lists of what a provider has.
	DiscoverPeriod time.Duration
	// Observe is told of each request: its kind (custom, external, discovery), the result (ok,
	// rejected, failed, not_sent), and how long it took.
	Observe func(delegate, kind, result string, d time.Duration)
}

// Provider asks one provider. It is safe for concurrent use.
type Provider struct {
	config *config.Delegate
	opts   Options
	tokens *Tokens
	base   *url.URL
	name   string // in its certificate

	slots   chan struct{}
	waiting atomic.Int64
	breaker breaker
	catalog catalog

	mu sync.Mutex
	// client is made of files with that sum; checked is when they were last read.
	client  *http.Client
	sum     [sha256.Size]byte
	checked time.Time
}

// New makes a Provider and asks nothing.
func New(d *config.Delegate, o Options, t *Tokens) (*Provider, error) {
	p := &Provider{config: d, opts: o, tokens: t, slots: make(chan struct{}, d.MaxConcurrent)}
	address := d.URL
	if s := d.Service; s != nil {
		port := s.Port
		if port == 0 {
			port = 443
		}
		address = "https://" + net.JoinHostPort(s.Name+"."+s.Namespace+".svc", strconv.Itoa(port))
	}
	var err error
	if p.base, err = url.Parse(address); err != nil {
		return nil, fmt.Errorf("delegate %s: %w", d.Name, err)
	}
	if p.name = d.ServerName; p.name == "" {
		p.name = p.base.Hostname()
	}
	return p, nil
}

// Kinds of requests, for metrics.
const kindDiscovery = "discovery"

// fault is a failure of a provider that is no status of its own.
type fault struct {
	status int
	err    error
}

// Error implements error.
func (f *fault) Error() string { return f.err.Error() }

// Unwrap gives the cause.
func (f *fault) Unwrap() error { return f.err }

// get asks for a target, and reads at most most bytes of the answer. Its error is an API status
// that names the provider.
func (p *Provider) get(ctx context.Context, kind, target string, most int64) ([]byte, error) {
	text, err := p.ask(ctx, kind, target, most)
	if err == nil {
		return text, nil
	}
	return nil, p.status(err)
}

// status is an error as the metrics APIs give it.
func (p *Provider) status(err error) error {
	said := fmt.Sprintf("delegate %s: %v", p.config.Name, err)
	if s, ok := errors.AsType[*apierrors.StatusError](err); ok {
		out := *s.ErrStatus.DeepCopy()
		out.Message = said
		return &apierrors.StatusError{ErrStatus: out}
	}
	code := http.StatusServiceUnavailable
	if f, ok := errors.AsType[*fault](err); ok {
		code = f.status
	}
	reason := metav1.StatusReasonServiceUnavailable
	switch code {
	case http.StatusGatewayTimeout:
		reason = metav1.StatusReasonTimeout
	case http.StatusBadGateway:
		reason = metav1.StatusReasonInternalError
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: said}} //nolint:gosec // a status of HTTP
}

// ask makes a request when there is a slot, unless the breaker stops it.
func (p *Provider) ask(ctx context.Context, kind, target string, most int64) ([]byte, error) {
	bounded, cancel := context.WithTimeout(ctx, time.Duration(p.config.Timeout))
	defer cancel()
	if err := p.wait(bounded); err != nil {
		p.opts.Observe(p.config.Name, kind, "not_sent", 0)
		return nil, err
	}
	defer func() { <-p.slots }()
	if err := p.breaker.begin(p.opts.Clock()); err != nil {
		p.opts.Observe(p.config.Name, kind, "not_sent", 0)
		return nil, err
	}
	began := p.opts.Clock()
	text, err := p.send(bounded, target, most)
	now := p.opts.Clock()
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		err = &fault{http.StatusGatewayTimeout, fmt.Errorf("no answer within %v", time.Duration(p.config.Timeout))}
	}
	result := "ok"
	own, said := errors.AsType[*apierrors.StatusError](err)
	_, failed := errors.AsType[*fault](err)
	switch {
	case err == nil:
		p.breaker.end(now, nil, true)
	case said && !failed: // one metric's fault, such as a scaler's of KEDA, or Sluice's own
		err := err
		if !ofProvider(own.ErrStatus.Code) {
			err = nil
		}
		p.breaker.end(now, err, true)
		result = "rejected"
	case ctx.Err() != nil: // the caller gave up, which says nothing
		p.breaker.end(now, nil, false)
		result = "failed"
	default:
		p.breaker.end(now, err, false)
		result = "failed"
	}
	p.opts.Observe(p.config.Name, kind, result, now.Sub(began))
	return text, err
}

// ofProvider reports whether a status is about the provider as a whole, and not about what was
// asked.
func ofProvider(code int32) bool {
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// wait takes a slot. As many may wait as are asked at once.
func (p *Provider) wait(ctx context.Context) error {
	select {
	case p.slots <- struct{}{}:
		return nil
	default:
	}
	defer p.waiting.Add(-1)
	if p.waiting.Add(1) > int64(p.config.MaxConcurrent) {
		return fmt.Errorf("%d requests are under way and as many wait (maxConcurrent)", p.config.MaxConcurrent)
	}
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%d other requests are under way and none ended in time (maxConcurrent)", p.config.MaxConcurrent)
	}
}

// send makes one request and reads its answer.
func (p *Provider) send(ctx context.Context, target string, most int64) ([]byte, error) {
	client, err := p.transport()
	if err != nil {
		return nil, err
	}
	path, query, _ := strings.Cut(target, "?")
	u := *p.base
	// Opaque is sent as it is, where Path would be escaped again.
	u.Path, u.Opaque, u.RawQuery = "", path, query
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base.String(), nil)
	if err != nil {
		return nil, err
	}
	r.URL = &u
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", p.opts.UserAgent)
	token, err := p.identify(ctx, r)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(r)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok { // its text has the URL
			err = e.Err
		}
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	switch {
	case err != nil:
		return nil, &fault{http.StatusBadGateway, fmt.Errorf("read the answer: %w", err)}
	case int64(len(text)) > most:
		return nil, &fault{http.StatusBadGateway, fmt.Errorf("the answer is larger than %d bytes", most)}
	case resp.StatusCode == http.StatusUnauthorized:
		p.tokens.refused(token)
	case resp.StatusCode == http.StatusOK && resp.Header.Get("Content-Encoding") == "":
		return text, nil
	}
	return nil, refusal(resp, text)
}

// identify says who asks, and gives the token that it says it with.
func (p *Provider) identify(ctx context.Context, r *http.Request) (string, error) {
	var token string
	switch id := p.config.Identity; {
	case id.ServiceAccount():
		var err error
		if token, err = p.tokens.get(ctx); err != nil {
			return "", err
		}
	case id.BearerTokenFile != "":
		text, err := readFile(id.BearerTokenFile)
		if err != nil {
			return "", fmt.Errorf("identity.bearerTokenFile: %w", err)
		}
		token = strings.TrimSpace(string(text))
	default:
		return "", nil
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return token, nil
}

// refusal is the error of an answer that is no success, with its status.
func refusal(resp *http.Response, text []byte) error {
	code := resp.StatusCode
	if code < http.StatusBadRequest || code > 599 {
		return &fault{http.StatusBadGateway, fmt.Errorf("it answers with status %d", code)}
	}
	message, reason := "", metav1.StatusReason("")
	var s metav1.Status
	own := json.Unmarshal(text, &s) == nil && s.Kind == "Status"
	if own {
		message, reason = printable(s.Message), metav1.StatusReason(printable(string(s.Reason)))
	} else {
		message = printable(string(text))
	}
	if message == "" {
		message = http.StatusText(code)
	}
	switch code {
	case http.StatusUnauthorized:
		message = "it does not take Sluice's own identity (see docs/delegation.md): " + message
	case http.StatusForbidden:
		message = "it does not allow Sluice's own identity to read this (see docs/delegation.md): " + message
	}
	out := metav1.Status{Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message} //nolint:gosec // 400–599
	wait := 0
	if own && s.Details != nil {
		wait = int(s.Details.RetryAfterSeconds)
	}
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > wait {
		wait = n
	}
	if wait = min(wait, int(maxRetryAfter.Seconds())); wait > 0 {
		out.Details = &metav1.StatusDetails{RetryAfterSeconds: int32(wait)} //nolint:gosec // bounded above
	}
	err := &apierrors.StatusError{ErrStatus: out}
	if !own && code >= http.StatusInternalServerError {
		// Not the provider's own words: what stands before it, or it is broken.
		return &fault{code, err}
	}
	return err
}

// printable is what may be shown of a text that somebody else wrote.
func printable(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), shownText)], "")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s))
}

// maxFile bounds a file of a token or a certificate.
const maxFile = 1 << 20

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxFile)
	}
	return text, err
}

// transport gives the client; it is made again when the files of certificates have changed.
func (p *Provider) transport() (*http.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.opts.Clock()
	if p.client != nil && now.Sub(p.checked) < filesPeriod {
		return p.client, nil
	}
	c := p.config
	var files [3][]byte
	for i, name := range []string{c.CA.File, c.Identity.CertFile, c.Identity.KeyFile} {
		if name == "" {
			continue
		}
		var err error
		if files[i], err = readFile(name); err != nil {
			return nil, fmt.Errorf("read a certificate: %w", err)
		}
	}
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%d ", len(f))
		h.Write(f)
	}
	sum := [sha256.Size]byte(h.Sum(nil))
	p.checked = now
	if p.client != nil && sum == p.sum {
		return p.client, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: p.name, InsecureSkipVerify: c.CA.InsecureSkipTLSVerify} //nolint:gosec // only where the file says so
	if pem := append(files[0], c.CA.Inline...); len(pem) > 0 {
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca.file %s: want certificates in PEM", c.CA.File)
		}
	}
	if c.Identity.CertFile != "" {
		cert, err := tls.X509KeyPair(files[1], files[2])
		if err != nil {
			return nil, fmt.Errorf("identity.certFile %s: %w", c.Identity.CertFile, err)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	p.closeIdle()
	p.client, p.sum = &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: t, MaxIdleConnsPerHost: c.MaxConcurrent, MaxConnsPerHost: c.MaxConcurrent, IdleConnTimeout: 90 * time.Second,
			TLSHandshakeTimeout: time.Duration(c.Timeout), ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10,
			// A connection that a partition swallowed is given up.
			HTTP2: &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second},
			// A small answer that unpacks to a large one is not asked for.
			DisableCompression: true,
		},
		// A redirect could carry the token to somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, sum
	return p.client, nil
}

func (p *Provider) closeIdle() {
	if p.client != nil {
		p.client.CloseIdleConnections()
	}
}

// Close ends idle connections.
func (p *Provider) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeIdle()
}

// Health says what is wrong with the provider, nil for nothing.
func (p *Provider) Health() error {
	if last, _ := p.breaker.health(); last != nil {
		return fmt.Errorf("delegate %s (%s): %w", p.config.Name, p.base, last)
	}
	return nil
}

// Name is the provider's in the file.
func (p *Provider) Name() string { return p.config.Name }

// Where is the provider's address.
func (p *Provider) Where() string { return p.base.String() }

// Is reports whether it is made of what the file says.
func (p *Provider) Is(d *config.Delegate) bool { return reflect.DeepEqual(p.config, d) }

// Up reports whether the last request was answered.
func (p *Provider) Up() bool {
	last, succeeded := p.breaker.health()
	return last == nil && succeeded
}
