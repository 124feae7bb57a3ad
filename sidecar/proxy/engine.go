package proxy

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// tick is how often connections are looked after: the resolution of their timeouts, and of the notice that a client left
// while its request runs.
const tick = 50 * time.Millisecond

// engine serves connections, a goroutine each, and looks after all of them from one more: what is rare, such as timeouts
// and clients that leave, costs the single request nothing.
type engine struct {
	h                          *Handler
	pool                       pool
	headerTimeout, idleTimeout time.Duration
	maxHeader                  int
	ctx                        context.Context //nolint:containedctx // of all requests: it ends when the server cuts them
	apps                       apps
	late                       atomic.Int64 // when the last connection came since the drain began, by the handler's clock; 0 for none

	mu      sync.Mutex
	conns   map[*conn]struct{} // HTTP/1.1, and what has not said anything yet
	links   map[*link]struct{} // HTTP/2, the app's among them
	clients int                // links to clients
	closed  bool               // nothing is served any more
	wg      sync.WaitGroup
	spare   sync.Pool // of *conn: memory of connections that have ended
	streams sync.Pool // of *stream
	chunks  sync.Pool // of *chunk
	buffers sync.Pool // of *[linkBuffer]byte
}

func newEngine(ctx context.Context, s *Server) *engine {
	h := s.Handler
	network, address := Network(h.opts.App)
	e := &engine{
		h: h, headerTimeout: s.HeaderTimeout, idleTimeout: s.IdleTimeout, maxHeader: s.MaxHeaderBytes,
		ctx: ctx, conns: map[*conn]struct{}{}, links: map[*link]struct{}{},
		pool: pool{network: network, address: address, dialer: net.Dialer{Timeout: h.opts.DialTimeout}, idleTimeout: h.opts.AppIdleTimeout},
	}
	e.apps.e = e
	return e
}

// Network takes the app's address apart: "unix:/path" is a socket's, everything else host:port.
func Network(app string) (network, address string) {
	if path, ok := strings.CutPrefix(app, "unix:"); ok {
		return "unix", path
	}
	return "tcp", app
}

// serve takes a connection over.
func (e *engine) serve(nc net.Conn) {
	c, ok := e.spare.Get().(*conn)
	if !ok {
		c = &conn{e: e, in: make([]byte, clientBuffer), pumped: make(chan struct{}, 1)}
	}
	c.nc, c.since, c.state = nc, e.h.opts.Now(), fresh
	c.peer = ""
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		c.peer = a.IP.String()
	}
	if t, ok := nc.(*tls.Conn); ok {
		if sc, ok := t.NetConn().(syscall.Conn); ok {
			c.raw, _ = sc.SyscallConn()
		}
		c.io = nc
	} else {
		if sc, ok := nc.(syscall.Conn); ok {
			c.raw, _ = sc.SyscallConn()
		}
		c.io = direct(nc, c.raw)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		_ = nc.Close()
		return
	}
	e.conns[c] = struct{}{}
	e.wg.Go(c.run)
}

// forget lets a connection go, and keeps its memory.
func (e *engine) forget(c *conn) {
	e.mu.Lock()
	delete(e.conns, c)
	e.mu.Unlock()
	in, out, req, resp := c.in, c.out, c.req, c.resp
	if len(in) > clientBuffer {
		in = make([]byte, clientBuffer)
	}
	if cap(out) > backendBuffer*2 {
		out = nil
	}
	clear(req.Fields[:cap(req.Fields)])
	clear(resp.Fields[:cap(resp.Fields)])
	kept := &conn{e: e, in: in, out: out[:0], pumped: c.pumped}
	kept.req.Fields, kept.resp.Fields = req.Fields[:0], resp.Fields[:0]
	e.spare.Put(kept)
}

// clientLink makes a link of a client's connection that speaks HTTP/2, of which ahead was read already.
func (e *engine) clientLink(c *conn, ahead []byte) *link {
	l := newLink(e, c.nc, c.io, c.raw)
	l.peer, l.secure = c.peer, c.secure
	l.greet(ahead)
	return l
}

// serveHTTP2 serves a client's link.
func (e *engine) serveHTTP2(l *link) {
	_ = l.nc.SetReadDeadline(time.Time{}) // of the time before, should it just have come
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		_ = l.nc.Close()
		return
	}
	e.links[l] = struct{}{}
	e.clients++
	e.mu.Unlock()
	l.serve()
}

// adopt serves a link to the app, unless everything is closed.
func (e *engine) adopt(l *link) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.links[l] = struct{}{}
	e.wg.Go(l.serve)
	return true
}

// drop lets a link go.
func (e *engine) drop(l *link) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.links, l)
	if !l.app {
		e.clients--
	}
}

// goAway tells clients that speak HTTP/2 to open no more streams; their connections end with those that they have.
func (e *engine) goAway() {
	var b burst
	now := e.h.opts.Now()
	e.mu.Lock()
	for l := range e.links {
		if !l.app {
			l.mu.Lock()
			l.warn(&b, now)
			l.mu.Unlock()
		}
	}
	e.mu.Unlock()
	b.flush()
}

// gone waits for the end of clients' HTTP/2 connections.
func (e *engine) gone(ctx context.Context) error {
	t := time.NewTicker(tick / 5)
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

// watch looks after the connections until done is closed.
func (e *engine) watch(done <-chan struct{}) {
	t := time.NewTicker(tick)
	defer t.Stop()
	var b burst
	var links []*link
	for {
		select {
		case <-done:
			return
		case <-t.C:
		}
		now := e.h.opts.Now()
		e.mu.Lock()
		for c := range e.conns {
			c.look(now)
		}
		links = links[:0]
		for l := range e.links {
			links = append(links, l)
		}
		e.mu.Unlock()
		for _, l := range links {
			l.look(&b, now)
		}
		b.flush()
		clear(links)
		e.pool.sweep(now)
	}
}

// closeIdle closes connections on which no request has begun to come.
func (e *engine) closeIdle() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.conns {
		c.mu.Lock()
		if c.state == idle && look(c.raw) != data {
			c.cut(closing)
		}
		c.mu.Unlock()
	}
}

// cutAll ends every connection now, and serves no other.
func (e *engine) cutAll() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for c := range e.conns {
		c.mu.Lock()
		c.cut(closing)
		c.mu.Unlock()
	}
	for l := range e.links {
		_ = l.nc.Close()
	}
}

// state is what a client's connection is at.
type state uint8

const (
	fresh     state = iota // accepted, nothing read
	idle                   // between requests
	heading                // reading a request's head
	queued                 // waiting for a place under the limit
	asking                 // the app was asked and has not begun to answer
	answering              // the answer is on its way
	tunnel                 // upgraded
	lingering              // everything is said, the client may send a while yet
)

// reason is why a connection was cut from outside its own goroutine.
type reason uint8

const (
	uncut      reason = iota
	closing           // the server closes, or the client was idle for too long
	headLate          // the head of a request did not come in time
	left              // the client left
	appLate           // the app did not begin to answer in time
	answerLate        // the answer was not complete in time
)

// look enforces the timeouts, and notices that the client left.
func (c *conn) look(now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why != uncut {
		return
	}
	opts := &c.e.h.opts
	passed := now - c.since
	switch c.state {
	case fresh, heading:
		if passed >= c.e.headerTimeout {
			c.why = headLate
			_ = c.nc.SetReadDeadline(time.Unix(1, 0))
		}
		return
	case idle:
		if passed >= c.e.idleTimeout && look(c.raw) != data {
			c.cut(closing)
		}
		return
	case tunnel, lingering:
		return
	case asking:
		if opts.ResponseTimeout > 0 && passed >= opts.ResponseTimeout {
			c.cut(appLate)
			return
		}
	case queued, answering:
	}
	if opts.RequestTimeout > 0 && c.bounded && now-c.x.arrived >= opts.RequestTimeout {
		c.cut(answerLate)
		return
	}
	if passed >= tick/2 && !c.reading && look(c.raw) == end {
		c.cut(left)
	}
}

// cut ends what the connection's goroutine waits for; it finds out why. The caller holds mu.
func (c *conn) cut(why reason) {
	if c.why == uncut {
		c.why = why
	}
	if c.cancel != nil {
		c.cancel()
	}
	if c.back != nil {
		_ = c.back.nc.Close()
	}
	switch {
	case why == closing, why == answerLate && c.state == answering:
		_ = c.nc.Close()
	case why == left && c.state == answering:
		_ = c.nc.Close()
	}
}
