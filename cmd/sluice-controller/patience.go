package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	// patienceLeast and patienceMost bound the time between two attempts of a watch or list. The
	// client's own back-off grows to a minute, which is how long a sleeper would wait after an
	// outage; one attempt a second of each of some ten watches is nothing to an API server.
	patienceLeast, patienceMost = 100 * time.Millisecond, time.Second
	// dialTimeout bounds a connection to the API server: packets that a partition swallowed are
	// sent again ever more rarely, a new connection at once.
	dialTimeout = 2 * time.Second
	// refusedFor is for how long a refusal is not believed of an API server that has just come
	// back: it may not have read yet what is allowed.
	refusedFor = 10 * time.Second
)

// dialAPI connects to the API server.
func dialAPI(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{
		Timeout: dialTimeout, Control: limitUnacknowledged,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3},
	}
	return d.DialContext(ctx, network, address)
}

// patience is a transport by which watches and lists wait for an API server that is away, instead
// of failing. Everything else fails at once: whoever asked decides when to ask again. It is safe
// for concurrent use.
type patience struct {
	log *slog.Logger
	// waiting counts the requests that wait; the first and the last are logged.
	waiting atomic.Int64
}

func newPatience(log *slog.Logger) *patience { return &patience{log: log} }

func (p *patience) wrap(next http.RoundTripper) http.RoundTripper {
	return patientTransport{p, next}
}

// patientTransport is a transport with patience.
type patientTransport struct {
	*patience
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t patientTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if !informs(r) {
		return t.next.RoundTrip(r)
	}
	return t.roundTrip(t.next, r)
}

// WrappedRoundTripper lets the Kubernetes client find the transport by which requests are
// cancelled.
func (t patientTransport) WrappedRoundTripper() http.RoundTripper { return t.next }

// informs tells whether a request is one of those by which informers list and watch.
func informs(r *http.Request) bool {
	if r.Method != http.MethodGet {
		return false
	}
	q := r.URL.Query()
	return q.Has("watch") || q.Has("resourceVersion")
}

func (p *patience) roundTrip(next http.RoundTripper, r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	waits := false
	var answered time.Time // for the first time after it was away
	final := func(res *http.Response) bool {
		switch code := res.StatusCode; {
		case code >= http.StatusInternalServerError:
			return false
		case !waits || code < http.StatusBadRequest || code == http.StatusGone:
			return true
		}
		if answered.IsZero() {
			answered = time.Now()
		}
		return time.Since(answered) >= refusedFor
	}
	defer func() {
		if waits && p.waiting.Add(-1) == 0 && ctx.Err() == nil {
			p.log.InfoContext(ctx, "the api server answers watches again")
		}
	}()
	for pause := patienceLeast; ; pause = min(2*pause, patienceMost) {
		res, err := next.RoundTrip(r)
		if err == nil && final(res) || ctx.Err() != nil {
			return res, err
		}
		if !waits {
			if waits = true; p.waiting.Add(1) == 1 {
				p.log.WarnContext(ctx, "the api server does not answer watches, waiting", slog.String("path", r.URL.Path), slog.Any("error", err))
			}
		}
		if err == nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // keeps the connection
			_ = res.Body.Close()
		}
		wait := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil, ctx.Err()
		case <-wait.C:
		}
	}
}
