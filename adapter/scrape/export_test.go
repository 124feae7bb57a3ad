package scrape

import (
	"context"
	"time"
)

// For tests.
var (
	Parse       = parse
	Urgent      = urgent
	SortPorts   = sortPorts
	CheckReport = checkReport
)

// The bounds of an exposition and of reads.
const (
	MaxBody           = maxBody
	MaxNamespaceReads = maxNamespaceReads
)

// Repeat reads a pod until ctx ends; read says whether anything has changed.
func (s *Scraper) Repeat(ctx context.Context, read func() (moved bool, err error)) {
	s.repeat(ctx, &target{poke: make(chan struct{}, 1)}, job{
		namespace: "ns", uid: "a",
		read:  func(context.Context) (bool, error) { return read() },
		fail:  func(string) {},
		count: func(string, time.Duration) {},
	})
}

// Slots are the shares of namespaces in a number of reads.
type Slots struct{ s *slots }

// NewSlots returns slots of which one namespace may hold most.
func NewSlots(all, most int) Slots { return Slots{newSlots(all, most)} }

// Acquire takes a slot for a namespace.
func (s Slots) Acquire(ctx context.Context, namespace string) error {
	return s.s.acquire(ctx, namespace)
}

// Release gives it back.
func (s Slots) Release(namespace string) { s.s.release(namespace) }

// Waiting is how many wait, and Shares how many namespaces are known.
func (s Slots) Waiting() (waiting, shares int) {
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	for _, h := range s.s.shares {
		waiting += len(h.waiting)
	}
	return waiting, len(s.s.shares)
}
