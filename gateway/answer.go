package gateway

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/sluice-autoscaler/sluice/gateway/lane"
	"github.com/sluice-autoscaler/sluice/proxy/request"
)

// answer writes the gateway's own refusal; a gRPC client gets it as a status.
func answer(w http.ResponseWriter, r *http.Request, f *lane.RefusalError) {
	h := w.Header()
	h.Set(request.ReasonHeader, printable(f.Reason))
	if isGRPC(r) {
		grpcStatus(w, request.GRPCStatus(f.Code), f.Text, nil)
		return
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if f.Retry {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(f.Code)
	_, _ = io.WriteString(w, f.Text+"\n")
}

// answerHealth tells a health checker that the workload is well: at zero its pods are a request
// away.
func answerHealth(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(request.ReasonHeader, "at-zero")
	if isGRPC(r) {
		// grpc.health.v1.HealthCheckResponse{status: SERVING}, with its frame.
		grpcStatus(w, 0, "", []byte{0, 0, 0, 0, 2, 8, 1})
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "at zero, ready to wake\n")
}

func isGRPC(r *http.Request) bool {
	return r.ProtoMajor == 2 && request.IsGRPC(r.Header.Get("Content-Type"))
}

func grpcStatus(w http.ResponseWriter, code int, message string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body)
	_ = http.NewResponseController(w).Flush()
	h.Set(http.TrailerPrefix+"Grpc-Status", strconv.Itoa(code))
	if message != "" {
		h.Set(http.TrailerPrefix+"Grpc-Message", request.GRPCMessage(message))
	}
}

// printable makes s fit for a header: ASCII, one line, bounded.
func printable(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return ' '
		}
		return c
	}, s)
	return s[:min(len(s), 256)]
}

// release calls done once, when a response's body has ended. An upgraded connection stays writable
// through it.
func release(body io.ReadCloser, done func()) io.ReadCloser {
	r := &released{ReadCloser: body, done: done}
	if rw, ok := body.(io.ReadWriteCloser); ok {
		return &releasedConn{released: r, Writer: rw}
	}
	return r
}

type released struct {
	io.ReadCloser
	once sync.Once
	done func()
}

// Close implements io.Closer.
func (r *released) Close() error {
	defer r.once.Do(r.done)
	return r.ReadCloser.Close()
}

type releasedConn struct {
	*released
	io.Writer
}

// CloseWrite ends one direction of an upgraded connection.
func (r *releasedConn) CloseWrite() error {
	if c, ok := r.Writer.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}
