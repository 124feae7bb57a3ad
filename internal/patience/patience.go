// Package patience keeps a client of the Kubernetes API at work through an outage of the API
// server. Informers that fail ask ever more rarely, up to once a minute, and for so long nobody
// sees what has changed; those of a patient client are back within a second.
package patience

import (
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

const (
	// least and most bound the time between two attempts of a watch or list. The
	// client's own back-off grows to a minute, which is how long a sleeper would wait after an
	// outage; one attempt a second of each of some ten watches is nothing to an API server.
	least, most = 100 * time.Millisecond, time.Second
	// refusedFor is for how long a refusal is not believed of an API server that has just come
	// back: it may not have read yet what is allowed.
	refusedFor = 10 * time.Second
	// blindMost bounds for how long others may not see what changes after an outage: client-go's
	// informers wait at most 30 s between two attempts, and up to twice that by chance.
	blindMost = time.Minute
	// blindLeast is the same for their first attempt.
	blindLeast = 2 * time.Second
)

// Patience has watches and lists wait for an API server that is away, instead of failing.
// Everything else fails at once: whoever asked decides when to ask again. It is safe for concurrent
// use.
type Patience struct {
	log *slog.Logger

	mu sync.Mutex
	// waiting counts the requests that wait; the first and the last are logged.
	waiting int
	// away is since when the first of them waits, blind until when others may be blind.
	away, blind time.Time
}

// New returns a Patience that has seen no outage.
func New(log *slog.Logger) *Patience { return &Patience{log: log} }

// Wrap gives a transport patience; it is for rest.Config.Wrap.
func (p *Patience) Wrap(next http.RoundTripper) http.RoundTripper { return transport{p, next} }

// BlindUntil is until when clients without patience may not see what changes: those that were
// failed by an outage of d ask again after up to 2d, and after a minute at the latest. Among them
// is what routes requests to pods, such as kube-proxy. It is the zero time before the first outage.
func (p *Patience) BlindUntil() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.blind
}

// wait notes that a request waits.
func (p *Patience) wait(r *http.Request, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting++; p.waiting > 1 {
		return
	}
	p.away = time.Now()
	p.log.WarnContext(r.Context(), "the api server does not answer watches, waiting", slog.String("path", r.URL.Path), slog.Any("error", err))
}

// end notes that one waits no more. Unless it was given up, the API server is back.
func (p *Patience) end(r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting--
	if r.Context().Err() != nil {
		return
	}
	now := time.Now()
	if until := now.Add(min(2*now.Sub(p.away)+blindLeast, blindMost)); until.After(p.blind) {
		p.blind = until
	}
	if p.waiting == 0 {
		p.log.InfoContext(r.Context(), "the api server answers watches again")
	}
}

// transport is a transport with patience.
type transport struct {
	*Patience
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper. A request that is given up fails with its context's
// error.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if !informs(r) {
		return t.next.RoundTrip(r)
	}
	return t.roundTrip(t.next, r)
}

// WrappedRoundTripper lets the Kubernetes client find the transport by which requests are
// cancelled.
func (t transport) WrappedRoundTripper() http.RoundTripper { return t.next }

// informs tells whether a request is one of those by which informers list and watch.
func informs(r *http.Request) bool {
	if r.Method != http.MethodGet {
		return false
	}
	q := r.URL.Query()
	return q.Has("watch") || q.Has("resourceVersion")
}

func (p *Patience) roundTrip(next http.RoundTripper, r *http.Request) (*http.Response, error) {
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
		if waits {
			p.end(r)
		}
	}()
	for pause := least; ; pause = min(2*pause, most) {
		res, err := next.RoundTrip(r)
		if err == nil && final(res) || ctx.Err() != nil {
			return res, err
		}
		if !waits {
			waits = true
			p.wait(r, err)
		}
		if err == nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // keeps the connection
			_ = res.Body.Close()
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-timer.C:
		}
	}
}
