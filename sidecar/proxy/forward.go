package proxy

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
)

// maxResponseHeader bounds what the app may send as headers, in bytes.
const maxResponseHeader = 1 << 20

// transport returns the way to the app by HTTP/2 with prior knowledge.
func transport(opts Options) *http.Transport {
	dialer := &net.Dialer{Timeout: opts.DialTimeout}
	network, address := Network(opts.App)
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		},
		Protocols:              new(http.Protocols),
		DisableCompression:     true, // an answer is passed on as it is
		MaxIdleConnsPerHost:    1 << 10,
		IdleConnTimeout:        opts.AppIdleTimeout,
		ResponseHeaderTimeout:  opts.ResponseTimeout,
		MaxResponseHeaderBytes: maxResponseHeader,
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	return t
}

// rewrite makes the app's request from the client's. The sidecar is of the app's own pod: what proxies before it have
// said of the client stays, and the peer is added to it.
func (h *Handler) rewrite(pr *httputil.ProxyRequest) {
	in, out := pr.In, pr.Out
	out.URL.Scheme, out.URL.Host = "http", "app"
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
		proto := "http"
		if in.TLS != nil {
			proto = "https"
		}
		out.Header.Set("X-Forwarded-Proto", proto)
	}
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

// readAhead is a connection from which something was read ahead.
type readAhead struct {
	net.Conn
	ahead []byte
}

// Read gives what was read ahead first.
func (c *readAhead) Read(p []byte) (int, error) {
	if len(c.ahead) > 0 {
		n := copy(p, c.ahead)
		c.ahead = c.ahead[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}
