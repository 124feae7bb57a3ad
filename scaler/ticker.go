package scaler

import (
	"container/heap"
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/loop"
)

// TickerOptions configure a Ticker.
type TickerOptions struct {
	Scaler *Scaler
	// AtOnce bounds how many rounds are done at a time, at least 1. More wait for slow platforms
	// side by side, fewer ask less of them.
	AtOnce int
	// Beat is called whenever a round can begin, each BeatEvery at least; it may be nil.
	Beat func(now time.Time)
	// Forget is called of a workload that is scaled no more, after its last round; it may be nil.
	Forget func(ref loop.Ref)
}

const (
	// BeatEvery is the longest time between two beats of a Ticker that is alive.
	BeatEvery = 5 * time.Second
	// roundTimeout bounds one round.
	roundTimeout = 30 * time.Second
)

// Ticker drives a list of workloads: each has its next round when the last one said. Rounds of one
// workload never overlap, and a panic in one is contained. Its methods are safe for concurrent use.
type Ticker struct {
	TickerOptions

	mu   sync.Mutex
	list []WorkloadSpec
	// poked are the workloads that are to have a round at once.
	poked map[loop.Ref]bool
	// changed tells Run that the list is another, or that workloads were poked.
	changed chan struct{}
}

// NewTicker returns a Ticker without workloads.
func NewTicker(o TickerOptions) *Ticker {
	return &Ticker{TickerOptions: o, poked: map[loop.Ref]bool{}, changed: make(chan struct{}, 1)}
}

// Set replaces the list, which is not to be changed any more. What is remembered of workloads that
// stay is kept. Run takes it over soon.
func (t *Ticker) Set(list []WorkloadSpec) {
	t.mu.Lock()
	t.list = list
	t.mu.Unlock()
	t.notify()
}

// Poke asks for a round of a workload now. It does not wait.
func (t *Ticker) Poke(ref loop.Ref) {
	t.mu.Lock()
	t.poked[ref] = true
	t.mu.Unlock()
	t.notify()
}

func (t *Ticker) notify() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// ticked is one workload of a Ticker.
type ticked struct {
	// workload and fault belong to the round that runs, else to Run. Fault is the text of the last
	// round's fault, so that one that stays is told once.
	workload *Workload
	fault    string

	// What follows is Run's alone. Version counts the changes of spec; configured is the one that
	// the workload has.
	spec                loop.Spec
	version, configured int
	born, due           time.Time
	// place is its index in the queue, -1 while a round runs.
	place int
	// gone says that it is not in the list any more; poked that it is due again after this round.
	gone, poked bool
}

// tickedRound is a round of a Ticker and what it came to.
type tickedRound struct {
	*ticked
	// spec is nil when the workload has it already; version is that of the spec.
	spec    *loop.Spec
	version int
	// configured is false when the workload could not be given its spec.
	configured bool
	next       time.Duration
}

// dueQueue is a heap of workloads by when they are due.
type dueQueue []*ticked

func (q dueQueue) Len() int           { return len(q) }
func (q dueQueue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q dueQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push implements heap.Interface.
func (q *dueQueue) Push(x any) {
	w, ok := x.(*ticked)
	if ok {
		w.place = len(*q)
		*q = append(*q, w)
	}
}

// Pop implements heap.Interface.
func (q *dueQueue) Pop() any {
	old := *q
	w := old[len(old)-1]
	w.place = -1
	*q = old[:len(old)-1]
	return w
}

// Run drives the workloads until ctx ends, and then closes them once their rounds are over. It is
// to be called once.
func (t *Ticker) Run(ctx context.Context) error {
	var (
		all     = map[loop.Ref]*ticked{}
		queue   dueQueue
		running int
		done    = make(chan tickedRound, t.AtOnce)
		timer   = time.NewTimer(0)
	)
	defer timer.Stop()
	for {
		now := t.Scaler.Clock()
		if running < t.AtOnce && t.Beat != nil {
			t.Beat(now)
		}
		for running < t.AtOnce && len(queue) > 0 && !queue[0].due.After(now) {
			r := queue.next()
			running++
			go func() { done <- t.round(ctx, r) }()
		}
		wait := BeatEvery
		if running < t.AtOnce && len(queue) > 0 {
			wait = min(wait, max(0, queue[0].due.Sub(now)))
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			for ; running > 0; running-- {
				<-done
			}
			for _, w := range all {
				w.workload.Close()
			}
			return nil
		case <-timer.C:
		case <-t.changed:
			t.takeList(all, &queue)
		case r := <-done:
			running--
			t.finish(r, &queue)
		}
	}
}

// next takes the first of the queue, for a round.
func (q *dueQueue) next() tickedRound {
	w, _ := heap.Pop(q).(*ticked)
	r := tickedRound{ticked: w, version: w.version}
	if w.configured != w.version {
		spec := w.spec
		r.spec = &spec
	}
	return r
}

// finish puts a workload into the queue again, once its round is over.
func (t *Ticker) finish(r tickedRound, queue *dueQueue) {
	if r.gone {
		t.forget(r.ticked)
		return
	}
	if r.configured {
		r.ticked.configured = r.version
	}
	r.due = t.Scaler.Clock().Add(r.next)
	if r.ticked.version != r.version || r.poked {
		r.due, r.poked = t.Scaler.Clock(), false
	}
	heap.Push(queue, r.ticked)
}

// round does one round of a workload, with its new spec if it has one.
func (t *Ticker) round(ctx context.Context, r tickedRound) (out tickedRound) {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	out = r
	out.next = retryAfter
	name, log := slog.String("workload", r.workload.Ref().String()), t.Scaler.Log
	defer func() {
		if p := recover(); p != nil {
			log.ErrorContext(ctx, "round panicked, will retry", name, slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
		}
	}()
	var err error
	if out.configured = true; r.spec != nil {
		if err = r.workload.Configure(*r.spec, r.born); err != nil {
			out.configured, err = false, fmt.Errorf("configure %s: %w", r.workload.Ref(), err)
			if r.workload.Configured() { // the spec before still drives
				log.WarnContext(ctx, "spec not taken, will retry", name, slog.Any("error", err))
				err = nil
			}
		}
	}
	if err == nil {
		var o Outcome
		o, err = r.workload.Round(ctx)
		out.next = o.Next
		for _, n := range o.Notices {
			log.InfoContext(ctx, "noticed", name, slog.String("reason", n.Reason), slog.String("notice", n.Message))
		}
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != r.fault && text != "" && ctx.Err() == nil {
		log.WarnContext(ctx, "round failed, will retry", name, slog.Any("error", err))
	}
	r.fault = text
	return out
}

// takeList takes a new list over. A workload that is new, has another spec or was poked is due at
// once.
func (t *Ticker) takeList(all map[loop.Ref]*ticked, queue *dueQueue) {
	t.mu.Lock()
	list, poked := t.list, t.poked
	t.poked = map[loop.Ref]bool{}
	t.mu.Unlock()
	now := t.Scaler.Clock()
	here := make(map[loop.Ref]bool, len(list))
	for i := range list {
		here[list[i].Ref] = true
		w := all[list[i].Ref]
		switch {
		case w == nil:
			w = &ticked{workload: t.Scaler.Open(list[i].Ref), born: now, due: now}
			all[list[i].Ref] = w
			heap.Push(queue, w)
		case reflect.DeepEqual(w.spec, list[i].Spec):
			continue
		case w.place >= 0:
			w.due = now
			heap.Fix(queue, w.place)
		}
		w.spec = list[i].Spec
		w.version++
	}
	for ref, w := range all {
		if here[ref] {
			continue
		}
		delete(all, ref)
		if w.gone = true; w.place >= 0 {
			heap.Remove(queue, w.place)
			t.forget(w)
		}
	}
	for ref := range poked {
		switch w := all[ref]; {
		case w == nil:
		case w.place < 0:
			w.poked = true
		default:
			w.due = now
			heap.Fix(queue, w.place)
		}
	}
}

func (t *Ticker) forget(w *ticked) {
	w.workload.Close()
	if t.Forget != nil {
		t.Forget(w.workload.Ref())
	}
}
