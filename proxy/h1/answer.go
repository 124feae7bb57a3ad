package h1

import (
	"errors"
	"io"
	"net"
	"strconv"

	"github.com/sluice-autoscaler/sluice/proxy/h1/message"
	"github.com/sluice-autoscaler/sluice/proxy/request"
)

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
	c.out = append(c.appendInterim(), "\r\n"...)
	_, err := c.IO.Write(c.out)
	return err
}

// appendInterim writes the head of a 1xx answer to out, without the fields that end here and without
// its last line.
func (c *conn) appendInterim() []byte {
	out := appendStatus(c.out[:0], &c.resp)
	for i := range c.resp.Fields {
		f := &c.resp.Fields[i]
		switch f.Kind {
		case message.Connection, message.HopByHop, message.TransferEncoding, message.ContentLength:
			continue
		default:
			if !c.resp.Named(f) {
				out = appendField(out, f)
			}
		}
	}
	return out
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
