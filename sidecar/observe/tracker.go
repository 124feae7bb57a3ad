package observe

import (
	"math"
	"slices"
	"time"

	"github.com/sluice-autoscaler/sluice/proxy/inflight"
	"github.com/sluice-autoscaler/sluice/sidecar/observe/sockdiag"
)

const (
	// silenceFactor times the longest silence within an answer is how long a further silence may
	// last before the answer counts as complete; longestSilence bounds it.
	silenceFactor  = 4
	longestSilence = 5 * time.Second
	// streamAfter is how long an answer trickles before its connection counts as streaming.
	streamAfter = 250 * time.Millisecond
	// Bytes a segment below which what begins an exchange cannot be a request of HTTP/1 ("GET /
	// HTTP/1.0" and two line ends), and what answers one cannot be an answer ("HTTP/1.1 200 " and
	// two line ends).
	shortestRequest, shortestAnswer = 18, 17
	// maxOutOfTurn is how often data must come against HTTP/1's order, in turns, before a
	// connection counts as opaque.
	maxOutOfTurn = 3
	// maxEnded bounds the requests of a connection that end between two samples, whatever the
	// kernel says.
	maxEnded = 1 << 14
	// horizon is the time constant of the estimated error: what is older counts less.
	horizon = 30 * time.Second
)

// Kind is how the observer classifies a connection.
type Kind int

// The kinds. A connection that is Opaque stays so.
const (
	// Idle: no request has come, or the last one was answered.
	Idle Kind = iota
	// Busy: a request is in flight.
	Busy
	// Streaming: an answer comes bit by bit; it counts as in flight until it falls silent for long,
	// so its end is a guess.
	Streaming
	// Opaque: it carries something other than one HTTP/1 request after another, such as multiplexed
	// HTTP/2 or WebSocket. It counts as one request at most.
	Opaque
	kinds int = iota
)

func (k Kind) String() string {
	switch k {
	case Idle:
		return "idle"
	case Busy:
		return "busy"
	case Streaming:
		return "streaming"
	case Opaque:
		return "opaque"
	default:
		return "unknown"
	}
}

// Tracker follows samples of the kernel's view of connections. It estimates which connections have
// a request in flight and which requests have ended. It is pure: the caller passes the instants, as
// the time since a fixed origin, and the samples. Between Begin and Commit the caller calls See for
// each connection. It is not safe for concurrent use.
//
// On HTTP/1 client and app take turns, so a request is in flight when data was received more
// recently than sent, and the kernel also tells how long ago. That gives the very instants (to a
// tick of the kernel) at which a request began and ended, if no more than one did so since the last
// sample; else what the samples see is spread over the time between them. Within one tick the
// kernel's times do not tell which was last: then the number of data segments each way decides.
type Tracker struct {
	counter  *inflight.Counter
	finished func(took time.Duration)

	conns     map[sockdiag.ID]*conn
	round     uint64
	prev, now time.Duration
	listed    time.Duration // of the last complete list; < 0 before the first
	complete  bool
	accepted  int // since the last list; < 0 unknown
	appeared  int // connections that are new since the last list
	events    []event
	stats     Stats
	variance  float64 // of the integral, in request-seconds², older ones decayed
	doubtful  float64 // request-seconds that may be wrong altogether, decayed
	total     float64 // the integral, decayed
	moved     bool
}

// Stats are the results of the last sample.
type Stats struct {
	// Connections is their number by Kind.
	Connections [kinds]int
	// Coverage is the share (0–1) of the connections that is readable, i.e. neither Streaming nor
	// Opaque; 1 without any.
	Coverage float64
	// Error is the estimated relative error of the integral over the last half minute, ≥ 0: one
	// standard deviation for what was sampled, and all of what readable connections were guessed
	// at. What Opaque connections hide is not in it.
	Error float64
	// Uncertain is the part of the integral, in request-seconds, that is a guess.
	Uncertain float64
	// Moved says that data has passed since the previous sample, or that a request is in flight.
	Moved bool
	// Churn says that connections are so short that only complete lists show enough of them.
	Churn bool
}

// event is a change of the number in flight.
type event struct {
	at time.Duration
	by int
}

// conn is the state of a connection.
type conn struct {
	round           uint64
	family          uint8
	inFlight        bool // a request is in flight
	opaque          bool
	outOfTurn       [2]int // data against the order: received, sent
	received, sent  uint64
	segsIn, segsOut uint32
	duplicates      uint32        // segments received that brought nothing new; not among segsIn
	maxSilence      time.Duration // > 0: the answer comes in bits, and silence of so long ends it
	lastSent        time.Duration // when the app last sent
	answerBegan     time.Duration // when the answer that comes in bits began
	began           time.Duration // when the present request began
}

// NewTracker returns a Tracker that keeps counter, and calls finished for each request that has
// ended, with how long it took or, where that could not be seen, a negative time. finished may be
// nil.
func NewTracker(counter *inflight.Counter, finished func(took time.Duration)) *Tracker {
	if finished == nil {
		finished = func(time.Duration) {}
	}
	return &Tracker{counter: counter, finished: finished, conns: map[sockdiag.ID]*conn{}, listed: -1, stats: Stats{Coverage: 1}}
}

// Begin begins a sample at now, which is later than the one before. A complete one is shown every
// connection, another only those of Known. accepted is how many connections have come since the
// last complete one, to this port or another, or negative where that is unknown.
func (t *Tracker) Begin(now time.Duration, complete bool, accepted int) {
	t.round++
	t.prev, t.now, t.complete, t.accepted = t.now, now, complete, accepted
	t.events = t.events[:0]
	t.appeared = 0
	t.moved = false
	t.stats.Connections = [kinds]int{}
	if complete && t.listed >= 0 && accepted >= 2 && accepted*2 >= 3*len(t.conns) {
		t.stats.Churn = true // until Commit has seen how many of them are still there
	}
}

// Known appends the connections that the Tracker knows.
func (t *Tracker) Known(ids []sockdiag.ID, families []uint8) ([]sockdiag.ID, []uint8) {
	for id, c := range t.conns {
		ids, families = append(ids, id), append(families, c.family)
	}
	return ids, families
}

// See shows the Tracker a connection, which it does not keep.
func (t *Tracker) See(k *sockdiag.Conn) {
	c := t.conns[k.ID]
	if k.State != sockdiag.Established && k.State != sockdiag.CloseWait {
		return // closed by the app: Commit ends it
	}
	fresh := c == nil
	if fresh {
		c = &conn{family: k.Family}
		t.conns[k.ID] = c
		if t.listed < 0 { // it was there before us: what it did before is not ours to count
			c.segsIn, c.segsOut = k.SegmentsIn, k.SegmentsOut
			c.received, c.sent = k.Received, k.Sent
		} else {
			t.appeared++
		}
	} else if c.round == t.round {
		return // listed twice
	}
	c.round = t.round
	t.update(c, k, fresh)

	kind := Idle
	switch {
	case c.opaque:
		kind = Opaque
	case c.inFlight && c.maxSilence > 0 && t.now-c.answerBegan >= streamAfter:
		kind = Streaming
	case c.inFlight:
		kind = Busy
	}
	t.stats.Connections[kind]++
	t.moved = t.moved || c.inFlight
}

// change is what changed on a connection since the last sample.
type change struct {
	fresh    bool   // the connection is new
	was, is  bool   // whether a request was in flight, and is
	sure     bool   // of is
	in, out  uint32 // new data segments, received and sent
	requests float64
	answers  float64
	ended    uint32 // requests
}

// update updates c by the kernel's view of it.
func (t *Tracker) update(c *conn, k *sockdiag.Conn, fresh bool) {
	ch := change{fresh: fresh, was: c.inFlight}
	// modulo 2³², as they wrap
	ch.in, ch.out = k.SegmentsIn-c.duplicates-c.segsIn, k.SegmentsOut-c.segsOut
	if k.Received < c.received || k.Sent < c.sent {
		// what the kernel says makes no sense
		ch.in, ch.out, c.received, c.sent = 0, 0, k.Received, k.Sent
	}
	bytesIn, bytesOut := k.Received-c.received, k.Sent-c.sent
	if bytesIn == 0 {
		// The client had no acknowledgement in time, and sent again what the app has.
		c.duplicates += ch.in
		ch.in = 0
	}
	ch.requests, ch.answers = c.messages(ch.in, ch.out)
	c.segsIn, c.segsOut, c.received, c.sent = k.SegmentsIn-c.duplicates, k.SegmentsOut, k.Received, k.Sent
	if ch.in > 0 || ch.out > 0 {
		t.moved = true
	}
	if !fresh || t.listed >= 0 {
		c.detectOpaque(ch.was, ch.in, ch.out, bytesIn, bytesOut)
	}
	ch.is, ch.sure = inFlight(c, k, ch.was, ch.in, ch.out, bytesIn, ch.requests-ch.answers)
	t.followSilence(c, k, &ch)
	c.inFlight = ch.is
	ch.ended = t.countEnded(&ch)
	t.place(c, k, &ch)
	for range ch.ended {
		t.finished(-1)
	}
	if ch.is && (!ch.sure || c.opaque) {
		t.addDoubtful((t.now - t.prev).Seconds())
	}
}

// followSilence keeps a request in flight whose answer comes in pieces, until it pauses for long.
func (t *Tracker) followSilence(c *conn, k *sockdiag.Conn, ch *change) {
	lastSent := t.now - k.SinceSent
	if ch.out > 0 && ch.in == 0 && !ch.fresh && (!ch.was || c.maxSilence > 0) {
		// The app sends and was not asked: the answer that seemed complete was not.
		if c.maxSilence == 0 {
			c.answerBegan = c.lastSent
		}
		c.maxSilence = max(c.maxSilence, min(silenceFactor*(lastSent-c.lastSent), longestSilence))
	}
	c.lastSent = lastSent
	switch {
	case c.maxSilence == 0:
	case ch.in > 0 && !c.opaque:
		c.maxSilence = 0
	case k.SinceSent < c.maxSilence:
		ch.is = true
	default:
		t.addDoubtful(c.maxSilence.Seconds())
		c.maxSilence, ch.is = 0, false
	}
}

// countEnded says how many requests have ended: no more than came, nor than were answered.
func (t *Tracker) countEnded(ch *change) uint32 {
	requests := ch.requests
	if ch.was {
		requests++
	}
	ended := uint32(math.Round(min(requests, ch.answers, maxEnded)))
	if ended == 0 && ch.out > 0 && (ch.was || ch.in > 0) && (!ch.is || ch.in > 0) {
		ended = 1
	}
	if ch.is && ch.in == 0 || ch.fresh && t.listed < 0 {
		ended = 0
	}
	return ended
}

// place dates the beginnings and ends of requests by the kernel's times, as far as those allow.
func (t *Tracker) place(c *conn, k *sockdiag.Conn, ch *change) {
	interval := t.now - t.prev
	switch since := t.clamp(t.now - k.SinceReceived); {
	case ch.fresh && !ch.is && (ch.ended != 1 || t.stats.Churn):
	case ch.fresh && ch.is && t.stats.Churn:
		// Others like it came and went between two lists unseen. It stands for them by counting for
		// half the time before the list that shows it, and half the time after.
		c.began = since
		t.addEvent(t.prev+interval/2, +1)
		t.addSpread(interval)
	case ch.fresh && ch.is:
		c.began = t.now - k.SinceReceived
		t.addEvent(since, +1)
	case ch.was && !ch.is && ch.ended <= 1:
		at := t.clamp(t.now - k.SinceSent)
		t.addEvent(at, -1)
		t.reportEnded(&ch.ended, at-c.began)
	case !ch.was && ch.is && ch.ended == 0:
		c.began = since
		t.addEvent(since, +1)
	case ch.was == ch.is && ch.ended == 1 && ch.in > 0 && ch.out > 0 && ch.sure:
		// One whole request, or one whole pause, and both its ends.
		at := t.clamp(t.now - k.SinceSent)
		if ch.is {
			t.addEvent(at, -1)
			t.addEvent(max(at, since), +1)
			t.reportEnded(&ch.ended, at-c.began)
			c.began = max(at, since)
		} else {
			t.addEvent(since, +1)
			t.addEvent(max(at, since), -1)
			t.reportEnded(&ch.ended, max(at-since, 0))
		}
	case ch.was != ch.is:
		// Too much has happened to tell when.
		by := 1
		if ch.was {
			by = -1
		}
		c.began = since
		t.addEvent(t.prev+interval/2, by)
		t.addSpread(interval)
	case ch.ended > 1:
		c.began = since
		t.addSpread(interval)
	}
}

// inFlight says whether a request is in flight, and whether that is sure.
func inFlight(c *conn, k *sockdiag.Conn, was bool, in, out uint32, bytesIn uint64, pending float64) (is, sure bool) {
	switch {
	case k.Received == 0:
		return false, true // connected, and silent so far
	case k.Sent == 0:
		return true, true
	case k.Unsent > 0:
		return true, true // the app's answer is too much for the kernel as yet
	case in == 0 && out == 0:
		return was, true
	case c.opaque && in > 0 && out == 0 && bytesIn < uint64(in)*shortestRequest:
		return was, false // a ping, an acknowledgement, a window update
	case k.SinceReceived != k.SinceSent:
		return k.SinceReceived < k.SinceSent, true
	case out == 0:
		return true, true
	case in == 0:
		return false, true
	case k.Unacked > 0:
		return false, true // a later request would have acknowledged it
	}
	// All within a tick, so the number of messages each way decides: of all there were, if each
	// took one segment, else of those since the last sample, if each took about as many as those
	// before.
	switch c.segsIn - c.segsOut {
	case 0:
		return false, true
	case 1:
		return true, true
	}
	if was {
		pending++
	}
	return pending >= 0.5, in == 1
}

// messages is how many requests and answers so many new segments are, if each took about as many
// segments as those before: as many messages went either way, of one segment each on the thinner
// one.
func (c *conn) messages(in, out uint32) (requests, answers float64) {
	allIn, allOut := float64(c.segsIn), float64(c.segsOut)
	if allIn == 0 || allOut == 0 {
		allIn, allOut = allIn+float64(in), allOut+float64(out)
	} else if c.inFlight {
		// The last request is unanswered.
		allIn -= max(math.Round(allIn/(allOut+1)), 1)
	}
	per := func(these, others float64) float64 { return max(math.Round(these/max(others, 1)), 1) }
	return float64(in) / per(allIn, allOut), float64(out) / per(allOut, allIn)
}

// detectOpaque marks a connection that does what HTTP/1 would not do.
func (c *conn) detectOpaque(was bool, in, out uint32, bytesIn, bytesOut uint64) {
	switch {
	case c.opaque:
		return
	case !was && in > 0 && bytesIn < uint64(in)*shortestRequest:
		c.opaque = true // a new exchange begins with less than a request
	case !was && in > 0 && out > 0 && bytesOut < uint64(out)*shortestAnswer:
		c.opaque = true // and this is no answer
	case was && in > 0 && out == 0 && c.outOfTurn[0] <= c.outOfTurn[1]:
		c.outOfTurn[0]++ // more comes while the app is at work: an upload, or other requests
	case !was && out > 0 && in == 0 && c.outOfTurn[1] < c.outOfTurn[0]:
		c.outOfTurn[1]++ // and more goes out: a slow answer, or other answers
	}
	if c.outOfTurn[1] >= maxOutOfTurn {
		c.opaque = true
	}
}

// Commit ends the sample: it advances the integral to now and returns the statistics of the
// connections.
func (t *Tracker) Commit() Stats {
	for id, c := range t.conns {
		if c.round == t.round {
			continue
		}
		// It is gone, at some time since the last sample.
		delete(t.conns, id)
		t.moved = true
		if c.inFlight {
			t.addEvent(t.prev+(t.now-t.prev)/2, -1)
			t.addSpread(t.now - t.prev)
			t.finished(-1)
		}
	}
	slices.SortStableFunc(t.events, func(a, b event) int {
		if a.at != b.at {
			return int(a.at - b.at)
		}
		return b.by - a.by // beginnings first, so that the number never falls below its truth
	})
	before := t.counter.Read(t.prev)
	for _, e := range t.events {
		if e.by > 0 {
			t.counter.Begin(e.at)
		} else {
			t.counter.End(e.at)
		}
	}
	after := t.counter.Read(t.now)

	decay := math.Exp(-(t.now - t.prev).Seconds() / horizon.Seconds())
	t.variance *= decay
	t.doubtful *= decay
	t.total = t.total*decay + after.Seconds - before.Seconds
	s := &t.stats
	if s.Error = 0; t.total > 0 {
		s.Error = min((math.Sqrt(t.variance)+t.doubtful)/t.total, 1)
	}
	all := 0
	for _, n := range s.Connections {
		all += n
	}
	if s.Coverage = 1; all > 0 {
		s.Coverage = float64(s.Connections[Idle]+s.Connections[Busy]) / float64(all)
	}
	s.Moved = t.moved
	if t.complete {
		// Half of a list new since the last one, a few at least: most of what there was between may
		// have gone unseen, and where they are counted, has.
		s.Churn = t.listed >= 0 && t.appeared >= 2 && t.appeared*2 >= all && (t.accepted < 0 || t.accepted*2 >= t.appeared*3)
		t.listed = t.now
	}
	return *s
}

// clamp moves an instant into the present sample's time.
func (t *Tracker) clamp(at time.Duration) time.Duration { return min(max(at, t.prev), t.now) }

func (t *Tracker) addEvent(at time.Duration, by int) { t.events = append(t.events, event{at, by}) }

// reportEnded reports one of the ended requests.
func (t *Tracker) reportEnded(ended *uint32, d time.Duration) {
	if *ended > 0 {
		*ended--
		t.finished(max(d, 0))
	}
}

// addSpread adds the error of a state that was spread over an interval: the request was in flight
// for between none and all of it, which is a standard deviation of interval/√12.
func (t *Tracker) addSpread(interval time.Duration) {
	t.variance += interval.Seconds() * interval.Seconds() / 12
	t.stats.Uncertain += interval.Seconds() / 2
}

// addDoubtful adds request-seconds that may be entirely wrong.
func (t *Tracker) addDoubtful(seconds float64) {
	t.doubtful += seconds
	t.stats.Uncertain += seconds
}
