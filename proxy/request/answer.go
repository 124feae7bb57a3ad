package request

import (
	"errors"
	"net"
	"net/http"
	"strconv"

	"github.com/sluice-autoscaler/sluice/proxy/limit"
)

// ReasonHeader is the response header that says why a proxy, and not the app, answered.
const ReasonHeader = "Sluice-Reason"

// ClientLeftCode is counted, never sent, for a request whose client left before an answer began.
const ClientLeftCode = 499

// Reason is why a request was answered by the proxy itself and not by the app.
type Reason int

// The reasons, in the order of their label values in metrics.
const (
	QueueFull Reason = iota
	QueueTimeout
	ClientLeft
	AppUnreachable
	AppError
	AppTimeout
	BadRequest
	Reasons int = iota // how many there are
)

func (r Reason) String() string {
	switch r {
	case QueueFull:
		return "queue-full"
	case QueueTimeout:
		return "queue-timeout"
	case ClientLeft:
		return "client-left"
	case AppUnreachable:
		return "app-unreachable"
	case AppError:
		return "app-error"
	case AppTimeout:
		return "app-timeout"
	case BadRequest:
		return "bad-request"
	default:
		return "unknown"
	}
}

// Answer is what a proxy answers in the app's place: a line of text, or a gRPC status.
type Answer struct {
	// Code is the status code of HTTP; a gRPC caller gets GRPCStatus of it.
	Code int
	// Reason goes into ReasonHeader; empty for none.
	Reason string
	// Text is one line without its end.
	Text string
}

// Failure is why a proxy answers in the app's place.
type Failure uint8

// The failures.
const (
	FullQueue        Failure = iota // no room to wait for a place under the limit
	LongQueue                       // no place came free in time
	NoConnection                    // the app accepts no connection
	BrokenAnswer                    // the app ended the connection, or does not speak HTTP
	LateAnswer                      // the app did not begin to answer in time
	UnfinishedAnswer                // the answer was not complete in time
	MalformedBody                   // of the request
	MalformedRequest                // its head
	LargeHead                       // likewise, past its bound
	LateHead                        // the head was not complete in time
	ConnectMethod                   // CONNECT: the app is an origin, not a proxy to elsewhere
)

// UpstreamFailure says how the app failed, by the error of the request to it; nil is no known one.
func UpstreamFailure(err error) Failure {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return NoConnection
	}
	return BrokenAnswer
}

// LimitFailure says why limit.Limiter gave no place; it is false when the wait was cut from outside.
func LimitFailure(err error) (Failure, bool) {
	switch {
	case errors.Is(err, limit.ErrFull):
		return FullQueue, true
	case errors.Is(err, limit.ErrTimeout):
		return LongQueue, true
	default:
		return 0, false
	}
}

// Reason is what the failure is counted as. ConnectMethod is counted as none.
func (f Failure) Reason() (r Reason, counted bool) {
	switch f {
	case FullQueue:
		return QueueFull, true
	case LongQueue:
		return QueueTimeout, true
	case NoConnection:
		return AppUnreachable, true
	case BrokenAnswer:
		return AppError, true
	case LateAnswer, UnfinishedAnswer:
		return AppTimeout, true
	case MalformedBody, MalformedRequest, LargeHead, LateHead:
		return BadRequest, true
	case ConnectMethod:
	}
	return 0, false
}

// Answer is what the client gets.
func (f Failure) Answer() Answer {
	var a Answer
	switch f {
	case FullQueue:
		a = Answer{Code: http.StatusServiceUnavailable, Text: "too many requests are waiting for the app"}
	case LongQueue:
		a = Answer{Code: http.StatusServiceUnavailable, Text: "the app was busy for too long"}
	case NoConnection:
		a = Answer{Code: http.StatusBadGateway, Text: "the app accepts no connection"}
	case BrokenAnswer:
		a = Answer{Code: http.StatusBadGateway, Text: "the app closed the connection or broke the protocol"}
	case LateAnswer:
		a = Answer{Code: http.StatusGatewayTimeout, Text: "the app did not begin to answer in time"}
	case UnfinishedAnswer:
		a = Answer{Code: http.StatusGatewayTimeout, Text: "the answer was not complete in time"}
	case MalformedBody:
		a = Answer{Code: http.StatusBadRequest, Text: "the body of the request is malformed"}
	case MalformedRequest:
		a = Answer{Code: http.StatusBadRequest, Text: "malformed request"}
	case LargeHead:
		a = Answer{Code: http.StatusRequestHeaderFieldsTooLarge, Text: "headers are too large"}
	case LateHead: // who sends no head in time may be anybody: no reason is given
		return Answer{Code: http.StatusRequestTimeout, Text: "the headers of the request did not come in time"}
	case ConnectMethod:
		return Answer{Code: http.StatusMethodNotAllowed, Text: "CONNECT is not supported"}
	}
	if r, ok := f.Reason(); ok {
		a.Reason = r.String()
	}
	return a
}

// Field is a header field, with its name as HTTP/1.1 and as HTTP/2 spell it.
type Field struct{ Name, Lower, Value string }

// Fields is how many fields an answer has at most.
const Fields = 8

// AppendFields appends the answer's header fields but Date. Its body is Text and a line feed.
func (a *Answer) AppendFields(out []Field) []Field {
	out = append(out,
		Field{"Content-Type", "content-type", "text/plain; charset=utf-8"},
		Field{"X-Content-Type-Options", "x-content-type-options", "nosniff"},
		Field{"Cache-Control", "cache-control", "no-store"},
		Field{"Content-Length", "content-length", strconv.Itoa(len(a.Text) + 1)})
	if a.Code == http.StatusServiceUnavailable {
		out = append(out, Field{"Retry-After", "retry-after", "1"})
	}
	if a.Code == http.StatusMethodNotAllowed {
		out = append(out, Field{"Allow", "allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"})
	}
	if a.Reason != "" {
		out = append(out, Field{ReasonHeader, "sluice-reason", a.Reason})
	}
	return out
}

// AppendGRPCFields appends the fields of the answer to a gRPC caller: 200 without a body ("trailers
// only").
func (a *Answer) AppendGRPCFields(out []Field) []Field {
	out = append(out,
		Field{"Content-Type", "content-type", "application/grpc"},
		Field{"Grpc-Status", "grpc-status", strconv.Itoa(GRPCStatus(a.Code))},
		Field{"Grpc-Message", "grpc-message", GRPCMessage(a.Text)})
	return append(out, Field{ReasonHeader, "sluice-reason", a.Reason})
}
