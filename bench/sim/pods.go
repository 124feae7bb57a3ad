package sim

import (
	"github.com/sluice-autoscaler/sluice/algorithms/window"
	"github.com/sluice-autoscaler/sluice/bench/event"
)

// state is where a pod is in its life.
type state uint8

const (
	free        state = iota // the place in the table is not used
	pending                  // waits for a node
	starting                 // on a node, does not answer yet
	answering                // answers, but is not announced: only the gateway sends to it
	ready                    // takes requests
	draining                 // takes none, works off what it has
	terminating              // has ended its work and goes
)

const none = int32(-1)

// pod is one pod. Its place in the table is used again; gen tells its lives apart.
type pod struct {
	state state
	// killed says that the time to drain ran out: what it still works on is lost.
	killed bool
	gen    int32
	// load is how many requests it works on.
	load int32
	// prev and next link the usable pods of equal load; place is its index among the ready ones.
	prev, next, place int32
	created, readyAt  int64
	id                string // names it in views; its place's, since one pod is there at a time
	serveUntil        int64  // a pod that is to go serves on until then in any case
	attempts          int
	queue             event.FIFO

	// own readings, where pods are read one by one
	integral float64 // request-seconds at the pod
	served   int64
	last     int64 // when integral was brought up to date
	born     int64 // when it became ready
	series   *window.Series
	pending  window.Reading
	rank     uint64 // the lowest are read when only a sample is
}

// usable says that the gateway may send to it.
func (p *pod) usable() bool { return p.state == ready || p.state == answering }

// held is how many requests the pod has, worked on or queued.
func (p *pod) held() int { return int(p.load) + p.queue.Len() }

// levels lists the usable pods by load, so that the least loaded one is found at once.
type levels struct {
	heads []int32
	least int // no pod has a lower load; heads[least] may be empty
}

func (l *levels) add(pods []pod, i int32) {
	load := int(pods[i].load)
	for load >= len(l.heads) {
		l.heads = append(l.heads, none)
	}
	head := l.heads[load]
	pods[i].prev, pods[i].next = none, head
	if head != none {
		pods[head].prev = i
	}
	l.heads[load] = i
	if load < l.least {
		l.least = load
	}
}

func (l *levels) remove(pods []pod, i int32) {
	p := &pods[i]
	if p.prev != none {
		pods[p.prev].next = p.next
	} else {
		l.heads[p.load] = p.next
	}
	if p.next != none {
		pods[p.next].prev = p.prev
	}
}

// pick returns the least loaded usable pod, none when there is none.
func (l *levels) pick() int32 {
	for ; l.least < len(l.heads); l.least++ {
		if i := l.heads[l.least]; i != none {
			return i
		}
	}
	l.least = len(l.heads) // the next add brings it down
	return none
}
