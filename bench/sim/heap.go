package sim

// departure is a request's end at a pod.
type departure struct {
	at  int64
	pod int32
}

// departures is a heap of four children each, the earliest first: it is what a simulation spends most of its time in.
type departures []departure

const never = int64(1<<63 - 1)

func (h departures) next() int64 {
	if len(h) == 0 {
		return never
	}
	return h[0].at
}

func (h *departures) push(d departure) {
	s := append(*h, d)
	i := len(s) - 1
	for i > 0 {
		parent := (i - 1) >> 2
		if s[parent].at <= d.at {
			break
		}
		s[i] = s[parent]
		i = parent
	}
	s[i] = d
	*h = s
}

// drop removes the earliest.
func (h *departures) drop() {
	s := *h
	n := len(s) - 1
	d := s[n]
	s = s[:n]
	*h = s
	if n > 0 {
		s.sink(d)
	}
}

// replace puts d in the place of the earliest.
func (h departures) replace(d departure) { h.sink(d) }

// sink puts d where the root was.
func (h departures) sink(d departure) {
	n, i := len(h), 0
	for {
		first := i<<2 + 1
		if first >= n {
			break
		}
		least := first
		for c := first + 1; c < min(first+4, n); c++ {
			if h[c].at < h[least].at {
				least = c
			}
		}
		if h[least].at >= d.at {
			break
		}
		h[i] = h[least]
		i = least
	}
	h[i] = d
}

// what is a kind of control event.
type what uint8

const (
	evRound  what = iota // ask the policy
	evScrape             // read the pods
	evPod                // a pod answers, or fails to
	evReady              // the cluster says that a pod is ready
	evFrame              // a step of the record ends
	evDrain              // a pod's time to drain is over
	evDuck               // a pod that is to go has served on for long enough
	evPoke               // a round besides the planned one
	evGone               // a pod has ended
	evNode               // a node takes pods
)

// event is one of the few that are no request. Equal instants come in the order in which they were planned.
type event struct {
	at   int64
	seq  int64
	pod  int32
	gen  int32
	kind what
}

func (a *event) before(b *event) bool { return a.at < b.at || a.at == b.at && a.seq < b.seq }

// events is a binary heap, the earliest first.
type events struct {
	heap []event
	seq  int64
}

func (h *events) next() int64 {
	if len(h.heap) == 0 {
		return never
	}
	return h.heap[0].at
}

func (h *events) push(e event) {
	h.seq++
	e.seq = h.seq
	h.heap = append(h.heap, e)
	i := len(h.heap) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if h.heap[parent].before(&e) {
			break
		}
		h.heap[i] = h.heap[parent]
		i = parent
	}
	h.heap[i] = e
}

func (h *events) pop() event {
	top := h.heap[0]
	n := len(h.heap) - 1
	e := h.heap[n]
	h.heap = h.heap[:n]
	i := 0
	for {
		c := 2*i + 1
		if c >= n {
			break
		}
		if c+1 < n && h.heap[c+1].before(&h.heap[c]) {
			c++
		}
		if e.before(&h.heap[c]) {
			break
		}
		h.heap[i] = h.heap[c]
		i = c
	}
	if n > 0 {
		h.heap[i] = e
	}
	return top
}

// request is one that waits: when it came and how much work it is.
type request struct{ at, work int64 }

// fifo is a queue of waiting requests that grows as needed. The zero value is empty.
type fifo struct {
	ring    []request // length 0 or a power of two
	head, n int
}

func (q *fifo) push(h request) {
	if q.n == len(q.ring) {
		grown := make([]request, max(16, 2*len(q.ring)))
		for i := range q.n {
			grown[i] = q.ring[(q.head+i)&(len(q.ring)-1)]
		}
		q.ring, q.head = grown, 0
	}
	q.ring[(q.head+q.n)&(len(q.ring)-1)] = h
	q.n++
}

func (q *fifo) front() *request { return &q.ring[q.head] }

func (q *fifo) pop() request {
	h := q.ring[q.head]
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.n--
	return h
}
