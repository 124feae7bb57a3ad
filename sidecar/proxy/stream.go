package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/sluice-autoscaler/sluice/sidecar/exposition"
	"github.com/sluice-autoscaler/sluice/sidecar/http2"
	"github.com/sluice-autoscaler/sluice/sidecar/limit"
)

const (
	// replayed is how much of a request's body is kept, in bytes, for the case that the app has not worked on the request.
	replayed = 4 << 10
	// replays bounds how often a request is asked again.
	replays = 3
)

// stream is a request over HTTP/2 and its answer: a stream to the client, c, and one to the app, a. Whoever changes it holds
// mu. Streams are used again, so a reference that was got without mu may be to another one: half.is and half.l tell.
type stream struct {
	mu     sync.Mutex
	e      *engine
	c, a   half
	head   head
	fields []hpack.HeaderField // of the request, with memory of their own
	peer   string
	secure bool
	sent   []byte // the beginning of the body, as long as it may be needed again
	whole  bool   // sent is all that went to the app
	again  int    // bytes of a's queue that were given back to the client's window before
	tries  int

	arrived, queued time.Duration
	asked           time.Duration // the app; 0 means not yet
	responded       time.Duration // by the app, or by the sidecar in its place
	began           time.Duration // the answer to the client
	code            int
	counted         bool
	ignored         bool
	placed          bool // holds a place under the limit
	bounded         bool // the total timeout holds
	idempotent      bool // and without a body
	over            bool // nothing happens any more
	mine            bool // the answer is the sidecar's own
	waiting         bool // a goroutine waits for a place or for the app
	cancel          context.CancelFunc
}

// half is one side of a stream.
type half struct {
	s       *stream
	l       *link // nil: not open, or closed
	id      uint32
	window  int64 // what may be sent to the peer
	recv    int64 // what the peer may send
	owed    int   // passed on, and not yet given back to the peer's window
	length  int64 // what the peer has still to send by its content-length; −1: unknown
	gotFin  bool  // the peer has sent all
	sentFin bool  // all was sent to the peer
	blocked bool  // in l.blocked

	// What waits to be sent to the peer.
	queue    queue
	fin      bool // the end comes after queue
	trailers []hpack.HeaderField
}

// renew readies h for a stream. The caller holds s.mu; s itself is read without it, and never changes.
func (h *half) renew(l *link, id uint32) {
	h.l, h.id, h.length = l, id, -1
	h.window, h.recv, h.owed = 0, 0, 0
	h.gotFin, h.sentFin, h.blocked, h.fin, h.trailers = false, false, false, false, nil
}

// is says whether h is the side of stream id on l, still. The caller holds s.mu.
func (h *half) is(l *link, id uint32) bool { return h.l == l && h.id == id }

// counts reckons with n bytes of a body, and says whether they agree with its content-length.
func (h *half) counts(n int, end bool) bool {
	if h.length < 0 {
		return true
	}
	h.length -= int64(n)
	return h.length >= 0 && (!end || h.length == 0)
}

// other is the other side of the stream.
func (h *half) other() *half {
	if h == &h.s.c {
		return &h.s.a
	}
	return &h.s.c
}

// put sends as much of p as fits in the windows and in the link's room, and says how much that was. With last, the stream
// ends with p. The caller holds s.mu.
func (h *half) put(b *burst, p []byte, last bool) (n int) {
	l := h.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return len(p) // to nobody; the link's reader ends the stream
	}
	for !h.sentFin && (n < len(p) || last) {
		k := len(p) - n
		if k > 0 {
			k = int(min(int64(k), http2.MaxFrame, h.window, l.window, int64(outRoom-len(l.out)-l.flight)))
			if k <= 0 {
				if h.window > 0 && !h.blocked {
					h.blocked = true
					l.blocked = append(l.blocked, h)
				}
				break
			}
		}
		var flags http2.Flags
		if last && n+k == len(p) {
			flags, h.sentFin = http2.EndStream, true
		}
		l.out = append(http2.AppendHeader(l.out, k, http2.Data, flags, h.id), p[n:n+k]...)
		h.window -= int64(k)
		if l.window -= int64(k); l.window <= 0 && k > 0 {
			l.dry = max(l.e.h.opts.Now(), 1)
		}
		n += k
		l.mark(b)
	}
	if h.blocked {
		l.mark(b) // the flush that makes room lets it go on
	}
	return n
}

// pump sends what waits, as far as it goes. The caller holds s.mu.
func (h *half) pump(b *burst) {
	if h.l == nil || h.blocked {
		return
	}
	n := 0
	for h.queue.n > 0 {
		p := h.queue.front()
		k := h.put(b, p, h.fin && len(p) == h.queue.n && h.trailers == nil)
		h.queue.drop(&h.s.e.chunks, k)
		if n += k; k < len(p) {
			break
		}
	}
	if n > 0 {
		old := min(n, h.s.again)
		if h == &h.s.a {
			h.s.again -= old
		} else {
			old = 0
		}
		h.other().credit(b, n-old, n-old)
	}
	if h.fin && h.queue.n == 0 && !h.sentFin {
		h.end(b, h.trailers)
		return
	}
	if h.sentFin && h == &h.s.c {
		h.s.complete(b)
	}
}

// end ends what is sent, by trailers if there are any. The caller holds s.mu, and nothing waits.
func (h *half) end(b *burst, trailers []hpack.HeaderField) {
	if trailers == nil {
		h.put(b, nil, true)
	} else {
		l := h.l
		l.mu.Lock()
		if !l.closed {
			l.putTrailers(h.id, trailers)
			l.mark(b)
		}
		l.mu.Unlock()
	}
	h.sentFin = true
	if h == &h.s.c {
		h.s.complete(b)
	}
}

// credit gives the peer's window n bytes back that were passed on; held of them had waited. The caller holds s.mu.
func (h *half) credit(b *burst, n, held int) {
	l := h.l
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if held > 0 {
		l.held -= held
		l.giveBack(b)
	}
	if h.gotFin || l.closed {
		return
	}
	step := clientWindow / 4
	if l.app {
		step = appWindow / 4
	}
	if h.owed += n; h.owed >= step {
		l.out = http2.AppendWindowUpdate(l.out, h.id, uint32(h.owed)) //nolint:gosec // at most the window
		h.recv += int64(h.owed)
		h.owed = 0
		l.mark(b)
	}
}

// close takes the side off its link, with what the other side's queue holds of its. The caller holds s.mu.
func (h *half) close(b *burst) {
	l := h.l
	if l == nil {
		return
	}
	h.l = nil
	held := h.other().queue.n
	if h == &h.s.c {
		held -= h.s.again
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held -= held
	if delete(l.streams, h.id); len(l.streams) == 0 {
		l.blocked = nil
		if l.phase < warned {
			l.since = h.s.e.h.opts.Now()
		}
	}
	l.giveBack(b)
	l.leave(b)
}

// cut resets the side's stream, if it is open. The caller holds s.mu.
func (h *half) cut(b *burst, code http2.Code) {
	l := h.l
	if l == nil {
		return
	}
	l.mu.Lock()
	if !l.closed {
		l.forget(h.id)
		l.out = http2.AppendReset(l.out, h.id, code)
		l.mark(b)
	}
	l.mu.Unlock()
	h.close(b)
}

// request begins the stream of a request whose head is in l.got. l's reader calls it.
func (e *engine) request(l *link, id uint32) {
	opts := &e.h.opts
	g, b := &l.got, &l.burst
	s, ok := e.streams.Get().(*stream)
	if !ok {
		s = &stream{e: e}
		s.c.s, s.a.s = s, s
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := opts.Now()
	sent, fields := s.sent[:0], s.fields[:0]
	s.renew()
	s.fields, g.fields = g.fields, fields
	s.sent, s.whole = sent, true
	s.head, s.peer, s.secure = g.head, l.peer, l.secure
	s.arrived = now
	s.c.renew(l, id)
	s.c.recv, s.c.length, s.c.gotFin = clientWindow, g.length, g.end
	s.a.renew(nil, 0)
	s.a.fin = g.end
	method := s.head.method
	if g.end {
		s.idempotent = method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions || method == http.MethodTrace
	}
	s.bounded = g.end || g.length >= 0
	if s.head.authority == "" {
		s.head.authority = get(s.fields, "host")
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	s.c.window = l.initial
	l.streams[id] = &s.c
	l.mu.Unlock()

	switch {
	case g.big:
		opts.Metrics.Refused(exposition.BadRequest)
		s.own(b, http.StatusRequestHeaderFieldsTooLarge, exposition.BadRequest.String(), "headers are too large")
		return
	case g.hop || g.end && g.length > 0:
		opts.Metrics.Refused(exposition.BadRequest)
		s.own(b, http.StatusBadRequest, exposition.BadRequest.String(), "malformed request")
		return
	case s.head.path == ReadyPath && (method == http.MethodGet || method == http.MethodHead):
		s.waiting = true
		e.wg.Go(s.ready)
		return
	case s.unwanted():
		opts.Metrics.Ignored()
		s.ignored = true
		s.forward(b)
		return
	}
	opts.InFlight.Begin(now)
	s.counted = true
	if method == http.MethodConnect {
		// The app is an origin, not a proxy to elsewhere.
		s.own(b, http.StatusMethodNotAllowed, "", "CONNECT is not supported")
		return
	}
	if !opts.Limiter.TryAcquire() {
		s.wait(true)
		return
	}
	s.placed = true
	s.forward(b)
}

// renew forgets the request before. The caller holds mu.
func (s *stream) renew() {
	s.head, s.peer, s.secure, s.again, s.tries = head{}, "", false, 0, 0
	s.arrived, s.queued, s.asked, s.responded, s.began, s.code = 0, 0, 0, 0, 0, 0
	s.counted, s.ignored, s.placed, s.bounded, s.idempotent, s.over, s.mine, s.waiting, s.cancel = false, false, false, false, false, false, false, false, nil
}

// unwanted says whether the request is no demand.
func (s *stream) unwanted() bool {
	opts := &s.e.h.opts
	if agent := get(s.fields, "user-agent"); agent != "" {
		for _, prefix := range opts.IgnoreAgents {
			if strings.HasPrefix(agent, prefix) {
				return true
			}
		}
	}
	if len(opts.IgnorePaths) == 0 {
		return false
	}
	path, _, _ := strings.Cut(s.head.path, "?")
	if strings.Contains(path, "%") {
		if p, err := url.PathUnescape(path); err == nil {
			path = p
		}
	}
	return listed(opts.IgnorePaths, path)
}

// ready answers for the sidecar's own readiness; it may wait for the app.
func (s *stream) ready() {
	opts := &s.e.h.opts
	code, reason, text := http.StatusOK, "", "ready"
	switch {
	case opts.Drain.Draining():
		code, reason, text = http.StatusServiceUnavailable, "draining", "draining"
	case opts.Check(s.e.ctx) != nil:
		code, reason, text = http.StatusServiceUnavailable, exposition.AppUnreachable.String(), "the app does not answer"
	}
	var b burst
	s.mu.Lock()
	s.waiting = false
	if s.over {
		s.recycle()
	} else {
		s.own(&b, code, reason, text)
	}
	s.mu.Unlock()
	b.flush()
}

// forward asks the app. The caller holds mu.
func (s *stream) forward(b *burst) {
	if s.asked == 0 {
		s.asked = s.e.h.opts.Now()
	}
	if !s.e.apps.open(b, s) {
		s.wait(false)
	}
}

// wait lets a goroutine wait for what the request needs: a place, or a connection to the app. The caller holds mu.
func (s *stream) wait(place bool) {
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(s.e.ctx)
	s.waiting = true
	s.e.wg.Go(func() { s.start(ctx, place) })
}

func (s *stream) start(ctx context.Context, place bool) {
	opts := &s.e.h.opts
	var b burst
	defer b.flush()
	err := error(nil)
	if place {
		err = opts.Limiter.Acquire(ctx)
	}
	for first := true; ; first = false {
		if err == nil && (!first || !place) {
			err = s.e.apps.wait(ctx)
		}
		s.mu.Lock()
		if first && place && err == nil {
			s.queued = opts.Now() - s.arrived
			if s.over {
				opts.Limiter.Release()
			} else {
				s.placed = true
				s.asked = opts.Now()
			}
		}
		if s.over || s.mine || err != nil || s.e.apps.open(&b, s) {
			break
		}
		s.mu.Unlock()
	}
	defer s.mu.Unlock()
	s.waiting = false
	cut := err != nil && ctx.Err() != nil
	s.cancel()
	switch {
	case s.over:
		s.recycle()
	case s.mine: // answered meanwhile, and the client has not taken it yet
	case errors.Is(err, limit.ErrFull):
		s.refuse(&b, http.StatusServiceUnavailable, exposition.QueueFull, "too many requests are waiting for the app")
	case errors.Is(err, limit.ErrTimeout):
		s.refuse(&b, http.StatusServiceUnavailable, exposition.QueueTimeout, "the app was busy for too long")
	case cut:
		s.c.cut(&b, http2.Cancel) // the server cuts what runs
		s.clientLeft(&b)
	case err != nil:
		s.failed(&b, err)
	}
}

// failed answers for an app that cannot be reached. The caller holds mu.
func (s *stream) failed(b *burst, err error) {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		s.refuse(b, http.StatusBadGateway, exposition.AppUnreachable, "the app accepts no connection")
		return
	}
	s.refuse(b, http.StatusBadGateway, exposition.AppError, "the app closed the connection or broke the protocol")
}

// refuse answers in the app's place. The caller holds mu.
func (s *stream) refuse(b *burst, code int, why exposition.Reason, text string) {
	if !s.ignored {
		s.e.h.opts.Metrics.Refused(why)
	}
	s.own(b, code, why.String(), text)
}

// own sends a one-line answer of the sidecar's own; to a gRPC caller one without a body, by gRPC's "trailers only". The caller
// holds mu.
func (s *stream) own(b *burst, code int, reason, text string) {
	s.a.cut(b, http2.Cancel)
	s.responded, s.mine = max(s.e.h.opts.Now(), 1), true
	s.code = code
	if isGRPC(get(s.fields, "content-type")) {
		s.begin(b, http.StatusOK, []hpack.HeaderField{
			{Name: "content-type", Value: "application/grpc"},
			{Name: "grpc-status", Value: grpcStatus(code)},
			{Name: "grpc-message", Value: text}, // no text of ours needs an escape
			{Name: strings.ToLower(ReasonHeader), Value: reason},
		}, true)
		return
	}
	text += "\n"
	fields := []hpack.HeaderField{
		{Name: "content-type", Value: "text/plain; charset=utf-8"},
		{Name: "x-content-type-options", Value: "nosniff"},
		{Name: "cache-control", Value: "no-store"},
		{Name: "content-length", Value: strconv.Itoa(len(text))},
	}
	if code == http.StatusServiceUnavailable {
		fields = append(fields, hpack.HeaderField{Name: "retry-after", Value: "1"})
	}
	if code == http.StatusMethodNotAllowed {
		fields = append(fields, hpack.HeaderField{Name: "allow", Value: "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"})
	}
	if reason != "" {
		fields = append(fields, hpack.HeaderField{Name: strings.ToLower(ReasonHeader), Value: reason})
	}
	end := s.head.method == http.MethodHead
	s.begin(b, code, fields, end)
	if !end && s.c.l != nil {
		s.c.fin = true
		n := s.c.put(b, []byte(text), true)
		s.c.queue.push(&s.e.chunks, []byte(text[n:]))
		if s.c.sentFin {
			s.complete(b)
		}
	}
}

// begin sends the head of the final answer to the client. The caller holds mu.
func (s *stream) begin(b *burst, code int, fields []hpack.HeaderField, end bool) {
	l := s.c.l
	if l == nil {
		return
	}
	h := s.e.h
	now := h.opts.Now()
	s.began = max(now, 1)
	l.mu.Lock()
	if !l.closed {
		l.putResponse(s.c.id, code, fields, h.dateValue(), end)
		if h.opts.Drain.Draining() {
			l.warn(b, now)
		}
		l.mark(b)
	}
	l.mu.Unlock()
	if end {
		s.c.sentFin = true
		s.complete(b)
	}
}

// answer takes a header block of the app's. The caller holds mu.
func (s *stream) answer(b *burst, g *block) {
	a := &s.a
	if s.responded > 0 { // trailers
		if !g.end || g.bad || g.big || g.status != 0 || !a.counts(0, true) {
			s.broken(b, a, http2.ProtocolError)
			return
		}
		a.gotFin = true
		s.passTrailers(b, a, g.fields)
		return
	}
	if g.bad || g.big || g.status == 0 || g.status == http.StatusSwitchingProtocols || g.status < 200 && g.end {
		s.broken(b, a, http2.ProtocolError)
		return
	}
	if g.status < 200 {
		l := s.c.l
		l.mu.Lock()
		if !l.closed {
			l.putResponse(s.c.id, g.status, g.fields, "", false)
			l.mark(b)
		}
		l.mu.Unlock()
		return
	}
	s.responded = s.e.h.opts.Now()
	s.code = g.status
	s.sent = s.sent[:0]
	bodyless := s.head.method == http.MethodHead || g.status == http.StatusNoContent || g.status == http.StatusNotModified
	if !bodyless {
		a.length = g.length
		if g.end && g.length > 0 {
			s.responded = 0
			s.broken(b, a, http2.ProtocolError)
			return
		}
	}
	s.bounded = s.bounded && (g.end || bodyless || g.length >= 0)
	a.gotFin = g.end
	a.l.mu.Lock()
	a.l.used = true
	a.l.mu.Unlock()
	s.begin(b, g.status, g.fields, g.end)
}

// pass passes a piece of the body on that came from one side. The caller holds mu.
func (s *stream) pass(b *burst, from *half, p []byte, end bool) {
	to := from.other()
	switch {
	case from == &s.a && s.responded == 0:
		s.broken(b, from, http2.ProtocolError) // a body before the head
		return
	case to.l == nil && (from == &s.a || s.responded > 0):
		from.credit(b, len(p), 0) // nobody wants it any more
		return
	}
	if from == &s.c && s.responded == 0 {
		if len(s.sent)+len(p) <= replayed {
			s.sent = append(s.sent, p...)
		} else {
			s.whole = false
		}
	}
	to.fin = to.fin || end
	n := 0
	if to.l != nil && to.queue.n == 0 && (len(p) > 0 || end) {
		n = to.put(b, p, end)
	}
	if n < len(p) {
		to.queue.push(&s.e.chunks, p[n:])
		if l := from.l; l != nil {
			l.mu.Lock()
			l.held += len(p) - n
			l.mu.Unlock()
		}
	}
	if n > 0 {
		from.credit(b, n, 0)
	}
	if to.sentFin && to == &s.c {
		s.complete(b)
	}
}

// passTrailers passes the fields on that end what came from one side. The caller holds mu.
func (s *stream) passTrailers(b *burst, from *half, fields []hpack.HeaderField) {
	to := from.other()
	to.fin = true
	if to.l != nil && to.queue.n == 0 {
		to.end(b, fields)
		return
	}
	to.trailers = slices.Clone(fields)
}

// complete ends a stream whose answer went out whole. The caller holds mu.
func (s *stream) complete(b *burst) {
	if s.over {
		return
	}
	if !s.c.gotFin {
		s.c.cut(b, http2.NoError) // what is left of the request is of no use
	}
	if s.a.l != nil && (!s.a.sentFin || !s.a.gotFin) {
		s.a.cut(b, http2.Cancel)
	}
	s.done(b)
}

// done ends the stream's accounting, and lets everything go that it holds. The caller holds mu.
func (s *stream) done(b *burst) {
	if s.over {
		return
	}
	s.over = true
	s.account()
	if s.placed {
		s.e.h.opts.Limiter.Release()
	}
	s.c.close(b)
	s.a.close(b)
	s.c.queue.clear(&s.e.chunks)
	s.a.queue.clear(&s.e.chunks)
	s.c.trailers, s.a.trailers = nil, nil
	if s.waiting {
		if s.cancel != nil {
			s.cancel()
		}
		return // who waits recycles it
	}
	s.recycle()
}

// recycle lets the stream be used again. The caller holds mu, and does nothing more with it.
func (s *stream) recycle() {
	clear(s.fields[:cap(s.fields)])
	s.e.streams.Put(s)
}

func (s *stream) account() {
	if !s.counted {
		return
	}
	s.counted = false
	opts := &s.e.h.opts
	now := opts.Now()
	overhead := time.Duration(-1)
	if s.asked > 0 && s.responded > 0 && s.began >= s.responded && !s.mine {
		overhead = s.asked - s.arrived - s.queued + s.began - s.responded
	}
	if s.code == 0 {
		s.code = http.StatusBadGateway
	}
	opts.Metrics.Finished(s.code, now-s.arrived, overhead)
	opts.InFlight.End(now) // last: what is no longer in flight was counted
}

// clientLeft ends the stream of a client that left or reset it. The caller holds mu.
func (s *stream) clientLeft(b *burst) {
	if s.over {
		return
	}
	if s.began == 0 {
		s.code = statusClientLeft
		if s.counted {
			s.e.h.opts.Metrics.Refused(exposition.ClientLeft)
		}
	}
	s.c.close(b)
	s.a.cut(b, http2.Cancel)
	s.done(b)
}

// broken ends a stream on which one side broke the protocol. The caller holds mu.
func (s *stream) broken(b *burst, side *half, code http2.Code) {
	side.cut(b, code)
	if side == &s.a {
		s.gaveUp(b)
		return
	}
	if s.began == 0 {
		s.code = http.StatusBadRequest
		if s.counted {
			s.e.h.opts.Metrics.Refused(exposition.BadRequest)
		}
	}
	s.a.cut(b, http2.Cancel)
	s.done(b)
}

// gaveUp ends a stream whose app's side has ended before its time. The caller holds mu.
func (s *stream) gaveUp(b *burst) {
	if s.began == 0 {
		s.failed(b, nil)
		return
	}
	s.c.cut(b, http2.InternalError) // the client must be able to tell that the rest is missing
	s.done(b)
}

// appReset takes a reset by the app. The caller holds mu.
func (s *stream) appReset(b *burst, code http2.Code) {
	whole := s.a.gotFin
	s.a.close(b)
	switch {
	case whole: // it only wants no more of the request
	case s.responded > 0:
		if code == http2.NoError || code == http2.RefusedStream { // neither is true of an answer that has begun
			code = http2.InternalError
		}
		s.c.cut(b, code)
		s.done(b)
	case code == http2.RefusedStream && s.whole && s.tries < replays:
		s.replay()
	default:
		s.failed(b, nil)
	}
}

// appLost ends the app's side when its connection has ended. The caller holds mu.
func (s *stream) appLost(b *burst) {
	l := s.a.l
	l.mu.Lock()
	used := l.used
	l.mu.Unlock()
	whole := s.a.gotFin
	s.a.close(b)
	switch {
	case whole:
	case s.responded == 0 && s.idempotent && used && s.tries == 0:
		// A kept connection that the app closes just as a request is sent on it says nothing of the request.
		s.replay()
	default:
		s.gaveUp(b)
	}
}

// replay asks the app again, which has not worked on the request. The caller holds mu.
func (s *stream) replay() {
	s.tries++
	rest := s.a.queue.n
	s.a.queue.clear(&s.e.chunks)
	fin, trailers := s.a.fin, s.a.trailers
	s.a.renew(nil, 0)
	s.a.fin, s.a.trailers = fin, trailers
	// sent holds what was sent and what waits in the queue.
	s.a.queue.push(&s.e.chunks, s.sent)
	s.again = len(s.sent) - (rest - s.again)
	s.wait(false)
}

// look enforces the timeouts. The caller holds mu.
func (s *stream) look(b *burst, now time.Duration) {
	opts := &s.e.h.opts
	late := s.asked > 0 && s.responded == 0 && opts.ResponseTimeout > 0 && now-s.asked >= opts.ResponseTimeout
	long := s.bounded && opts.RequestTimeout > 0 && now-s.arrived >= opts.RequestTimeout
	switch {
	case s.over || !late && !long || s.ignored && !late:
	case s.began > 0:
		if !s.mine {
			s.c.cut(b, http2.InternalError)
			s.a.cut(b, http2.Cancel)
			s.done(b)
		}
	default:
		if s.waiting && s.cancel != nil {
			s.cancel()
		}
		s.refuse(b, http.StatusGatewayTimeout, exposition.AppTimeout, "the app did not answer in time")
	}
}

// queue is bytes that wait. The zero value is empty.
type queue struct {
	chunks []*chunk
	r, w   int // in the first and in the last chunk
	n      int
}

type chunk [4 << 10]byte

// push puts p behind what waits. Chunks are borrowed from the pool.
func (q *queue) push(pool *sync.Pool, p []byte) {
	q.n += len(p)
	for len(p) > 0 {
		if len(q.chunks) == 0 || q.w == len(chunk{}) {
			c, ok := pool.Get().(*chunk)
			if !ok {
				c = new(chunk)
			}
			q.chunks = append(q.chunks, c)
			q.w = 0
		}
		k := copy(q.chunks[len(q.chunks)-1][q.w:], p)
		q.w += k
		p = p[k:]
	}
}

// front is the first bytes, all of them if they are in one piece.
func (q *queue) front() []byte {
	end := len(chunk{})
	if len(q.chunks) == 1 {
		end = q.w
	}
	return q.chunks[0][q.r:end]
}

// drop takes the first k bytes off, at most those of front.
func (q *queue) drop(pool *sync.Pool, k int) {
	q.n -= k
	q.r += k
	if q.n == 0 {
		q.clear(pool)
	} else if q.r == len(chunk{}) {
		pool.Put(q.chunks[0])
		n := copy(q.chunks, q.chunks[1:])
		q.chunks[n] = nil
		q.chunks = q.chunks[:n]
		q.r = 0
	}
}

func (q *queue) clear(pool *sync.Pool) {
	for i, c := range q.chunks {
		pool.Put(c)
		q.chunks[i] = nil
	}
	*q = queue{chunks: q.chunks[:0]}
}
