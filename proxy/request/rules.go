// Package request holds the rules of a request that are the same for every version of HTTP: what it
// is counted as, when it may run, what is answered in the app's place, and what is measured of it.
// It knows no connection. Nothing here allocates for a request that the app answers.
package request

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-autoscaler/sluice/proxy/drain"
	"github.com/sluice-autoscaler/sluice/proxy/inflight"
	"github.com/sluice-autoscaler/sluice/proxy/limit"
)

// ReadyPath is answered by the proxy itself, to GET and HEAD: 200 when the app answers and nothing
// drains, else 503. A gateway asks it of pods that it waits for.
const ReadyPath = "/.well-known/sluice/ready"

// MaxAnswerHead bounds the head of the app's answer, in bytes.
const MaxAnswerHead = 1 << 20

// Metrics counts what requests do. It is called by many goroutines at once.
type Metrics interface {
	// Finished counts a request that has ended with the status code, after took; overhead is the
	// part of it that the proxy itself took, negative if unknown.
	Finished(code int, took, overhead time.Duration)
	// Refused counts a request that the proxy answered itself.
	Refused(r Reason)
	// Ignored counts a request that is no demand.
	Ignored()
}

// Rules are the rules of all requests to one app. The exported fields are set before the first
// request; then Rules are safe for concurrent use.
type Rules struct {
	// Now is the time since the start of the source, monotonic.
	Now func() time.Duration
	// InFlight counts the requests that are demand; Limiter bounds those that run; Drain says when
	// to close connections.
	InFlight *inflight.Counter
	Limiter  *limit.Limiter
	Drain    *drain.Drain
	Metrics  Metrics
	// Check says whether the app answers.
	Check func(context.Context) error
	// IgnorePaths are URL paths that are no demand; one that ends in "*" stands for all that begin so.
	IgnorePaths []string
	// IgnoreAgents are beginnings of User-Agent values whose requests are no demand.
	IgnoreAgents []string
	// ResponseTimeout bounds the time from asking the app to the beginning of its answer,
	// RequestTimeout that from a request's arrival to the end of its answer, except for streams
	// (bodies of unknown length, upgrades); 0 is no bound.
	ResponseTimeout, RequestTimeout time.Duration
	// Log gets what is wrong with single requests, at debug.
	Log *slog.Logger

	date atomic.Pointer[date]
}

// Kind is what a request is counted as.
type Kind uint8

// The kinds.
const (
	Demand    Kind = iota // counted, limited, and passed to the app
	Readiness             // answered by the proxy's own Ready, and not counted
	Ignored               // passed to the app, neither counted as demand nor limited
	Connect               // counted, and refused
)

// KindOf tells the kind of a request by its method, target and User-Agent.
func KindOf[T string | []byte](r *Rules, method string, target, agent T) Kind {
	switch {
	case len(target) == len(ReadyPath) && string(target) == ReadyPath && (method == http.MethodGet || method == http.MethodHead):
		return Readiness
	case ignoresAgent(r.IgnoreAgents, agent) || len(r.IgnorePaths) > 0 && r.ignoresTarget(string(target)):
		return Ignored
	case method == http.MethodConnect:
		return Connect
	}
	return Demand
}

func ignoresAgent[T string | []byte](prefixes []string, agent T) bool {
	for _, p := range prefixes {
		if len(agent) >= len(p) && string(agent[:len(p)]) == p {
			return true
		}
	}
	return false
}

func (r *Rules) ignoresTarget(target string) bool {
	path, _, _ := strings.Cut(target, "?")
	if strings.Contains(path, "%") {
		if p, err := url.PathUnescape(path); err == nil {
			path = p
		}
	}
	for _, p := range r.IgnorePaths {
		if prefix, all := strings.CutSuffix(p, "*"); path == p || all && strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

// Replayable says whether a request of the method that has no body may be sent a second time, when
// nobody knows whether the app saw the first.
func Replayable(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions || method == http.MethodTrace
}

// Bodyless says whether the answer to the method with the status code has no body, whatever its
// head says of one.
func Bodyless(head bool, code int) bool {
	return head || code == http.StatusNoContent || code == http.StatusNotModified
}

// Ready is the answer to a Readiness request; it may wait for the app.
func (r *Rules) Ready(ctx context.Context) Answer {
	switch {
	case r.Drain.Draining():
		return Answer{Code: http.StatusServiceUnavailable, Reason: "draining", Text: "draining"}
	case r.Check(ctx) != nil:
		return Answer{Code: http.StatusServiceUnavailable, Reason: AppUnreachable.String(), Text: "the app does not answer"}
	}
	return Answer{Code: http.StatusOK, Text: "ready"}
}

// AnswerLate says whether the app, asked at the instant, has taken too long to begin an answer.
func (r *Rules) AnswerLate(asked, now time.Duration) bool {
	return r.ResponseTimeout > 0 && now-asked >= r.ResponseTimeout
}

// RequestLate says whether a request that arrived at the instant has taken too long as a whole.
func (r *Rules) RequestLate(arrived, now time.Duration) bool {
	return r.RequestTimeout > 0 && now-arrived >= r.RequestTimeout
}

// AppendForwarded appends the peer's element of a Forwarded field (RFC 7239), nothing for no peer.
func AppendForwarded(out []byte, peer string) []byte {
	switch {
	case strings.Contains(peer, ":"):
		return append(append(append(out, `for="[`...), peer...), `]"`...)
	case peer != "":
		return append(append(out, "for="...), peer...)
	}
	return out
}

// date is a Date field that was formatted once and serves for a second.
type date struct {
	second int64
	value  string
}

// Date is the value of a Date field for answers without one (RFC 9110, 6.6.1).
func (r *Rules) Date() string {
	now := time.Now()
	d := r.date.Load()
	if d == nil || d.second != now.Unix() {
		d = &date{second: now.Unix(), value: now.UTC().Format(http.TimeFormat)}
		r.date.Store(d)
	}
	return d.value
}
