// Package proxy passes requests on to the app beside it, and measures, limits and drains them, HTTP/1.1 and HTTP/2 each on a
// path of its own that costs a request no allocation. A connection's first bytes tell which.
package proxy

import (
	"context"
	"log/slog"
	"strings"
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

// maxResponseHeader bounds what the app may send as headers over HTTP/2, in bytes.
const maxResponseHeader = 1 << 20

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

// Handler is what all connections' requests are served by. New makes it; it is safe for concurrent use.
type Handler struct {
	opts Options
	date atomic.Pointer[date]
}

// New returns a Handler. It starts nothing.
func New(opts Options) *Handler { return &Handler{opts: opts} }

// listed says whether one of the paths is path, or ends in "*" and stands for all that begin so.
func listed(paths []string, path string) bool {
	for _, p := range paths {
		if prefix, all := strings.CutSuffix(p, "*"); path == p || all && strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}
