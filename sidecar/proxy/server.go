package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/sluice-autoscaler/sluice/internal/serve"
)

const (
	// cutWait bounds the wait for handlers whose connections were cut at the very end.
	cutWait = time.Second
	// acceptPause is how long no connection is accepted when the process can open no more.
	acceptPause = 10 * time.Millisecond
	// tooLate is how long before the end of the lame duck the last connection should have come.
	tooLate = 500 * time.Millisecond
)

// Server listens for a Handler, and drains in the order of its drain.Drain:
//
//  1. from the drain's begin, each answer closes its connection (HTTP/1) or sends GOAWAY (HTTP/2);
//  2. after the lame duck, idle connections are closed, every HTTP/2 connection gets GOAWAY, and running requests are
//     waited for;
//  3. connections are accepted and served on even so until the service is stopped: a request that strays here late is
//     better answered than refused.
type Server struct {
	// Address is what to listen on, as net.Listen takes it.
	Address string
	Handler *Handler
	// TLS serves TLS only; nil serves none.
	TLS *tls.Config
	// HeaderTimeout bounds the time in which a client sends a request's headers; IdleTimeout how long a connection may
	// be kept open without a request. Longer than the idle timeout of load balancers before it, or they may send a
	// request just as the connection closes.
	HeaderTimeout, IdleTimeout time.Duration
	// MaxHeaderBytes bounds a request's headers; larger ones are answered 431.
	MaxHeaderBytes int
	// LateDrain bounds the wait for requests that run when the service is stopped although the drain was over.
	LateDrain time.Duration
	Log       *slog.Logger

	listener net.Listener
}

// Service returns s as a part of a Group.
func (s *Server) Service() serve.Service {
	return serve.Service{Name: "proxy", Start: s.start, Run: s.run, Abandon: func() { _ = s.listener.Close() }}
}

// Addr is the address listened on, nil before the service has started.
func (s *Server) Addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

func (s *Server) start(ctx context.Context) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.Address)
	if err != nil {
		return err // net's error names deed and address
	}
	s.listener = l
	return nil
}

func (s *Server) run(ctx context.Context) error {
	d, inFlight := s.Handler.opts.Drain, s.Handler.opts.InFlight
	// The requests' context ends with the server, and what is upgraded with it.
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()

	e := newEngine(base, s)
	watched := make(chan struct{})
	e.wg.Go(func() { e.watch(watched) })
	broken := make(chan error, 1)
	e.wg.Go(func() {
		if err := s.accept(e); err != nil {
			broken <- fmt.Errorf("accept on %s: %w", s.Address, err)
			d.Begin()
		}
	})

	err := d.Run(ctx, func(bound context.Context) error {
		s.Log.InfoContext(ctx, "lame duck over", slog.Int("in_flight", inFlight.Read(0).InFlight))
		if late := time.Duration(e.late.Load()); late > 0 {
			if quiet := s.Handler.opts.Now() - late; quiet < tooLate {
				s.Log.WarnContext(ctx, "connections came until the end of the lame duck, so that later ones may be refused: want a longer --lame-duck",
					slog.Duration("last_before", quiet))
			}
		}
		e.closeIdle()
		e.goAway()
		err := e.gone(bound)
		select {
		case <-inFlight.Idle():
			if err != nil {
				return fmt.Errorf("close connections: %w", err)
			}
			return nil
		case <-bound.Done():
			return fmt.Errorf("%d requests still run", inFlight.Read(0).InFlight)
		}
	})
	if err != nil {
		s.Log.WarnContext(ctx, "drain ended early", slog.Any("error", err))
	} else {
		s.Log.InfoContext(ctx, "drained")
	}

	var failure error
	select {
	case <-ctx.Done():
	case failure = <-broken:
	}
	// The process is to end: what came late gets its time, unless time was up already.
	_ = s.listener.Close()
	if d.Err() == nil {
		bound, cancel := context.WithTimeout(base, s.LateDrain)
		defer cancel()
		e.closeIdle()
		e.goAway()
		if e.gone(bound) == nil {
			select {
			case <-inFlight.Idle():
			case <-bound.Done():
			}
		}
	}
	cut()
	e.pool.close()
	e.cutAll()
	close(watched)
	e.wg.Wait()
	t := time.NewTimer(cutWait)
	defer t.Stop()
	select {
	case <-inFlight.Idle():
	case <-t.C:
	}
	return failure
}

// accept takes connections until the listener is closed.
func (s *Server) accept(e *engine) error {
	for {
		nc, err := s.listener.Accept()
		if err == nil && s.Handler.opts.Drain.Draining() {
			e.late.Store(int64(s.Handler.opts.Now()))
		}
		switch {
		case err == nil && s.TLS != nil:
			e.serve(tls.Server(nc, s.TLS))
		case err == nil:
			e.serve(nc)
		case errors.Is(err, net.ErrClosed):
			return nil
		case temporary(err):
			time.Sleep(acceptPause) // the process has no descriptor left: connections wait in the kernel
		default:
			return err
		}
	}
}

func temporary(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err)
	return ok && t.Temporary()
}
