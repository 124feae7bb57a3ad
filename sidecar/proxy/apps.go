package proxy

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/sluice-autoscaler/sluice/sidecar/http2"
)

// settingsWait bounds how long the app may take to its first settings. It is no bound of the app's start: a connection is
// accepted by the kernel at once, and read when the app gets to it.
const settingsWait = 10 * time.Second

// errNoHTTP2 says that the app does not speak HTTP/2.
var errNoHTTP2 = errors.New("the app does not answer in HTTP/2")

// apps are the links to the app. All requests go by one, as long as the app allows that many streams on it; then there are
// more.
type apps struct {
	e *engine

	mu    sync.Mutex
	links []*link
	dial  *dial // under way
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
	for _, l := range a.links {
		if l.open(b, s) {
			s.a.pump(b)
			return true
		}
	}
	return false
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
	return !l.closed && l.phase == running && len(l.streams) < l.most && l.last < http2.MaxStream-2
}

// wait waits until there is a link with room, and makes one if there is none.
func (a *apps) wait(ctx context.Context) error {
	a.mu.Lock()
	for _, l := range a.links {
		l.mu.Lock()
		room := l.room()
		l.mu.Unlock()
		if room {
			a.mu.Unlock()
			return nil
		}
	}
	d := a.dial
	if d == nil {
		d = &dial{done: make(chan struct{})}
		a.dial = d
		a.e.wg.Go(func() { a.connect(d) })
	}
	a.mu.Unlock()
	select {
	case <-d.done:
		return d.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *apps) connect(d *dial) {
	l, err := a.make()
	a.mu.Lock()
	if err == nil {
		l.mu.Lock()
		good := l.room() // or it closed, or allows no stream at all
		l.mu.Unlock()
		if good {
			a.links = append([]*link{l}, a.links...)
		} else {
			err = errNoHTTP2
		}
	}
	d.err = err
	a.dial = nil
	a.mu.Unlock()
	close(d.done)
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
	l.in = make([]byte, linkBuffer)
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
	for i := range a.links {
		if a.links[i] == l {
			a.links = append(a.links[:i], a.links[i+1:]...)
			return
		}
	}
}
