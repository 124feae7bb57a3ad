// Package queue orders the rounds of Autoscalers. Namespaces take turns, whatever number of rounds
// each asks for, and rounds that somebody waits for go before all others.
package queue

import (
	"container/heap"
	"container/list"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const (
	// Workers is how many Autoscalers have a round at once.
	Workers = 256
	// WorkersPerNamespace is how many of them may be of one namespace, so that slow rounds of one
	// leave workers to the others.
	WorkersPerNamespace = 64
	// BackgroundWorkers is how many may do rounds for which nobody waits.
	BackgroundWorkers = 192
	// atWork, atWorkPerNamespace and atWorkBackground are the same for rounds that do not wait for
	// the API server: they want a processor. The API server may take half a second for each write,
	// and others are not to wait with those who wait for it.
	atWork, atWorkPerNamespace, atWorkBackground = 32, 8, 24
	// Urgent is the priority of a round that somebody waits for: requests are held.
	Urgent = 1
)

// Queue is a controller's queue of two lanes, in each of which namespaces take turns. A key stands
// in it once, as in a workqueue. It is safe for concurrent use.
type Queue struct {
	limiter workqueue.TypedRateLimiter[reconcile.Request]

	mu      sync.Mutex
	changed *sync.Cond
	entries map[reconcile.Request]*queued
	urgent  lane
	other   lane
	// running counts the rounds that run, working those of them that do not wait for the API
	// server.
	running, working counts
	delayed          delays
	timer            *time.Timer
	closed           bool
}

var _ priorityqueue.PriorityQueue[reconcile.Request] = (*Queue)(nil)

// counts are numbers of rounds.
type counts struct {
	all int
	// background are those that nobody waits for.
	background int
	of         map[string]int
}

func (c *counts) add(namespace string, urgent bool, n int) {
	c.all += n
	if !urgent {
		c.background += n
	}
	if c.of[namespace] += n; c.of[namespace] == 0 {
		delete(c.of, namespace)
	}
}

// queued is what the queue knows of one key. One that neither runs, waits nor is delayed has no
// entry.
type queued struct {
	key reconcile.Request
	// place is where it stands in its lane; nil when it does not. Urgent names the lane.
	place  *list.Element
	urgent bool
	// running says that its round runs, in the lane that runsUrgent names. Again says that another
	// is to follow.
	running, runsUrgent bool
	again, againUrgent  bool
	// requests counts those to the API server that its round waits for.
	requests int
	// due is when a delayed round is to be queued; index is its place among the delayed, -1 for
	// none.
	due       time.Time
	dueUrgent bool
	index     int
}

// lane holds the keys that are ready, by namespace.
type lane struct {
	// turns lists the namespaces that have ready keys, in the order of their turns.
	turns *list.List
	of    map[string]*turn
}

// turn is one namespace's keys, and where it stands.
type turn struct {
	namespace string
	keys      *list.List
	place     *list.Element
}

func newLane() lane { return lane{turns: list.New(), of: map[string]*turn{}} }

func (l *lane) push(e *queued) {
	t := l.of[e.key.Namespace]
	if t == nil {
		t = &turn{namespace: e.key.Namespace, keys: list.New()}
		t.place = l.turns.PushBack(t)
		l.of[t.namespace] = t
	}
	e.place = t.keys.PushBack(e)
}

func (l *lane) remove(e *queued) {
	t := l.of[e.key.Namespace]
	t.keys.Remove(e.place)
	if e.place = nil; t.keys.Len() == 0 {
		l.turns.Remove(t.place)
		delete(l.of, t.namespace)
	}
}

// pop takes the next key of the first namespace that may have another round, and ends its turn; nil
// when there is none.
func (l *lane) pop(running, working map[string]int) *queued {
	for at := l.turns.Front(); at != nil; at = at.Next() {
		t, _ := at.Value.(*turn)
		if running[t.namespace] >= WorkersPerNamespace || working[t.namespace] >= atWorkPerNamespace {
			continue
		}
		e, _ := t.keys.Front().Value.(*queued)
		l.turns.MoveToBack(at)
		l.remove(e)
		return e
	}
	return nil
}

// delays is a heap of entries by when they are due.
type delays []*queued

func (d delays) Len() int           { return len(d) }
func (d delays) Less(i, j int) bool { return d[i].due.Before(d[j].due) }
func (d delays) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].index, d[j].index = i, j
}

// Push implements heap.Interface.
func (d *delays) Push(x any) {
	if e, ok := x.(*queued); ok {
		e.index = len(*d)
		*d = append(*d, e)
	}
}

// Pop implements heap.Interface.
func (d *delays) Pop() any {
	old := *d
	e := old[len(old)-1]
	old[len(old)-1] = nil
	e.index = -1
	*d = old[:len(old)-1]
	return e
}

// New returns a Queue whose failed rounds come again as the limiter says.
func New(limiter workqueue.TypedRateLimiter[reconcile.Request]) *Queue {
	q := &Queue{
		limiter: limiter, entries: map[reconcile.Request]*queued{}, urgent: newLane(), other: newLane(),
		running: counts{of: map[string]int{}}, working: counts{of: map[string]int{}},
	}
	q.changed = sync.NewCond(&q.mu)
	return q
}

// Add asks for a round now.
func (q *Queue) Add(key reconcile.Request) { q.AddWithOpts(priorityqueue.AddOpts{}, key) }

// AddAfter asks for a round in some time.
func (q *Queue) AddAfter(key reconcile.Request, after time.Duration) {
	q.AddWithOpts(priorityqueue.AddOpts{After: after}, key)
}

// AddRateLimited asks for a round once the back-off of its failures is over.
func (q *Queue) AddRateLimited(key reconcile.Request) {
	q.AddWithOpts(priorityqueue.AddOpts{RateLimited: true}, key)
}

// AddWithOpts asks for rounds. A priority above 0 means that somebody waits for them.
func (q *Queue) AddWithOpts(o priorityqueue.AddOpts, keys ...reconcile.Request) {
	urgent := o.Priority != nil && *o.Priority > 0
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	for _, key := range keys {
		after := o.After
		if o.RateLimited {
			after = max(after, q.limiter.When(key))
		}
		e := q.entries[key]
		if e == nil {
			e = &queued{key: key, index: -1}
			q.entries[key] = e
		}
		if after > 0 {
			q.delay(e, time.Now().Add(after), urgent)
		} else {
			q.ready(e, urgent)
		}
	}
}

// delay keeps the sooner of two delays.
func (q *Queue) delay(e *queued, due time.Time, urgent bool) {
	if e.place != nil { // it comes sooner than that
		return
	}
	switch {
	case e.index < 0:
		e.due, e.dueUrgent = due, urgent
		heap.Push(&q.delayed, e)
	case due.Before(e.due):
		e.due, e.dueUrgent = due, urgent
		heap.Fix(&q.delayed, e.index)
	}
	q.arm()
}

// arm sets the timer for the first delayed key.
func (q *Queue) arm() {
	if len(q.delayed) == 0 {
		return
	}
	left := max(0, time.Until(q.delayed[0].due))
	if q.timer == nil {
		q.timer = time.AfterFunc(left, q.release)
		return
	}
	q.timer.Reset(left)
}

// release readies what is due.
func (q *Queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	for now := time.Now(); len(q.delayed) > 0 && !q.delayed[0].due.After(now); {
		q.ready(q.delayed[0], q.delayed[0].dueUrgent)
	}
	q.arm()
}

// ready puts a key into its lane. One whose round runs comes after it.
func (q *Queue) ready(e *queued, urgent bool) {
	if e.index >= 0 {
		heap.Remove(&q.delayed, e.index)
	}
	switch {
	case e.running:
		e.again, e.againUrgent = true, e.againUrgent || urgent
		return
	case e.place != nil && (e.urgent || !urgent):
		return
	case e.place != nil:
		q.other.remove(e)
	}
	if e.urgent = urgent; urgent {
		q.urgent.push(e)
	} else {
		q.other.push(e)
	}
	q.changed.Signal()
}

// Get waits for a key whose round may begin.
func (q *Queue) Get() (reconcile.Request, bool) {
	key, _, closed := q.GetWithPriority()
	return key, closed
}

// GetWithPriority is Get with the key's priority.
func (q *Queue) GetWithPriority() (key reconcile.Request, priority int, shutdown bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if q.closed {
			return key, 0, true
		}
		if e := q.next(); e != nil {
			e.running, e.runsUrgent = true, e.urgent
			q.running.add(e.key.Namespace, e.urgent, 1)
			q.working.add(e.key.Namespace, e.urgent, 1)
			if e.urgent {
				priority = Urgent
			}
			return e.key, priority, false
		}
		q.changed.Wait()
	}
}

// next takes the key whose turn it is, nil when none may have a round.
func (q *Queue) next() *queued {
	if q.working.all >= atWork {
		return nil
	}
	e := q.urgent.pop(q.running.of, q.working.of)
	if e == nil && q.running.background < BackgroundWorkers && q.working.background < atWorkBackground {
		e = q.other.pop(q.running.of, q.working.of)
	}
	return e
}

// wait says that a key's round waits for the API server, or with -1 that it does so no more. Its
// place is another's meanwhile; after that there may be more rounds at work than otherwise.
func (q *Queue) wait(key reconcile.Request, n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.entries[key]
	if e == nil || !e.running {
		return
	}
	before := e.requests
	switch e.requests += n; {
	case before == 0 && e.requests > 0:
		q.working.add(key.Namespace, e.runsUrgent, -1)
		q.changed.Signal()
	case before > 0 && e.requests == 0:
		q.working.add(key.Namespace, e.runsUrgent, 1)
	}
}

// Done says that a key's round is over.
func (q *Queue) Done(key reconcile.Request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.entries[key]
	if e == nil || !e.running {
		return
	}
	q.running.add(key.Namespace, e.runsUrgent, -1)
	if e.requests == 0 {
		q.working.add(key.Namespace, e.runsUrgent, -1)
	}
	e.requests = 0
	again, urgent := e.again, e.againUrgent
	e.running, e.again, e.againUrgent = false, false, false
	switch {
	case again && !q.closed:
		q.ready(e, urgent)
	case e.index < 0:
		delete(q.entries, key)
	}
	q.changed.Signal() // what this one kept from running may run, and any worker does any round
}

// Forget ends the back-off of a key.
func (q *Queue) Forget(key reconcile.Request) { q.limiter.Forget(key) }

// NumRequeues counts the failures of a key in a row.
func (q *Queue) NumRequeues(key reconcile.Request) int { return q.limiter.NumRequeues(key) }

// Len counts the keys that are ready.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for _, l := range []*lane{&q.urgent, &q.other} {
		for _, t := range l.of {
			n += t.keys.Len()
		}
	}
	return n
}

// ShutDown ends all waits. Rounds that run go on.
func (q *Queue) ShutDown() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	if q.timer != nil {
		q.timer.Stop()
	}
	q.changed.Broadcast()
}

// ShutDownWithDrain does the same: workers end by themselves.
func (q *Queue) ShutDownWithDrain() { q.ShutDown() }

// ShuttingDown tells whether the queue takes no more.
func (q *Queue) ShuttingDown() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}
