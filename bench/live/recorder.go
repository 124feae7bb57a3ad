package live

import (
	"slices"
	"sync"
	"time"
)

// Recorder collects observations of a cluster. Instants are given by the caller. It is safe for
// concurrent use; the zero value has seen nothing.
type Recorder struct {
	mu     sync.Mutex
	pods   []*seenPod
	byID   map[string]*seenPod
	wanted []seenCount
}

type seenPod struct {
	id, name string
	steps    []seenStep
}

type seenStep struct {
	at    time.Time
	state State
}

type seenCount struct {
	at       time.Time
	replicas int
}

// Pod notes that a pod, by its identity, is in a state. The same state again changes nothing, and
// what is gone stays so.
func (r *Recorder) Pod(at time.Time, id, name string, s State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.byID[id]
	if p == nil {
		if s == Gone {
			return
		}
		p = &seenPod{id: id, name: name}
		if r.byID == nil {
			r.byID = map[string]*seenPod{}
		}
		r.byID[id] = p
		r.pods = append(r.pods, p)
	}
	if n := len(p.steps); n > 0 {
		last := p.steps[n-1].state
		wasReady := slices.ContainsFunc(p.steps, func(x seenStep) bool { return x.state == Ready })
		if wasReady && (s == Created || s == Scheduled || s == Started) {
			s = Unready
		}
		if last == s || last == Gone || last == Ending && s != Gone {
			return
		}
	}
	p.steps = append(p.steps, seenStep{at, s})
}

// Wanted notes spec.replicas.
func (r *Recorder) Wanted(at time.Time, replicas int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.wanted); n == 0 || r.wanted[n-1].replicas != replicas {
		r.wanted = append(r.wanted, seenCount{at, replicas})
	}
}

// Ready is how many pods are ready now.
func (r *Recorder) Ready() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, p := range r.pods {
		if p.steps[len(p.steps)-1].state == Ready {
			n++
		}
	}
	return n
}

// Cluster is all that was seen, in times since start. Pods that were gone before it are left out,
// and of counts the last before it is kept.
func (r *Recorder) Cluster(start time.Time) *Cluster {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &Cluster{Pods: []Pod{}, Wanted: []Count{}}
	for _, p := range r.pods {
		if last := p.steps[len(p.steps)-1]; last.state == Gone && last.at.Before(start) {
			continue
		}
		out := Pod{Name: p.name}
		for _, s := range p.steps {
			out.Steps = append(out.Steps, Step{s.at.Sub(start), s.state})
		}
		c.Pods = append(c.Pods, out)
	}
	for _, w := range r.wanted {
		at := w.at.Sub(start)
		if at <= 0 {
			c.Wanted = c.Wanted[:0]
		}
		c.Wanted = append(c.Wanted, Count{at, w.replicas})
	}
	return c
}
