package transport

import (
	"github.com/sluice-autoscaler/sluice/proxy/h2/frame"
	"github.com/sluice-autoscaler/sluice/proxy/h2/header"
	"github.com/sluice-autoscaler/sluice/proxy/request"
)

// handle handles a frame.
func (c *Conn) handle(h frame.Header, p []byte) error {
	if code := h.Check(); code != frame.NoError {
		return fault{code}
	}
	if (c.block.Stream != 0) != (h.Type == frame.Continuation) || c.block.Stream != 0 && c.block.Stream != h.Stream {
		return fault{frame.ProtocolError} // nothing may come in the middle of a header block
	}
	if !c.settingsRead && (h.Type != frame.Settings || h.Has(frame.Ack)) {
		return fault{frame.ProtocolError}
	}
	switch h.Type {
	case frame.Data:
		return c.handleData(h, p)
	case frame.Headers:
		return c.handleHeaders(h, p)
	case frame.Continuation:
		return c.readBlock(p, h.Has(frame.EndHeaders))
	case frame.Priority:
		if frame.Number(p) == h.Stream {
			return c.resetStream(h.Stream, frame.ProtocolError)
		}
	case frame.Reset:
		return c.handleReset(h.Stream, frame.Code(frame.Number(p)))
	case frame.Settings:
		if !h.Has(frame.Ack) {
			return c.handleSettings(p)
		}
	case frame.PushPromise:
		return fault{frame.ProtocolError}
	case frame.Ping:
		c.handlePing(h, p)
	case frame.GoAway:
		c.handleGoAway(frame.Number(p))
	case frame.WindowUpdate:
		return c.handleWindowUpdate(h.Stream, int64(frame.Number(p)))
	}
	return nil
}

// isIdle says whether a stream was never opened. The caller holds mu.
func (c *Conn) isIdle(id uint32) bool {
	return !c.isUnserved(id) && (id > c.lastStream || id%2 == 0)
}

// isUnserved says whether a client opened the stream after the last GOAWAY, or before it read that.
// Frames of such a stream are ignored. The caller holds mu.
func (c *Conn) isUnserved(id uint32) bool {
	return !c.Upstream && c.phase >= leaving && id > c.lastStream && id%2 == 1
}

func (c *Conn) handleData(h frame.Header, p []byte) error {
	content, _, ok := h.Content(p)
	if !ok {
		return fault{frame.ProtocolError}
	}
	c.mu.Lock()
	c.recvWindow -= int64(len(p))
	if c.recvWindow < 0 {
		c.mu.Unlock()
		return fault{frame.FlowControlError}
	}
	c.unreturned += len(p)
	c.returnWindow(&c.batch)
	s := c.streams[h.Stream]
	idle, ignored := s == nil && c.isIdle(h.Stream), s == nil && (c.isUnserved(h.Stream) || c.recent.Has(h.Stream))
	c.mu.Unlock()
	switch {
	case idle:
		return fault{frame.ProtocolError}
	case ignored:
		return nil
	case s == nil:
		return c.resetStream(h.Stream, frame.StreamClosed)
	}
	return c.streamData(s, h, content, len(p))
}

// streamData takes the content of a Data frame of n bytes on s.
func (c *Conn) streamData(s *Stream, h frame.Header, content []byte, n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.is(c, h.Stream) {
		return nil
	}
	b, end := &c.batch, h.Has(frame.EndStream)
	s.recvWindow -= int64(n)
	switch {
	case s.received:
		return c.breakStream(s, frame.StreamClosed)
	case s.recvWindow < 0:
		return c.breakStream(s, frame.FlowControlError)
	case !s.Receive(len(content), end):
		return c.breakStream(s, frame.ProtocolError)
	}
	s.exchange.Body(b, s, content, end)
	if padding := n - len(content); padding > 0 {
		s.Credit(b, padding, 0)
	}
	return nil
}

// returnWindow returns the bytes that were read to the connection's window, unless too many are
// held. The caller holds mu.
func (c *Conn) returnWindow(b *Batch) {
	step, most := clientConnWindow/4, clientHeld
	if c.Upstream {
		step, most = upstreamConnWindow/4, 1<<62
	}
	if c.unreturned >= step && c.held <= most && !c.closed {
		c.out = frame.AppendWindowUpdate(c.out, 0, uint32(c.unreturned)) //nolint:gosec // at most the window
		c.recvWindow += int64(c.unreturned)
		c.unreturned = 0
		c.addTo(b)
	}
}

func (c *Conn) handleHeaders(h frame.Header, p []byte) error {
	fragment, dependsOn, ok := h.Content(p)
	if !ok {
		return fault{frame.ProtocolError}
	}
	c.mu.Lock()
	known := c.streams[h.Stream] != nil
	c.mu.Unlock()
	role, limit := header.OfRequest, c.group.MaxHeaderBytes
	switch {
	case c.Upstream:
		role, limit = header.OfAnswer, request.MaxAnswerHead
	case known:
		role = header.OfTrailers
	}
	c.block.Begin(h.Stream, h.Has(frame.EndStream), role, limit)
	c.block.Malformed = dependsOn == h.Stream && h.Has(frame.HasPriority)
	c.decoder.SetEmitEnabled(true)
	return c.readBlock(fragment, h.Has(frame.EndHeaders))
}

// readBlock reads a part of a header block.
func (c *Conn) readBlock(p []byte, end bool) error {
	if !c.block.Spend(len(p), end) {
		return fault{frame.EnhanceYourCalm}
	}
	if _, err := c.decoder.Write(p); err != nil {
		return fault{frame.CompressionError}
	}
	if !end {
		c.mu.Lock()
		if c.blockSince == 0 {
			c.blockSince = c.group.Now()
		}
		c.mu.Unlock()
		return nil
	}
	if err := c.decoder.Close(); err != nil {
		return fault{frame.CompressionError}
	}
	id := c.block.Stream
	c.block.Stream = 0
	c.mu.Lock()
	c.blockSince = 0
	s := c.streams[id]
	c.mu.Unlock()
	switch {
	case c.Upstream:
		return c.handleAnswer(id, s)
	case s != nil:
		return c.handleTrailers(id, s)
	}
	return c.handleRequest(id)
}

// handleTrailers takes a client's trailers.
func (c *Conn) handleTrailers(id uint32, s *Stream) error {
	block := &c.block
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.is(c, id):
		return nil
	case s.received:
		return c.breakStream(s, frame.StreamClosed)
	case !block.EndStream || block.Malformed || block.Hop || block.TooLarge || !s.Receive(0, true):
		return c.breakStream(s, frame.ProtocolError)
	}
	s.exchange.Trailers(&c.batch, s, block.Fields)
	return nil
}

// handleRequest takes the head of a client's request.
func (c *Conn) handleRequest(id uint32) error {
	block := &c.block
	c.mu.Lock()
	switch {
	case c.isUnserved(id):
		c.mu.Unlock()
		return nil
	case !c.isIdle(id):
		reset := c.recent.Has(id)
		c.mu.Unlock()
		if reset {
			return nil
		}
		return fault{frame.ProtocolError}
	case id%2 == 0:
		c.mu.Unlock()
		return fault{frame.ProtocolError}
	}
	c.lastStream = id
	full := len(c.streams) >= c.maxStreams
	c.mu.Unlock()
	switch {
	case full:
		return c.resetStream(id, frame.RefusedStream)
	case block.Malformed || !block.TooLarge && !block.Hop && !block.IsRequest():
		c.group.Owner.Malformed()
		return c.resetStream(id, frame.ProtocolError)
	}
	c.group.Owner.Request(c, &c.batch, id, block)
	return nil
}

// handleAnswer takes a block of the app's: the head of an answer, interim or final, or its
// trailers.
func (c *Conn) handleAnswer(id uint32, s *Stream) error {
	if s == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.isIdle(id) {
			return fault{frame.ProtocolError}
		}
		return nil // given up before
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.is(c, id):
	case s.received:
		return c.breakStream(s, frame.StreamClosed)
	default:
		s.exchange.Answer(&c.batch, &c.block)
	}
	return nil
}

// breakStream ends the exchange of s, since the peer broke the protocol as code says. The caller
// holds the mutex of s.
func (c *Conn) breakStream(s *Stream, code frame.Code) error {
	s.exchange.Broken(&c.batch, s, code)
	return c.spendReset()
}

// resetStream resets a stream, whether or not it is open, since the peer broke the protocol as code
// says.
func (c *Conn) resetStream(id uint32, code frame.Code) error {
	c.mu.Lock()
	if s := c.streams[id]; s != nil {
		c.mu.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.is(c, id) {
			return c.breakStream(s, code)
		}
		return nil
	}
	c.recent.Note(id)
	c.out = frame.AppendReset(c.out, id, code)
	c.addTo(&c.batch)
	c.mu.Unlock()
	return c.spendReset()
}

// handleReset takes a stream that the peer has reset.
func (c *Conn) handleReset(id uint32, code frame.Code) error {
	s, err := c.find(id)
	if s == nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.is(c, id) && s.exchange.Reset(&c.batch, s, code) {
		return c.spendReset()
	}
	return nil
}

// find returns an open stream, nil for one that has ended. One that was never opened is a fault.
func (c *Conn) find(id uint32) (*Stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[id]
	if s == nil && c.isIdle(id) {
		return nil, fault{frame.ProtocolError}
	}
	return s, nil
}

// spendReset counts a stream that the client has reset before it was answered, or has made this
// side reset. Of one kind as of the other each may have cost the app a request, so that there is
// one budget for both. Beyond it the connection ends. The app has no such budget.
func (c *Conn) spendReset() error {
	if c.Upstream {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.budget.Spend(c.group.Now(), resetBurst, resetRate) {
		return fault{frame.EnhanceYourCalm}
	}
	return nil
}

func (c *Conn) handleSettings(p []byte) error {
	c.mu.Lock()
	delta := int64(0)
	for len(p) > 0 {
		var set frame.Setting
		set, p = frame.NextSetting(p)
		if code := set.Check(); code != frame.NoError {
			c.mu.Unlock()
			return fault{code}
		}
		switch set.Parameter {
		case frame.TableSize:
			c.encoder.SetTableSize(set.Value)
		case frame.InitialWindow:
			delta += int64(set.Value) - c.initialWindow
			c.initialWindow = int64(set.Value)
		case frame.MaxStreams:
			if c.Upstream {
				c.maxStreams = int(min(set.Value, 1<<30))
			}
		case frame.EnablePush, frame.MaxFrameSize, frame.MaxHeaderList:
		}
	}
	c.out = frame.AppendSettingsAck(c.out)
	c.addTo(&c.batch)
	first := !c.settingsRead
	c.settingsRead = true
	var streams []*Stream
	if delta != 0 {
		streams = c.openStreams()
	}
	c.mu.Unlock()
	err := error(nil)
	c.each(streams, func(s *Stream) {
		if s.sendWindow += delta; s.sendWindow > frame.MaxWindow {
			err = fault{frame.FlowControlError}
		}
		s.Resume(&c.batch)
	})
	if first && c.ready != nil {
		close(c.ready)
	}
	return err
}

func (c *Conn) handleWindowUpdate(id uint32, n int64) error {
	if id == 0 {
		return c.widen(n)
	}
	s, err := c.find(id)
	if s == nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.is(c, id) {
		return nil
	}
	s.sendWindow += n
	switch {
	case n == 0:
		return c.breakStream(s, frame.ProtocolError)
	case s.sendWindow > frame.MaxWindow:
		return c.breakStream(s, frame.FlowControlError)
	}
	s.Resume(&c.batch)
	return nil
}

// widen adds n bytes to what may be sent on the connection.
func (c *Conn) widen(n int64) error {
	if n == 0 {
		return fault{frame.ProtocolError}
	}
	c.mu.Lock()
	if c.sendWindow += n; c.sendWindow > frame.MaxWindow {
		c.mu.Unlock()
		return fault{frame.FlowControlError}
	}
	var waiting []*Stream
	if c.sendWindow > 0 {
		waiting, c.blocked, c.exhaustedAt = c.blocked, nil, 0
	}
	c.mu.Unlock()
	c.resume(&c.batch, waiting)
	return nil
}
