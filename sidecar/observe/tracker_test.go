package observe_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/proxy/inflight"
	"github.com/sluice-autoscaler/sluice/sidecar/observe"
	"github.com/sluice-autoscaler/sluice/sidecar/observe/sockdiag"
)

const ms = time.Millisecond

// wireTap is a kernel's view of one connection, by what passes on it. tick is the resolution of its times.
type wireTap struct {
	k            sockdiag.Conn
	tick         time.Duration
	sent, gotten time.Duration
}

func newTap(n byte, tick time.Duration, made time.Duration) *wireTap {
	return &wireTap{k: sockdiag.Conn{ID: sockdiag.ID{n}, Family: 2, State: sockdiag.Established}, tick: tick, sent: made, gotten: made}
}

// in and out pass bytes at an instant, in so many segments.
func (w *wireTap) in(at time.Duration, bytes, segments int) {
	w.k.Received += uint64(bytes)
	w.k.SegmentsIn += uint32(segments)
	w.gotten = at
	w.k.Unacked = 0
}

// inAgain is what the client had no acknowledgement of in time.
func (w *wireTap) inAgain(segments int) { w.k.SegmentsIn += uint32(segments) }

func (w *wireTap) out(at time.Duration, bytes, segments int) {
	w.k.Sent += uint64(bytes)
	w.k.SegmentsOut += uint32(segments)
	w.sent = at
}

// at is the view at an instant.
func (w *wireTap) at(now time.Duration) *sockdiag.Conn {
	k := w.k
	now = now.Truncate(w.tick)
	k.SinceSent, k.SinceReceived = now-w.sent.Truncate(w.tick), now-w.gotten.Truncate(w.tick)
	return &k
}

func sample(tr *observe.Tracker, now time.Duration, complete bool, taps ...*wireTap) observe.Stats {
	tr.Begin(now, complete, -1)
	for _, w := range taps {
		tr.See(w.at(now))
	}
	return tr.Commit()
}

// step is something that happens on a connection: data in (+) or out (−), data in that was there already when bytes is again, or
// a sample when it is 0.
type step struct {
	at       time.Duration
	bytes    int
	segments int
}

const again = math.MaxInt

func TestOneConnection(t *testing.T) {
	for _, test := range []struct {
		name     string
		steps    []step
		integral time.Duration // request-seconds
		requests int
		kind     observe.Kind
	}{
		{name: "silent", steps: []step{{at: 50 * ms}}},
		{name: "in flight", steps: []step{{3 * ms, 100, 1}, {at: 10 * ms}}, integral: 7 * ms, kind: observe.Busy},
		{name: "in flight for long", steps: []step{{3 * ms, 100, 1}, {at: 10 * ms}, {at: 60 * ms}, {at: 1000 * ms}}, integral: 997 * ms, kind: observe.Busy},
		{
			name:  "answered between samples that saw it",
			steps: []step{{3 * ms, 100, 1}, {at: 10 * ms}, {25 * ms, -150, 1}, {at: 40 * ms}}, integral: 22 * ms, requests: 1,
		},
		{name: "all between two samples", steps: []step{{at: 5 * ms}, {8 * ms, 100, 1}, {30 * ms, -150, 1}, {at: 50 * ms}}, integral: 22 * ms, requests: 1},
		{
			name:  "the next one follows at once, within a tick",
			steps: []step{{3 * ms, 100, 1}, {at: 10 * ms}, {23 * ms, -150, 1}, {23 * ms, 100, 1}, {at: 30 * ms}}, integral: 27 * ms, requests: 1, kind: observe.Busy,
		},
		{
			name:  "a pause between samples",
			steps: []step{{3 * ms, 100, 1}, {at: 10 * ms}, {15 * ms, -150, 1}, {25 * ms, 100, 1}, {at: 30 * ms}}, integral: 17 * ms, requests: 1, kind: observe.Busy,
		},
		{
			name:  "large answers, the next request within a tick",
			steps: []step{{3 * ms, 100, 1}, {9 * ms, -65536, 46}, {at: 10 * ms}, {12 * ms, 100, 1}, {at: 20 * ms}, {30 * ms, -65536, 46}, {30 * ms, 100, 1}, {at: 40 * ms}},
			// 6 for the first, then from 12 on.
			integral: 34 * ms, requests: 2, kind: observe.Busy,
		},
		{
			name: "a request that is sent again, and the next ones within a tick of the answer",
			steps: []step{
				{3 * ms, 100, 1},
				{at: 10 * ms},
				{205 * ms, again, 1},
				{at: 210 * ms},
				{303 * ms, -150, 1},
				{303 * ms, 100, 1},
				{at: 310 * ms},
				{603 * ms, -150, 1},
				{603 * ms, 100, 1},
				{at: 610 * ms},
			},
			integral: 607 * ms, requests: 2, kind: observe.Busy,
		},
		{
			name:     "a request that is sent again, when all is idle",
			steps:    []step{{3 * ms, 100, 1}, {at: 10 * ms}, {203 * ms, -150, 1}, {at: 204 * ms}, {205 * ms, again, 1}, {at: 210 * ms}, {at: 310 * ms}},
			integral: 200 * ms, requests: 1,
		},
		{
			name:  "an upload over several samples",
			steps: []step{{3 * ms, 50000, 35}, {at: 10 * ms}, {15 * ms, 50000, 35}, {at: 20 * ms}, {40 * ms, -150, 1}, {at: 50 * ms}},
			// The kernel tells of the last piece of a sample only, here the first one too.
			integral: 37 * ms, requests: 1,
		},
		{
			name:     "an answer that trickles is in flight until it is silent for long",
			steps:    []step{{2 * ms, 100, 1}, {4 * ms, -200, 1}, {at: 5 * ms}, {200 * ms, -50, 1}, {at: 205 * ms}, {400 * ms, -50, 1}, {at: 405 * ms}, {at: 500 * ms}},
			integral: 497 * ms, requests: 1, kind: observe.Streaming,
		},
		{
			name:     "and then no more",
			steps:    []step{{2 * ms, 100, 1}, {4 * ms, -200, 1}, {at: 5 * ms}, {100 * ms, -50, 1}, {at: 105 * ms}, {at: 300 * ms}, {at: 500 * ms}, {at: 900 * ms}},
			integral: 297 * ms, requests: 1,
		},
		{name: "a ping of HTTP/2", steps: []step{{2 * ms, 100, 1}, {4 * ms, -200, 1}, {at: 5 * ms}, {20 * ms, 17, 1}, {at: 30 * ms}}, integral: 2 * ms, requests: 1, kind: observe.Opaque},
		{
			name: "requests and answers that overlap",
			steps: []step{
				{2 * ms, 60, 1},
				{at: 5 * ms},
				{7 * ms, 60, 1},
				{at: 10 * ms},
				{12 * ms, -60, 1},
				{at: 15 * ms},
				{17 * ms, -60, 1},
				{at: 20 * ms},
				{22 * ms, 60, 1},
				{at: 25 * ms},
				{27 * ms, 60, 1},
				{at: 30 * ms},
				{32 * ms, -60, 1},
				{at: 35 * ms},
				{77 * ms, -60, 1},
				{at: 80 * ms},
				{302 * ms, 60, 1},
				{at: 305 * ms},
				{307 * ms, 60, 1},
				{at: 310 * ms},
				{312 * ms, -60, 1},
				{at: 315 * ms},
				{457 * ms, -60, 1},
				{at: 460 * ms},
				{at: 6000 * ms},
			},
			integral: -1, requests: -1, kind: observe.Opaque,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var counter inflight.Counter
			requests := 0
			tr := observe.NewTracker(&counter, func(time.Duration) { requests++ })
			sample(tr, 0, true)
			w := newTap(1, ms, 0)
			var stats observe.Stats
			var last time.Duration
			for _, s := range test.steps {
				switch last = s.at; {
				case s.bytes == again:
					w.inAgain(s.segments)
				case s.bytes > 0:
					w.in(s.at, s.bytes, s.segments)
				case s.bytes < 0:
					w.out(s.at, -s.bytes, s.segments)
				default:
					stats = sample(tr, s.at, true, w)
				}
			}
			if got := counter.Read(last).Seconds; test.integral >= 0 && math.Abs(got-test.integral.Seconds()) > 1e-9 {
				t.Errorf("integral %v s, want %v", got, test.integral)
			}
			if test.requests >= 0 && requests != test.requests {
				t.Errorf("%d requests, want %d", requests, test.requests)
			}
			var want observe.Stats
			want.Connections[test.kind] = 1
			if diff := cmp.Diff(want.Connections, stats.Connections); diff != "" {
				t.Errorf("connections by kind (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGoneConnections(t *testing.T) {
	var counter inflight.Counter
	tr := observe.NewTracker(&counter, nil)
	sample(tr, 0, true)
	w := newTap(1, ms, 0)
	w.in(0, 100, 1)
	sample(tr, 10*ms, true, w)
	sample(tr, 30*ms, false) // closed at some time since
	if got := counter.Read(time.Second); got.InFlight != 0 || math.Abs(got.Seconds-0.020) > 1e-9 {
		t.Errorf("after a connection that vanished: %+v, want 0 in flight and half the interval counted", got)
	}
	w = newTap(2, ms, 30*ms)
	w.in(30*ms, 100, 1)
	sample(tr, 40*ms, true, w)
	w.k.State = 6 // TIME_WAIT
	sample(tr, 50*ms, false, w)
	if got := counter.Read(2 * time.Second); got.InFlight != 0 {
		t.Errorf("after a connection in TIME_WAIT: %+v, want 0 in flight", got)
	}
}

// TestRandomTraffic compares with the truth, on many connections that take turns at random, at every tick that kernels have.
func TestRandomTraffic(t *testing.T) {
	for _, tick := range []time.Duration{ms, 4 * ms, 10 * ms} {
		for _, load := range []struct{ takes, pause time.Duration }{
			{20 * ms, 0},
			{20 * ms, 5 * ms},
			{30 * ms, 100 * ms},
			{300 * ms, 50 * ms},
		} {
			for _, size := range []struct{ in, out int }{{1, 1}, {1, 46}} {
				t.Run(fmt.Sprintf("tick %v, %v on, %v off, %d segments out", tick, load.takes, load.pause, size.out), func(t *testing.T) {
					const seed = 1
					rng := rand.New(rand.NewPCG(seed, 0))
					var counter, truth inflight.Counter
					tr := observe.NewTracker(&counter, nil)
					sample(tr, 0, true)
					type client struct {
						*wireTap
						next time.Duration
						on   bool
					}
					var clients []*client
					var taps []*wireTap
					for i := range 20 {
						c := &client{wireTap: newTap(byte(i), tick, 0), next: time.Duration(rng.Int64N(int64(50 * ms)))}
						clients, taps = append(clients, c), append(taps, c.wireTap)
					}
					const end = 20 * time.Second
					nextSample := 5 * ms
					var stats observe.Stats
					for now := time.Duration(0); now < end; now += 100 * time.Microsecond {
						for _, c := range clients {
							if now < c.next {
								continue
							}
							if c.on {
								c.out(now, 1000*size.out, size.out)
								truth.End(now)
								c.next = now + 100*time.Microsecond + load.pause/2 + time.Duration(rng.Int64N(int64(load.pause)+1))
							} else {
								c.in(now, 100, size.in)
								truth.Begin(now)
								c.next = now + load.takes/2 + time.Duration(rng.Int64N(int64(load.takes)))
							}
							c.on = !c.on
						}
						if now >= nextSample {
							stats = sample(tr, now, true, taps...)
							nextSample = now + 15*ms + time.Duration(rng.Int64N(int64(10*ms)))
						}
					}
					got, want := counter.Read(end).Seconds, truth.Read(end).Seconds
					t.Logf("error %.2f %%, own estimate %.2f %%, %v", 100*(got/want-1), 100*stats.Error, stats)
					if math.Abs(got/want-1) > 0.1 {
						t.Errorf("seed %d: integral %.2f s, want within 10 %% of %.2f s", seed, got, want)
					}
				})
			}
		}
	}
}

// TestChurn has a new connection for each request: between two lists most of them are never seen.
func TestChurn(t *testing.T) {
	const seed = 1
	rng := rand.New(rand.NewPCG(seed, 0))
	var counter, truth inflight.Counter
	tr := observe.NewTracker(&counter, nil)
	sample(tr, 0, true)
	type request struct {
		*wireTap
		ends time.Duration
	}
	var live []request
	var stats observe.Stats
	next, nextSample, n := time.Duration(0), 40*ms, 0
	const end = 60 * time.Second
	for now := time.Duration(0); now < end; now += 100 * time.Microsecond {
		for i := 0; i < len(live); i++ {
			if now >= live[i].ends {
				truth.End(now)
				live[i] = live[len(live)-1]
				live = live[:len(live)-1]
				i--
			}
		}
		if now >= next {
			n++
			w := newTap(byte(n), ms, now)
			w.k.ID[1], w.k.ID[2] = byte(n>>8), byte(n>>16)
			w.in(now, 100, 1)
			truth.Begin(now)
			live = append(live, request{w, now + 20*ms})
			next = now + time.Duration(rng.Int64N(int64(4*ms))) // 500/s: 10 in flight
		}
		if now >= nextSample {
			var taps []*wireTap
			for _, r := range live {
				taps = append(taps, r.wireTap)
			}
			stats = sample(tr, now, true, taps...)
			nextSample = now + 30*ms + time.Duration(rng.Int64N(int64(20*ms)))
		}
	}
	got, want := counter.Read(end).Seconds, truth.Read(end).Seconds
	if !stats.Churn || math.Abs(got/want-1) > 0.1 {
		t.Errorf("seed %d: churn %v, integral %.2f s, want true and within 10 %% of %.2f s", seed, stats.Churn, got, want)
	}
}

// TestConnectionsThatWereCountedAndNotSeen: whether connections come and go between lists is known where they are counted.
func TestConnectionsThatWereCountedAndNotSeen(t *testing.T) {
	for _, test := range []struct {
		name     string
		accepted int
		churn    bool
		integral float64
	}{
		// Both connections have a request in flight since 10 ms before the list at 200 ms.
		{name: "not counted", accepted: -1, churn: true, integral: 0.02},
		{name: "all are there", accepted: 2, churn: false, integral: 0.2}, // guessed to be half of the interval, until they were seen
		{name: "most have gone", accepted: 20, churn: true, integral: 0.2},
	} {
		t.Run(test.name, func(t *testing.T) {
			var counter inflight.Counter
			tr := observe.NewTracker(&counter, nil)
			sample(tr, 0, true)
			tr.Begin(200*ms, true, test.accepted)
			for i := range 2 {
				w := newTap(byte(i), ms, 190*ms)
				w.in(190*ms, 100, 1)
				tr.See(w.at(200 * ms))
			}
			stats := tr.Commit()
			if got := counter.Read(200 * ms).Seconds; stats.Churn != test.churn || math.Abs(got-test.integral) > 1e-9 {
				t.Errorf("churn %v, integral %.3f s, want %v and %.3f s", stats.Churn, got, test.churn, test.integral)
			}
		})
	}
}

// FuzzTracker shows whatever a kernel might say: the number in flight stays within the connections, the integral never
// falls, the estimates are finite.
func FuzzTracker(f *testing.F) {
	f.Add([]byte{1, 10, 1, 0, 0, 5, 2, 20, 1, 1, 3, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 1, 2, 3, 4, 5, 6})
	f.Fuzz(func(t *testing.T, b []byte) {
		var counter inflight.Counter
		tr := observe.NewTracker(&counter, nil)
		var now time.Duration
		seconds := 0.0
		for len(b) >= 6 {
			now += time.Duration(b[0]+1) * ms
			tr.Begin(now, b[0]%2 == 0, int(b[0]%5)-1)
			n := int(b[1] % 4)
			for i := range n {
				x := b[i%len(b):]
				v := func(j int) uint32 { return uint32(x[j%len(x)]) * 0x01010101 }
				tr.See(&sockdiag.Conn{
					ID: sockdiag.ID{byte(v(0)) % 3}, State: uint8(v(1)%9) + 1, SinceSent: time.Duration(v(2)%97) * ms, SinceReceived: time.Duration(v(3)%89) * ms,
					Received: uint64(v(1)), Sent: uint64(v(2)), SegmentsIn: v(3), SegmentsOut: v(4), Unacked: v(5) % 2, Unsent: v(0) % 2,
				})
			}
			s := tr.Commit()
			r := counter.Read(now)
			if r.InFlight > n || r.Seconds < seconds || r.Now != now {
				t.Fatalf("%d connections at %v: %+v after %v s", n, now, r, seconds)
			}
			if !(s.Error >= 0 && s.Error <= 1) || !(s.Coverage >= 0 && s.Coverage <= 1) || !(s.Uncertain >= 0) || math.IsInf(s.Uncertain, 0) {
				t.Fatalf("stats %+v", s)
			}
			seconds = r.Seconds
			b = b[6:]
		}
	})
}
