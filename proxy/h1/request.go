package h1

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/sluice-autoscaler/sluice/proxy/h1/message"
	"github.com/sluice-autoscaler/sluice/proxy/request"
)

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
		// The app may close a kept connection just as a request is sent on it; it has not seen the
		// request then.
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
		// The app needs a moment in any case. Other requests go first; often the answer is there
		// when this goroutine runs again, which saves a wait in the poller.
		runtime.Gosched()
		// A write error shows in the answer: the app may have said why it stopped reading.
		return b, nil
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
