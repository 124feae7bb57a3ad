// Package hold decides which request waits and which goes to which pod: one bounded FIFO queue and
// one set of pods per Service port. It does no I/O, starts no goroutine, reads no clock and takes
// no lock: the caller brings the instant (a duration since its start, never going backwards) and
// serialises the calls.
package hold

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Endpoint is one address behind a Service port, as the cluster tells it.
type Endpoint struct {
	// Address is host:port.
	Address string
	// Ready is the readiness that the kubelet reports; Serving is the same for a pod that is
	// terminating.
	Ready, Serving bool
	// Terminating says that the pod is being deleted.
	Terminating bool
}

// Limits bounds one queue. All fields must be set (> 0), except TerminatingGrace and Failure.
type Limits struct {
	// MaxHeld is the most requests that wait at once.
	MaxHeld int
	// MaxHeldBytes is the most bytes that waiting requests may keep buffered.
	MaxHeldBytes int64
	// PodConcurrency is the most requests in flight to one pod.
	PodConcurrency int
	// TerminatingGrace is how long after it was first seen terminating a pod that serves may get
	// new requests while no other pod can. 0 means never.
	TerminatingGrace time.Duration
	// Failure, when not empty, says why no pod can start: nothing waits any more.
	Failure string
}

// State is where a ticket stands.
type State uint8

// The states of a ticket. The last four are final.
const (
	// Waiting is in the queue.
	Waiting State = iota
	// Granted has a place at a pod that is not connected yet.
	Granted
	// Connected is in flight at its pod.
	Connected
	// Done was answered by a pod.
	Done
	// Rejected found the queue full, or no pod can start.
	Rejected
	// Expired waited too long.
	Expired
	// Canceled was left by its client.
	Canceled
)

// Ticket is one request's place. Its fields and methods may be read only while the caller's lock is
// held, C excepted.
type Ticket struct {
	// C receives one token whenever the ticket has left the queue.
	C chan struct{}

	state   State
	full    bool
	probe   bool
	counted bool // in Forwarded
	pod     *pod
	seq     uint64
	bytes   int64
	granted time.Duration
	arrived time.Duration
	prev    *Ticket
	next    *Ticket
}

// State returns where the ticket stands.
func (t *Ticket) State() State { return t.state }

// Full says that a Rejected ticket found no place, rather than a workload that cannot start.
func (t *Ticket) Full() bool { return t.full }

// Arrived returns the instant of the ticket's arrival.
func (t *Ticket) Arrived() time.Duration { return t.arrived }

// Address returns the pod's host:port of a ticket that is Granted or Connected, else "".
func (t *Ticket) Address() string {
	if t.pod == nil {
		return ""
	}
	return t.pod.Address
}

// Fresh says that the ticket's pod is terminating, so that no pooled connection to it should be
// trusted.
func (t *Ticket) Fresh() bool { return t.pod != nil && t.pod.Terminating }

func (p *pod) probed() bool { return !p.Terminating && (!p.everReady || p.suspect) }

type pod struct {
	Endpoint
	everReady bool // the kubelet said ready once: from then on its word is followed
	answered  bool // answered a probe of ours
	suspect   bool // refused a connection
	usable    bool // is in Queue.usable
	inFlight  int
	termSince time.Duration
}

// ColdStart holds the instants of one wake-up; 0 stands for not yet.
type ColdStart struct {
	Detected, Answering, Released time.Duration
	Pod                           string
	Held                          int
}

// Counts is what a queue says of itself at one instant; the counters only grow.
type Counts struct {
	Waiting        int
	WaitingSeconds float64
	Forwarding     int
	Arrived        uint64
	Forwarded      uint64
	Rejected       uint64
	Expired        uint64
	Canceled       uint64
	ReadyPods      int
	ColdStart      *ColdStart
}

// Queue holds the requests of one Service port. It is not safe for concurrent use.
type Queue struct {
	limits  Limits
	places  *Share
	rand    *rand.Rand
	waiting Integral
	bytes   int64
	seq     uint64
	head    *Ticket
	tail    *Ticket
	pods    map[string]*pod
	usable  []*pod
	free    int // places left at usable pods
	dark    int // pods that a probe could make usable
	flying  int // granted or connected
	counts  Counts
	cold    *ColdStart
	// OnHold, when not nil, is told of each request that leaves the queue for a pod and how long it
	// waited in all.
	OnHold func(waited time.Duration)
	// OnColdStart, when not nil, is told of each wake-up that ended.
	OnColdStart func(ColdStart)
}

// New returns an empty queue. It takes a place of its Service's share for each request that it
// holds, and draws its choices from r.
func New(limits Limits, places *Share, r *rand.Rand) *Queue {
	return &Queue{limits: limits, places: places, rand: r, pods: map[string]*pod{}}
}

// Arrive admits a request that keeps bytes buffered while it waits. The ticket is Granted, Waiting
// or Rejected.
func (q *Queue) Arrive(now time.Duration, bytes int64) *Ticket {
	q.counts.Arrived++
	q.seq++
	t := &Ticket{C: make(chan struct{}, 1), seq: q.seq, bytes: bytes, arrived: now}
	if q.head == nil && q.grant(now, t) {
		return t
	}
	switch {
	case q.hopeless():
		t.state = Rejected
	case q.waiting.Count() >= q.limits.MaxHeld, q.bytes+bytes > q.limits.MaxHeldBytes, !q.places.Take(1):
		t.state, t.full = Rejected, true
	default:
		q.push(now, t)
		return t
	}
	q.counts.Rejected++
	return t
}

// Refuse counts a request that its caller answers itself, since there is no memory to hold it.
func (q *Queue) Refuse() {
	q.counts.Arrived++
	q.counts.Rejected++
}

// Try is Arrive for a health check: it counts nowhere, never waits, and is Rejected when no pod has
// a place.
func (q *Queue) Try(now time.Duration) *Ticket {
	t := &Ticket{probe: true, arrived: now}
	if q.head != nil || !q.grant(now, t) {
		t.state = Rejected
	}
	return t
}

// Connected says that the pod of a Granted ticket took the connection.
func (q *Queue) Connected(t *Ticket) {
	if t.state != Granted {
		return
	}
	t.state = Connected
	q.forwarded(t)
}

func (q *Queue) forwarded(t *Ticket) {
	if !t.probe && !t.counted {
		t.counted = true
		q.counts.Forwarded++
	}
}

// Refused says that the pod of a Granted (or, over a pooled connection, Connected) ticket took no
// connection: it gets nothing until it answers a probe, and the ticket waits again in its old order
// (its place was paid for by the pod's slot, so no bound applies). The failed attempt counts as
// waiting.
func (q *Queue) Refused(now time.Duration, t *Ticket) {
	if t.state != Granted && t.state != Connected {
		return
	}
	p := t.pod
	p.suspect, p.answered = true, false
	q.leavePod(t)
	q.rebuild()
	defer q.settle(now)
	if t.probe {
		t.state = Rejected
		return
	}
	if t.state == Granted {
		q.waiting.Credit(now - t.granted)
	}
	if q.hopeless() {
		q.end(t, Rejected)
		return
	}
	t.state = Waiting
	q.places.Force(1)
	q.push(now, t)
}

// Finish ends a Granted or Connected ticket: its place at the pod is free.
func (q *Queue) Finish(now time.Duration, t *Ticket) {
	if t.state != Granted && t.state != Connected {
		return
	}
	q.forwarded(t)
	t.state = Done
	q.leavePod(t)
	q.dispatch(now)
}

// Leave ends a ticket that is Waiting or Granted, for the reason Expired or Canceled, and reports
// whether it did: a Connected ticket is to be Finished, and a final one stays what it is.
func (q *Queue) Leave(now time.Duration, t *Ticket, why State) bool {
	switch t.state {
	case Waiting:
		q.remove(now, t)
	case Granted:
		if why == Expired {
			return false // it is about to be served
		}
		q.leavePod(t)
	default:
		return false
	}
	q.end(t, why)
	q.dispatch(now)
	return true
}

// end counts a ticket that no pod answers. One that a pod took before, and then lost over a pooled
// connection, has been counted.
func (q *Queue) end(t *Ticket, why State) {
	t.state = why
	switch {
	case t.probe || t.counted:
	case why == Rejected:
		q.counts.Rejected++
	case why == Expired:
		q.counts.Expired++
	default:
		q.counts.Canceled++
	}
}

// Limit replaces the limits. A Failure rejects all that wait and no pod can take.
func (q *Queue) Limit(now time.Duration, l Limits) {
	q.limits = l
	q.rebuild()
	q.settle(now)
}

// settle follows a change of the pods.
func (q *Queue) settle(now time.Duration) {
	q.dispatch(now)
	if q.hopeless() {
		q.rejectAll(now)
	}
}

func (q *Queue) hopeless() bool { return q.limits.Failure != "" && len(q.usable) == 0 }

func (q *Queue) rejectAll(now time.Duration) {
	for q.head != nil {
		t := q.head
		q.remove(now, t)
		q.end(t, Rejected)
		t.wake()
	}
}

// Endpoints replaces what the cluster says of the pods. Of several with one address the last
// counts.
func (q *Queue) Endpoints(now time.Duration, eps []Endpoint) {
	next := make(map[string]*pod, len(eps))
	for _, e := range eps {
		p := q.pods[e.Address]
		if p == nil {
			p = &pod{}
		}
		if e.Ready && !p.Ready {
			p.everReady, p.suspect = true, false
		}
		if p.Ready && !e.Ready {
			p.answered = false
		}
		if e.Terminating && !p.Terminating {
			p.termSince = now
		}
		p.Endpoint = e
		next[e.Address] = p
	}
	for addr, p := range q.pods {
		if next[addr] != p {
			p.usable = false
		}
	}
	q.pods = next
	q.rebuild()
	if q.head != nil && len(q.usable) > 0 {
		q.answering(now, q.usable[0].Address)
	}
	q.settle(now)
}

// Answered says that the pod at address answered a probe.
func (q *Queue) Answered(now time.Duration, address string) {
	p := q.pods[address]
	if p == nil || p.Terminating || p.usable {
		return
	}
	p.answered, p.suspect = true, false
	q.rebuild()
	q.answering(now, address)
	q.dispatch(now)
}

// Probe returns the pods worth a probe now, sorted: none unless something waits. A pod that was
// ready and is not any more, and refused nothing, is left alone: its own readiness says that it
// wants no requests.
func (q *Queue) Probe() []string {
	if q.head == nil {
		return nil
	}
	var addrs []string
	for addr, p := range q.pods {
		if !p.usable && p.probed() {
			addrs = append(addrs, addr)
		}
	}
	slices.Sort(addrs)
	return addrs
}

// NeedsProbe reports whether Probe would return any.
func (q *Queue) NeedsProbe() bool { return q.head != nil && q.dark > 0 }

// Waiting returns how many wait now.
func (q *Queue) Waiting() int { return q.waiting.Count() }

// ReadyPods returns how many pods may get requests now, full ones included.
func (q *Queue) ReadyPods() int { return len(q.usable) }

// Counts reads all counters at now.
func (q *Queue) Counts(now time.Duration) Counts {
	c := q.counts
	c.Waiting = q.waiting.Count()
	c.WaitingSeconds = q.waiting.Seconds(now)
	c.Forwarding = q.flying
	c.ReadyPods = len(q.usable)
	if q.cold != nil {
		cold := *q.cold
		c.ColdStart = &cold
	}
	return c
}

func (q *Queue) rebuild() {
	for _, p := range q.usable {
		p.usable = false
	}
	q.usable, q.free, q.dark = q.usable[:0], 0, 0
	for _, p := range q.pods {
		if p.Terminating || (!p.answered && (!p.Ready || p.suspect)) {
			if p.probed() {
				q.dark++
			}
			continue
		}
		p.usable = true
		q.usable = append(q.usable, p)
		q.free += max(0, q.limits.PodConcurrency-p.inFlight)
	}
	// The order decides what a random index means: it must not be the map's.
	slices.SortFunc(q.usable, func(a, b *pod) int { return strings.Compare(a.Address, b.Address) })
}

// grant gives the ticket a place if a pod has one.
func (q *Queue) grant(now time.Duration, t *Ticket) bool {
	p := q.pick(now)
	if p == nil {
		return false
	}
	if p.usable {
		q.free--
	}
	p.inFlight++
	q.flying++
	t.pod, t.state, t.granted = p, Granted, now
	return true
}

func (q *Queue) pick(now time.Duration) *pod {
	if len(q.usable) == 0 {
		return q.lastResort(now)
	}
	if q.free <= 0 {
		return nil
	}
	a, b := q.usable[q.rand.IntN(len(q.usable))], q.usable[q.rand.IntN(len(q.usable))]
	if b.inFlight < a.inFlight {
		a = b
	}
	if a.inFlight < q.limits.PodConcurrency {
		return a
	}
	return least(q.usable, q.limits.PodConcurrency)
}

func (q *Queue) lastResort(now time.Duration) *pod {
	var some []*pod
	for _, p := range q.pods {
		if p.Terminating && p.Serving && !p.suspect && now-p.termSince < q.limits.TerminatingGrace {
			some = append(some, p)
		}
	}
	slices.SortFunc(some, func(a, b *pod) int { return strings.Compare(a.Address, b.Address) })
	return least(some, q.limits.PodConcurrency)
}

func least(pods []*pod, limit int) *pod {
	var best *pod
	for _, p := range pods {
		if p.inFlight < limit && (best == nil || p.inFlight < best.inFlight) {
			best = p
		}
	}
	return best
}

func (q *Queue) dispatch(now time.Duration) {
	for q.head != nil {
		t := q.head
		held := q.waiting.Count()
		if !q.grant(now, t) {
			return
		}
		q.remove(now, t)
		if c := q.cold; c != nil && c.Released == 0 {
			if c.Answering == 0 {
				c.Answering, c.Pod = now, t.pod.Address
			}
			c.Released, c.Held = now, held
			if q.OnColdStart != nil {
				q.OnColdStart(*c)
			}
		}
		if q.OnHold != nil {
			q.OnHold(now - t.arrived)
		}
		t.wake()
	}
}

func (q *Queue) answering(now time.Duration, address string) {
	if c := q.cold; c != nil && c.Answering == 0 && q.head != nil {
		c.Answering, c.Pod = now, address
	}
}

func (q *Queue) leavePod(t *Ticket) {
	p := t.pod
	t.pod = nil
	p.inFlight--
	q.flying--
	if p.usable && p.inFlight < q.limits.PodConcurrency {
		q.free++
	}
}

// push puts a ticket in the order of arrival; all but the refused ones belong at the end.
func (q *Queue) push(now time.Duration, t *Ticket) {
	if q.head == nil && len(q.usable) == 0 {
		q.cold = &ColdStart{Detected: now}
	}
	q.waiting.Add(now, 1)
	q.bytes += t.bytes
	if q.tail == nil || q.tail.seq < t.seq {
		t.prev = q.tail
		if q.tail == nil {
			q.head = t
		} else {
			q.tail.next = t
		}
		q.tail = t
		return
	}
	at := q.head
	for at.seq < t.seq {
		at = at.next
	}
	t.prev, t.next = at.prev, at
	if at.prev == nil {
		q.head = t
	} else {
		at.prev.next = t
	}
	at.prev = t
}

func (q *Queue) remove(now time.Duration, t *Ticket) {
	q.waiting.Add(now, -1)
	q.bytes -= t.bytes
	q.places.Give(1)
	if t.prev == nil {
		q.head = t.next
	} else {
		t.prev.next = t.next
	}
	if t.next == nil {
		q.tail = t.prev
	} else {
		t.next.prev = t.prev
	}
	t.prev, t.next = nil, nil
}

func (t *Ticket) wake() {
	select {
	case t.C <- struct{}{}:
	default:
	}
}
