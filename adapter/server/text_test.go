package server_test

import (
	"bytes"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
)

// lockedText keeps what is logged.
type lockedText struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.Write(p)
}

func (l *lockedText) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.String()
}

// proxyTo passes requests on.
func proxyTo(at *url.URL, transport http.RoundTripper) http.Handler {
	return &httputil.ReverseProxy{Transport: transport, FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(at) }}
}
