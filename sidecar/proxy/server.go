package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/sluice-autoscaler/sluice/internal/serve"
)

// streams is how many HTTP/2 streams one connection may have open: a gateway or mesh may bring all its requests on one.
const streams = 1000

// cutWait bounds the wait for handlers whose connections were cut at the very end.
const cutWait = time.Second

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
	// HeaderTimeout bounds the time in which a client sends a request's headers; IdleTimeout how long a connection may
	// be kept open without a request. Longer than the idle timeout of load balancers before it, or they may send a
	// request just as the connection closes.
	HeaderTimeout, IdleTimeout time.Duration
	// MaxHeaderBytes bounds a request's headers; larger ones are answered 431.
	MaxHeaderBytes int
	// LateDrain bounds the wait for requests that run when the service is stopped although the drain was over.
	LateDrain time.Duration
	Log       *slog.Logger

	listener *net.TCPListener
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
	s.listener = l.(*net.TCPListener)
	return nil
}

func (s *Server) server(base context.Context) *http.Server {
	srv := &http.Server{
		Handler:           s.Handler,
		ReadHeaderTimeout: s.HeaderTimeout,
		IdleTimeout:       s.IdleTimeout,
		MaxHeaderBytes:    s.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return base },
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: streams},
		Protocols:         new(http.Protocols),
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	return srv
}

func (s *Server) run(ctx context.Context) error {
	defer s.Handler.Close()
	defer func() { _ = s.listener.Close() }()
	d, inFlight := s.Handler.opts.Drain, s.Handler.opts.InFlight
	// The requests' context ends with the server, or upgraded connections, which net/http forgets, would outlive it.
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()

	// Two servers share the listener, one after the other: net/http can close idle connections and send GOAWAY only by
	// a shutdown that accepts no more, and new connections are to be accepted still.
	first, late := s.server(base), s.server(base)
	late.SetKeepAlivesEnabled(false)
	broken := make(chan error, 2)
	accept := func(srv *http.Server, l net.Listener) (ended chan struct{}) {
		ended = make(chan struct{})
		go func() {
			defer close(ended)
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				broken <- fmt.Errorf("serve on %s: %w", s.Address, err)
				d.Begin()
			}
		}()
		return ended
	}
	firstEnded := accept(first, &lease{TCPListener: s.listener})
	var lateEnded chan struct{}
	err := d.Run(ctx, func(bound context.Context) error {
		s.Log.InfoContext(ctx, "lame duck over", slog.Int("in_flight", inFlight.Read(0).InFlight))
		shut := make(chan error, 1)
		go func() { shut <- first.Shutdown(bound) }()
		<-firstEnded
		if err := s.listener.SetDeadline(time.Time{}); err != nil { // the lease's end left one
			s.Log.WarnContext(ctx, "late requests cannot be served", slog.Any("error", err))
		}
		lateEnded = accept(late, s.listener)
		err := <-shut
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
	if d.Err() == nil {
		bound, cancel := context.WithTimeout(base, s.LateDrain)
		defer cancel()
		if late.Shutdown(bound) == nil {
			select {
			case <-inFlight.Idle():
			case <-bound.Done():
			}
		}
	}
	cut()
	_, _ = first.Close(), late.Close()
	<-lateEnded
	t := time.NewTimer(cutWait)
	defer t.Stop()
	select {
	case <-inFlight.Idle():
	case <-t.C:
	}
	return failure
}

// lease is the use of a listener for a time: its Close ends that use and leaves the listener open.
type lease struct {
	*net.TCPListener
	ended atomic.Bool
}

// Accept waits for a connection until the lease ends.
func (l *lease) Accept() (net.Conn, error) {
	c, err := l.TCPListener.Accept()
	if err != nil && l.ended.Load() {
		return nil, net.ErrClosed
	}
	return c, err
}

// Close ends the lease. A deadline in the past is what wakes Accept.
func (l *lease) Close() error {
	if l.ended.Swap(true) {
		return nil
	}
	return l.SetDeadline(time.Unix(1, 0))
}
