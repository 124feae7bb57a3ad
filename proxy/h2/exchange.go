package h2

import (
	"context"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/sluice-autoscaler/sluice/proxy/h2/frame"
	"github.com/sluice-autoscaler/sluice/proxy/h2/header"
	"github.com/sluice-autoscaler/sluice/proxy/h2/transport"
	"github.com/sluice-autoscaler/sluice/proxy/request"
)

const (
	// maxReplayBytes is how much of a request's body is kept for the case that the app has not
	// worked on the request.
	maxReplayBytes = 4 << 10
	// maxReplays bounds how often a request is sent again.
	maxReplays = 3
)

// exchange is a request over HTTP/2 and its answer: a stream to the client and one to the app. mu
// guards it: the caller of a method holds mu, unless the method's comment says otherwise. Exchanges
// are reused for other requests.
type exchange struct {
	mu               sync.Mutex
	e                *Engine
	client, upstream transport.Stream
	request          header.Request // with memory of its own for the fields

	replay     []byte // the beginning of the body, as long as it may be needed again
	replayAll  bool   // replay is all that went to the app
	recredited int    // bytes waiting on upstream that the client's window has back
	tries      int

	account    request.Account
	bounded    bool // the total timeout holds
	replayable bool // idempotent and without a body
	ended      bool // nothing happens any more
	waiting    bool // a goroutine waits for a place or for the app
	cancel     context.CancelFunc
}

// newExchange returns an exchange for the request whose head is in block, which it takes the fields
// of. Its mutex is held.
func (e *Engine) newExchange(c *transport.Conn, block *header.Block) *exchange {
	x, ok := e.exchanges.Get().(*exchange)
	if !ok {
		x = &exchange{e: e}
		x.client.Init(&e.group, x, &x.mu)
		x.upstream.Init(&e.group, x, &x.mu)
	}
	x.mu.Lock()
	fields := x.request.Fields[:0]
	x.request = header.Request{Head: block.Head, Fields: block.Fields, Peer: c.Peer, Secure: c.Secure}
	block.Fields = fields
	if x.request.Authority == "" {
		x.request.Authority = header.Get(x.request.Fields, "host")
	}
	x.replay, x.replayAll, x.recredited, x.tries = x.replay[:0], true, 0, 0
	x.account = request.Account{Arrived: e.Rules.Now()}
	x.bounded = block.EndStream || block.Length >= 0
	x.replayable = block.EndStream && request.Replayable(x.request.Method)
	x.ended, x.waiting, x.cancel = false, false, nil
	x.upstream.Renew(block.EndStream)
	return x
}

// Request implements transport.Owner.
func (e *Engine) Request(c *transport.Conn, b *transport.Batch, id uint32, block *header.Block) {
	r := e.Rules
	x := e.newExchange(c, block)
	defer x.mu.Unlock()
	if !c.Accept(&x.client, id, block) {
		return
	}
	switch {
	case block.TooLarge:
		r.Metrics.Refused(request.BadRequest)
		x.answerOwn(b, request.LargeHead.Answer())
		return
	case block.Hop || block.EndStream && block.Length > 0:
		r.Metrics.Refused(request.BadRequest)
		x.answerOwn(b, request.MalformedRequest.Answer())
		return
	}
	kind := request.KindOf(r, x.request.Method, x.request.Path, header.Get(x.request.Fields, "user-agent"))
	x.account.Count(r, kind)
	switch kind {
	case request.Readiness:
		x.waiting = true
		e.group.Go(x.answerReady)
	case request.Connect:
		x.refuse(b, request.ConnectMethod)
	case request.Ignored:
		x.forward(b)
	case request.Demand:
		if !x.account.TakePlace(r) {
			x.wait(true)
			return
		}
		x.forward(b)
	}
}

// answerReady answers for the proxy's own readiness; it may wait for the app. The caller does not
// hold mu.
func (x *exchange) answerReady() {
	a := x.e.Rules.Ready(x.e.ctx)
	var b transport.Batch
	x.mu.Lock()
	x.waiting = false
	if x.ended {
		x.recycle()
	} else {
		x.answerOwn(&b, a)
	}
	x.mu.Unlock()
	b.Flush()
}

// forward asks the app.
func (x *exchange) forward(b *transport.Batch) {
	if x.account.Asked == 0 {
		x.account.Asked = x.e.Rules.Now()
	}
	if !x.e.upstreams.open(b, x) {
		x.wait(false)
	}
}

// wait starts a goroutine that waits for what the request needs: a place under the limit, or a
// connection to the app.
func (x *exchange) wait(place bool) {
	var ctx context.Context
	ctx, x.cancel = context.WithCancel(x.e.ctx)
	x.waiting = true
	x.e.group.Go(func() { x.start(ctx, place) })
}

// start waits, and opens the stream to the app. The caller does not hold mu.
func (x *exchange) start(ctx context.Context, place bool) {
	r := x.e.Rules
	var b transport.Batch
	defer b.Flush()
	err := error(nil)
	if place {
		err = r.Limiter.Acquire(ctx)
	}
	for first := true; ; first = false {
		if err == nil && (!first || !place) {
			err = x.e.upstreams.wait(ctx)
		}
		x.mu.Lock()
		if first && place && err == nil {
			now := r.Now()
			x.account.GotPlace(now)
			x.account.Asked = now
			if x.ended {
				x.account.Finish(r)
			}
		}
		if x.ended || x.account.Own || err != nil || x.e.upstreams.open(&b, x) {
			break
		}
		x.mu.Unlock()
	}
	defer x.mu.Unlock()
	x.waiting = false
	cut := err != nil && ctx.Err() != nil
	x.cancel()
	limit, limited := request.LimitFailure(err)
	switch {
	case x.ended:
		x.recycle()
	case x.account.Own: // answered meanwhile, and the client has not taken it yet
	case limited:
		x.refuse(&b, limit)
	case cut:
		x.reset(&b, &x.client, frame.Cancel) // the server cuts what runs
		x.leave(&b)
	case err != nil:
		x.refuse(&b, request.UpstreamFailure(err))
	}
}

// refuse answers in the app's place.
func (x *exchange) refuse(b *transport.Batch, f request.Failure) {
	x.answerOwn(b, x.account.Fail(x.e.Rules, f))
}

// answerOwn sends an answer of the proxy's own; to a gRPC caller one without a body.
func (x *exchange) answerOwn(b *transport.Batch, a request.Answer) {
	x.abandon(b)
	x.account.Responded, x.account.Own, x.account.Code = max(x.e.Rules.Now(), 1), true, a.Code
	var own [request.Fields]request.Field
	code, end, list := a.Code, x.request.Method == http.MethodHead, own[:0]
	if request.IsGRPC(header.Get(x.request.Fields, "content-type")) {
		code, end, list = http.StatusOK, true, a.AppendGRPCFields(list)
	} else {
		list = a.AppendFields(list)
	}
	fields := make([]hpack.HeaderField, len(list))
	for i, f := range list {
		fields[i] = hpack.HeaderField{Name: f.Lower, Value: f.Value}
	}
	x.begin(b, code, fields, end)
	if !end && x.client.Conn() != nil {
		x.client.Send(b, []byte(a.Text+"\n"), true)
		if x.client.Sent() {
			x.complete(b)
		}
	}
}

// begin sends the head of the final answer to the client.
func (x *exchange) begin(b *transport.Batch, code int, fields []hpack.HeaderField, end bool) {
	c := x.client.Conn()
	if c == nil {
		return
	}
	r := x.e.Rules
	now := r.Now()
	x.account.Began = max(now, 1)
	x.client.SendHead(b, code, fields, r.Date(), end)
	if r.Drain.Draining() {
		c.AnnounceGoAway(b, now)
	}
	if end {
		x.complete(b)
	}
}

// Answer implements transport.Exchange.
func (x *exchange) Answer(b *transport.Batch, block *header.Block) {
	up := &x.upstream
	if x.account.Responded > 0 { // trailers
		if !block.EndStream || block.Malformed || block.TooLarge || block.Status != 0 || !up.Receive(0, true) {
			x.Broken(b, up, frame.ProtocolError)
			return
		}
		x.Trailers(b, up, block.Fields)
		return
	}
	status := block.Status
	if block.Malformed || block.TooLarge || status == 0 || status == http.StatusSwitchingProtocols || status < 200 && block.EndStream {
		x.Broken(b, up, frame.ProtocolError)
		return
	}
	if status < 200 {
		x.client.SendHead(b, status, block.Fields, "", false)
		return
	}
	bodyless := request.Bodyless(x.request.Method == http.MethodHead, status)
	if !bodyless {
		up.Expect(block.Length)
	}
	if !up.Receive(0, block.EndStream) {
		x.Broken(b, up, frame.ProtocolError)
		return
	}
	x.account.Responded, x.account.Code = x.e.Rules.Now(), status
	x.replay = x.replay[:0]
	x.bounded = x.bounded && (block.EndStream || bodyless || block.Length >= 0)
	up.MarkAnswered()
	x.begin(b, status, block.Fields, block.EndStream)
}

// other is the other side of the exchange.
func (x *exchange) other(s *transport.Stream) *transport.Stream {
	if s == &x.client {
		return &x.upstream
	}
	return &x.client
}

// Body implements transport.Exchange: it passes a piece of the body on.
func (x *exchange) Body(b *transport.Batch, from *transport.Stream, p []byte, end bool) {
	to := x.other(from)
	switch {
	case from == &x.upstream && x.account.Responded == 0:
		x.Broken(b, from, frame.ProtocolError) // a body before the head
		return
	case to.Conn() == nil && (from == &x.upstream || x.account.Responded > 0):
		from.Credit(b, len(p), 0) // no one reads it
		return
	}
	if from == &x.client && x.account.Responded == 0 {
		if len(x.replay)+len(p) <= maxReplayBytes {
			x.replay = append(x.replay, p...)
		} else {
			x.replayAll = false
		}
	}
	n := to.Send(b, p, end)
	if n < len(p) {
		from.Hold(len(p) - n)
	}
	if n > 0 {
		from.Credit(b, n, 0)
	}
	if to.Sent() && to == &x.client {
		x.complete(b)
	}
}

// Trailers implements transport.Exchange: it passes the fields on that end a side.
func (x *exchange) Trailers(b *transport.Batch, from *transport.Stream, fields []hpack.HeaderField) {
	x.other(from).SendTrailers(b, fields)
}

// Passed implements transport.Exchange.
func (x *exchange) Passed(b *transport.Batch, s *transport.Stream, n int) {
	if s == &x.upstream {
		old := min(n, x.recredited)
		x.recredited -= old
		n -= old
	}
	x.other(s).Credit(b, n, n)
}

// Sent implements transport.Exchange.
func (x *exchange) Sent(b *transport.Batch, s *transport.Stream) {
	if s == &x.client {
		x.complete(b)
	}
}

// held is how many of the bytes that came on s wait on the other side.
func (x *exchange) held(s *transport.Stream) int {
	n := x.other(s).Waiting()
	if s == &x.client {
		n -= x.recredited
	}
	return n
}

func (x *exchange) reset(b *transport.Batch, s *transport.Stream, code frame.Code) {
	s.Reset(b, code, x.held(s))
}

// abandon resets the stream to the app, since nobody wants the answer any more. The app may still
// work on the request, which keeps its place under the limit until the app has read the reset.
func (x *exchange) abandon(b *transport.Batch) {
	s := &x.upstream
	if s.Received() || !x.account.Limited(x.e.Rules) {
		x.reset(b, s, frame.Cancel)
	} else if s.Cancel(b, frame.Cancel, x.held(s)) {
		x.account.LeavePlace()
	}
}

func (x *exchange) close(b *transport.Batch, s *transport.Stream) { s.Close(b, x.held(s)) }

// complete ends an exchange whose answer was sent completely.
func (x *exchange) complete(b *transport.Batch) {
	if x.ended {
		return
	}
	if !x.client.Received() {
		x.reset(b, &x.client, frame.NoError) // the rest of the request is not needed
	}
	if !x.upstream.Sent() || !x.upstream.Received() {
		x.abandon(b)
	}
	x.end(b)
}

// end ends the account, and frees what the exchange holds.
func (x *exchange) end(b *transport.Batch) {
	if x.ended {
		return
	}
	x.ended = true
	x.account.Finish(x.e.Rules)
	x.close(b, &x.client)
	x.close(b, &x.upstream)
	x.client.Discard()
	x.upstream.Discard()
	if x.waiting {
		if x.cancel != nil {
			x.cancel()
		}
		return // the waiting goroutine recycles it
	}
	x.recycle()
}

// recycle returns the exchange to the pool; the caller does not use it afterwards.
func (x *exchange) recycle() {
	clear(x.request.Fields[:cap(x.request.Fields)])
	x.e.exchanges.Put(x)
}

// leave ends the exchange of a client that left or reset its stream.
func (x *exchange) leave(b *transport.Batch) {
	if x.ended {
		return
	}
	if x.account.Began == 0 {
		x.account.Leave(x.e.Rules)
	}
	x.close(b, &x.client)
	x.abandon(b)
	x.end(b)
}

// Broken implements transport.Exchange.
func (x *exchange) Broken(b *transport.Batch, s *transport.Stream, code frame.Code) {
	x.reset(b, s, code)
	if s == &x.upstream {
		x.giveUp(b)
		return
	}
	if x.account.Began == 0 {
		x.account.Code = http.StatusBadRequest
		x.account.Refuse(x.e.Rules, request.BadRequest)
	}
	x.abandon(b)
	x.end(b)
}

// giveUp ends an exchange whose stream to the app has ended early.
func (x *exchange) giveUp(b *transport.Batch) {
	if x.account.Began == 0 {
		x.refuse(b, request.BrokenAnswer)
		return
	}
	// the client must be able to tell that the rest is missing
	x.reset(b, &x.client, frame.InternalError)
	x.end(b)
}

// Reset implements transport.Exchange.
func (x *exchange) Reset(b *transport.Batch, s *transport.Stream, code frame.Code) (unanswered bool) {
	unanswered = x.account.Began == 0
	if s == &x.client {
		x.leave(b)
		return unanswered
	}
	received := s.Received()
	x.close(b, s)
	switch {
	case received: // the app only stops reading the request
	case x.account.Responded > 0:
		// neither is true of an answer that has begun
		if code == frame.NoError || code == frame.RefusedStream {
			code = frame.InternalError
		}
		x.reset(b, &x.client, code)
		x.end(b)
	case code == frame.RefusedStream && x.replayAll && x.tries < maxReplays:
		x.sendAgain()
	default:
		x.refuse(b, request.BrokenAnswer)
	}
	return unanswered
}

// Lost implements transport.Exchange.
func (x *exchange) Lost(b *transport.Batch, s *transport.Stream) {
	if s == &x.client {
		x.leave(b)
		return
	}
	answeredBefore, received := s.Conn().AnsweredBefore(), s.Received()
	x.close(b, s)
	switch {
	case received:
	case x.account.Responded == 0 && x.replayable && answeredBefore && x.tries == 0:
		// The app may close a kept connection just as a request is sent on it; it has not seen the
		// request then.
		x.sendAgain()
	default:
		x.giveUp(b)
	}
}

// sendAgain sends the request again to the app, which has not worked on it.
func (x *exchange) sendAgain() {
	x.tries++
	// replay holds what was sent and what waits.
	x.recredited += len(x.replay) - x.upstream.Waiting()
	x.upstream.Restart(x.replay)
	x.wait(false)
}

// Check implements transport.Exchange.
func (x *exchange) Check(b *transport.Batch, now time.Duration) {
	r, a := x.e.Rules, &x.account
	late := a.Asked > 0 && a.Responded == 0 && r.AnswerLate(a.Asked, now)
	long := x.bounded && r.RequestLate(a.Arrived, now)
	switch {
	case x.ended || !late && !long:
	case a.Began > 0:
		if !a.Own {
			x.reset(b, &x.client, frame.InternalError)
			x.abandon(b)
			x.end(b)
		}
	default:
		if x.waiting && x.cancel != nil {
			x.cancel()
		}
		if late {
			x.refuse(b, request.LateAnswer)
		} else {
			x.refuse(b, request.UnfinishedAnswer)
		}
	}
}
