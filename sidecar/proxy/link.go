package proxy

import (
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/sluice-autoscaler/sluice/sidecar/exposition"
	"github.com/sluice-autoscaler/sluice/sidecar/http2"
)

const (
	// streams is how many HTTP/2 streams a client may have open on one connection: a gateway or mesh may bring all its
	// requests on one.
	streams = 1000
	// clientWindow is what a client may send on a stream before it is passed on, clientLinkWindow on a connection, in bytes.
	// clientHeld is how much of a connection's may wait for the app before the connection's window is left to run out: up
	// to there no stream whose body the app does not read stops another one.
	clientWindow     = 256 << 10
	clientLinkWindow = 1 << 20
	clientHeld       = 3 << 20
	// appWindow is what the app may send on a stream before the client takes it. The connection's window is given back at
	// once, since other clients' answers come on it.
	appWindow     = http2.FirstWindow
	appLinkWindow = 16 << 20
	// outRoom is how much may wait to be written to a connection before bodies wait at their streams, outMost how much
	// of other frames before the connection is given up: its peer asks for answers and does not read them.
	outRoom = 64 << 10
	outMost = 4 << 20
	// linkBuffer is what is read at once where there is more than small frames.
	linkBuffer = 32 << 10
	// warnTime is how long a client may take to hear of the coming end before it is told which stream was the last.
	warnTime = time.Second
	// resetBurst and resetRate bound how many streams a client may take back before they were answered, at once and per
	// second: each has cost the app a request.
	resetBurst = 2 * streams
	resetRate  = 500
	// finishTime is how long a peer may take to read what was said last.
	finishTime = 5 * time.Second
	// keepTime is how long a connection without streams keeps its buffers for writing.
	keepTime = time.Second
	// quietKept is how many streams that the sidecar has reset are remembered: what their peers have sent before they
	// knew is no fault.
	quietKept = 256
)

// link is an HTTP/2 connection, to a client or to the app. One goroutine reads it and does what the frames ask for, on
// links on the other side as well: it puts frames into their buffers, and has them written before it waits for more. So
// the many small frames of a moment go out by one write, and no frame waits for another goroutine.
//
// Nothing that a peer does may stop a reader: writes never block it. What the network does not take waits in out, bounded
// by outRoom; what has no room there waits at its stream, bounded by the window of the stream that it came from.
//
// Of the locks, a stream's is taken before a link's, and never two of one kind.
type link struct {
	e      *engine
	nc     net.Conn
	io     io.ReadWriter
	raw    syscall.RawConn
	app    bool   // the other side is the app
	peer   string // the client's address without the port; empty for who has none
	secure bool   // the client came by TLS

	// The reader's own.
	in    []byte // small, or while there are streams a large one
	small []byte
	r, w  int // in[r:w] was read and not yet used
	dec   *hpack.Decoder
	got   block
	burst burst
	ready chan struct{} // of the app: closed with its first settings, or when there will be none

	// Guarded by apps.mu.
	mate  *link // a client's: the app's link that its requests go by; nil: none yet
	mates int   // the app's: how many clients' links have it as theirs

	mu      sync.Mutex
	out     []byte // frames to be written
	spare   []byte
	block   blockWriter
	enc     *hpack.Encoder
	resized bool // the encoder has to tell of its table's new size first
	flight  int  // bytes of out that are being written
	writing bool
	marked  bool // a burst holds the link
	closed  bool // nothing goes out any more

	window, initial int64 // what may be sent, on the connection and on a new stream
	recv            int64 // what the peer may send
	owed, held      int   // bytes read and not given back to the peer's window; bytes that wait at streams
	streams         map[uint32]*half
	blocked         []*half       // with something to send, and neither window nor room on the link
	last            uint32        // the newest stream
	most            int           // how many may be open
	used            bool          // has answered
	dry             time.Duration // since when window is exhausted; 0: it is not
	settled         bool          // the peer's settings have come
	phase           phase
	since           time.Duration // of the phase, or without a stream
	blockSince      time.Duration // since when a header block is incomplete; 0: none is
	quiet           []uint32      // a ring
	quietNext       int
	resets          float64       // taken back of late
	resetAt         time.Duration // the last one
}

// phase is how far a link is on the way to its end.
type phase uint8

const (
	running   phase = iota
	warned          // told to open no more streams
	leaving         // opens no more; ends with the last stream
	finishing       // to be closed when all is written
	finished        // its sending side is closed
)

// fault is an error that ends a connection, with the code to tell.
type fault struct{ http2.Code }

// Error names the code.
func (f fault) Error() string { return f.String() }

func newLink(e *engine, nc net.Conn, rw io.ReadWriter, raw syscall.RawConn) *link {
	l := &link{
		e: e, nc: nc, io: rw, raw: raw, streams: map[uint32]*half{}, since: e.h.opts.Now(),
		window: http2.FirstWindow, initial: http2.FirstWindow, small: make([]byte, clientBuffer),
	}
	l.in = l.small
	l.dec = hpack.NewDecoder(http2.FirstTable, func(f hpack.HeaderField) { l.got.emit(l.dec, f) })
	l.enc = hpack.NewEncoder(&l.block)
	return l
}

// greet readies a client's link and writes what comes first on it. ahead was read of it already.
func (l *link) greet(ahead []byte) {
	l.w = copy(l.in, ahead) // which is no longer than one read
	l.most, l.recv = streams, clientLinkWindow
	l.out = http2.AppendSettings(l.out,
		http2.Setting{Parameter: http2.MaxStreams, Value: streams},
		http2.Setting{Parameter: http2.InitialWindow, Value: clientWindow},
		http2.Setting{Parameter: http2.MaxHeaderList, Value: uint32(l.e.maxHeader)}) //nolint:gosec // bounded by Validate
	l.out = http2.AppendWindowUpdate(l.out, 0, clientLinkWindow-http2.FirstWindow)
	l.mark(&l.burst)
}

// mark notes that there is something to write. The caller holds mu.
func (l *link) mark(b *burst) {
	if !l.marked {
		l.marked = true
		b.links = append(b.links, l)
	}
}

// burst is the links that a goroutine has put frames on and owes a flush.
type burst struct{ links []*link }

// flush writes what the burst's links hold. The caller holds no lock.
func (b *burst) flush() {
	for i := 0; i < len(b.links); i++ { // it may grow
		b.links[i].flush(b)
	}
	clear(b.links)
	b.links = b.links[:0]
}

// toApp says whether one of the links is the app's.
func (b *burst) toApp() bool {
	for _, l := range b.links {
		if l.app {
			return true
		}
	}
	return false
}

// flush writes out, as far as it goes without waiting; another goroutine does the rest.
func (l *link) flush(b *burst) {
	l.mu.Lock()
	l.marked = false
	if l.writing {
		l.mu.Unlock()
		return // whoever writes will write this, too
	}
	l.writing = true
	s, direct := l.io.(*socket)
	for len(l.out) > 0 {
		p := l.take()
		if !direct {
			l.mu.Unlock()
			l.e.wg.Go(func() { l.write(p, 0) })
			return
		}
		l.mu.Unlock()
		n, err := s.try(p)
		if err == nil && n < len(p) {
			l.e.wg.Go(func() { l.write(p, n) })
			return
		}
		l.mu.Lock()
		l.wrote(p, err)
	}
	l.rest(b)
}

// take takes out what is to be written. The caller holds mu.
func (l *link) take() []byte {
	p := l.out
	l.out, l.spare, l.flight = l.spare[:0], nil, len(p)
	return p
}

// wrote notes what take gave as written, or lost. The caller holds mu.
func (l *link) wrote(p []byte, err error) {
	l.flight = 0
	if cap(p) <= 2*outRoom {
		l.spare = p[:0]
	}
	if err != nil {
		l.closed, l.out = true, l.out[:0]
		_ = l.nc.Close() // the reader ends what depends on it
	}
}

// rest ends the writing: nothing is left. It unlocks mu, and lets go on what waited for room.
func (l *link) rest(b *burst) {
	l.writing = false
	last := l.phase == finishing
	if last {
		l.phase = finished
	}
	var waiting []*half
	if l.window > 0 {
		waiting, l.blocked = l.blocked, nil
	}
	l.mu.Unlock()
	if last && closeWrite(l.nc) == nil {
		_ = l.nc.SetReadDeadline(time.Now().Add(lingerTime))
	}
	resume(b, l, waiting)
}

// write writes p[n:] and what comes after it, waiting as long as the network needs.
func (l *link) write(p []byte, n int) {
	var b burst
	for {
		_, err := l.io.Write(p[n:])
		l.mu.Lock()
		l.wrote(p, err)
		if len(l.out) > 0 {
			p, n = l.take(), 0
			l.mu.Unlock()
			continue
		}
		l.rest(&b)
		b.flush()
		return
	}
}

// resume lets streams of l go on that waited.
func resume(b *burst, l *link, waiting []*half) {
	for _, h := range waiting {
		h.s.mu.Lock()
		if h.l == l && h.blocked {
			h.blocked = false
			h.pump(b)
		}
		h.s.mu.Unlock()
	}
}

// serve reads the link until it ends, and ends what depends on it.
func (l *link) serve() {
	err := l.read()
	l.end(err)
}

func (l *link) read() error {
	if !l.app {
		if err := l.preface(); err != nil {
			return err
		}
	}
	for {
		for l.w-l.r >= http2.HeaderLen {
			h := http2.Parse(l.in[l.r:])
			if h.Length > http2.MaxFrame {
				return fault{http2.FrameSizeError}
			}
			if l.w-l.r < http2.HeaderLen+h.Length {
				break
			}
			p := l.in[l.r+http2.HeaderLen : l.r+http2.HeaderLen+h.Length]
			l.r += http2.HeaderLen + h.Length
			if err := l.frame(h, p); err != nil {
				return err
			}
		}
		if len(l.burst.links) > 0 {
			if l.burst.toApp() {
				// Others that have something for the app go first, so that one write takes all of it there.
				runtime.Gosched()
			}
			l.burst.flush()
		}
		l.mu.Lock()
		err := l.overfull()
		l.mu.Unlock()
		if err == nil {
			err = l.fill()
		}
		if err != nil {
			return err
		}
	}
}

func (l *link) preface() error {
	for l.w < len(http2.Preface) {
		if string(l.in[:l.w]) != http2.Preface[:l.w] {
			return fault{http2.ProtocolError}
		}
		if err := l.fill(); err != nil {
			return err
		}
	}
	if string(l.in[:len(http2.Preface)]) != http2.Preface {
		return fault{http2.ProtocolError}
	}
	l.r = len(http2.Preface)
	return nil
}

// fill reads more.
func (l *link) fill() error {
	switch {
	case l.r == l.w:
		l.r, l.w = 0, 0
		if len(l.in) == linkBuffer && !l.busy() {
			l.e.buffers.Put((*[linkBuffer]byte)(l.in))
			l.in = l.small
		}
	case l.r > 0 && l.w == len(l.in):
		l.w = copy(l.in, l.in[l.r:l.w])
		l.r = 0
	}
	if l.w == len(l.in) {
		large, ok := l.e.buffers.Get().(*[linkBuffer]byte)
		if !ok {
			large = new([linkBuffer]byte)
		}
		copy(large[:], l.in)
		l.in = large[:]
	}
	n, err := l.io.Read(l.in[l.w:])
	l.w += n
	if n > 0 {
		err = nil // an error comes again
	}
	return err
}

// busy says whether there is a stream.
func (l *link) busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.streams) > 0
}

// frame does what a frame asks for.
func (l *link) frame(h http2.Header, p []byte) error {
	if code := h.Check(); code != http2.NoError {
		return fault{code}
	}
	if (l.got.stream != 0) != (h.Type == http2.Continuation) || l.got.stream != 0 && l.got.stream != h.Stream {
		return fault{http2.ProtocolError} // nothing may come in the middle of a header block
	}
	if !l.settled && (h.Type != http2.Settings || h.Has(http2.Ack)) {
		return fault{http2.ProtocolError}
	}
	switch h.Type {
	case http2.Data:
		return l.data(h, p)
	case http2.Headers:
		return l.headers(h, p)
	case http2.Continuation:
		return l.fragment(p, h.Has(http2.EndHeaders))
	case http2.Priority:
		if http2.Number(p) == h.Stream {
			l.refuse(h.Stream, http2.ProtocolError)
		}
	case http2.Reset:
		return l.reset(h.Stream, http2.Code(http2.Number(p)))
	case http2.Settings:
		if !h.Has(http2.Ack) {
			return l.settings(p)
		}
	case http2.PushPromise:
		return fault{http2.ProtocolError}
	case http2.Ping:
		l.ping(h, p)
	case http2.GoAway:
		l.goneAway(http2.Number(p))
	case http2.WindowUpdate:
		return l.windowUpdate(h.Stream, int64(http2.Number(p)))
	}
	return nil
}

// idle says whether a stream was never opened. The caller holds mu.
func (l *link) idle(id uint32) bool { return !l.unserved(id) && (id > l.last || id%2 == 0) }

// unserved says whether a client opened the stream although it was told, or before it heard, that it would not be served:
// what comes on it is to be ignored. The caller holds mu.
func (l *link) unserved(id uint32) bool {
	return !l.app && l.phase >= leaving && id > l.last && id%2 == 1
}

func (l *link) data(h http2.Header, p []byte) error {
	content, _, ok := h.Content(p)
	if !ok {
		return fault{http2.ProtocolError}
	}
	end := h.Has(http2.EndStream)
	l.mu.Lock()
	l.recv -= int64(len(p))
	if l.recv < 0 {
		l.mu.Unlock()
		return fault{http2.FlowControlError}
	}
	l.owed += len(p)
	l.giveBack(&l.burst)
	half := l.streams[h.Stream]
	idle, quiet := half == nil && l.idle(h.Stream), half == nil && (l.unserved(h.Stream) || l.isQuiet(h.Stream))
	l.mu.Unlock()
	if half == nil {
		switch {
		case idle:
			return fault{http2.ProtocolError}
		case quiet:
			return nil
		}
		l.refuse(h.Stream, http2.StreamClosed)
		return nil
	}
	s := half.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if !half.is(l, h.Stream) {
		return nil
	}
	switch half.recv -= int64(len(p)); {
	case half.gotFin:
		s.broken(&l.burst, half, http2.StreamClosed)
	case half.recv < 0:
		s.broken(&l.burst, half, http2.FlowControlError)
	case !half.counts(len(content), end):
		s.broken(&l.burst, half, http2.ProtocolError)
	default:
		half.gotFin = end
		s.pass(&l.burst, half, content, end)
		if padding := len(p) - len(content); padding > 0 {
			half.credit(&l.burst, padding, 0)
		}
	}
	return nil
}

// giveBack gives the peer's window back what was read, unless too much waits at streams. The caller holds mu.
func (l *link) giveBack(b *burst) {
	step, most := clientLinkWindow/4, clientHeld
	if l.app {
		step, most = appLinkWindow/4, 1<<62
	}
	if l.owed >= step && l.held <= most && !l.closed {
		l.out = http2.AppendWindowUpdate(l.out, 0, uint32(l.owed)) //nolint:gosec // at most the window
		l.recv += int64(l.owed)
		l.owed = 0
		l.mark(b)
	}
}

func (l *link) headers(h http2.Header, p []byte) error {
	fragment, dependsOn, ok := h.Content(p)
	if !ok {
		return fault{http2.ProtocolError}
	}
	limit := l.e.maxHeader
	if l.app {
		limit = maxResponseHeader
	}
	l.got.begin(h.Stream, h.Has(http2.EndStream), limit)
	l.mu.Lock()
	known := l.streams[h.Stream] != nil
	l.mu.Unlock()
	l.got.request, l.got.response = !l.app && !known, l.app
	l.got.bad = dependsOn == h.Stream && h.Has(http2.HasPriority)
	l.dec.SetEmitEnabled(true)
	return l.fragment(fragment, h.Has(http2.EndHeaders))
}

// fragment reads a part of a header block.
func (l *link) fragment(p []byte, end bool) error {
	g := &l.got
	if g.budget -= len(p); !end {
		g.budget -= continuationCost
	}
	if g.budget < 0 {
		return fault{http2.EnhanceYourCalm}
	}
	if _, err := l.dec.Write(p); err != nil {
		return fault{http2.CompressionError}
	}
	if !end {
		l.mu.Lock()
		if l.blockSince == 0 {
			l.blockSince = l.e.h.opts.Now()
		}
		l.mu.Unlock()
		return nil
	}
	if err := l.dec.Close(); err != nil {
		return fault{http2.CompressionError}
	}
	id := g.stream
	g.stream = 0
	l.mu.Lock()
	l.blockSince = 0
	half := l.streams[id]
	l.mu.Unlock()
	if l.app {
		return l.appBlock(id, half)
	}
	return l.clientBlock(id, half)
}

// clientBlock takes a client's block: a request's head, or its trailers.
func (l *link) clientBlock(id uint32, half *half) error {
	g := &l.got
	if half != nil {
		s := half.s
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case !half.is(l, id):
		case half.gotFin:
			s.broken(&l.burst, half, http2.StreamClosed)
		case !g.end || g.bad || g.hop || g.big || !half.counts(0, true):
			s.broken(&l.burst, half, http2.ProtocolError)
		default:
			half.gotFin = true
			s.passTrailers(&l.burst, half, g.fields)
		}
		return nil
	}
	l.mu.Lock()
	switch {
	case l.unserved(id):
		l.mu.Unlock()
		return nil
	case !l.idle(id):
		quiet := l.isQuiet(id)
		l.mu.Unlock()
		if quiet {
			return nil
		}
		return fault{http2.ProtocolError}
	case id%2 == 0:
		l.mu.Unlock()
		return fault{http2.ProtocolError}
	}
	l.last = id
	if len(l.streams) >= l.most {
		l.forget(id)
		l.out = http2.AppendReset(l.out, id, http2.RefusedStream)
		l.mark(&l.burst)
		l.mu.Unlock()
		return nil
	}
	l.mu.Unlock()
	if !g.big && !g.hop && g.malformed() || g.bad {
		l.e.h.opts.Metrics.Refused(exposition.BadRequest)
		l.refuse(id, http2.ProtocolError)
		return nil
	}
	l.e.request(l, id)
	return nil
}

// appBlock takes a block of the app's: the head of an answer, interim or final, or its trailers.
func (l *link) appBlock(id uint32, half *half) error {
	g := &l.got
	if half == nil {
		l.mu.Lock()
		idle := l.idle(id)
		l.mu.Unlock()
		if idle {
			return fault{http2.ProtocolError}
		}
		return nil // given up before
	}
	s := half.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if !half.is(l, id) {
		return nil
	}
	if half.gotFin {
		s.broken(&l.burst, half, http2.StreamClosed)
		return nil
	}
	s.answer(&l.burst, g)
	return nil
}

// refuse resets a stream, whether or not it is there.
func (l *link) refuse(id uint32, code http2.Code) {
	l.mu.Lock()
	if half := l.streams[id]; half != nil {
		l.mu.Unlock()
		half.s.mu.Lock()
		defer half.s.mu.Unlock()
		if half.is(l, id) {
			half.s.broken(&l.burst, half, code)
		}
		return
	}
	defer l.mu.Unlock()
	l.forget(id)
	l.out = http2.AppendReset(l.out, id, code)
	l.mark(&l.burst)
}

// overfull ends a link whose peer makes answers and does not read them. The caller holds mu.
func (l *link) overfull() error {
	if len(l.out)+l.flight > outMost {
		return fault{http2.EnhanceYourCalm}
	}
	return nil
}

// forget notes that the sidecar resets a stream. The caller holds mu.
func (l *link) forget(id uint32) {
	if len(l.quiet) < quietKept {
		l.quiet = append(l.quiet, id)
		return
	}
	l.quiet[l.quietNext] = id
	l.quietNext = (l.quietNext + 1) % quietKept
}

// isQuiet says whether the sidecar has reset the stream of late. The caller holds mu.
func (l *link) isQuiet(id uint32) bool { return slices.Contains(l.quiet, id) }

// reset takes a stream that the peer has reset.
func (l *link) reset(id uint32, code http2.Code) error {
	l.mu.Lock()
	half := l.streams[id]
	idle := half == nil && l.idle(id)
	l.mu.Unlock()
	if idle {
		return fault{http2.ProtocolError}
	}
	if half == nil {
		return nil
	}
	s := half.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if !half.is(l, id) {
		return nil
	}
	if l.app {
		s.appReset(&l.burst, code)
		return nil
	}
	early := s.began == 0
	s.clientLeft(&l.burst)
	if early {
		return l.takenBack()
	}
	return nil
}

// takenBack counts a stream that the client has reset before it was answered.
func (l *link) takenBack() error {
	now := l.e.h.opts.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.resets = max(0, l.resets-resetRate*(now-l.resetAt).Seconds()) + 1
	l.resetAt = now
	if l.resets > resetBurst {
		return fault{http2.EnhanceYourCalm}
	}
	return nil
}

func (l *link) settings(p []byte) error {
	l.mu.Lock()
	delta := int64(0)
	for len(p) > 0 {
		var s http2.Setting
		s, p = http2.NextSetting(p)
		if code := s.Check(); code != http2.NoError {
			l.mu.Unlock()
			return fault{code}
		}
		switch s.Parameter {
		case http2.TableSize:
			if size := min(s.Value, http2.FirstTable); size != l.enc.MaxDynamicTableSize() {
				l.enc.SetMaxDynamicTableSize(size)
				l.resized = true
			}
		case http2.InitialWindow:
			delta += int64(s.Value) - l.initial
			l.initial = int64(s.Value)
		case http2.MaxStreams:
			if l.app {
				l.most = int(min(s.Value, 1<<30))
			}
		case http2.EnablePush, http2.MaxFrameSize, http2.MaxHeaderList:
		}
	}
	l.out = http2.AppendSettingsAck(l.out)
	l.mark(&l.burst)
	first := !l.settled
	l.settled = true
	var all []*half
	if delta != 0 {
		all = l.all()
	}
	l.mu.Unlock()
	err := error(nil)
	for _, h := range all {
		h.s.mu.Lock()
		if h.l == l {
			if h.window += delta; h.window > http2.MaxWindow {
				err = fault{http2.FlowControlError}
			}
			h.pump(&l.burst)
		}
		h.s.mu.Unlock()
	}
	if first && l.ready != nil {
		close(l.ready)
	}
	return err
}

// all returns the streams. The caller holds mu.
func (l *link) all() []*half {
	all := make([]*half, 0, len(l.streams))
	for _, h := range l.streams {
		all = append(all, h)
	}
	return all
}

// lastPing is the payload of the ping whose answer shows that a client has heard of the coming end.
const lastPing = "draining"

func (l *link) ping(h http2.Header, p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.Has(http2.Ack) {
		if l.phase == warned && string(p) == lastPing {
			l.lastCall(&l.burst)
		}
		return
	}
	if !l.closed {
		l.out = http2.AppendPing(l.out, http2.Ack, p)
		l.mark(&l.burst)
	}
}

func (l *link) windowUpdate(id uint32, n int64) error {
	l.mu.Lock()
	if id == 0 {
		if n == 0 {
			l.mu.Unlock()
			return fault{http2.ProtocolError}
		}
		if l.window += n; l.window > http2.MaxWindow {
			l.mu.Unlock()
			return fault{http2.FlowControlError}
		}
		var waiting []*half
		if l.window > 0 {
			waiting, l.blocked, l.dry = l.blocked, nil, 0
		}
		l.mu.Unlock()
		resume(&l.burst, l, waiting)
		return nil
	}
	half := l.streams[id]
	idle := half == nil && l.idle(id)
	l.mu.Unlock()
	if idle {
		return fault{http2.ProtocolError}
	}
	if half == nil {
		return nil
	}
	s := half.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if !half.is(l, id) {
		return nil
	}
	switch half.window += n; {
	case n == 0:
		s.broken(&l.burst, half, http2.ProtocolError)
	case half.window > http2.MaxWindow:
		s.broken(&l.burst, half, http2.FlowControlError)
	default:
		half.pump(&l.burst)
	}
	return nil
}

// warn tells a client that the connection is to end. The caller holds mu.
func (l *link) warn(b *burst, now time.Duration) {
	if l.phase != running || l.closed {
		return
	}
	l.phase, l.since = warned, now
	l.out = http2.AppendGoAway(l.out, http2.MaxStream, http2.NoError)
	l.out = http2.AppendPing(l.out, 0, []byte(lastPing))
	l.mark(b)
}

// lastCall tells the peer which stream was the last. The caller holds mu.
func (l *link) lastCall(b *burst) {
	if l.phase >= leaving || l.closed {
		return
	}
	last := l.last
	if l.app {
		last = 0 // it opens none
	}
	l.phase = leaving
	l.out = http2.AppendGoAway(l.out, last, http2.NoError)
	l.mark(b)
	l.leave(b)
}

// leave closes a link that opens no more streams and has none. The caller holds mu.
func (l *link) leave(b *burst) {
	if l.phase == leaving && len(l.streams) == 0 {
		l.phase, l.since = finishing, l.e.h.opts.Now()
		l.mark(b)
	}
}

// goneAway takes a peer's announcement that it opens no more streams, and has worked on none past last.
func (l *link) goneAway(last uint32) {
	if !l.app {
		return // what it has opened is answered
	}
	l.mu.Lock()
	if l.phase < leaving {
		l.phase = leaving
	}
	var all []*half
	for id, h := range l.streams {
		if id > last {
			all = append(all, h)
		}
	}
	l.leave(&l.burst)
	l.mu.Unlock()
	l.e.apps.remove(l)
	for _, h := range all {
		h.s.mu.Lock()
		if h.l == l {
			h.s.appReset(&l.burst, http2.RefusedStream)
		}
		h.s.mu.Unlock()
	}
}

// end ends what depends on the link, and tells the peer why if it was at fault.
func (l *link) end(err error) {
	f, guilty := errors.AsType[fault](err)
	l.mu.Lock()
	if guilty && !l.closed {
		last := l.last
		if l.app {
			last = 0
		}
		l.out = http2.AppendGoAway(l.out, last, f.Code)
	}
	l.closed = true
	l.phase = max(l.phase, finishing)
	all := l.all()
	l.mark(&l.burst)
	l.mu.Unlock()
	if l.app {
		l.e.apps.remove(l)
	} else {
		l.e.apps.unmate(l)
	}
	for _, h := range all {
		s := h.s
		s.mu.Lock()
		if h.l == l {
			if l.app {
				s.appLost(&l.burst)
			} else {
				s.clientLeft(&l.burst)
			}
		}
		s.mu.Unlock()
	}
	l.burst.flush()
	if guilty {
		l.linger()
	}
	_ = l.nc.Close()
	if l.ready != nil && !l.settled {
		close(l.ready)
	}
	l.e.drop(l)
}

// linger reads on for a while: a close with bytes unread would take back what was said last.
func (l *link) linger() {
	_ = l.nc.SetReadDeadline(time.Now().Add(lingerTime))
	for n := 0; n < lingerBytes; {
		m, err := l.io.Read(l.in)
		if err != nil {
			return
		}
		n += m
	}
}

// look enforces the timeouts.
func (l *link) look(b *burst, now time.Duration) {
	opts := &l.e.h.opts
	l.mu.Lock()
	passed := now - l.since
	idleTimeout := l.e.idleTimeout
	if l.app {
		idleTimeout = opts.AppIdleTimeout
	}
	switch {
	case !l.settled && !l.app && passed >= l.e.headerTimeout, l.blockSince > 0 && now-l.blockSince >= l.e.headerTimeout,
		l.phase >= finishing && passed >= finishTime:
		l.closed = true
		_ = l.nc.Close()
	case l.phase == warned && passed >= warnTime:
		l.lastCall(b)
	case l.phase == running && l.settled && len(l.streams) == 0 && passed >= idleTimeout:
		l.lastCall(b)
	case len(l.streams) == 0 && passed >= keepTime && !l.writing && len(l.out) == 0:
		l.out, l.spare = nil, nil
	}
	var all []*half
	if !l.app && (opts.ResponseTimeout > 0 || opts.RequestTimeout > 0) {
		all = l.all()
	}
	l.mu.Unlock()
	for _, h := range all {
		h.s.mu.Lock()
		if h.l == l {
			h.s.look(b, now)
		}
		h.s.mu.Unlock()
	}
}
