// Package h2 serves HTTP/2 to clients and asks the app by it, without an allocation for a request.
package h2

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/proxy/h2/transport"
	"github.com/sluice-autoscaler/sluice/proxy/request"
	"github.com/sluice-autoscaler/sluice/proxy/socket"
)

// Config is an Engine's.
type Config struct {
	// Rules are those of the app's requests.
	Rules *request.Rules
	// Network and Address are the app's, as package net takes them.
	Network, Address string
	// DialTimeout bounds a connect to the app; UpstreamIdleTimeout closes idle connections to it.
	DialTimeout, UpstreamIdleTimeout time.Duration
	// HeaderTimeout bounds the time in which a client sends a request's head; IdleTimeout how long
	// its connection may be kept without a request.
	HeaderTimeout, IdleTimeout time.Duration
	// MaxHeaderBytes bounds a request's head.
	MaxHeaderBytes int
}

// Engine serves connections. One more goroutine calls Look for all of them. New makes it; it is
// safe for concurrent use.
type Engine struct {
	Config
	ctx       context.Context //nolint:containedctx // of all requests: it ends when the server cuts them
	group     transport.Group
	upstreams upstreams
	exchanges sync.Pool // of *exchange

	mu      sync.Mutex
	conns   map[*transport.Conn]struct{} // the app's among them
	clients int                          // connections of clients
	closed  bool                         // nothing is served any more
	looked  []*transport.Conn            // Look's own
}

// New returns an Engine whose requests are cut when ctx ends. It starts nothing.
func New(ctx context.Context, cfg Config) *Engine {
	e := &Engine{Config: cfg, ctx: ctx, conns: map[*transport.Conn]struct{}{}}
	e.group = transport.Group{
		Owner: e, Now: cfg.Rules.Now, MaxHeaderBytes: cfg.MaxHeaderBytes,
		HeaderTimeout: cfg.HeaderTimeout, IdleTimeout: cfg.IdleTimeout, UpstreamIdleTimeout: cfg.UpstreamIdleTimeout,
		CheckExchanges: cfg.Rules.ResponseTimeout > 0 || cfg.Rules.RequestTimeout > 0,
	}
	e.upstreams = upstreams{e: e, dialer: net.Dialer{Timeout: cfg.DialTimeout}}
	return e
}

// Take takes over the connection of a client that speaks HTTP/2, of which ahead was read already,
// and returns what serves it to its end.
func (e *Engine) Take(client socket.Client, ahead []byte) (serve func()) {
	c := transport.NewClient(&e.group, client, ahead)
	return func() { e.serve(c) }
}

func (e *Engine) serve(c *transport.Conn) {
	_ = c.Net.SetReadDeadline(time.Time{}) // of the time before, should it just have come
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		_ = c.Net.Close()
		return
	}
	e.conns[c] = struct{}{}
	e.clients++
	e.mu.Unlock()
	c.Serve()
}

// serveUpstream serves a connection to the app, unless everything is closed.
func (e *Engine) serveUpstream(c *transport.Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.conns[c] = struct{}{}
	e.group.Go(c.Serve)
	return true
}

// Malformed implements transport.Owner.
func (e *Engine) Malformed() { e.Rules.Metrics.Refused(request.BadRequest) }

// Cancelled implements transport.Owner: cancelled requests give their places back.
func (e *Engine) Cancelled(n int) {
	for range n {
		e.Rules.Limiter.Release()
	}
}

// Retired implements transport.Owner.
func (e *Engine) Retired(c *transport.Conn) {
	if c.Upstream {
		e.upstreams.remove(c)
	} else {
		e.upstreams.release(c)
	}
}

// Closed implements transport.Owner.
func (e *Engine) Closed(c *transport.Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, c)
	if !c.Upstream {
		e.clients--
	}
}

// GoAway tells clients to open no more streams; their connections end with those that they have.
func (e *Engine) GoAway() {
	var b transport.Batch
	now := e.Rules.Now()
	e.mu.Lock()
	for c := range e.conns {
		if !c.Upstream {
			c.AnnounceGoAway(&b, now)
		}
	}
	e.mu.Unlock()
	b.Flush()
}

// WaitClients waits for the end of clients' connections.
func (e *Engine) WaitClients(ctx context.Context) error {
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for {
		e.mu.Lock()
		n := e.clients
		e.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Look enforces the timeouts of all connections. One goroutine calls it.
func (e *Engine) Look(now time.Duration) {
	var b transport.Batch
	e.mu.Lock()
	for c := range e.conns {
		e.looked = append(e.looked, c)
	}
	e.mu.Unlock()
	for _, c := range e.looked {
		c.Look(&b, now)
	}
	b.Flush()
	clear(e.looked)
	e.looked = e.looked[:0]
}

// Cut ends every connection now, and serves no other.
func (e *Engine) Cut() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for c := range e.conns {
		_ = c.Net.Close()
	}
}

// Wait waits until the goroutines have ended that the engine has started. Those that serve what
// Take returned are the caller's.
func (e *Engine) Wait() { e.group.Wait() }
