// Package h1 serves HTTP/1.1 to clients and asks the app by it, without an allocation for a request.
package h1

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/proxy/request"
	"github.com/sluice-autoscaler/sluice/proxy/socket"
)

// Tick is how often Look should be called: the resolution of timeouts, and of the notice that a
// client left while its request runs.
const Tick = 50 * time.Millisecond

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
	// HTTP2 takes a connection over whose client turned out to speak HTTP/2, and of which ahead was
	// read already. It returns what serves the connection to its end, and keeps nothing of ahead.
	HTTP2 func(c socket.Client, ahead []byte) (serve func())
}

// Engine serves connections, a goroutine each. One more goroutine calls Look for all of them: what
// is rare, such as timeouts and clients that leave, costs a single request nothing. New makes it;
// it is safe for concurrent use.
type Engine struct {
	Config
	pool upstreamPool
	ctx  context.Context //nolint:containedctx // of all requests: it ends when the server cuts them

	mu     sync.Mutex
	conns  map[*conn]struct{}
	closed bool // nothing is served any more
	wg     sync.WaitGroup
	spare  sync.Pool // of *conn: memory of connections that have ended
}

// New returns an Engine whose requests are cut when ctx ends. It starts nothing.
func New(ctx context.Context, cfg Config) *Engine {
	return &Engine{
		Config: cfg, ctx: ctx, conns: map[*conn]struct{}{},
		pool: upstreamPool{network: cfg.Network, address: cfg.Address, dialer: net.Dialer{Timeout: cfg.DialTimeout}, idleTimeout: cfg.UpstreamIdleTimeout},
	}
}

// Serve takes a client's connection over, and returns at once.
func (e *Engine) Serve(nc net.Conn) {
	c, ok := e.spare.Get().(*conn)
	if !ok {
		c = &conn{e: e, in: make([]byte, clientBuffer), pumped: make(chan struct{}, 1)}
	}
	c.Client, c.since, c.state = socket.NewClient(nc), e.Rules.Now(), fresh
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		_ = nc.Close()
		return
	}
	e.conns[c] = struct{}{}
	e.wg.Go(c.run)
}

// release lets a connection go, and keeps its memory.
func (e *Engine) release(c *conn) {
	e.mu.Lock()
	delete(e.conns, c)
	e.mu.Unlock()
	in, out, req, resp := c.in, c.out, c.req, c.resp
	if len(in) > clientBuffer {
		in = make([]byte, clientBuffer)
	}
	if cap(out) > upstreamBuffer*2 {
		out = nil
	}
	clear(req.Fields[:cap(req.Fields)])
	clear(resp.Fields[:cap(resp.Fields)])
	kept := &conn{e: e, in: in, out: out[:0], pumped: c.pumped}
	kept.req.Fields, kept.resp.Fields = req.Fields[:0], resp.Fields[:0]
	e.spare.Put(kept)
}

// Look enforces the timeouts of all connections, and notices clients that left.
func (e *Engine) Look(now time.Duration) {
	e.mu.Lock()
	for c := range e.conns {
		c.look(now)
	}
	e.mu.Unlock()
	e.pool.sweep(now)
}

// CloseIdle closes connections on which no request has begun to come.
func (e *Engine) CloseIdle() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.conns {
		c.mu.Lock()
		if c.state == idle && c.Peek() != socket.Data {
			c.cut(closing)
		}
		c.mu.Unlock()
	}
}

// Cut ends every connection now, and serves no other.
func (e *Engine) Cut() {
	e.pool.close()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for c := range e.conns {
		c.mu.Lock()
		c.cut(closing)
		c.mu.Unlock()
	}
}

// Wait waits until every connection has ended, those that HTTP2 took over included.
func (e *Engine) Wait() { e.wg.Wait() }

// state is what a client's connection is at.
type state uint8

const (
	fresh       state = iota // accepted, nothing read
	idle                     // between requests
	readingHead              // of a request
	queued                   // waiting for a place under the limit
	asking                   // the app was asked and has not begun to answer
	answering                // the answer is on its way
	tunneling                // upgraded
	lingering                // everything is said, the client may send a while yet
)

// cause is why a connection was cut from outside its own goroutine.
type cause uint8

const (
	uncut         cause = iota
	closing             // the server closes, or the client was idle for too long
	headLate            // the head of a request did not come in time
	clientGone          // the client left
	answerLate          // the app did not begin to answer in time
	answerTooLong       // the answer was not complete in time
)

// look enforces the timeouts, and notices that the client left.
func (c *conn) look(now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != uncut {
		return
	}
	r := c.e.Rules
	passed := now - c.since
	switch c.state {
	case fresh, readingHead:
		if passed >= c.e.HeaderTimeout {
			c.cause = headLate
			_ = c.Net.SetReadDeadline(time.Unix(1, 0))
		}
		return
	case idle:
		if passed >= c.e.IdleTimeout && c.Peek() != socket.Data {
			c.cut(closing)
		}
		return
	case tunneling, lingering:
		return
	case asking:
		if r.AnswerLate(c.since, now) {
			c.cut(answerLate)
			return
		}
	case queued, answering:
	}
	if c.bounded && r.RequestLate(c.x.Arrived, now) {
		c.cut(answerTooLong)
		return
	}
	if passed >= Tick/2 && !c.reading && c.Peek() == socket.End {
		c.cut(clientGone)
	}
}

// cut ends what the connection's goroutine waits for; it finds out why. The caller holds mu.
func (c *conn) cut(why cause) {
	if c.cause == uncut {
		c.cause = why
	}
	if c.cancel != nil {
		c.cancel()
	}
	if c.upstream != nil {
		_ = c.upstream.Net.Close()
	}
	switch {
	case why == closing, why == answerTooLong && c.state == answering:
		_ = c.Net.Close()
	case why == clientGone && c.state == answering:
		_ = c.Net.Close()
	}
}
