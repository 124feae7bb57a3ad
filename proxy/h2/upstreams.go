package h2

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/proxy/h2/transport"
)

const (
	// settingsTimeout bounds how long the app may take to its first settings. It is no bound of the
	// app's start: a connection is accepted by the kernel at once, and read when the app gets to it.
	settingsTimeout = 10 * time.Second
	// maxUpstreams is from how many connections on clients share them. Each costs both sides memory
	// and a read of its own.
	maxUpstreams = 64
	// dialPause is how long no connection is made for more clients when the app has refused one.
	dialPause = time.Second
)

// errNoHTTP2 says that the app does not speak HTTP/2.
var errNoHTTP2 = errors.New("the app does not answer in HTTP/2")

// upstreams are the connections to the app. Each client's connection is assigned one, as if it were
// connected to the app itself: so a client whose uploads the app does not read exhausts the window of
// its own connection, and an app with a worker per connection gets work for all. Beyond maxUpstreams
// clients share; a request that finds no room on its assigned connection goes to another one.
type upstreams struct {
	e      *Engine
	dialer net.Dialer

	mu      sync.Mutex // guards Assigned and Clients of all connections, too
	conns   []*transport.Conn
	dial    *dial         // under way
	refused time.Duration // when the app has refused one; 0: not the last time
}

// dial is an attempt to make a connection.
type dial struct {
	done chan struct{}
	err  error // written before done is closed
}

// open sends the request on a connection that has room, and says whether there is one. The caller
// holds x.mu.
func (u *upstreams) open(b *transport.Batch, x *exchange) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.place(b, x) {
		return false
	}
	x.upstream.Resume(b)
	return true
}

func (u *upstreams) place(b *transport.Batch, x *exchange) bool {
	client := x.client.Conn()
	if client == nil {
		return false
	}
	own := client.Assigned
	if own != nil {
		if own.Open(b, &x.upstream, &x.request) {
			return true
		}
		if !own.Alive() {
			unassign(client)
			own = nil
		}
	}
	var best *transport.Conn
	for _, c := range u.conns {
		if c != own && (best == nil || c.Clients < best.Clients) && c.HasRoom() {
			best = c
		}
	}
	if best == nil || !best.Open(b, &x.upstream, &x.request) {
		return false
	}
	switch {
	case own != nil: // it is full for now
	case best.Clients == 0 || len(u.conns) >= maxUpstreams:
		client.Assigned = best
		best.Clients++
	case u.dial == nil && (u.refused == 0 || u.e.Rules.Now()-u.refused >= dialPause):
		u.connect() // for the next one
	}
	return true
}

// release takes back the assignment of a client's connection.
func (u *upstreams) release(client *transport.Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	unassign(client)
}

func unassign(client *transport.Conn) {
	if client.Assigned != nil {
		client.Assigned.Clients--
		client.Assigned = nil
	}
}

// wait waits until there is a connection with room, and makes one if there is none.
func (u *upstreams) wait(ctx context.Context) error {
	u.mu.Lock()
	for _, c := range u.conns {
		if c.HasRoom() {
			u.mu.Unlock()
			return nil
		}
	}
	d := u.dial
	if d == nil {
		d = u.connect()
	}
	u.mu.Unlock()
	select {
	case <-d.done:
		return d.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// connect begins to make a connection. The caller holds mu.
func (u *upstreams) connect() *dial {
	d := &dial{done: make(chan struct{})}
	u.dial = d
	u.e.group.Go(func() {
		c, err := u.newConn()
		if err == nil && !c.HasRoom() { // it closed, or allows no stream at all
			_ = c.Net.Close()
			err = errNoHTTP2
		}
		u.mu.Lock()
		if u.refused = 0; err == nil {
			u.conns = append(u.conns, c)
		} else {
			u.refused = u.e.Rules.Now()
		}
		d.err = err
		u.dial = nil
		u.mu.Unlock()
		close(d.done)
	})
	return d
}

// newConn connects to the app and waits for its settings.
func (u *upstreams) newConn() (*transport.Conn, error) {
	nc, err := u.dialer.DialContext(u.e.ctx, u.e.Network, u.e.Address)
	if err != nil {
		return nil, err
	}
	var b transport.Batch
	c := transport.NewUpstream(&u.e.group, &b, nc)
	if !u.e.serveUpstream(c) {
		_ = nc.Close()
		return nil, net.ErrClosed
	}
	b.Flush()
	t := time.NewTimer(settingsTimeout)
	defer t.Stop()
	select {
	case <-c.Ready():
	case <-t.C:
		_ = nc.Close()
		return nil, errNoHTTP2
	}
	return c, nil
}

// remove takes a connection out that takes no more requests.
func (u *upstreams) remove(c *transport.Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if i := slices.Index(u.conns, c); i >= 0 {
		u.conns = slices.Delete(u.conns, i, i+1)
	}
}
