package transport

import (
	"errors"
	"time"

	"github.com/sluice-autoscaler/sluice/proxy/h2/frame"
)

// announcePing is the payload of the ping behind the first GOAWAY. Its acknowledgement shows that
// the client has read both.
const announcePing = "draining"

func (c *Conn) handlePing(h frame.Header, p []byte) {
	read := 0
	defer func() { c.tellCancelled(read) }() // without mu
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.Has(frame.Ack) {
		switch {
		case c.phase == announced && string(p) == announcePing:
			c.sendLastGoAway(&c.batch)
		case c.cancelled.asked > 0 && string(p) == cancelPing:
			read = c.nextCancelled(&c.batch)
		}
		return
	}
	if !c.closed {
		c.out = frame.AppendPing(c.out, frame.Ack, p)
		c.addTo(&c.batch)
	}
}

// AnnounceGoAway sends the first GOAWAY to a client: it should open no more streams. The last
// GOAWAY follows when the client has acknowledged it.
func (c *Conn) AnnounceGoAway(b *Batch, now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase != running || c.closed {
		return
	}
	c.phase, c.since = announced, now
	c.out = frame.AppendGoAway(c.out, frame.MaxStream, frame.NoError)
	c.out = frame.AppendPing(c.out, 0, []byte(announcePing))
	c.addTo(b)
}

// sendLastGoAway sends the GOAWAY that names the last stream. The caller holds mu.
func (c *Conn) sendLastGoAway(b *Batch) {
	if c.phase >= leaving || c.closed {
		return
	}
	c.phase = leaving
	c.out = frame.AppendGoAway(c.out, c.lastOfPeer(), frame.NoError)
	c.addTo(b)
	c.closeIfDone(b)
}

// lastOfPeer is the newest stream that the peer has opened; the app opens none. The caller holds
// mu.
func (c *Conn) lastOfPeer() uint32 {
	if c.Upstream {
		return 0
	}
	return c.lastStream
}

// closeIfDone closes a connection that opens no more streams and has none. The caller holds mu.
func (c *Conn) closeIfDone(b *Batch) {
	if c.phase == leaving && len(c.streams) == 0 {
		c.phase, c.since = finishing, c.group.Now()
		c.addTo(b)
	}
}

// handleGoAway handles the app's GOAWAY: it has worked on no stream past last, and takes no more.
func (c *Conn) handleGoAway(last uint32) {
	if !c.Upstream {
		return // what it has opened is answered
	}
	c.mu.Lock()
	if c.phase < leaving {
		c.phase = leaving
	}
	var refused []*Stream
	for id, s := range c.streams {
		if id > last {
			refused = append(refused, s)
		}
	}
	c.closeIfDone(&c.batch)
	c.mu.Unlock()
	c.group.Owner.Retired(c)
	c.each(refused, func(s *Stream) { s.exchange.Reset(&c.batch, s, frame.RefusedStream) })
}

// end ends the streams of the connection, and sends a GOAWAY with the code if the peer broke the
// protocol.
func (c *Conn) end(err error) {
	f, guilty := errors.AsType[fault](err)
	c.mu.Lock()
	if guilty && !c.closed {
		c.out = frame.AppendGoAway(c.out, c.lastOfPeer(), f.Code)
	}
	c.closed = true
	c.phase = max(c.phase, finishing)
	streams := c.openStreams()
	read := c.cancelled.asked + c.cancelled.next
	c.cancelled = cancelled{}
	c.addTo(&c.batch)
	c.mu.Unlock()
	c.tellCancelled(read)
	c.group.Owner.Retired(c)
	c.each(streams, func(s *Stream) { s.exchange.Lost(&c.batch, s) })
	c.batch.Flush()
	if guilty {
		c.linger()
	}
	_ = c.Net.Close()
	if c.ready != nil && !c.settingsRead {
		close(c.ready)
	}
	c.group.Owner.Closed(c)
}
