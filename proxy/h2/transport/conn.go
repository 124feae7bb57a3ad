// Package transport holds HTTP/2 connections, to clients and to the app: frames, streams, windows,
// settings, resets and GOAWAY (RFC 9113). What a request means is its user's, who implements Owner
// and Exchange.
package transport

import (
	"io"
	"net"
	"runtime"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/sluice-autoscaler/sluice/proxy/h2/frame"
	"github.com/sluice-autoscaler/sluice/proxy/h2/header"
	"github.com/sluice-autoscaler/sluice/proxy/h2/queue"
	"github.com/sluice-autoscaler/sluice/proxy/h2/reset"
	"github.com/sluice-autoscaler/sluice/proxy/request"
	"github.com/sluice-autoscaler/sluice/proxy/socket"
)

const (
	// maxClientStreams is how many streams a client may have open on one connection: a gateway or
	// mesh may bring all its requests on one.
	maxClientStreams = 1000
	// clientWindow is what a client may send on a stream before it is passed on, clientConnWindow
	// on a connection, in bytes. clientHeld is how much of a connection's may wait for the app
	// before the connection's window is left to run out: up to there no stream whose body the app
	// does not read stops another one.
	clientWindow     = 256 << 10
	clientConnWindow = 1 << 20
	clientHeld       = 3 << 20
	// upstreamWindow is what the app may send on a stream before the client takes it. The window of
	// its connection is given back at once, since other clients' answers come on it.
	upstreamWindow     = frame.FirstWindow
	upstreamConnWindow = 16 << 20
	// outRoom is how much may wait to be written to a connection before bodies wait at their
	// streams, outMost how much of other frames before the connection is given up: its peer asks
	// for answers and does not read them.
	outRoom = 64 << 10
	outMost = 4 << 20
	// smallBuffer is what is read at once where there are small frames only, largeBuffer elsewhere.
	smallBuffer = 4 << 10
	largeBuffer = 32 << 10
	// announceTime is how long a client may take to acknowledge the first GOAWAY before the last
	// one is sent.
	announceTime = time.Second
	// resetBurst and resetRate bound how many streams a client may reset before they were answered,
	// or make this side reset, at once and per second: each may have cost the app a request.
	resetBurst = 2 * maxClientStreams
	resetRate  = 500
	// finishTime is how long a peer may take to read what was said last.
	finishTime = 5 * time.Second
	// lingerTime and lingerBytes bound what is read from a peer after the last frame to it: a close
	// with bytes unread would reset the connection, and that frame might be lost with it.
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 256 << 10
	// bufferTime is how long a connection without streams keeps its buffers for writing.
	bufferTime = time.Second
	// cancelTime is how long the app may take to show that it has read a reset, before it counts as
	// having read it.
	cancelTime = 5 * time.Second
)

// Owner makes connections and serves the requests that come on them.
type Owner interface {
	// Request begins the request whose head is in block, on a new stream of a client's connection.
	// The connection's reader calls it; b and block are the reader's.
	Request(c *Conn, b *Batch, id uint32, block *header.Block)
	// Malformed counts a request that could not be read.
	Malformed()
	// Cancelled says that the app has read the resets of n streams that were reset by Cancel.
	Cancelled(n int)
	// Retired says that no new stream may be opened on c, or will come on it.
	Retired(c *Conn)
	// Closed says that c has ended.
	Closed(c *Conn)
}

// Group is what the connections of one Owner share. Its fields are set before the first connection;
// then it is safe for concurrent use.
type Group struct {
	Owner Owner
	// Now is the time since some start, monotonic.
	Now func() time.Duration
	// HeaderTimeout bounds the time for settings and header blocks. IdleTimeout closes clients'
	// connections without a stream, UpstreamIdleTimeout the app's.
	HeaderTimeout, IdleTimeout, UpstreamIdleTimeout time.Duration
	// MaxHeaderBytes bounds the fields of a request.
	MaxHeaderBytes int
	// CheckExchanges has Look check the exchanges of clients' streams.
	CheckExchanges bool

	wg      sync.WaitGroup
	chunks  queue.Pool
	buffers sync.Pool // of *[largeBuffer]byte
}

// Go runs f in a goroutine that Wait waits for.
func (g *Group) Go(f func()) { g.wg.Go(f) }

// Wait waits for the goroutines of all connections.
func (g *Group) Wait() { g.wg.Wait() }

// Conn is an HTTP/2 connection, to a client or to the app. One goroutine reads it and handles its
// frames, on connections of the other side as well: it appends frames to their buffers, and flushes
// them before it reads again. So many small frames go out by one write, and no frame waits for
// another goroutine.
//
// No peer can block a reader, because a reader never waits for a write. Frames that the network
// does not take wait in out, bounded by outRoom. Data without room there waits at its stream,
// bounded by the window of the stream that it came from.
//
// Of the locks, an exchange's is taken before a connection's, and never two of one kind.
type Conn struct {
	socket.Client
	// Upstream says that the peer is the app.
	Upstream bool
	// Assigned is, for a client, the connection to the app that its requests go by, and Clients,
	// for the app, how many clients' connections it is assigned to. They are the Owner's, who
	// guards them.
	Assigned *Conn
	Clients  int

	group *Group

	// The reader's own.
	in      []byte // small, or while there are streams a large one
	small   []byte
	r, w    int // in[r:w] was read and not yet used
	decoder *hpack.Decoder
	block   header.Block
	batch   Batch
	ready   chan struct{} // of the app: closed with its first settings, or when there will be none

	mu        sync.Mutex
	out       []byte // frames to be written
	spare     []byte
	encoder   *header.Encoder
	writing   int // bytes that have left out and are being written
	isWriting bool
	inBatch   bool // a Batch holds the connection
	closed    bool // nothing goes out any more

	sendWindow, initialWindow int64 // what may be sent, on the connection and on a new stream
	recvWindow                int64 // what the peer may send
	unreturned                int   // bytes read and not given back to the peer's window
	held                      int   // bytes that came and wait on the other side of their exchanges
	streams                   map[uint32]*Stream
	blocked                   []*Stream     // have data, and neither window nor room
	lastStream                uint32        // the newest
	maxStreams                int           // how many may be open
	answered                  bool          // the app has answered here
	exhaustedAt               time.Duration // since when sendWindow is exhausted; 0: it is not
	settingsRead              bool          // the peer's settings have come
	phase                     phase
	since                     time.Duration // of the phase, or without a stream
	blockSince                time.Duration // since when a header block is incomplete; 0: none is
	recent                    reset.Recent  // streams that this side has reset
	budget                    reset.Budget  // of resets that count against the client
	cancelled                 cancelled
}

// phase is how far a connection is on the way to its end.
type phase uint8

const (
	running   phase = iota
	announced       // a first GOAWAY was sent: the client should open no more streams
	leaving         // opens no more; ends with the last stream
	finishing       // to be closed when all is written
	finished        // its sending side is closed
)

// fault is an error that ends a connection, with the code to tell.
type fault struct{ frame.Code }

// Error names the code.
func (f fault) Error() string { return f.String() }

func newConn(g *Group, client socket.Client) *Conn {
	c := &Conn{
		Client: client, group: g, streams: map[uint32]*Stream{}, since: g.Now(),
		sendWindow: frame.FirstWindow, initialWindow: frame.FirstWindow, small: make([]byte, smallBuffer),
		encoder: header.NewEncoder(),
	}
	c.in = c.small
	c.decoder = hpack.NewDecoder(frame.FirstTable, func(f hpack.HeaderField) { c.block.Add(c.decoder, f) })
	return c
}

// NewClient returns the connection of a client, of which ahead was read already, no more than 4
// KiB.
func NewClient(g *Group, client socket.Client, ahead []byte) *Conn {
	c := newConn(g, client)
	c.w = copy(c.in, ahead)
	c.maxStreams, c.recvWindow = maxClientStreams, clientConnWindow
	c.out = frame.AppendSettings(c.out,
		frame.Setting{Parameter: frame.MaxStreams, Value: maxClientStreams},
		frame.Setting{Parameter: frame.InitialWindow, Value: clientWindow},
		frame.Setting{Parameter: frame.MaxHeaderList, Value: uint32(g.MaxHeaderBytes)}) //nolint:gosec // bounded by Validate
	c.out = frame.AppendWindowUpdate(c.out, 0, clientConnWindow-frame.FirstWindow)
	c.addTo(&c.batch)
	return c
}

// NewUpstream returns a connection to the app. What begins it is written by b.
func NewUpstream(g *Group, b *Batch, nc net.Conn) *Conn {
	c := newConn(g, socket.Client{Conn: socket.New(nc)})
	c.Upstream = true
	c.maxStreams = 1 << 30 // until it says otherwise
	c.recvWindow = upstreamConnWindow
	c.ready = make(chan struct{})
	c.out = append(c.out, frame.Preface...)
	c.out = frame.AppendSettings(c.out, frame.Setting{Parameter: frame.EnablePush, Value: 0}, frame.Setting{Parameter: frame.MaxHeaderList, Value: request.MaxAnswerHead})
	c.out = frame.AppendWindowUpdate(c.out, 0, upstreamConnWindow-frame.FirstWindow)
	c.addTo(b)
	return c
}

// Ready is closed when the app has sent its settings, or will send none.
func (c *Conn) Ready() <-chan struct{} { return c.ready }

// Open opens s on a connection to the app, by the head of the request, if there is room for it. The
// caller holds the mutex of s.
func (c *Conn) Open(b *Batch, s *Stream, r *header.Request) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.hasRoom() {
		return false
	}
	if c.lastStream == 0 {
		c.lastStream = 1
	} else {
		c.lastStream += 2
	}
	s.conn, s.id, s.sendWindow, s.recvWindow = c, c.lastStream, c.initialWindow, upstreamWindow
	c.streams[s.id] = s
	s.sent = s.end && s.queue.Len() == 0 && s.trailers == nil
	c.out = c.encoder.AppendRequest(c.out, s.id, r, s.sent)
	c.addTo(b)
	return true
}

// Accept opens s, which Owner.Request was called for, on a client's connection. It is false when
// the connection has ended. The caller holds the mutex of s.
func (c *Conn) Accept(s *Stream, id uint32, block *header.Block) bool {
	s.Renew(false)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	s.conn, s.id, s.sendWindow, s.recvWindow = c, id, c.initialWindow, clientWindow
	s.length, s.received = block.Length, block.EndStream
	c.streams[id] = s
	return true
}

// HasRoom says whether the app takes another stream on the connection now, Alive whether it will.
func (c *Conn) HasRoom() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hasRoom()
}

// exhaustedTime is how long the app may leave a connection without a window before other requests
// avoid it.
const exhaustedTime = 50 * time.Millisecond

func (c *Conn) hasRoom() bool {
	return !c.closed && c.phase == running && len(c.streams) < c.maxStreams && c.lastStream < frame.MaxStream-2 &&
		(c.exhaustedAt == 0 || c.group.Now()-c.exhaustedAt < exhaustedTime)
}

// Alive says whether the app takes streams on the connection, if not now.
func (c *Conn) Alive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closed && c.phase == running
}

// AnsweredBefore says whether the app has answered a request on the connection.
func (c *Conn) AnsweredBefore() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answered
}

// Serve reads the connection until it ends, and ends what depends on it.
func (c *Conn) Serve() {
	err := c.read()
	c.end(err)
}

func (c *Conn) read() error {
	if !c.Upstream {
		if err := c.readPreface(); err != nil {
			return err
		}
	}
	for {
		for c.w-c.r >= frame.HeaderLen {
			h := frame.Parse(c.in[c.r:])
			if h.Length > frame.MaxFrame {
				return fault{frame.FrameSizeError}
			}
			if c.w-c.r < frame.HeaderLen+h.Length {
				break
			}
			p := c.in[c.r+frame.HeaderLen : c.r+frame.HeaderLen+h.Length]
			c.r += frame.HeaderLen + h.Length
			if err := c.handle(h, p); err != nil {
				return err
			}
		}
		if len(c.batch.conns) > 0 {
			if c.batch.hasUpstream() {
				// Others that have something for the app go first, so that one write takes all of
				// it there.
				runtime.Gosched()
			}
			c.batch.Flush()
		}
		if c.overfull() {
			return fault{frame.EnhanceYourCalm}
		}
		if err := c.fill(); err != nil {
			return err
		}
	}
}

func (c *Conn) readPreface() error {
	for c.w < len(frame.Preface) {
		if string(c.in[:c.w]) != frame.Preface[:c.w] {
			return fault{frame.ProtocolError}
		}
		if err := c.fill(); err != nil {
			return err
		}
	}
	if string(c.in[:len(frame.Preface)]) != frame.Preface {
		return fault{frame.ProtocolError}
	}
	c.r = len(frame.Preface)
	return nil
}

// fill reads more.
func (c *Conn) fill() error {
	switch {
	case c.r == c.w:
		c.r, c.w = 0, 0
		if len(c.in) == largeBuffer && !c.hasStreams() {
			c.group.buffers.Put((*[largeBuffer]byte)(c.in))
			c.in = c.small
		}
	case c.r > 0 && c.w == len(c.in):
		c.w = copy(c.in, c.in[c.r:c.w])
		c.r = 0
	}
	if c.w == len(c.in) {
		large, ok := c.group.buffers.Get().(*[largeBuffer]byte)
		if !ok {
			large = new([largeBuffer]byte)
		}
		copy(large[:], c.in)
		c.in = large[:]
	}
	n, err := c.IO.Read(c.in[c.w:])
	c.w += n
	if n > 0 {
		err = nil // an error comes again
	}
	return err
}

func (c *Conn) hasStreams() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.streams) > 0
}

// openStreams returns the streams. The caller holds mu.
func (c *Conn) openStreams() []*Stream {
	all := make([]*Stream, 0, len(c.streams))
	for _, s := range c.streams {
		all = append(all, s)
	}
	return all
}

// each calls f for those of the streams that are still open here, with the mutex held.
func (c *Conn) each(streams []*Stream, f func(*Stream)) {
	for _, s := range streams {
		s.mu.Lock()
		if s.conn == c {
			f(s)
		}
		s.mu.Unlock()
	}
}

// Look enforces the timeouts.
func (c *Conn) Look(b *Batch, now time.Duration) {
	c.mu.Lock()
	passed := now - c.since
	idleTimeout := c.group.IdleTimeout
	if c.Upstream {
		idleTimeout = c.group.UpstreamIdleTimeout
	}
	switch {
	case !c.settingsRead && !c.Upstream && passed >= c.group.HeaderTimeout, c.blockSince > 0 && now-c.blockSince >= c.group.HeaderTimeout,
		c.phase >= finishing && passed >= finishTime:
		c.closed = true
		_ = c.Net.Close()
	case c.phase == announced && passed >= announceTime:
		c.sendLastGoAway(b)
	case c.phase == running && c.settingsRead && len(c.streams) == 0 && passed >= idleTimeout:
		c.sendLastGoAway(b)
	case len(c.streams) == 0 && passed >= bufferTime && !c.isWriting && len(c.out) == 0:
		c.out, c.spare = nil, nil
	}
	var streams []*Stream
	if !c.Upstream && c.group.CheckExchanges {
		streams = c.openStreams()
	}
	read := 0
	if c.cancelled.asked > 0 && now-c.cancelled.askedAt >= cancelTime {
		read = c.nextCancelled(b)
	}
	c.mu.Unlock()
	c.tellCancelled(read)
	c.each(streams, func(s *Stream) { s.exchange.Check(b, now) })
}

// linger reads on for a while: a close with unread bytes would reset the connection, and the peer
// could lose the last frames.
func (c *Conn) linger() {
	_ = c.Net.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, c.IO, lingerBytes)
}
