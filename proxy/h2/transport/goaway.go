package transport

import (
	"errors"
	"time"

	"github.com/sluice-autoscaler/sluice/proxy/h2/frame"
)

// announcePing is the payload of the ping whose answer shows that a client has heard of the coming
// end.
const announcePing = "draining"

func (c *Conn) handlePing(h frame.Header, p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.Has(frame.Ack) {
		if c.phase == announced && string(p) == announcePing {
			c.sendLastGoAway(&c.batch)
		}
		return
	}
	if !c.closed {
		c.out = frame.AppendPing(c.out, frame.Ack, p)
		c.addTo(&c.batch)
	}
}

// AnnounceGoAway tells a client that the connection is to end: it should open no more streams. The
// last GOAWAY follows when it has heard.
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

// sendLastGoAway tells the peer which stream was the last. The caller holds mu.
func (c *Conn) sendLastGoAway(b *Batch) {
	if c.phase >= leaving || c.closed {
		return
	}
	c.phase = leaving
	c.out = frame.AppendGoAway(c.out, c.lastOfPeer(), frame.NoError)
	c.addTo(b)
	c.closeIfDone(b)
}

// lastOfPeer is the newest stream that the peer has opened; the app opens none. The caller holds mu.
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

// handleGoAway takes a peer's announcement that it has worked on no stream past last, and takes no
// more.
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

// end ends what depends on the connection, and tells the peer why if it was at fault.
func (c *Conn) end(err error) {
	f, guilty := errors.AsType[fault](err)
	c.mu.Lock()
	if guilty && !c.closed {
		c.out = frame.AppendGoAway(c.out, c.lastOfPeer(), f.Code)
	}
	c.closed = true
	c.phase = max(c.phase, finishing)
	streams := c.openStreams()
	c.addTo(&c.batch)
	c.mu.Unlock()
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
