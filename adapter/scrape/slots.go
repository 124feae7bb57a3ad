package scrape

import (
	"context"
	"slices"
	"sync"
)

const (
	// maxReads bounds the reads at once. Each takes a connection and some 10 KiB.
	maxReads = 256
	// maxNamespaceReads bounds those of one namespace's pods: pods that answer late take no slot
	// that another namespace needs. 64 slots are enough for 60 pods that never answer, or for
	// thousands that answer within milliseconds.
	maxNamespaceReads = maxReads / 4
)

// slots share a bounded number of reads out among namespaces. A slot that becomes free goes to the
// namespace that holds the fewest. newSlots makes it; it is safe for concurrent use.
type slots struct {
	most int // of one namespace

	mu     sync.Mutex
	free   int
	shares map[string]*share // those that hold a slot or wait for one
	turn   uint64            // of the last waiter
}

// share is what one namespace has of the slots.
type share struct {
	held    int
	waiting []*waiter // oldest first
}

type waiter struct {
	turn    uint64
	granted chan struct{} // closed when it has a slot
}

func newSlots(all, most int) *slots {
	return &slots{free: all, most: most, shares: map[string]*share{}}
}

// acquire takes a slot for a namespace, and waits for one if it must. With a nil error the caller
// owes one release; otherwise ctx has ended.
func (s *slots) acquire(ctx context.Context, namespace string) error {
	s.mu.Lock()
	h := s.shares[namespace]
	if h == nil {
		h = &share{}
		s.shares[namespace] = h
	}
	s.turn++
	w := &waiter{turn: s.turn, granted: make(chan struct{})}
	h.waiting = append(h.waiting, w)
	s.grant()
	s.mu.Unlock()
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(h.waiting, w); i >= 0 {
		h.waiting = slices.Delete(h.waiting, i, i+1)
		s.drop(namespace, h)
	} else {
		s.giveBack(namespace)
	}
	return ctx.Err()
}

// release gives a slot back that a namespace holds.
func (s *slots) release(namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveBack(namespace)
}

// giveBack is release with mu held.
func (s *slots) giveBack(namespace string) {
	h := s.shares[namespace]
	h.held--
	s.free++
	s.drop(namespace, h)
	s.grant()
}

// drop forgets a share that is empty. mu is held.
func (s *slots) drop(namespace string, h *share) {
	if h.held == 0 && len(h.waiting) == 0 {
		delete(s.shares, namespace)
	}
}

// grant gives free slots to those that wait: first to the namespace that holds the fewest, of equal
// ones to the one that has waited longest. mu is held.
func (s *slots) grant() {
	for s.free > 0 {
		var next *share
		for _, h := range s.shares {
			if len(h.waiting) == 0 || h.held >= s.most {
				continue
			}
			if next == nil || h.held < next.held || h.held == next.held && h.waiting[0].turn < next.waiting[0].turn {
				next = h
			}
		}
		if next == nil {
			return
		}
		close(next.waiting[0].granted)
		next.waiting = slices.Delete(next.waiting, 0, 1)
		next.held++
		s.free--
	}
}
