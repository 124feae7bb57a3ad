package transport

import (
	"time"

	"github.com/sluice-autoscaler/sluice/proxy/h2/frame"
)

// cancelPing is the payload of the ping behind a reset of the app's. Frames are handled in order,
// so its acknowledgement shows that the app has read the reset.
const cancelPing = "canceled"

// cancelled counts the streams to the app that were reset and that the app may still work on. A
// client that opens streams and cancels them would otherwise have the app work on more requests
// than the limit allows.
type cancelled struct {
	asked   int           // those before the ping that is under way
	next    int           // those after it
	askedAt time.Duration // when the ping was sent
}

// Cancel is Reset for a stream to the app, after which Owner.Cancelled is called for it: when the
// app has read the reset, or the connection has ended. It says whether that is so; otherwise there
// was no stream to reset.
func (s *Stream) Cancel(b *Batch, code frame.Code, held int) bool {
	c := s.conn
	if c == nil {
		return false
	}
	c.mu.Lock()
	waits := !c.closed
	c.mu.Unlock()
	s.Reset(b, code, held)
	if !waits {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed { // meanwhile
		return false
	}
	if c.cancelled.next++; c.cancelled.asked == 0 {
		c.nextCancelled(b)
	}
	return true
}

// nextCancelled ends the wait for the streams that were asked for, asks for the next ones if there
// are any, and returns how many the former were. The caller holds mu.
func (c *Conn) nextCancelled(b *Batch) (read int) {
	read = c.cancelled.asked
	c.cancelled = cancelled{asked: c.cancelled.next, askedAt: c.group.Now()}
	if c.cancelled.asked > 0 && !c.closed {
		c.out = frame.AppendPing(c.out, 0, []byte(cancelPing))
		c.addTo(b)
	}
	return read
}

// tellCancelled tells the owner of streams whose resets the app has read. The caller does not hold
// mu.
func (c *Conn) tellCancelled(n int) {
	if n > 0 {
		c.group.Owner.Cancelled(n)
	}
}
