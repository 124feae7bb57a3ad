// Package event holds the data structures of a discrete-event simulation: the heap of departures,
// the schedule of other events, queues of waiting requests, and counts with their integrals over
// time. Instants are nanoseconds since the beginning of the run. Nothing here
// is safe for concurrent use; every zero value is empty.
package event

// Never is later than every instant.
const Never = int64(1<<63 - 1)

// Departure is the end of a request's work at a pod.
type Departure struct {
	At  int64
	Pod int32
}

// Departures is a heap with four children to a node, the earliest first. A simulation spends most
// of its time here.
type Departures []Departure

// Next is the instant of the earliest departure, Never when there is none.
func (h Departures) Next() int64 {
	if len(h) == 0 {
		return Never
	}
	return h[0].At
}

// Push adds a departure.
func (h *Departures) Push(d Departure) {
	s := append(*h, d)
	i := len(s) - 1
	for i > 0 {
		parent := (i - 1) >> 2
		if s[parent].At <= d.At {
			break
		}
		s[i] = s[parent]
		i = parent
	}
	s[i] = d
	*h = s
}

// Drop removes the earliest departure. There must be one.
func (h *Departures) Drop() {
	s := *h
	n := len(s) - 1
	d := s[n]
	s = s[:n]
	*h = s
	if n > 0 {
		s.sink(d)
	}
}

// Replace puts d in the place of the earliest departure.
func (h Departures) Replace(d Departure) { h.sink(d) }

// sink puts d where the root was.
func (h Departures) sink(d Departure) {
	n, i := len(h), 0
	for {
		first := i<<2 + 1
		if first >= n {
			break
		}
		least := first
		for c := first + 1; c < min(first+4, n); c++ {
			if h[c].At < h[least].At {
				least = c
			}
		}
		if h[least].At >= d.At {
			break
		}
		h[i] = h[least]
		i = least
	}
	h[i] = d
}

// Planned is an event that is not about a request. Kind, Pod and Gen are the caller's.
type Planned struct {
	At   int64
	seq  int64
	Pod  int32
	Gen  int32
	Kind uint8
}

func (p *Planned) before(q *Planned) bool { return p.At < q.At || p.At == q.At && p.seq < q.seq }

// Schedule is a binary heap of planned events, the earliest first. Equal instants come in the order
// of their planning.
type Schedule struct {
	heap []Planned
	seq  int64
}

// Next is the instant of the earliest event, Never when there is none.
func (h *Schedule) Next() int64 {
	if len(h.heap) == 0 {
		return Never
	}
	return h.heap[0].At
}

// Push plans an event.
func (h *Schedule) Push(e Planned) {
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

// Pop takes the earliest event. There must be one.
func (h *Schedule) Pop() Planned {
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

// Waiting is a request in a queue: the instant of its arrival, and its work in nanoseconds.
type Waiting struct{ At, Work int64 }

// FIFO is a queue of waiting requests that grows as needed.
type FIFO struct {
	ring    []Waiting // length 0 or a power of two
	head, n int
}

// Len is how many requests wait.
func (q *FIFO) Len() int { return q.n }

// Push adds a request at the end.
func (q *FIFO) Push(w Waiting) {
	if q.n == len(q.ring) {
		grown := make([]Waiting, max(16, 2*len(q.ring)))
		for i := range q.n {
			grown[i] = q.ring[(q.head+i)&(len(q.ring)-1)]
		}
		q.ring, q.head = grown, 0
	}
	q.ring[(q.head+q.n)&(len(q.ring)-1)] = w
	q.n++
}

// Front is the request that has waited longest. There must be one.
func (q *FIFO) Front() *Waiting { return &q.ring[q.head] }

// Pop takes the request that has waited longest. There must be one.
func (q *FIFO) Pop() Waiting {
	w := q.ring[q.head]
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.n--
	return w
}

// Clear drops all requests, and keeps the memory.
func (q *FIFO) Clear() { q.head, q.n = 0, 0 }

// Gauge is a count over time with its integral, in count × seconds.
type Gauge struct {
	// Value is the present count.
	Value int
	last  int64
	sum   float64
}

// Set changes the count at an instant, which is no earlier than the one before.
func (g *Gauge) Set(now int64, v int) {
	g.sum += float64(g.Value) * float64(now-g.last) * 1e-9
	g.Value, g.last = v, now
}

// Until is the integral up to an instant, which is no earlier than the last change.
func (g *Gauge) Until(now int64) float64 { return g.sum + float64(g.Value)*float64(now-g.last)*1e-9 }

// Restart begins the integral anew at an instant.
func (g *Gauge) Restart(now int64) { g.last, g.sum = now, 0 }
