package transport

import (
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/sluice-autoscaler/sluice/proxy/h2/frame"
	"github.com/sluice-autoscaler/sluice/proxy/h2/header"
	"github.com/sluice-autoscaler/sluice/proxy/h2/queue"
)

// Exchange is a request and its answer: what a Stream belongs to. Its methods are called with the
// mutex held that Stream.Init was given.
type Exchange interface {
	// Body takes a part of the body that came on s; end says that it is the last.
	Body(b *Batch, s *Stream, p []byte, end bool)
	// Trailers takes the fields that end what a client sends on s.
	Trailers(b *Batch, s *Stream, fields []hpack.HeaderField)
	// Answer takes a header block of the app's: the head of an answer, interim or final, or
	// trailers.
	Answer(b *Batch, block *header.Block)
	// Broken ends the exchange because the peer of s broke the protocol, as code says.
	Broken(b *Batch, s *Stream, code frame.Code)
	// Reset takes a reset by the peer of s. It says whether the client had got no answer yet.
	Reset(b *Batch, s *Stream, code frame.Code) (unanswered bool)
	// Lost takes the end of the connection of s.
	Lost(b *Batch, s *Stream)
	// Passed says that n bytes went out that had waited on s.
	Passed(b *Batch, s *Stream, n int)
	// Sent says that everything was sent on s, its end included.
	Sent(b *Batch, s *Stream)
	// Check enforces the timeouts.
	Check(b *Batch, now time.Duration)
}

// Stream is an HTTP/2 stream, one side of an Exchange, whose mutex guards it. Init makes it. It is
// reused for one exchange after another.
type Stream struct {
	exchange Exchange
	mu       *sync.Mutex // of the exchange
	group    *Group

	conn       *Conn // nil: not open, or closed
	id         uint32
	sendWindow int64 // what may be sent to the peer
	recvWindow int64 // what the peer may send
	unreturned int   // passed on, and not yet given back to the peer's window
	length     int64 // what the peer has still to send by its content-length; −1: unknown
	received   bool  // the peer has sent all
	sent       bool  // all was sent to the peer
	blocked    bool  // in conn.blocked

	// What waits to be sent to the peer.
	queue    queue.Queue
	end      bool // the end comes after queue
	trailers []hpack.HeaderField
}

// Init makes s a stream of x, whose mutex is mu, for the whole life of s.
func (s *Stream) Init(g *Group, x Exchange, mu *sync.Mutex) {
	s.group, s.exchange, s.mu = g, x, mu
}

// Renew readies s, which is not open, for a new exchange. end says that nothing follows the head
// that it will be opened with.
func (s *Stream) Renew(end bool) {
	s.conn, s.id, s.length = nil, 0, -1
	s.sendWindow, s.recvWindow, s.unreturned = 0, 0, 0
	s.received, s.sent, s.blocked, s.end, s.trailers = false, false, false, end, nil
}

// Restart readies s, which was closed, to be opened once more, with p as the whole of what is to be
// sent after the head and before the end.
func (s *Stream) Restart(p []byte) {
	end, trailers := s.end, s.trailers
	s.queue.Clear(&s.group.chunks)
	s.Renew(end)
	s.trailers = trailers
	s.queue.Push(&s.group.chunks, p)
}

// Conn is the connection that the stream is open on, nil for none.
func (s *Stream) Conn() *Conn { return s.conn }

// Received says whether the peer has sent all, Sent whether everything was sent to the peer.
func (s *Stream) Received() bool { return s.received }

// Sent says whether everything was sent to the peer.
func (s *Stream) Sent() bool { return s.sent }

// Waiting is how many bytes wait to be sent.
func (s *Stream) Waiting() int { return s.queue.Len() }

// Expect notes the length of the body that the peer has announced, −1 for none.
func (s *Stream) Expect(length int64) { s.length = length }

// Receive reckons with n bytes of a body, of which end says whether they are the last. It is false
// when they do not agree with the announced length.
func (s *Stream) Receive(n int, end bool) bool {
	if s.length >= 0 {
		s.length -= int64(n)
		if s.length < 0 || end && s.length > 0 {
			return false
		}
	}
	s.received = s.received || end
	return true
}

// is says whether s is stream id of c, still.
func (s *Stream) is(c *Conn, id uint32) bool { return s.conn == c && s.id == id }

// MarkAnswered notes that the peer of the stream's connection has answered.
func (s *Stream) MarkAnswered() {
	s.conn.mu.Lock()
	s.conn.answered = true
	s.conn.mu.Unlock()
}

// SendHead sends the head of an answer; date is for a final one without a Date. With end nothing
// follows.
func (s *Stream) SendHead(b *Batch, code int, fields []hpack.HeaderField, date string, end bool) {
	c := s.conn
	c.mu.Lock()
	if !c.closed {
		c.out = c.encoder.AppendAnswer(c.out, s.id, code, fields, date, end)
		c.addTo(b)
	}
	c.mu.Unlock()
	s.sent = s.sent || end
}

// Send sends p behind what waits, and with end the end of the stream. What has no room in the
// windows and on the connection waits. It says how much of p went out at once.
func (s *Stream) Send(b *Batch, p []byte, end bool) (n int) {
	s.end = s.end || end
	if s.conn != nil && s.queue.Len() == 0 && (len(p) > 0 || end) {
		n = s.put(b, p, end)
	}
	if n < len(p) {
		s.queue.Push(&s.group.chunks, p[n:])
	}
	return n
}

// SendTrailers ends the stream by trailers, behind what waits.
func (s *Stream) SendTrailers(b *Batch, fields []hpack.HeaderField) {
	s.end = true
	if s.conn != nil && s.queue.Len() == 0 {
		s.finish(b, fields)
		return
	}
	s.trailers = slices.Clone(fields)
}

// put sends as much of p as fits in the windows and in the connection's room, and says how much
// that was. With last, the stream ends with p.
func (s *Stream) put(b *Batch, p []byte, last bool) (n int) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return len(p) // to nobody; the connection's reader ends the stream
	}
	for !s.sent && (n < len(p) || last) {
		k := len(p) - n
		if k > 0 {
			k = int(min(int64(k), frame.MaxFrame, s.sendWindow, c.sendWindow, int64(outRoom-len(c.out)-c.writing)))
			if k <= 0 {
				if s.sendWindow > 0 && !s.blocked {
					s.blocked = true
					c.blocked = append(c.blocked, s)
				}
				break
			}
		}
		var flags frame.Flags
		if last && n+k == len(p) {
			flags, s.sent = frame.EndStream, true
		}
		c.out = append(frame.AppendHeader(c.out, k, frame.Data, flags, s.id), p[n:n+k]...)
		s.sendWindow -= int64(k)
		if c.sendWindow -= int64(k); c.sendWindow <= 0 && k > 0 {
			c.exhaustedAt = max(c.group.Now(), 1)
		}
		n += k
		c.addTo(b)
	}
	if s.blocked {
		c.addTo(b) // the flush that makes room lets it go on
	}
	return n
}

// Resume sends what waits, as far as it goes.
func (s *Stream) Resume(b *Batch) {
	if s.conn == nil || s.blocked {
		return
	}
	n := 0
	for s.queue.Len() > 0 {
		p := s.queue.Front()
		k := s.put(b, p, s.end && len(p) == s.queue.Len() && s.trailers == nil)
		s.queue.Drop(&s.group.chunks, k)
		if n += k; k < len(p) {
			break
		}
	}
	if n > 0 {
		s.exchange.Passed(b, s, n)
	}
	switch {
	case s.end && s.queue.Len() == 0 && !s.sent:
		s.finish(b, s.trailers)
	case s.sent:
		s.exchange.Sent(b, s)
	}
}

// finish ends what is sent, by trailers if there are any; nothing waits.
func (s *Stream) finish(b *Batch, trailers []hpack.HeaderField) {
	if trailers == nil {
		s.put(b, nil, true)
	} else {
		c := s.conn
		c.mu.Lock()
		if !c.closed {
			c.out = c.encoder.AppendTrailers(c.out, s.id, trailers)
			c.addTo(b)
		}
		c.mu.Unlock()
	}
	s.sent = true
	s.exchange.Sent(b, s)
}

// Hold counts n bytes that came on the stream and wait on the other side of the exchange.
func (s *Stream) Hold(n int) {
	if c := s.conn; c != nil {
		c.mu.Lock()
		c.held += n
		c.mu.Unlock()
	}
}

// Credit returns n bytes to the peer's window, since they were passed on. Hold had counted held of
// them.
func (s *Stream) Credit(b *Batch, n, held int) {
	c := s.conn
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if held > 0 {
		c.held -= held
		c.returnWindow(b)
	}
	if s.received || c.closed {
		return
	}
	step := clientWindow / 4
	if c.Upstream {
		step = upstreamWindow / 4
	}
	if s.unreturned += n; s.unreturned >= step {
		c.out = frame.AppendWindowUpdate(c.out, s.id, uint32(s.unreturned)) //nolint:gosec // at most the window
		s.recvWindow += int64(s.unreturned)
		s.unreturned = 0
		c.addTo(b)
	}
}

// Close takes the stream off its connection; held of what came on it is still held.
func (s *Stream) Close(b *Batch, held int) {
	c := s.conn
	if c == nil {
		return
	}
	s.conn = nil
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held -= held
	if delete(c.streams, s.id); len(c.streams) == 0 {
		c.blocked = nil
		if c.phase < announced {
			c.since = c.group.Now()
		}
	}
	c.returnWindow(b)
	c.closeIfDone(b)
}

// Reset resets the stream, if it is open, and closes it.
func (s *Stream) Reset(b *Batch, code frame.Code, held int) {
	c := s.conn
	if c == nil {
		return
	}
	c.mu.Lock()
	if !c.closed {
		c.recent.Note(s.id)
		c.out = frame.AppendReset(c.out, s.id, code)
		c.addTo(b)
	}
	c.mu.Unlock()
	s.Close(b, held)
}

// Discard drops what waits.
func (s *Stream) Discard() {
	s.queue.Clear(&s.group.chunks)
	s.trailers = nil
}
