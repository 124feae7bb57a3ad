// Package serve runs the named services of one process: started in order, stopped in reverse order,
// their errors joined. It also serves HTTP with a bounded drain, and health checks.
package serve

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Service is one part of a process. Its functions are called by one Group only.
type Service struct {
	// Name appears in errors.
	Name string
	// Start prepares the service (binds its port, loads its state) and returns once the next one
	// may start. What it starts in the background must be ended by Run. Nil: nothing to prepare.
	Start func(ctx context.Context) error
	// Run works until ctx ends, then drains and returns. It bounds its own drain. When it returns
	// before its ctx has ended, with or without an error, the whole group is stopped.
	Run func(ctx context.Context) error
	// Abandon undoes Start when Run will never be called, because a later service could not start.
	// Nil: nothing to undo.
	Abandon func()
}

// Group is an ordered set of services. The zero value is empty and ready to use. It is not safe for
// concurrent use, and runs once.
type Group struct {
	services []Service
}

// Add appends services; they start after, and stop before, those added earlier.
func (g *Group) Add(services ...Service) { g.services = append(g.services, services...) }

// Run starts the services in order, and when all have started runs them until ctx ends or one of
// them returns. Then it stops them one by one in reverse order: the next one's ctx ends only when
// the one before has returned. It returns when all have, with their errors joined; nil when ctx
// ended and every service stopped without an error.
//
// The contexts of the services carry ctx's values, but only the group ends them.
func (g *Group) Run(ctx context.Context) error {
	for i, s := range g.services {
		if s.Start == nil {
			continue
		}
		if err := s.Start(ctx); err != nil {
			for j := i - 1; j >= 0; j-- {
				if g.services[j].Abandon != nil {
					g.services[j].Abandon()
				}
			}
			return fmt.Errorf("start %s: %w", s.Name, err)
		}
	}

	type running struct {
		stop context.CancelFunc
		done chan struct{}
		err  error
	}
	var (
		all   = make([]*running, len(g.services))
		ended = make(chan struct{})
		once  sync.Once
	)
	for i, s := range g.services {
		own, stop := context.WithCancel(context.WithoutCancel(ctx))
		defer stop()
		r := &running{stop: stop, done: make(chan struct{})}
		all[i] = r
		go func() {
			defer close(r.done)
			defer once.Do(func() { close(ended) })
			if err := s.Run(own); err != nil {
				r.err = fmt.Errorf("%s: %w", s.Name, err)
			}
		}()
	}
	if len(g.services) > 0 {
		select {
		case <-ctx.Done():
		case <-ended:
		}
	}

	var errs []error
	for _, r := range slices.Backward(all) {
		r.stop()
		<-r.done
		errs = append(errs, r.err)
	}
	return errors.Join(errs...)
}
