package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sluice-autoscaler/sluice/sidecar/exposition"
	"github.com/sluice-autoscaler/sluice/sidecar/http1"
	"github.com/sluice-autoscaler/sluice/sidecar/http2"
	"github.com/sluice-autoscaler/sluice/sidecar/limit"
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

// conn is a client's connection and the exchange that runs on it. One goroutine serves it: it reads a request, asks the
// app, passes the answer on. A second one, the pump, helps while a request's body comes that is not there at once.
type conn struct {
	e    *engine
	nc   net.Conn
	io   io.ReadWriter // nc, or a shorter way to it
	raw  syscall.RawConn
	peer string // the client's address without the port; empty for who has none
	// secure says that the client came by TLS.
	secure bool

	in        []byte
	r, w      int // in[r:w] was read and not yet used
	out       []byte
	req, resp http1.Head

	mu      sync.Mutex
	state   state
	since   time.Duration // of the state
	why     reason
	back    *backend // of the exchange; closed by whoever cuts it
	cancel  context.CancelFunc
	reading bool // the pump reads from the client
	bounded bool // the total timeout holds
	x       exchange1

	// The request's body: bytes of its length still to come, or chunks.
	left       int64
	chunks     http1.Chunks
	chunked    bool
	pumping    bool
	pumped     chan struct{} // the pump has ended; capacity 1
	bodyRead   atomic.Bool   // all of the body was read from the client
	bodyFault  bool          // the body is malformed; written before pumped
	clientLeft bool          // the client left in the middle of it; likewise
}

// exchange1 is one request over HTTP/1.1 and its answer.
type exchange1 struct {
	arrived, queued time.Duration
	asked           time.Duration // the app; 0 means not yet
	responded       time.Duration
	began           time.Duration // the answer to the client
	code            int
	minor           int
	head            bool // asked by HEAD
	keep            bool // the client wants to keep the connection
	upgrade         bool
	again           bool // may be asked again when a kept connection turns out to be closed
	ignored         bool
	counted         bool
}

// turn changes the state, unless the connection was cut.
func (c *conn) turn(s state, now time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state, c.since = s, now
	return c.why == uncut
}

func (c *conn) cutWhy() reason {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.why
}

// run serves the connection to its end.
func (c *conn) run() {
	l := c.serve()
	nc := c.nc
	c.e.forget(c)
	if l == nil {
		_ = nc.Close()
		return
	}
	c.e.serveHTTP2(l)
}

// serve serves HTTP/1.1, and returns a link when it turns out that the client speaks HTTP/2.
func (c *conn) serve() *link {
	if t, ok := c.nc.(*tls.Conn); ok {
		c.secure = true
		ctx, cancel := context.WithTimeout(c.e.ctx, c.e.headerTimeout)
		err := t.HandshakeContext(ctx)
		cancel()
		if err != nil {
			return nil
		}
		if t.ConnectionState().NegotiatedProtocol == "h2" {
			return c.e.clientLink(c, nil)
		}
	}
	for first := true; ; first = false {
		n, err := c.readHead(first)
		switch {
		case errors.Is(err, errHTTP2):
			return c.e.clientLink(c, c.in[c.r:c.w])
		case err != nil:
			c.unread(err)
			return nil
		}
		if !c.exchange(n) {
			return nil
		}
		s := idle
		if c.r < c.w {
			s = heading
		}
		if !c.turn(s, c.e.h.opts.Now()) {
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
	n, err := c.io.Read(c.in[c.w:])
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
		if first && len(p) > 0 && p[0] == 'P' && string(p[:min(len(p), len(http2.Preface))]) == http2.Preface[:min(len(p), len(http2.Preface))] {
			if len(p) >= len(http2.Preface) {
				return 0, errHTTP2
			}
		} else if len(p) > 0 {
			n, next, err := http1.End(p, from)
			switch {
			case err != nil:
				return 0, err
			case n > c.e.maxHeader:
				return 0, http1.ErrTooLarge
			case n > 0:
				return n, nil
			case len(p) > c.e.maxHeader:
				return 0, http1.ErrTooLarge
			}
			from = next
		}
		had := len(p)
		if _, err := c.fill(c.e.maxHeader + 1); err != nil {
			return 0, err
		}
		if had == 0 && !c.turn(heading, c.e.h.opts.Now()) {
			return 0, net.ErrClosed
		}
	}
}

// unread ends a connection on which no request could be read.
func (c *conn) unread(err error) {
	fault, ok := errors.AsType[http1.Fault](err)
	switch {
	case ok:
		c.fault(fault)
	case c.cutWhy() == headLate && c.r < c.w:
		c.e.h.opts.Metrics.Refused(exposition.BadRequest)
		c.x = exchange1{minor: 1}
		c.answer(http.StatusRequestTimeout, "", "the headers of the request did not come in time")
		c.linger()
	}
}

// fault answers a head that is none. It is no demand, only refused: nobody can say what was asked.
func (c *conn) fault(f http1.Fault) {
	c.e.h.opts.Metrics.Refused(exposition.BadRequest)
	c.mu.Lock()
	c.x = exchange1{minor: 1}
	c.mu.Unlock()
	c.answer(f.Status(), exposition.BadRequest.String(), f.Error())
	c.linger()
}

// linger says that nothing more will come, and reads on for a while, so that the last answer is not lost.
func (c *conn) linger() {
	if !c.turn(lingering, c.e.h.opts.Now()) && c.cutWhy() != headLate {
		return
	}
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(lingerTime))
	for n := 0; n < lingerBytes; {
		m, err := c.io.Read(c.in)
		if err != nil {
			return
		}
		n += m
	}
}

// exchange serves the request whose head is the first n bytes that are buffered. It says whether another may follow.
func (c *conn) exchange(n int) bool {
	opts := &c.e.h.opts
	now := opts.Now()
	h := &c.req
	if err := h.Request(c.in[c.r : c.r+n]); err != nil {
		f, _ := errors.AsType[http1.Fault](err)
		c.fault(f)
		return false
	}
	c.r += n
	c.left, c.chunked, c.chunks = max(h.Length, 0), h.Chunked, http1.Chunks{}
	c.bodyRead.Store(!h.Chunked && h.Length <= int64(c.w-c.r))
	c.bodyFault, c.clientLeft = false, false
	method := string(h.Method) // stays on the stack
	body := h.Chunked || h.Length > 0
	c.mu.Lock()
	c.x = exchange1{
		arrived: now, minor: h.Minor, head: method == http.MethodHead,
		keep:    !h.Close && (h.Minor == 1 || h.KeepAlive),
		upgrade: h.Upgrade && h.Minor == 1 && !body && !h.Offers("h2c"),
		again:   !body && (method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions || method == http.MethodTrace),
	}
	c.bounded = !h.Chunked && !c.x.upgrade
	c.state, c.since = queued, now
	c.mu.Unlock()
	x := &c.x

	target := h.Target
	switch {
	case len(target) == len(ReadyPath) && string(target) == ReadyPath && (x.head || method == http.MethodGet):
		return c.ready()
	case c.ignored():
		opts.Metrics.Ignored()
		x.ignored = true
		return c.forward()
	}
	opts.InFlight.Begin(now)
	x.counted = true
	if method == http.MethodConnect {
		x.keep = false // what follows is meant for somewhere else
		return c.refuse(http.StatusMethodNotAllowed, "CONNECT is not supported")
	}
	if !opts.Limiter.TryAcquire() {
		if err := c.queue(); err != nil {
			switch {
			case errors.Is(err, limit.ErrFull):
				opts.Metrics.Refused(exposition.QueueFull)
				return c.refuse(http.StatusServiceUnavailable, "too many requests are waiting for the app", exposition.QueueFull)
			case errors.Is(err, limit.ErrTimeout):
				opts.Metrics.Refused(exposition.QueueTimeout)
				return c.refuse(http.StatusServiceUnavailable, "the app was busy for too long", exposition.QueueTimeout)
			default:
				return c.failed(err)
			}
		}
		x.queued = opts.Now() - x.arrived
	}
	keep := c.forward()
	opts.Limiter.Release()
	return keep
}

// queue waits for a place as long as the client does.
func (c *conn) queue() error {
	ctx, cancel := context.WithCancel(c.e.ctx)
	defer cancel()
	c.mu.Lock()
	c.cancel = cancel
	cut := c.why != uncut
	c.mu.Unlock()
	if cut {
		cancel()
	}
	err := c.e.h.opts.Limiter.Acquire(ctx)
	c.mu.Lock()
	c.cancel = nil
	c.mu.Unlock()
	return err
}

func (c *conn) ready() bool {
	opts := &c.e.h.opts
	code, reason, text := http.StatusOK, "", "ready"
	switch {
	case opts.Drain.Draining():
		code, reason, text = http.StatusServiceUnavailable, "draining", "draining"
	case opts.Check(c.e.ctx) != nil:
		code, reason, text = http.StatusServiceUnavailable, exposition.AppUnreachable.String(), "the app does not answer"
	}
	return c.finish(c.answer(code, reason, text))
}

// ignored says whether the request is no demand.
func (c *conn) ignored() bool {
	opts := &c.e.h.opts
	if agent := c.req.Get(http1.UserAgent); len(agent) > 0 {
		for _, prefix := range opts.IgnoreAgents {
			if len(agent) >= len(prefix) && string(agent[:len(prefix)]) == prefix {
				return true
			}
		}
	}
	if len(opts.IgnorePaths) == 0 {
		return false
	}
	path, _, _ := strings.Cut(string(c.req.Target), "?")
	if strings.Contains(path, "%") {
		if p, err := url.PathUnescape(path); err == nil {
			path = p
		}
	}
	return listed(opts.IgnorePaths, path)
}

// refuse answers in the app's place.
func (c *conn) refuse(code int, text string, why ...exposition.Reason) bool {
	reason := ""
	if len(why) > 0 {
		reason = why[0].String()
	}
	return c.finish(c.answer(code, reason, text))
}

// gone ends the exchange of a client that left, or that was cut.
func (c *conn) gone() bool {
	c.x.code = statusClientLeft
	if !c.x.ignored {
		c.e.h.opts.Metrics.Refused(exposition.ClientLeft)
	}
	return c.finish(false)
}

// answer sends a one-line answer of the sidecar's own, and says whether the connection can be kept.
func (c *conn) answer(code int, reason, text string) bool {
	x := &c.x
	keep := x.keep && c.skipBody() && !c.e.h.opts.Drain.Draining()
	out := append(c.out[:0], "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(code), 10)
	out = append(append(out, ' '), http.StatusText(code)...)
	out = append(out, "\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nContent-Length: "...)
	out = strconv.AppendInt(out, int64(len(text))+1, 10)
	out = append(out, "\r\n"...)
	if code == http.StatusServiceUnavailable {
		out = append(out, "Retry-After: 1\r\n"...)
	}
	if code == http.StatusMethodNotAllowed {
		out = append(out, "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"...)
	}
	if reason != "" {
		out = append(append(append(out, ReasonHeader+": "...), reason...), "\r\n"...)
	}
	out = c.e.h.appendDate(out)
	out = appendConnection(out, keep, x.minor)
	out = append(out, "\r\n"...)
	if !x.head {
		out = append(append(out, text...), '\n')
	}
	c.out = out
	x.code = code
	c.turn(answering, c.e.h.opts.Now())
	if _, err := c.io.Write(out); err != nil {
		return false
	}
	if !keep {
		c.account()
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

// finish ends the exchange's accounting.
func (c *conn) finish(keep bool) bool {
	c.account()
	return keep
}

func (c *conn) account() {
	x := &c.x
	if !x.counted {
		return
	}
	x.counted = false
	opts := &c.e.h.opts
	now := opts.Now()
	overhead := time.Duration(-1)
	if x.asked > 0 && x.began >= x.responded && x.responded > 0 {
		overhead = x.asked - x.arrived - x.queued + x.began - x.responded
	}
	if x.code == 0 {
		x.code = http.StatusBadGateway
	}
	opts.Metrics.Finished(x.code, now-x.arrived, overhead)
	opts.InFlight.End(now) // last: what is no longer in flight was counted
}

// forward asks the app and passes its answer on.
func (c *conn) forward() bool {
	opts := &c.e.h.opts
	x := &c.x
	c.appendRequest()
	inline := c.bodyRead.Load()
	if inline {
		c.out = append(c.out, c.in[c.r:c.r+int(c.left)]...)
		c.r += int(c.left)
		c.left = 0
	}
	x.asked = opts.Now()
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
		if x.again && b.used && try == 0 && b.r == b.w && errors.Is(err, errNoAnswer) && c.cutWhy() == uncut {
			c.release(b, false)
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
func (c *conn) ask(anew bool) (*backend, error) {
	for {
		var b *backend
		if !anew {
			b = c.e.pool.get(c.x.asked)
		}
		if b == nil {
			var err error
			if b, err = c.e.pool.dial(c.e.ctx); err != nil {
				return nil, err
			}
		}
		c.mu.Lock()
		cut := c.why != uncut
		if !cut {
			c.back, c.state, c.since = b, asking, c.x.asked
		}
		c.mu.Unlock()
		if cut {
			_ = b.nc.Close()
			return nil, net.ErrClosed
		}
		n, err := b.io.Write(c.out)
		if err != nil && n == 0 && b.used {
			c.release(b, false)
			continue // not a byte went out
		}
		// The app needs a moment at any rate: requests that wait to be passed on go first, and often the answer is there
		// when this one is looked at again, which saves the wait for it.
		runtime.Gosched()
		return b, nil // a write error shows in the answer: the app may have said why it reads no more
	}
}

// release ends the exchange's use of the connection to the app.
func (c *conn) release(b *backend, reuse bool) {
	c.mu.Lock()
	c.back = nil
	cut := c.why != uncut
	c.mu.Unlock()
	if reuse && !cut && b.r == b.w {
		c.e.pool.put(b, c.e.h.opts.Now())
	} else {
		_ = b.nc.Close()
	}
}

// readAnswer reads the head of the final answer into resp, and passes interim ones on.
func (c *conn) readAnswer(b *backend) error {
	from := 0
	for {
		p := b.buffered()
		if len(p) > 0 {
			n, next, err := http1.End(p, from)
			switch {
			case err != nil:
				return err
			case n > 0:
				if err := c.resp.Response(p[:n]); err != nil {
					return err
				}
				b.r += n
				if c.resp.Code >= 200 || c.resp.Code == http.StatusSwitchingProtocols {
					c.x.responded = c.e.h.opts.Now()
					if c.resp.Code == http.StatusSwitchingProtocols && !c.x.upgrade {
						return errors.New("an upgrade that was not asked for")
					}
					return nil
				}
				if c.x.minor == 1 {
					if err := c.passInterim(); err != nil {
						return err
					}
				}
				from = 0
				continue
			}
			from = next
		}
		n, err := b.fill(maxResponseHeader)
		switch {
		case err != nil && len(p) == 0:
			return errNoAnswer
		case err != nil:
			return err
		case n == 0:
			return http1.ErrTooLarge
		}
	}
}

// failed answers for an app that did not, and ends the exchange.
func (c *conn) failed(err error) bool {
	opts := &c.e.h.opts
	if b := c.back; b != nil {
		c.release(b, false)
	}
	c.stopPump()
	why := c.cutWhy()
	switch {
	case why == left, why == closing, c.clientLeft, why == uncut && c.e.ctx.Err() != nil:
		return c.gone()
	case c.bodyFault:
		c.refused(exposition.BadRequest)
		return c.refuse(http.StatusBadRequest, "the body of the request is malformed", exposition.BadRequest)
	case why == appLate:
		c.refused(exposition.AppTimeout)
		return c.refuse(http.StatusGatewayTimeout, "the app did not begin to answer in time", exposition.AppTimeout) && c.revive()
	case why == answerLate:
		c.refused(exposition.AppTimeout)
		return c.refuse(http.StatusGatewayTimeout, "the answer was not complete in time", exposition.AppTimeout) && c.revive()
	}
	opts.Log.DebugContext(c.e.ctx, "app did not answer", slog.Any("error", err))
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		c.refused(exposition.AppUnreachable)
		return c.refuse(http.StatusBadGateway, "the app accepts no connection", exposition.AppUnreachable)
	}
	c.refused(exposition.AppError)
	return c.refuse(http.StatusBadGateway, "the app closed the connection or broke the protocol", exposition.AppError)
}

func (c *conn) refused(why exposition.Reason) {
	if !c.x.ignored {
		c.e.h.opts.Metrics.Refused(why)
	}
}

// revive makes a connection whose exchange was cut, but which was answered, fit for the next one.
func (c *conn) revive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why == appLate || c.why == answerLate {
		c.why = uncut
	}
	return c.why == uncut
}

// passInterim passes a 1xx answer on.
func (c *conn) passInterim() error {
	out := appendStatus(c.out[:0], &c.resp)
	for i := range c.resp.Fields {
		if f := &c.resp.Fields[i]; f.Kind != http1.Connection && f.Kind != http1.HopByHop && f.Kind != http1.TransferEncoding && f.Kind != http1.ContentLength && !c.resp.Named(f) {
			out = appendField(out, f)
		}
	}
	c.out = append(out, "\r\n"...)
	_, err := c.io.Write(c.out)
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
	opts, x, h, b := &c.e.h.opts, &c.x, &c.resp, c.back
	frame := byClose
	switch {
	case x.head || h.Code == http.StatusNoContent || h.Code == http.StatusNotModified:
		frame = noBody
	case h.Chunked:
		frame = byChunks
	case h.Length >= 0:
		frame = byLength
	}
	reuse := frame != byClose && !h.Close && (h.Minor == 1 || h.KeepAlive)
	keep := x.keep && !opts.Drain.Draining() && c.bodyRead.Load() &&
		(frame == noBody || frame == byLength || x.minor == 1)
	x.code = h.Code
	c.mu.Lock()
	c.state = answering
	// A stream's length nobody knows, and its time neither.
	c.bounded = c.bounded && (frame == byLength || frame == noBody)
	ok := c.why == uncut
	c.mu.Unlock()
	if !ok {
		return c.failed(net.ErrClosed)
	}
	c.appendResponse(frame, keep)
	var err error
	switch frame {
	case noBody:
		_, err = c.io.Write(c.out)
		x.began = opts.Now()
	case byLength:
		err = c.passLength(b, h.Length)
	case byChunks:
		err = c.passChunks(b)
	case byClose:
		err = c.passToEnd(b)
	}
	whole := err == nil
	sent := c.endPump(b, whole)
	c.release(b, whole && reuse && sent)
	if !whole {
		if x.minor == 0 { // the close is the end there: only a reset tells of a cut
			if t, ok := c.nc.(*net.TCPConn); ok {
				_ = t.SetLinger(0)
			}
		}
		return c.finish(false)
	}
	if c.cutWhy() != uncut {
		return c.finish(false)
	}
	c.account()
	if !keep && !c.bodyRead.Load() || !keep && c.r < c.w {
		c.linger()
	}
	return keep
}

// passLength passes a body of n bytes on, together with the head that is in out.
func (c *conn) passLength(b *backend, n int64) error {
	have := min(int64(b.w-b.r), n)
	c.out = append(c.out, b.in[b.r:b.r+int(have)]...)
	b.r += int(have)
	n -= have
	_, err := c.io.Write(c.out)
	c.x.began = c.e.h.opts.Now()
	for err == nil && n > 0 {
		if n >= spliceFrom {
			return c.splice(c.nc, b.nc, n)
		}
		var m int
		b.r, b.w = 0, 0
		if m, err = b.io.Read(b.in[:min(int64(len(b.in)), n)]); m > 0 {
			n -= int64(m)
			if _, werr := c.io.Write(b.in[:m]); werr != nil {
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
func (c *conn) passChunks(b *backend) error {
	chunks := http1.Chunks{Plain: c.x.minor == 0}
	for {
		p := b.buffered()
		keep, used, done, err := chunks.Step(p)
		if len(c.out) > 0 {
			c.out = append(c.out, p[:keep]...)
			if _, werr := c.io.Write(c.out); werr != nil {
				return werr
			}
			c.out = c.out[:0]
			c.x.began = c.e.h.opts.Now()
		} else if keep > 0 {
			if _, werr := c.io.Write(p[:keep]); werr != nil {
				return werr
			}
		}
		b.r += used
		if done || err != nil {
			return err
		}
		if n, err := b.fill(backendBuffer * 2); err != nil {
			return io.ErrUnexpectedEOF
		} else if n == 0 {
			return http1.ErrTooLarge
		}
	}
}

// passToEnd passes a body on that ends with the connection: in chunks, or as it is to HTTP/1.0.
func (c *conn) passToEnd(b *backend) error {
	for {
		if p := b.buffered(); len(p) > 0 {
			if c.x.minor == 1 {
				c.out = strconv.AppendInt(c.out, int64(len(p)), 16)
				c.out = append(append(append(c.out, "\r\n"...), p...), "\r\n"...)
			} else {
				c.out = append(c.out, p...)
			}
			b.r = b.w
		}
		if len(c.out) > 0 {
			if _, err := c.io.Write(c.out); err != nil {
				return err
			}
			c.out = c.out[:0]
			if c.x.began == 0 {
				c.x.began = c.e.h.opts.Now()
			}
		}
		if _, err := b.fill(backendBuffer); errors.Is(err, io.EOF) {
			if c.x.minor == 1 {
				_, err = io.WriteString(c.io, "0\r\n\r\n")
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
	go c.pump(c.back)
}

// pump passes the request's body on.
func (c *conn) pump(b *backend) {
	var rerr, werr error
	if c.chunked {
		rerr, werr = c.pumpChunks(b)
	} else {
		rerr, werr = c.pumpLength(b)
	}
	c.mu.Lock()
	c.reading = false
	mine := c.why == uncut || c.why == left
	c.mu.Unlock()
	if rerr != nil {
		if _, ok := errors.AsType[http1.Fault](rerr); ok {
			c.bodyFault = true
		} else if mine && !errors.Is(rerr, errStopped) {
			c.clientLeft = true
		}
		_ = b.nc.Close() // the app must not take what came for the whole
	}
	_ = werr // the app reads no more: its answer tells why
	c.pumped <- struct{}{}
}

var errStopped = errors.New("stopped")

func (c *conn) pumpLength(b *backend) (rerr, werr error) {
	for {
		if have := min(int64(c.w-c.r), c.left); have > 0 {
			p := c.in[c.r : c.r+int(have)]
			c.r += int(have)
			if c.left -= have; c.left == 0 {
				c.ended()
			}
			if _, err := b.io.Write(p); err != nil {
				return nil, err
			}
		}
		if c.left == 0 {
			return nil, nil
		}
		if c.left >= spliceFrom {
			n := c.left
			// All but the last byte: what has come whole is known before the app has it whole.
			m, err := io.Copy(b.nc, &io.LimitedReader{R: c.nc, N: n - 1})
			c.left -= m
			switch {
			case err != nil && look(c.raw) == end: // the error does not say of which side it is
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

func (c *conn) pumpChunks(b *backend) (rerr, werr error) {
	for {
		p := c.in[c.r:c.w]
		keep, used, done, err := c.chunks.Step(p)
		c.r += used
		if done {
			c.ended()
		}
		if keep > 0 && err == nil {
			if _, err := b.io.Write(p[:keep]); err != nil {
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
			return http1.ErrTooLarge, nil
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
func (c *conn) endPump(b *backend, whole bool) bool {
	if !c.pumping {
		return true
	}
	if whole && c.bodyRead.Load() {
		_ = b.nc.SetWriteDeadline(time.Now().Add(pumpWait))
		<-c.pumped
		c.pumping = false
		return !c.bodyFault && b.nc.SetWriteDeadline(time.Time{}) == nil && look(b.raw) == nothing
	}
	c.release(b, false)
	c.stopPump()
	return false
}

// stopPump ends the pump; the connection to the app is closed already.
func (c *conn) stopPump() {
	if !c.pumping {
		return
	}
	_ = c.nc.SetReadDeadline(time.Unix(1, 0))
	<-c.pumped
	c.pumping = false
	_ = c.nc.SetReadDeadline(time.Time{})
}

// tunnel passes bytes both ways after a 101 answer, until both sides have ended.
func (c *conn) tunnel() bool {
	b := c.back
	out := appendStatus(c.out[:0], &c.resp)
	for i := range c.resp.Fields {
		if f := &c.resp.Fields[i]; f.Kind != http1.Connection && f.Kind != http1.HopByHop && f.Kind != http1.TransferEncoding && f.Kind != http1.ContentLength && !c.resp.Named(f) {
			out = appendField(out, f)
		}
	}
	out = append(out, "Connection: Upgrade\r\n\r\n"...)
	c.out = append(out, b.buffered()...)
	b.r = b.w
	c.x.code = http.StatusSwitchingProtocols
	c.turn(tunnel, c.e.h.opts.Now())
	_, err := c.io.Write(c.out)
	c.x.began = c.e.h.opts.Now()
	up := make(chan struct{})
	go func() {
		defer close(up)
		if _, err := b.io.Write(c.in[c.r:c.w]); err == nil {
			if _, err = io.Copy(b.nc, c.nc); err == nil && closeWrite(b.nc) == nil {
				return
			}
		}
		_ = b.nc.Close()
	}()
	if err == nil {
		_, err = io.Copy(c.nc, b.nc)
	}
	if err == nil && closeWrite(c.nc) == nil {
		_ = c.nc.SetReadDeadline(time.Now().Add(tunnelEnd))
	} else {
		_ = c.nc.Close()
	}
	<-up
	c.release(b, false)
	return c.finish(false)
}

func closeWrite(nc net.Conn) error {
	if half, ok := nc.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nc.Close()
}
