package h1

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-autoscaler/sluice/proxy/h1/message"
	"github.com/sluice-autoscaler/sluice/proxy/h2/frame"
	"github.com/sluice-autoscaler/sluice/proxy/request"
	"github.com/sluice-autoscaler/sluice/proxy/socket"
)

const (
	clientBuffer = 4 << 10 // what a connection begins with; heads and bodies in chunks make it grow
	bodyBuffer   = 16 << 10
	// lingerTime and lingerBytes bound what is read from a client after its last answer: a close with bytes unread
	// would reset the connection, and the answer might be lost with it.
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 256 << 10
	// pumpWait is how long the rest of a request's body may take to the app when the answer is complete already.
	pumpWait = 50 * time.Millisecond
	// tunnelEnd is how long a client may keep its side of an upgraded connection open after the app has closed its own.
	tunnelEnd = 30 * time.Second
)

// conn is a client's connection and the request that runs on it. One goroutine serves it: it reads a
// request, asks the app, passes the answer on. A second one, the pump, helps while a request's body
// comes that is not there at once.
type conn struct {
	socket.Client
	e *Engine

	in        []byte
	r, w      int // in[r:w] was read and not yet used
	out       []byte
	req, resp message.Head

	mu       sync.Mutex
	state    state
	since    time.Duration // of the state
	cause    cause
	upstream *upstreamConn // of the request; closed by whoever cuts it
	cancel   context.CancelFunc
	reading  bool // the pump reads from the client
	bounded  bool // the total timeout holds
	x        request.Account

	// What is known of the request.
	minor      int  // x of HTTP/1.x
	headOnly   bool // asked by HEAD
	keep       bool // the client wants to keep the connection
	upgrade    bool
	replayable bool // may be sent again when a kept connection turns out to be closed

	// The request's body: bytes of its length still to come, or chunks.
	left       int64
	chunks     message.Chunks
	chunked    bool
	pumping    bool
	pumped     chan struct{} // the pump has ended; capacity 1
	bodyRead   atomic.Bool   // all of the body was read from the client
	bodyFault  bool          // the body is malformed; written before pumped
	clientLeft bool          // the client left in the middle of it; likewise
}

// enter changes the state, unless the connection was cut.
func (c *conn) enter(s state, now time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state, c.since = s, now
	return c.cause == uncut
}

func (c *conn) cutCause() cause {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// run serves the connection to its end.
func (c *conn) run() {
	serveHTTP2 := c.serve()
	nc := c.Net
	c.e.release(c)
	if serveHTTP2 == nil {
		_ = nc.Close()
		return
	}
	serveHTTP2()
}

// serve serves HTTP/1.1. When it turns out that the client speaks HTTP/2 it returns what serves
// that.
func (c *conn) serve() (serveHTTP2 func()) {
	if t, ok := c.Net.(*tls.Conn); ok {
		ctx, cancel := context.WithTimeout(c.e.ctx, c.e.HeaderTimeout)
		err := t.HandshakeContext(ctx)
		cancel()
		if err != nil {
			return nil
		}
		if t.ConnectionState().NegotiatedProtocol == "h2" {
			return c.e.HTTP2(c.Client, nil)
		}
	}
	for first := true; ; first = false {
		n, err := c.readHead(first)
		switch {
		case errors.Is(err, errHTTP2):
			return c.e.HTTP2(c.Client, c.in[c.r:c.w])
		case err != nil:
			c.refuseHead(err)
			return nil
		}
		if !c.serveRequest(n) {
			return nil
		}
		s := idle
		if c.r < c.w {
			s = readingHead
		}
		if !c.enter(s, c.e.Rules.Now()) {
			return nil
		}
	}
}

var errHTTP2 = errors.New("HTTP/2")

// fill reads more from the client behind what is buffered; when the buffer is full it grows, up to limit bytes. A full
// buffer at its limit gives 0 and no error.
func (c *conn) fill(limit int) (int, error) {
	switch {
	case c.r == c.w:
		c.r, c.w = 0, 0
	case c.w == len(c.in) && c.r > 0:
		c.w = copy(c.in, c.in[c.r:c.w])
		c.r = 0
	}
	if c.w == len(c.in) {
		if len(c.in) >= limit {
			return 0, nil
		}
		c.in = append(c.in, make([]byte, min(len(c.in), limit-len(c.in)))...)
	}
	n, err := c.IO.Read(c.in[c.w:])
	c.w += n
	if n > 0 {
		err = nil // an error comes again
	}
	return n, err
}

// readHead reads until a whole head is buffered and returns its length.
func (c *conn) readHead(first bool) (int, error) {
	from, blank := 0, false
	for {
		p := c.in[c.r:c.w]
		if !blank && len(p) >= 2 && p[0] == '\r' && p[1] == '\n' {
			c.r += 2 // one empty line before a request is to be ignored (RFC 9112, 2.2)
			blank = true
			continue
		}
		if first && len(p) > 0 && p[0] == 'P' && string(p[:min(len(p), len(frame.Preface))]) == frame.Preface[:min(len(p), len(frame.Preface))] {
			if len(p) >= len(frame.Preface) {
				return 0, errHTTP2
			}
		} else if len(p) > 0 {
			n, next, err := message.End(p, from)
			switch {
			case err != nil:
				return 0, err
			case n > c.e.MaxHeaderBytes:
				return 0, message.ErrTooLarge
			case n > 0:
				return n, nil
			case len(p) > c.e.MaxHeaderBytes:
				return 0, message.ErrTooLarge
			}
			from = next
		}
		had := len(p)
		if _, err := c.fill(c.e.MaxHeaderBytes + 1); err != nil {
			return 0, err
		}
		if had == 0 && !c.enter(readingHead, c.e.Rules.Now()) {
			return 0, net.ErrClosed
		}
	}
}

// refuseHead ends a connection on which no request could be read. What came is no demand, only
// refused: nobody can say what was asked.
func (c *conn) refuseHead(err error) {
	fault, ok := errors.AsType[message.Fault](err)
	var a request.Answer
	switch {
	case ok:
		a = request.Answer{Code: fault.Status(), Reason: request.BadRequest.String(), Text: fault.Error()}
	case c.cutCause() == headLate && c.r < c.w:
		a = request.LateHead.Answer()
	default:
		return
	}
	c.e.Rules.Metrics.Refused(request.BadRequest)
	c.mu.Lock()
	c.x = request.Account{}
	c.mu.Unlock()
	c.minor, c.headOnly, c.keep = 1, false, false
	c.answer(a)
	c.linger()
}

// linger says that nothing more will come, and reads on for a while, so that the last answer is not lost.
func (c *conn) linger() {
	if !c.enter(lingering, c.e.Rules.Now()) && c.cutCause() != headLate {
		return
	}
	if c.CloseWrite() != nil {
		return
	}
	_ = c.Net.SetReadDeadline(time.Now().Add(lingerTime))
	for n := 0; n < lingerBytes; {
		m, err := c.IO.Read(c.in)
		if err != nil {
			return
		}
		n += m
	}
}
