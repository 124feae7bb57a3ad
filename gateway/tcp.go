package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/gateway/hold"
)

// tcpBuffered is how many first bytes of a held TCP connection are read. They are read at all only
// to notice that the client has left.
const tcpBuffered = 16 << 10

// acceptTCP serves a port whose protocol is not HTTP: a connection counts as a request.
func (p *port) acceptTCP(ctx context.Context, l net.Listener) {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			p.log.Warn("accept", slog.String("target", p.lane.Target.String()), slog.Any("error", err))
			select { // out of descriptors, most likely: some will be given back
			case <-time.After(10 * time.Millisecond):
				continue
			case <-ctx.Done():
				return
			}
		}
		if !p.lane.Admits() {
			reset(conn)
			continue
		}
		if !p.memory.Take(tcpMemory) {
			p.lane.CountRefusal()
			reset(conn)
			continue
		}
		p.active.Add(1)
		all.Go(func() {
			defer p.active.Add(-1)
			defer p.memory.Give(tcpMemory)
			defer func() { _ = conn.Close() }()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			p.serveTCP(ctx, conn)
		})
	}
}

func (p *port) serveTCP(ctx context.Context, conn net.Conn) {
	held, cancel := context.WithCancel(ctx)
	defer cancel()
	first := readFirst(conn, cancel)
	l := p.lane
	t, err := l.Admit(held, tcpBuffered, nil)
	if err != nil {
		first.stop()
		reset(conn)
		return
	}
	var pod net.Conn
	for {
		address, _ := l.Where(t)
		if pod, err = p.dial(held, address); err == nil {
			break
		}
		if held.Err() != nil {
			l.Leave(t, hold.Canceled)
			first.stop()
			return
		}
		if err := l.Refused(held, t, nil); err != nil {
			first.stop()
			reset(conn)
			return
		}
	}
	l.Connected(t)
	defer l.Finish(t)
	defer func() { _ = pod.Close() }()
	defer context.AfterFunc(ctx, func() { _ = pod.Close() })()
	head, ended := first.stop()
	if _, err := pod.Write(head); err != nil {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { pipe(conn, pod) })
	if ended {
		closeWrite(pod)
	} else {
		pipe(pod, conn)
	}
	back.Wait()
}

// pipe copies one direction to its end and passes the end on.
func pipe(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		// One broken direction breaks both: nothing may hang on the other.
		_ = to.Close()
		_ = from.Close()
		return
	}
	closeWrite(to)
}

func closeWrite(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
}

// reset closes a connection so that the client sees an error, not an orderly end.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

// firstBytes reads the beginning of a held connection.
type firstBytes struct {
	conn  net.Conn
	done  chan struct{}
	bytes []byte
	ended bool
}

// readFirst reads until the buffer is full, the client ends, or stop. left is called when the
// client breaks the connection, or ends it without having sent a byte; one that ends after its
// request may still want the answer.
func readFirst(conn net.Conn, left func()) *firstBytes {
	f := &firstBytes{conn: conn, done: make(chan struct{})}
	go func() {
		defer close(f.done)
		buf := make([]byte, 512)
		for len(f.bytes) < tcpBuffered {
			n, err := conn.Read(buf[:min(len(buf), tcpBuffered-len(f.bytes))])
			f.bytes = append(f.bytes, buf[:n]...)
			if err == nil {
				continue
			}
			if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
				return // stop
			}
			f.ended = true
			if !errors.Is(err, io.EOF) || len(f.bytes) == 0 {
				left()
			}
			return
		}
	}()
	return f
}

// stop returns what was read, and whether the client has ended its direction.
func (f *firstBytes) stop() ([]byte, bool) {
	_ = f.conn.SetReadDeadline(time.Unix(1, 0))
	<-f.done
	_ = f.conn.SetReadDeadline(time.Time{})
	return f.bytes, f.ended
}
