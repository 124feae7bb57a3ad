package proxy

import (
	"context"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// backendBuffer is what is read of an answer at once, in bytes.
	backendBuffer = 16 << 10
	// trusted is how long an idle connection to the app is used again without a look whether the app has closed it.
	trusted = time.Millisecond
	// maxIdle bounds the connections to the app that are kept without use.
	maxIdle = 1 << 10
)

// backend is a connection to the app. One exchange at a time owns it.
type backend struct {
	nc     net.Conn
	io     io.ReadWriter // nc, or a shorter way to it
	raw    syscall.RawConn
	in     []byte
	r, w   int // in[r:w] was read and not yet used
	idleAt time.Duration
	used   bool // by an exchange before
}

func (b *backend) buffered() []byte { return b.in[b.r:b.w] }

// fill reads more behind what is buffered; when the buffer is full it grows, up to limit bytes. A full buffer at its
// limit is the caller's to notice: fill returns 0 and no error.
func (b *backend) fill(limit int) (int, error) {
	switch {
	case b.r == b.w:
		b.r, b.w = 0, 0
	case b.w == len(b.in) && b.r > 0:
		b.w = copy(b.in, b.in[b.r:b.w])
		b.r = 0
	case b.w == len(b.in):
		if len(b.in) >= limit {
			return 0, nil
		}
		b.in = append(b.in, make([]byte, min(len(b.in), limit-len(b.in)))...)
	}
	n, err := b.io.Read(b.in[b.w:])
	b.w += n
	if n > 0 {
		err = nil // an error comes again
	}
	return n, err
}

// pool keeps connections to the app. The one last used is used first, so that the others can go.
type pool struct {
	network, address string
	dialer           net.Dialer
	idleTimeout      time.Duration

	mu     sync.Mutex
	idle   []*backend
	closed bool
}

// get returns a connection that was idle, or nil.
func (p *pool) get(now time.Duration) *backend {
	for {
		p.mu.Lock()
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			return nil
		}
		b := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		idle := now - b.idleAt
		if idle < p.idleTimeout && (idle < trusted || look(b.raw) == nothing) {
			return b
		}
		_ = b.nc.Close()
	}
}

// dial opens a new connection.
func (p *pool) dial(ctx context.Context) (*backend, error) {
	nc, err := p.dialer.DialContext(ctx, p.network, p.address)
	if err != nil {
		return nil, err
	}
	b := &backend{nc: nc, in: make([]byte, backendBuffer)}
	if sc, ok := nc.(syscall.Conn); ok {
		b.raw, _ = sc.SyscallConn()
	}
	b.io = direct(nc, b.raw)
	return b, nil
}

// put takes back a connection on which both messages are complete.
func (p *pool) put(b *backend, now time.Duration) {
	b.idleAt, b.used = now, true
	if len(b.in) > backendBuffer {
		b.in = make([]byte, backendBuffer) // an answer with huge headers was an exception
	}
	p.mu.Lock()
	if !p.closed && len(p.idle) < maxIdle {
		p.idle = append(p.idle, b)
		b = nil
	}
	p.mu.Unlock()
	if b != nil {
		_ = b.nc.Close()
	}
}

// sweep closes what was idle for too long.
func (p *pool) sweep(now time.Duration) {
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && now-p.idle[n].idleAt >= p.idleTimeout { // the oldest are first
		_ = p.idle[n].nc.Close()
		n++
	}
	if n > 0 {
		rest := copy(p.idle, p.idle[n:])
		clear(p.idle[rest:])
		p.idle = p.idle[:rest]
	}
	p.mu.Unlock()
}

// close closes every idle connection, and from now on those that are put back.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, b := range p.idle {
		_ = b.nc.Close()
	}
	p.idle = nil
}

// sight is what waits to be read on a connection.
type sight int

const (
	nothing sight = iota
	data
	end // or an error
)

// look tells what the next read of a connection would find, without reading. A reader may be under way.
func look(raw syscall.RawConn) sight {
	if raw == nil {
		return nothing
	}
	got := end
	err := raw.Control(func(fd uintptr) {
		var one [1]byte
		n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case n > 0:
			got = data
		case err == syscall.EAGAIN || err == syscall.EINTR:
			got = nothing
		}
	})
	if err != nil {
		return end
	}
	return got
}
