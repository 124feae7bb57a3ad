package h1

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strconv"
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

// serveRequest serves the request whose head is the first n bytes that are buffered. It says
// whether another may follow.
func (c *conn) serveRequest(n int) bool {
	r := c.e.Rules
	now := r.Now()
	h := &c.req
	if err := h.Request(c.in[c.r : c.r+n]); err != nil {
		c.refuseHead(err)
		return false
	}
	c.r += n
	method := string(h.Method) // stays on the stack
	c.begin(method, now)
	x := &c.x
	kind := request.KindOf(r, method, h.Target, h.Get(message.UserAgent))
	x.Count(r, kind)
	switch kind {
	case request.Readiness:
		return c.finish(c.answer(r.Ready(c.e.ctx)))
	case request.Ignored:
		return c.forward()
	case request.Connect:
		c.keep = false // what follows is meant for somewhere else
		return c.refuse(request.ConnectMethod)
	case request.Demand:
	}
	if !x.TakePlace(r) {
		if err := c.queue(); err != nil {
			if f, ok := request.LimitFailure(err); ok {
				return c.refuse(f)
			}
			return c.failed(err)
		}
		x.GotPlace(r.Now())
	}
	return c.forward()
}

// begin readies the connection for the request in req, which arrived now.
func (c *conn) begin(method string, now time.Duration) {
	h := &c.req
	c.left, c.chunked, c.chunks = max(h.Length, 0), h.Chunked, message.Chunks{}
	c.bodyRead.Store(!h.Chunked && h.Length <= int64(c.w-c.r))
	c.bodyFault, c.clientLeft = false, false
	body := h.Chunked || h.Length > 0
	c.minor, c.headOnly = h.Minor, method == http.MethodHead
	c.keep = !h.Close && (h.Minor == 1 || h.KeepAlive)
	c.upgrade = h.Upgrade && h.Minor == 1 && !body && !h.Offers("h2c")
	c.replayable = !body && request.Replayable(method)
	c.mu.Lock()
	c.x = request.Account{Arrived: now}
	c.bounded = !h.Chunked && !c.upgrade
	c.state, c.since = queued, now
	c.mu.Unlock()
}

// queue waits for a place as long as the client does.
func (c *conn) queue() error {
	ctx, cancel := context.WithCancel(c.e.ctx)
	defer cancel()
	c.mu.Lock()
	c.cancel = cancel
	cut := c.cause != uncut
	c.mu.Unlock()
	if cut {
		cancel()
	}
	err := c.e.Rules.Limiter.Acquire(ctx)
	c.mu.Lock()
	c.cancel = nil
	c.mu.Unlock()
	return err
}

// refuse answers in the app's place.
func (c *conn) refuse(f request.Failure) bool {
	return c.finish(c.answer(c.x.Fail(c.e.Rules, f)))
}

// answer sends an answer of the proxy's own, and says whether the connection can be kept.
func (c *conn) answer(a request.Answer) bool {
	keep := c.keep && c.skipBody() && !c.e.Rules.Drain.Draining()
	out := append(c.out[:0], "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(a.Code), 10)
	out = append(append(append(out, ' '), http.StatusText(a.Code)...), "\r\n"...)
	var fields [request.Fields]request.Field
	for _, f := range a.AppendFields(fields[:0]) {
		out = append(append(append(append(out, f.Name...), ": "...), f.Value...), "\r\n"...)
	}
	out = c.appendDate(out)
	out = appendConnection(out, keep, c.minor)
	out = append(out, "\r\n"...)
	if !c.headOnly {
		out = append(append(out, a.Text...), '\n')
	}
	c.out = out
	c.x.Code, c.x.Own = a.Code, true
	c.enter(answering, c.e.Rules.Now())
	if _, err := c.IO.Write(out); err != nil {
		return false
	}
	if !keep {
		c.x.Finish(c.e.Rules)
		c.linger()
	}
	return keep
}

// skipBody leaves a body behind that is buffered as a whole, and says whether it was.
func (c *conn) skipBody() bool {
	if !c.bodyRead.Load() || c.pumping {
		return false
	}
	c.r += int(c.left)
	c.left = 0
	return true
}

// finish ends the request's account.
func (c *conn) finish(keep bool) bool {
	c.x.Finish(c.e.Rules)
	return keep
}

// forward asks the app and passes its answer on.
func (c *conn) forward() bool {
	c.appendRequest()
	inline := c.bodyRead.Load()
	if inline {
		c.out = append(c.out, c.in[c.r:c.r+int(c.left)]...)
		c.r += int(c.left)
		c.left = 0
	}
	c.x.Asked = c.e.Rules.Now()
	for try := 0; ; try++ {
		b, err := c.ask(try > 0)
		if err != nil {
			return c.failed(err)
		}
		if !inline && !c.pumping {
			c.startPump()
		}
		err = c.readAnswer(b)
		if err == nil {
			break
		}
		// A kept connection that the app closes just as a request is sent on it says nothing of the request.
		if c.replayable && b.used && try == 0 && b.r == b.w && errors.Is(err, errNoAnswer) && c.cutCause() == uncut {
			c.releaseUpstream(b, false)
			continue
		}
		return c.failed(err)
	}
	if c.resp.Code == http.StatusSwitchingProtocols {
		return c.tunnel()
	}
	return c.passAnswer()
}

// errNoAnswer says that the app closed the connection before the first byte of an answer.
var errNoAnswer = errors.New("the connection was closed before an answer")

// ask sends the request's head, and the body that is with it, to the app.
func (c *conn) ask(anew bool) (*upstreamConn, error) {
	for {
		var b *upstreamConn
		if !anew {
			b = c.e.pool.get(c.x.Asked)
		}
		if b == nil {
			var err error
			if b, err = c.e.pool.dial(c.e.ctx); err != nil {
				return nil, err
			}
		}
		c.mu.Lock()
		cut := c.cause != uncut
		if !cut {
			c.upstream, c.state, c.since = b, asking, c.x.Asked
		}
		c.mu.Unlock()
		if cut {
			_ = b.Net.Close()
			return nil, net.ErrClosed
		}
		n, err := b.IO.Write(c.out)
		if err != nil && n == 0 && b.used {
			c.releaseUpstream(b, false)
			continue // not a byte went out
		}
		// The app needs a moment at any rate: requests that wait to be passed on go first, and often the answer is there
		// when this one is looked at again, which saves the wait for it.
		runtime.Gosched()
		return b, nil // a write error shows in the answer: the app may have said why it reads no more
	}
}

// releaseUpstream ends the request's use of the connection to the app.
func (c *conn) releaseUpstream(b *upstreamConn, reuse bool) {
	c.mu.Lock()
	c.upstream = nil
	cut := c.cause != uncut
	c.mu.Unlock()
	if reuse && !cut && b.r == b.w {
		c.e.pool.put(b, c.e.Rules.Now())
	} else {
		_ = b.Net.Close()
	}
}

// readAnswer reads the head of the final answer into resp, and passes interim ones on.
func (c *conn) readAnswer(b *upstreamConn) error {
	from := 0
	for {
		p := b.buffered()
		if len(p) > 0 {
			n, next, err := message.End(p, from)
			switch {
			case err != nil:
				return err
			case n > 0:
				if err := c.resp.Response(p[:n]); err != nil {
					return err
				}
				b.r += n
				if c.resp.Code >= 200 || c.resp.Code == http.StatusSwitchingProtocols {
					c.x.Responded = c.e.Rules.Now()
					if c.resp.Code == http.StatusSwitchingProtocols && !c.upgrade {
						return errors.New("an upgrade that was not asked for")
					}
					return nil
				}
				if c.minor == 1 {
					if err := c.passInterim(); err != nil {
						return err
					}
				}
				from = 0
				continue
			}
			from = next
		}
		n, err := b.fill(request.MaxAnswerHead)
		switch {
		case err != nil && len(p) == 0:
			return errNoAnswer
		case err != nil:
			return err
		case n == 0:
			return message.ErrTooLarge
		}
	}
}

// failed answers for an app that did not, and ends the request.
func (c *conn) failed(err error) bool {
	r := c.e.Rules
	if b := c.upstream; b != nil {
		c.releaseUpstream(b, false)
	}
	c.stopPump()
	why := c.cutCause()
	switch {
	case why == clientGone, why == closing, c.clientLeft, why == uncut && c.e.ctx.Err() != nil:
		c.x.Leave(r)
		return c.finish(false)
	case c.bodyFault:
		return c.refuse(request.MalformedBody)
	case why == answerLate:
		return c.refuse(request.LateAnswer) && c.revive()
	case why == answerTooLong:
		return c.refuse(request.UnfinishedAnswer) && c.revive()
	}
	r.Log.DebugContext(c.e.ctx, "app did not answer", slog.Any("error", err))
	return c.refuse(request.UpstreamFailure(err))
}

// revive makes a connection whose exchange was cut, but which was answered, fit for the next one.
func (c *conn) revive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == answerLate || c.cause == answerTooLong {
		c.cause = uncut
	}
	return c.cause == uncut
}

// passInterim passes a 1xx answer on.
func (c *conn) passInterim() error {
	out := appendStatus(c.out[:0], &c.resp)
	for i := range c.resp.Fields {
		if f := &c.resp.Fields[i]; f.Kind != message.Connection && f.Kind != message.HopByHop && f.Kind != message.TransferEncoding && f.Kind != message.ContentLength && !c.resp.Named(f) {
			out = appendField(out, f)
		}
	}
	c.out = append(out, "\r\n"...)
	_, err := c.IO.Write(c.out)
	return err
}

// framing is how the end of an answer is told.
type framing uint8

const (
	noBody framing = iota
	byLength
	byChunks
	byClose
)

// passAnswer passes the final answer on.
func (c *conn) passAnswer() bool {
	r, x, h, b := c.e.Rules, &c.x, &c.resp, c.upstream
	frame := byClose
	switch {
	case request.Bodyless(c.headOnly, h.Code):
		frame = noBody
	case h.Chunked:
		frame = byChunks
	case h.Length >= 0:
		frame = byLength
	}
	reuse := frame != byClose && !h.Close && (h.Minor == 1 || h.KeepAlive)
	keep := c.keep && !r.Drain.Draining() && c.bodyRead.Load() &&
		(frame == noBody || frame == byLength || c.minor == 1)
	x.Code = h.Code
	c.mu.Lock()
	c.state = answering
	// A stream's length nobody knows, and its time neither.
	c.bounded = c.bounded && (frame == byLength || frame == noBody)
	ok := c.cause == uncut
	c.mu.Unlock()
	if !ok {
		return c.failed(net.ErrClosed)
	}
	c.appendResponse(frame, keep)
	var err error
	switch frame {
	case noBody:
		_, err = c.IO.Write(c.out)
		x.Began = r.Now()
	case byLength:
		err = c.passLength(b, h.Length)
	case byChunks:
		err = c.passChunks(b)
	case byClose:
		err = c.passToEnd(b)
	}
	whole := err == nil
	sent := c.endPump(b, whole)
	c.releaseUpstream(b, whole && reuse && sent)
	if !whole {
		if c.minor == 0 { // the close is the end there: only a reset tells of a cut
			if t, ok := c.Net.(*net.TCPConn); ok {
				_ = t.SetLinger(0)
			}
		}
		return c.finish(false)
	}
	if c.cutCause() != uncut {
		return c.finish(false)
	}
	x.Finish(r)
	if !keep && !c.bodyRead.Load() || !keep && c.r < c.w {
		c.linger()
	}
	return keep
}

// passLength passes a body of n bytes on, together with the head that is in out.
func (c *conn) passLength(b *upstreamConn, n int64) error {
	have := min(int64(b.w-b.r), n)
	c.out = append(c.out, b.in[b.r:b.r+int(have)]...)
	b.r += int(have)
	n -= have
	_, err := c.IO.Write(c.out)
	c.x.Began = c.e.Rules.Now()
	for err == nil && n > 0 {
		if n >= spliceFrom {
			return c.splice(c.Net, b.Net, n)
		}
		var m int
		b.r, b.w = 0, 0
		if m, err = b.IO.Read(b.in[:min(int64(len(b.in)), n)]); m > 0 {
			n -= int64(m)
			if _, werr := c.IO.Write(b.in[:m]); werr != nil {
				return werr
			}
			err = nil
		}
	}
	return err
}

// spliceFrom is the number of bytes from which the kernel is asked to move them.
const spliceFrom = 64 << 10

// splice moves n bytes, through the kernel where it can.
func (c *conn) splice(to, from net.Conn, n int64) error {
	l := io.LimitedReader{R: from, N: n}
	m, err := io.Copy(to, &l)
	if err == nil && m < n {
		return io.ErrUnexpectedEOF
	}
	return err
}

// passChunks passes a chunked body on, together with the head that is in out.
func (c *conn) passChunks(b *upstreamConn) error {
	chunks := message.Chunks{Plain: c.minor == 0}
	for {
		p := b.buffered()
		keep, used, done, err := chunks.Step(p)
		if len(c.out) > 0 {
			c.out = append(c.out, p[:keep]...)
			if _, werr := c.IO.Write(c.out); werr != nil {
				return werr
			}
			c.out = c.out[:0]
			c.x.Began = c.e.Rules.Now()
		} else if keep > 0 {
			if _, werr := c.IO.Write(p[:keep]); werr != nil {
				return werr
			}
		}
		b.r += used
		if done || err != nil {
			return err
		}
		if n, err := b.fill(upstreamBuffer * 2); err != nil {
			return io.ErrUnexpectedEOF
		} else if n == 0 {
			return message.ErrTooLarge
		}
	}
}

// passToEnd passes a body on that ends with the connection: in chunks, or as it is to HTTP/1.0.
func (c *conn) passToEnd(b *upstreamConn) error {
	for {
		if p := b.buffered(); len(p) > 0 {
			if c.minor == 1 {
				c.out = strconv.AppendInt(c.out, int64(len(p)), 16)
				c.out = append(append(append(c.out, "\r\n"...), p...), "\r\n"...)
			} else {
				c.out = append(c.out, p...)
			}
			b.r = b.w
		}
		if len(c.out) > 0 {
			if _, err := c.IO.Write(c.out); err != nil {
				return err
			}
			c.out = c.out[:0]
			if c.x.Began == 0 {
				c.x.Began = c.e.Rules.Now()
			}
		}
		if _, err := b.fill(upstreamBuffer); errors.Is(err, io.EOF) {
			if c.minor == 1 {
				_, err = io.WriteString(c.IO, "0\r\n\r\n")
				return err
			}
			return nil
		} else if err != nil {
			return err
		}
	}
}

// startPump lets the rest of the request's body go to the app while the answer is waited for.
func (c *conn) startPump() {
	c.mu.Lock()
	c.reading = true
	c.mu.Unlock()
	c.pumping = true
	go c.pump(c.upstream)
}

// pump passes the request's body on.
func (c *conn) pump(b *upstreamConn) {
	var rerr, werr error
	if c.chunked {
		rerr, werr = c.pumpChunks(b)
	} else {
		rerr, werr = c.pumpLength(b)
	}
	c.mu.Lock()
	c.reading = false
	mine := c.cause == uncut || c.cause == clientGone
	c.mu.Unlock()
	if rerr != nil {
		if _, ok := errors.AsType[message.Fault](rerr); ok {
			c.bodyFault = true
		} else if mine && !errors.Is(rerr, errStopped) {
			c.clientLeft = true
		}
		_ = b.Net.Close() // the app must not take what came for the whole
	}
	_ = werr // the app reads no more: its answer tells why
	c.pumped <- struct{}{}
}

var errStopped = errors.New("stopped")

func (c *conn) pumpLength(b *upstreamConn) (rerr, werr error) {
	for {
		if have := min(int64(c.w-c.r), c.left); have > 0 {
			p := c.in[c.r : c.r+int(have)]
			c.r += int(have)
			if c.left -= have; c.left == 0 {
				c.ended()
			}
			if _, err := b.IO.Write(p); err != nil {
				return nil, err
			}
		}
		if c.left == 0 {
			return nil, nil
		}
		if c.left >= spliceFrom {
			n := c.left
			// All but the last byte: what has come whole is known before the app has it whole.
			m, err := io.Copy(b.Net, &io.LimitedReader{R: c.Net, N: n - 1})
			c.left -= m
			switch {
			case err != nil && c.Peek() == socket.End: // the error does not say of which side it is
				return c.readError(err), nil
			case err != nil:
				return nil, err
			case m < n-1:
				return io.ErrUnexpectedEOF, nil
			}
		}
		if _, err := c.fill(bodyBuffer); err != nil {
			return c.readError(err), nil
		}
	}
}

func (c *conn) pumpChunks(b *upstreamConn) (rerr, werr error) {
	for {
		p := c.in[c.r:c.w]
		keep, used, done, err := c.chunks.Step(p)
		c.r += used
		if done {
			c.ended()
		}
		if keep > 0 && err == nil {
			if _, err := b.IO.Write(p[:keep]); err != nil {
				return nil, err
			}
		}
		if done || err != nil {
			return err, nil
		}
		n, err := c.fill(bodyBuffer)
		if err != nil {
			return c.readError(err), nil
		}
		if n == 0 {
			return message.ErrTooLarge, nil
		}
	}
}

// ended notes that all of the body was read from the client.
func (c *conn) ended() {
	c.mu.Lock()
	c.reading = false
	c.mu.Unlock()
	c.bodyRead.Store(true)
}

// readError tells an end that stopPump made from one that the client made.
func (c *conn) readError(err error) error {
	if nerr, ok := errors.AsType[net.Error](err); ok && nerr.Timeout() {
		return errStopped
	}
	return err
}

// endPump waits for the pump after the answer, and says whether all of the body went to the app.
func (c *conn) endPump(b *upstreamConn, whole bool) bool {
	if !c.pumping {
		return true
	}
	if whole && c.bodyRead.Load() {
		_ = b.Net.SetWriteDeadline(time.Now().Add(pumpWait))
		<-c.pumped
		c.pumping = false
		return !c.bodyFault && b.Net.SetWriteDeadline(time.Time{}) == nil && b.Peek() == socket.Nothing
	}
	c.releaseUpstream(b, false)
	c.stopPump()
	return false
}

// stopPump ends the pump; the connection to the app is closed already.
func (c *conn) stopPump() {
	if !c.pumping {
		return
	}
	_ = c.Net.SetReadDeadline(time.Unix(1, 0))
	<-c.pumped
	c.pumping = false
	_ = c.Net.SetReadDeadline(time.Time{})
}

// tunnel passes bytes both ways after a 101 answer, until both sides have ended.
func (c *conn) tunnel() bool {
	b := c.upstream
	out := appendStatus(c.out[:0], &c.resp)
	for i := range c.resp.Fields {
		if f := &c.resp.Fields[i]; f.Kind != message.Connection && f.Kind != message.HopByHop && f.Kind != message.TransferEncoding && f.Kind != message.ContentLength && !c.resp.Named(f) {
			out = appendField(out, f)
		}
	}
	out = append(out, "Connection: Upgrade\r\n\r\n"...)
	c.out = append(out, b.buffered()...)
	b.r = b.w
	c.x.Code = http.StatusSwitchingProtocols
	c.enter(tunneling, c.e.Rules.Now())
	_, err := c.IO.Write(c.out)
	c.x.Began = c.e.Rules.Now()
	up := make(chan struct{})
	go func() {
		defer close(up)
		if _, err := b.IO.Write(c.in[c.r:c.w]); err == nil {
			if _, err = io.Copy(b.Net, c.Net); err == nil && b.CloseWrite() == nil {
				return
			}
		}
		_ = b.Net.Close()
	}()
	if err == nil {
		_, err = io.Copy(c.Net, b.Net)
	}
	if err == nil && c.CloseWrite() == nil {
		_ = c.Net.SetReadDeadline(time.Now().Add(tunnelEnd))
	} else {
		_ = c.Net.Close()
	}
	<-up
	c.releaseUpstream(b, false)
	return c.finish(false)
}
