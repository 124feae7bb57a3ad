package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxResponseHeader bounds what the app may send as headers, in bytes.
const maxResponseHeader = 1 << 20

// transport returns the way to the app by HTTP/1.1, or by HTTP/2 with prior knowledge.
func transport(opts Options, http2 bool) *http.Transport {
	dialer := &net.Dialer{Timeout: opts.DialTimeout}
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", opts.App)
		},
		Protocols:              new(http.Protocols),
		DisableCompression:     true, // an answer is passed on as it is
		MaxIdleConnsPerHost:    1 << 10,
		IdleConnTimeout:        opts.AppIdleTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxResponseHeader,
	}
	if http2 {
		t.Protocols.SetUnencryptedHTTP2(true)
	} else {
		t.Protocols.SetHTTP1(true)
	}
	return t
}

// rewrite makes the app's request from the client's. The sidecar is of the app's own pod: what proxies before it have
// said of the client stays, and the peer is added to it.
func (h *Handler) rewrite(pr *httputil.ProxyRequest) {
	in, out := pr.In, pr.Out
	out.URL.Scheme, out.URL.Host = "http", h.opts.App
	out.URL.RawQuery = in.URL.RawQuery // the app judges queries that net/url finds odd
	out.Host = in.Host
	out.Trailer = in.Trailer // shared, because net/http fills it in when the body has been read

	for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded"} {
		if v, ok := in.Header[name]; ok {
			out.Header[name] = v
		}
	}
	if peer, _, err := net.SplitHostPort(in.RemoteAddr); err == nil {
		out.Header["X-Forwarded-For"] = appended(in.Header["X-Forwarded-For"], peer)
		if v, ok := in.Header["Forwarded"]; ok {
			if strings.Contains(peer, ":") {
				peer = `"[` + peer + `]"`
			}
			out.Header["Forwarded"] = appended(v, "for="+peer)
		}
	}
	if out.Header.Get("X-Forwarded-Host") == "" {
		out.Header.Set("X-Forwarded-Host", in.Host)
	}
	if out.Header.Get("X-Forwarded-Proto") == "" {
		out.Header.Set("X-Forwarded-Proto", "http")
	}

	// An upgrade to h2c would open a tunnel in which requests could be neither seen nor counted; a server may ignore the
	// offer. Who wants HTTP/2 uses prior knowledge.
	if strings.EqualFold(out.Header.Get("Upgrade"), "h2c") {
		out.Header.Del("Upgrade")
		out.Header.Del("Connection")
	}
	out.Header.Del("Http2-Settings")
}

func appended(list []string, last string) []string {
	if len(list) == 0 {
		return []string{last}
	}
	return []string{strings.Join(list, ", ") + ", " + last}
}

// buffers lends copy buffers without allocating for the loan.
type buffers struct{ pool sync.Pool }

const bufferSize = 32 << 10

func newBuffers() *buffers {
	return &buffers{pool: sync.Pool{New: func() any { return new([bufferSize]byte) }}}
}

// Get lends a buffer.
func (b *buffers) Get() []byte { return b.pool.Get().(*[bufferSize]byte)[:] }

// Put takes one back.
func (b *buffers) Put(p []byte) {
	if cap(p) >= bufferSize {
		b.pool.Put((*[bufferSize]byte)(p[:bufferSize]))
	}
}

// body is a request's body that remembers how it ended. Another goroutine reads it than asks.
type body struct {
	io.ReadCloser
	ended, broken atomic.Bool
}

// Read reads on.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		b.ended.Store(true)
	default:
		b.broken.Store(true)
	}
	return n, err
}

// readAhead is a connection from which something was read ahead.
type readAhead struct {
	net.Conn
	ahead *bufio.Reader
}

// Read gives what was read ahead first.
func (c *readAhead) Read(p []byte) (int, error) {
	if n := c.ahead.Buffered(); n > 0 {
		return c.ahead.Read(p[:min(n, len(p))])
	}
	return c.Conn.Read(p)
}

// CloseWrite ends one direction.
func (c *readAhead) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
