package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/internal/serve"
)

const (
	// streams is how many HTTP/2 streams one connection may have open: a gateway or mesh may bring all its requests on one.
	streams = 1000
	// cutWait bounds the wait for handlers whose connections were cut at the very end.
	cutWait = time.Second
	// acceptPause is how long no connection is accepted when the process can open no more.
	acceptPause = 10 * time.Millisecond
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

// http2 returns a server for connections that are known to speak HTTP/2.
func (s *Server) http2(base context.Context) *http.Server {
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
	srv.Protocols.SetUnencryptedHTTP2(true)
	srv.Protocols.SetHTTP2(true)
	return srv
}

func (s *Server) run(ctx context.Context) error {
	d, inFlight := s.Handler.opts.Drain, s.Handler.opts.InFlight
	// The requests' context ends with the server, and what is upgraded with it.
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()

	// Two HTTP/2 servers, one after the other: net/http can send GOAWAY only by a shutdown that accepts no more, and new
	// connections are to be accepted still.
	first, late := s.http2(base), s.http2(base)
	firstConns, lateConns := newFeed(s.listener.Addr()), newFeed(s.listener.Addr())
	var http2 sync.WaitGroup
	defer http2.Wait()
	serveHTTP2 := func(srv *http.Server, conns *feed) {
		http2.Go(func() {
			if err := srv.Serve(conns); !errors.Is(err, http.ErrServerClosed) {
				s.Log.ErrorContext(ctx, "serve HTTP/2", slog.Any("error", err))
			}
		})
	}
	serveHTTP2(first, firstConns)
	serveHTTP2(late, lateConns)
	defer func() { _, _ = first.Close(), late.Close() }()
	e := newEngine(base, s, func(nc net.Conn) {
		if !firstConns.give(nc) && !lateConns.give(nc) {
			_ = nc.Close()
		}
	})
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
		e.closeIdle()
		err := first.Shutdown(bound)
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
		if late.Shutdown(bound) == nil {
			select {
			case <-inFlight.Idle():
			case <-bound.Done():
			}
		}
	}
	cut()
	e.pool.close()
	e.cutAll()
	_, _ = first.Close(), late.Close()
	close(watched)
	e.wg.Wait()
	s.Handler.Close()
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

// feed is a listener whose connections are given to it.
type feed struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newFeed(addr net.Addr) *feed {
	return &feed{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// give hands a connection over, unless the feed is closed.
func (f *feed) give(nc net.Conn) bool {
	select {
	case f.conns <- nc:
		return true
	case <-f.done:
		return false
	}
}

// Accept waits for a connection.
func (f *feed) Accept() (net.Conn, error) {
	select {
	case nc := <-f.conns:
		return nc, nil
	case <-f.done:
		return nil, net.ErrClosed
	}
}

// Close ends the feed.
func (f *feed) Close() error {
	f.once.Do(func() { close(f.done) })
	return nil
}

// Addr is the address of the listener that the connections came from.
func (f *feed) Addr() net.Addr { return f.addr }
