package observe

import (
	"math"
	"slices"
	"time"

	"github.com/sluice-autoscaler/sluice/proxy/inflight"
	"github.com/sluice-autoscaler/sluice/sidecar/observe/sockdiag"
)

const (
	// holdFactor times the longest silence within an answer is how long a further silence may last before the answer counts as
	// complete; holdMax bounds it.
	holdFactor = 4
	holdMax    = 5 * time.Second
	// streamAfter is how long an answer trickles before its connection counts as streaming.
	streamAfter = 250 * time.Millisecond
	// Bytes a segment below which what begins an exchange cannot be a request of HTTP/1 ("GET / HTTP/1.0" and two line ends), and
	// what answers one cannot be an answer ("HTTP/1.1 200 " and two line ends).
	shortestRequest, shortestAnswer = 18, 17
	// oddities is how often data must come against HTTP/1's order, in turns, before a connection counts as opaque.
	oddities = 3
	// maxEnded bounds the requests of a connection that end between two samples, whatever the kernel says.
	maxEnded = 1 << 14
	// horizon is the time constant of the estimated error: what is older counts less.
	horizon = 30 * time.Second
)

// Kind is what the observer makes of a connection.
type Kind int

// The kinds. A connection that is Opaque stays so.
const (
	// Idle: no request has come, or the last one was answered.
	Idle Kind = iota
	// Busy: a request is in flight.
	Busy
	// Streaming: an answer comes bit by bit; it counts as in flight until it falls silent for long, so its end is a guess.
	Streaming
	// Opaque: it carries something other than one HTTP/1 request after another, such as multiplexed HTTP/2 or WebSocket. It counts
	// as one request at most.
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

// Tracker tells from what the kernel says of connections, again and again, which ones have a request in flight and which
// requests have ended. It is pure: the caller passes the instants, as the time since a fixed origin, and what the kernel
// said. Between Begin and Commit the caller calls See for each connection. It is not safe for concurrent use.
//
// On HTTP/1 client and app take turns, so a request is in flight when data was received more recently than sent, and the
// kernel also tells how long ago. That gives the very instants (to a tick of the kernel) at which a request began and
// ended, if no more than one did so since the last sample; else what the samples see is spread over the time between them. Within one
// tick the kernel's times do not tell which was last: then the number of data segments each way decides.
type Tracker struct {
	counter  *inflight.Counter
	finished func(took time.Duration)

	conns      map[sockdiag.ID]*conn
	round      uint64
	prev, now  time.Duration
	listed     time.Duration // of the last complete list; < 0 before the first
	complete   bool
	accepted   int // since the last list; < 0 unknown
	born, died int
	events     []event
	stats      Stats
	variance   float64 // of the integral, in request-seconds², older ones decayed
	doubtful   float64 // request-seconds that may be wrong altogether, decayed
	total      float64 // the integral, decayed
	moved      bool
}

// Stats are what a Tracker has made of the last sample.
type Stats struct {
	// Connections is their number by Kind.
	Connections [kinds]int
	// Coverage is the share (0–1) of the connections that is readable, i.e. neither Streaming nor Opaque; 1 without any.
	Coverage float64
	// Error is the estimated relative error of the integral over the last half minute, ≥ 0: one standard deviation for what was
	// sampled, and all of what readable connections were guessed at. What Opaque connections hide is not in it.
	Error float64
	// Uncertain is the part of the integral, in request-seconds, that is a guess.
	Uncertain float64
	// Moved tells that data has passed since the sample before, or a request is in flight.
	Moved bool
	// Churn tells that connections come and go so fast that only complete lists see enough of them.
	Churn bool
}

// event is a change of the number in flight.
type event struct {
	at time.Duration
	by int
}

// conn is what is remembered of a connection.
type conn struct {
	round           uint64
	family          uint8
	on              bool // a request is in flight
	opaque          bool
	odd             [2]int // data against the order: received, sent
	received, sent  uint64
	segsIn, segsOut uint32
	again           uint32        // segments received that brought nothing new; not among segsIn
	hold            time.Duration // > 0: the answer comes in bits, and silence of so long ends it
	spoke           time.Duration // when the app last sent
	answered        time.Duration // when the answer that comes in bits began
	began           time.Duration // when the present request began
}

// NewTracker returns a Tracker that keeps counter, and calls finished for each request that has ended, with how long it took or,
// where that could not be seen, a negative time. finished may be nil.
func NewTracker(counter *inflight.Counter, finished func(took time.Duration)) *Tracker {
	if finished == nil {
		finished = func(time.Duration) {}
	}
	return &Tracker{counter: counter, finished: finished, conns: map[sockdiag.ID]*conn{}, listed: -1, stats: Stats{Coverage: 1}}
}

// Begin begins a sample at now, which is later than the one before. A complete one is shown every connection, another only
// those of Known. accepted is how many connections have come since the last complete one, to this port or another, or negative
// where that is unknown.
func (t *Tracker) Begin(now time.Duration, complete bool, accepted int) {
	t.round++
	t.prev, t.now, t.complete, t.accepted = t.now, now, complete, accepted
	t.events = t.events[:0]
	t.born, t.died = 0, 0
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
			t.born++
		}
	} else if c.round == t.round {
		return // listed twice
	}
	c.round = t.round
	t.judge(c, k, fresh)

	kind := Idle
	switch {
	case c.opaque:
		kind = Opaque
	case c.on && c.hold > 0 && t.now-c.answered >= streamAfter:
		kind = Streaming
	case c.on:
		kind = Busy
	}
	t.stats.Connections[kind]++
	t.moved = t.moved || c.on
}

// judge brings c up to what the kernel says now.
func (t *Tracker) judge(c *conn, k *sockdiag.Conn, fresh bool) {
	in, out := k.SegmentsIn-c.again-c.segsIn, k.SegmentsOut-c.segsOut // modulo 2³², as they wrap
	if k.Received < c.received || k.Sent < c.sent {
		in, out, c.received, c.sent = 0, 0, k.Received, k.Sent // what the kernel says makes no sense
	}
	bytesIn, bytesOut := k.Received-c.received, k.Sent-c.sent
	if bytesIn == 0 {
		// The client had no acknowledgement in time, and sent again what the app has.
		c.again += in
		in = 0
	}
	requests, answers := c.messages(in, out)
	c.segsIn, c.segsOut, c.received, c.sent = k.SegmentsIn-c.again, k.SegmentsOut, k.Received, k.Sent
	if in > 0 || out > 0 {
		t.moved = true
	}
	interval := t.now - t.prev
	was := c.on
	if !fresh || t.listed >= 0 {
		c.suspect(was, in, out, bytesIn, bytesOut)
	}

	is, sure := inFlight(c, k, was, in, out, bytesIn, requests-answers)
	spoke := t.now - k.SinceSent
	if out > 0 && in == 0 && !fresh && (!was || c.hold > 0) {
		// The app sends and was not asked: the answer that seemed complete was not.
		if c.hold == 0 {
			c.answered = c.spoke
		}
		c.hold = max(c.hold, min(holdFactor*(spoke-c.spoke), holdMax))
	}
	c.spoke = spoke
	switch {
	case c.hold == 0:
	case in > 0 && !c.opaque:
		c.hold = 0
	case k.SinceSent < c.hold:
		is = true
	default:
		t.doubt(c.hold.Seconds())
		c.hold, is = 0, false
	}
	c.on = is

	// How many requests have ended: no more than came, nor than were answered.
	if was {
		requests++
	}
	ended := uint32(math.Round(min(requests, answers, maxEnded)))
	if ended == 0 && out > 0 && (was || in > 0) && (!is || in > 0) {
		ended = 1
	}
	if is && in == 0 || fresh && t.listed < 0 {
		ended = 0
	}

	switch since := t.clamp(t.now - k.SinceReceived); {
	case fresh && !is && (ended != 1 || t.stats.Churn):
	case fresh && is && t.stats.Churn:
		// Others like it came and went between two lists unseen. It stands for them by counting for half the time before the
		// list that shows it, and half the time after.
		c.began = since
		t.event(t.prev+interval/2, +1)
		t.guess(interval)
	case fresh && is:
		c.began = t.now - k.SinceReceived
		t.event(since, +1)
	case was && !is && ended <= 1:
		at := t.clamp(t.now - k.SinceSent)
		t.event(at, -1)
		t.took(&ended, at-c.began)
	case !was && is && ended == 0:
		c.began = since
		t.event(since, +1)
	case was == is && ended == 1 && in > 0 && out > 0 && sure:
		// One whole request, or one whole pause, and both its ends.
		at := t.clamp(t.now - k.SinceSent)
		if is {
			t.event(at, -1)
			t.event(max(at, since), +1)
			t.took(&ended, at-c.began)
			c.began = max(at, since)
		} else {
			t.event(since, +1)
			t.event(max(at, since), -1)
			t.took(&ended, max(at-since, 0))
		}
	case was != is:
		// Too much has happened to tell when.
		by := 1
		if was {
			by = -1
		}
		c.began = since
		t.event(t.prev+interval/2, by)
		t.guess(interval)
	case ended > 1:
		c.began = since
		t.guess(interval)
	}
	for range ended {
		t.finished(-1)
	}
	if is && (!sure || c.opaque) {
		t.doubt(interval.Seconds())
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
	// All within a tick, so the number of messages each way decides: of all there were, if each took one segment, else of those
	// since the last sample, if each took about as many as those before.
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

// messages is how many requests and answers so many new segments are, if each took about as many segments as those before: as
// many messages went either way, of one segment each on the thinner one.
func (c *conn) messages(in, out uint32) (requests, answers float64) {
	allIn, allOut := float64(c.segsIn), float64(c.segsOut)
	if allIn == 0 || allOut == 0 {
		allIn, allOut = allIn+float64(in), allOut+float64(out)
	} else if c.on {
		// The last request is unanswered.
		allIn -= max(math.Round(allIn/(allOut+1)), 1)
	}
	per := func(these, others float64) float64 { return max(math.Round(these/max(others, 1)), 1) }
	return float64(in) / per(allIn, allOut), float64(out) / per(allOut, allIn)
}

// suspect looks for what HTTP/1 would not do.
func (c *conn) suspect(was bool, in, out uint32, bytesIn, bytesOut uint64) {
	switch {
	case c.opaque:
		return
	case !was && in > 0 && bytesIn < uint64(in)*shortestRequest:
		c.opaque = true // a new exchange begins with less than a request
	case !was && in > 0 && out > 0 && bytesOut < uint64(out)*shortestAnswer:
		c.opaque = true // and this is no answer
	case was && in > 0 && out == 0 && c.odd[0] <= c.odd[1]:
		c.odd[0]++ // more comes while the app is at work: an upload, or other requests
	case !was && out > 0 && in == 0 && c.odd[1] < c.odd[0]:
		c.odd[1]++ // and more goes out: a slow answer, or other answers
	}
	if c.odd[1] >= oddities {
		c.opaque = true
	}
}

// Commit ends the sample: it brings the integral up to now and returns what has become of the connections.
func (t *Tracker) Commit() Stats {
	for id, c := range t.conns {
		if c.round == t.round {
			continue
		}
		// It is gone, at some time since the last sample.
		delete(t.conns, id)
		t.died++
		t.moved = true
		if c.on {
			t.event(t.prev+(t.now-t.prev)/2, -1)
			t.guess(t.now - t.prev)
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
		// Half of a list new since the last one, a few at least: most of what there was between may have gone unseen, and where
		// they are counted, has.
		s.Churn = t.listed >= 0 && t.born >= 2 && t.born*2 >= all && (t.accepted < 0 || t.accepted*2 >= t.born*3)
		t.listed = t.now
	}
	return *s
}

// clamp moves an instant into the present sample's time.
func (t *Tracker) clamp(at time.Duration) time.Duration { return min(max(at, t.prev), t.now) }

func (t *Tracker) event(at time.Duration, by int) { t.events = append(t.events, event{at, by}) }

// took reports one of the ended requests.
func (t *Tracker) took(ended *uint32, d time.Duration) {
	if *ended > 0 {
		*ended--
		t.finished(max(d, 0))
	}
}

// guess notes that a connection's state was spread over an interval: it was in flight for something between none and all of
// it, so by a standard deviation of interval/√12 wrong.
func (t *Tracker) guess(interval time.Duration) {
	t.variance += interval.Seconds() * interval.Seconds() / 12
	t.stats.Uncertain += interval.Seconds() / 2
}

// doubt notes request-seconds that may be wrong altogether.
func (t *Tracker) doubt(seconds float64) {
	t.doubtful += seconds
	t.stats.Uncertain += seconds
}
