// Package proxy passes requests on to the app beside it, and measures, limits and drains them: HTTP/1.1 on a path of its
// own, which costs a request no allocation, HTTP/2 over net/http. A connection's first bytes tell which.
package proxy

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-autoscaler/sluice/sidecar/drain"
	"github.com/sluice-autoscaler/sluice/sidecar/exposition"
	"github.com/sluice-autoscaler/sluice/sidecar/inflight"
	"github.com/sluice-autoscaler/sluice/sidecar/limit"
)

// ReadyPath is answered by the sidecar itself on the proxied port, to GET and HEAD: 200 when the app answers and nothing
// drains, else 503. A gateway asks it of pods that it waits for.
const ReadyPath = "/.well-known/sluice/ready"

// ReasonHeader is the response header in which the sidecar says why it, and not the app, answered.
const ReasonHeader = "Sluice-Reason"

// statusClientLeft is counted, never sent, for a request whose client left before an answer began.
const statusClientLeft = 499

// Options are a Handler's parts and settings.
type Options struct {
	// App is the app's address, host:port or unix:/path.
	App string
	// Now is the time since the start of the source, monotonic.
	Now func() time.Duration
	// InFlight counts the requests that are demand; Limiter bounds those that run; Drain says when to close connections.
	InFlight *inflight.Counter
	Limiter  *limit.Limiter
	Drain    *drain.Drain
	Metrics  *exposition.Metrics
	// Check says whether the app answers.
	Check func(context.Context) error
	// IgnorePaths are URL paths that are no demand; one that ends in "*" stands for all that begin so.
	IgnorePaths []string
	// IgnoreAgents are beginnings of User-Agent values whose requests are no demand.
	IgnoreAgents []string
	// DialTimeout bounds a connect to the app. AppIdleTimeout closes idle connections to it; shorter than the app's
	// own keep-alive timeout, or the app may close a connection just as a request is sent on it.
	DialTimeout, AppIdleTimeout time.Duration
	// ResponseTimeout bounds the time from asking the app to the beginning of its answer, RequestTimeout that from a
	// request's arrival to the end of its answer, except for streams (bodies of unknown length, upgrades); 0 is no bound.
	ResponseTimeout, RequestTimeout time.Duration
	// Log gets what is wrong with single requests, at debug.
	Log *slog.Logger
}

// Handler is the proxy's http.Handler for HTTP/2, and what HTTP/1.1 shares with it. New makes it; it is safe for
// concurrent use.
type Handler struct {
	opts   Options
	http2  *http.Transport
	buf    httputil.BufferPool
	errlog *log.Logger
	date   atomic.Pointer[date]
}

// New returns a Handler. It starts nothing.
func New(opts Options) *Handler {
	return &Handler{
		opts:   opts,
		http2:  transport(opts),
		buf:    newBuffers(),
		errlog: slog.NewLogLogger(opts.Log.Handler(), slog.LevelDebug),
	}
}

// Close closes idle connections to the app.
func (h *Handler) Close() {
	h.http2.CloseIdleConnections()
}

// ServeHTTP answers one request from the app.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{ResponseWriter: w, h: h, arrived: h.opts.Now(), grpc: isGRPC(r.Header.Get("Content-Type"))}
	switch {
	case r.URL.Path == ReadyPath && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		h.ready(x, r)
		return
	case h.ignored(r):
		h.opts.Metrics.Ignored()
		x.ignored = true
		x.forward(r)
		return
	}

	h.opts.InFlight.Begin(x.arrived)
	defer x.end()
	if r.Method == http.MethodConnect {
		// The app is an origin, not a proxy to elsewhere.
		x.answer(http.StatusMethodNotAllowed, "", "CONNECT is not supported")
		return
	}
	if err := h.opts.Limiter.Acquire(r.Context()); err != nil {
		switch {
		case errors.Is(err, limit.ErrFull):
			x.refuse(http.StatusServiceUnavailable, exposition.QueueFull, "too many requests are waiting for the app")
		case errors.Is(err, limit.ErrTimeout):
			x.refuse(http.StatusServiceUnavailable, exposition.QueueTimeout, "the app was busy for too long")
		default:
			x.left()
		}
		return
	}
	defer h.opts.Limiter.Release()
	x.queued = h.opts.Now() - x.arrived
	x.forward(r)
}

func (h *Handler) ready(x *exchange, r *http.Request) {
	x.Header().Set("Cache-Control", "no-store")
	switch {
	case h.opts.Drain.Draining():
		x.answer(http.StatusServiceUnavailable, "draining", "draining")
	case h.opts.Check(r.Context()) != nil:
		x.answer(http.StatusServiceUnavailable, exposition.AppUnreachable.String(), "the app does not answer")
	default:
		x.answer(http.StatusOK, "", "ready")
	}
}

func (h *Handler) ignored(r *http.Request) bool {
	if agent := r.Header.Get("User-Agent"); agent != "" {
		for _, prefix := range h.opts.IgnoreAgents {
			if strings.HasPrefix(agent, prefix) {
				return true
			}
		}
	}
	return listed(h.opts.IgnorePaths, r.URL.Path)
}

// listed says whether one of the paths is path, or ends in "*" and stands for all that begin so.
func listed(paths []string, path string) bool {
	for _, p := range paths {
		if prefix, all := strings.CutSuffix(p, "*"); path == p || all && strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

// exchange is one request and its answer. It stands between the reverse proxy and both sides: it is the
// http.ResponseWriter towards the client and the http.RoundTripper towards the app.
type exchange struct {
	http.ResponseWriter
	h                *Handler
	arrived, queued  time.Duration
	asked, responded time.Duration // the app; 0 means not (yet)
	began            time.Duration // the answer to the client
	code             int
	ignored, grpc    bool
	proxy            httputil.ReverseProxy
	body             *body
}

// body is a request's body that may be closed by the transport and by the reverse proxy, at the same time.
type body struct {
	io.ReadCloser
	once sync.Once
}

// Close ends a read under way.
func (b *body) Close() (err error) {
	b.once.Do(func() { err = b.ReadCloser.Close() })
	return err
}

// Unwrap serves http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// WriteHeader sends an interim answer, or begins the final one.
func (x *exchange) WriteHeader(code int) {
	if code >= 200 && x.code == 0 {
		x.code = code
		x.began = x.h.opts.Now()
		header := x.Header()
		if x.h.opts.Drain.Draining() {
			header.Set("Connection", "close") // HTTP/2 turns it into GOAWAY
		}
		if _, ok := header["Content-Type"]; !ok {
			header["Content-Type"] = nil // or net/http would guess one
		}
	}
	x.ResponseWriter.WriteHeader(code)
}

// RoundTrip asks the app.
func (x *exchange) RoundTrip(r *http.Request) (*http.Response, error) {
	x.asked = x.h.opts.Now()
	if r.Body != nil {
		// The reverse proxy hides Close from the transport. But an app may end its answer before the client has ended its
		// request: then only Close frees the transport, and with it the end of the answer, from waiting for the client.
		r.Body = x.body
	}
	resp, err := x.h.http2.RoundTrip(r)
	x.responded = x.h.opts.Now()
	if err == nil && resp.ContentLength == 0 {
		// Headers and the end of an answer without a body must go out together: gRPC takes the status from headers only
		// of a stream that ends with them. A flush between would split them.
		x.proxy.FlushInterval = 0
	}
	return resp, err
}

func (x *exchange) forward(r *http.Request) {
	x.proxy = httputil.ReverseProxy{
		Rewrite:       x.h.rewrite,
		Transport:     x,
		FlushInterval: -1,
		BufferPool:    x.h.buf,
		ErrorLog:      x.h.errlog,
		ErrorHandler:  x.failed,
	}
	x.body = &body{ReadCloser: r.Body}
	r.Body = x.body
	x.proxy.ServeHTTP(x, r)
}

// failed answers for an app that did not.
func (x *exchange) failed(_ http.ResponseWriter, r *http.Request, err error) {
	if x.code != 0 {
		return // an answer has begun: nothing more can be said
	}
	// The request's own context, not the error, tells that the client left: transports report it in several ways.
	if r.Context().Err() != nil {
		x.left()
		return
	}
	x.h.opts.Log.DebugContext(r.Context(), "app did not answer", slog.Any("error", err))
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		x.refuse(http.StatusBadGateway, exposition.AppUnreachable, "the app accepts no connection")
		return
	}
	x.refuse(http.StatusBadGateway, exposition.AppError, "the app closed the connection or broke the protocol")
}

func (x *exchange) refuse(code int, why exposition.Reason, text string) {
	if !x.ignored {
		x.h.opts.Metrics.Refused(why)
	}
	if code == http.StatusServiceUnavailable {
		x.Header().Set("Retry-After", "1")
	}
	x.answer(code, why.String(), text)
}

// answer sends a one-line answer of the sidecar's own; to a gRPC caller one without a body, by gRPC's "trailers only".
func (x *exchange) answer(code int, reason, text string) {
	header := x.Header()
	if reason != "" {
		header.Set(ReasonHeader, reason)
	}
	if x.grpc {
		header.Set("Content-Type", "application/grpc")
		header.Set("Grpc-Status", grpcStatus(code))
		header.Set("Grpc-Message", text) // no text of ours needs an escape
		x.WriteHeader(http.StatusOK)
		x.code = code // as what it is counted
		return
	}
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("X-Content-Type-Options", "nosniff")
	x.WriteHeader(code)
	_, _ = io.WriteString(x, text+"\n")
}

// left ends a request whose context has ended: its client left, or the drain's limit is over. It cuts the connection (HTTP/2:
// the stream), because net/http would make a return without an answer a 200.
func (x *exchange) left() {
	x.code = statusClientLeft
	if !x.ignored {
		x.h.opts.Metrics.Refused(exposition.ClientLeft)
	}
	panic(http.ErrAbortHandler)
}

// end is deferred, so it counts requests whose handler panics (as the reverse proxy does to cut an answer short) too.
func (x *exchange) end() {
	now := x.h.opts.Now()
	x.h.opts.InFlight.End(now)
	overhead := time.Duration(-1)
	if x.asked > 0 && x.began >= x.responded {
		overhead = x.asked - x.arrived - x.queued + x.began - x.responded
	}
	if x.code == 0 {
		x.code = http.StatusBadGateway
	}
	x.h.opts.Metrics.Finished(x.code, now-x.arrived, overhead)
}
