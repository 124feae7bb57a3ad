package gateway

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// What clients take of the gateway's memory, in bytes, as measured (TestHeldMemory): live heap,
// stacks of goroutines, and what the kernel buffers.
const (
	// connMemory is that of an open connection without a request.
	connMemory = 8 << 10
	// requestMemory is what a request takes beside its connection, its head and its body.
	requestMemory = 16 << 10
	// tcpMemory is that of a TCP connection with its buffered first bytes.
	tcpMemory = 16<<10 + tcpBuffered
	// headStep is how much is taken at a time for a head that is being read.
	headStep = 4 << 10
)

// headMemory is what a head of n bytes takes: its strings, and the slices and maps around them.
func headMemory(n int64) int64 { return n + n/4 }

// boundedListener accepts connections while the Service is in the gateway's path and has memory
// left. The others are ended at once.
type boundedListener struct {
	net.Listener
	port *port
}

// Accept implements net.Listener.
func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		switch {
		case !l.port.lane.Admits():
			reset(c)
		case !l.port.memory.Take(connMemory):
			l.port.lane.CountRefusal()
			refuse(c)
		default:
			return &clientConn{Conn: c, port: l.port}, nil
		}
	}
}

// noMemory is the answer to a connection for which there is no memory.
const noMemory = "HTTP/1.1 503 Service Unavailable\r\nSluice-Reason: full\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

// refuse answers without having read anything. The write fits an empty socket's buffer, so it does
// not wait.
func refuse(c net.Conn) {
	_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	_, _ = io.WriteString(c, noMemory)
	closeWrite(c)
	_ = c.Close()
}

// clientConn is a client's connection that is charged to its Service: itself, and what was read of
// a head that is not complete.
type clientConn struct {
	net.Conn
	port *port
	// quiet says that a handler has the head: what is read now is a body.
	quiet atomic.Bool

	mu     sync.Mutex
	closed bool
	read   int64 // of the head
	taken  int64 // for it
}

// Read implements net.Conn. It answers 503 and ends when the head takes more memory than the
// Service has left.
func (c *clientConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n == 0 || c.quiet.Load() {
		return n, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read += int64(n)
	for !c.closed && c.read > c.taken+headStep { // the first step is of connMemory
		if !c.port.memory.Take(headStep) {
			c.port.lane.CountRefusal()
			refuse(c.Conn)
			return 0, io.EOF // an end that the server does not answer
		}
		c.taken += headStep
	}
	return n, err
}

// headIsRead says that the request is charged for its head from now on.
func (c *clientConn) headIsRead() {
	c.quiet.Store(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.port.memory.Give(c.taken)
	c.read, c.taken = 0, 0
}

// nextHead says that a request is over, and that the next one's head comes.
func (c *clientConn) nextHead() { c.quiet.Store(false) }

// Close implements net.Conn.
func (c *clientConn) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		c.port.memory.Give(connMemory + c.taken)
		c.read, c.taken = 0, 0
	}
	c.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite ends one direction of an upgraded connection.
func (c *clientConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// SyscallConn implements syscall.Conn.
func (c *clientConn) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// charge takes the memory of a request for as long as it is here; false refuses it.
func (p *port) charge(r *http.Request) (give func(), ok bool) {
	n := requestMemory + headMemory(headBytes(r)) + bodyMemory(r)
	if !p.memory.Take(n) {
		return nil, false
	}
	c, _ := r.Context().Value(connKey{}).(*clientConn)
	if c != nil {
		c.headIsRead()
	}
	return func() {
		p.memory.Give(n)
		if c != nil && r.ProtoMajor == 1 { // over HTTP/2 requests overlap
			c.nextHead()
		}
	}, true
}
