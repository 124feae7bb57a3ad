package proxy

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/sluice-autoscaler/sluice/sidecar/http2"
)

const (
	// settingsWait bounds how long the app may take to its first settings. It is no bound of the app's start: a connection
	// is accepted by the kernel at once, and read when the app gets to it.
	settingsWait = 10 * time.Second
	// mostMates is from how many links on clients share them. Each link costs both sides memory and a read of its own.
	mostMates = 64
	// dryTime is how long the app may leave a link without a window before other requests avoid it.
	dryTime = 50 * time.Millisecond
	// dialPause is how long no link is made for more clients when the app has refused one.
	dialPause = time.Second
)

// errNoHTTP2 says that the app does not speak HTTP/2.
var errNoHTTP2 = errors.New("the app does not answer in HTTP/2")

// apps are the links to the app. Each client's connection has one, its mate, as if it were connected to the app itself: so a
// client whose uploads the app does not read exhausts the window of its own connection, and an app with a worker
// per connection gets work for all. Beyond mostMates clients share; who finds no room at its mate goes to another one.
type apps struct {
	e *engine

	mu      sync.Mutex
	links   []*link
	dial    *dial // under way
	refused time.Duration
}

// dial is an attempt to make a link.
type dial struct {
	done chan struct{}
	err  error // written before done is closed
}

// open sends the request on a link that has room, and says whether there is one. The caller holds s.mu.
func (a *apps) open(b *burst, s *stream) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.place(b, s) {
		return false
	}
	s.a.pump(b)
	return true
}

func (a *apps) place(b *burst, s *stream) bool {
	c := s.c.l
	if c == nil {
		return false
	}
	if c.mate != nil {
		if c.mate.open(b, s) {
			return true
		}
		if !c.mate.lives() {
			c.mate = nil
		}
	}
	var best *link
	for _, l := range a.links {
		if l != c.mate && (best == nil || l.mates < best.mates) && l.hasRoom() {
			best = l
		}
	}
	if best == nil || !best.open(b, s) {
		return false
	}
	switch {
	case c.mate != nil: // it is full for now
	case best.mates == 0 || len(a.links) >= mostMates:
		c.mate = best
		best.mates++
	case a.dial == nil && (a.refused == 0 || a.e.h.opts.Now()-a.refused >= dialPause):
		a.connect() // for the next one
	}
	return true
}

// lives says whether the link takes requests, if not now.
func (l *link) lives() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.closed && l.phase == running
}

// unmate parts a client's link from its mate.
func (a *apps) unmate(c *link) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.mate != nil {
		c.mate.mates--
		c.mate = nil
	}
}

// open sends the head of the request to the app. The caller holds s.mu.
func (l *link) open(b *burst, s *stream) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.room() {
		return false
	}
	if l.last == 0 {
		l.last = 1
	} else {
		l.last += 2
	}
	a := &s.a
	a.l, a.id, a.window, a.recv = l, l.last, l.initial, appWindow
	l.streams[a.id] = a
	end := a.fin && a.queue.n == 0 && a.trailers == nil
	l.putRequest(s, a.id, end)
	a.sentFin = end
	l.mark(b)
	return true
}

// room says whether the app takes another stream on the link. The caller holds mu.
func (l *link) room() bool {
	return !l.closed && l.phase == running && len(l.streams) < l.most && l.last < http2.MaxStream-2 &&
		(l.dry == 0 || l.e.h.opts.Now()-l.dry < dryTime)
}

func (l *link) hasRoom() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.room()
}

// wait waits until there is a link with room, and makes one if there is none.
func (a *apps) wait(ctx context.Context) error {
	a.mu.Lock()
	for _, l := range a.links {
		if l.hasRoom() {
			a.mu.Unlock()
			return nil
		}
	}
	d := a.dial
	if d == nil {
		d = a.connect()
	}
	a.mu.Unlock()
	select {
	case <-d.done:
		return d.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// connect begins to make a link. The caller holds mu.
func (a *apps) connect() *dial {
	d := &dial{done: make(chan struct{})}
	a.dial = d
	a.e.wg.Go(func() {
		l, err := a.make()
		if err == nil && !l.hasRoom() { // it closed, or allows no stream at all
			_ = l.nc.Close()
			err = errNoHTTP2
		}
		a.mu.Lock()
		if a.refused = 0; err == nil {
			a.links = append(a.links, l)
		} else {
			a.refused = a.e.h.opts.Now()
		}
		d.err = err
		a.dial = nil
		a.mu.Unlock()
		close(d.done)
	})
	return d
}

// make connects to the app and waits for its settings.
func (a *apps) make() (*link, error) {
	e := a.e
	nc, err := e.pool.dialer.DialContext(e.ctx, e.pool.network, e.pool.address)
	if err != nil {
		return nil, err
	}
	var raw syscall.RawConn
	if sc, ok := nc.(syscall.Conn); ok {
		raw, _ = sc.SyscallConn()
	}
	l := newLink(e, nc, direct(nc, raw), raw)
	l.app = true
	l.most = 1 << 30 // until it says otherwise
	l.recv = appLinkWindow
	l.ready = make(chan struct{})
	l.out = append(l.out, http2.Preface...)
	l.out = http2.AppendSettings(l.out, http2.Setting{Parameter: http2.EnablePush, Value: 0}, http2.Setting{Parameter: http2.MaxHeaderList, Value: maxResponseHeader})
	l.out = http2.AppendWindowUpdate(l.out, 0, appLinkWindow-http2.FirstWindow)
	var b burst
	l.mu.Lock()
	l.mark(&b)
	l.mu.Unlock()
	if !e.adopt(l) {
		_ = nc.Close()
		return nil, net.ErrClosed
	}
	b.flush()
	t := time.NewTimer(settingsWait)
	defer t.Stop()
	select {
	case <-l.ready:
	case <-t.C:
		_ = nc.Close()
		return nil, errNoHTTP2
	}
	return l, nil
}

// remove takes a link out that takes no more requests.
func (a *apps) remove(l *link) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if i := slices.Index(a.links, l); i >= 0 {
		a.links = slices.Delete(a.links, i, i+1)
	}
}
