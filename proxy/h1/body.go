package h1

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/sluice-autoscaler/sluice/proxy/h1/message"
	"github.com/sluice-autoscaler/sluice/proxy/socket"
)

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
