// Package proxy passes requests on to an app, and measures, limits and drains them. HTTP/1.1 (h1)
// and HTTP/2 (h2) each have an engine of their own, which costs a request no allocation; a
// connection's first bytes tell which. The rules of a request are the same for both (request).
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-autoscaler/sluice/internal/serve"
	"github.com/sluice-autoscaler/sluice/proxy/drain"
	"github.com/sluice-autoscaler/sluice/proxy/h1"
	"github.com/sluice-autoscaler/sluice/proxy/h2"
	"github.com/sluice-autoscaler/sluice/proxy/request"
	"github.com/sluice-autoscaler/sluice/proxy/socket"
)

const (
	// cutWait bounds the wait for requests whose connections were cut at the very end.
	cutWait = time.Second
	// acceptPause is how long no connection is accepted when the process can open no more.
	acceptPause = 10 * time.Millisecond
	// tooLate is how long before the end of the lame duck the last connection should have come.
	tooLate = 500 * time.Millisecond
)

// Server listens for requests to an app, and drains in the order of its rules' drain.Drain:
//
//  1. from the drain's begin, each answer closes its connection (HTTP/1) or sends GOAWAY (HTTP/2);
//  2. after the lame duck, idle connections are closed, every HTTP/2 connection gets GOAWAY, and
//     running requests are waited for;
//  3. connections are accepted and served on even so until the service is stopped: a request that
//     strays here late is better answered than refused;
//  4. when the drain is undone, all is as before its begin.
type Server struct {
	// Address is what to listen on, as net.Listen takes it.
	Address string
	// Rules are those of the app's requests.
	Rules *request.Rules
	// App is the app's address, host:port or unix:/path.
	App string
	// DialTimeout bounds a connect to the app. AppIdleTimeout closes idle connections to it;
	// shorter than the app's own keep-alive timeout, or the app may close a connection just as a
	// request is sent on it.
	DialTimeout, AppIdleTimeout time.Duration
	// TLS serves TLS only; nil serves none.
	TLS *tls.Config
	// HeaderTimeout bounds the time in which a client sends a request's headers; IdleTimeout how
	// long a connection may be kept open without a request. Longer than the idle timeout of load
	// balancers before it, or they may send a request just as the connection closes.
	HeaderTimeout, IdleTimeout time.Duration
	// MaxHeaderBytes bounds a request's headers; larger ones are answered 431.
	MaxHeaderBytes int
	// LateDrain bounds the wait for requests that run when the service is stopped although the
	// drain was over.
	LateDrain time.Duration
	// Heartbeat beats each time that the connections are looked after, which takes every lock that
	// a request takes; nil for none.
	Heartbeat *serve.Heartbeat
	Log       *slog.Logger

	listener net.Listener
	late     atomic.Int64 // the last connection since the drain began, by Rules.Now; 0: none
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

// engines are the two of a server.
type engines struct {
	h1 *h1.Engine
	h2 *h2.Engine
}

// newEngines returns engines whose requests are cut when ctx ends.
func (s *Server) newEngines(ctx context.Context) engines {
	network, address := socket.Address(s.App)
	e2 := h2.New(ctx, h2.Config{
		Rules: s.Rules, Network: network, Address: address, DialTimeout: s.DialTimeout, UpstreamIdleTimeout: s.AppIdleTimeout,
		HeaderTimeout: s.HeaderTimeout, IdleTimeout: s.IdleTimeout, MaxHeaderBytes: s.MaxHeaderBytes,
	})
	e1 := h1.New(ctx, h1.Config{
		Rules: s.Rules, Network: network, Address: address, DialTimeout: s.DialTimeout, UpstreamIdleTimeout: s.AppIdleTimeout,
		HeaderTimeout: s.HeaderTimeout, IdleTimeout: s.IdleTimeout, MaxHeaderBytes: s.MaxHeaderBytes, HTTP2: e2.Take,
	})
	return engines{e1, e2}
}

// look looks after the connections until done is closed.
func (e engines) look(done <-chan struct{}, now func() time.Duration, heartbeat *serve.Heartbeat) {
	t := time.NewTicker(h1.Tick)
	defer t.Stop()
	for {
		select {
		case <-done:
			return
		case <-t.C:
		}
		if heartbeat != nil {
			heartbeat.Beat(time.Now())
		}
		e.h1.Look(now())
		e.h2.Look(now())
	}
}

// closeIdle closes connections without a request, and waits for the others of HTTP/2 until ctx
// ends.
func (e engines) closeIdle(ctx context.Context) error {
	e.h1.CloseIdle()
	e.h2.GoAway()
	return e.h2.WaitClients(ctx)
}

func (s *Server) run(ctx context.Context) error {
	d, inFlight := s.Rules.Drain, s.Rules.InFlight
	// The requests' context ends with the server, and what is upgraded with it.
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	served, end := context.WithCancel(ctx)
	defer end()

	e := s.newEngines(base)
	var own sync.WaitGroup
	stopped := make(chan struct{})
	own.Go(func() { e.look(stopped, s.Rules.Now, s.Heartbeat) })
	broken := make(chan error, 1)
	own.Go(func() {
		if err := s.accept(e.h1); err != nil {
			broken <- fmt.Errorf("accept on %s: %w", s.Address, err)
			end()
		}
	})

	_ = d.Run(served, drain.Steps{ // finish has logged its error
		Begun: func() {
			if served.Err() == nil {
				s.Log.InfoContext(ctx, "draining on request")
			}
		},
		Finish: func(bound context.Context) error { return s.finish(bound, e) },
		Undone: func() {
			s.Log.WarnContext(ctx, "serving as before: no SIGTERM has followed the drain that was asked for")
		},
	})

	var failure error
	select {
	case failure = <-broken:
	default:
	}
	// The process is to end: what came late gets its time, unless time was up already.
	_ = s.listener.Close()
	if d.Err() == nil {
		bound, cancel := context.WithTimeout(base, s.LateDrain)
		defer cancel()
		if e.closeIdle(bound) == nil {
			select {
			case <-inFlight.Idle():
			case <-bound.Done():
			}
		}
	}
	cut()
	e.h1.Cut() // first: its connections may yet turn out to be HTTP/2
	e.h2.Cut()
	close(stopped)
	own.Wait()
	e.h1.Wait()
	e.h2.Wait()
	t := time.NewTimer(cutWait)
	defer t.Stop()
	select {
	case <-inFlight.Idle():
	case <-t.C:
	}
	return failure
}

// finish ends what a drain gives time to after the lame duck; bound is that time. It logs its
// error.
func (s *Server) finish(bound context.Context, e engines) error {
	err := s.endConnections(bound, e)
	if err != nil {
		s.Log.WarnContext(bound, "drain ended early", slog.Any("error", err))
	} else {
		s.Log.InfoContext(bound, "drained")
	}
	return err
}

// endConnections closes idle connections and waits for the requests that run.
func (s *Server) endConnections(bound context.Context, e engines) error {
	inFlight := s.Rules.InFlight
	s.Log.InfoContext(bound, "lame duck over", slog.Int("in_flight", inFlight.Read(0).InFlight))
	if late := time.Duration(s.late.Load()); late > 0 {
		if before := s.Rules.Now() - late; before < tooLate {
			s.Log.WarnContext(bound, "connections came until the end of the lame duck, so that later ones may be refused: want a longer --lame-duck",
				slog.Duration("last_before", before))
		}
	}
	err := e.closeIdle(bound)
	select {
	case <-inFlight.Idle():
		if err != nil {
			return fmt.Errorf("close connections: %w", err)
		}
		return nil
	case <-bound.Done():
		return fmt.Errorf("%d requests still run", inFlight.Read(0).InFlight)
	}
}

// accept takes connections until the listener is closed.
func (s *Server) accept(e *h1.Engine) error {
	for {
		nc, err := s.listener.Accept()
		if err == nil && s.Rules.Drain.Draining() {
			s.late.Store(int64(s.Rules.Now()))
		}
		switch {
		case err == nil && s.TLS != nil:
			e.Serve(tls.Server(nc, s.TLS))
		case err == nil:
			e.Serve(nc)
		case errors.Is(err, net.ErrClosed):
			return nil
		case temporary(err):
			// The process has no descriptor left: connections wait in the kernel.
			time.Sleep(acceptPause)
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
