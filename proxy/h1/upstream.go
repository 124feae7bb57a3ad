package h1

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/proxy/socket"
)

const (
	// upstreamBuffer is what is read of an answer at once, in bytes.
	upstreamBuffer = 16 << 10
	// trusted is how long an idle connection to the app is used again without a look whether the app has closed it.
	trusted = time.Millisecond
	// maxIdle bounds the connections to the app that are kept without use.
	maxIdle = 1 << 10
)

// upstreamConn is a connection to the app. One exchange at a time owns it.
type upstreamConn struct {
	socket.Conn
	in     []byte
	r, w   int // in[r:w] was read and not yet used
	idleAt time.Duration
	used   bool // by an exchange before
}

func (b *upstreamConn) buffered() []byte { return b.in[b.r:b.w] }

// fill reads more behind what is buffered; when the buffer is full it grows, up to limit bytes. A full buffer at its
// limit is the caller's to notice: fill returns 0 and no error.
func (b *upstreamConn) fill(limit int) (int, error) {
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
	n, err := b.IO.Read(b.in[b.w:])
	b.w += n
	if n > 0 {
		err = nil // an error comes again
	}
	return n, err
}

// upstreamPool keeps connections to the app. The one last used is used first, so that the others can go.
type upstreamPool struct {
	network, address string
	dialer           net.Dialer
	idleTimeout      time.Duration

	mu     sync.Mutex
	idle   []*upstreamConn
	closed bool
}

// get returns a connection that was idle, or nil.
func (p *upstreamPool) get(now time.Duration) *upstreamConn {
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
		if idle < p.idleTimeout && (idle < trusted || b.Peek() == socket.Nothing) {
			return b
		}
		_ = b.Net.Close()
	}
}

// dial opens a new connection.
func (p *upstreamPool) dial(ctx context.Context) (*upstreamConn, error) {
	nc, err := p.dialer.DialContext(ctx, p.network, p.address)
	if err != nil {
		return nil, err
	}
	return &upstreamConn{Conn: socket.New(nc), in: make([]byte, upstreamBuffer)}, nil
}

// put takes back a connection on which both messages are complete.
func (p *upstreamPool) put(b *upstreamConn, now time.Duration) {
	b.idleAt, b.used = now, true
	if len(b.in) > upstreamBuffer {
		b.in = make([]byte, upstreamBuffer) // an answer with huge headers was an exception
	}
	p.mu.Lock()
	if !p.closed && len(p.idle) < maxIdle {
		p.idle = append(p.idle, b)
		b = nil
	}
	p.mu.Unlock()
	if b != nil {
		_ = b.Net.Close()
	}
}

// sweep closes what was idle for too long.
func (p *upstreamPool) sweep(now time.Duration) {
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && now-p.idle[n].idleAt >= p.idleTimeout { // the oldest are first
		_ = p.idle[n].Net.Close()
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
func (p *upstreamPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, b := range p.idle {
		_ = b.Net.Close()
	}
	p.idle = nil
}
